"""Which segments a query can need, by the statistics of the manifest and by Bloom filters."""

from __future__ import annotations

import functools

from lakelog.bloom import Filters
from lakelog.entries import Counts, SegmentEntry
from lakelog.query.sql import times
from lakelog.query.sql.analysis import HIGHEST, LOWEST, Predicate


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
    # Relative to the newest event of these very segments: that is what max(time) will be.
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
        if entries and names is not None and len(names) <= Filters.NAMES_MAX:
            keys, hashed = (e.key for e in entries), _hashes(tuple(sorted(names)))
            matches = filters.containing(keys, column, hashed)
            entries = [e for e in entries if e.key in matches]
    return entries


@functools.lru_cache(64)
def _hashes(names: tuple[str, ...]) -> list[int]:
    return Filters.hashes_of(names)


def _may(values: set[str] | None, counts: Counts) -> bool:
    return values is None or isinstance(counts, str) or not values.isdisjoint(counts)
