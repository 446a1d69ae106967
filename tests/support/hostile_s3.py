"""A server in the place of an object store that lies, by case; counts what comes to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

CASES = (
    "endless file", "shorter than it says", "errors", "somewhere else", "garbage",
    "deep", "a list without end", "keys that are paths", "a list that expands",
)  # fmt: skip
_ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
_BOMB = f'<!DOCTYPE x [<!ENTITY e0 "lol">{_ENTITIES}]><ListBucketResult>&e11;</ListBucketResult>'
_LIST = """<?xml version="1.0"?><ListBucketResult><Name>b</Name><IsTruncated>{more}</IsTruncated>
<NextContinuationToken>same</NextContinuationToken>{keys}</ListBucketResult>"""
_KEY = """<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>
<ETag>"x"</ETag><Size>5</Size></Contents>"""


class Handler(BaseHTTPRequestHandler):
    """Answers every request as its server's case has it."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        case = self.server.case  # type: ignore[attr-defined]
        if "list-type" in self.path:
            return self._list(case)
        if case == "somewhere else":
            self.send_response(307)
            self.send_header("Location", self.server.elsewhere)  # type: ignore[attr-defined]
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if case == "errors":
            return self._send(b"<Error><Code>\x1b[2J</Code></Error>", status=500)
        if case == "endless file":
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 60))
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.send_header("ETag", "x")
            self.end_headers()
            while True:
                self.wfile.write(bytes(1 << 20))
        if case == "shorter than it says":
            return self._send(b"{", length=100)
        self._send(b"[" * 200_000 if case == "deep" else b"garbage\n")

    def do_HEAD(self) -> None:
        self._send(b"")

    def _list(self, case: str) -> None:
        keys = (
            "x/refs/heads/main/1" if case != "keys that are paths" else "x/refs/../../../etc/evil"
        )
        if case == "a list that expands":
            return self._send(_BOMB.encode())
        more = "true" if case == "a list without end" else "false"
        self._send(_LIST.format(more=more, keys=_KEY.format(key=keys)).encode())

    def _send(self, body: bytes, *, status: int = 200, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("ETag", '"x"')
        self.end_headers()
        self.wfile.write(body)
        if length:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """The client went away, as it should."""


@contextmanager
def running(case: str, elsewhere: str = "") -> Iterator[str]:
    """Run a server; yield its address."""
    with _Server(("127.0.0.1", 0), Handler) as server:
        server.case, server.elsewhere = case, elsewhere  # type: ignore[attr-defined]
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
