"""What changed in behaviour between two states: types, fields of data, sources.

Each side is the events that only it has; a side that has none of its own is all that it holds. So
between a tag and the branch that went on from it, all that was is held against what came since.
Events are the same by origin and position, whichever segments hold them; bookkeeping events are no
behaviour and are left out.

    types     new, vanished
    fields    of types that both sides have: new, vanished, changed (other JSON kinds than before)
    sources   new, vanished, rate (at least twice or half as often), outcome (another share fails)

Between a state and what came after it, something has vanished only if at least EXPECTED of it were
due by its former share; rates and outcomes count from LEAST events on, and SIGMAS off chance.
Cost: one scan of either side. Each finding names counts, and one event for example.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import orjson

from lakelog.appends import StreamSubject
from lakelog.database import Connect
from lakelog.entries import SegmentEntry
from lakelog.event import BookkeepingEvent
from lakelog.history import Diff
from lakelog.libraries import duckdb
from lakelog.segments import rows_sql
from lakelog.store import Store
from lakelog.values import JsonObject

EXPECTED, LEAST, SIGMAS = 3, 20, 3.0
SHAPES_MAX = 20_000
"""Of more different shapes of data on one side the most frequent are looked at."""
_DEPTH = 4
_FIELDS_MAX = 2_000
_GROUPS_MAX = 100_000
_FAILED = "coalesce(level, '') IN ('ERROR', 'FATAL') OR upper(type) IN ('FAIL', 'FAILED', 'ERROR')"
_DONE = "upper(type) IN ('COMPLETE', 'COMPLETED', 'SUCCESS', 'SUCCEEDED', 'DONE', 'OK')"
_KINDS = {
    "VARCHAR": "text",
    "BOOLEAN": "bool",
    "NULL": "null",
    "UBIGINT": "number",
    "BIGINT": "number",
    "HUGEINT": "number",
    "DOUBLE": "number",
}
_MOMENTS = ("before", "after")
_WORDS = ("seq", "time", "type", "source", "subject", "level", "message", "data")


@dataclass(frozen=True)
class Finding:
    """One change. `before` and `after` count events; rates are events an hour, shares of 1."""

    change: str
    name: str
    before: int
    after: int
    type: str = ""
    detail: JsonObject = field(default_factory=dict)
    example: dict[str, object] | None = None

    @property
    def shift(self) -> str:
        """From what to what, in words: `7.8% -> 5.8% of 2,219 failed`."""
        detail = self.detail
        match self.change:
            case "new":
                return f"in {_events(self.after)}"
            case "vanished":
                return f"in {_events(self.before)} before"
            case "changed":
                kinds = (" or ".join(detail[f"kinds_{moment}"]) for moment in _MOMENTS)
                return f"{' -> '.join(kinds)}, in {_events(detail['other'])}"
            case "rate":
                rates = (f"{detail[f'rate_{moment}']:,.1f}" for moment in _MOMENTS)
                return f"{' -> '.join(rates)} events an hour"
        shares = (f"{detail[f'failed_{moment}']:.1%}" for moment in _MOMENTS)
        return f"{' -> '.join(shares)} of {detail['outcomes_after']:,} failed"


@dataclass(frozen=True)
class Behaviour:
    """What changed. `before` and `after` say what was compared: events, whether they are all that
    the state holds, and their first and last time in us."""

    before: JsonObject
    after: JsonObject
    types: tuple[Finding, ...]
    fields: tuple[Finding, ...]
    sources: tuple[Finding, ...]

    def __bool__(self) -> bool:
        return bool(self.types or self.fields or self.sources)

    @staticmethod
    def looking(store: Store, connect: Connect) -> Callable[[Diff], Behaviour]:
        """Return what a Diff asks for its behaviour."""
        return lambda diff: compare(store, diff, connect)


@dataclass
class _Population:
    """One side: where its rows are, and what was counted of them."""

    query: str
    entries: list[SegmentEntry]
    whole: bool
    events: int = 0
    span: tuple[int, int] | None = None
    types: dict[str, list[int]] = field(default_factory=dict)
    sources: dict[str, _Source] = field(default_factory=dict)
    fields: dict[tuple[str, str], dict[str, list[int]]] = field(default_factory=dict)

    @property
    def hours(self) -> float:
        """How long the side lasts."""
        return (self.span[1] - self.span[0]) / 3.6e9 if self.span else 0.0


@dataclass
class _Source:
    """Counts of one source; an example and one that failed, by seq."""

    events: int = 0
    failed: int = 0
    successes: int = 0
    example: int = 0
    failing: int | None = None


def compare(store: Store, diff: Diff, connect: Connect) -> Behaviour:
    """Compare the behaviour of two states. Raises Damaged."""
    with closing(connect().cursor()) as cursor:
        before, after = _populations(store, diff, cursor)
        for population in (before, after):
            _count(cursor, population)
        examples = _Examples(store, cursor, (before, after))
        # Twice: at first only to learn of which events there are examples, for one query for all.
        _findings(before, after, examples)
        examples.load()
        return Behaviour(_told(before), _told(after), *_findings(before, after, examples))


def _populations(
    store: Store, diff: Diff, cursor: duckdb.DuckDBPyConnection
) -> tuple[_Population, _Population]:
    """Return what is compared: the rows of its own of either state, or else all of it."""
    populations = []
    segments = [
        [e for e in entries if e.kind == "events"] for entries in (diff.removed, diff.added)
    ]
    store.verified.require([*segments[0], *segments[1]])
    for number, state in enumerate((diff.a, diff.b)):
        entries_of_side, common = segments[number], segments[1 - number]
        query = rows_sql(store.paths, entries_of_side) if entries_of_side else ""
        if entries_of_side and common:
            same = (
                # Compacted and sealed anew, a row has another seq; origin, position and id stay.
                "(m.origin, m.position, m.id) IS NOT DISTINCT FROM (o.origin, o.position, o.id)"
                # After a rollback a stream gives its versions again, to other events.
                " AND (m.ingested_at = o.ingested_at"
                f" OR starts_with(m.origin, '{StreamSubject.ORIGIN}') IS NOT TRUE)"
            )
            common_rows = rows_sql(store.paths, common)
            query = f"SELECT m.* FROM ({query}) m ANTI JOIN ({common_rows}) o ON {same}"
        # Of a state that lost nothing all rows are in the other one: then both are compared as a
        # whole.
        whole = not query or not cursor.execute(f"SELECT 1 FROM ({query}) LIMIT 1").fetchone()
        if whole:
            manifest = store.manifests.load(state.id)
            entries_of_side = store.manifests.segments(manifest, "events")
            store.verified.require(entries_of_side)
            query = rows_sql(store.paths, entries_of_side) if entries_of_side else ""
        query = query and f"SELECT * FROM ({query}) WHERE {BookkeepingEvent.IS_DATA}"
        populations.append(_Population(query, entries_of_side, whole))
    return populations[0], populations[1]


def _count(cursor: duckdb.DuckDBPyConnection, population: _Population) -> None:
    """Count types, sources, outcomes and fields of a side."""
    if not population.query:
        return
    # At most so many groups, the largest first: sources may be ids by mistake.
    rows = cursor.execute(f"""SELECT type, source, count(*), count(*) FILTER ({_FAILED}),
            count(*) FILTER ({_DONE}), min(epoch_us(time)), max(epoch_us(time)), min(seq),
            min(seq) FILTER ({_FAILED})
        FROM ({population.query}) GROUP BY 1, 2 ORDER BY 3 DESC LIMIT {_GROUPS_MAX}""").fetchall()
    for name, source, events, failed, successes, low, high, seq, failing in rows:
        population.events += events
        span = population.span or (low, high)
        population.span = min(span[0], low), max(span[1], high)
        counts = population.types.setdefault(name, [0, seq])
        counts[0], counts[1] = counts[0] + events, min(counts[1], seq)
        if source is not None:
            # A source is counted over all types; rows come by size, so its first examples are of
            # the type that it logs most.
            counted = population.sources.setdefault(source, _Source(example=seq))
            counted.events += events
            counted.failed += failed
            counted.successes += successes
            counted.failing = failing if counted.failing is None else counted.failing
    # Payloads are grouped by structure first: a type has a handful of them, and only those are
    # walked in Python.
    shapes = cursor.execute(f"""SELECT type, json_structure(data)::VARCHAR, count(*), min(seq)
        FROM ({population.query}) WHERE json_valid(data) GROUP BY 1, 2
        ORDER BY 3 DESC LIMIT {SHAPES_MAX}""").fetchall()
    for name, shape, events, seq in shapes:
        for path, value in set(_walk(orjson.loads(shape), "", 0)):
            counts = population.fields.setdefault((name, path), {}).setdefault(value, [0, seq])
            counts[0] += events


def _walk(shape: object, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield (path, JSON kind) of the fields that a shape has."""
    if isinstance(shape, dict):
        if path:
            yield path, "object"
        if depth < _DEPTH:
            for name, inner in list(shape.items())[:_FIELDS_MAX]:
                yield from _walk(inner, f"{path}.{name}" if path else name, depth + 1)
    elif isinstance(shape, list):
        if path:
            yield path, "list"
        if depth < _DEPTH:
            yield from _walk(shape[0] if shape else "NULL", f"{path}[]", depth + 1)
    # A scalar at the top has no name to be reported by.
    elif path:
        yield path, _KINDS.get(str(shape), str(shape).lower())


