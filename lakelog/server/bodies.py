"""Bodies of requests: read within limits, and decompressed chunk by chunk.

What is compressed is bounded twice, as it was sent and as it becomes: a bomb costs no more memory
than the limit. A body that ends before its compressed stream does is refused, never half stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol

import zstandard

from lakelog.server.arrivals import RequestRefused, require_few
from lakelog.server.limits import ServerLimits

if TYPE_CHECKING:
    from starlette.requests import Request

_INLINE = 1 << 14
"""Bodies of fewer bytes are decompressed in the loop: a thread would cost more."""
_MORSEL = 1 << 8
"""Compressed bytes of a stream that are read together: they become at most 16 MiB."""
_DRAIN_SECONDS, _DRAIN_MAX = 10.0, 1 << 27
"""How long, and up to how many bytes, a client whose body is refused may go on to send it."""
_ONE = threading.Lock()
_ENCODINGS = ("gzip", "x-gzip", "deflate", "zstd", "identity")


AsgiDict = MutableMapping[str, Any]
"""A scope or a message of ASGI."""
Receive = Callable[[], Awaitable[AsgiDict]]
Send = Callable[[AsgiDict], Awaitable[None]]
WHOLE_BODY = "lakelog.whole_body"
"""The extension of ASGI that says of a request that its body was there with its head."""


class _Inflater(Protocol):
    """A decompressor that gives at most so many bytes at a time."""

    is_ended: bool

    def inflate(self, data: bytes, longest: int) -> bytes: ...


class _Zlib:
    """gzip, with all its members, or deflate, with or without its header."""

    def __init__(self, is_gzip: bool) -> None:
        # Window bits of zlib: 31 reads gzip alone, 47 zlib or gzip by the header, -15 neither.
        self._bits = 31 if is_gzip else 47
        self._is_raw_tried = is_gzip
        self._stream = zlib.decompressobj(self._bits)
        self.is_ended = False

    def inflate(self, data: bytes, longest: int) -> bytes:
        chunks, size = [], 0
        while data:
            # A file of gzip is one member or several, one behind the other (RFC 1952, 2.2).
            if self._stream.eof:
                self._stream = zlib.decompressobj(self._bits)
            try:
                # One byte more than is allowed tells the caller that there is more.
                chunk = self._stream.decompress(data, longest - size + 1)
            except zlib.error:
                # Some clients send deflate without the header of zlib.
                if self._is_raw_tried or size:
                    raise
                self._is_raw_tried, self._bits = True, -15
                self._stream = zlib.decompressobj(self._bits)
                continue
            chunks.append(chunk)
            size += len(chunk)
            if size > longest:
                break
            data = self._stream.unused_data or self._stream.unconsumed_tail
            self.is_ended = self._stream.eof
        return b"".join(chunks)


class _Zstd:
    """zstd, with all its frames."""

    def __init__(self) -> None:
        self._stream = self._begun()
        self.is_ended = False

    @staticmethod
    def _begun() -> zstandard.ZstdDecompressionObj:
        return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()

    def inflate(self, data: bytes, longest: int) -> bytes:
        chunks, size = [], 0
        while data:
            if self._stream.eof:
                self._stream = self._begun()
            # Small chunks: this decompressor cannot be told where to stop.
            for start in range(0, len(data), 1 << 12):
                chunks.append(self._stream.decompress(data[start : start + (1 << 12)]))
                size += len(chunks[-1])
                if size > longest:
                    return b"".join(chunks)
                if self._stream.eof:
                    data = self._stream.unused_data + data[start + (1 << 12) :]
                    break
            else:
                data = b""
            self.is_ended = self._stream.eof
        return b"".join(chunks)


async def departure(receive: Receive) -> None:
    """Return once the client has gone; what it sends is nothing to us."""
    while not (await receive())["type"].endswith(".disconnect"):
        pass


async def drain(receive: Receive) -> None:
    """Throw away what a client still sends, as far as that ends soon."""
    size = 0
    with contextlib.suppress(TimeoutError, RequestRefused):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for chunk in _chunks(receive):
                size += len(chunk)
                if size > _DRAIN_MAX:
                    return


async def read_body(request: Request, limits: ServerLimits) -> bytes:
    """Return the body of a request as text. Raises RequestRefused."""
    return await body_of(request.headers, request.receive, limits)


async def body_of(
    headers: Mapping[str, str],
    receive: Receive,
    limits: ServerLimits,
    *,
    is_there: bool = False,
    reserve: Callable[[int], None] = lambda _: None,
) -> bytes:
    """Return the body that the messages of a request bring, decompressed, up to
    `limits.text_bytes`. With `is_there` it is in the first message, and no timer is set for it.
    `reserve` gets how many bytes have come, and raises RequestRefused where they are too many.

    Raises RequestRefused: 400 for a client that left or a broken stream, 408 for one that is too
    slow, 413 for what is too large, 415 for an encoding that is not known.
    """
    encoding = _encoding(headers)
    declared = headers.get("content-length", "")
    # Before a byte is read. A chunked body does not say how long it is, and is counted as it comes.
    if declared.isdigit() and int(declared) > limits.body_bytes:
        raise too_large(limits.body_bytes)
    if is_there:
        message = await receive()
        body = _content(message)
        if message.get("more_body", False):
            body += await _waited_for(receive, limits, reserve)
        if len(body) > limits.body_bytes:
            raise too_large(limits.body_bytes)
    else:
        body = await _waited_for(receive, limits, reserve)
    if encoding == "identity":
        return body
    if len(body) < _INLINE:
        return decompressed(body, encoding, limits.text_bytes)
    return await asyncio.get_running_loop().run_in_executor(
        None, _alone, body, encoding, limits.text_bytes
    )


async def _waited_for(
    receive: Receive, limits: ServerLimits, reserve: Callable[[int], None]
) -> bytes:
    """The bytes of a body, which come in time. Raises RequestRefused."""
    chunks, size = list[bytes](), 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in _chunks(receive):
                chunks.append(chunk)
                size += len(chunk)
                if size > limits.body_bytes:
                    raise too_large(limits.body_bytes)
                reserve(size)
    except TimeoutError:
        raise _too_slow(limits) from None
    except asyncio.CancelledError:
        raise _cut_by_stop() from None
    return b"".join(chunks)


async def texts_of(
    headers: Mapping[str, str], receive: Receive, limits: ServerLimits
) -> AsyncIterator[bytes]:
    """Yield the text of a body as it comes, however long that goes on. Raises RequestRefused."""
    encoding = _encoding(headers)
    stream = None if encoding == "identity" else _inflater(encoding)
    chunks = _chunks(receive)
    while True:
        try:
            async with asyncio.timeout(limits.body_seconds):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise _too_slow(limits) from None
        except asyncio.CancelledError:
            raise _cut_by_stop() from None
        if chunk is None:
            break
        if stream is None:
            yield chunk
            continue
        # A buffer of the client may become a thousand times as large, and more.
        for start in range(0, len(chunk), _MORSEL):
            yield _inflated(stream, chunk[start : start + _MORSEL], encoding, limits.text_bytes)
    if stream is not None and not stream.is_ended:
        raise RequestRefused(400, f"the body ends within its {encoding} stream")


def _encoding(headers: Mapping[str, str]) -> str:
    encoding = headers.get("content-encoding", "identity").strip().lower() or "identity"
    if encoding not in _ENCODINGS:
        raise RequestRefused(
            415,
            f"the content encoding {encoding!r} is not known: send gzip, deflate, zstd or none",
            {"Accept-Encoding": "gzip, zstd, deflate"},
        )
    return encoding


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        yield _content(message)
        if not message.get("more_body", False):
            return


def _content(message: AsgiDict) -> bytes:
    if message["type"] == "http.disconnect":
        raise RequestRefused(400, "the client left before its body ended")
    return bytes(message.get("body", b""))


def _alone(body: bytes, encoding: str, longest: int) -> bytes:
    """Decompress what may become large, one body at a time."""
    with _ONE:
        return decompressed(body, encoding, longest)


def decompressed(body: bytes, encoding: str, longest: int) -> bytes:
    """Return what a body holds, up to `longest` bytes. Raises RequestRefused."""
    if not body:
        return body
    stream = _inflater(encoding)
    inflated = _inflated(stream, body, encoding, longest)
    if not stream.is_ended:
        raise RequestRefused(400, f"the body ends within its {encoding} stream")
    return inflated


def _inflater(encoding: str) -> _Inflater:
    return _Zstd() if encoding == "zstd" else _Zlib(encoding != "deflate")


def _inflated(stream: _Inflater, body: bytes, encoding: str, longest: int) -> bytes:
    try:
        inflated = stream.inflate(body, longest)
    except (zlib.error, zstandard.ZstdError) as error:
        raise RequestRefused(400, f"the body is not {encoding}: {error}") from None
    if len(inflated) > longest:
        raise too_large(longest)
    return inflated


def require_parsable(body: bytes, limits: ServerLimits) -> None:
    """Refuse a body that is parsed as a whole, and would take too much memory. Raises
    RequestRefused."""
    if len(body) > limits.document_bytes:
        raise too_large(limits.document_bytes)
    # An upper bound that needs no parser: braces in texts are counted, too.
    require_few(body.count(b"{"))


def _too_slow(limits: ServerLimits) -> RequestRefused:
    reason = f"the body did not end within {limits.body_seconds:g} s"
    return RequestRefused(408, reason, {"Connection": "close"})


def _cut_by_stop() -> RequestRefused:
    """What refuses a body whose end a server that stops would not wait for."""
    headers = {"Retry-After": "5", "Connection": "close"}
    return RequestRefused(503, "the server is stopping: send it again", headers)


def too_large(longest: int) -> RequestRefused:
    """What refuses a body of more bytes."""
    return RequestRefused(
        413, f"the body has more than {longest:,} bytes: send it in parts", {"Connection": "close"}
    )
