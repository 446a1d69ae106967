"""Which events belong to a trace, found by the ids that they carry.

The ids are members of the payload, or of its `details`, under the names of OpenTelemetry and of our
loggers (`traceId`, `spanId`, `parentSpanId`, `traceparent`), of event stores and of CloudEvents'
extensions (`correlationId`, `causationId`), in any of their spellings. A trace is

    the events that have the id as their own, or as trace, span or correlation id;
    all events of the traces and correlations of these;
    what caused these, and what they caused, as far as it goes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lakelog.errors import UnknownRef
from lakelog.segments.sql import literal
from lakelog.trace.tree import LinkedEvent, TraceTree, tree_of

if TYPE_CHECKING:
    from lakelog.query.relation import Relation

TRACE = "traceId trace_id traceid TraceId dd.trace_id".split()
_SPAN = "spanId span_id spanid SpanId dd.span_id".split()
PARENT = "parentSpanId parent_span_id parentId parent_id parentspanid ParentSpanId".split()
_CORRELATION = "correlationId correlation_id correlationid CorrelationId".split()
_CAUSATION = "causationId causation_id causationid CausationId".split()


def member(names: list[str]) -> str:
    """SQL of the first of these members of a payload that is there."""
    holders = ("", "details.", "attributes.")
    paths = ", ".join(f"'$.{holder}\"{name}\"'" for name in names for holder in holders)
    values = f"json_extract_string(data, [{paths}])"
    return f"list_filter({values}, lambda v: v <> '')[1]"


PARENT_LINE = "data ->> '$.traceparent'"
_LINKS = f"""
SELECT seq, id, coalesce({member(TRACE)}, split_part({PARENT_LINE}, '-', 2)) AS trace,
    {member(_SPAN)} AS span,
    coalesce({member(PARENT)}, split_part({PARENT_LINE}, '-', 3)) AS parent,
    {member(_CORRELATION)} AS correlation, {member(_CAUSATION)} AS causation
FROM events"""
# Of the events that name a cause all are looked at: any may have been caused by one of the trace.
_HAS_CAUSE = " OR ".join(sorted({name.lower() for name in _CAUSATION}))
_WORD = re.compile(r"[0-9A-Za-z]+(?:[-_][0-9A-Za-z]+)*")
_KEYS_MAX = 100
_IS_LINKED = "regexp_matches(data::VARCHAR, '(?i)trace|correlation|causation')"
_START = f"""
SELECT DISTINCT trace, correlation, id
FROM ({_LINKS} WHERE {{condition}})
WHERE $id IN (id, trace, span, correlation)"""
_MEMBERS = f"""
WITH RECURSIVE links AS MATERIALIZED ({_LINKS} WHERE {{condition}}),
members AS (
    SELECT * FROM links WHERE list_contains($traces, trace)
        OR list_contains($correlations, correlation) OR list_contains($ids, id)
), below AS (
    SELECT seq, id FROM members
    UNION SELECT l.seq, l.id FROM links l JOIN below b ON l.causation = b.id
), above AS (
    SELECT seq, causation FROM members
    UNION SELECT l.seq, l.causation FROM links l JOIN above a ON l.id = a.causation
), found AS (SELECT seq FROM below UNION SELECT seq FROM above)
SELECT e.seq, e.id, e.time, e.type, e.level, e.source, e.message, l.trace, l.span, l.parent,
    l.correlation, l.causation, coalesce(
        (TRY_CAST(e.data ->> '$.endTimeUnixNano' AS BIGINT)
            - TRY_CAST(e.data ->> '$.startTimeUnixNano' AS BIGINT)) / 1e6,
        TRY_CAST({member(["duration_ms", "durationMs"])} AS DOUBLE)) AS duration
FROM events e LEFT JOIN links l USING (seq)
WHERE e.seq IN (SELECT seq FROM found) OR e.id IN (SELECT causation FROM above)"""


def trace_of(ask: Callable[[str, Any], Relation], id: str) -> TraceTree:
    """Return the trace of an event, trace, span or correlation id.

    Raises UnknownRef if nothing has it, QueryFailed.
    """
    starts = ask(_START.format(condition=_have([id])), {"id": id}).fetchall() if id else []
    if not starts:
        raise UnknownRef(
            f"no event has {id!r} as its id, or as trace, span or correlation id:"
            " `lakelog search` finds ids by their parts"
        )
    traces = sorted({trace for trace, _, _ in starts if trace})
    correlations = sorted({correlation for _, correlation, _ in starts if correlation})
    ids = [id] if any(event_id == id for _, _, event_id in starts) else []
    names = {"traces": traces or [""], "correlations": correlations or [""], "ids": ids or [""]}
    keys = [*traces, *correlations, *ids]
    # The word indexes find a few ids; many of them are a scan in any case.
    condition = _IS_LINKED if len(keys) > _KEYS_MAX else _have(keys, _HAS_CAUSE)
    return tree_of(id, _events(ask(_MEMBERS.format(condition=condition), names)))


def _have(ids: Sequence[str], alternative: str = "") -> str:
    """SQL for the events that have one of these ids, or that a search finds, and maybe for more."""
    searches = [alternative] if alternative else []
    if all(_WORD.fullmatch(id) for id in ids):
        return f"search({literal(' OR '.join([*(_quoted(id) for id in ids), *searches]))})"
    conditions = [f"id = {literal(id)} OR contains(data::VARCHAR, {literal(id)})" for id in ids]
    return " OR ".join([*conditions, *(f"search({literal(search)})" for search in searches)])


def _quoted(id: str) -> str:
    return f'"{id}"'


def _events(rows: Relation) -> Iterator[LinkedEvent]:
    for row in rows.iter_rows():
        yield LinkedEvent(*row)