class _Examples:
    """Events of the sides by their seq: noted when they are asked for, there once loaded."""

    def __init__(
        self,
        store: Store,
        cursor: duckdb.DuckDBPyConnection,
        populations: tuple[_Population, _Population],
    ) -> None:
        self._store, self._cursor, self._populations = store, cursor, populations
        self._events: tuple[dict[int, JsonObject | None], ...] = ({}, {})

    def __call__(self, index: int, seq: int) -> JsonObject | None:
        """Return an event's columns, its data as the JSON it is; None before it is loaded."""
        return self._events[index].setdefault(seq, None)

    def load(self) -> None:
        """Read what was asked for."""
        for population, events in zip(self._populations, self._events, strict=True):
            numbers = sorted(events)
            # Only the segments whose numbers include one of them are opened.
            near = [
                entry
                for entry in population.entries
                if bisect_right(numbers, entry.seq[1]) > bisect_left(numbers, entry.seq[0])
            ]
            if not near:
                continue
            query = f"SELECT {', '.join(_WORDS)} FROM ({rows_sql(self._store.paths, near)})"
            rows = self._cursor.execute(f"{query} WHERE seq IN (SELECT unnest($1))", [numbers])
            for row in rows.fetchall():
                event = dict(zip(_WORDS, row, strict=True))
                events[event["seq"]] = event


