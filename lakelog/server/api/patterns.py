"""What was found in the events: patterns of messages, anomalies, and how items stand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lakelog import views
from lakelog.server.api.counts import FINE, CountTable, between, range_of, span_of
from lakelog.server.api.question import DashboardQuestion, cut, milliseconds
from lakelog.values import to_micros

_MEMBERS = ("pattern_id", "template", "source", "count", "share", "sources", "example")


def patterns(question: DashboardQuestion) -> dict[str, object]:
    """The templates of messages of a range of time, the most frequent first; with `new` only those
    that no message had in that state, which is a tag or a time."""
    since, until, before = question.since, question.until, question.text("new")
    table = views.patterns(
        question.state,
        source=question.text("source") or None,
        since=since.isoformat() if since else None,
        until=until.isoformat() if until else None,
        new=question.lake.at(before) if before else None,
    )
    limit = question.number("limit", 200)
    return {
        "total": table.num_rows,
        "patterns": [
            {name: cut(row[name]) for name in _MEMBERS}
            | {"first": milliseconds(row["first_seen"]), "last": milliseconds(row["last_seen"])}
            for row in table.slice(0, limit).to_pylist()
        ],
    }


_LIMIT = 200
_LONGEST = 86_400_000_000
"""A finding that began as long (us) before a range may reach into it."""
_LATEST = "TIMESTAMPTZ '9999-12-30 00:00:00+00'"
"""Ends of others may be infinite, or beyond what Python's times can hold."""
_EARLIEST = to_micros(datetime.min.replace(tzinfo=UTC))


def anomalies(question: DashboardQuestion) -> dict[str, object]:
    """The recorded findings of a range of time, the newest first, `limit` of them: [begin (ms), end
    (ms), what was unusual, how many standard deviations, seq]."""
    span = range_of(question, span_of(question))
    limit = question.number("limit", _LIMIT)
    # A finding has the time of its begin, which may be before the range that it reaches into.
    since = max(span.since - _LONGEST, _EARLIEST)
    rows = question.sql(
        f"SELECT time, least(greatest(try_cast(data->>'until' AS TIMESTAMPTZ), time), {_LATEST}),"
        " message,"
        " try_cast(data->>'deviations' AS DOUBLE), seq FROM events WHERE type = 'ANOMALY'"
        f" AND {between(since, span.until)} ORDER BY time DESC LIMIT {limit}"
    ).fetchall()
    return {
        "anomalies": [
            [milliseconds(time), milliseconds(until), cut(message), deviations, seq]
            for time, until, message, deviations, seq in rows
            if to_micros(until.astimezone(UTC)) > span.since
        ]
    }


STATES = {
    "DISCOVER": "discovered",
    "PROCESS": "processing",
    "COMPLETE": "completed",
    "FAIL": "failed",
}
"""Types of the events of items, with what an item is after one."""
FINDINGS = {
    "ANOMALY": "anomalies",
    "PATTERN_DETECTED": "patterns",
    "PREDICTION": "predictions",
    "AI_DECISION": "decisions",
    "OUTCOME": "outcomes",
}
"""Types of what was learnt."""
_SHOWN = 6


def standing(question: DashboardQuestion) -> dict[str, object]:
    """Items by their latest state, completions of an hour, errors, reliability and health, null in
    a lake without items; and how much was learnt, with the newest of it as [seq, time (ms), type,
    message]."""
    rows = CountTable(question, span_of(question), FINE).rows
    totals = rows.group_by("type").aggregate([("events", "sum")])
    types = dict(zip(totals["type"].to_pylist(), totals["events_sum"].to_pylist(), strict=True))
    learnt = [name for name in FINDINGS if name in types]
    names = ", ".join(f"'{name}'" for name in learnt)
    newest = list[tuple[Any, ...]]()
    if learnt:  # a query less for the first page of a lake that has nothing of it
        newest = question.sql(
            f"SELECT seq, time, type, left(coalesce(message, data), 301) FROM events"
            f" WHERE type IN ({names}) ORDER BY time DESC, seq DESC LIMIT {_SHOWN}"
        ).fetchall()
    return {
        "items": _items(question) if types.keys() & STATES.keys() else None,
        "learnt": [[name, types[name], FINDINGS[name]] for name in learnt],
        "newest": [[seq, milliseconds(time), name, cut(text)] for seq, time, name, text in newest],
    }


def _items(question: DashboardQuestion) -> dict[str, object]:
    status = dict.fromkeys(STATES.values(), 0)
    for row in _read(question, "status"):
        if row["status"] in STATES:
            status[STATES[row["status"]]] += row["items"]
    hours = _read(question, "throughput")[-24:]
    errors = _read(question, "errors")
    sources = _read(question, "reliability")
    (health,) = _read(question, "health")
    return {
        "status": status,
        "hours": [[milliseconds(row["bucket"]), row["events"]] for row in hours],
        "failures": sum(row["failures"] for row in errors),
        "errors": [[cut(row["error"]), row["failures"]] for row in errors[:_SHOWN]],
        "sources": [
            [cut(row["source"]), row["success_rate"], row["total_processed"]]
            for row in sources[:_SHOWN]
        ],
        "events_1h": health["events_1h"],
        "uptime_ms": 1000 * (health["uptime_seconds"] or 0),
    }


def _read(question: DashboardQuestion, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = views.read(question.state, name, now=question.now).to_pylist()
    return rows
