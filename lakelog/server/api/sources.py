"""Where events come from: sources, files with their lag, and the lines that are no events."""

from __future__ import annotations

from lakelog.server.api import watching
from lakelog.server.api.counts import FINE, CountTable, range_of, span_of
from lakelog.server.api.question import VALUE_MAX, DashboardQuestion, cut, milliseconds

_BARS = 24
_SOURCES_MAX = 1_000


def sources(question: DashboardQuestion) -> dict[str, object]:
    """The sources of a range of time, the busiest first, each with 24 bars; counts of errors are
    of levels ERROR and FATAL and of types that say so."""
    whole = span_of(question)
    span = range_of(question, whole)
    table = CountTable(question, whole, FINE)
    source, variables = table.source(span, "true")
    width = max((span.until - span.since) / _BARS, 1)
    failed = (
        "coalesce(level IN ('ERROR', 'FATAL'), false) OR regexp_matches(type, '(?i)fail|error')"
    )
    rows = question.sql(
        f"""
        WITH found AS MATERIALIZED ({source}), barred AS (
            SELECT source, least(floor((epoch_us(time) - {span.since}) / {width}), {_BARS - 1})
                ::INT AS bar, sum(events)::BIGINT AS events FROM found GROUP BY ALL)
        SELECT f.source, sum(events)::BIGINT AS n, (sum(events) FILTER ({failed}))::BIGINT,
            epoch_us(max(last)), any_value(b.bars)
        FROM found f LEFT JOIN (
            SELECT source, list([bar, events]) AS bars FROM barred GROUP BY 1) b
            ON f.source IS NOT DISTINCT FROM b.source
        GROUP BY 1 ORDER BY n DESC, 1 LIMIT {_SOURCES_MAX}""",
        variables=variables,
    ).fetchall()
    return {
        "since": span.since / 1000,
        "until": span.until / 1000,
        "sources": [
            {
                "source": cut(name),
                "events": events,
                "errors": errors or 0,
                "last": last_time / 1000,
                "bars": _bars(bars),
            }
            for name, events, errors, last_time, bars in rows
        ],
    }


def _bars(pairs: list[list[int]] | None) -> list[int]:
    heights = [0] * _BARS
    # The first span of time of a view may begin before the range, and counts for its first bar.
    for bar, events in pairs or ():
        heights[max(bar, 0)] += events
    return heights


def files(question: DashboardQuestion) -> dict[str, object]:
    """The files that were ingested, those that are furthest behind first, and the watchers."""
    limit = question.number("limit", 200)
    rows = question.sql(
        f"SELECT left(path, {VALUE_MAX + 1}), host, size, consumed, behind, lines, read_at"
        f" FROM files ORDER BY behind DESC NULLS LAST, read_at DESC, path LIMIT {limit}"
    ).fetchall()
    names = "path host size consumed behind lines".split()
    return {
        "files": [
            {
                **{name: cut(value) for name, value in zip(names, row[:-1], strict=True)},
                "read_at": milliseconds(row[-1]),
            }
            for row in rows
        ],
        "watchers": watching.watchers(question.lake),
        "streams": watching.streams(question.lake),
        "subscriptions": watching.subscribed(question.lake),
    }


def quarantine(question: DashboardQuestion) -> dict[str, object]:
    """The lines that are no events, the newest first, and how many there are for each reason."""
    limit = question.number("limit", 200)
    rows = question.sql(
        f"SELECT left(reason, {VALUE_MAX + 1}), left(origin, 200), position,"
        f" left(line, {VALUE_MAX + 1}), strlen(line), ingested_at FROM quarantine"
        f" ORDER BY ingested_at DESC, position DESC LIMIT {limit}"
    ).fetchall()
    reasons = question.sql(
        f"SELECT left(reason, {VALUE_MAX + 1}) AS reason, count(*) AS n FROM quarantine"
        " GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20"
    ).fetchall()
    names = "reason origin position line size".split()
    return {
        "lines": [
            {
                **{name: cut(value) for name, value in zip(names, row[:-1], strict=True)},
                "ingested_at": milliseconds(row[-1]),
            }
            for row in rows
        ],
        "reasons": [[cut(reason), count] for reason, count in reasons],
    }
