"""A store of objects behind a network that fails, in a process of its own: what it did is counted.

lost      a request was carried out, and its answer did not come
cut       a connection broke before the request arrived, or within the body of an answer
refused   503, and 409 for conditional writes that nobody else disturbed
contests  conditional writes that lost to another machine (412)
bytes     of the bodies of answers
"""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.sharedctypes import Synchronized
from typing import Any, ClassVar

COUNTERS = ("requests", "lost", "cut", "refused", "contests", "moves", "bytes")


@dataclass(frozen=True)
class Trouble:
    """How often each fault comes, and how long a request takes longer, or a conditional write."""

    seed: int = 0
    lost: float = 0.0
    cut: float = 0.0
    refused: float = 0.0
    latency: float = 0.0
    delay: float = 0.0
    conflicts: int = 0
    """So many of the first conditional writes of tags are answered by 409, and not carried out."""
    denied: bool = False
    """Whether every request is answered by 403."""


@dataclass
class FlakyBucket:
    """The address of the proxy, and what it has counted."""

    address: str
    counts: dict[str, Synchronized[int]] = field(repr=False)

    def count(self, name: str) -> int:
        """Return one of COUNTERS."""
        return self.counts[name].value


@contextlib.contextmanager
def flaky_bucket(target: str, trouble: Trouble) -> Iterator[FlakyBucket]:
    """Run a proxy before the store at an address."""
    context = multiprocessing.get_context("spawn")
    counts = {name: context.Value("q", 0) for name in COUNTERS}
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    port = listener.getsockname()[1]
    process = context.Process(target=_serve, args=(listener, target, trouble, counts), daemon=True)
    process.start()
    listener.close()
    try:
        yield FlakyBucket(f"http://127.0.0.1:{port}", counts)  # type: ignore[arg-type]
    finally:
        process.terminate()
        process.join()


class _Proxy:
    """What all requests share: the store behind, chance, and the counts."""

    def __init__(self, target: str, trouble: Trouble, counts: dict[str, Any]) -> None:
        self.host, self.trouble = target.removeprefix("http://"), trouble
        self.counts, self._local = counts, threading.local()
        self._chance, self._lock = random.Random(trouble.seed), threading.Lock()

    def happens(self, probability: float) -> bool:
        """Whether chance has it."""
        with self._lock:
            return self._chance.random() < probability

    def add(self, name: str, count: int = 1) -> None:
        """Count one, or so many."""
        with self.counts[name].get_lock():
            self.counts[name].value += count

    def forward(self, handler: Any, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return the answer of the store."""
        for _ in range(3):
            link = getattr(self._local, "link", None)
            link = link or http.client.HTTPConnection(self.host, timeout=60)
            self._local.link = link
            try:
                link.request(handler.command, handler.path, body, dict(handler.headers.items()))
                answer = link.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            except (http.client.HTTPException, OSError):
                link.close()
                self._local.link = None
        raise OSError("the store does not answer the proxy")

    def refuses(self, path: str, is_conditional: bool) -> bool:
        """Whether a request is answered by an error, and not carried out."""
        is_tag = is_conditional and "/refs/tags/" in path
        conflicts = is_tag and self.counts["refused"].value < self.trouble.conflicts
        return conflicts or self.happens(self.trouble.refused)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    proxy: ClassVar[_Proxy]

    def do_GET(self) -> None:
        proxy, trouble = self.proxy, self.proxy.trouble
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        is_conditional = self.headers.get("If-None-Match") is not None
        proxy.add("requests")
        time.sleep(trouble.latency)
        if trouble.denied:
            return self._answer(403, [], b"")
        if proxy.happens(trouble.cut / 2):
            proxy.add("cut")
            return self._break()
        if proxy.refuses(self.path, is_conditional):
            proxy.add("refused")
            return self._answer(409 if is_conditional else 503, [], b"")
        if is_conditional:
            time.sleep(trouble.delay)
        status, headers, data = proxy.forward(self, body)
        proxy.add("bytes", len(data))
        if is_conditional and "/refs/heads/" in self.path:
            proxy.add("contests" if status == 412 else "moves")
        if self.command == "PUT" and proxy.happens(trouble.lost):
            proxy.add("lost")
            return self._break()
        if self.command == "GET" and len(data) > 1 and proxy.happens(trouble.cut / 2):
            proxy.add("cut")
            return self._answer(status, headers, data, len(data) // 2)
        return self._answer(status, headers, data)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _break(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(
        self, status: int, headers: list[tuple[str, str]], data: bytes, up_to: int | None = None
    ) -> None:
        self.send_response(status)
        length = str(len(data))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(data[:up_to])
        if up_to is not None:
            self.wfile.flush()
            self._break()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that was killed is no fault of the proxy."""


def _serve(listener: socket.socket, target: str, trouble: Trouble, counts: dict[str, Any]) -> None:
    _Handler.proxy = _Proxy(target, trouble, counts)
    server = _Server(("127.0.0.1", 0), _Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.serve_forever(0.05)
