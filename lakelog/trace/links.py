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
from collections.abc import Callable, Collection, Iterable, Iterator

from lakelog.errors import UnknownRef
from lakelog.query import Relation
from lakelog.search import words
from lakelog.sql import literal
from lakelog.trace.tree import LinkedEvent, TraceTree, tree_of

AskState = Callable[[str], "Relation"]
"""The method `sql` of a lake or of one of its states."""
TRACE = "traceId trace_id traceid TraceId dd.trace_id".split()
_SPAN = "spanId span_id spanid SpanId dd.span_id".split()
PARENT = "parentSpanId parent_span_id parentId parent_id parentspanid ParentSpanId".split()
_CORRELATION = "correlationId correlation_id correlationid CorrelationId".split()
_CAUSATION = "causationId causation_id causationid CausationId".split()


def member(names: list[str]) -> str:
    """SQL of the first of these members of a payload that is there."""
    # Of the payload, of our loggers' `details`, and of OpenTelemetry's `attributes`.
    holders = ("", "details.", "attributes.")
    paths = ", ".join(f"'$.{holder}\"{name}\"'" for name in names for holder in holders)
    values = f"json_extract_string(data, [{paths}])"
    return f"list_filter({values}, lambda v: v <> '')[1]"


# W3C's traceparent: version-trace-span-flags.
PARENT_LINE = "data ->> '$.traceparent'"
_LINKED = f"""
SELECT seq, id, time, type, level, source, message,
    coalesce({member(TRACE)}, split_part({PARENT_LINE}, '-', 2)) AS trace,
    {member(_SPAN)} AS span,
    coalesce({member(PARENT)}, split_part({PARENT_LINE}, '-', 3)) AS parent,
    {member(_CORRELATION)} AS correlation, {member(_CAUSATION)} AS causation,
    coalesce(
        (TRY_CAST(data ->> '$.endTimeUnixNano' AS BIGINT)::HUGEINT
            - TRY_CAST(data ->> '$.startTimeUnixNano' AS BIGINT)) / 1e6,
        list_filter([TRY_CAST({member(["duration_ms", "durationMs"])} AS DOUBLE)],
            lambda ms: isfinite(ms))[1]) AS duration
FROM events WHERE {{condition}}"""
_LINKS = f"SELECT seq, id, trace, span, correlation, causation FROM ({_LINKED})"
# A cheap look at the text, before anything is parsed of it.
_IS_LINKED = "(regexp_matches(data, '(?i)trace|span|correlation|causation') OR id = {id})"
_ALL = f"""
WITH RECURSIVE links AS MATERIALIZED ({_LINKS.format(condition=_IS_LINKED)}),
members AS (SELECT * FROM links WHERE {{members}}),
below AS (
    SELECT seq, id FROM members
    UNION SELECT l.seq, l.id FROM links l JOIN below b ON l.causation = b.id
), above AS (
    SELECT seq, causation FROM members
    UNION SELECT l.seq, l.causation FROM links l JOIN above a ON l.id = a.causation
), found AS (SELECT seq FROM below UNION SELECT seq FROM above)
SELECT * FROM ({_LINKED.format(condition="true")})
WHERE seq IN (SELECT seq FROM found) OR id IN (SELECT causation FROM above)"""
_IDS_MAX = 256
"""So many ids are looked up in the word indexes; for more, all events that have any are read."""
_ROUNDS_MAX = 16
"""So often causes of causes are looked up: reading all takes as long as a few looks."""


def trace_of(ask: AskState, id: str) -> TraceTree:
    """Return the trace of an event, trace, span or correlation id.

    Raises UnknownRef if nothing has it, QueryFailed.
    """
    is_start = f"{literal(id)} IN (id, trace, span, correlation)"
    # An empty id would be that of all events without one; no event has one that is no Unicode.
    is_text = id != "" and id.encode(errors="ignore").decode() == id
    starts = _having(ask, {id}, is_start) if is_text else []
    if not starts:
        raise UnknownRef(
            f"no event has {id!r} as its id, or as trace, span or correlation id:"
            " `lakelog search` finds ids by their parts"
        )
    traces = {event.trace_id for event in starts if event.trace_id}
    correlations = {event.correlation_id for event in starts if event.correlation_id}
    # What has the id is of the trace, also without another that it has in common with others.
    is_member = is_start + "".join(
        f" OR {column} IN ({', '.join(map(literal, sorted(keys)))})"
        for column, keys in (("trace", traces), ("correlation", correlations))
        if keys
    )
    members = _having(ask, {id} | traces | correlations, is_member)
    # First by the word indexes, which only read what has one of the ids.
    events: Iterable[LinkedEvent] | None = _with_causes(ask, members)
    if events is None:
        events = _events(ask(_ALL.format(members=is_member, id=literal(id))))
    return tree_of(id, events)


def _with_causes(ask: AskState, members: list[LinkedEvent]) -> list[LinkedEvent] | None:
    """Return events, what caused them, and what they caused, as far as it goes; None if these are
    too many to be looked up."""
    events = {event.seq: event for event in members}
    effects_of = {event.id for event in members if event.id}
    causes = {event.causation_id for event in members if event.causation_id}
    asked_effects, asked_causes, rounds = set[str](), set[str](), 0
    while effects_of > asked_effects or causes > asked_causes:
        # A chain that goes through the whole lake is read in one go.
        rounds += 1
        if rounds > _ROUNDS_MAX or len(effects_of | causes) > _IDS_MAX:
            return None
        fresh_effects, fresh_causes = effects_of - asked_effects, causes - asked_causes
        asked_effects, asked_causes = set(effects_of), set(causes)
        tests = [
            f"{column} IN ({', '.join(map(literal, sorted(ids)))})"
            for column, ids in (("causation", fresh_effects), ("id", fresh_causes))
            if ids
        ]
        for event in _having(ask, fresh_effects | fresh_causes, " OR ".join(tests)):
            events[event.seq] = event
            if event.causation_id in fresh_effects and event.id:
                effects_of.add(event.id)
            if event.id in fresh_causes and event.causation_id:
                causes.add(event.causation_id)
    return list(events.values())


def _having(ask: AskState, ids: Collection[str], condition: str) -> list[LinkedEvent]:
    """Return the events for which a condition over their links holds, and which mention one of some
    ids somewhere."""
    # Each segment's index says whether it has one of the ids. Without one the text does, unless it
    # has escapes: a look at it takes a third of parsing it, so it is taken by itself.
    text = literal("|".join([*map(re.escape, sorted(ids)), r"\\"]))
    is_mentioned = f"(regexp_matches(data, {text}) OR id IN ({', '.join(map(literal, ids))}))"
    linked = _LINKED.format(condition=words.mentioning(is_mentioned, sorted(ids)))
    query = f"WITH linked AS MATERIALIZED ({linked}) SELECT * FROM linked WHERE {condition}"
    return list(_events(ask(query)))


def _events(rows: Relation) -> Iterator[LinkedEvent]:
    for row in rows.iter_rows():
        yield LinkedEvent(*row)