def _findings(
    before: _Population, after: _Population, looks: _Examples
) -> tuple[tuple[Finding, ...], tuple[Finding, ...], tuple[Finding, ...]]:
    return (
        tuple(_types(before, after, looks)),
        tuple(_fields(before, after, looks)),
        tuple(_sources(before, after, looks)),
    )


def _types(before: _Population, after: _Population, looks: _Examples) -> Iterator[Finding]:
    for name, (count, seq) in _ranked(after.types):
        if name not in before.types and before.events:
            yield Finding("new", name, 0, count, example=looks(1, seq))
    for name, (count, seq) in _ranked(before.types):
        if name not in after.types and _is_due(count, before, after):
            yield Finding("vanished", name, count, 0, example=looks(0, seq))


def _fields(before: _Population, after: _Population, looks: _Examples) -> Iterator[Finding]:
    shared = before.types.keys() & after.types.keys()
    for name, path in sorted(after.fields.keys() | before.fields.keys()):
        if name not in shared or _stem_is_missing(name, path, before, after):
            continue
        old, new = (population.fields.get((name, path), {}) for population in (before, after))
        counts = [sum(n for n, _ in kinds.values()) for kinds in (old, new)]
        old_kinds, new_kinds = (sorted(kinds.keys() - {"null"}) for kinds in (old, new))
        detail: JsonObject = {"kinds_before": old_kinds, "kinds_after": new_kinds}
        if not old:
            example = looks(1, min(seq for _, seq in new.values()))
            yield Finding("new", path, 0, counts[1], name, detail, example)
        elif not new:
            share = (before.types[name][0], after.types[name][0])
            if (before.whole and after.whole) or counts[0] * share[1] >= EXPECTED * share[0]:
                # Rare fields are often missing by chance: it is vanished only if enough of them
                # were due.
                example = looks(0, min(seq for _, seq in old.values()))
                yield Finding("vanished", path, counts[0], 0, name, detail, example)
        elif unusual := [
            name_of_kind
            for name_of_kind in new_kinds
            if old_kinds and name_of_kind not in old_kinds
        ]:
            example = looks(1, new[unusual[0]][1])
            detail["other"] = sum(new[name_of_kind][0] for name_of_kind in unusual)
            yield Finding("changed", path, counts[0], counts[1], name, detail, example)


