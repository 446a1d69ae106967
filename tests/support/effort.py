"""How much of a test that repeats itself is played: a fifth, or all of it in `make torture`.

LAKELOG_MATRIX=all plays all of it, and 1 to 4 another fifth of the matrices of faults.
"""

from __future__ import annotations

import os
from zlib import crc32

_PARTS, _LEAST = 5, 3
_CHOICE = os.environ.get("LAKELOG_MATRIX", "0")
IS_WHOLE = _CHOICE == "all"


def share(count: int) -> int:
    """Return how many of `count` kills, examples or rounds to play: a fifth, at least three."""
    return count if IS_WHOLE else max(count // _PARTS, min(count, _LEAST))


def is_played(case: str) -> bool:
    """Whether a case of a matrix of faults belongs to the part that is played."""
    return IS_WHOLE or crc32(case.encode()) % _PARTS == int(_CHOICE)
