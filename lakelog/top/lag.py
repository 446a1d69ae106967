"""Who feeds a lake and who follows it, and how far each is behind."""

from __future__ import annotations

import time
from dataclasses import dataclass

import orjson

from lakelog.alerts import glance
from lakelog.collect import journal_path, status_path
from lakelog.disk import File
from lakelog.errors import LakelogError
from lakelog.lake import Lake
from lakelog.subscriptions import listed
from lakelog.sync import status as sync_status
from lakelog.values import JsonObject

STALE = 120.0
"""Seconds without a round after which a watcher counts as not running."""


@dataclass(frozen=True)
class Lag:
    """A feeder or follower: what it is, its name, how it is, and whether that is wrong."""

    role: str
    name: str
    state: str
    is_wrong: bool = False


def lags(lake: Lake, targets: tuple[str, ...] = ()) -> list[Lag]:
    """Return watchers, streams, subscriptions, alerts and the tables of sync targets."""
    result = [lag for path in (status_path(lake), journal_path(lake)) for lag in _watcher(path)]
    result += _streams(lake)
    result += [
        Lag("subscription", s.name, _behind(s.events_behind, s.seconds_behind), s.dead > 0)
        for s in listed(lake.subscriptions())
    ]
    result += _alerts(lake)
    return result + [lag for target in targets for lag in _tables(lake, target)]


def _watcher(path: str) -> list[Lag]:
    try:
        # What a watcher wrote last: it is asked nothing, and may not run any more.
        status: JsonObject = orjson.loads(File(path).read())
        age = time.time() - float(status["last_round"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    faults = len(status.get("faults") or ())
    name = "journal" if path.endswith("journal.json") else f"{status.get('files', '?')} files"
    if age > STALE:
        return [Lag("watch", name, f"not running for {span(age)}", is_wrong=True)]
    state = f"{span(age)} ago" + (f", {faults} faults" if faults else "")
    return [Lag("watch", name, state, faults > 0)]


def _streams(lake: Lake) -> list[Lag]:
    state = lake.store.state(lake.branch_name)
    result = []
    for entry in lake.store.manifests.records(state, "stream"):
        age = time.time() - entry.members.get("time", 0) / 1e6
        name = str(entry.members.get("name") or entry.key)
        # The end of a name tells streams of one server apart.
        result.append(Lag("consume", name.rpartition("/")[2][:40], f"{span(age)} ago"))
    return result


def _alerts(lake: Lake) -> list[Lag]:
    figures = glance(lake)
    if not figures["rules"]:
        return []
    states = [f"{figures['rows']} firing"] if figures["rows"] else []
    states += [f"{figures['errors']} in error"] if figures["errors"] else []
    states += [] if figures["evaluated"] else ["not evaluated"]
    rules = f"{figures['rules']} rule{'s' if figures['rules'] > 1 else ''}"
    return [Lag("alerts", rules, ", ".join(states) or "quiet", bool(states))]


def _tables(lake: Lake, target: str) -> list[Lag]:
    try:
        tables = sync_status(lake, target)
    except LakelogError as error:
        # The scheme alone: the rest may hold a password.
        return [Lag("sync", target.partition(":")[0], str(error)[:80], is_wrong=True)]
    return [
        Lag("sync", t.table, t.note or _behind(t.events_behind, t.seconds_behind), bool(t.note))
        for t in tables
    ]


def _behind(events: int | None, seconds: float | None) -> str:
    # None: the target's table is of another lake.
    if events is None:
        return "of another lake"
    if not events:
        return "up to date"
    return f"{events:,} behind" + (f", {span(seconds)}" if seconds else "")


def span(seconds: float) -> str:
    """A span of time in two or three digits: 0.4 s, 12 s, 5 min, 3 h, 9 d."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    for unit, size in (("s", 1), ("min", 60), ("h", 3_600)):
        if seconds < 100 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
