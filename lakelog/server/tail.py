"""Events as they arrive, for browsers and programs: server-sent events at /tail, messages at /ws.

Each event comes with its position. Who was cut off sends the last one, as `Last-Event-ID` or
`after`, and gets what followed, once each, from this server or the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakelog.errors import InvalidSetting, LakelogError, QueryFailed
from lakelog.runtime.lazy import Lazy
from lakelog.server.arrivals import RequestRefused
from lakelog.server.bodies import AsgiDict, Receive, Send, departure
from lakelog.server.conditions import TailCondition, condition_of
from lakelog.server.gate import Gate
from lakelog.server.tail_feed import RETRY_MS, TailChunk, failure_chunk
from lakelog.server.tail_hub import TailClient, TailHub
from lakelog.server.tokens import TokenScope

if TYPE_CHECKING:
    from starlette import datastructures, responses
else:
    datastructures, responses = Lazy("starlette.datastructures"), Lazy("starlette.responses")

_LOG = logging.getLogger("lakelog.server")
_STREAM = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
)
_SCHEMES = {"ws": "http", "wss": "https"}
_INTERNAL_ERROR = 1011
_STOP_SECONDS = 1.0


@dataclass(frozen=True)
class TailQuery:
    """What a client follows, from which position on, and how a chunk is one message of a
    WebSocket: an empty one is not sent."""

    condition: TailCondition
    position: str
    message: Callable[[TailChunk], str]


@dataclass(frozen=True)
class TailWording:
    """How clients ask: the query of their headers and parameters, which raises RequestRefused, and
    the response to a request that is refused."""

    query: Callable[[Mapping[str, str], Mapping[str, str]], TailQuery]
    refusal: Callable[[RequestRefused], Any]


def _query(headers: Mapping[str, str], parameters: Mapping[str, str]) -> TailQuery:
    position = headers.get("last-event-id") or parameters.get("after") or "end"
    try:
        condition = condition_of(parameters.get("where", ""), parameters.get("q", ""))
    except QueryFailed as error:
        raise RequestRefused(400, str(error)) from None
    return TailQuery(condition, position, lambda chunk: chunk.message)


OWN_WORDING = TailWording(
    _query,
    lambda error: responses.JSONResponse({"error": error.reason}, error.status, error.headers),
)
"""That of /tail and /ws."""


class TailEndpoint:
    """An application of ASGI that a route can have, as a stream or as a WebSocket."""

    def __init__(
        self,
        hub: TailHub,
        gate: Gate,
        count: Callable[[str, int], None],
        wording: TailWording = OWN_WORDING,
    ) -> None:
        self._hub, self._gate, self._count, self._wording = hub, gate, count, wording

    async def __call__(self, scope: AsgiDict, receive: Receive, send: Send) -> None:
        """Answer one client until it leaves, or the server stops."""
        is_socket = scope["type"] == "websocket"
        method = scope.get("method", "GET")
        if is_socket:
            await receive()  # that it wants to connect
        asking = asyncio.ensure_future(self._client(scope))
        leaving = asyncio.ensure_future(departure(receive))
        # It may leave while its condition is tried with all that there is.
        leaving.add_done_callback(lambda _: asking.cancel())
        try:
            query, client, check = await asking
            self._count(method, 101 if is_socket else 200)
            leaving.add_done_callback(lambda _: client.leave())
            try:
                if is_socket:
                    await _send_messages(client, query, check, send)
                    # The server says itself that it stops, and would wait for our word of it.
                    await asyncio.wait([leaving], timeout=_STOP_SECONDS)
                else:
                    await _send_stream(client, check, send, is_head=method == "HEAD")
            finally:
                client.leave()
        except RequestRefused as error:
            self._count(method, error.status)
            await self._wording.refusal(error)(scope, receive, send)
        except asyncio.CancelledError:
            if not (leaving.done() and asking.cancelled()):
                raise
        finally:
            leaving.cancel()
            asking.cancel()

    async def _client(self, scope: AsgiDict) -> tuple[TailQuery, TailClient, Callable[[], None]]:
        """Let a client in; see `admit_for_long`. Raises RequestRefused."""
        headers = datastructures.Headers(scope=scope)
        scheme = str(scope["scheme"])
        check = self._gate.admit_for_long(headers, _SCHEMES.get(scheme, scheme), TokenScope.READ)
        query = self._wording.query(headers, datastructures.QueryParams(scope["query_string"]))
        try:
            return query, await self._hub.client(query.condition, query.position), check
        except (QueryFailed, InvalidSetting) as error:
            raise RequestRefused(400, str(error)) from None
        except (LakelogError, OSError) as error:
            _LOG.error("%s: %s", scope["path"], error)
            raise RequestRefused(503, str(error), {"Retry-After": "5"}) from None


async def _chunks(client: TailClient, check: Callable[[], None]) -> AsyncGenerator[TailChunk]:
    """What a client follows, as long as it may."""
    last: TailChunk | None = None
    async with aclosing(client.chunks()) as chunks:
        async for chunk in chunks:
            try:
                check()
            except (LakelogError, OSError) as error:
                # With the position of what it has, if it comes back with another token.
                yield failure_chunk((last or chunk).positions[-1], str(error))
                return
            yield (last := chunk)


async def _send_stream(
    client: TailClient, check: Callable[[], None], send: Send, *, is_head: bool
) -> None:
    """Send server-sent events, or their head alone: whoever asks for that waits for an end."""
    await send({"type": "http.response.start", "status": 200, "headers": list(_STREAM)})
    if is_head:
        await send(_body(b"", is_last=True))
        return
    await send(_body(b"retry: %d\n\n" % RETRY_MS))
    async with aclosing(_chunks(client, check)) as chunks:
        async for chunk in chunks:
            await send(_body(chunk.server_sent))
    await send(_body(b"", is_last=True))


async def _send_messages(
    client: TailClient, query: TailQuery, check: Callable[[], None], send: Send
) -> None:
    """Send messages of a WebSocket."""
    await send({"type": "websocket.accept"})
    async with aclosing(_chunks(client, check)) as chunks:
        async for chunk in chunks:
            if message := query.message(chunk):
                await send({"type": "websocket.send", "text": message})
    if client.has_failed or not client.is_over:  # it may not follow any more
        await send({"type": "websocket.close", "code": _INTERNAL_ERROR})


def _body(content: bytes, *, is_last: bool = False) -> AsgiDict:
    return {"type": "http.response.body", "body": content, "more_body": not is_last}
