"""Events over HTTP, each answered once it is synced: JSON lines, one event a request, and OTLP.

lakelog is its own server; a peer stands behind the same framework (`http_server`). The client is
the same for all, one process with sockets that send as soon as they are answered. No two requests
are the same, as lakelog stores what comes again once.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import orjson

from benchmarks.measure import percentile
from benchmarks.peers.steps import Maker, batches

LINES, TOGETHER = 1_000, 4
"""Events of a request, and connections, where there are many events in one."""
SINGLE = 64
"""Connections that send one event a request."""
_OK = b"HTTP/1.1 200"


def http(make: Maker, events: str, span: str) -> dict[str, Any]:
    """Send for `span` seconds each: lines, single events and, where it is known, OTLP."""
    result: dict[str, Any] = {}
    with _serving(make) as server:
        lines = (_text(batch) for batch in batches(events, LINES))
        singles = (_text(batch) for batch in batches(events, 1))
        # The first loads what all others need.
        _send(server, "/ingest", lines, LINES, TOGETHER, float(span) / 4)
        result["lines"] = _send(server, "/ingest", lines, LINES, TOGETHER, float(span))
        result["single"] = _send(server, "/ingest", singles, 1, SINGLE, float(span))
        if make.name == "lakelog" and find_spec("opentelemetry.proto"):
            result["otlp"] = _send(
                server, "/v1/logs", _records(), LINES, TOGETHER, float(span), "x-protobuf"
            )
        result["server_peak"] = _peak(server.process.pid)
    return {"of": result}


@dataclass
class _Server:
    process: subprocess.Popen[str]
    port: int
    sent: int = 0

    def cpu(self) -> float:
        """Seconds of processors that it and those of its children that ended have used."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _serving(make: Maker) -> Iterator[_Server]:
    module = ["benchmarks.peers.http_server", make.name, make.root]
    if make.name == "lakelog":
        module = ["lakelog", "--lake", f"{make.root}/lake", "serve", "--port", "0", "--print-url"]
    process = subprocess.Popen([sys.executable, "-m", *module], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        first = process.stdout.readline().strip()
        if not first:
            raise AssertionError("the server did not start")
        yield _Server(process, int(first.rpartition(":")[2]))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def _text(batch: list[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(event) + b"\n" for event in batch)


def _records() -> Iterator[bytes]:
    """Export requests of log records as the SDKs send them, with six attributes each."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    request = ExportLogsServiceRequest()
    resource_logs = request.resource_logs.add()
    resource_logs.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope_logs = resource_logs.scope_logs.add()
    for number in range(LINES):
        moment = 1_790_000_000_000_000_000 + number * 1_000_003
        record = scope_logs.log_records.add(time_unix_nano=moment, severity_number=9)
        record.body.string_value = f"order {number * 7919 % 100_003} was handled"
        for key, value in (("http.request.method", "POST"), ("url.path", f"/orders/{number}")):
            record.attributes.add(key=key).value.string_value = value
        record.attributes.add(key="http.response.status_code").value.int_value = 200 + number % 3
        record.attributes.add(key="duration").value.double_value = number * 1.7
        record.attributes.add(key="code.file.path").value.string_value = "/srv/app/orders.py"
        record.attributes.add(key="code.line.number").value.int_value = 118
        record.trace_id, record.span_id = number.to_bytes(16, "big"), number.to_bytes(8, "big")
    body = request.SerializeToString()
    while True:
        yield body


@dataclass
class _Connection:
    """A connection, and since when it waits for an answer."""

    socket: socket.socket
    answer: bytes = b""
    began: float = 0.0
    times: list[float] = field(default_factory=list)

    def send(self, head: bytes, body: bytes) -> None:
        self.began = time.perf_counter()
        self.socket.sendall(head + body)

    def is_answered(self) -> bool:
        """Read what is there. Raises AssertionError for an answer that is not 200."""
        self.answer += self.socket.recv(1 << 16)
        head, end, body = self.answer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
        if not end or len(body) < int(length or 0):
            return False
        if not head.startswith(_OK):
            raise AssertionError(f"the server answered {head[:100]!r} {body[:200]!r}")
        self.times.append(time.perf_counter() - self.began)
        self.answer = b""
        return True


def _send(
    server: _Server,
    path: str,
    bodies: Iterator[bytes],
    size: int,
    connections: int,
    span: float,
    media_type: str = "x-ndjson",
) -> dict[str, float]:
    """Send bodies of `size` events from so many connections for a while; return the rate, times,
    and processor time."""
    selector = selectors.DefaultSelector()

    def send(connection: _Connection) -> None:
        server.sent += 1
        body = next(bodies)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nIdempotency-Key: {server.sent}\r\n"
            f"Content-Type: application/{media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.send(head.encode(), body)

    everyone = [
        _Connection(socket.create_connection(("127.0.0.1", server.port), timeout=60))
        for _ in range(connections)
    ]
    before, began = server.cpu(), time.perf_counter()
    for connection in everyone:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        send(connection)
    waiting = connections
    while waiting:
        for key, _ in selector.select(60):
            if key.data.is_answered():
                if time.perf_counter() - began < span:
                    send(key.data)
                else:
                    waiting -= 1
    whole, cpu = time.perf_counter() - began, server.cpu() - before
    selector.close()
    for connection in everyone:
        connection.socket.close()
    times = [t for connection in everyone for t in connection.times]
    count = len(times) * size
    return {
        "rate": count / whole,
        "cpu": cpu / count,
        "p50": percentile(times, 0.5),
        "p99": percentile(times, 0.99),
    }


def _peak(process: int) -> float:
    """Megabytes that a process has used at most."""
    with open(f"/proc/{process}/status") as file:
        peak = next(line for line in file if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024  # the kernel says kB, whatever a page is
