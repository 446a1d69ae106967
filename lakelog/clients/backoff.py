"""How long to wait for a server before the next attempt."""

from __future__ import annotations

import random

_FIRST, _LONGEST = 0.05, 2.0


def pause(attempt: int) -> float:
    """Return the seconds to wait after the nth attempt in a row that failed, from 1 on.

    They double from 0.05 to 2, each shortened by chance to half of it at most, so that clients that
    lost one server do not come back at once.
    """
    return min(_LONGEST, _FIRST * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1)
