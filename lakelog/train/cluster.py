"""Near duplicates: clusters of texts whose shingle sets have a Jaccard index of at least t.

    1 compute MinHash signatures, in threads
    2 compare texts of equal signatures with the first of them only
    3 in each band, texts of equal keys are candidates
    4 drop candidates whose signatures differ too much
    5 verify the rest by the exact Jaccard index
    6 join the verified pairs

A cluster is a connected component. Texts without words are in no cluster.

A bucket of more than `CROWD` texts, as a tiny vocabulary produces, is not compared pair by pair:
sorted by the next band, each text is compared with the next `NEIGHBOURS`. Time therefore grows
linearly and not quadratically, and some pairs of such buckets may be missed; the number of crowded
buckets is reported.

Of two signatures, the part of equal places estimates the Jaccard index of their sets. A place is
the smallest of (h xor x) * a modulo 2^32 over the hashes h of a set. Places are cut into bands, as
long as lets pairs at the threshold meet in one of them with 99.5 %, for at most 128 places.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from lakelog.libraries import np, pa
from lakelog.train.tables import Array
from lakelog.train.tokens import ShingleSets, distinct_hashes, shingle_sets

# Above CROWD all pairs of a bucket would be quadratic work; NEIGHBOURS bounds it to 12 per text.
CROWD = 32
NEIGHBOURS = 12
# The estimate from 128 places has a standard deviation of at most 0.044; 0.15 is more than three of
# them, so verification misses almost no pair that the bands found.
_SPREAD = 0.15
_PAIRS = 1 << 17
_GLANCE = 32
# Above this many hashes (about 200 MB) sets are not kept; texts are tokenized again when needed.
_WORDS_CACHED = 24_000_000
_PENDING = 4_000_000
TextChunks = Callable[[], "Iterator[pa.Array]"]


@dataclass(frozen=True)
class Clusters:
    """`roots[i]` is the earliest text of the cluster of i. `pairs` counts verified pairs."""

    roots: Array
    pairs: int
    crowded: int

    @property
    def duplicates(self) -> int:
        """Texts that have an earlier one in their cluster."""
        return int((self.roots != np.arange(len(self.roots))).sum())


def clusters(chunks: TextChunks, threshold: float, shingle: int = 1) -> Clusters:
    """Cluster texts; `chunks()` yields them as arrays and may be called again."""
    work = _NearSearch(chunks, threshold, shingle)
    work.sign()
    work.meet()
    return Clusters(work.forest.roots(), work.pairs, work.crowded)


class Forest:
    """A union-find over numbers, vectorized; the root of a set is its smallest member."""

    def __init__(self, size: int) -> None:
        self._parent: Array = np.arange(size, dtype=np.int64)

    def join(self, sources: Array, targets: Array) -> None:
        """Put each left and right into one set."""
        parent = self._parent
        # `minimum.at` keeps one parent per root when several pairs join the same root at once;
        # pairs that lost are joined again in the next round, until none is left.
        while len(sources):
            sources, targets = self._root(sources), self._root(targets)
            distinct = sources != targets
            sources, targets = sources[distinct], targets[distinct]
            low, high = np.minimum(sources, targets), np.maximum(sources, targets)
            np.minimum.at(parent, high, low)
            sources, targets = low, high

    def _root(self, members: Array) -> Array:
        parent = self._parent
        while True:
            parents = parent[members]
            higher = parent[parents]
            parent[members] = higher
            if (parents == higher).all():
                return parents
            members = higher

    def differ(self, sources: Array, targets: Array) -> Array:
        """Return which pairs are in different sets."""
        differ: Array = self._root(sources.copy()) != self._root(targets.copy())
        return differ

    def roots(self) -> Array:
        """Return the root of every member."""
        return self._root(np.arange(len(self._parent)))


class _NearSearch:
    def __init__(self, chunks: TextChunks, threshold: float, shingle: int) -> None:
        self._chunks, self._threshold, self._shingle = chunks, threshold, shingle
        self._bands, self._width = bands_for(threshold)
        self._cached: list[ShingleSets] | None = []
        self._cached_all: ShingleSets | None = None
        self._pending_left: list[Array] = []
        self._pending_right: list[Array] = []
        self.pairs = self.crowded = 0

    def sign(self) -> None:
        """Step 1: read all texts once."""
        places, signed, full = self._bands * self._width, [], []
        cached, hash_count = self._cached, 0

        # numpy and Arrow release the GIL in the kernels used here, so threads scale.
        def sign_chunk(contents: pa.Array) -> tuple[Array, Array, ShingleSets]:
            shingles = shingle_sets(contents, self._shingle)
            return signatures(shingles, places), shingles.lengths > 0, shingles

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for signature, has_words, shingles in _map_in_order(pool, sign_chunk, self._chunks()):
                signed.append(signature)
                full.append(has_words)
                hash_count += len(shingles.hashes)
                if cached is not None:
                    # Once over the limit nothing is cached: a half-filled cache would need both
                    # code paths for one batch of pairs.
                    cached = [*cached, shingles] if hash_count <= _WORDS_CACHED else None
        self._cached = cached
        self._signed = _stack(signed, places)
        self._rows = np.flatnonzero(np.concatenate(full)) if full else np.zeros(0, np.int64)
        self.forest = Forest(len(self._signed))

    def meet(self) -> None:
        """Steps 2 to 6."""
        rows = self._rows
        # Texts with equal signatures are almost certainly equal. Comparing each of them with the
        # first one only keeps copies out of the bands, where a thousand copies would be half a
        # million pairs.
        full_keys = band_keys(self._signed[rows], 0, self._bands * self._width)
        order = np.lexsort((rows, full_keys))
        new = np.ones(len(rows), bool)
        new[1:] = full_keys[order][1:] != full_keys[order][:-1]
        firsts = rows[order][np.flatnonzero(new)[np.cumsum(new) - 1]] if len(rows) else rows
        self._enqueue(firsts[~new], rows[order][~new])
        self._verify()
        singles = np.sort(rows[order][new])
        # Band by band, so that pairs joined by an earlier band are skipped in later ones.
        for band in range(self._bands):
            for sources, targets in self._candidates(singles, band):
                self._consider(sources, targets)
            # With cached sets a check is cheap and soon spares later bands work. Without, every
            # check reads all texts again, so pairs are collected first.
            if self._cached is not None or sum(map(len, self._pending_left)) > _PENDING:
                self._verify()
        self._verify()

    def _candidates(self, rows: Array, band: int) -> Iterator[tuple[Array, Array]]:
        """Step 3: pairs of texts with equal keys, in blocks."""
        signed = self._signed
        keys = band_keys(signed, band, self._width)[rows]
        # Most keys are unique; removing them first makes the sort small.
        rows, keys = _repeated_keys(rows, keys)
        # Within a bucket texts are ordered by the next band, so similar texts are neighbours and
        # the limited comparison in crowded buckets finds the most likely pairs.
        after = band_keys(signed[rows], (band + 1) % self._bands, self._width)
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
        last_partner = np.minimum(ends - 1, place + reach)
        counts = last_partner - place
        # Pairs are expanded in blocks of about _PAIRS; one bucket after the other could be millions
        # of pairs at once. At least one text is taken per block, or a large one would never end.
        with_partners = np.flatnonzero(counts)
        pairs_before = np.cumsum(counts[with_partners])
        start = 0
        while start < len(with_partners):
            pairs_done = pairs_before[start - 1] if start else 0
            stop = max(int(np.searchsorted(pairs_before, pairs_done + _PAIRS, "right")), start + 1)
            block = with_partners[start:stop]
            partners = counts[block]
            sources = np.repeat(block, partners)
            step = np.arange(len(sources)) - np.repeat(np.cumsum(partners) - partners, partners) + 1
            yield rows[sources], rows[sources + step]
            start = stop

    def _consider(self, sources: Array, targets: Array) -> None:
        """Step 4: enqueue pairs that are not joined yet and whose signatures agree enough."""
        unjoined = self.forest.differ(sources, targets)
        sources, targets = sources[unjoined], targets[unjoined]
        # A glance at 32 places with twice the tolerance rejects most pairs at a quarter of the
        # cost.
        for places, spread in ((_GLANCE, 2 * _SPREAD), (self._bands * self._width, _SPREAD)):
            agreement = (self._signed[sources, :places] == self._signed[targets, :places]).mean(
                axis=1
            )
            near = agreement >= self._threshold - spread
            sources, targets = sources[near], targets[near]
        self._enqueue(sources, targets)

    def _enqueue(self, sources: Array, targets: Array) -> None:
        self._pending_left.append(sources)
        self._pending_right.append(targets)

    def _verify(self) -> None:
        """Steps 5 and 6: the exact index of the pending pairs, in blocks of bounded size."""
        if not sum(map(len, self._pending_left)):
            return
        sources, targets = np.concatenate(self._pending_left), np.concatenate(self._pending_right)
        self._pending_left, self._pending_right = [], []
        # The same pair meets in several bands.
        pairs = np.unique(
            np.stack([np.minimum(sources, targets), np.maximum(sources, targets)], 1), axis=0
        )
        needed = np.unique(pairs)
        sets = self._sets_for(needed)
        sources, targets = np.searchsorted(needed, pairs.T)
        hashes_before = np.cumsum(sets.lengths[sources] + sets.lengths[targets])
        start = 0
        while start < len(sources):
            hashes_done = hashes_before[start - 1] if start else 0
            stop = max(
                int(np.searchsorted(hashes_before, hashes_done + 16 * _PAIRS, "right")), start + 1
            )
            index = jaccard(sets, sources[start:stop], targets[start:stop])
            # Inclusive threshold: 4/5 computed as a float may fall just below 0.8.
            holds = index >= self._threshold - 1e-12
            self.pairs += int(holds.sum())
            self.forest.join(pairs[start:stop, 0][holds], pairs[start:stop, 1][holds])
            start = stop

    def _sets_for(self, rows: Array) -> ShingleSets:
        """The distinct hashes of some texts; read again where not all of them are cached."""
        if self._cached is not None:
            if self._cached_all is None:
                self._cached_all, self._cached = _concatenate(self._cached), []
            # The chunks are concatenated on first use, and the list is emptied so that both forms
            # do not occupy memory together.
            return distinct_hashes(_select(self._cached_all, rows))
        sets, position = [], 0
        for contents in self._chunks():
            start, stop = np.searchsorted(rows, [position, position + len(contents)])
            offsets = pa.array(rows[start:stop] - position)
            sets.append(distinct_hashes(shingle_sets(contents.take(offsets), self._shingle)))
            position += len(contents)
        return _concatenate(sets)


def _stack(arrays: list[Array], places: int) -> Array:
    """Concatenate arrays vertically, freeing each once it is copied."""
    # Popping from the end frees each chunk while the array fills, so the peak is one copy and a
    # chunk and not two copies.
    stacked = np.empty((sum(map(len, arrays)), places), np.uint32)
    start = len(stacked)
    while arrays:
        array = arrays.pop()
        stacked[start - len(array) : start] = array
        start -= len(array)
    return stacked


def _concatenate(sets: list[ShingleSets]) -> ShingleSets:
    lengths = np.concatenate([shingles.lengths for shingles in sets])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return ShingleSets(np.concatenate([shingles.hashes for shingles in sets]), starts)


def _select(sets: ShingleSets, rows: Array) -> ShingleSets:
    counts = sets.lengths[rows]
    starts = np.concatenate([[0], np.cumsum(counts)])
    place = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
    return ShingleSets(sets.hashes[np.repeat(sets.starts[rows], counts) + place], starts)


def _repeated_keys(rows: Array, keys: Array) -> tuple[Array, Array]:
    """Leave out the rows whose key no other row has."""
    order = np.sort(keys)
    repeated = np.unique(order[1:][order[1:] == order[:-1]])
    if not len(repeated):
        return rows[:0], keys[:0]
    # searchsorted may return one past the end for keys beyond the largest repeated one.
    place = np.minimum(np.searchsorted(repeated, keys), len(repeated) - 1)
    is_shared = repeated[place] == keys
    return rows[is_shared], keys[is_shared]


def jaccard(sets: ShingleSets, sources: Array, targets: Array) -> Array:
    """Return the exact Jaccard index of pairs of sets, given by their numbers."""
    a, b = _select(sets, sources), _select(sets, targets)
    pair = np.concatenate([np.repeat(np.arange(len(sources)), s.lengths) for s in (a, b)])
    hashes = np.concatenate([a.hashes, b.hashes])
    # Both sets of a pair are sorted together; a hash that appears twice in a run is in the
    # intersection, since each set is distinct by itself.
    order = np.lexsort((hashes, pair))
    pair, hashes = pair[order], hashes[order]
    is_shared = (pair[1:] == pair[:-1]) & (hashes[1:] == hashes[:-1])
    shared = np.bincount(pair[1:][is_shared], minlength=len(sources))
    return shared / np.maximum(a.lengths + b.lengths - shared, 1)


def _map_in_order(
    pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Any
) -> Iterator[Any]:
    """Yield results in the order of the items, with a bounded number in flight."""
    waiting: list[Any] = []
    for item in items:
        waiting.append(pool.submit(work, item))
        # A bounded number of chunks in flight bounds memory; the results keep the order of the
        # texts.
        if len(waiting) > (os.cpu_count() or 1):
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


PLACES_MAX = 128
MISSED = 0.005
_TEXTS = 1024


def bands_for(threshold: float) -> tuple[int, int]:
    """Return (bands, places a band) for a Jaccard threshold."""
    # Wide bands first: they produce the fewest false candidates.
    for width in range(16, 0, -1):
        # Probability that a pair at the threshold agrees on one whole band. At 1 the logarithm
        # below would be of zero, hence 0.999.
        collision = min(threshold, 0.999) ** width
        bands = math.ceil(math.log(MISSED) / math.log1p(-collision))
        if bands * width <= PLACES_MAX:
            return max(bands, 1), width
    return PLACES_MAX, 1


def signatures(sets: ShingleSets, places: int) -> Array:
    """Return one row of `places` 32-bit numbers per text; zeros for a text without words."""
    out = np.zeros((len(sets), places), np.uint32)
    lengths = sets.lengths
    # Texts of similar length share a block, so that padding to the longest wastes little.
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    multipliers, flips = _family(places)
    # 32-bit numbers halve the memory traffic; the upper bits of the mixed hash are as good as any.
    small = (sets.hashes >> np.uint64(32)).astype(np.uint32)
    for start in range(0, len(order), _TEXTS):
        rows = order[start : start + _TEXTS]
        longest = int(lengths[rows[-1]])
        # Shorter texts repeat their last word: a minimum does not change if an element comes twice.
        steps = np.minimum(np.arange(longest)[:, None], lengths[rows][None, :] - 1)
        hashes = small[sets.starts[rows][None, :] + steps]
        spare = np.empty_like(hashes)
        block = np.empty((places, len(rows)), np.uint32)
        # One place at a time with reused buffers: all places at once would need `places` times the
        # memory.
        for place in range(places):
            np.bitwise_xor(hashes, flips[place], out=spare)
            np.multiply(spare, multipliers[place], out=spare)
            np.minimum.reduce(spare, axis=0, out=block[place])
        out[rows] = block.T
    return out


def _family(places: int) -> tuple[Array, Array]:
    """The (odd) multipliers and the XOR masks of the hash family; deterministic."""
    # SplitMix64 over a counter instead of a random generator: the family must be equal in every run
    # and version of numpy, or rebuilds would differ.
    state = np.arange(1, 2 * places + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    numbers = ((state ^ (state >> np.uint64(31))) >> np.uint64(32)).astype(np.uint32)
    return numbers[:places] | np.uint32(1), numbers[places:]


def band_keys(signed: Array, band: int, width: int) -> Array:
    """Return a 64-bit key of one band for each text."""
    keys = np.zeros(len(signed), np.uint64)
    for place in range(band * width, (band + 1) * width):
        keys = (keys ^ signed[:, place]) * np.uint64(0xD6E8FEB86659FD93)
        keys ^= keys >> np.uint64(29)
    return keys
