"""Texts as sets of word hashes, a column at a time.

A word is a maximal run of letters and digits after lower-casing; every character beyond ASCII
counts as a letter. A shingle is so many words in a row (one, unless the recipe says otherwise); a
text with fewer words is one shingle. Words are compared by a 64-bit hash of their UTF-8 bytes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from lakelog.libraries import np, pa, pc
from lakelog.train.tables import Array

# Word hashes are polynomial: differences of prefix sums give all words of a block at once, which
# needs the inverse of an odd base modulo 2^64.
BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(BASE, -1, 1 << 64)
_BLOCK_BYTES = 1 << 16
_STEP = 0xD6E8FEB86659FD93


@dataclass(frozen=True)
class ShingleSets:
    """The concatenated shingle hashes of texts; those of text i begin at `starts[i]`.

    A text without words has none.
    """

    hashes: Array
    starts: Array

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Array:
        """The number of shingles of each text."""
        lengths: Array = self.starts[1:] - self.starts[:-1]
        return lengths


def shingle_sets(column: pa.Array, size: int) -> ShingleSets:
    """Return the shingles of a text array; nulls have none."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    lowered = pc.utf8_lower(pc.fill_null(column.cast(pa.large_string()), ""))
    # Sliced arrays share their parent's buffers, so offsets begin at `lowered.offset`.
    offsets = np.frombuffer(lowered.buffers()[1], np.int64, len(lowered) + 1 + lowered.offset)
    offsets = offsets[lowered.offset :]
    data = lowered.buffers()[2]
    raw = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)
    hashes, starts = [], [np.zeros(1, np.int64)]
    hash_count, start = 0, 0
    while start < len(lowered):
        # Blocks of about 64 KB stay in the cache and within the table of powers; a longer text is a
        # block of its own.
        stop = int(np.searchsorted(offsets, offsets[start] + _BLOCK_BYTES, "right")) - 1
        stop = min(max(stop, start + 1), len(lowered))
        chunk, counts = _words(raw[offsets[start] : offsets[stop]], offsets[start : stop + 1])
        if size > 1:
            chunk, counts = _shingles(chunk, counts, size)
        hashes.append(chunk)
        starts.append(hash_count + np.cumsum(counts))
        hash_count += len(chunk)
        start = stop
    empty = np.zeros(0, np.uint64)
    return ShingleSets(np.concatenate(hashes) if hashes else empty, np.concatenate(starts))


def _words(raw: Array, offsets: Array) -> tuple[Array, Array]:
    """Return word hashes and the number of words of each text of a block of bytes."""
    bounds = offsets - offsets[0]
    kinds = _kinds()[raw]
    edges = np.empty(len(raw) + 1, bool)
    edges[0] = edges[-1] = True
    np.not_equal(kinds[1:], kinds[:-1], out=edges[1:-1]) if len(raw) else None
    # A text ends a word, even if the next text begins with a letter.
    edges[bounds] = True
    cuts = np.flatnonzero(edges)
    begins, ends = cuts[:-1], cuts[1:]
    is_word = kinds[begins] if len(raw) else np.zeros(0, bool)
    begins, ends = begins[is_word], ends[is_word]
    powers, inverses = _powers(len(raw))
    sums = np.zeros(len(raw) + 1, np.uint64)
    # +1, so that a byte of zero counts; uint64 wraps modulo 2^64, which the inverse relies on.
    np.cumsum((raw + np.uint64(1)) * powers, out=sums[1:])
    # Multiplication by the inverse power makes the hash independent of the word's position. Low
    # bits of a polynomial hash are weak, so they are mixed.
    hashes = mix_bits((sums[ends] - sums[begins]) * inverses[begins])
    counts = np.diff(np.searchsorted(begins, bounds))
    return hashes, counts


def _shingles(word_hashes: Array, counts: Array, size: int) -> tuple[Array, Array]:
    """Return shingles of `size` words, in the order of the texts."""
    starts = np.concatenate([[0], np.cumsum(counts)])
    hashes = np.zeros(len(word_hashes), np.uint64)
    place = np.arange(len(word_hashes)) - np.repeat(starts[:-1], counts)
    words_left = np.repeat(counts, counts) - place
    padded = np.concatenate([word_hashes, np.zeros(size, np.uint64)])
    for step in range(size):
        inside = words_left > step
        hashes[inside] = (
            hashes[inside] * np.uint64(_STEP) + padded[step : step + len(word_hashes)][inside]
        )
    # A text shorter than a shingle is one shingle of all its words; else such texts would be in no
    # cluster.
    is_start = (words_left >= size) | (place == 0)
    return mix_bits(hashes[is_start]), np.where(
        counts >= size, counts - size + 1, np.minimum(counts, 1)
    )


def mix_bits(values: Array) -> Array:
    """Spread the bits of 64-bit numbers (the finish of SplitMix64)."""
    bits: Array = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return bits


@functools.cache
def _kinds() -> Array:
    """Whether a byte belongs to a word."""
    table = np.zeros(256, bool)
    table[128:] = True
    for low, high in (("0", "9"), ("a", "z"), ("A", "Z")):
        table[ord(low) : ord(high) + 1] = True
    return table


_TABLES: dict[str, tuple[Array, Array]] = {}


def _powers(count: int) -> tuple[Array, Array]:
    """Powers of the base and of its inverse, modulo 2^64."""
    # Grown on demand and cached: a text longer than the table needs a longer one.
    tables = _TABLES.get("powers")
    if tables is None or len(tables[0]) <= count:
        size = max(count + 1, _BLOCK_BYTES + 1)
        pair = []
        for base in (BASE, _INVERSE):
            powers = np.full(size, base, np.uint64)
            powers[0] = 1
            pair.append(np.cumprod(powers, dtype=np.uint64))
        _TABLES["powers"] = tables = (pair[0], pair[1])
    return tables[0][:count], tables[1]


def distinct_hashes(sets: ShingleSets) -> ShingleSets:
    """Return each text's distinct hashes in order."""
    owner = np.repeat(np.arange(len(sets)), sets.lengths)
    order = np.lexsort((sets.hashes, owner))
    hashes, owner = sets.hashes[order], owner[order]
    is_new = np.ones(len(hashes), bool)
    is_new[1:] = (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1])
    counts = np.bincount(owner[is_new], minlength=len(sets))
    return ShingleSets(hashes[is_new], np.concatenate([[0], np.cumsum(counts)]))
