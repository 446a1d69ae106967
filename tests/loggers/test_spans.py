"""lakelog.span: spans nest across tasks and threads, and are events like those of OpenTelemetry."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest
from opentelemetry.sdk.trace import TracerProvider

import lakelog
from lakelog.loggers.spans import recorder_of
from tests.conftest import MakeLake


def spans(lake: lakelog.Lake) -> dict[str, dict[str, Any]]:
    """The spans of a lake by name."""
    assert recorder_of(lake.path).flush(240)
    query = "SELECT message, level, data FROM events WHERE type = 'span'"
    return {
        name: orjson.loads(data) | {"level": level}
        for name, level, data in lake.sql(query).fetchall()
    }


def test_spans_of_two_branches_are_stored_in_each(make_lake: MakeLake) -> None:
    """In a program that works on several branches of one lake."""
    lake = make_lake()
    lake.branch("dev")
    dev = make_lake(branch="dev")
    with lakelog.span("of main", lake=lake):
        pass
    with lakelog.span("of dev", lake=dev), lakelog.span("within"):
        pass
    assert recorder_of(dev).flush(240)
    assert spans(lake).keys() == {"of main"}
    assert spans(dev).keys() == {"of dev", "within"}


def test_spans_nest(make_lake: MakeLake) -> None:
    """The inner one names the outer as its parent, is within it, and is stored in its lake."""
    lake = make_lake()
    with lakelog.span("outer", lake=lake, user="ann") as outer:
        with lakelog.span("inner") as inner:
            inner.set(rows=3)
            inner.event("read", bytes=10)
        outer.set(done=True)
    found = spans(lake)
    assert found["inner"]["parentSpanId"] == found["outer"]["spanId"] == outer.span_id
    assert found["inner"]["traceId"] == found["outer"]["traceId"]
    assert "parentSpanId" not in found["outer"]
    assert found["outer"]["attributes"] == {"user": "ann", "done": True}
    assert found["inner"]["attributes"] == {"rows": 3}
    assert found["inner"]["events"][0]["attributes"] == {"bytes": 10}
    moments = [
        int(found[name][f"{end}TimeUnixNano"])
        for name, end in [
            ("outer", "start"), ("inner", "start"), ("inner", "end"), ("outer", "end"),
        ]
    ]  # fmt: skip
    assert moments[1] <= moments[2] <= moments[3]


def test_spans_of_tasks_do_not_mix(make_lake: MakeLake) -> None:
    """Concurrent tasks each have their own open span."""
    lake = make_lake()

    async def step(name: str) -> None:
        with lakelog.span(name):
            await asyncio.sleep(0.001)
            with lakelog.span(f"{name}/inner"):
                await asyncio.sleep(0.001)

    async def main() -> None:
        with lakelog.span("root", lake=lake):
            await asyncio.gather(*(step(f"s{n}") for n in range(10)))

    asyncio.run(main())
    found = spans(lake)
    assert len(found) == 21
    for n in range(10):
        assert found[f"s{n}"]["parentSpanId"] == found["root"]["spanId"]
        assert found[f"s{n}/inner"]["parentSpanId"] == found[f"s{n}"]["spanId"]


def test_a_thread_is_given_its_parent(make_lake: MakeLake) -> None:
    """As a span, or by its ids, as another process would get them."""
    lake = make_lake()

    def work(name: str, parent: Any) -> None:
        with lakelog.span(name, parent=parent, lake=lake):
            pass

    with lakelog.span("outer", lake=lake) as outer:
        threads = [
            threading.Thread(target=work, args=("by span", outer)),
            threading.Thread(target=work, args=("by ids", outer.ids)),
            threading.Thread(target=work, args=("alone", None)),
        ]
        for thread in threads:
            thread.start()
            thread.join()
    found = spans(lake)
    assert found["by span"]["parentSpanId"] == outer.span_id
    assert found["by ids"]["parentSpanId"] == outer.span_id
    assert "parentSpanId" not in found["alone"]


def test_a_span_that_fails_keeps_the_exception(make_lake: MakeLake) -> None:
    """It goes on to the caller; the span has level ERROR and the stack."""
    lake = make_lake()
    with pytest.raises(ValueError, match="no"), lakelog.span("x", lake=lake):
        raise ValueError("no")
    found = spans(lake)["x"]
    assert found["level"] == "ERROR"
    assert found["status"] == {"code": 2, "message": "no"}
    assert found["attributes"]["exception"]["type"] == "ValueError"


def test_a_span_within_one_of_opentelemetry_is_of_its_trace(make_lake: MakeLake) -> None:
    """Programs that are traced already keep their traces."""
    lake = make_lake()
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    with tracer.start_as_current_span("theirs") as theirs, lakelog.span("ours", lake=lake):
        context = theirs.get_span_context()
    found = spans(lake)["ours"]
    assert found["traceId"] == f"{context.trace_id:032x}"
    assert found["parentSpanId"] == f"{context.span_id:016x}"


def test_without_a_lake_it_is_that_of_the_command_line(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LAKELOG_LAKE names it."""
    monkeypatch.setenv("LAKELOG_LAKE", str(home / "named"))
    with lakelog.span("x"):
        pass
    with lakelog.open(home / "named") as lake:
        assert list(spans(lake)) == ["x"]
