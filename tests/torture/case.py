"""What a row of the suite is: numbered cases, each decided by (row, seed, number) alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Tally:
    """What was verified: `done` in the row's unit, `fired` faults that really happened."""

    done: int = 0
    fired: int = 0
    skipped: int = 0
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Add up."""
        self.done += other.done
        self.fired += other.fired
        self.skipped += other.skipped
        self.notes += other.notes


@dataclass
class Case:
    """One case being played; it counts in `tally` and raises if something is wrong."""

    row: str
    seed: int
    number: int
    place: Path
    patch: pytest.MonkeyPatch
    size: float = 1.0
    """How much of a case is played: less than 1 in the smoke tests."""
    tally: Tally = field(default_factory=Tally)

    @property
    def dice(self) -> random.Random:
        """Chance, the same whenever the case is played."""
        return random.Random(f"{self.row} {self.seed} {self.number}")

    @property
    def start(self) -> int:
        """A seed of its own for what takes numbers."""
        return self.seed * 1_000_003 + self.number

    def verified(self, fired: int = 1, done: int = 1) -> None:
        """Count what was checked and held."""
        self.tally.done += done
        self.tally.fired += fired

    def some(self, count: int) -> int:
        """A count made smaller in a smoke test."""
        return max(1, round(count * self.size))


@dataclass(frozen=True)
class Row:
    """One line of the table; `target` in ten minutes, `hour` in one, `share` its seconds of ten
    minutes on two cores. `cases` is how many there are if there is an end of them: then all are
    played."""

    name: str
    what: str
    target: int
    hour: int
    share: float
    play: Callable[[Case], None]
    cases: int | None = None
    missing: Callable[[], str] = lambda: ""
    """Says what the machine lacks to play it, "" if nothing."""
    patience: int = 200
    """Seconds after which a case stands still."""
