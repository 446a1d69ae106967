"""HTTP within limits: conditional requests, redirects, sizes and times; downloads that resume.

An address may begin with `USER:PASSWORD@`; only the first server gets them, not one that it
redirects to, and no message or file has them.

Nothing here waits for ever or reads without end: each request has a time for all of it, a number
of redirects, and a number of bytes, before and after unpacking.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from lakelog.clients import Address
from lakelog.disk import File, Folder, OpenFile
from lakelog.errors import DownloadFailed

AGENT = "lakelog (+feeds)"
_AUTHORITY = re.compile("(https?://)([^/?#]*)", re.IGNORECASE)
_PLACE = re.compile(r"(\[[^\]]*\]|[^:@\[\]]*)(:\d*)?")
_PIECE = 1 << 16
_IDLE = 30.0
"""Seconds that a server may be silent."""


@dataclass(frozen=True)
class RequestLimits:
    """Bounds of one request: bytes in all, seconds in all, redirects."""

    bytes: int = 20_000_000
    seconds: float = 60.0
    redirects: int = 5


@dataclass(frozen=True)
class Document:
    """What a server answered; `content` is empty if it says that nothing has changed."""

    url: str
    content: bytes
    is_new: bool
    etag: str = ""
    modified: str = ""
    content_type: str = ""


@dataclass(frozen=True)
class Download:
    """A file that was fetched: its path, size, SHA-256 as hex, and where it began this time."""

    path: str
    bytes: int
    sha256: str
    resumed_at: int = 0


@dataclass
class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows so many redirects, to HTTP only."""

    most: int
    count: int = field(default=0)
    # Those of the base class are looked at first, and count in another way.
    max_repeats = max_redirections = 1 << 30

    def redirect_request(self, *arguments: Any) -> urllib.request.Request | None:
        """Return the next request. Raises DownloadFailed for one too many."""
        self.count += 1
        if self.count > self.most:
            url = arguments[0].full_url
            raise DownloadFailed(f"{url} redirects more than {self.most} times")
        # Another scheme could read files of this machine.
        _check(arguments[-1])
        return super().redirect_request(*arguments)


def fetch(
    url: str, *, etag: str = "", modified: str = "", limits: RequestLimits | None = None
) -> Document:
    """Fetch a document, if it has changed since `etag` or `modified`. Raises DownloadFailed."""
    limits = limits or RequestLimits()
    url, login = divide_login(url)
    # Unpacked here, within the limit; http.client knows none of it.
    headers = {"Accept-Encoding": "gzip, deflate"}
    headers |= {"If-None-Match": etag} if etag else {}
    headers |= {"If-Modified-Since": modified} if modified else {}
    response = _open(url, login, headers, limits)
    if response is None:
        return Document(url, b"", False, etag, modified)
    with response:
        # Unpacked as it comes: a bomb is noticed after its first blocks.
        blocks = _unpacked(_pieces(response, url, limits), response, url, limits)
        content = b"".join(blocks)
        received = response.headers
        return Document(
            response.url,
            content,
            True,
            received.get("ETag", ""),
            received.get("Last-Modified", ""),
            received.get("Content-Type", ""),
        )


