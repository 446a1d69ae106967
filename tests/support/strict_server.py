"""HTTP servers for targets of a sync, which check the protocol and fail when they are told to.

`fault` is asked for each request and names what happens: `drop` (the connection breaks before the
request is carried out), `torn` (after half of its body), `lose` (it is carried out and the reply
lost), `half` (of the reply), a status such as `429` that is answered instead, or "" for nothing.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import os
import signal
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

PATIENCE = 120.0


class Refused(Exception):
    """What a server refuses: a status and the body of the answer."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status, body)
        self.status, self.body = status, body


class ProtocolError(AssertionError):
    """A request that no client may send."""


@dataclass(frozen=True)
class Request:
    """A request: options are those of its query."""

    number: int
    method: str
    path: str
    options: dict[str, str]
    body: bytes
    headers: Any


class StrictServer:
    """A server on a loopback port. Its data outlive a restart."""

    tls: ssl.SSLContext | None = None

    def __init__(self) -> None:
        self.mutex = threading.RLock()
        self.violations: list[str] = []
        self.fault: Callable[[Request], str] = lambda request: ""
        self.retry_after = "0"
        self.count = 0
        self._sockets: set[socket.socket] = set()
        self.port = 0
        self.start()

    def answer(self, request: Request) -> tuple[int, bytes]:
        """Carry a request out. Raises Refused, ProtocolError."""
        raise AssertionError

    def start(self) -> None:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 20  # one packet: a second one would wait for the first one's ACK

            def handle_one_request(self) -> None:
                outer._sockets.add(self.connection)
                with contextlib.suppress(OSError, ValueError):
                    super().handle_one_request()
                    return
                self.close_connection = True

            def log_message(self, *_: object) -> None: ...

            def _any(self) -> None:
                outer._handle(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads, allow_reuse_address = True, True

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        if self.tls:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        """Stop at once: all connections break."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._cut(*self._sockets)
        self._sockets.clear()

    def restart(self) -> None:
        """Stop and start; what was acknowledged is there."""
        self.stop()
        self.start()

    def _cut(self, *connections: socket.socket) -> None:
        for each in connections:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _handle(self, handler: Any) -> None:
        parts = urllib.parse.urlsplit(handler.path)
        options = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        length = int(handler.headers.get("Content-Length", 0))
        body = handler.rfile.read(length)
        if len(body) < length:
            # Whoever sent it was killed: a server carries out nothing of such a request.
            handler.close_connection = True
            return
        if handler.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        with self.mutex:
            self.count += 1
            path = urllib.parse.unquote(parts.path)
            request = Request(self.count, handler.command, path, options, body, handler.headers)
            fault = self.fault(request)
            if fault in ("drop", "torn"):
                self._cut(handler.connection)
                handler.close_connection = True
                return
            status, content = self._answer(request) if not fault.isdecimal() else (int(fault), b"")
        if fault == "lose":
            self._cut(handler.connection)
            handler.close_connection = True
            return
        handler.send_response(status)
        if fault.isdecimal() and self.retry_after:
            handler.send_header("Retry-After", self.retry_after)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if fault == "half":
            handler.wfile.write(content[: len(content) // 2])
            handler.wfile.flush()
            self._cut(handler.connection)
            handler.close_connection = True
        else:
            handler.wfile.write(content)

    def _answer(self, request: Request) -> tuple[int, bytes]:
        try:
            return self.answer(request)
        except Refused as refused:
            return refused.status, refused.body
        except Exception as error:
            self.violations.append(f"{request.method} {request.path}: {error!r}")
            return 400, b'{"error":"protocol"}'


@contextlib.contextmanager
def running(server: StrictServer) -> Iterator[Any]:
    """A server for a test; afterwards nothing was wrong with any request."""
    try:
        yield server
    finally:
        server.stop()
    assert server.violations == []


def nth(number: int, fault: str, which: str = "") -> Callable[[Request], str]:
    """The fault of the nth request from now on whose method and path contain `which`."""
    seen = 0

    def decide(request: Request) -> str:
        nonlocal seen
        seen += which in f"{request.method} {request.path}"
        return fault if seen == number and which in f"{request.method} {request.path}" else ""

    return decide


def killed_at(server: StrictServer, number: int, moment: str, work: Callable[[], object]) -> bool:
    """Run something in another process, which is killed at its nth request: `before` it is carried
    out, or `after` that and without an answer. Return whether it came to that."""
    child = 0
    struck = threading.Event()

    def kill(request: Request) -> str:
        if request.number != first + number:
            return ""
        until = time.monotonic() + PATIENCE
        while not child and time.monotonic() < until:
            time.sleep(0.001)
        struck.set()  # before: who waits for the child looks at it right after
        os.kill(child, signal.SIGKILL)
        return "drop" if moment == "before" else "lose"

    first, server.fault = server.count, kill
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    server.fault = lambda request: ""
    return struck.is_set()
