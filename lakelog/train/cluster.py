"""Near duplicates: clusters of texts whose sets of shingles have a Jaccard index of at least t.

1 signatures, in threads   2 texts of equal signatures meet their first one only   3 in each band,
texts of equal keys are candidates   4 candidates whose signatures differ too much are dropped
5 the rest is verified by the exact Jaccard index of their sets   6 what holds is joined; a cluster
is what is connected. Texts without words are in no cluster.

A bucket of more than `CROWD` texts, as a tiny vocabulary makes them, is not compared pair by
pair: sorted by what follows in their signatures, each text meets its next `NEIGHBOURS`. So time
grows with the number of texts and not with its square, and in such crowds some pairs may be
missed; how many buckets were crowded is reported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakelog.lazy import Lazy
from lakelog.train import minhash
from lakelog.train.tokens import ShingleSets, sets_of, shingled

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Array = np.ndarray[Any, np.dtype[Any]]
else:
    Array = Any
    np = Lazy("numpy")
    pa = Lazy("pyarrow")

CROWD = 32
NEIGHBOURS = 12
_SPREAD = 0.15
_PAIRS = 1 << 17
_GLANCE = 32
_WORDS_KEPT = 24_000_000
_PENDING = 4_000_000
Chunks = Callable[[], "Iterator[pa.Array]"]


@dataclass(frozen=True)
class Clusters:
    """`first[i]` is the earliest text of i's cluster. Pairs are those that were verified."""

    first: Array
    pairs: int
    crowded: int

    @property
    def duplicates(self) -> int:
        """Texts that have an earlier one in their cluster."""
        return int((self.first != np.arange(len(self.first))).sum())


def clusters(chunks: Chunks, threshold: float, shingle: int = 1) -> Clusters:
    """Cluster texts; `chunks()` yields them as arrays and may be called again."""
    work = _Work(chunks, threshold, shingle)
    work.sign()
    work.meet()
    return Clusters(work.forest.roots(), work.pairs, work.crowded)


class Forest:
    """Disjoint sets of numbers whose name is their smallest member, joined many at a time."""

    def __init__(self, size: int) -> None:
        self._parent: Array = np.arange(size, dtype=np.int64)

    def join(self, left: Array, right: Array) -> None:
        """Put each left and right into one set."""
        parent = self._parent
        while len(left):
            left, right = self._root(left), self._root(right)
            apart = left != right
            left, right = left[apart], right[apart]
            low, high = np.minimum(left, right), np.maximum(left, right)
            np.minimum.at(parent, high, low)
            left, right = low, high

    def _root(self, members: Array) -> Array:
        parent = self._parent
        while True:
            above = parent[members]
            higher = parent[above]
            parent[members] = higher
            if (above == higher).all():
                return above
            members = higher

    def apart(self, left: Array, right: Array) -> Array:
        """Tell which pairs are in different sets."""
        made: Array = self._root(left.copy()) != self._root(right.copy())
        return made

    def roots(self) -> Array:
        """Return the name of every member's set."""
        parent = self._parent
        while True:
            above = parent[parent]
            if (above == parent).all():
                return above
            parent = self._parent = above


