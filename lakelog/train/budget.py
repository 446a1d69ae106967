"""Fewer rows where a recipe sets a budget; their hashes decide which stay, so it is repeatable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakelog.lazy import Lazy
from lakelog.train.assign import RowTable

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]
else:
    Array = Any
    np = Lazy("numpy")


def balance(rows: RowTable, values: Array) -> None:
    """Keep as many rows of each value, on each side, as the rarest value there has."""
    for side in range(3):
        alive = _shuffled(rows, side)
        found, counts = np.unique(values[alive], return_counts=True)
        if len(found) < 2:
            continue
        order = np.argsort(values[alive], kind="stable")
        place = np.arange(len(alive)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows.drop(alive[order[place >= counts.min()]], "balance")


def limit(rows: RowTable, most_rows: int | None, most_tokens: int | None) -> None:
    """Keep at most so many rows and tokens; every side gives up the same part."""
    total = int((rows.fate >= 0).sum())
    tokens = int(rows.tokens[rows.fate >= 0].sum())
    share = min(
        1.0,
        most_rows / total if most_rows and total else 1.0,
        most_tokens / tokens if most_tokens and tokens else 1.0,
    )
    if share >= 1.0:
        return
    for side in range(3):
        alive = _shuffled(rows, side)
        kept = int(len(alive) * share)
        if most_tokens is not None:
            budget = int(rows.tokens[alive].sum() * share)
            kept = min(kept, int(np.searchsorted(np.cumsum(rows.tokens[alive]), budget, "right")))
        rows.drop(alive[kept:], "budget")


def _shuffled(rows: RowTable, side: int) -> Array:
    """The rows of a side in the order of their hashes."""
    alive = np.flatnonzero(rows.fate == side)
    made: Array = alive[np.lexsort((alive, rows.content[alive, 1]))]
    return made
