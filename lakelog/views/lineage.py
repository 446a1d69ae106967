"""Which segments hold the same rows: compaction exchanges segments, and the rows stay.

A segment whose `from` has, in all, as many rows as itself holds the same rows (F6.7): so what
covers the inputs covers the output, and the other way round. Retention and dedupe write fewer
rows, so theirs is a segment of its own. Everything is compared in `leaves`, the oldest segments
known. A leaf that is covered while others of its segment are not is left out by its seq range.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from lakelog.entries import SegmentEntry
from lakelog.errors import Damaged
from lakelog.manifest import Manifest, Manifests
from lakelog.views.partials import Cover

_BACK = 64
"""So many states are looked at for segments that came and went between two readings."""


@dataclass(frozen=True)
class SegmentRead:
    """A segment to be read, but for the seq ranges that are covered already; what that covers."""

    entry: SegmentEntry
    cover: Cover
    without: tuple[tuple[int, int], ...] = ()


class Lineage:
    """What is known of segments: rows, seq range, and what they were made from."""

    def __init__(self) -> None:
        self._known: Cover = {}
        self._sought: set[str] = set()
        self._leaves: dict[str, frozenset[str]] = {}

    @classmethod
    def shared_numbers(cls, manifests: Manifests, before: Manifest, after: Manifest) -> int:
        """Return a number below which two states have the same events, as far as their segments
        tell. Raises Damaged."""
        lineage, states = cls(), (before, after)
        covers = [cls.cover_of(manifests.segments(state, "events")) for state in states]
        for cover in covers:
            lineage.note(cover)
        for state, cover in zip(states, covers, strict=True):
            if lineage.unknown(cover):
                lineage.search(manifests, state, cover)
        others = lineage.leaves(covers[0]) ^ lineage.leaves(covers[1])
        firsts = [int(lineage._known[leaf][1]) for leaf in others]
        return min([*firsts, before.next_seq, after.next_seq])

    @staticmethod
    def cover_of(entries: Iterable[SegmentEntry]) -> Cover:
        """What pieces and lineage keep of entries."""
        return {e.key: [e.events, *e.seq, list(e.made_from)] for e in entries}

    def note(self, cover: Cover) -> None:
        """Learn of segments."""
        if not cover.keys() <= self._known.keys():
            self._known.update(cover)
            self._leaves.clear()

    def unknown(self, cover: Cover) -> set[str]:
        """What segments were made from that was never seen, nor looked for."""
        made_from = {source for info in cover.values() for source in info[3]}
        # What was looked for in vain is not sought again: that would read old manifests each time.
        return made_from - self._known.keys() - self._sought

    def search(
        self, manifests: Manifests, state: Manifest, cover: Cover, pages_read: Iterable[str] = ()
    ) -> None:
        """Look for them where they were added: in the entries of a state and of those before it,
        but for pages that were read."""
        missing = self.unknown(cover)
        self._sought |= missing
        manifests_read = set(pages_read)
        for _ in range(_BACK):
            entries = [*state.recent]
            for page in state.pages:
                if page.digest not in manifests_read:
                    manifests_read.add(page.digest)
                    entries += manifests.page(page)
            cover_found = self.cover_of(
                e for e in entries if isinstance(e, SegmentEntry) and e.key in missing
            )
            self.note(cover_found)
            missing -= cover_found.keys()
            # The first state has no parent.
            if not missing or not state.parent:
                return
            try:
                state = manifests.load(state.parent)
            except Damaged:  # collected long ago
                return

    def leaves(self, digests: Iterable[str]) -> frozenset[str]:
        """The oldest known segments that together hold the rows of these."""
        return frozenset().union(*map(self._of, digests))

    def last(self, digest: str) -> int:
        """The last seq of a segment that is known."""
        return int(self._known[digest][2])

    def missing(
        self, entries: list[SegmentEntry], covered: frozenset[str]
    ) -> list[SegmentRead] | None:
        """What must still be read of a state of which leaves are covered.

        None where seq ranges do not tell covered rows from others (after a repair).
        """
        sources = []
        for entry in entries:
            leaves = self._of(entry.key)
            covered_leaves = leaves & covered
            if covered_leaves != leaves:
                # After a repair seq ranges may cross, so that no range tells rows of one leaf from
                # another's.
                if covered_leaves and self._overlap(leaves):
                    return None
                spans = (self._known[leaf][1:3] for leaf in covered_leaves)
                # As a segment of its own where nothing of it is covered: it is then kept by its own
                # name.
                uncovered = leaves - covered_leaves if covered_leaves else (entry.key,)
                cover = {leaf: self._known[leaf] for leaf in uncovered}
                sources.append(SegmentRead(entry, cover, tuple((a, b) for a, b in spans)))
        return sources

    def _overlap(self, leaves: frozenset[str]) -> bool:
        spans = sorted(self._known[leaf][1:3] for leaf in leaves)
        return any(after[0] <= before[1] for before, after in itertools.pairwise(spans))

    def _of(self, digest: str) -> frozenset[str]:
        leaves = self._leaves.get(digest)
        if leaves is None:
            # Not by recursion: what a file of the cache says may be a ring, or have no end.
            waiting, composite = [digest], set[str]()
            while waiting:
                key = waiting.pop()
                made_from = self._known[key][3]
                if key in composite:
                    self._leaves[key] = frozenset().union(*map(self._leaves.__getitem__, made_from))
                elif key not in self._leaves:
                    self._leaves[key] = frozenset((key,))
                    if self._is_made_of(key):
                        composite.add(key)
                        waiting += [key, *made_from]
            leaves = self._leaves[digest]
        return leaves

    def _is_made_of(self, digest: str) -> bool:
        """Whether a segment has all rows of those that it was made from, which are known."""
        rows, _, _, made_from = self._known[digest]
        sources = [self._known.get(source) for source in made_from]
        # No row less: retention and dedupe write segments with fewer rows.
        return bool(sources) and all(sources) and sum(s[0] for s in sources if s) == rows
