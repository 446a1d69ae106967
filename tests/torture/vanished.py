"""Files vanish from lakes or are damaged, with and without a copy: verify, gc and repair judged."""

from __future__ import annotations

from tests.support import vanishing
from tests.support.world import warm_engine
from tests.torture.case import Case, Row


def vanished(case: Case) -> None:
    """Play one life."""
    warm_engine(case.patch)
    case.tally.notes[vanishing.play(case.start, case.place / "life")] += 1
    case.verified()


ROWS = [Row("vanished", "lost files, all noticed", 200, 2000, 30, vanished)]
