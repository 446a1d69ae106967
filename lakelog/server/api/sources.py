"""Where events come from: sources, files with their lag, and the lines that are no events."""

from __future__ import annotations

import time
from typing import Any

import orjson

from lakelog.collect import journal_path, status_path
from lakelog.disk import File
from lakelog.ingest import Quarantine
from lakelog.lake import Lake
from lakelog.server.api.counts import FINE, CountTable, range_of, span_of
from lakelog.server.api.question import VALUE_MAX, DashboardQuestion, cut, milliseconds
from lakelog.subscriptions import listed

_FRESH_SECONDS = 120


def watchers(lake: Lake) -> list[dict[str, object]]:
    """What the watchers of files and of the journal wrote of themselves; times in ms."""
    statuses: list[dict[str, object]] = []
    for name, path in (("files", status_path(lake)), ("journal", journal_path(lake))):
        try:
            status: dict[str, Any] = orjson.loads(File(path).read())
        except (OSError, orjson.JSONDecodeError):
            continue
        # By the last that it wrote: a watcher that was killed cannot say that it does not run.
        last_round = float(status.get("last_round") or 0)
        statuses.append(
            {
                "watches": name,
                "running": abs(time.time() - last_round) < _FRESH_SECONDS,
                "roots": [str(root)[:300] for root in status.get("roots", [])][:20],
                "files": status.get("files"),
                "events": status.get("events"),
                "last_round": last_round * 1000,
                "last_event": (status.get("last_event") or 0) * 1000 or None,
                "faults": {str(k)[:300]: str(v)[:300] for k, v in status.get("faults", {}).items()},
            }
        )
    return statuses


def followers(lake: Lake) -> dict[str, object]:
    """The watchers, the topics and streams that are consumed, with when something was stored of
    each, and the subscriptions of the branch with their lag."""
    state = lake.store.state(lake.branch_name)
    return {
        "watchers": watchers(lake),
        "streams": [
            {
                "name": str(entry.members.get("name") or entry.key)[-200:],
                "stored": (entry.members.get("time") or 0) / 1000 or None,
            }
            for entry in lake.store.manifests.records(state, "stream")
        ],
        "subscriptions": [
            {
                "name": status.name,
                "behind": status.events_behind,
                "seconds": status.seconds_behind,
                "handled": status.handled,
                "dead": status.dead,
            }
            for status in listed(lake.subscriptions())
        ],
    }


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
    # Bars are made apart and joined: each is of several rows, of other types and levels.
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
    names = "path host size consumed behind lines read_at".split()
    return {"files": [_record(names, row) for row in rows], **followers(question.lake)}


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
    names = "reason origin position line size ingested_at".split()
    source_of = Quarantine(question.lake.store, question.lake.branch_name).sources()
    return {
        "lines": [{**_record(names, row), "file": cut(source_of(row[1]))} for row in rows],
        "reasons": [[cut(reason), count] for reason, count in reasons],
    }


def _record(names: list[str], row: tuple[Any, ...]) -> dict[str, object]:
    """A row by the names of its columns, of which the last is a time."""
    return dict(zip(names, (*map(cut, row[:-1]), milliseconds(row[-1])), strict=True))
