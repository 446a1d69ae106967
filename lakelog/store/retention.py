"""Retention by age: events older than a line leave the branch, as one move that can be undone.

Segments wholly before the line are removed, those that straddle it are rewritten with what stays
(seq keeps its numbers). The WAL is never touched: settle first. Files go later, by gc, once no
move in the window names them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lakelog.event import from_micros
from lakelog.store import compact, disk, manifest
from lakelog.store.bootstrap import Store
from lakelog.store.manifest import Entry, Manifest
from lakelog.store.publish import Change, publish
from lakelog.store.refs import Head

_LEVEL = 9


@dataclass(frozen=True)
class RetentionResult:
    """What a line takes away: whole segments, rewritten ones, and events (counted or a bound)."""

    before: int
    removed: int
    rewritten: int
    events: int
    exact: bool
    applied: bool


def choose(entries: list[Entry], before: int) -> tuple[list[Entry], list[Entry]]:
    """Return (wholly older, straddling) segments of a line in us."""
    old = [e for e in entries if e["time"][1] < before]
    straddling = [
        e for e in entries if e["kind"] == "events" and e["time"][0] < before <= e["time"][1]
    ]
    return old, straddling


def preview(store: Store, branch: str, before: int) -> RetentionResult:
    """Say what `apply` would take; events is an upper bound where segments straddle the line."""
    state = store.state(branch)
    old, straddling = choose(store.manifests.entries(state), before)
    events = sum(e["events"] for e in (*old, *straddling) if e["kind"] == "events")
    return RetentionResult(before, len(old), len(straddling), events, not straddling, False)


def apply(store: Store, branch: str, before: int, connect: Callable[[], Any]) -> RetentionResult:
    """Remove events older than the line. Raises DamagedSegment, OSError."""
    made: dict[str, Entry | None] = {}
    counts = {"removed": 0, "rewritten": 0, "events": 0}

    def plan(head: Head, state: Manifest) -> Change | None:
        old, straddling = choose(store.manifests.entries(state), before)
        if not old and not straddling:
            return None
        for entry in straddling:
            if entry["key"] not in made:
                made[entry["key"]] = _rest(store, connect, entry, before)
        kept = [k for e in straddling if (k := made[e["key"]])]
        gone = sum(e["events"] for e in (*old, *straddling) if e["kind"] == "events")
        counts.update(removed=len(old), rewritten=len(straddling))
        counts["events"] = gone - sum(k["events"] for k in kept)
        line = from_micros(before).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Change(
            "retention",
            f"{counts['events']} events before {line}",
            entries=(*map(manifest.tombstone, (*old, *straddling)), *kept),
            retention={"before": before, "time": disk.now_us()},
        )

    done = publish(store, branch, plan, anew=made.clear)
    return RetentionResult(before, **counts, exact=True, applied=done is not None)


def _rest(store: Store, connect: Callable[[], Any], entry: Entry, before: int) -> Entry | None:
    """Write what stays of a straddling segment."""
    where = f"epoch_us(time) >= {before}"
    return compact.rewrite(store, connect(), [entry], where, _LEVEL)
