"""Which words stand side by side: a Bloom filter of the joined words of a part.

Words are joined as in `order_12`, `10.0.3.7` and `a/b` (`Words.joints`): each of them may be
in many blocks of a part, and both side by side in none. The filter has pairs of words, by their
numbers in the dictionary of the part.

    byte      1 if words that are both of digits are left out, or 0
    bits      low bit first; each pair sets three as in `bloom`, by the hash of first word << 22 |
              second word, mixed as by SplitMix64

Pairs of a word in fewer than 4 blocks are left out: the word itself tells nearly as much. A filter
of no bytes knows nothing. The size follows A. Broder, M. Mitzenmacher, "Network Applications of
Bloom Filters" (2004): with 6 bits a pair one of 16 that are not there seems to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from lakelog import arrays, bloom
from lakelog.libraries import np, pc

LEAST_BLOCKS = 4
"""Of words in fewer blocks the filter has nothing."""
_BITS, _PROBES, _MOST = 6, 3, 0.75
"""Bits of a pair and how many of the filter it sets; the most bytes of a filter for each row."""
_MASK = (1 << 64) - 1
_WORD_BITS = 22
_STEPS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_ALL, _WITH_LETTERS = 0, 1
PairKey = TypeVar("PairKey", "int", "np.ndarray")  # as texts: NumPy is loaded when it is needed


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
            bits = bloom.fill(_mixed(keys.astype(np.uint64)), 8 * size, _PROBES)
            return bytes((scope,)) + np.packbits(bits, bitorder="little").tobytes()
    return b""


def may_be_joined(content: bytes, initial: int, following: int) -> bool:
    """Whether a filter that knows something says that two words may be joined."""
    mixed = _mixed(initial << _WORD_BITS | following)
    return bloom.holds(content, 1, 8 * (len(content) - 1), mixed, _PROBES)


def _mixed(key: PairKey) -> PairKey:
    """Return the hash of a key, or of an array of them as unsigned."""
    for shift, factor in _STEPS:
        key = (key ^ key >> shift) * factor & _MASK
    mixed: PairKey = key ^ key >> 31
    return mixed


def knows_numbers(content: bytes) -> bool:
    """Whether a filter that knows something has also pairs of words that are both of digits."""
    return content[0] == _ALL
