"""The Overview: what happened, what changed, what is silent, and what it all takes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from typing import Any

from lakelog.search import Search, search_condition
from lakelog.server.api.counts import (
    COARSE,
    ERRORS,
    FINE,
    LATEST,
    SECOND,
    CountTable,
    TimeSpan,
    moment_sql,
    range_of,
    span_of,
)
from lakelog.server.api.question import DashboardQuestion, cut
from lakelog.server.api.sources import followers
from lakelog.values import to_micros

_HOUR, _DAY = 3_600 * SECOND, 86_400 * SECOND
_TOP = 8
_SILENT_MAX = 20
_LEAST = 5
"""Spans of time in which a source has to have had events before its silence means anything."""


def overview(question: DashboardQuestion) -> dict[str, object]:
    """Top types and sources with their change, errors now and a day ago, silent sources."""
    whole = span_of(question)
    span = range_of(question, whole)
    fine, coarse = CountTable(question, whole, FINE), CountTable(question, whole, COARSE)
    present_time = to_micros(question.now)
    # Of a lake that nothing has come to for long, the last hour of its events says more.
    reference = present_time if present_time - whole.until < _DAY else whole.until
    return {
        "events": whole.events,
        "since": span.since / 1000,
        "until": span.until / 1000,
        "errors_query": ERRORS,
        "reference": reference / 1000,
        "errors": _errors(question, coarse, reference),
        **_top(question, fine, span, whole),
        "silent": _silent(question, fine, present_time),
    }


def _errors(question: DashboardQuestion, table: CountTable, end_time: int) -> dict[str, int]:
    condition = search_condition(Search.of(ERRORS).node)
    hours = {"now": end_time, "before": end_time - _DAY}
    spans = {name: TimeSpan(end - _HOUR, end) for name, end in hours.items()}
    source, variables = _periods(table, spans)
    # The condition has patterns: it is tried with what differs, and not with each row.
    rows = question.sql(
        f"SELECT period, coalesce(sum(n) FILTER ({condition}), 0)::BIGINT FROM"
        f" (SELECT period, level, type, sum(events) AS n FROM ({source}) GROUP BY ALL) GROUP BY 1",
        variables=variables,
    ).fetchall()
    return dict.fromkeys(hours, 0) | dict(rows)


def _periods(table: CountTable, spans: Mapping[str, TimeSpan]) -> tuple[str, dict[str, Any]]:
    """SQL with the counted rows of several spans, each with the name of its span as `period`."""
    sources: list[str] = []
    variables: dict[str, Any] = {}
    for period, span in spans.items():
        source, tables = table.source(span, "true")
        sources.append(f"SELECT '{period}' AS period, * FROM ({source})")
        variables |= tables
    return " UNION ALL ".join(sources), variables


def _top(
    question: DashboardQuestion, table: CountTable, span: TimeSpan, whole: TimeSpan
) -> dict[str, list[dict[str, object]]]:
    """The most frequent types and sources in a range of time, with their number in the one before,
    which is null where the lake does not reach so far back."""
    before = TimeSpan(span.since - (span.until - span.since), span.since)
    has_before = before.since >= whole.since
    spans = {"present": span} | ({"before": before} if has_before else {})
    source, variables = _periods(table, spans)
    rows = question.sql(
        "SELECT CASE WHEN grouping(type) = 0 THEN 'types' ELSE 'sources' END AS field,"
        " coalesce(type, source) AS value,"
        " (sum(events) FILTER (period = 'present'))::BIGINT AS n,"
        " coalesce(sum(events) FILTER (period = 'before'), 0)::BIGINT"
        f" FROM ({source}) GROUP BY GROUPING SETS ((type), (source)) HAVING n > 0"
        " QUALIFY row_number() OVER (PARTITION BY field ORDER BY n DESC, value)"
        f" <= {_TOP} ORDER BY n DESC, value",
        variables=variables,
    ).fetchall()
    tops: dict[str, list[dict[str, object]]] = {"types": [], "sources": []}
    for field, value, events, earlier in rows:
        tops[field].append(
            {"value": cut(value), "events": events, "before": earlier if has_before else None}
        )
    return tops


def _silent(
    question: DashboardQuestion, table: CountTable, present_time: int
) -> list[dict[str, object]]:
    """Sources that had events in most spans of time and have had none since: the gap is five times
    as long as the mean one between their busy spans."""
    if table.whole.events == 0:
        return []
    ahead = moment_sql(min(present_time + _DAY, LATEST))
    # A clock that was ahead once must not make all others silent; a lake may be of the future as a
    # whole.
    rows = question.sql(
        f"""
        WITH due AS (
            FROM counted WHERE last < {ahead} OR (SELECT min(last) FROM counted) >= {ahead}
        ), busy AS (
            SELECT source, count(DISTINCT bucket) AS spans, epoch_us(min(bucket)) AS first,
                epoch_us(max(last)) AS last, sum(events)::BIGINT AS events
            FROM due WHERE source IS NOT NULL GROUP BY 1
        ), ended AS (SELECT *, (SELECT epoch_us(max(last)) FROM due) - last AS gap FROM busy)
        SELECT source, last, events FROM ended
        WHERE spans >= {_LEAST} AND gap > {5 * table.width}::BIGINT
            AND gap > 5 * ((last - first) / spans)
        ORDER BY last DESC LIMIT {_SILENT_MAX}""",
        variables={"counted": table.rows},
    ).fetchall()
    return [
        {"source": cut(name), "last": last_time / 1000, "events": n} for name, last_time, n in rows
    ]


def storage(question: DashboardQuestion) -> dict[str, object]:
    """Bytes of the state, growth a day, and how far readers and writers are behind."""
    state = question.state
    whole, stats = span_of(question), state.stats()
    # At least an hour: minutes of a lake that has just begun say nothing of a day.
    days = max((whole.until - whole.since) / _DAY, 1 / 24)
    root = question.lake.path
    disk = shutil.disk_usage(root)
    names = ("bytes", "wal_bytes", "segments", "pending", "quarantined")
    return {
        **{name: getattr(stats, name) for name in names},
        "index_bytes": stats.words_bytes + stats.ids_bytes,
        "events": whole.events,
        "bytes_a_day": stats.bytes / days if whole.events else 0,
        "disk_free": disk.free,
        "disk_total": disk.total,
        **followers(question.lake),
    }


def machine(question: DashboardQuestion) -> dict[str, object]:
    """Load, memory, and what this server takes; null where the system does not say."""
    answer: dict[str, object] = {"cores": os.cpu_count(), "load": None, "memory_free": None}
    try:
        answer["load"] = os.getloadavg()[0]
        answer["memory_total"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        answer["memory_free"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        with open("/proc/self/statm", encoding="ascii") as file:
            answer["server_bytes"] = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        pass
    answer["processor_seconds"] = time.process_time()
    return answer
