"""A registry that answers what a test tells it: strange, wrong, endless, or behind a password."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

Reply = tuple[int, dict[str, str], bytes | Iterable[bytes]]


@dataclass
class FakeRegistry:
    """`answer` gets method, path and headers; `seen` are those of all requests so far."""

    answer: Callable[[str, str, dict[str, str]], Reply]
    address: str = ""
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)


@contextlib.contextmanager
def faked(answer: Callable[[str, str, dict[str, str]], Reply]) -> Iterator[FakeRegistry]:
    """Start one on a loopback port."""
    fake = FakeRegistry(answer)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.rfile.read(int(headers.get("content-length", "0")))
            fake.seen.append((self.command, self.path, headers))
            status, more, body = fake.answer(self.command, self.path, headers)
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            with contextlib.suppress(OSError):
                if isinstance(body, bytes):
                    if "Content-Length" not in more:
                        self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(body)
                    return
                self.send_header("Connection", "close")
                self.close_connection = True
                self.end_headers()
                for piece in body:
                    self.wfile.write(piece)

        do_HEAD = do_PUT = do_POST = do_PATCH = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    fake.address = f"127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
