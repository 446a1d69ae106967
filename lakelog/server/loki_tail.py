"""Loki's live tail: lines that match a query in LogQL, as messages of a WebSocket.

The selection becomes a condition of the hub of all tails, so that a query costs one reader however
many follow it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

import orjson

from lakelog.errors import LakelogError
from lakelog.event.encode import parse_time, to_micros
from lakelog.event.types import JsonObject
from lakelog.runtime.lazy import Lazy
from lakelog.server.arrivals import RequestRefused
from lakelog.server.bodies import AsgiDict, Receive, Send
from lakelog.server.gate import Gate
from lakelog.server.logql.line_scope import LineScope, scope_of
from lakelog.server.logql.parser import parse_selection
from lakelog.server.logql.result_lines import streams
from lakelog.server.logql.syntax import LogQLFault
from lakelog.server.tail_chunks import TailChunk
from lakelog.server.tail_hub import TailClient, TailHub
from lakelog.server.tokens import TokenScope

if TYPE_CHECKING:
    from starlette import datastructures, responses
else:
    datastructures, responses = Lazy("starlette.datastructures"), Lazy("starlette.responses")

PATH = "/loki/api/v1/tail"
_SCHEMES = {"ws": "http", "wss": "https"}
_INTERNAL_ERROR = 1011
_STOP_SECONDS = 1.0


class LokiTail:
    """An application of ASGI that the route of a WebSocket can have."""

    def __init__(self, hub: TailHub, gate: Gate, count: Callable[[str, int], None]) -> None:
        self._hub, self._gate, self._count = hub, gate, count

    async def __call__(self, scope: AsgiDict, receive: Receive, send: Send) -> None:
        """Answer one client until it leaves, or the server stops."""
        await receive()  # that it wants to connect
        try:
            lines, client = await self._client(scope)
        except RequestRefused as error:
            self._count("GET", error.status)
            response = responses.PlainTextResponse(error.reason, error.status, error.headers)
            await response(scope, receive, send)
            return
        self._count("GET", 101)
        departure = asyncio.ensure_future(_departure(receive))
        departure.add_done_callback(lambda _: client.leave())
        try:
            await _send(client, lines, send)
            await asyncio.wait([departure], timeout=_STOP_SECONDS)
        finally:
            departure.cancel()
            client.leave()

    async def _client(self, scope: AsgiDict) -> tuple[LineScope, TailClient]:
        """Let a client in. Raises RequestRefused."""
        headers, scheme = datastructures.Headers(scope=scope), str(scope["scheme"])
        self._gate.admit(headers, _SCHEMES.get(scheme, scheme)).require(TokenScope.READ)
        query = datastructures.QueryParams(scope["query_string"]).get("query", "")
        try:
            lines = scope_of(parse_selection(query))
            if lines.line != LineScope().line or lines.sources:
                raise LogQLFault("a tail takes selectors, line filters and filters of labels")
            condition = " AND ".join(f"({each})" for each in lines.conditions) or None
            return lines, await self._hub.client(condition, "end")
        except LogQLFault as error:
            raise RequestRefused(400, str(error)) from None
        except (LakelogError, OSError) as error:
            raise RequestRefused(503, str(error), {"Retry-After": "5"}) from None


async def _send(client: TailClient, lines: LineScope, send: Send) -> None:
    await send({"type": "websocket.accept"})
    async with aclosing(client.chunks()) as chunks:
        async for chunk in chunks:
            if chunk.lines and not chunk.name:
                await send({"type": "websocket.send", "text": message_of(chunk, lines)})
    if client.has_failed:
        await send({"type": "websocket.close", "code": _INTERNAL_ERROR})


def message_of(chunk: TailChunk, lines: LineScope) -> str:
    """The events of a chunk as Loki tells them."""
    rows = [_row(orjson.loads(line)) for line in chunk.lines]
    return orjson.dumps({"streams": streams(rows, lines)}).decode()


def _row(event: JsonObject) -> JsonObject:
    payload = event["data"]
    pushed = payload if isinstance(payload, dict) else {}
    line = event["message"]
    return {
        **event,
        "time": to_micros(parse_time(event["time"])),
        "line": orjson.dumps(payload).decode() if line is None else line,
        "labels": orjson.dumps(pushed.get("labels")),
        "metadata": orjson.dumps(pushed.get("metadata")),
    }


async def _departure(receive: Receive) -> None:
    while not (await receive())["type"].endswith(".disconnect"):
        pass
