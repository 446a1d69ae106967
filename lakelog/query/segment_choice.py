"""The segments, and blocks of their rows, that a query has to read of a state; each segment is
hashed before it is first read."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from lakelog.errors import DamagedSegment, SnapshotGone
from lakelog.query.sql import times
from lakelog.query.sql.analysis import HIGHEST, LOWEST, Predicate, Query
from lakelog.runtime.lazy import Lazy
from lakelog.segments import arrays, bloom
from lakelog.segments.bloom import Filters
from lakelog.segments.segment_sql import RowRanges
from lakelog.segments.word_index import BlockCount, WordIndexes
from lakelog.store.bootstrap import Store
from lakelog.store.entry import Counts, SegmentEntry
from lakelog.store.manifest import Manifest
from lakelog.store.verified_files import hash_file

if TYPE_CHECKING:
    from lakelog.maintain import reachability
else:
    reachability = Lazy("lakelog.maintain.reachability")

_REMEMBERED = 64
_NAMES_MAX = 1000
"""Lists of more ids or subjects are not looked up in filters."""


class SegmentChoice:
    """Chooses by the statistics of the manifest, then by the Bloom filters; what was chosen by
    these is remembered while nothing is published. Safe for threads."""

    def __init__(self, store: Store, branch: str) -> None:
        self._store, self._branch = store, branch
        self._filters, self._words = bloom.Filters(store.paths), WordIndexes(store.paths)
        self._chosen: dict[tuple[object, ...], tuple[SegmentEntry, ...]] = {}

    def segments(self, state: Manifest, query: Query) -> list[SegmentEntry]:
        """Return the event segments of a state that a query can need. Raises DamagedSegment,
        SnapshotGone where a filter has to be made."""
        if not query.parsed or not query.needs:
            return self._store.manifests.segments(state, "events")
        if not query.needles:
            nearby = self._near(state, query.needs)
            ranges = self.row_ranges(nearby, query)
            return [entry for entry in nearby if ranges.get(entry.key) != ()]
        key = (state.digest, *(need.key for need in query.needs))
        entries = self._chosen.get(key)
        if entries is None:
            entries = tuple(self._holding(state, query.needs))
            if len(self._chosen) >= _REMEMBERED:
                self._chosen = {}
            self._chosen[key] = entries
        return list(entries)

    def row_ranges(self, entries: list[SegmentEntry], query: Query) -> RowRanges:
        """Return the rows of segments that can have the words of a search."""
        if not query.parsed or not query.needs or any(n.words is None for n in query.needs):
            return {}
        needs = [need.words for need in query.needs]
        ranges = ((e.key, self._words.ranges(e.key, e.events, needs)) for e in entries)
        return {key: rows for key, rows in ranges if rows is not None}

    def is_ascii(self, entry: SegmentEntry) -> bool:
        """Whether the words of a segment are known to be all of ASCII."""
        return self._words.is_ascii(entry.key, entry.events)

    def word_count(self, entry: SegmentEntry, word: str) -> int | None:
        """Return how many events of a segment have a word of ASCII; None where that is not
        known."""
        return self._words.count(entry.key, entry.events, word)

    def block_counts(self, entry: SegmentEntry, word: str) -> list[BlockCount] | None:
        """Return the blocks of a segment that have a word of ASCII, and how many of their rows;
        None where that is not known."""
        return self._words.block_counts(entry.key, entry.events, word)

    def among(self, entries: list[SegmentEntry], needs: list[Predicate]) -> list[SegmentEntry]:
        """Return those of verified segments that hold what any of some mentions needs."""
        matches = near(entries, needs)
        if Query(needs=needs).needles:
            return holding(matches, needs, self._filters)
        return matches

    def verify(self, entries: list[SegmentEntry]) -> None:
        """Hash segments not yet verified as they are. Raises DamagedSegment, SnapshotGone."""
        store, fresh = self._store, []
        for entry in entries:
            path = store.paths.object("segments", entry.key)
            try:
                if store.verified.holds(entry.key, path):
                    continue
                if hash_file(path) != entry.key:
                    raise DamagedSegment(path, "the content does not match its name")
            except FileNotFoundError:
                raise self._missing(entry, path) from None
            fresh.append((entry.key, path))
        if fresh:
            store.verified.add_all(fresh)

    def _missing(self, entry: SegmentEntry, path: str) -> Exception:
        """A segment is not there: collected behind a slow reader's back, or lost."""
        if f"segments/{entry.key}" in reachability.lost_names(self._store):
            return DamagedSegment(path, "it was lost, and a repair has given it up")
        state = self._store.state(self._branch)
        if any(e.key == entry.key for e in self._store.manifests.segments(state)):
            return DamagedSegment(path, "the segment is missing")
        return SnapshotGone(f"segment {entry.key[:12]} was collected by gc: run the query again")

    def _near(self, state: Manifest, needs: list[Predicate]) -> list[SegmentEntry]:
        low, high = min(need.low for need in needs), max(need.high for need in needs)
        entries = self._store.manifests.segments_between(state, low, high)
        return near([entry for entry in entries if entry.kind == "events"], needs)

    def _holding(self, state: Manifest, needs: list[Predicate]) -> list[SegmentEntry]:
        entries = self._near(state, needs)
        if missing := self._filters.missing(entry.key for entry in entries):
            # filters to be made of them
            self.verify([entry for entry in entries if entry.key in missing])
        return holding(entries, needs, self._filters)


