"""A web server on this machine with feeds and files, well-behaved and not."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

AUDIO = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(AUDIO).hexdigest()


def rss(base: str, numbers: range, title: str = "Tech|Podcast") -> bytes:
    """A feed of episodes with enclosures, the newest first; even ones offer a transcript."""
    items = "".join(
        f"""<item><title>Episode {n}</title><guid isPermaLink="false">ep-{n}</guid>
        <pubDate>Mon, {n % 28 + 1:02} Sep 2025 02:00:00 +0200</pubDate>
        <enclosure url="/audio/{n}.mp3" length="{len(AUDIO)}" type="audio/mpeg"/>"""
        + (f'<podcast:transcript url="/text/{n}.vtt" type="text/vtt"/>' if n % 2 == 0 else "")
        + "</item>"
        for n in reversed(numbers)
    )
    return f"""<?xml version="1.0" encoding="utf-8"?>
    <rss version="2.0" xmlns:podcast="https://podcastindex.org/namespace/1.0">
    <channel><title>{title}</title><link>{base}/</link>{items}</channel></rss>""".encode()


class FeedServer(ThreadingHTTPServer):
    """Serves `pages` by path; see `Handler` for the paths that misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server_port}"
        self.pages: dict[str, bytes] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.cut_after = 0
        """Bytes after which a file is cut short, once."""
        self.version = "1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: FeedServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer as the path says."""
        path = self.path
        self.server.requests.append((path, dict(self.headers.items())))
        if path in self.server.pages:
            self._page(self.server.pages[path])
        elif path.startswith("/audio/"):
            self._file(AUDIO)
        elif path.startswith("/text/"):
            self._page(b"WEBVTT\n")
        elif path.startswith("/hops/"):
            left = int(path.split("/")[2])
            self._redirect(f"/hops/{left - 1}" if left else "/feed.xml")
        elif path == "/loop":
            self._redirect("/loop")
        elif path == "/to-file":
            self._redirect("file:///etc/passwd")
        elif path in ("/endless", "/trickle"):
            self._endless(0.05 if path == "/trickle" else 0.0)
        elif path == "/bomb":
            body = gzip.compress(bytes(50_000_000))
            self._send(200, body, {"Content-Encoding": "gzip"})
        elif path == "/packed":
            body = gzip.compress(self.server.pages["/feed.xml"])
            self._send(200, body, {"Content-Encoding": "gzip"})
        else:
            self._send(404, b"nothing here", {})

    def _page(self, body: bytes) -> None:
        tag = f'"{hashlib.sha256(body).hexdigest()[:8]}"'
        if self.headers.get("If-None-Match") == tag:
            self._send(304, b"", {"ETag": tag})
        else:
            self._send(200, body, {"ETag": tag, "Content-Type": "application/xml"})

    def _file(self, body: bytes) -> None:
        """A file in part, or the first bytes of it as if the connection broke."""
        tag, start = f'"{self.server.version}"', 0
        wanted = self.headers.get("Range", "")
        if wanted and self.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        headers = {"ETag": tag}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        cut, self.server.cut_after = self.server.cut_after, 0
        self._send(206 if start else 200, body[start:], headers, cut)

    def _redirect(self, to: str) -> None:
        self._send(302, b"", {"Location": to})

    def _endless(self, pause: float) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"<rss>" * (1 if pause else 10_000))
                time.sleep(pause)

    def _send(self, code: int, body: bytes, headers: dict[str, str], cut: int = 0) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:cut] if cut else body)
        self.close_connection = bool(cut)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving() -> Iterator[FeedServer]:
    """Serve until the end of the block."""
    server = FeedServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
