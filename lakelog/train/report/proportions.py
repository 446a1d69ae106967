"""Whether splits have the sizes that the recipe asks for.

Shares are met on average over groups: one large group, few groups, a temporal cutoff, or duplicates
that must share a split shift the sizes. The export succeeds with a warning.
"""

from __future__ import annotations

from lakelog.train.recipe import SPLITS
from lakelog.train.tables import JsonMap

_TOLERANCE = 0.5
"""By how much of its own part a split may miss it."""
_ROWS = 10
"""A split that misses its part by fewer rows is not worth a warning."""


def warnings(manifest: JsonMap) -> list[str]:
    """Return a sentence for each split whose size is far from its part in the recipe."""
    splits, settings = manifest["splits"], manifest["recipe"]["split"]
    if settings["before"] is not None and settings["group"] is None:
        # The cutoff alone decides what is in test; parts are those of the rows before it.
        splits = {split: s for split, s in splits.items() if split != "test"}
    shares = {split: settings[split] for split in SPLITS if split in splits and settings[split] > 0}
    rows = sum(splits[split]["rows"] for split in shares)
    shares_total = sum(shares.values())
    lopsided = []
    for split, share in shares.items():
        target, actual = share / shares_total * rows, splits[split]["rows"]
        if abs(actual - target) > max(_TOLERANCE * target, _ROWS):
            lopsided.append(
                f"{split} has {actual:,} of {rows:,} rows ({_percent(actual / rows)}); the recipe"
                f" asks for {_percent(share / shares_total)}: {_cause(settings)}"
            )
    return lopsided


def _percent(share: float) -> str:
    return f"{share:.1%}".replace(".0%", "%")


def _cause(settings: JsonMap) -> str:
    """What may have moved the sizes, and what to do about it."""
    if settings["before"] is not None and settings["group"] is not None:
        return "rows on the wrong side of the cutoff are left out; move [split] before"
    if settings["group"] is not None:
        return f"groups of {settings['group']} differ in size, or are few; choose a finer group"
    return "many rows are duplicates, or there are few rows"
