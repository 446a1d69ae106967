"""Traces: everything that one request caused, whatever names its ids have."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.cli import cli
from lakelog.errors import UnknownRef
from lakelog.query import Relation
from lakelog.trace import TraceTree, trace_of, traces
from tests.support.effort import IS_WHOLE

START = 1_790_000_000
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def lake(home: Path) -> Iterator[lakelog.Lake]:
    with lakelog.open(home / "lake") as lake:
        lake.append([{"type": "noise", "id": f"n{n}", "data": {"n": n}} for n in range(20)])
        yield lake


def span(number: int, parent: int | None = None, **more: Any) -> dict[str, Any]:
    data = {"traceId": TRACE, "spanId": f"{number:016x}", "name": f"call {number}"}
    start = (START + number) * 10**9
    data |= {"startTimeUnixNano": str(start), "endTimeUnixNano": str(start + 2 * 10**6)}
    data |= {} if parent is None else {"parentSpanId": f"{parent:016x}"}
    message = f"call {number}"
    return {"type": "span", "time": START + number, "message": message, "data": data, **more}


def shape(trace: TraceTree) -> list[tuple[int, str | None]]:
    return [(placed.depth, placed.event.message) for placed in trace.events]


def test_spans_and_what_was_logged_within_them_are_a_tree(lake: lakelog.Lake) -> None:
    """By parent, then time; found by the id of the trace and of a span, in the tail and sealed."""
    inside = {"traceId": TRACE, "spanId": f"{2:016x}"}
    log = {"type": "log", "time": START + 9, "message": "inside", "data": inside}
    details = {"type": "decision", "time": START + 8, "message": "d", "data": {"details": inside}}
    lake.append([span(3, 1), span(2, 1), log, span(1), details])
    wanted = [(0, "call 1"), (1, "call 2"), (2, "d"), (2, "inside"), (1, "call 3")]
    for _ in ("tail", "sealed"):
        trace = lake.trace(TRACE)
        assert shape(trace) == wanted
        assert trace.events[0].event.duration_ms == 2
        assert [placed.offset_ms for placed in trace.events][:2] == [0, 1000]
        assert shape(lake.trace(f"{3:016x}")) == wanted
        lake.compact()


@pytest.mark.parametrize(
    ("causation", "correlation"),
    [
        ("causationId", "correlationId"),
        ("causation_id", "correlation_id"),
        ("causationid", "correlationid"),
    ],
)
def test_causes_are_followed_both_ways(
    lake: lakelog.Lake, causation: str, correlation: str
) -> None:
    """From any event of a chain to its first cause and all that it led to; by correlation, too."""
    chain: list[dict[str, Any]] = [
        {"type": "step", "id": "e0", "time": START, "message": "0", "data": {}}
    ]
    for n in range(1, 6):
        data = {causation: f"e{n - 1}"}
        chain.append(
            {"type": "step", "id": f"e{n}", "time": START + n, "message": f"{n}", "data": data}
        )
    lake.append(chain)
    assert shape(lake.trace("e3")) == [(n, f"{n}") for n in range(6)]
    related: list[dict[str, Any]] = [
        {"type": "a", "id": f"c{n}", "message": f"c{n}", "time": START + n}
        | {"data": {correlation: "order-17"}}
        for n in range(3)
    ]
    caused: dict[str, Any] = {
        "type": "b",
        "id": "late",
        "message": "late",
        "data": {causation: "c1"},
    }
    lake.append([*related, caused])
    wanted = [(0, "c0"), (0, "c1"), (1, "late"), (0, "c2")]
    assert shape(lake.trace("order-17")) == wanted
    assert shape(lake.trace("c2")) == wanted


def test_traceparent_of_cloudevents_is_a_parent(lake: lakelog.Lake) -> None:
    """As the distributed tracing extension writes it."""
    data = {"traceparent": f"00-{TRACE}-{1:016x}-01"}
    lake.append([span(1), {"type": "e", "time": START + 5, "message": "sent", "data": data}])
    assert shape(lake.trace(TRACE)) == [(0, "call 1"), (1, "sent")]


def test_cycles_and_orphans_are_shown_at_the_top(lake: lakelog.Lake) -> None:
    """Each event once, and marked."""
    data = [{"causationId": f"k{(n + 1) % 3}"} for n in range(3)]
    ring: list[dict[str, Any]] = [
        {"type": "r", "id": f"k{n}", "time": START + n, "message": f"k{n}", "data": data[n]}
        for n in range(3)
    ]
    selfish: dict[str, Any] = {
        "type": "r",
        "id": "me",
        "message": "me",
        "data": {"causationId": "me"},
    }
    lake.append([*ring, selfish, span(5, 99)])
    trace = lake.trace("k1")
    assert sorted(placed.event.message or "" for placed in trace.events) == ["k0", "k1", "k2"]
    assert [placed.is_cycle for placed in trace.events] == [True, False, False]
    (only,) = lake.trace("me").events
    assert only.is_cycle
    (orphan,) = lake.trace(TRACE).events
    assert orphan.is_orphan


def test_an_event_without_links_is_a_trace_of_its_own(lake: lakelog.Lake) -> None:
    """As its neighbours are others'."""
    assert len(lake.trace("n3")) == 1
    for unknown in ("n33", "", "tra'ce"):
        with pytest.raises(UnknownRef, match="no event has"):
            lake.trace(unknown)


