"""Requests within limits, and downloads that resume, against a server on this machine."""

from __future__ import annotations

import base64
import dataclasses
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from lakelog.errors import DownloadFailed
from lakelog.oos import download as http
from tests.support.feed_server import AUDIO, SHA256, FeedServer, rss, serving
from tests.support.odd_passwords import PASSWORDS, is_told

SMALL = http.RequestLimits(bytes=1_000_000, seconds=240.0, redirects=3)


@pytest.fixture
def server() -> Iterator[FeedServer]:
    """A server with one feed."""
    with serving() as running:
        running.pages["/feed.xml"] = rss(running.base, range(3))
        yield running


def test_a_document_is_fetched_only_if_it_changed(server: FeedServer) -> None:
    """A conditional request gets nothing until there is something new."""
    url = f"{server.base}/feed.xml"
    first = http.fetch(url)
    assert (first.content, first.is_new) == (server.pages["/feed.xml"], True)
    again = http.fetch(url, etag=first.etag, modified=first.modified)
    assert (again.content, again.is_new, again.etag) == (b"", False, first.etag)
    server.pages["/feed.xml"] += b" "
    assert http.fetch(url, etag=first.etag).is_new
    assert http.fetch(f"{server.base}/packed").content == server.pages["/feed.xml"]
    moved = http.fetch(f"{server.base}/hops/2", limits=SMALL)
    assert (moved.url, moved.content) == (url, server.pages["/feed.xml"])


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/loop", "redirects more than 3 times"),
        ("/hops/9", "redirects more than 3 times"),
        ("/to-file", "file:///etc/passwd' is not allowed"),
        ("/endless", "has more than 1,000,000 bytes"),
        ("/trickle", "takes longer than 1 s"),
        ("/bomb", "unpacks to more than 1,000,000 bytes"),
        ("/none", "HTTP 404"),
    ],
)
def test_limits_end_what_would_not_end(server: FeedServer, path: str, said: str) -> None:
    """Each is one line with the reason."""
    limits = dataclasses.replace(SMALL, seconds=1.0) if path == "/trickle" else SMALL
    with pytest.raises(DownloadFailed, match=said):
        http.fetch(server.base + path, limits=limits)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y", "nothing", "", "http://"])
def test_only_http_is_fetched(url: str) -> None:
    """No file of this machine, and no address that is none."""
    with pytest.raises(DownloadFailed):
        http.fetch(url)


def test_nobody_answers(tmp_path: Path) -> None:
    """A server that is not there is one line as well."""
    with serving() as gone:
        url = f"{gone.base}/audio/1.mp3"
    with pytest.raises(DownloadFailed, match="refused"):
        http.download(url, str(tmp_path / "1.mp3"))


def test_a_download_goes_on_where_it_ended(server: FeedServer, tmp_path: Path) -> None:
    """What came before the connection broke is not fetched again; the hash is that of the whole."""
    url, path = f"{server.base}/audio/1.mp3", tmp_path / "1.mp3"
    server.cut_after = 200_000
    with pytest.raises(DownloadFailed, match="200,000 of 512,000 bytes"):
        http.download(url, str(path))
    assert not path.exists()
    done = http.download(url, str(path))
    assert done == http.Download(str(path), len(AUDIO), SHA256, 200_000)
    assert path.read_bytes() == AUDIO
    assert server.requests[-1][1]["Range"] == "bytes=200000-"
    assert [entry.name for entry in tmp_path.iterdir()] == ["1.mp3"]


@pytest.mark.parametrize("change", ["version", "url", "note"])
def test_what_changed_is_fetched_from_its_start(
    server: FeedServer, tmp_path: Path, change: str
) -> None:
    """Pieces of two files, or of two versions of one, are never joined."""
    path = tmp_path / "1.mp3"
    server.cut_after = 200_000
    with pytest.raises(DownloadFailed):
        http.download(f"{server.base}/audio/1.mp3", str(path))
    (tmp_path / "1.mp3.part").write_bytes(b"x" * 200_000)
    if change == "version":
        server.version = "2"
    if change == "note":
        (tmp_path / "1.mp3.part.json").write_text(json.dumps([1]))
    done = http.download(f"{server.base}/audio/{2 if change == 'url' else 1}.mp3", str(path))
    assert (done.resumed_at, done.sha256) == (0, SHA256)


def test_a_file_that_is_too_large(server: FeedServer, tmp_path: Path) -> None:
    """It is refused before anything of it is fetched."""
    limits = http.RequestLimits(bytes=511_999)
    with pytest.raises(DownloadFailed, match="has 512,000 bytes; at most 511,999"):
        http.download(f"{server.base}/audio/1.mp3", str(tmp_path / "1.mp3"), limits)
    assert not (tmp_path / "1.mp3").exists()


def test_a_login_reaches_the_first_server_alone(tmp_path: Path) -> None:
    """And is in no answer, file or message."""
    asked = list[tuple[str, str | None]]()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(302 if self.path == "/feed" else 404 if self.path == "/no" else 200)
            self.send_header("Location", "/there")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        base = f"127.0.0.1:{server.server_port}"
        try:
            for password in PASSWORDS[::2]:
                asked.clear()
                url = f"http://u:{quote(password, safe='')}@{base}"
                answer = http.fetch(f"{url}/feed")
                login = base64.b64encode(f"u:{password}".encode()).decode()
                assert asked == [("/feed", f"Basic {login}"), ("/there", None)]
                assert answer.url == f"http://{base}/there"
                with pytest.raises(DownloadFailed, match="HTTP 404") as caught:
                    http.download(f"{url}/no", str(tmp_path / "x"))
                assert not is_told(repr(caught.value))
        finally:
            server.shutdown()
            thread.join()
