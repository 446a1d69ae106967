"""Loki's live tail: lines that match a query in LogQL, as messages of a WebSocket.

The selection becomes a condition of the hub of all tails, so that a query costs one reader however
many follow it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson

from lakelog.runtime.lazy import Lazy
from lakelog.server.arrivals import RequestRefused
from lakelog.server.conditions import TailCondition
from lakelog.server.logql.line_scope import LineScope, scope_of
from lakelog.server.logql.parser import parse_selection
from lakelog.server.logql.result_lines import streams
from lakelog.server.logql.syntax import LogQLFault
from lakelog.server.tail import TailQuery, TailWording
from lakelog.server.tail_feed import TailChunk
from lakelog.values import JsonObject, parse_time, to_micros

if TYPE_CHECKING:
    from starlette import responses
else:
    responses = Lazy("starlette.responses")

PATH = "/loki/api/v1/tail"


def _query(_: Mapping[str, str], parameters: Mapping[str, str]) -> TailQuery:
    """Return what a client follows. Raises RequestRefused."""
    try:
        lines = scope_of(parse_selection(parameters.get("query", "")))
        if lines.line != LineScope().line or lines.sources:
            raise LogQLFault("a tail takes selectors, line filters and filters of labels")
    except LogQLFault as error:
        raise RequestRefused(400, str(error)) from None
    condition = " AND ".join(f"({each})" for each in lines.conditions) or None
    return TailQuery(TailCondition(condition), "end", functools.partial(_message, lines))


def _message(lines: LineScope, chunk: TailChunk) -> str:
    """The events of a chunk as Loki tells them; it has no news that is no event."""
    if chunk.name or not chunk.lines:
        return ""
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


WORDING = TailWording(
    _query, lambda error: responses.PlainTextResponse(error.reason, error.status, error.headers)
)
"""How Loki's clients ask, and how they are answered."""
