"""How much of the tests is run, by the environment.

LAKELOG_MATRIX        a test that repeats itself plays a fifth; `all`, as `make torture` sets it,
                      plays all of it, and 1 to 4 another fifth of the matrices
LAKELOG_TEST_SAMPLE   one test of so many, always the same ones
LAKELOG_TEST_FIRST    paths whose tests run first, all of them whatever the sample
LAKELOG_TEST_SECONDS  no test begins later than this many seconds after the first
"""

from __future__ import annotations

import os
import time
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


SAMPLE = int(os.environ.get("LAKELOG_TEST_SAMPLE", "1"))
FIRST = tuple(filter(None, os.environ.get("LAKELOG_TEST_FIRST", "").split(os.pathsep)))
SECONDS = float(os.environ.get("LAKELOG_TEST_SECONDS", "inf"))
_STARTED: list[float] = []


def is_first(case: str) -> bool:
    """Whether a test is of the paths that were asked for."""
    return case.startswith(FIRST) if FIRST else False


def is_sampled(case: str) -> bool:
    """Whether a test is in the sample, or of the paths that were asked for."""
    return is_first(case) or crc32(case.encode()) % SAMPLE == 0


def is_over() -> bool:
    """Whether the seconds are over; they count from the first time that this is asked."""
    now = time.monotonic()
    if not _STARTED:
        _STARTED.append(now)
    return now - _STARTED[0] > SECONDS
