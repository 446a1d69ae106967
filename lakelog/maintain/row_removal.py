"""Row removal: chosen rows leave the branch as one move.

Rows are named by seq, which no compaction changes and no publish gives twice in one generation. So
a choice made on one state is valid on every later one until a rewind: segments that have chosen
rows are rewritten without them, whatever was published or merged in between. Other rows keep their
seq. Like retention it can be undone; gc deletes the files later.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from dataclasses import dataclass

from lakelog.database import Connect
from lakelog.entries import Entry, Record, SegmentEntry
from lakelog.errors import StalePlan
from lakelog.libraries import np, pa
from lakelog.maintain import compact
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.refs import Head
from lakelog.runtime.progress import ProgressCallback
from lakelog.segments import rows_sql
from lakelog.store import Policy, Store

_LEVEL = 3
_DEDUPE = "dedupe/"
"""What the keys of the artifacts of dedupes begin with."""


@dataclass(frozen=True)
class RowRemoval:
    """Numbers of deleted and rewritten segments, and of removed events."""

    removed: int
    rewritten: int
    events: int

    @staticmethod
    def segments_with(
        entries: list[SegmentEntry], removed_seqs: np.ndarray
    ) -> list[tuple[SegmentEntry, np.ndarray]]:
        """Return the event segments that have chosen rows, each with its part of them.

        `removed_seqs` is sorted; segments of one state share no seq.
        """
        affected = []
        for entry in (e for e in entries if e.kind == "events"):
            low, high = np.searchsorted(removed_seqs, [entry.seq[0], entry.seq[1] + 1])
            if low < high:
                affected.append((entry, removed_seqs[low:high]))
        return affected


@dataclass(frozen=True, slots=True)
class DedupeNote:
    """An artifact of a manifest: `events` were removed as duplicates in the columns `by`, whether
    or not with `nulls`, and the first or last of each was kept. An audit needs that (F6.9)."""

    by: tuple[str, ...]
    keep: str
    time: int
    events: int
    nulls: bool = True

    def entry(self) -> Record:
        """The manifest entry of the note."""
        name = hashlib.sha256(",".join(self.by).encode()).hexdigest()[:16]
        members = {
            "by": list(self.by),
            "keep": self.keep,
            "time": self.time,
            "events": self.events,
            "nulls": self.nulls,
        }
        return Record("artifact", f"{_DEDUPE}{name}", members)

    @classmethod
    def from_entry(cls, record: Record) -> DedupeNote:
        """Return the note that an entry holds. Raises KeyError where it is malformed."""
        members = record.members
        by, nulls = tuple(members["by"]), members.get("nulls", True)
        return cls(by, members["keep"], members["time"], members["events"], nulls)

    @classmethod
    def all_of(cls, store: Store, state: Manifest) -> list[DedupeNote]:
        """Return the dedupes that a state notes. Raises DamagedManifest."""

        def read(record: Record) -> list[DedupeNote]:
            return [cls.from_entry(record)] if record.key.startswith(_DEDUPE) else []

        notes = store.manifests.read_records(state, "artifact", read)
        return list(itertools.chain.from_iterable(notes))

    def apply(
        self,
        store: Store,
        branch: str,
        removed_seqs: np.ndarray,
        generation: int,
        connect: Connect,
        progress: ProgressCallback | None = None,
    ) -> RowRemoval:
        """Remove the rows of the sorted seqs `removed_seqs` from a branch, as one `dedupe` move
        whose state has this note.

        Raises StalePlan if the branch was rewound since `generation` or lacks a chosen row,
        DamagedSegment, NotAllowed, OSError.
        """
        Policy.require(store.paths, "dedupe")
        rewritten: dict[str, SegmentEntry | None] = {}
        counts = {"removed": 0, "rewritten": 0}

        def plan(head: Head, state: Manifest) -> Change | None:
            affected = RowRemoval.segments_with(store.manifests.segments(state), removed_seqs)
            # Ranges of seq may have holes, so this is a first check; `_rest` counts the rows.
            present = sum(len(removed_part) for _, removed_part in affected)
            if head.move.generation != generation or present != len(removed_seqs):
                raise StalePlan(
                    f"{branch!r} was rewound, or its rows removed, meanwhile: plan again"
                )
            # Planned again after a lost race: what was rewritten is used again unless compacted.
            for number, (entry, removed_part) in enumerate(affected):
                if entry.key not in rewritten:
                    rewritten[entry.key] = _rest(store, connect, entry, removed_part)
                if progress:
                    progress(number + 1, len(affected))
            remainders = [r for e, _ in affected if (r := rewritten[e.key])]
            counts.update(removed=len(affected) - len(remainders), rewritten=len(remainders))
            tombstones = (e.tombstone() for e, _ in affected)
            numbers = compact.number_entries(store, state, remainders)
            entries: tuple[Entry, ...] = (*tombstones, *remainders, *numbers, self.entry())
            message = f"{self.events} events by {','.join(self.by)}, kept the {self.keep}"
            return Change("dedupe", message, entries=entries)

        publish(store, branch, plan, discard=rewritten.clear)
        return RowRemoval(**counts, events=len(removed_seqs))


def _rest(
    store: Store, connect: Connect, entry: SegmentEntry, removed_part: np.ndarray
) -> SegmentEntry | None:
    """Write the rows of a segment that stay; None if none do. Raises StalePlan."""
    store.verified.require([entry])
    removed, query = (pa.table({"seq": pa.array(removed_part)}), rows_sql(store.paths, [entry]))
    cursor = connect().cursor()
    cursor.register("removed", removed)
    with contextlib.closing(cursor):
        query = f"SELECT count(*) FROM ({query}) WHERE seq IN (SELECT seq FROM removed)"
        if cursor.execute(query).fetchall()[0][0] != len(removed_part):
            raise StalePlan("some of the rows are not on the branch any more: plan again")
    if len(removed_part) == entry.events:
        return None
    condition = "seq NOT IN (SELECT seq FROM removed)"
    return compact.rewrite(store, connect(), [entry], condition, _LEVEL, {"removed": removed})
