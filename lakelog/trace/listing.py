"""The newest traces of a range of time, each in one row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from lakelog.query import Relation
from lakelog.sql import literal
from lakelog.trace.links import PARENT, PARENT_LINE, TRACE, member

# Newest first: of a lake of years nobody lists all traces.
EVENTS_MAX = 20_000
"""So many of the newest events with a trace id are looked at."""
# As words, so that segments without traces are not read.
_WORDS = " OR ".join(f'"{name}"' for name in (*TRACE, "traceparent"))
_USAGE = "data ->> '$.attributes.\"gen_ai.usage.{}\"'"
_FAILED = (
    "coalesce(level IN ('ERROR', 'FATAL'), false)"
    " OR coalesce(data ->> '$.status.code' IN ('2', 'STATUS_CODE_ERROR'), false)"
)
# Without a query around it, so that it begins with the newest events.
_NEWEST = (
    "SELECT time, seq, type, level, source, message, data FROM events"
    f" WHERE search({literal(_WORDS)}) AND {{condition}} ORDER BY time DESC LIMIT {EVENTS_MAX}"
)
_LISTED = f"""
WITH linked AS (
    SELECT *, coalesce({member(TRACE)}, split_part({PARENT_LINE}, '-', 2)) AS trace,
        {member(PARENT)} AS parent,
        TRY_CAST({_USAGE.format("cost")} AS DOUBLE) AS cost,
        TRY_CAST(data ->> '$.endTimeUnixNano' AS BIGINT) / 1e6 AS end_ms
    FROM newest)
SELECT trace, min(time) AS begins,
    greatest(max(epoch_us(time)) / 1e3, max(end_ms)) - min(epoch_us(time)) / 1e3 AS duration_ms,
    count(*) AS events, count_if({_FAILED}) AS errors,
    arg_min(coalesce(data ->> '$.name', message, type), (parent IS NOT NULL, time)) AS name,
    arg_min(source, (parent IS NOT NULL, time)) AS source,
    sum(TRY_CAST({_USAGE.format("input_tokens")} AS INTEGER))::BIGINT AS input_tokens,
    sum(TRY_CAST({_USAGE.format("output_tokens")} AS INTEGER))::BIGINT AS output_tokens,
    sum(cost) FILTER (isfinite(cost)) AS cost,
    any_value(coalesce(data ->> '$.attributes."gen_ai.conversation.id"',
        data ->> '$.attributes."session.id"', data ->> '$.session_id')) AS session
FROM linked WHERE trace <> '' GROUP BY 1 ORDER BY {{order}} LIMIT {{limit}}"""
ORDERS = {
    "newest": "begins DESC",
    "slowest": "duration_ms DESC, begins DESC",
    "dearest": "cost DESC NULLS LAST, begins DESC",
    "failed": "errors DESC, begins DESC",
}
"""What may come first, with its order in SQL."""


@dataclass(frozen=True)
class TraceSummary:
    """A trace in one row; tokens and cost are those of calls of language models, or None, and so is
    the session or conversation that it belongs to."""

    id: str
    begins: datetime
    duration_ms: float
    events: int
    errors: int
    name: str
    source: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    session: str | None


class StateQuery(Protocol):
    """The method `sql` of a lake or of one of its states."""

    def __call__(
        self, query: str, params: Any = None, *, variables: Mapping[str, Any] | None = None
    ) -> Relation: ...


def traces(
    ask: StateQuery, condition: str = "true", limit: int = 200, order: str = "newest"
) -> list[TraceSummary]:
    """Return traces, in one of `ORDERS`, of the newest events with a trace id for which a condition
    in SQL holds. Raises QueryFailed."""
    # Read once, and grouped in a second step: the first may stop early.
    newest = ask(_NEWEST.format(condition=condition)).to_arrow_table()
    rows = ask(
        _LISTED.format(limit=limit, order=ORDERS[order]), variables={"newest": newest}
    ).fetchall()
    return [TraceSummary(*row) for row in rows]
