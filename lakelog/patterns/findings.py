"""Templates as events, so that alerts, search and the tables of older systems have them."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

TYPE, STATISTICS = "PATTERN_DETECTED", "SYSTEM_STATS"
SOURCE = "lakelog patterns"
FINDINGS_MAX = 1_000
"""Templates that are recorded, the most frequent ones."""
_ACTIVE = datetime.timedelta(days=1)
_HOUR = datetime.timedelta(hours=1)
PatternRow = Mapping[str, Any]


def confidence(count: int) -> float:
    """Return how sure it is that a template repeats: the share of its messages that came after the
    first."""
    return (count - 1) / count


def pattern_events(rows: Iterable[PatternRow]) -> list[dict[str, Any]]:
    """Return an event of type PATTERN_DETECTED for each row of the table `patterns`, the time of
    which is that of its first message. Their ids are those of the templates, so that each is stored
    once; they have no message, which would be a template itself."""
    return [
        {
            "type": TYPE,
            "source": SOURCE,
            "id": hashlib.blake2b(row["pattern_id"].encode(), digest_size=12).hexdigest(),
            "time": row["first_seen"],
            "data": {
                "pattern": row["template"],
                "pattern_type": "template",
                "confidence": confidence(row["count"]),
                "embryo_id": row["pattern_id"],
                "pattern_data": {
                    "count": row["count"],
                    "share": row["share"],
                    "source": row["source"],
                },
            },
        }
        for row, _ in zip(rows, range(FINDINGS_MAX), strict=False)
    ]


def statistics_event(
    rows: Iterable[PatternRow],
    total_events: int,
    last_hour: int,
    storage_bytes: int,
    newest_event: datetime.datetime,
) -> dict[str, Any] | None:
    """Return an event of type SYSTEM_STATS: `active_embryos` are the templates with a message in
    the day before the newest one up to `newest_event`, `avg_fitness` is the mean of their
    confidence by message. None without templates. One state has one such event, however often it
    is recorded."""
    templates = list(rows)
    if not templates:
        return None
    # By the newest message and not by the clock: one state has one such event.
    newest = min(max(row["last_seen"] for row in templates), newest_event)
    active = [row for row in templates if row["last_seen"] > newest - _ACTIVE]
    messages = sum(row["count"] for row in active)
    fitness = sum(row["count"] * confidence(row["count"]) for row in active) / messages
    name = f"{newest.isoformat()} {total_events}"
    return {
        "type": STATISTICS,
        "source": SOURCE,
        "id": hashlib.blake2b(name.encode(), digest_size=12).hexdigest(),
        "time": newest,
        "data": {
            "total_events": total_events,
            "events_per_second": last_hour / _HOUR.total_seconds(),
            "active_embryos": len(active),
            "avg_fitness": fitness,
            "storage_mb": storage_bytes / 1e6,
        },
    }
