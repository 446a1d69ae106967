"""How much of a test that repeats itself is played: a third, or all of it in `make torture`."""

from __future__ import annotations

import os

IS_WHOLE = os.environ.get("LAKELOG_MATRIX") == "all"


def share(count: int) -> int:
    """Return how many of `count` kills, examples or rounds to play: a third, at least one."""
    return count if IS_WHOLE else max(count // 3, 1)
