"""The exporters under the real SDK of OpenTelemetry: every field is found again by SQL."""

from __future__ import annotations

import errno
import logging
import math
import os
from typing import Any

import orjson
import pytest
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

import lakelog
from lakelog.disk import disk
from tests.conftest import MakeLake

RESOURCE = Resource({"service.name": "shop", "service.version": "1.2"}, "https://schema.example/1")
ATTRIBUTES: dict[str, Any] = {
    "text": "é",
    "flag": False,
    "whole": 2**62,
    "real": 1.5,
    "nan": math.nan,
    "texts": ("a", "b"),
    "numbers": (1, 2),
    "empty": "",
}
STORED = {**ATTRIBUTES, "nan": "NaN", "texts": ["a", "b"], "numbers": [1, 2]}


def traced(lake: lakelog.Lake, **given: Any) -> tuple[TracerProvider, trace.Tracer]:
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False, **given)
    provider.add_span_processor(BatchSpanProcessor(lakelog.LakeSpanExporter(lake)))
    return provider, provider.get_tracer("cart", "3.1", "https://schema.example/2", {"a": 1})


def rows(lake: lakelog.Lake) -> list[dict[str, Any]]:
    names = ["time", "type", "source", "level", "message", "data"]
    found = lake.sql(f"SELECT {', '.join(names)} FROM events ORDER BY seq").fetchall()
    events = [dict(zip(names, row, strict=True)) for row in found]
    return [e | {"data": orjson.loads(e["data"])} for e in events]


def test_every_field_of_a_span_is_stored(make_lake: MakeLake) -> None:
    """Attributes of all types, events, links, status, parent, resource and scope."""
    lake = make_lake()
    provider, tracer = traced(lake)
    with tracer.start_as_current_span("outer") as outer:
        context = outer.get_span_context()
        with tracer.start_as_current_span(
            "inner",
            kind=SpanKind.CLIENT,
            attributes=ATTRIBUTES,
            links=[Link(context, {"why": "retry"})],
        ) as inner:
            inner.add_event("sent", {"bytes": 12}, timestamp=1_770_000_000_000_000_123)
            inner.record_exception(ValueError("no"))
            inner.set_status(Status(StatusCode.ERROR, "declined"))
    provider.shutdown()
    stored_inner, stored_outer = rows(lake)
    assert (stored_inner["type"], stored_inner["source"]) == ("span", "shop")
    assert (stored_inner["message"], stored_inner["level"]) == ("inner", "ERROR")
    data = stored_inner["data"]
    ids = f"{context.trace_id:032x}", f"{context.span_id:016x}"
    assert (data["traceId"], data["parentSpanId"]) == ids
    assert data["attributes"] == STORED
    assert data["kind"] == 3
    assert data["status"] == {"code": 2, "message": "declined"}
    sent, failed = data["events"]
    assert sent == {
        "timeUnixNano": "1770000000000000123",
        "name": "sent",
        "attributes": {"bytes": 12},
    }
    assert failed["attributes"]["exception.message"] == "no"
    (link,) = data["links"]
    assert (link["traceId"], link["spanId"], link["attributes"]) == (*ids, {"why": "retry"})
    resource = {"service.name": "shop", "service.version": "1.2"}
    assert data["resource"].items() >= resource.items()
    assert data["resource"]["schemaUrl"] == "https://schema.example/1"
    assert data["scope"] == {
        "name": "cart",
        "version": "3.1",
        "schemaUrl": "https://schema.example/2",
        "attributes": {"a": 1},
    }
    assert stored_outer["level"] is None
    assert "parentSpanId" not in stored_outer["data"]
    micros = int(data["startTimeUnixNano"]) // 1000
    assert round(stored_inner["time"].timestamp() * 1e6) == micros


@pytest.mark.parametrize("moment", [10**21, 10**30, -(10**21), "soon", math.nan])
def test_a_time_that_is_none_keeps_no_other_span_away(make_lake: MakeLake, moment: Any) -> None:
    """As of a program that counts in another unit: the batch is stored, the time as it is."""
    lake = make_lake()
    provider, tracer = traced(lake)
    for name, start in (("before", None), ("odd", moment), ("behind", None)):
        tracer.start_span(name, start_time=start).end()
    provider.shutdown()
    stored = rows(lake)
    assert [row["message"] for row in stored] == ["before", "odd", "behind"]
    assert stored[1]["data"]["startTimeUnixNano"] == str(moment)


