"""POST /sql: a query in, its rows out, in the format that the client asks for.

An answer that fits into a buffer has a status that says whether it is whole. A longer one is
streamed; where it fails on the way its connection is closed before its end, which every client
takes for an error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from lakelog.server.bodies import AsgiDict, Receive, Send, departure, read_body
from lakelog.server.gate import Caller
from lakelog.server.limits import ServerLimits, is_number
from lakelog.server.protocols.protocol import Answer
from lakelog.server.sql.query_limits import QueryFormat, QueryRefused
from lakelog.server.sql.workers import QueryWorkers, RunningQuery

if TYPE_CHECKING:
    from starlette.requests import Request

MEDIA_TYPES = {
    QueryFormat.JSON: "application/json",
    QueryFormat.NDJSON: "application/x-ndjson",
    QueryFormat.CSV: "text/csv; charset=utf-8",
    QueryFormat.ARROW: "application/vnd.apache.arrow.stream",
}
_ACCEPTED = {
    "application/json": QueryFormat.JSON,
    "application/x-ndjson": QueryFormat.NDJSON,
    "application/jsonl": QueryFormat.NDJSON,
    "text/csv": QueryFormat.CSV,
    "application/vnd.apache.arrow.stream": QueryFormat.ARROW,
}
_MEMBERS = frozenset(("sql", "params", "at", "limit", "format"))
_BUFFER = 1 << 18
_EXAMPLE = 'send {"sql": "SELECT count(*) FROM events"} or the text of a query'
_LOG = logging.getLogger("lakelog.server")
_T = TypeVar("_T")


class ClientLeft(Exception):
    """Raised when a client closed its connection before it was answered."""


class SqlEndpoint:
    """Answers /sql."""

    def __init__(self, workers: QueryWorkers, limits: ServerLimits) -> None:
        self._workers, self._limits = workers, limits

    async def answer(self, request: Request, caller: Caller) -> Answer | StreamedAnswer:
        """Answer one query."""
        try:
            body = await read_body(request, self._limits)
            sql, options = query_of(body, dict(request.query_params))
            query_format = _format(options, request.headers.get("accept", ""))
            ref, limit = _text(options, "at"), _limit(options)
            running = await while_connected(
                request,
                self._workers.start(
                    sql, options.get("params"), at=ref, limit=limit, format=query_format
                ),
            )
            return await self._buffered(request, running, query_format)
        except QueryRefused as error:
            return refused(error)
        except ClientLeft:
            return Answer(499)

    async def _buffered(
        self, request: Request, running: RunningQuery, query_format: QueryFormat
    ) -> Answer | StreamedAnswer:
        """The whole answer if it is short, or else one that goes on."""
        headers = {"X-Lakelog-Snapshot": running.snapshot} if running.snapshot else {}
        media_type, buffer = MEDIA_TYPES[query_format], bytearray()
        # So much is awaited that most answers have a status that says whether they are whole.
        while len(buffer) < _BUFFER:
            try:
                buffer += await while_connected(request, anext(running.chunks))
            except StopAsyncIteration:
                return Answer(200, bytes(buffer), headers, media_type)
        return StreamedAnswer(running, bytes(buffer), headers, media_type)


class StreamedAnswer:
    """An answer whose beginning is known. Starlette calls it, as it calls its own responses."""

    def __init__(
        self, running: RunningQuery, beginning: bytes, headers: dict[str, str], media_type: str
    ) -> None:
        self._running, self._beginning = running, beginning
        self.status, self.headers = 200, {**headers, "content-type": media_type}

    async def __call__(self, scope: AsgiDict, receive: Receive, send: Send) -> None:
        """Send it, until the client leaves."""
        # Two tasks, since a client that leaves is seen only by reading from it.
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(departure(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            # Closing the generator gives the process back, and cancels what it still does.
            await self._running.chunks.aclose()

    async def _send(self, send: Send) -> None:
        names = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": names})
        chunk = self._beginning
        try:
            while True:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await anext(self._running.chunks)
        except StopAsyncIteration:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except QueryRefused as error:
            # Without its end, so that the client does not take it for whole.
            _LOG.warning("/sql: an answer was broken off: %s", error)


def refused(error: QueryRefused) -> Answer:
    """The answer to a query that failed."""
    headers = {"Retry-After": "1"} if error.status in (429, 503) else {}
    return Answer(error.status, error.record(), headers)


async def while_connected(request: Request, work: Awaitable[_T]) -> _T:
    """Wait for work; cancel it and raise ClientLeft if the client goes away meanwhile."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(departure(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()
        # Work that is cancelled is waited for: it gives its process back at its end.
        await asyncio.gather(working, leaving, return_exceptions=True)


def query_of(body: bytes, parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the SQL of a body, and what it and the query of the URL say besides.

    Raises QueryRefused.
    """
    text = body.strip()
    # No statement of SQL begins with a brace.
    if not text.startswith(b"{"):
        try:
            sql = text.decode()
        except UnicodeDecodeError:
            raise QueryRefused("bad_request", "the query is not UTF-8", _EXAMPLE) from None
        if not sql:
            raise QueryRefused("bad_request", "there is no query", _EXAMPLE)
        return sql, parameters
    try:
        members = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise QueryRefused("bad_request", f"the body is not JSON: {error}", _EXAMPLE) from None
    unknown = sorted(members.keys() - _MEMBERS)
    if unknown:
        raise QueryRefused(
            "bad_request",
            f"there is no {unknown[0]!r}",
            f"it may have {', '.join(sorted(_MEMBERS))}",
        )
    if not isinstance(members.get("sql"), str) or not members["sql"].strip():
        raise QueryRefused("bad_request", "sql is the text of a query", _EXAMPLE)
    if not isinstance(members.get("params"), (list, dict, type(None))):
        raise QueryRefused(
            "bad_request", "params is a list or an object", 'params: {"name": value}'
        )
    # What the body says goes before the query of the URL.
    return members["sql"], {**parameters, **members}


def _format(options: dict[str, Any], accept: str) -> QueryFormat:
    """The format that is asked for by name, or else the first that the client accepts."""
    if (name := options.get("format")) is not None:
        try:
            return QueryFormat({"jsonl": "ndjson"}.get(name, name))
        except (ValueError, TypeError):
            raise QueryRefused(
                "bad_request", f"there is no format {name!r}", "json, ndjson, csv or arrow"
            ) from None
    for media_type in accept.split(","):
        name = media_type.partition(";")[0].strip().lower()
        # In the order of the header: its weights are not read, as hardly any client sends them.
        if name in _ACCEPTED:
            return _ACCEPTED[name]
    return QueryFormat.JSON


def _limit(options: dict[str, Any]) -> int | None:
    limit = options.get("limit")
    if limit is None:
        return None
    if isinstance(limit, str) and is_number(limit, 10):
        limit = int(limit)
    if not isinstance(limit, int) or isinstance(limit, bool) or not 0 <= limit < 2**31:
        raise QueryRefused("bad_request", "limit is a number of rows", '"limit": 1000')
    return limit


def _text(options: dict[str, Any], name: str) -> str | None:
    value = options.get(name)
    if value is not None and not isinstance(value, str):
        raise QueryRefused("bad_request", f"{name} is a text", '"at": "v1"')
    return value or None