class _Work:
    def __init__(self, chunks: Chunks, threshold: float, shingle: int) -> None:
        self._chunks, self._threshold, self._shingle = chunks, threshold, shingle
        self._bands, self._width = minhash.bands_for(threshold)
        self._kept: list[ShingleSets] | None = []
        self._all: ShingleSets | None = None
        self._left: list[Array] = []
        self._right: list[Array] = []
        self.pairs = self.crowded = 0

    def sign(self) -> None:
        """Step 1: read all texts once."""
        places, signed, full = self._bands * self._width, [], []
        kept, words = self._kept, 0

        def one(texts: pa.Array) -> tuple[Array, Array, ShingleSets]:
            made = shingled(texts, self._shingle)
            return minhash.signatures(made, places), made.lengths > 0, made

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for signature, has_words, made in _ordered(pool, one, self._chunks()):
                signed.append(signature)
                full.append(has_words)
                words += len(made.hashes)
                if kept is not None:
                    kept = [*kept, made] if words <= _WORDS_KEPT else None
        self._kept = kept
        self._signed = _stacked(signed, places)
        self._rows = np.flatnonzero(np.concatenate(full)) if full else np.zeros(0, np.int64)
        self.forest = Forest(len(self._signed))

    def meet(self) -> None:
        """Steps 2 to 6."""
        rows = self._rows
        whole = minhash.band_keys(self._signed[rows], 0, self._bands * self._width)
        order = np.lexsort((rows, whole))
        new = np.ones(len(rows), bool)
        new[1:] = whole[order][1:] != whole[order][:-1]
        firsts = rows[order][np.flatnonzero(new)[np.cumsum(new) - 1]] if len(rows) else rows
        self._hold(firsts[~new], rows[order][~new])
        self._verify()
        singles = np.sort(rows[order][new])
        for band in range(self._bands):
            for left, right in self._candidates(singles, band):
                self._consider(left, right)
            if self._kept is not None or sum(map(len, self._left)) > _PENDING:
                self._verify()
        self._verify()

    def _candidates(self, rows: Array, band: int) -> Iterator[tuple[Array, Array]]:
        """Step 3: pairs of texts with equal keys, in blocks."""
        signed = self._signed
        keys = minhash.band_keys(signed, band, self._width)[rows]
        rows, keys = _shared(rows, keys)
        after = minhash.band_keys(signed[rows], (band + 1) % self._bands, self._width)
        order = np.lexsort((after, keys))
        rows, keys = rows[order], keys[order]
        new = np.ones(len(keys), bool)
        new[1:] = keys[1:] != keys[:-1]
        begins = np.flatnonzero(new)
        sizes = np.diff(np.append(begins, len(keys)))
        self.crowded += int((sizes > CROWD).sum())
        ends = np.repeat(begins + sizes, sizes)
        reach = np.where(np.repeat(sizes, sizes) > CROWD, NEIGHBOURS, CROWD)
        place = np.arange(len(keys))
        last = np.minimum(ends - 1, place + reach)
        counts = last - place
        some = np.flatnonzero(counts)
        heap = np.cumsum(counts[some])
        start = 0
        while start < len(some):
            done = heap[start - 1] if start else 0
            stop = max(int(np.searchsorted(heap, done + _PAIRS, "right")), start + 1)
            taken = some[start:stop]
            many = counts[taken]
            left = np.repeat(taken, many)
            step = np.arange(len(left)) - np.repeat(np.cumsum(many) - many, many) + 1
            yield rows[left], rows[left + step]
            start = stop

    def _consider(self, left: Array, right: Array) -> None:
        """Step 4: hold pairs that are not joined yet and whose signatures agree enough."""
        apart = self.forest.apart(left, right)
        left, right = left[apart], right[apart]
        for places, spread in ((_GLANCE, 2 * _SPREAD), (self._bands * self._width, _SPREAD)):
            alike = (self._signed[left, :places] == self._signed[right, :places]).mean(axis=1)
            near = alike >= self._threshold - spread
            left, right = left[near], right[near]
        self._hold(left, right)

    def _hold(self, left: Array, right: Array) -> None:
        self._left.append(left)
        self._right.append(right)

    def _verify(self) -> None:
        """Step 5 and 6: the exact index of the pairs held, in blocks of bounded size."""
        if not sum(map(len, self._left)):
            return
        left, right = np.concatenate(self._left), np.concatenate(self._right)
        self._left, self._right = [], []
        pairs = np.unique(np.stack([np.minimum(left, right), np.maximum(left, right)], 1), axis=0)
        needed = np.unique(pairs)
        sets = self._sets_for(needed)
        left, right = np.searchsorted(needed, pairs[:, 0]), np.searchsorted(needed, pairs[:, 1])
        heap = np.cumsum(sets.lengths[left] + sets.lengths[right])
        start = 0
        while start < len(left):
            done = heap[start - 1] if start else 0
            stop = max(int(np.searchsorted(heap, done + 16 * _PAIRS, "right")), start + 1)
            index = jaccard(sets, left[start:stop], right[start:stop])
            holds = index >= self._threshold - 1e-12
            self.pairs += int(holds.sum())
            self.forest.join(pairs[start:stop, 0][holds], pairs[start:stop, 1][holds])
            start = stop

    def _sets_for(self, rows: Array) -> ShingleSets:
        """The distinct hashes of some texts; read again where not all are kept in memory."""
        if self._kept is not None:
            if self._all is None:
                self._all, self._kept = _concatenated(self._kept), []
            return sets_of(_taken(self._all, rows))
        made, seen = [], 0
        for texts in self._chunks():
            first, last = np.searchsorted(rows, [seen, seen + len(texts)])
            chosen = pa.array(rows[first:last] - seen)
            made.append(sets_of(shingled(texts.take(chosen), self._shingle)))
            seen += len(texts)
        return _concatenated(made)


def _stacked(parts: list[Array], places: int) -> Array:
    """Put arrays on top of each other, letting go of each once it is copied."""
    made = np.empty((sum(map(len, parts)), places), np.uint32)
    done = len(made)
    while parts:
        part = parts.pop()
        made[done - len(part) : done] = part
        done -= len(part)
    return made


def _concatenated(parts: list[ShingleSets]) -> ShingleSets:
    lengths = np.concatenate([part.lengths for part in parts])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return ShingleSets(np.concatenate([part.hashes for part in parts]), starts)


def _taken(sets: ShingleSets, rows: Array) -> ShingleSets:
    counts = sets.lengths[rows]
    starts = np.concatenate([[0], np.cumsum(counts)])
    place = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
    return ShingleSets(sets.hashes[np.repeat(sets.starts[rows], counts) + place], starts)


def _shared(rows: Array, keys: Array) -> tuple[Array, Array]:
    """Leave out the rows whose key no other row has."""
    order = np.sort(keys)
    twice = np.unique(order[1:][order[1:] == order[:-1]])
    if not len(twice):
        return rows[:0], keys[:0]
    place = np.minimum(np.searchsorted(twice, keys), len(twice) - 1)
    found = twice[place] == keys
    return rows[found], keys[found]


def jaccard(sets: ShingleSets, left: Array, right: Array) -> Array:
    """Return the exact Jaccard index of pairs of sets, given by their numbers."""
    a, b = _taken(sets, left), _taken(sets, right)
    pair = np.concatenate([np.repeat(np.arange(len(left)), s.lengths) for s in (a, b)])
    hashes = np.concatenate([a.hashes, b.hashes])
    order = np.lexsort((hashes, pair))
    pair, hashes = pair[order], hashes[order]
    twice = (pair[1:] == pair[:-1]) & (hashes[1:] == hashes[:-1])
    shared = np.bincount(pair[1:][twice], minlength=len(left))
    return shared / np.maximum(a.lengths + b.lengths - shared, 1)


def _ordered(pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Any) -> Iterator[Any]:
    """Yield results in the order of the items, a few of them under way at a time."""
    waiting: list[Any] = []
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > (os.cpu_count() or 1):
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()
