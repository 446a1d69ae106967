"""The exporters under the real SDK of OpenTelemetry: every field is found again by SQL."""

from __future__ import annotations

import errno
import logging
import math
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
from lakelog.store import disk
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


def test_long_spans_are_not_cut(make_lake: MakeLake) -> None:
    """As many attributes as the SDK lets through, each of any length."""
    lake = make_lake()
    limits = SpanLimits(max_attributes=1_000, max_attribute_length=SpanLimits.UNSET)
    provider, tracer = traced(lake, span_limits=limits)
    attributes = {f"k{n}": "x" * 1_000 for n in range(1_000)}
    tracer.start_span("long", attributes=attributes).end()
    provider.shutdown()
    assert rows(lake)[0]["data"]["attributes"] == attributes


def test_many_spans_are_each_stored_once(make_lake: MakeLake) -> None:
    """Batches of the SDK arrive whole, in order."""
    lake = make_lake()
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    exporter = lakelog.LakeSpanExporter(lake)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=20_000))
    tracer = provider.get_tracer("t")
    for n in range(10_000):
        tracer.start_span("s", attributes={"n": n}).end()
    provider.shutdown()
    query = "SELECT count(*), count(DISTINCT data->>'$.attributes.n') FROM events"
    assert lake.sql(query).fetchall() == [(10_000, 10_000)]


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
