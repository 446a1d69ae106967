"""Which words stand side by side: a Bloom filter of the joined words of a part.

Words are joined as in `order_12`, `10.0.3.7` and `a/b` (`tokenization.JOINTS`): each of them may be
in many blocks of a part, and both side by side in none. The filter has pairs of words, by their
numbers in the dictionary of the part.

    byte      1 if words that are both of digits are left out, or 0
    bits      of each pair three: of u = first word << 22 | second word, mixed as by SplitMix64,
              with low and high as the halves of it, those numbered (low + i (high | 1)) mod bits
              for i 0 to 2; bit n is bit n mod 8 of byte n / 8

Pairs of a word in fewer than 4 blocks are left out: the word itself tells nearly as much. A filter
of no bytes knows nothing. The size follows A. Broder, M. Mitzenmacher, "Network Applications of
Bloom Filters" (2004): with 6 bits a pair one of 16 that are not there seems to be.
"""

from __future__ import annotations

from dataclasses import dataclass

from lakelog import arrays
from lakelog.libraries import np, pc

LEAST_BLOCKS = 4
"""Of words in fewer blocks the filter has nothing."""
_BITS, _PROBES, _MOST = 6, 3, 0.75
"""Bits of a pair and how many of the filter it sets; the most bytes of a filter for each row."""
_MASK, _HALF = (1 << 64) - 1, (1 << 32) - 1
_WORD_BITS = 22
_STEPS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_ALL, _WITH_LETTERS = 0, 1


@dataclass(frozen=True)
class JointPairs:
    """Two words, by their numbers in the dictionary, of each place of a part where they are
    joined."""

    initial: np.ndarray
    following: np.ndarray


def encode(
    pairs: JointPairs, block_counts: np.ndarray, is_number: np.ndarray, row_count: int
) -> bytes:
    """Return the filter of a part of so many rows; of each word in how many blocks it is, and
    whether it is of digits alone."""
    is_wide = block_counts >= LEAST_BLOCKS
    is_kept = is_wide[pairs.initial] & is_wide[pairs.following]
    repeated = pairs.initial[is_kept] << _WORD_BITS | pairs.following[is_kept]
    keys = arrays.numbers(pc.unique(arrays.integers(repeated)))
    for scope in (_ALL, _WITH_LETTERS):
        if scope == _WITH_LETTERS:
            initial, following = keys >> _WORD_BITS, keys & (1 << _WORD_BITS) - 1
            keys = keys[~(is_number[initial] & is_number[following])]
        size = max(len(keys) * _BITS // 8, 1)
        if size <= _MOST * row_count:
            return bytes((scope,)) + _bits(keys.astype(np.uint64), size)
    return b""


def _bits(keys: np.ndarray, size: int) -> bytes:
    mixed = keys
    for shift, factor in _STEPS:
        mixed = (mixed ^ mixed >> np.uint64(shift)) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    low, high = mixed & np.uint64(_HALF), mixed >> np.uint64(32) | np.uint64(1)
    bits = np.zeros(8 * size, bool)
    for number in range(_PROBES):
        bits[(low + np.uint64(number) * high) % np.uint64(8 * size)] = True
    return np.packbits(bits, bitorder="little").tobytes()


def may_be_joined(content: bytes, initial: int, following: int) -> bool:
    """Whether a filter that knows something says that two words may be joined."""
    mixed = initial << _WORD_BITS | following
    for shift, factor in _STEPS:
        mixed = (mixed ^ mixed >> shift) * factor & _MASK
    mixed ^= mixed >> 31
    low, high, count = mixed & _HALF, mixed >> 32 | 1, 8 * (len(content) - 1)
    for number in range(_PROBES):
        place = (low + number * high) % count
        if not content[1 + (place >> 3)] >> (place & 7) & 1:
            return False
    return True


def knows_numbers(content: bytes) -> bool:
    """Whether a filter that knows something has also pairs of words that are both of digits."""
    return content[0] == _ALL
