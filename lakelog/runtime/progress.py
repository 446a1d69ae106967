"""How a long job reports how far it is."""

from __future__ import annotations

from typing import Protocol


class ProgressCallback(Protocol):
    """Receives the units that are done and how many there are; a total of 0 means unknown."""

    def __call__(self, count: int, total: int, /) -> None:
        """Report once more."""
