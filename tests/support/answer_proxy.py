"""A proxy between a client of HTTP and its server that remembers bodies, and which were answered.

It passes requests and answers as they are. Where the server is not there it closes the connection,
as a server that was killed does.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

_HOP = {"connection", "transfer-encoding", "content-length", "date", "server", "keep-alive"}


class AnswerProxy:
    """Passes requests to a port of this machine. `bodies` came; `answered` were answered 2xx."""

    def __init__(self, target: int) -> None:
        self.bodies: list[bytes] = []
        self.answered: list[bytes] = []
        self._changed = threading.Condition()
        self._open = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, target))
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait(self, count: int, seconds: float) -> None:
        """Wait until so many more bodies are answered with 2xx, and no request is open."""
        with self._changed:
            wanted = len(self.answered) + count
            is_there = self._changed.wait_for(
                lambda: len(self.answered) >= wanted and not self._open, seconds
            )
            assert is_there, f"{len(self.answered)} of {wanted} bodies were answered"

    def came(self, body: bytes) -> None:
        """A request has come."""
        with self._changed:
            self.bodies.append(body)
            self._open += 1

    def ended(self, body: bytes, status: int) -> None:
        """It was answered; 0 is no answer."""
        with self._changed:
            self._open -= 1
            if status // 100 == 2:
                self.answered.append(body)
            self._changed.notify_all()


def _handler(proxy: AnswerProxy, target: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self._body()
            text = _text(body, self.headers.get("content-encoding", ""))
            proxy.came(text)
            status = 0
            try:
                status = self._pass(body)
            finally:
                proxy.ended(text, status)

        do_PUT = do_POST

        def do_GET(self) -> None:
            self._pass(b"")

        do_HEAD = do_GET

        def _pass(self, body: bytes) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", target, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in (*_HOP, "expect")}
            with contextlib.closing(connection):
                try:
                    connection.request(self.command, self.path, body or None, headers)
                    response = connection.getresponse()
                    content = response.read()
                except (OSError, http.client.HTTPException):
                    self.close_connection = True
                    return 0
            self.send_response_only(response.status)
            for name, value in response.getheaders():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return response.status

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            chunks = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def _text(body: bytes, encoding: str) -> bytes:
    """What a body says; of snappy, whose texts of small size are as they were, the body itself."""
    return {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(encoding, bytes)(body)
