"""What an erasure would touch, before anything is touched."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from lakelog import sql
from lakelog.database import Connect
from lakelog.erasure import chosen_rows, erasing, leftovers, outside
from lakelog.erasure.leftovers import Leftover
from lakelog.erasure.selection import Chooser, Selector
from lakelog.protect import sealed_blocks
from lakelog.runtime.progress import ProgressCallback
from lakelog.segments import rows_sql
from lakelog.store import Store
from lakelog.values import JsonObject

_GOES_TOO = ("wal/", "cache/views/", "cache/folds/", "refs/heads/", "refs/tags/")
"""Where the rows are now, too, and are not once they are erased."""


@dataclass(frozen=True)
class ErasurePreview:
    """What would be erased: different `events` and quarantined `lines`, of which branches and tags
    have how many; how many `segments` and `states` are written again; what in the lake stays that
    names the subject (`leftovers`), and where the rows went (`outside`)."""

    events: int
    lines: int
    segments: int
    states: int
    branches: dict[str, int]
    tags: dict[str, int]
    mentions: int
    """Events of others in the newest states whose texts have the subject: they stay."""
    leftovers: tuple[Leftover, ...]
    outside: tuple[JsonObject, ...]
    keys: int = 0
    """Subjects whose keys would be destroyed; then no row is touched, and none was counted."""


def preview(
    store: Store,
    connect: Connect,
    settle: erasing.SettleAll,
    *,
    subjects: Sequence[str] = (),
    predicate: str = "",
    progress: ProgressCallback | None = None,
) -> ErasurePreview:
    """Count what `erase` would touch; `settle` seals the tails of the branches. Raises QueryFailed,
    Damaged."""
    chooser = Chooser(store, connect, [Selector(tuple(subjects), predicate)])
    chooser.check()
    settle()
    findings = chosen_rows.find(store, chooser, progress)
    tags = chosen_rows.tags_with(store, findings)
    states = sum(
        any(e.key in findings.rows for e in store.manifests.segments(state))
        for state in findings.history.states.values()
    )
    leftover_list = [
        leftover
        for leftover in leftovers.leftovers(store, chooser, findings.history)
        # What is in these now goes with the rows.
        if not leftover.place.startswith(_GOES_TOO)
    ]
    return ErasurePreview(
        findings.events,
        findings.lines,
        len(findings.rows),
        states,
        chosen_rows.branches_with(store, findings),
        tags,
        _mentions(store, connect, subjects),
        tuple(leftover_list),
        tuple(outside.places(store, tags)),
    )


def _mentions(store: Store, connect: Connect, subjects: Sequence[str]) -> int:
    """How many events of others in the newest states of the branches have a subject in a text, or
    in a protected field. Raises InvalidKey."""
    counts: dict[str, int] = {}
    columns = "type category source level message data id".split()
    texts = f"concat_ws(chr(0), {', '.join(columns)})"
    conditions = [
        f"count_if(subject IS DISTINCT FROM {literal} AND contains({texts}, {literal}))"
        for literal in map(sql.literal, subjects)
    ]
    for branch in store.refs.branches() if subjects else ():
        for entry in store.manifests.segments(store.state(branch), "events"):
            if entry.key not in counts:
                store.verified.require([entry])  # of a shared lake it may be in the bucket alone
                source = rows_sql(store.paths, [entry])
                source = sealed_blocks.opened_sql(store.paths, source, [entry.key])
                query = f"SELECT {' + '.join(conditions)} FROM ({source})"
                with contextlib.closing(connect().cursor()) as cursor:
                    counts[entry.key] = int(cursor.execute(query).fetchall()[0][0])
    return sum(counts.values())
