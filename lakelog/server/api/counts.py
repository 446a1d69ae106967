"""How many events there were, by time and by what they are, without reading all of them.

Two incremental views count the events of every state: by level and type in short spans of time,
and by category and source too in longer ones. A range of time is their whole spans and the events
at its two edges. Any search that looks at these columns alone is answered so; another one reads
events, the newest first, and no more of them than take about half a second.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lakelog import sql
from lakelog.libraries import pa
from lakelog.search import Search, search_condition
from lakelog.server.api.question import DashboardQuestion, cut
from lakelog.values import from_micros, to_micros
from lakelog.views import read

COARSE = ("level", "type")
FINE = ("level", "type", "category", "source")
ERRORS = "level>=ERROR OR type:(fail OR failed OR error)"
"""The search for what went wrong."""
SLICE_EVENTS = 300_000
"""Events that one answer reads unless it is asked for more; the next one goes on before them."""
_SLICE_MAX = 20_000_000
SECOND = 1_000_000
_WIDTHS = tuple(
    SECOND * seconds for seconds in (60, 300, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400)
)
_CHART_WIDTHS = (
    *(1_000, 5_000, 10_000, 50_000, 100_000, 500_000),
    *(SECOND, 5 * SECOND, 10 * SECOND, 30 * SECOND),
    *sorted((*_WIDTHS, 120 * SECOND, 7_200 * SECOND, 14_400 * SECOND)),
    *(7 * _WIDTHS[-1], 30 * _WIDTHS[-1], 365 * _WIDTHS[-1]),
)
_BUCKETS = {COARSE: 3_000, FINE: 400}
"""About how many spans of time a view has."""
_VALUES_MAX = 50
# A view, too: each question asks for it, and as a query it reads the time of every event.
_SPAN = """-- name: span_of_events
-- version: 1
-- about: The time of the first and of the last event, and how many there are.
-- map
SELECT min(time) AS first, max(time) AS last, count(*) AS events FROM segment
-- merge
SELECT min(first) AS first, max(last) AS last, sum(events) AS events FROM partials
-- finish
SELECT first, last, coalesce(events, 0)::BIGINT AS events FROM state
"""
_CHART_BUCKETS = 80
_EARLIEST, LATEST = (to_micros(time.replace(tzinfo=UTC)) for time in (datetime.min, datetime.max))


@dataclass(frozen=True)
class TimeSpan:
    """A range of time [since, until) in us, with the number of events of a whole state."""

    since: int
    until: int
    events: int = 0


def span_of(question: DashboardQuestion) -> TimeSpan:
    """The time of the events of a state."""
    (row,) = read(question.state, _SPAN).to_pylist()
    first_time, last_time, events = row["first"], row["last"], row["events"]
    if not events:
        return TimeSpan(0, 1)
    # The end is not in a range: the last event has to be before it.
    return TimeSpan(
        to_micros(first_time.astimezone(UTC)), to_micros(last_time.astimezone(UTC)) + 1, events
    )


def range_of(question: DashboardQuestion, span: TimeSpan) -> TimeSpan:
    """The range that a question is about: that of all events where it names none. It is empty where
    it ends before it begins, as one does whose end is before all events."""
    since, until = question.since, question.until
    low = span.since if since is None else to_micros(since)
    high = span.until if until is None else to_micros(until)
    return TimeSpan(low, max(high, low), span.events)


def chart_width(length: int) -> int:
    """A width (us) of which about so many as a chart has buckets make up a length."""
    fitting = [width for width in _CHART_WIDTHS if width * _CHART_BUCKETS >= length]
    return fitting[0] if fitting else _CHART_WIDTHS[-1]


def moment_sql(micros: int) -> str:
    """SQL of a time."""
    return f"TIMESTAMPTZ {sql.literal(from_micros(micros).isoformat())}"


def between(since: int, until: int, column: str = "time") -> str:
    """SQL for the times of a range, which may begin before the first time and end behind the last
    that an event has."""
    end = f"{column} < {moment_sql(until)}" if until <= LATEST else "true"
    return f"{column} >= {moment_sql(max(since, _EARLIEST))} AND {end}"


class CountTable:
    """The counts of one state by `columns`, in spans of time of `width` (us)."""

    def __init__(
        self, question: DashboardQuestion, span: TimeSpan, columns: tuple[str, ...]
    ) -> None:
        self.question, self.whole, self.columns = question, span, columns
        length = span.until - span.since
        fitting = [width for width in _WIDTHS if width * _BUCKETS[columns] >= length]
        self.width = fitting[0] if fitting else _WIDTHS[-1]

    @functools.cached_property
    def rows(self) -> pa.Table:
        """(bucket, columns…, events, last), which the view keeps between questions."""
        names = ", ".join(self.columns)
        definition = (
            f"-- name: counts_by_{'_'.join(self.columns)}\n-- version: 1\n"
            "-- about: Events by time and by what they are.\n"
            "-- params: bucket duration = 1h\n-- map\n"
            f"SELECT time_bucket($bucket, time) AS bucket, {names}, count(*) AS events,"
            " max(time) AS last FROM segment GROUP BY ALL\n-- merge\n"
            f"SELECT bucket, {names}, sum(events) AS events, max(last) AS last"
            " FROM partials GROUP BY ALL\n-- finish\n"
            f"SELECT bucket, {names}, events::BIGINT AS events, last FROM state\n"
        )
        return read(self.question.state, definition, {"bucket": f"{self.width // SECOND}s"})

    def source(self, span: TimeSpan, condition: str) -> tuple[str, dict[str, Any]]:
        """SQL with rows of (time, columns…, events, last) for the events of a range for which a
        condition over the columns holds, and the tables that it reads besides events."""
        low = -(-span.since // self.width) * self.width
        high = span.until // self.width * self.width
        # A range without bounds has nothing to leave out of its first and its last span of time.
        if span.since == self.whole.since:
            low = min(low, span.since // self.width * self.width)
        if span.until == self.whole.until:
            high = max(high, -(-span.until // self.width) * self.width)
        names = ", ".join(self.columns)
        single = f"SELECT time, {names}, 1 AS events, time AS last FROM events WHERE"
        if high <= low:
            return f"{single} {between(span.since, span.until)} AND {condition}", {}
        sources = [
            f"SELECT bucket AS time, {names}, events, last FROM counted"
            f" WHERE {between(low, high, 'bucket')} AND {condition}"
        ]
        for since, until in ((span.since, low), (high, span.until)):
            if since < until:
                sources.append(f"{single} {between(since, until)} AND {condition}")
        return " UNION ALL ".join(sources), {"counted": self.rows}


@dataclass(frozen=True)
class Slice:
    """What one answer counts: rows of `FINE` columns; `before` (us) is where the next one goes on,
    None after the last."""

    source: str
    variables: Mapping[str, Any]
    span: TimeSpan
    before: int | None = None


def slice_of(question: DashboardQuestion, width: int, whole: TimeSpan, span: TimeSpan) -> Slice:
    """Choose how the events of a range that a search finds are counted, for a chart of bars of a
    width: by the views where they can tell, else event by event in slices."""
    search = Search.of(question.text("q") or "*")
    condition = search_condition(search.node)
    table = CountTable(question, whole, FINE)
    columns = search.columns
    is_counted = columns is not None and columns <= set(FINE)
    # The views can tell only where each bar is made of whole spans of theirs.
    if is_counted and width % table.width == 0:
        source, variables = table.source(span, condition)
        return Slice(source, variables, span)
    before = question.moment("before")
    until = span.until if before is None else to_micros(before)
    size = question.number("slice", SLICE_EVENTS, _SLICE_MAX)
    since = _beginning(CountTable(question, whole, COARSE), TimeSpan(span.since, until), size)
    names = ", ".join(FINE)
    source = (
        f"SELECT time, {names}, 1 AS events, time AS last FROM events"
        f" WHERE {between(since, until)} AND {condition}"
    )
    return Slice(source, {}, TimeSpan(since, until), since if since > span.since else None)


def _beginning(table: CountTable, span: TimeSpan, size: int) -> int:
    """Where a slice of so many events begins that ends with a range."""
    rows = table.question.sql(
        "SELECT epoch_us(bucket), sum(events) FROM counted"
        f" WHERE {between(span.since, span.until, 'bucket')} GROUP BY 1 ORDER BY 1 DESC",
        variables={"counted": table.rows},
    )
    total = 0
    for bucket, events in rows.iter_rows():
        total += events
        if total >= size:
            return max(int(bucket), span.since)
    return span.since


def counts(question: DashboardQuestion) -> dict[str, object]:
    """Bars by level, and the most frequent values of columns, of the events that `q` finds.

    `next` is the value of `before` with which the rest is counted, null if this is all.
    """
    whole = span_of(question)
    span = range_of(question, whole)
    width = chart_width(span.until - span.since)
    event_slice = slice_of(question, width, whole, span)
    bar = f"epoch_us(time) // {width} * {width}"
    # One scan for the bars and for the values of four columns.
    rows = question.sql(
        f"WITH found AS MATERIALIZED ({event_slice.source}) "
        f"SELECT 'bar' AS field, ({bar})::VARCHAR AS value, level, sum(events)::BIGINT AS n"
        " FROM found GROUP BY ALL UNION ALL ("
        "SELECT CASE WHEN grouping(level) = 0 THEN 'level' WHEN grouping(type) = 0 THEN 'type'"
        " WHEN grouping(category) = 0 THEN 'category' ELSE 'source' END AS field,"
        " coalesce(level, type, category, source) AS value, NULL AS level, sum(events)::BIGINT AS n"
        " FROM found GROUP BY GROUPING SETS ((level), (type), (category), (source))"
        f" QUALIFY row_number() OVER (PARTITION BY field ORDER BY n DESC, value) <= {_VALUES_MAX})",
        variables=event_slice.variables,
    ).fetchall()
    bars = [[int(value), level, n] for field, value, level, n in rows if field == "bar"]
    facets: dict[str, list[list[object]]] = {name: [] for name in FINE}
    for field, value, _, n in sorted(rows, key=lambda row: -row[3]):
        if field != "bar":
            facets[field].append([cut(value), n])
    return {
        "since": span.since / 1000,
        "until": span.until / 1000,
        "width": width / 1000,
        "bars": [[time / 1000, level, n] for time, level, n in bars],
        "total": sum(n for _, _, n in bars),
        "facets": facets,
        "counted_from": event_slice.span.since / 1000,
        "next": None if event_slice.before is None else event_slice.before / 1000,
    }
