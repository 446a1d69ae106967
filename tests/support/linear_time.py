"""Whether the time for a line grows with its length alone, however slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable

LENGTH = 20_000
QUICK = 0.05
"""CPU seconds; whatever needs less for a line of that length is quick enough."""


def assert_linear(work: Callable[[str], object], begin: str, sign: str, end: str) -> None:
    """Do the work with a long line and one of a quarter, which goes on with a sign after a good
    beginning: the square of the length would take 16 times as long, what is worse would not end."""

    def seconds(count: int) -> float:
        started = time.process_time()
        work(begin + sign * count + end)
        return time.process_time() - started

    count = LENGTH // len(sign)
    if seconds(count) < QUICK:
        return
    # Whatever else runs slows down single measurements: only what is never linear is not.
    for _ in range(5):
        long, short = (min(seconds(count // share) for _ in range(3)) for share in (1, 4))
        if long < 8 * short:
            return
    raise AssertionError((begin, sign, end))
