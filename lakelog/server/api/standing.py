"""How items stand, by the five views of a processing log, and what was learnt from the events."""

from __future__ import annotations

from typing import Any

from lakelog import views
from lakelog.server.api.counts import FINE, CountTable, span_of
from lakelog.server.api.question import DashboardQuestion, cut, milliseconds

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
    a lake without items; and how much was learnt, with the newest of it."""
    types = _types(question)
    return {
        "items": _items(question) if types.keys() & STATES.keys() else None,
        "learnt": [[name, types[name], word] for name, word in FINDINGS.items() if name in types],
        "newest": _newest(question, [name for name in FINDINGS if name in types]),
    }


def _types(question: DashboardQuestion) -> dict[str, int]:
    rows = CountTable(question, span_of(question), FINE).rows
    totals = rows.group_by("type").aggregate([("events", "sum")])
    return dict(zip(totals["type"].to_pylist(), totals["events_sum"].to_pylist(), strict=True))


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


def _newest(question: DashboardQuestion, types: list[str]) -> list[list[object]]:
    """The newest findings: [seq, time (ms), type, message]."""
    if not types:
        return []
    names = ", ".join(f"'{name}'" for name in types)
    rows = question.sql(
        f"SELECT seq, time, type, left(coalesce(message, data), 301) FROM events"
        f" WHERE type IN ({names}) ORDER BY time DESC, seq DESC LIMIT {_SHOWN}"
    ).fetchall()
    return [[seq, milliseconds(time), name, cut(message)] for seq, time, name, message in rows]