def download(url: str, path: str, limits: RequestLimits | None = None) -> Download:
    """Fetch a file to a path, where it appears whole; go on where an earlier call ended.

    What is not complete stays beside it as PATH.part, with what tells whether the server still has
    the same file. Raises DownloadFailed, OSError.
    """
    limits = limits or RequestLimits(bytes=2_000_000_000, seconds=3600.0)
    url, login = divide_login(url)
    # Beside the file: a rename only works within one file system.
    partial_path, note = f"{path}.part", f"{path}.part.json"
    partial_size = os.path.getsize(partial_path) if os.path.exists(partial_path) else 0
    validator = _validator(note, url) if partial_size else ""
    # Bytes of an encoding cannot be resumed at an offset.
    headers = {"Accept-Encoding": "identity"}
    if validator:
        headers |= {"Range": f"bytes={partial_size}-", "If-Range": validator}
    response = _open(url, login, headers, limits)
    if response is None:
        raise DownloadFailed(f"{url}: 304 without having been asked")
    with response:
        start = _start_of(response) if validator else 0
        if start != partial_size:
            start = 0  # the file is another one now, or the server does not resume
        digest = hashlib.sha256()
        with OpenFile.closing(
            os.open(partial_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        ) as fd:
            # What was written behind the last complete part goes.
            os.ftruncate(fd, start)
            # The digest is that of the whole file, with what an earlier call has written.
            for block in File(partial_path).pieces():
                digest.update(block)
            os.lseek(fd, start, os.SEEK_SET)
            # Before the first byte: whoever resumes has to know of which file it is.
            _remember(note, url, response)
            size = start
            for block in _pieces(response, url, limits, start):
                OpenFile(fd).write(block)
                digest.update(block)
                size += len(block)
            OpenFile(fd).sync()
    # Complete, and synced: whoever finds the name finds all of it.
    File(partial_path).rename(path)
    Folder(os.path.dirname(os.path.abspath(path))).sync()
    os.unlink(note)
    return Download(path, size, digest.hexdigest(), start)


def divide_login(url: str) -> tuple[str, str]:
    """Return an address without user and password, and the header that tells them, or "".

    Raises DownloadFailed, without a part of it, for what may have a password elsewhere."""
    match = _AUTHORITY.match(url)
    if match is None:
        return url, ""
    userinfo, separator, place = match[2].rpartition("@")
    # A port with an @ behind it may be the beginning of a password.
    is_doubtful = not separator and ":" in place and "@" in url[match.end() :]
    if not _PLACE.fullmatch(place) or is_doubtful:
        raise DownloadFailed(f"an address of HTTP looks like https://HOST/PATH; {Address.ESCAPES}")
    user, _, password = userinfo.partition(":")
    bytes_ = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    login = f"Basic {base64.b64encode(bytes_).decode()}" if separator else ""
    return f"{match[1]}{place}{url[match.end() :]}", login


def _open(
    url: str, login: str, headers: dict[str, str], limits: RequestLimits
) -> http.client.HTTPResponse | None:
    """Return the open response, or None for 304."""
    _check(url)
    opener = urllib.request.build_opener(_Redirects(limits.redirects))
    request = urllib.request.Request(url, headers={"User-Agent": AGENT, **headers})
    if login:
        # Unredirected: urllib would send the others on to another server.
        request.add_unredirected_header("Authorization", login)
    try:
        # The time of one step; that of all of it is counted in `_pieces`.
        response: http.client.HTTPResponse = opener.open(
            request, timeout=min(_IDLE, limits.seconds)
        )
        return response
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 304:
                return None
            raise DownloadFailed(
                f"{url}: HTTP {error.code} {str(error.reason)[:200]}".rstrip()
            ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadFailed(f"{url}: {getattr(error, 'reason', None) or error}") from None


def _pieces(
    response: http.client.HTTPResponse, url: str, limits: RequestLimits, start: int = 0
) -> Iterator[bytes]:
    """Yield what a response holds. Raises DownloadFailed where it is too long, or cut short."""
    until, size = time.monotonic() + limits.seconds, start
    announced = response.headers.get("Content-Length", "")
    whole = start + int(announced) if announced.isdecimal() else None
    if whole is not None and whole > limits.bytes:
        raise DownloadFailed(f"{url} has {whole:,} bytes; at most {limits.bytes:,} are fetched")
    while True:
        # Counted from the first byte on, whatever a single step takes.
        if time.monotonic() > until:
            raise DownloadFailed(f"{url} takes longer than {limits.seconds:g} s")
        try:
            # Not read: that waits until so many bytes are there, however slowly they come.
            block = response.read1(_PIECE)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise DownloadFailed(f"{url}: {error or type(error).__name__}") from None
        if not block:
            break
        size += len(block)
        if size > limits.bytes:
            raise DownloadFailed(f"{url} has more than {limits.bytes:,} bytes")
        yield block
    # http.client accepts a connection that ends early.
    if whole is not None and size != whole:
        raise DownloadFailed(f"{url} ended after {size:,} of {whole:,} bytes")


def _unpacked(
    blocks: Iterator[bytes], response: http.client.HTTPResponse, url: str, limits: RequestLimits
) -> Iterator[bytes]:
    """Undo the encoding of a response, within the same limit of bytes."""
    encoding = response.headers.get("Content-Encoding", "").lower()
    if encoding not in ("gzip", "x-gzip", "deflate"):
        yield from blocks
        return
    # 32: zlib tells by the header whether it is gzip or deflate.
    unpacker, size = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32), 0
    try:
        for block in blocks:
            # One byte more than is allowed: enough to notice.
            plain = unpacker.decompress(block, limits.bytes + 1)
            size += len(plain)
            if size > limits.bytes:
                raise DownloadFailed(f"{url} unpacks to more than {limits.bytes:,} bytes")
            yield plain
        yield unpacker.flush()
    except zlib.error as error:
        raise DownloadFailed(f"{url}: {encoding} does not unpack: {error}") from None


def _start_of(response: http.client.HTTPResponse) -> int:
    """Return the first byte that a response holds."""
    content_range = response.headers.get("Content-Range", "")
    offset = content_range.removeprefix("bytes ").partition("-")[0].strip()
    # Only 206 says that the range was kept.
    return int(offset) if response.status == 206 and offset.isdecimal() else 0


def _validator(note: str, url: str) -> str:
    """Return what a server said of the file that was begun, if it was that of this address."""
    try:
        with open(note, "rb") as file:
            saved_note = json.load(file)
        return str(saved_note["validator"]) if saved_note["url"] == url else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _remember(note: str, url: str, response: http.client.HTTPResponse) -> None:
    etag = response.headers.get("ETag", "")
    # A weak one says that the content means the same, not that its bytes are.
    strong = etag if etag and not etag.startswith("W/") else ""
    validator = strong or response.headers.get("Last-Modified", "")
    with open(note, "w") as file:
        json.dump({"url": url, "validator": validator}, file)


def _check(url: str) -> None:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise DownloadFailed(f"{url} is no address of HTTP")
