"""The Overview: what happened, what changed, what is silent, and what it all takes."""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

from lakelog.event.encode import to_micros
from lakelog.search import Search, search_condition
from lakelog.server.api import watching
from lakelog.server.api.counts import (
    COARSE,
    ERRORS,
    FINE,
    SECOND,
    CountTable,
    TimeSpan,
    range_of,
    span_of,
)
from lakelog.server.api.question import DashboardQuestion, cut

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
        "types": _top(question, fine, span, whole, "type"),
        "sources": _top(question, fine, span, whole, "source"),
        "silent": _silent(question, fine, whole),
    }


def _errors(question: DashboardQuestion, table: CountTable, end_time: int) -> dict[str, int]:
    condition = search_condition(Search.of(ERRORS).node)
    answer = {}
    for name, end in (("now", end_time), ("before", end_time - _DAY)):
        source, variables = table.source(TimeSpan(end - _HOUR, end), condition)
        rows = question.sql(
            f"SELECT coalesce(sum(events), 0)::BIGINT FROM ({source})", variables=variables
        )
        (answer[name],) = rows.fetchone() or (0,)
    return answer


def _top(
    question: DashboardQuestion, table: CountTable, span: TimeSpan, whole: TimeSpan, column: str
) -> list[dict[str, object]]:
    """The most frequent values in a range of time, with their number in the one before, which is
    null where the lake does not reach so far back."""
    length = span.until - span.since
    counted: list[dict[str | None, int]] = []
    for since in (span.since, span.since - length):
        source, variables = table.source(TimeSpan(since, since + length), "true")
        query = (
            f"SELECT {column}, sum(events)::BIGINT FROM ({source}) GROUP BY 1 ORDER BY 2 DESC, 1"
        )
        counted.append(dict(question.sql(query, variables=variables).fetchall()))
        if span.since - length < whole.since:
            break
    present, *before = counted
    return [
        {
            "value": cut(value),
            "events": events,
            "before": before[0].get(value, 0) if before else None,
        }
        for value, events in list(present.items())[:_TOP]
    ]


def _silent(
    question: DashboardQuestion, table: CountTable, whole: TimeSpan
) -> list[dict[str, object]]:
    """Sources that had events in most spans of time and have had none since: the gap is five times
    as long as the mean one between their busy spans."""
    if whole.events == 0:
        return []
    rows = question.sql(
        f"""
        WITH busy AS (
            SELECT source, count(DISTINCT bucket) AS spans, epoch_us(min(bucket)) AS first,
                epoch_us(max(last)) AS last, sum(events)::BIGINT AS events
            FROM counted WHERE source IS NOT NULL GROUP BY 1)
        SELECT source, last, events FROM busy
        WHERE spans >= {_LEAST} AND {whole.until} - last > {5 * table.width}::BIGINT
            AND {whole.until} - last > 5 * ((last - first) / spans)
        ORDER BY last DESC LIMIT {_SILENT_MAX}""",
        variables={"counted": table.rows()},
    ).fetchall()
    return [
        {"source": cut(name), "last": last_time / 1000, "events": n} for name, last_time, n in rows
    ]


def storage(question: DashboardQuestion) -> dict[str, object]:
    """Bytes of the state, growth a day, the machine, and how far readers and writers are behind."""
    state = question.state
    whole, stats = span_of(question), state.stats()
    days = max((whole.until - whole.since) / _DAY, 1 / 24)
    root = question.lake.path
    disk = shutil.disk_usage(root)
    answer: dict[str, Any] = {
        "bytes": stats.bytes,
        "wal_bytes": stats.wal_bytes,
        "index_bytes": stats.words_bytes + stats.ids_bytes,
        "segments": stats.segments,
        "pending": stats.pending,
        "quarantined": stats.quarantined,
        "events": whole.events,
        "bytes_a_day": stats.bytes / days if whole.events else 0,
        "disk_free": disk.free,
        "disk_total": disk.total,
        "machine": _machine(),
        "watchers": watching.watchers(question.lake),
        "subscriptions": watching.subscribed(question.lake),
    }
    return answer


def _machine() -> dict[str, object]:
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
