"""What the message of a merge move says to programs (FORMAT.md F7.14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lakelog.refs.ref import Move

_NOTE = re.compile(
    r"(\d+) events from (\d+) on came.*; move (\d+) of generation (\d+), state (\w+)$"
)


@dataclass(frozen=True)
class MergeNote:
    """A merge: `count` events with the numbers from `first` on came, and the state `snapshot` of
    the move `number` at the remote, when its branch had that `generation`."""

    first: int
    count: int
    number: int
    generation: int
    snapshot: str

    def message(self, name: str, duplicates: int) -> str:
        """Return the message of the move that merges `name`, of which so many are `duplicates`."""
        come = f"{self.count} events from {self.first} on came" + (
            f", {duplicates} known" * bool(duplicates)
        )
        place = f"move {self.number} of generation {self.generation}, state {self.snapshot}"
        return f"{name}: {come}; {place}"

    @classmethod
    def of(cls, move: Move) -> MergeNote | None:
        """Return what a move says of a merge, None if it is none."""
        match = _NOTE.search(move.message) if move.op == "merge" else None
        if match is None:
            return None
        count, first, number, generation = (int(match[group]) for group in range(1, 5))
        return cls(first, count, number, generation, match[5])
