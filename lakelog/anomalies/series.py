"""The series of a lake: counts by source and type, errors by source, and values of fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lakelog.event import BookkeepingEvent
from lakelog.lake import Lake
from lakelog.libraries import Floats, Integers, np
from lakelog.pinned import PinnedLake
from lakelog.query import Relation
from lakelog.sql import json_path, literal

SERIES_MAX = 200
"""Series that are looked at, those of the most events first."""
EVENTS_MIN = 30
_FIELDS_MAX, _FIELD_SOURCES_MAX = 20, 50
_NO_MEASURE = r"(?i)(^|_)(id|port|pid|line)\z"
# Cut by one reading of each object, however many members it has.
_FIELDS = f"""
    WITH members AS MATERIALIZED (
        SELECT type, [entry.key] AS names, entry.value AS value FROM (
            SELECT type, unnest(map_entries(try_cast(data AS MAP(VARCHAR, JSON)))) AS entry FROM (
                SELECT type, data::JSON AS data FROM events WHERE json_type(data) = 'OBJECT'
                AND time >= $start AND time < $end AND $data
                USING SAMPLE reservoir(20000 ROWS) REPEATABLE (1)))
    ), nested AS (
        SELECT type, list_append(names, entry.key) AS names, entry.value AS value FROM (
            SELECT type, names, unnest(map_entries(try_cast(value AS MAP(VARCHAR, JSON)))) AS entry
            FROM members WHERE json_type(value) = 'OBJECT')
    ), fields AS (
        SELECT type, names, value->>'$' AS value FROM (FROM members UNION ALL FROM nested)
        WHERE json_type(value) NOT IN ('OBJECT', 'ARRAY')
    )
    SELECT type, names FROM fields
    WHERE try_cast(value AS DOUBLE) > 0 AND NOT regexp_matches(names[-1], '{_NO_MEASURE}')
    GROUP BY ALL HAVING count(DISTINCT value) > 20
        AND (count(DISTINCT value) < 0.98 * count(*) OR bool_or(try_cast(value AS DOUBLE) % 1 > 0))
    ORDER BY count(*) DESC, type, min(len(names)), names LIMIT {_FIELDS_MAX}"""
"""The numbers in payloads that vary: members of data, and members of these. Whole numbers of which
hardly one comes twice are names of things."""


# Which series are frequent is decided here: a lake may have a million sources.
_COUNTS = """
    WITH counted AS MATERIALIZED (
        SELECT source, type, $span AS span, count(*) AS n,
            count(*) FILTER (level IN ('ERROR', 'FATAL')) AS errors
        FROM events WHERE time >= $start AND time < $end AND $data GROUP BY ALL
    ), frequent AS ($frequent), failing AS ($failing)
    SELECT c.source, c.type, span, n FROM counted c
        JOIN frequent f ON c.type = f.type AND c.source IS NOT DISTINCT FROM f.source
    UNION ALL
    SELECT c.source, NULL, span, sum(errors) FROM counted c
        JOIN failing f ON c.source IS NOT DISTINCT FROM f.source
        WHERE errors > 0 GROUP BY ALL"""
_FREQUENT = f"""SELECT source, type FROM counted GROUP BY ALL HAVING sum(n) >= {EVENTS_MIN}
    ORDER BY sum(n) DESC, source, type LIMIT {SERIES_MAX}"""
_FAILING = f"""SELECT source FROM counted GROUP BY source HAVING sum(errors) > 0
    ORDER BY sum(errors) DESC, source LIMIT {SERIES_MAX}"""


_PLACES = re.compile(r"'(?:[^']|'')*'|\$(\w+)")
GAP_US, _GAPS_BEFORE_US = 60_000_000, 345_600_000_000
"""From how long on a gap is looked at, and how long before a time those are that teach."""
# A gap of a minute is between two minutes: of each, the first and the last event are enough.
_GAPS = f"""
    WITH counted AS MATERIALIZED (
        SELECT source, type, epoch_us(min(time)) AS first_us, epoch_us(max(time)) AS last_us,
            count(*) AS n
        FROM events WHERE time >= $start AND time < $end AND $data GROUP BY source, type, $span
    ), frequent AS (
        SELECT source, type FROM counted GROUP BY ALL ORDER BY sum(n) DESC, source, type
        LIMIT {SERIES_MAX}
    )
    SELECT c.source, c.type, last_us, lead(first_us, 1, epoch_us($end)) OVER (
        PARTITION BY c.source, c.type ORDER BY last_us) AS next_us
    FROM counted c JOIN frequent f ON c.type = f.type AND c.source IS NOT DISTINCT FROM f.source
    QUALIFY next_us - last_us >= {GAP_US} ORDER BY last_us"""


@dataclass(frozen=True)
class Spans:
    """Spans of equal length: when the first begins, in microseconds, how long each is, how many."""

    start_us: int
    length_us: int
    count: int

    @property
    def end_us(self) -> int:
        """When the last one ends."""
        return self.start_us + self.length_us * self.count

    def begin_us(self, index: int) -> int:
        """When one begins."""
        return self.start_us + self.length_us * index


CountKey = tuple[str | None, str | None]


@dataclass(frozen=True)
class Series:
    """Numbers of events by span of time, or means of a field, with how many values each has.

    `condition` is SQL for its events, `field` for a value of one, "" for numbers of events."""

    name: str
    condition: str
    field: str
    values: Floats
    weights: Floats
    key: CountKey | None = None
    """Of numbers of events, the source and type; without a type, the errors of the source."""


@dataclass(frozen=True)
class Gaps:
    """Times of a minute and more without an event of a series, from one event to the next."""

    begins_us: Integers
    ends_us: Integers


def gaps_of(state: Lake | PinnedLake, spans: Spans, since_us: int) -> dict[str, Gaps]:
    """Return the gaps of the frequent series of counts by their conditions, of the spans since a
    time and of some days before it. The last gap of each goes to the end of the spans."""
    first_us = max(spans.start_us, (since_us - _GAPS_BEFORE_US) // GAP_US * GAP_US)
    within = Spans(first_us, GAP_US, (spans.end_us - first_us) // GAP_US)
    of_series: dict[tuple[str | None, str], tuple[list[int], list[int]]] = {}
    for source, type_, begin, end in asked(state, within, _GAPS):
        begins, ends = of_series.setdefault((source, type_), ([], []))
        begins.append(begin)
        ends.append(end)
    return {
        of_type(source, type_): Gaps(np.array(begins), np.array(ends))
        for (source, type_), (begins, ends) in of_series.items()
    }


def series_of(
    state: Lake | PinnedLake, spans: Spans, selection: Iterable[Series] | None = None
) -> Iterator[Series]:
    """Yield the series of a state, counts first: those of the most events, or the counts among
    `selection` that have one in these spans."""
    keys = (
        None
        if selection is None
        else [series.key for series in selection if series.key is not None]
    )
    yield from _counts(state, spans, keys)
    yield from _fields(state, spans)


def _counts(
    state: Lake | PinnedLake, spans: Spans, keys: list[CountKey] | None
) -> Iterator[Series]:
    counts: dict[CountKey, Floats] = {}
    frequent_sql, failing_sql = _FREQUENT, _FAILING
    if keys is not None:
        frequent_sql = _rows_sql("source, type", [key for key in keys if key[1] is not None])
        failing_sql = _rows_sql("source", [key[:1] for key in keys if key[1] is None])
    rows = asked(state, spans, _COUNTS, frequent=frequent_sql, failing=failing_sql)
    for source, type_, span, number in rows:
        counts.setdefault((source, type_), np.zeros(spans.count))[span] += number
    ones = np.ones(spans.count)
    # The query gives up to SERIES_MAX of types and as many of errors.
    frequent = sorted(counts, key=lambda key: (-counts[key].sum(), key[0] or "", key[1] or ""))
    for source, type_ in frequent[:SERIES_MAX]:
        values = counts[source, type_]
        if type_ is not None:
            name = f"{type_} of {source or 'no source'}"
            yield Series(name, of_type(source, type_), "", values, ones, (source, type_))
        elif values.sum() > 0 and (keys is not None or not _is_of_one_type(counts, source)):
            name = f"errors of {source or 'no source'}"
            condition = f"{is_source(source)} AND level IN ('ERROR', 'FATAL')"
            yield Series(name, condition, "", values, ones, (source, None))


def _rows_sql(columns: str, rows: Sequence[tuple[str | None, ...]]) -> str:
    """SQL for rows of texts."""
    if not rows:
        return f"SELECT {columns} FROM counted WHERE false"
    row_texts = (", ".join("NULL" if v is None else literal(v) for v in row) for row in rows)
    return f"SELECT * FROM (VALUES {', '.join(f'({row})' for row in row_texts)}) AS t({columns})"


def _is_of_one_type(counts: dict[CountKey, Floats], source: str | None) -> bool:
    """Whether the errors of a source are the events of one type, which are a series already."""
    return any(
        np.array_equal(values, counts[source, None])
        for (other_source, type_), values in counts.items()
        if other_source == source and type_ is not None
    )


def _fields(state: Lake | PinnedLake, spans: Spans) -> Iterator[Series]:
    for type_, names in asked(state, spans, _FIELDS).fetchall():
        # No path has such a name.
        if "" in names or "\0" in "".join(names):
            continue
        # A plain name as queries have it, by which its column is found.
        path = (
            literal(names[0]) if names[0].isidentifier() and len(names) == 1 else json_path(names)
        )
        value = f"try_cast(data->>{path} AS DOUBLE)"
        rows = asked(
            state,
            spans,
            f"WITH counted AS (SELECT source, $span AS span, avg(ln({value})) AS mean,"
            f" count(*) AS n FROM events WHERE type = {literal(type_)} AND {value} > 0"
            f" AND isfinite({value}) AND time >= $start AND time < $end AND $data GROUP BY ALL),"
            " frequent AS (SELECT source FROM counted GROUP BY source"
            f" ORDER BY sum(n) DESC, source LIMIT {_FIELD_SOURCES_MAX})"
            " SELECT c.* FROM counted c JOIN frequent f ON c.source IS NOT DISTINCT FROM f.source",
        )
        by_source: dict[str | None, tuple[Floats, Floats]] = {}
        for source, span, mean, number in rows:
            if source not in by_source:
                # NaN is a span without a value. A count of 0 would be a value, a mean is not.
                by_source[source] = np.full(spans.count, np.nan), np.ones(spans.count)
            by_source[source][0][span], by_source[source][1][span] = mean, number
        for source, (values, weights) in by_source.items():
            condition = of_type(source, type_)
            name = f"{'.'.join(names)} of {type_} of {source or 'no source'}"
            yield Series(name, condition, value, values, weights)


def asked(state: Lake | PinnedLake, spans: Spans, query: str, **expressions: str) -> Relation:
    """Return the answer to a query in which $start, $end, $span and $data stand for spans, also
    within the expressions that other such places stand for."""
    query = _filled(
        _filled(query, **expressions),
        span=f"((epoch_us(time) - {spans.start_us}) // {spans.length_us})::INTEGER",
        data=BookkeepingEvent.IS_OBSERVED,
        start=f"make_timestamptz({spans.start_us})",
        end=f"make_timestamptz({spans.end_us})",
    )
    return state.sql(query)


def _filled(query: str, **expressions: str) -> str:
    """Put SQL in the places of a query that have its names, such as `$start`."""
    # Never within a literal: a source or a message may have such a word.
    return _PLACES.sub(lambda place: expressions.get(place[1] or "", place[0]), query)


def of_type(source: str | None, type_: str) -> str:
    """Return SQL for the events of a source and type."""
    return f"{is_source(source)} AND type = {literal(type_)}"


def is_source(source: str | None) -> str:
    """Return SQL for the events of a source."""
    return "source IS NULL" if source is None else f"source = {literal(source)}"