def _stem_is_missing(name: str, path: str, before: _Population, after: _Population) -> bool:
    """Whether a path lies in a field that is itself new or vanished: then that says it all."""
    stem = path.removesuffix("[]") if path.endswith("[]") else path.rpartition(".")[0]
    if not stem:
        return False
    return any(
        (name, stem) not in population.fields for population in (before, after)
    ) or stem.endswith("[]")


def _sources(before: _Population, after: _Population, looks: _Examples) -> Iterator[Finding]:
    for name, new in sorted(after.sources.items(), key=lambda pair: -pair[1].events):
        old = before.sources.get(name)
        if old is None:
            if before.events:
                yield Finding("new", name, 0, new.events, example=looks(1, new.example))
            continue
        if detail := _rate(old, new, before, after):
            example = looks(1, new.example)
            yield Finding("rate", name, old.events, new.events, "", detail, example)
        if detail := _outcome(old, new):
            example = None if new.failing is None else looks(1, new.failing)
            yield Finding("outcome", name, old.events, new.events, "", detail, example)
    for name, old in sorted(before.sources.items(), key=lambda pair: -pair[1].events):
        if name not in after.sources and _is_due(old.events, before, after):
            yield Finding("vanished", name, old.events, 0, example=looks(0, old.example))


def _rate(old: _Source, new: _Source, before: _Population, after: _Population) -> JsonObject:
    """What to say of a rate that is another one, or nothing."""
    if not before.hours or not after.hours or max(old.events, new.events) < LEAST:
        return {}
    rates = old.events / before.hours, new.events / after.hours
    due = rates[0] * after.hours
    # The variance of what is due, and of the count that it is due by (Poisson).
    off = abs(new.events - due) / math.sqrt(due + due * due / old.events)
    if off < SIGMAS or 0.5 < rates[1] / rates[0] < 2:
        return {}
    return {"rate_before": rates[0], "rate_after": rates[1]}


def _outcome(old: _Source, new: _Source) -> JsonObject:
    """What to say of a share of failures that is another one, or nothing.

    The share is of outcomes; of all events where a source names no success.
    """
    has_outcomes = old.successes + new.successes > 0
    totals = [s.failed + s.successes if has_outcomes else s.events for s in (old, new)]
    if min(totals) < LEAST:
        return {}
    shares = old.failed / totals[0], new.failed / totals[1]
    pooled = (old.failed + new.failed) / sum(totals)
    # The two-proportion z-test with pooled variance.
    wide = math.sqrt(pooled * (1 - pooled) * (1 / totals[0] + 1 / totals[1]))
    if not wide or abs(shares[1] - shares[0]) / wide < SIGMAS:
        return {}
    return {
        "failed_before": shares[0],
        "failed_after": shares[1],
        "outcomes_before": totals[0],
        "outcomes_after": totals[1],
    }


def _events(count: int) -> str:
    return f"{count:,} event{'' if count == 1 else 's'}"


def _is_due(count: int, before: _Population, after: _Population) -> bool:
    """Whether something that is not there should be, by its share of what was."""
    if (before.whole and after.whole) or not before.whole:
        return after.events > 0
    return count * after.events >= EXPECTED * before.events


def _ranked(types: dict[str, list[int]]) -> Iterable[tuple[str, list[int]]]:
    return sorted(types.items(), key=lambda pair: (-pair[1][0], pair[0]))


def _told(population: _Population) -> JsonObject:
    return {
        "events": population.events,
        "whole": population.whole,
        "time": population.span and list(population.span),
    }
