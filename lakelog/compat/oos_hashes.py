"""Hashes of 64 bits that tell items apart, of many texts at once.

The eight-byte words of a text are mixed each by itself and added up, so that a text has the same
hash whatever it is padded to. The key is this process's own: nobody can make items that collide.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from lakelog.runtime.lazy import Lazy
from lakelog.segments import arrays

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    np = Lazy("numpy")
    pa = Lazy("pyarrow")
    pc = Lazy("pyarrow.compute")

_WIDTH = 64
"""Longer texts are hashed by Python: padding all to the longest could take any memory."""
_MIX = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53
"""Multipliers of MurmurHash3's last step, by A. Appleby, 2011."""


def hashes(texts: pa.Array) -> np.ndarray:
    """Return a u64 of each text; a null has that of the empty text."""
    if texts.null_count:
        found = np.repeat(hashes(arrays.texts([""])), len(texts))
        found[arrays.truths(texts.is_valid())] = hashes(texts.drop_null())
        return found
    raw = texts.cast(pa.large_binary())
    lengths = arrays.numbers(pc.binary_length(raw))
    widest = int(lengths.max(initial=0))
    if widest <= _WIDTH:
        return _of_words(raw, lengths, widest)
    found = np.empty(len(raw), np.uint64)
    is_long = lengths > _WIDTH
    long, short = (raw.filter(arrays.mask(mask)) for mask in (is_long, ~is_long))
    found[is_long] = np.fromiter(map(hash, long.to_pylist()), np.int64, len(long)).view(np.uint64)
    found[~is_long] = _of_words(short, lengths[~is_long], _WIDTH)
    return found


def _of_words(raw: pa.LargeBinaryArray, lengths: np.ndarray, widest: int) -> np.ndarray:
    """Return the hashes of texts, none of which is longer than `widest` bytes."""
    width = -(-widest // 8)
    # Padded to one width, all texts are one matrix of words.
    even = pc.ascii_rpad(raw.view(pa.large_string()), width * 8, padding="\0")
    start = int(np.frombuffer(even.buffers()[1], np.int64)[even.offset]) if len(raw) else 0
    words = np.frombuffer(even.buffers()[2] or b"", "<u8", len(raw) * width, start)
    keys = _keys()
    # The length goes in as well, so that padding is told from zeros.
    found = _mixed(lengths.astype(np.uint64) ^ keys[-1])
    for word, key in zip(words.reshape(len(raw), width).T, keys, strict=False):
        # Less what padding adds, so that any number of words of it adds nothing.
        found += _mixed(word ^ key) - _mixed(key.reshape(1))
    return found


def _mixed(words: np.ndarray) -> np.ndarray:
    """Mix each word, of an array of the caller's that is changed."""
    for factor in _MIX:
        words = words ^ (words >> np.uint64(33))
        words *= np.uint64(factor)
    words ^= words >> np.uint64(33)
    return words


@functools.cache
def _keys() -> np.ndarray:
    """What the words of each place are mixed with, and the length."""
    return np.frombuffer(os.urandom(_WIDTH + 8), np.uint64)
