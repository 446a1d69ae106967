"""get_ai_logger: decisions with their outcomes, operations that nest, figures of the machine."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

import lakelog
from lakelog.loggers import logfile
from lakelog.loggers.ai import AILogger
from tests.conftest import MakeLake
from tests.support.followed_logs import close_all

KEYS = [
    "timestamp",
    "event_type",
    "category",
    "source",
    "details",
    "system_metrics",
    "user_interaction",
    "ai_analysis",
    "performance_impact",
]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AILogger]:
    """A logger on a file of its own."""
    yield lakelog.get_ai_logger(tmp_path / "ai.log", source="agent", strict=True)
    close_all()


def lines(log: AILogger, tmp_path: Path) -> list[dict[str, Any]]:
    """What stands in the file."""
    assert log.flush(240)
    return [orjson.loads(line) for line in (tmp_path / "ai.log").read_bytes().splitlines()]


def test_every_call_of_the_old_system_writes_its_line(log: AILogger, tmp_path: Path) -> None:
    """Each line has the members of the format, and what the call was given in `details`."""
    log.log_system_start("trainer", "1.2", {"lr": 0.1})
    with log.measure_operation("embed", batch=8) as operation:
        operation.metric("tokens", 120)
    log.ai_decision("route", ["a", "b", "c"], "b", 0.9, "cheaper")
    log.performance_metric("latency", 12.5, "ms")
    log.pattern_detected("retry storm", {"count": 7}, 0.8, "high")
    log.user_interaction("click", user="ann", target="buy")
    written = lines(log, tmp_path)
    assert [line["event_type"] for line in written] == [
        "start",
        "operation",
        "decision",
        "metric",
        "pattern",
        "interaction",
    ]
    for line in written:
        assert [key for key in line if key != "subject"] == KEYS
        assert line["source"] == "agent"
    start, operation_, decision, metric, pattern, interaction = (x["details"] for x in written)
    assert (start["action"], start["service"]) == ("service_start", "trainer")
    assert (start["version"], start["config"]) == ("1.2", {"lr": 0.1})
    assert (operation_["operation"], operation_["outcome"]) == ("embed", "success")
    assert operation_["metrics"] == {"tokens": 120}
    assert operation_["batch"] == 8
    assert written[1]["performance_impact"]["duration_ms"] == operation_["duration_ms"] >= 0
    assert (decision["chosen"], decision["alternatives"]) == ("b", ["a", "c"])
    assert written[2]["ai_analysis"] == {"confidence": 0.9, "reason": "cheaper"}
    assert (metric["metric"], metric["value"], metric["unit"]) == ("latency", 12.5, "ms")
    assert written[3]["performance_impact"] == {"latency": 12.5}
    assert (pattern["pattern"], pattern["impact"]) == ("retry storm", "high")
    assert written[5]["user_interaction"] == {"action": "click", "user": "ann"}
    assert interaction["target"] == "buy"


def test_figures_of_the_machine_are_real(log: AILogger, tmp_path: Path) -> None:
    """Percentages that somebody measured, in every line."""
    log.performance_metric("x", 1)
    (line,) = lines(log, tmp_path)
    metrics = line["system_metrics"]
    assert 0 <= metrics["cpu_percent"] <= 100
    assert 0 < metrics["memory_percent"] < 100


def test_an_outcome_is_linked_to_its_decision(log: AILogger, make_lake: MakeLake) -> None:
    """By id and subject, so that SQL and training sets bring the two together."""
    lake = make_lake()
    both = lakelog.get_ai_logger(None, lake=lake, source="agent")
    first = both.ai_decision("route", ["a", "b"], "a", 0.6, "default", subject="user-1")
    second = both.ai_decision("route", ["a", "b"], "b", 0.9, "cheaper")
    second.outcome("served", reward=1.0, latency=3)
    first.outcome("declined", reward=-1.0)
    assert both.flush(240)
    query = """SELECT d.subject = o.subject, d.data->>'$.details.chosen',
            o.data->>'$.details.outcome', (o.data->>'$.details.reward')::DOUBLE
        FROM events d JOIN events o
        ON d.data->>'$.details.decision_id' = o.data->>'$.details.decision_id'
        WHERE d.type = 'decision' AND o.type = 'outcome' ORDER BY 2"""
    assert lake.sql(query).fetchall() == [(True, "a", "declined", -1.0), (True, "b", "served", 1.0)]


def test_operations_nest_across_tasks(log: AILogger, tmp_path: Path) -> None:
    """Each asyncio task has its own; all belong to the trace of the one that started them."""

    async def step(name: str) -> None:
        with log.measure_operation(name):
            await asyncio.sleep(0.001)
            log.performance_metric(f"in {name}", 1)

    async def main() -> None:
        with log.measure_operation("outer"):
            await asyncio.gather(step("a"), step("b"))

    asyncio.run(main())
    written = [line["details"] for line in lines(log, tmp_path)]
    by_name = {d.get("operation") or d["metric"]: d for d in written}
    outer, a, b = by_name["outer"], by_name["a"], by_name["b"]
    assert "parentSpanId" not in outer
    assert a["parentSpanId"] == b["parentSpanId"] == outer["spanId"]
    assert {d["traceId"] for d in written} == {outer["traceId"]}
    assert by_name["in a"]["spanId"] == a["spanId"]
    assert by_name["in b"]["spanId"] == b["spanId"]


def test_an_operation_that_fails_keeps_the_error(log: AILogger, tmp_path: Path) -> None:
    """The exception goes on; outcome, error and stack are in the line."""
    with pytest.raises(ValueError, match="no"), log.measure_operation("x"):
        raise ValueError("no")
    with log.measure_operation("y") as operation:
        operation.fail("nothing found")
    failed, marked = (line["details"] for line in lines(log, tmp_path))
    assert (failed["outcome"], failed["error"]) == ("failure", "ValueError: no")
    assert failed["exception"]["frames"][-1]["code"] == 'raise ValueError("no")'
    assert (marked["outcome"], marked["error"]) == ("failure", "nothing found")


def test_rotation_keeps_every_line_and_sums_up(tmp_path: Path) -> None:
    """Backups and the file have all lines in order; each backup has a summary of its events."""
    log = lakelog.get_ai_logger(tmp_path / "ai.log", source="agent", rotate_bytes=20_000)
    for n in range(200):
        log.performance_metric("latency", n, "ms")
        log.pattern_detected("burst", {"n": n}, 0.5, "low")
        if n % 20 == 19:
            assert log.flush(240)
    close_all()  # which waits for the summaries
    backups = sorted(p for p in tmp_path.glob("ai.log.*") if p.suffix != ".json")
    assert len(backups) >= 3
    text = b"".join(p.read_bytes() for p in (*backups, tmp_path / "ai.log") if p.exists())
    written = [orjson.loads(line) for line in text.splitlines()]
    values = [x["details"]["value"] for x in written if x["event_type"] == "metric"]
    assert values == list(range(200))
    for backup in backups:
        summary = orjson.loads(Path(f"{backup}.summary.json").read_bytes())
        held = [orjson.loads(line) for line in backup.read_bytes().splitlines()]
        assert summary["lines"] == len(held)
        assert summary["events"] == Counter(line["event_type"] for line in held)
        assert (summary["first"], summary["last"]) == (held[0]["timestamp"], held[-1]["timestamp"])


def test_file_and_lake_have_the_same_events(log: AILogger, make_lake: MakeLake) -> None:
    """A line that is ingested gives the event that a logger of a lake alone stores."""
    direct, ingested = make_lake("direct"), make_lake("ingested")
    lakelog.get_ai_logger(None, lake=direct, source="agent").performance_metric("x", 1, "ms")
    log.performance_metric("x", 1, "ms")
    assert log.flush(240)
    ingested.ingest(next(iter(logfile._QUEUES)))
    query = """SELECT type, category, source, subject, data->'$.details',
        data->'$.performance_impact' FROM events"""
    deadline = time.monotonic() + 240
    while not direct.count() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert direct.sql(query).fetchall() == ingested.sql(query).fetchall()


def test_a_forked_process_goes_on_sampling(log: AILogger, tmp_path: Path) -> None:
    """The thread that samples is started again in a child."""
    child = os.fork()
    if not child:
        log.performance_metric("child", 1)
        log.flush(240)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    (line,) = lines(log, tmp_path)
    assert line["details"]["metric"] == "child"
    assert line["system_metrics"]["memory_percent"] > 0
