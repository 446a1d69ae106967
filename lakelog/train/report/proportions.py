"""Whether splits have the sizes that the recipe asks for.

A recipe's parts are met on average over groups: one large group, few groups, a temporal cutoff, or
duplicates that have to be on one side move the sizes. The export goes on, and says so.
"""

from __future__ import annotations

from typing import Any

from lakelog.train.recipe import SIDES

_TOLERANCE = 0.5
"""By how much of its own part a split may miss it."""
_ROWS = 10
"""A split that misses its part by fewer rows is not worth a warning."""


def warnings(manifest: dict[str, Any]) -> list[str]:
    """Return a sentence for each split whose size is far from its part in the recipe."""
    splits, split = manifest["splits"], manifest["recipe"]["split"]
    if split["before"] is not None and split["group"] is None:
        # The cutoff alone decides what is in test; parts are those of the rows before it.
        splits = {side: s for side, s in splits.items() if side != "test"}
    asked = {side: split[side] for side in SIDES if side in splits and split[side] > 0}
    rows = sum(splits[side]["rows"] for side in asked)
    whole = sum(asked.values())
    lopsided = []
    for side, part in asked.items():
        wanted, actual = part / whole * rows, splits[side]["rows"]
        if abs(actual - wanted) > max(_TOLERANCE * wanted, _ROWS):
            lopsided.append(
                f"{side} has {actual:,} of {rows:,} rows ({_percent(actual / rows)}); the recipe"
                f" asks for {_percent(part / whole)}: {_cause(split)}"
            )
    return lopsided


def _percent(part: float) -> str:
    return f"{part:.1%}".replace(".0%", "%")


def _cause(split: dict[str, Any]) -> str:
    """What may have moved the sizes, and what to do about it."""
    if split["before"] is not None and split["group"] is not None:
        return "rows on the wrong side of the cutoff are left out; move [split] before"
    if split["group"] is not None:
        return f"groups of {split['group']} differ in size, or are few; choose a finer group"
    return "many rows are duplicates, or there are few rows"
