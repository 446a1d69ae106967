"""The shape of a series, and a share, as a few characters of one line."""

from __future__ import annotations

import math
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the shape of a series in one line, of its last values where there are more than
    `width`; a value that is missing is a space."""
    latest = list(values)[-width:]
    present = [value for value in latest if math.isfinite(value)]
    low, high = (min(present), max(present)) if present else (0.0, 0.0)
    steps = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(
        BARS[round((value - low) * steps)] if math.isfinite(value) else " " for value in latest
    )


def meter(share: float, width: int) -> str:
    """Return a bar of a share from 0 to 1, by eighths of a character."""
    eighths = round(max(0.0, min(share, 1.0)) * width * 8)
    full, remainder = divmod(eighths, 8)
    return ("█" * full + _EIGHTHS[remainder].strip()).ljust(width)
