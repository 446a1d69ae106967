"""Why lakelog is not first in a row: what a profile says, by the row's key or the start of it."""

from __future__ import annotations

REASONS: dict[str, str] = {}


def of(key: str) -> str:
    """The reason for a row: that of the longest start of its key."""
    starts = [start for start in REASONS if key.startswith(start)]
    return REASONS[max(starts, key=len)] if starts else "no profile yet"