def test_long_spans_are_not_cut(make_lake: MakeLake) -> None:
    """As many attributes as the SDK lets through, each of any length."""
    lake = make_lake()
    limits = SpanLimits(max_attributes=1_000, max_attribute_length=SpanLimits.UNSET)
    provider, tracer = traced(lake, span_limits=limits)
    attributes = {f"k{n}": "x" * 1_000 for n in range(1_000)}
    tracer.start_span("long", attributes=attributes).end()
    provider.shutdown()
    assert rows(lake)[0]["data"]["attributes"] == attributes


def numbered(number: int) -> dict[str, Any]:
    """Attributes of all types, other values for each number."""
    return {
        "n": number,
        "text": f"é {number}",
        "flag": number % 2 == 0,
        "whole": 2**62 - number,
        "real": number + 0.5,
        "texts": (f"a{number}", "b"),
        "numbers": (number, -1),
        "reals": (0.5, number / 8),
        "flags": (True, number % 3 == 0),
    }


FOUND = """count(*), count(DISTINCT n), bool_and(a->>'text' = 'é ' || n),
    bool_and((a->>'flag')::BOOLEAN = (n % 2 = 0)),
    bool_and((a->>'whole')::BIGINT = 4611686018427387904 - n),
    bool_and((a->>'real')::DOUBLE = n + 0.5), bool_and(a->>'$.texts[0]' = 'a' || n),
    bool_and((a->>'$.numbers[0]')::BIGINT = n AND a->>'$.numbers[1]' = '-1'),
    bool_and((a->>'$.reals[1]')::DOUBLE = n / 8), bool_and(a->>'$.flags[0]' = 'true'),
    bool_and((a->>'$.flags[1]')::BOOLEAN = (n % 3 = 0))"""
"""Whether all attributes of all rows are those of `numbered`."""


@pytest.mark.thorough
def test_every_field_of_many_spans_and_logs_is_found_by_sql(make_lake: MakeLake) -> None:
    """Through the SDK's batch processors, each once: ids, times, attributes, events, links, and log
    records that belong to their spans. LAKELOG_TEST_SPANS sets the number."""
    lake = make_lake(memory_bytes="2GB")
    count = int(os.environ.get("LAKELOG_TEST_SPANS", "10000"))
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    # The processor drops what its queue cannot hold: here it holds all.
    spans = BatchSpanProcessor(lakelog.LakeSpanExporter(lake), max_queue_size=count)
    provider.add_span_processor(spans)
    tracer = provider.get_tracer("cart", "3.1")
    logs = LoggerProvider(resource=RESOURCE, shutdown_on_exit=False)
    exporter = lakelog.LakeLogExporter(lake)
    logs.add_log_record_processor(BatchLogRecordProcessor(exporter, max_queue_size=count))
    logger = logs.get_logger("cart", "3.1")
    start, linked = 1_770_000_000_000_000_000, trace.get_current_span().get_span_context()
    for n in range(count):
        links = [Link(linked, {"to": n - 1})] if n else None
        begun = start + n * 1_000_000
        with tracer.start_as_current_span(
            f"s{n}", attributes=numbered(n), links=links, start_time=begun, end_on_exit=False
        ) as span:
            span.add_event("half", numbered(n), timestamp=begun + 500_000)
            logger.emit(LogRecord(timestamp=begun, body=f"m{n}", attributes=numbered(n)))
        span.end(begun + 999_999)
        linked = span.get_span_context()
    provider.shutdown()
    logs.shutdown()

    def found(kind: str, attributes: str, more: str) -> tuple[Any, ...]:
        inner = f"SELECT *, data->'{attributes}' AS a FROM events WHERE type = '{kind}'"
        inner = f"SELECT *, (a->>'n')::BIGINT AS n FROM ({inner})"
        return lake.sql(f"SELECT {FOUND}, {more} FROM ({inner})").fetchall()[0]

    right = (count, count, *[True] * 9)
    times = f"""bool_and(message = 's' || n),
        bool_and((data->>'startTimeUnixNano')::BIGINT = {start} + n * 1000000),
        bool_and((data->>'endTimeUnixNano')::BIGINT = {start} + n * 1000000 + 999999),
        bool_and(epoch_us(time) = {start // 1000} + n * 1000),
        count(DISTINCT data->>'spanId')"""
    assert found("span", "$.attributes", times) == (*right, True, True, True, True, count)
    events = f"""bool_and(data->>'$.events[0].name' = 'half'),
        bool_and((data->>'$.events[0].timeUnixNano')::BIGINT = {start} + n * 1000000 + 500000),
        bool_and(json_array_length(data->'$.events') = 1)"""
    assert found("span", "$.events[0].attributes", events) == (*right, True, True, True)
    own = f"""bool_and(message = 'm' || n), bool_and(source = 'shop'),
        bool_and((data->>'timeUnixNano')::BIGINT = {start} + n * 1000000)"""
    assert found("log", "$.attributes", own) == (*right, True, True, True)
    joined = """SELECT count(*) FROM events log JOIN events span
        ON log.data->>'spanId' = span.data->>'spanId' AND log.type = 'log' AND span.type = 'span'
        WHERE log.data->>'$.attributes.n' = span.data->>'$.attributes.n'"""
    assert lake.sql(joined).fetchall() == [(count,)]
    chained = """SELECT count(*) FROM events later JOIN events earlier
        ON later.data->>'$.links[0].spanId' = earlier.data->>'spanId'
        AND later.type = 'span' AND earlier.type = 'span'
        WHERE later.data->>'$.links[0].attributes.to' = earlier.data->>'$.attributes.n'
        AND later.data->>'$.links[0].traceId' = earlier.data->>'traceId'"""
    assert lake.sql(chained).fetchall() == [(count - 1,)]


