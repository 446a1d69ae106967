"""What several tests use: documents of JSON, and records of several lines."""

from __future__ import annotations

import json
import struct
from typing import Any

from lakelog.formats import dialects
from tests.support.samples import lines_of, objects_of

TRAIL = objects_of("cloudtrail")
PLAIN = [{"time": 5, "type": "A", "x": 1}, {"ts": "2024-05-01", "message": "m", "y": [1, {"z": 2}]}]
EVENT = {
    "specversion": "1.0",
    "id": "1",
    "source": "/s",
    "type": "T",
    "time": "2024-05-01T10:00:00Z",
}
FIRST = "2024-01-01T10:00:00.000000001Z"


def value(**held: Any) -> dict[str, Any]:
    """An attribute of OpenTelemetry."""
    return {"key": held.pop("key", "k"), "value": held}


LOG: dict[str, Any] = {
    "timeUnixNano": "1544712660300000000",
    "severityNumber": 10,
    "severityText": "Information",
    "traceId": "5B8",
    "body": {"stringValue": "hello"},
    "attributes": [
        value(key="s", stringValue="x"),
        value(key="i", intValue="10"),
        value(key="d", doubleValue=637.704),
        value(key="b", boolValue=True),
    ],
}
SPAN: dict[str, Any] = {
    "traceId": "5B8",
    "spanId": "E",
    "name": "a span",
    "startTimeUnixNano": 1544712660000000000,
    "endTimeUnixNano": "1544712661000000000",
    "kind": 2,
    "status": {"code": 2},
    "attributes": [value(stringValue="x")],
}


def logs(*records: Any, **more: Any) -> dict[str, Any]:
    """A request of logs."""
    scope = {"name": "lib", "version": "1", "attributes": [value(key="sa", stringValue="y")]}
    resource = {"attributes": [value(key="service.name", stringValue="shop")]}
    part = {"resource": resource, "scopeLogs": [{"scope": scope, "logRecords": list(records)}]}
    return {"resourceLogs": [part | more]}


def spans(*records: Any) -> dict[str, Any]:
    """A request of spans."""
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(records)}]}]}


WRITTEN = {
    "one line": lambda found: json.dumps(found),
    "indented": lambda found: json.dumps(found, indent=2) + "\n",
    "tabs": lambda found: json.dumps(found, indent="\t") + "\n",
    "a line each": lambda found: "[\n" + ",\n".join(map(json.dumps, found)) + "\n]\n",
    "commas first": lambda found: "[" + "\n,".join(map(json.dumps, found)) + "\n]\n",
    "records": lambda found: json.dumps({"Records": found}),
    "records, indented": lambda found: json.dumps({"Records": found}, indent=4),
    "crlf": lambda found: json.dumps(found, indent=2).replace("\n", "\r\n"),
    "two documents": lambda found: json.dumps(found) + "\n" + json.dumps(found[:1]) + "\n",
}


def piece(log: str, stream: str = "stdout", **more: Any) -> bytes:
    """A line as Docker writes it."""
    found = {"log": log, "stream": stream, "time": FIRST} | more
    return json.dumps(found, separators=(",", ":")).encode() + b"\n"


ENTRY = (
    b"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1534860261221373\nPRIORITY=3\n_COMM=sh\n"
    b"MESSAGE=gone = away\n\n"
)


def binary(name: bytes, value: bytes) -> bytes:
    """A field whose value may hold anything."""
    return name + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"


POOL: dict[str, list[bytes]] = {
    **{name: [line.encode() for line in lines_of(name)] for name in dialects.NAMED},
    "cloudevents": [json.dumps(EVENT).encode()],
    "docker": [piece("a") + piece("b\n"), piece("x\n", "stderr")],
    "json": [write(TRAIL + PLAIN).encode() for write in WRITTEN.values()],
    "otlp": [json.dumps(logs(LOG, LOG)).encode(), json.dumps(spans(SPAN), indent=1).encode()],
    "journald-export": [ENTRY, ENTRY + binary(b"X", b"a\n\nb")],
}
