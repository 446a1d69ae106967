"""MinHash signatures: of two sets, the part of equal places estimates their Jaccard index.

A place is the smallest of (h xor x) * a modulo 2^32 over the hashes h of a set. Places are cut into
bands; sets that agree on a whole band are candidates. Bands are as long as lets pairs at the
threshold meet in one of them with 99.5 %, for at most 128 places.
"""

from __future__ import annotations

import math

from lakelog.libraries import np
from lakelog.train.arrays import Array
from lakelog.train.tokens import ShingleSets

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
