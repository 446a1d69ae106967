"""Events as they arrive, for browsers and programs: server-sent events at /tail, messages at /ws.

Each event comes with its position. Who was cut off sends the last one, as `Last-Event-ID` or
`after`, and gets what followed, once each, from this server or the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from lakelog.errors import InvalidSetting, LakelogError, QueryFailed
from lakelog.runtime.lazy import Lazy
from lakelog.server.arrivals import RequestRefused
from lakelog.server.bodies import AsgiDict, Receive, Send
from lakelog.server.conditions import condition_of
from lakelog.server.gate import Gate
from lakelog.server.tail_chunks import RETRY_MS
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


class TailEndpoint:
    """An application of ASGI that a route can have, for either way."""

    def __init__(self, hub: TailHub, gate: Gate, count: Callable[[str, int], None]) -> None:
        self._hub, self._gate, self._count = hub, gate, count

    async def __call__(self, scope: AsgiDict, receive: Receive, send: Send) -> None:
        """Answer one client until it leaves, or the server stops."""
        is_socket = scope["type"] == "websocket"
        method = scope.get("method", "GET")
        if is_socket:
            await receive()  # that it wants to connect
        try:
            client = await self._client(scope)
        except RequestRefused as error:
            self._count(method, error.status)
            content = {"error": error.reason}
            await responses.JSONResponse(content, error.status, error.headers)(scope, receive, send)
            return
        self._count(method, 101 if is_socket else 200)
        departure = asyncio.ensure_future(_departure(receive))
        departure.add_done_callback(lambda _: client.leave())
        try:
            await (_as_messages if is_socket else _as_stream)(client, send)
            if is_socket:  # the server says itself that it stops, and would wait for our word of it
                await asyncio.wait([departure], timeout=_STOP_SECONDS)
        finally:
            departure.cancel()
            client.leave()

    async def _client(self, scope: AsgiDict) -> TailClient:
        """Let a client in. Raises RequestRefused."""
        headers = datastructures.Headers(scope=scope)
        scheme = str(scope["scheme"])
        self._gate.admit(headers, _SCHEMES.get(scheme, scheme)).require(TokenScope.READ)
        query = datastructures.QueryParams(scope["query_string"])
        after = headers.get("last-event-id") or query.get("after") or "end"
        try:
            condition = condition_of(query.get("where", ""), query.get("q", ""))
            return await self._hub.client(condition, after)
        except (QueryFailed, InvalidSetting) as error:
            raise RequestRefused(400, str(error)) from None
        except (LakelogError, OSError) as error:
            _LOG.error("%s: %s", scope["path"], error)
            raise RequestRefused(503, str(error), {"Retry-After": "5"}) from None


async def _as_stream(client: TailClient, send: Send) -> None:
    """Send server-sent events."""
    await send({"type": "http.response.start", "status": 200, "headers": list(_STREAM)})
    await send(_body(b"retry: %d\n\n" % RETRY_MS))
    async with aclosing(client.chunks()) as chunks:
        async for chunk in chunks:
            await send(_body(chunk.server_sent))
    await send(_body(b"", is_last=True))


async def _as_messages(client: TailClient, send: Send) -> None:
    """Send messages of a WebSocket."""
    await send({"type": "websocket.accept"})
    async with aclosing(client.chunks()) as chunks:
        async for chunk in chunks:
            await send({"type": "websocket.send", "text": chunk.message})
    if client.has_failed:
        await send({"type": "websocket.close", "code": _INTERNAL_ERROR})


def _body(content: bytes, *, is_last: bool = False) -> AsgiDict:
    return {"type": "http.response.body", "body": content, "more_body": not is_last}


async def _departure(receive: Receive) -> None:
    """Return once the client has gone; what it sends is nothing to us."""
    while not (await receive())["type"].endswith(".disconnect"):
        pass
