"""Numbers in sentences: the noun, and the verb after it, agree with the count."""

from __future__ import annotations


def quantity(count: int, noun: str, singular: str = "", plural: str = "") -> str:
    """Return "1 row is there", "2 rows are there": a count, its noun, and what follows.

    `singular` follows a count of one, `plural` any other; without `plural` the same follows both.
    """
    ending = singular if count == 1 or not plural else plural
    return f"{count:,} {noun}{'' if count == 1 else 's'}{f' {ending}' if ending else ''}"