def near(entries: list[SegmentEntry], needs: list[Predicate]) -> list[SegmentEntry]:
    """Return the segments of which any mention may match a row by their statistics: of all segments
    of a state, or of those between its times."""
    return _united(entries, [_near(entries, need) for need in needs])


def holding(
    entries: list[SegmentEntry], needs: list[Predicate], filters: Filters
) -> list[SegmentEntry]:
    """Return those of them of which any mention may match a row by their Bloom filters."""
    return _united(entries, [_holding(_near(entries, need), need, filters) for need in needs])


def _united(entries: list[SegmentEntry], groups: list[list[SegmentEntry]]) -> list[SegmentEntry]:
    if len(groups) == 1:
        return groups[0]
    keys = {entry.key for group in groups for entry in group}
    return [entry for entry in entries if entry.key in keys]


def _near(entries: list[SegmentEntry], need: Predicate) -> list[SegmentEntry]:
    low, high = need.low, need.high
    if need.before_newest is not None and entries:
        low = max(low, max(e.time[1] for e in entries) - need.before_newest)
    if need.extremes and entries:
        begin, end = min(e.time[0] for e in entries), max(e.time[1] for e in entries)
        has_first, has_last = times.FIRST in need.extremes, times.LAST in need.extremes
        return [
            e
            for e in entries
            if (has_first and e.time[0] == begin) or (has_last and e.time[1] == end)
        ]
    if low > LOWEST or high < HIGHEST:
        entries = [e for e in entries if e.time[0] <= high and low <= e.time[1]]
    if need.types is not None:
        entries = [e for e in entries if _may(need.types, e.types)]
    if need.sources is not None:
        entries = [e for e in entries if _may(need.sources, e.sources)]
    if need.subjects:
        lowest, highest = min(need.subjects), max(need.subjects)
        spans = ((e, e.subject) for e in entries)
        entries = [e for e, s in spans if s is None or (s[0] <= highest and lowest <= s[1])]
    return [] if need.subjects == set() or need.ids == set() else entries


def _holding(entries: list[SegmentEntry], need: Predicate, filters: Filters) -> list[SegmentEntry]:
    for column, names in (("id", need.ids), ("subject", need.subjects)):
        if names is not None and len(names) <= _NAMES_MAX:
            keys, hashed = (e.key for e in entries), _hashes(tuple(sorted(names)))
            matches = filters.containing(keys, column, hashed)
            entries = [e for e in entries if e.key in matches]
    return entries


@functools.lru_cache(64)
def _hashes(names: tuple[str, ...]) -> list[int]:
    # Not by `pa.array`, which loads pandas to see whether it is given anything of it.
    hashed: list[int] = bloom.hashes(arrays.texts(names)).tolist()
    return hashed


def _may(values: set[str] | None, counts: Counts) -> bool:
    return values is None or isinstance(counts, str) or not values.isdisjoint(counts)
