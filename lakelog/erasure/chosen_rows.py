"""The chosen rows of every segment: events, then lines, of which some are known by the events."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from lakelog.entries import SegmentEntry
from lakelog.erasure import rewriting
from lakelog.erasure.rewriting import History
from lakelog.erasure.selection import Chooser, entry_of_file
from lakelog.libraries import pa, pc
from lakelog.runtime.progress import ProgressCallback
from lakelog.store import Store


@dataclass
class ChosenRows:
    """The chosen rows of each segment that has some, and the states that name it."""

    history: History
    rows: dict[str, tuple[SegmentEntry, pa.Table]] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    """The segments on disk; of a shared lake those in the bucket, too."""

    @property
    def events(self) -> int:
        """How many different events are chosen: one may be in several segments, as rows are
        compacted and older states keep the segments of before."""
        return len(self.places("events"))

    @property
    def lines(self) -> int:
        """How many different quarantined lines are chosen."""
        return len(self.places("quarantine"))

    def numbers(self) -> pa.Table:
        """The seq of the chosen events."""
        tables = [rows for entry, rows in self.rows.values() if entry.kind == "events"]
        chunks = [chunk for rows in tables for chunk in rows["seq"].cast(pa.int64()).chunks]
        return pa.table({"seq": pa.chunked_array(chunks, pa.int64())})

    def places(self, row_kind: str) -> set[tuple[object, object]]:
        """The places of the chosen rows of a kind: their origin and position."""
        findings: set[tuple[object, object]] = set()
        for entry, rows in self.rows.values():
            if entry.kind == row_kind:
                columns = (rows["origin"].to_pylist(), rows["position"].to_pylist())
                findings.update(zip(*columns, strict=True))
        return findings

    def add(self, entry: SegmentEntry, rows: pa.Table) -> None:
        """Add chosen rows of a segment, of which others may have been chosen before."""
        before = [self.rows[entry.key][1]] if entry.key in self.rows else []
        self.rows[entry.key] = entry, pa.concat_tables([*before, rows])

    def shares(self, chooser: Chooser) -> list[ChosenRows]:
        """What each of the selectors chose of it."""
        if len(chooser.selectors) == 1:
            return [self]
        shares = [ChosenRows(self.history) for _ in chooser.selectors]
        # Events come before lines, some of which are known by them.
        for _, group in itertools.groupby(self.rows.values(), lambda pair: pair[0].kind):
            numbers = [share.numbers() for share in shares]
            for entry, rows in group:
                own_rows = chooser.shares(entry, rows, numbers)
                for share, share_rows in zip(shares, own_rows, strict=True):
                    if len(share_rows):
                        share.add(entry, share_rows)
        return shares

    def newest_arrival(self, least: int) -> int:
        """When the last chosen row arrived (us), or `least` if that is later."""
        arrivals = (pc.max(rows["ingested_at"]).cast(pa.int64()) for _, rows in self.rows.values())
        return max([least, *(arrival.as_py() or least for arrival in arrivals)])

    def events_in(self, store: Store, digest: str) -> int:
        """How many chosen events a state has."""
        live = self.history.live
        # Each erasure asks for each tag and branch.
        if digest not in live:
            state = self.history.states.get(digest)
            segments = store.manifests.segments(state, "events") if state else ()
            live[digest] = [entry.key for entry in segments]
        return sum(len(self.rows[key][1]) for key in live[digest] if key in self.rows)


def find(store: Store, chooser: Chooser, progress: ProgressCallback | None = None) -> ChosenRows:
    """Return what is chosen of the rows of every segment on disk, whether a state names it or not.
    Raises QueryFailed, DamagedSegment."""
    chooser.check()
    history = rewriting.history_of(store)
    entries = history.segments()
    on_disk = set(store.paths.digests("segments"))
    # Of a shared lake the bucket has them. What no state names there each machine drops itself:
    # one of them may be about to publish it.
    present = on_disk
    if store.attachment is not None:
        present = entries.keys() & (on_disk | store.attachment.erasures.segments_there())
    findings = ChosenRows(history, present=frozenset(present))
    in_states = [entry for key, entry in entries.items() if key in present]
    unnamed = present - entries.keys()
    possible = chooser.possible(unnamed)
    strays = [entry for key in possible if (entry := entry_of_file(store, key)) is not None]
    candidates = chooser.candidates([*in_states, *strays])
    # What a synced table refused is known by the events.
    candidates.sort(key=lambda entry: entry.kind != "events")
    counter = itertools.count(1)
    for _, group in itertools.groupby(candidates, lambda entry: entry.kind):
        numbers = findings.numbers()
        for entry in group:
            rows = chooser.rows_of(entry, numbers)
            if len(rows):
                findings.add(entry, rows)
            if progress:
                progress(next(counter), len(candidates))
    return findings


def branches_with(store: Store, findings: ChosenRows) -> dict[str, int]:
    """How many chosen events the newest state of each branch has, if any."""
    heads = {branch: store.refs.head(branch).move.snapshot for branch in store.refs.branches()}
    counts = {branch: findings.events_in(store, digest) for branch, digest in heads.items()}
    return {branch: count for branch, count in counts.items() if count}


def tags_with(store: Store, findings: ChosenRows) -> dict[str, int]:
    """How many chosen events the state of each tag has, if any."""
    counts = {tag.name: findings.events_in(store, tag.snapshot) for tag in store.refs.tags()}
    return {name: count for name, count in counts.items() if count}
