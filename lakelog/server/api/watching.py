"""How far those are behind that feed a lake, and those that follow it."""

from __future__ import annotations

import time
from typing import Any

import orjson

from lakelog.collect import journal_path, status_path
from lakelog.lake import Lake
from lakelog.store import disk
from lakelog.subscriptions import listed

_FRESH_SECONDS = 120


def watchers(lake: Lake) -> list[dict[str, object]]:
    """What the watchers of files and of the journal wrote of themselves; times in ms."""
    statuses: list[dict[str, object]] = []
    for name, path in (("files", status_path(lake)), ("journal", journal_path(lake))):
        try:
            status: dict[str, Any] = orjson.loads(disk.read(path))
        except (OSError, orjson.JSONDecodeError):
            continue
        # By the last that it wrote: a watcher that was killed cannot say that it does not run.
        last_round = float(status.get("last_round") or 0)
        statuses.append(
            {
                "watches": name,
                "running": time.time() - last_round < _FRESH_SECONDS,
                "roots": [str(root)[:300] for root in status.get("roots", [])][:20],
                "files": status.get("files"),
                "events": status.get("events"),
                "last_round": last_round * 1000,
                "last_event": (status.get("last_event") or 0) * 1000 or None,
                "faults": {str(k)[:300]: str(v)[:300] for k, v in status.get("faults", {}).items()},
            }
        )
    return statuses


def streams(lake: Lake) -> list[dict[str, object]]:
    """The topics and streams that are consumed, and when something was stored of each."""
    state = lake.store.state(lake.branch_name)
    return [
        {
            "name": str(entry.members.get("name") or entry.key)[-200:],
            "stored": (entry.members.get("time") or 0) / 1000 or None,
        }
        for entry in lake.store.manifests.records(state, "stream")
    ]


def subscribed(lake: Lake) -> list[dict[str, object]]:
    """The subscriptions of the branch, with their lag."""
    return [
        {
            "name": status.name,
            "behind": status.events_behind,
            "seconds": status.seconds_behind,
            "handled": status.handled,
            "dead": status.dead,
        }
        for status in listed(lake.subscriptions())
    ]
