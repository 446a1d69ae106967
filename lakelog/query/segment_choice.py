"""The segments that a query has to read of a state, remembered while nothing is published."""

from __future__ import annotations

from collections.abc import Callable

from lakelog.query.sql.prune import Predicate, TableRefs
from lakelog.segments import bloom
from lakelog.store.bootstrap import Store
from lakelog.store.entry import SegmentEntry
from lakelog.store.manifest import Manifest

_REMEMBERED = 64


class SegmentChoice:
    """Chooses by the statistics of the manifest, then by the Bloom filters. Safe for threads."""

    def __init__(self, store: Store, verify: Callable[[list[SegmentEntry]], None]) -> None:
        """`verify` hashes segments of which filters are to be made."""
        self._store, self._verify = store, verify
        self._filters = bloom.Filters(store.paths)
        self._known: dict[tuple[object, ...], tuple[SegmentEntry, ...]] = {}

    def segments(self, state: Manifest, mentions: TableRefs) -> list[SegmentEntry]:
        """Return the event segments of a state that a query can need. Raises DamagedSegment,
        SnapshotGone where a filter has to be made."""
        if not mentions.parsed or not mentions.needs:
            return self._store.manifests.segments(state, "events")
        if not mentions.needles:
            return self._near(state, mentions)
        key = (state.digest, *(need.key for need in mentions.needs))
        known = self._known.get(key)
        if known is None:
            known = tuple(self._holding(state, mentions))
            if len(self._known) >= _REMEMBERED:
                self._known = {}
            self._known[key] = known
        return list(known)

    def among(self, entries: list[SegmentEntry], needs: list[Predicate]) -> list[SegmentEntry]:
        """Return those of verified segments that hold what any of some mentions needs."""
        mentions = TableRefs(parsed=True, needs=needs)
        near = mentions.near(entries)
        return mentions.holding(near, self._filters) if mentions.needles else near

    def _near(self, state: Manifest, mentions: TableRefs) -> list[SegmentEntry]:
        near = self._store.manifests.segments_between(state, mentions.low, mentions.high)
        return mentions.near([entry for entry in near if entry.kind == "events"])

    def _holding(self, state: Manifest, mentions: TableRefs) -> list[SegmentEntry]:
        near = self._near(state, mentions)
        if missing := self._filters.missing(entry.key for entry in near):  # filters to be made
            self._verify([entry for entry in near if entry.key in missing])
        return mentions.holding(near, self._filters)