def test_a_trace_of_100_000_events(lake: lakelog.Lake) -> None:
    """One chain of all of them, and all below one span."""
    count = 100_000 if IS_WHOLE else 5_000
    events = [span(n, n - 1 if n % 2 else 0) for n in range(1, count)]
    lake.append([span(0), *events])
    started = time.process_time()
    trace = lake.trace(TRACE)
    assert len(trace) == count
    assert time.process_time() - started < 60


def test_the_past_has_its_own_traces(lake: lakelog.Lake) -> None:
    """At a tag, what was caused until then."""
    lake.append([span(1)])
    lake.tag("one")
    lake.append([span(2, 1)])
    assert (len(lake.at("one").trace(TRACE)), len(lake.trace(TRACE))) == (1, 2)


def test_the_verb_prints_a_tree_of_80_columns_or_json(lake: lakelog.Lake) -> None:
    """Deep ones as well."""
    lake.append([span(n, n - 1 if n else None, level="ERROR") for n in range(40)])

    def run(*arguments: str) -> Any:
        environment = {"COLUMNS": "80"}
        return CliRunner().invoke(cli, ["--lake", lake.path, "trace", *arguments], env=environment)

    lines = run(TRACE).output.splitlines()
    assert len(lines) == 41
    assert max(map(len, lines)) <= 80
    assert "+1000us" not in lines[2]
    assert lines[2].split()[:4] == ["+1.00s", "2ms", "ERROR", "span"]
    record = json.loads(run(TRACE, "--json").stdout)
    assert [event["depth"] for event in record["events"]] == list(range(40))
    assert run("nothing").exit_code != 0


@pytest.mark.parametrize("effects", [3, 300])
def test_causes_and_effects_are_looked_up_or_read(lake: lakelog.Lake, effects: int) -> None:
    """However many ids a trace has, it is the same: a chain of causes and all of their effects, and
    no other effect of what caused them."""
    chain = [f"c{n}" for n in range(7)]
    pairs = list(itertools.pairwise(chain))
    pairs += [("c4", f"e{n}") for n in range(effects)] + [("e1", "f0"), ("c1", "sibling")]
    lake.append([{"type": "t", "id": "c0", "message": "c0"}])
    lake.append(
        [
            {"type": "t", "id": id, "message": id, "data": {"details": {"causation_id": cause}}}
            for cause, id in pairs
        ]
    )
    wanted = {*chain, *(f"e{n}" for n in range(effects)), "f0"}
    for _ in ("tail", "sealed"):
        assert {message for _, message in shape(lake.trace("c3"))} == wanted
        lake.compact()


def test_a_long_chain_of_causes_takes_a_few_queries(lake: lakelog.Lake) -> None:
    """Not one for each of its steps."""
    events = [{"type": "t", "id": f"c{n}", "data": {"causationId": f"c{n - 1}"}} for n in range(60)]
    lake.append(events)
    queries: list[str] = []

    def ask(query: str) -> Relation:
        queries.append(query)
        return lake.sql(query)

    assert len(trace_of(ask, "c59")) == 60
    assert len(queries) < 25


def test_an_event_with_many_effects_is_the_root_of_them(lake: lakelog.Lake) -> None:
    """More than are looked up one by one, though it has no links itself."""
    effects = [{"type": "t", "id": f"e{n}", "data": {"causationId": "root"}} for n in range(300)]
    lake.append([{"type": "t", "id": "root", "message": "begin"}, *effects])
    trace = lake.trace("root")
    assert shape(trace)[:2] == [(0, "begin"), (1, None)]
    assert len(trace) == 301


def test_a_span_without_a_trace_is_found(lake: lakelog.Lake) -> None:
    """With what was logged within it."""
    span_id = {"spanId": "s1"}
    lake.append([{"type": "span", "message": "s", "data": span_id}, {"type": "t", "data": span_id}])
    assert shape(lake.trace("s1")) == [(0, "s"), (1, None)]


def test_absurd_numbers_of_a_span_take_no_trace_from_others(lake: lakelog.Lake) -> None:
    """Neither its own nor the list of all."""
    bound = (1 << 63) - 1
    absurd = span(1)
    absurd["data"] |= {"startTimeUnixNano": -5, "endTimeUnixNano": bound}
    for tokens, cost in ((bound, "NaN"), (bound, "inf"), (7, 0.5)):
        usage = {"gen_ai.usage.input_tokens": tokens, "gen_ai.usage.cost": cost}
        lake.append(span(2, 1) | {"data": {**span(2, 1)["data"], "attributes": usage}})
    lake.append(absurd)
    assert lake.trace(TRACE).events[0].event.duration_ms == pytest.approx(bound / 1e6)
    (summary,) = traces(lake.sql, order="dearest")
    assert (summary.events, summary.input_tokens, summary.cost) == (4, 7, 0.5)


@pytest.mark.parametrize("spelled", ["NaN", "inf", "soon"])
def test_a_duration_that_is_no_number_is_none(lake: lakelog.Lake, spelled: str) -> None:
    lake.append({"type": "t", "id": "x", "data": {"traceId": TRACE, "duration_ms": spelled}})
    assert lake.trace("x").events[0].event.duration_ms is None


def test_an_id_of_any_characters_finds_its_trace(lake: lakelog.Lake, home: Path) -> None:
    """Also where the payload writes them as escapes, and none of them is of a pattern."""
    line = r'{"type":"log","message":"m","data":{"traceId":"\u00fc\"|.*\\("}}'
    (home / "log.jsonl").write_text(line + "\n")
    lake.ingest([home / "log.jsonl"])
    assert shape(lake.trace('ü"|.*\\(')) == [(0, "m")]
    for unknown in ('ü"|.+\\(', "\udcff"):
        with pytest.raises(UnknownRef):
            lake.trace(unknown)
