"""Lines of containers in pieces: a stream is open after a piece until its last one."""

from __future__ import annotations

from typing import Any

from lakelog.libraries import np


def open_after(is_piece: Any, streams: tuple[Any, ...]) -> Any:
    """A mask of the lines after which a stream is open: its last line so far is one of `pieces`.

    Masks over the same lines; `streams` has one mask for each stream.
    """
    mask = np.zeros(len(is_piece), dtype=bool)
    for stream in streams:
        previous = np.maximum.accumulate(np.where(stream, np.arange(len(is_piece)), -1))
        mask |= (previous >= 0) & is_piece[previous]
    return mask