def test_every_field_of_a_log_record_is_stored(make_lake: MakeLake) -> None:
    """Text is the message, structure stays in the payload; severity, span and name are there."""
    lake = make_lake()
    provider = LoggerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(lakelog.LakeLogExporter(lake)))
    logger = provider.get_logger("cart", "3.1")
    _, tracer = traced(make_lake("other"))
    with tracer.start_as_current_span("s") as span:
        context = span.get_span_context()
        logger.emit(
            LogRecord(
                timestamp=1_770_000_000_000_000_123,
                severity_number=SeverityNumber.WARN2,
                severity_text="warning",
                body="declined",
                attributes=ATTRIBUTES,
            )
        )
    logger.emit(LogRecord(body={"nested": [1, {"a": None}]}, event_name="cart.paid"))
    provider.shutdown()
    first, second = rows(lake)
    assert (first["type"], first["level"], first["message"]) == ("log", "WARN", "declined")
    data = first["data"]
    assert data["attributes"] == STORED
    assert (data["severityNumber"], data["severityText"]) == (14, "warning")
    assert data["timeUnixNano"] == "1770000000000000123"
    assert data["traceId"] == f"{context.trace_id:032x}"
    assert data["spanId"] == f"{context.span_id:016x}"
    assert data["scope"] == {"name": "cart", "version": "3.1"}
    assert (second["type"], second["message"]) == ("cart.paid", None)
    assert second["data"]["body"] == {"nested": [1, {"a": None}]}


@pytest.mark.parametrize("body", [False, 0, 0.0, [], {}], ids=repr)
def test_an_empty_body_is_stored(make_lake: MakeLake, body: Any) -> None:
    """It was given, unlike members that are left out."""
    lake = make_lake()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(lakelog.LakeLogExporter(lake)))
    provider.get_logger("cart").emit(LogRecord(body=body))
    provider.shutdown()
    (row,) = rows(lake)
    assert row["data"]["body"] == body


def test_a_record_of_other_types_keeps_no_other_away(
    make_lake: MakeLake, capsys: pytest.CaptureFixture[str]
) -> None:
    """A severity may be its number; a record that cannot be stored is named once."""
    lake = make_lake()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(lakelog.LakeLogExporter(lake)))
    logger = provider.get_logger("cart")
    for severity in (None, 17, "high", "low", SeverityNumber.INFO):
        logger.emit(LogRecord(body="m", severity_number=severity))  # type: ignore[arg-type]
    provider.shutdown()
    assert [row["level"] for row in rows(lake)] == [None, "ERROR", "INFO"]
    assert capsys.readouterr().err.count("lakelog: a record was refused: TypeError") == 1


def test_a_handler_notes_the_open_span(make_lake: MakeLake) -> None:
    """Records of logging carry the ids of the span that is open, and can be joined with it."""
    lake = make_lake()
    provider, tracer = traced(lake)
    handler = lakelog.LakeHandler(lake)
    with tracer.start_as_current_span("s"):
        handler.handle(logging.makeLogRecord({"msg": "x", "levelno": 20, "levelname": "INFO"}))
    handler.close()
    provider.shutdown()
    query = """SELECT log.message, span.message FROM events log JOIN events span
        ON log.data->>'spanId' = span.data->>'spanId' AND log.type = 'log' AND span.type = 'span'"""
    assert lake.sql(query).fetchall() == [("x", "s")]


def test_an_export_that_fails_says_so(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk is the SDK's to know about, and never an exception in its thread."""
    lake = make_lake()
    exporter = lakelog.LakeSpanExporter(lake)
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    span = provider.get_tracer("t").start_span("s")
    span.end()

    def full(fd: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_all", full)
        assert exporter.export([span]) is SpanExportResult.FAILURE
    assert "No space left" in capsys.readouterr().err
    assert exporter.export([span]) is SpanExportResult.SUCCESS
    exporter.shutdown()
    assert lake.count() == 1
