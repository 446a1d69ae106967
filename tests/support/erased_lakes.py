"""Lakes in which every second event is of a subject that will be erased."""

from __future__ import annotations

from pathlib import Path

from lakelog.lake import Lake
from tests.support import erasure_histories as histories

ADA, WORD = "ada-3f9k2m", "secret-8x4q7t"
SETTINGS = {"seal": "never"}


def add(lake: Lake, first: int, count: int = 4) -> None:
    """Seal events of which every second one is ADA's."""
    for n in range(first, first + count):
        is_hers = n % 2 == 0
        lake.append(
            {
                "type": "A",
                "subject": ADA if is_hers else f"u{n}",
                "message": f"{WORD} {n}" if is_hers else f"number {n}",
            }
        )
    lake.settle()


def found(root: Path) -> list[str]:
    """The files below a directory that have a word of ADA's."""
    return histories.places_with(root, [ADA, WORD])
