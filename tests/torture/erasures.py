"""Row erasure: random histories of lakes of which a subject is erased, and every byte searched."""

from __future__ import annotations

from tests.support import erasure_histories
from tests.torture.case import Case, Row


def erased(case: Case) -> None:
    """Play a history, erase one of its subjects, and look everywhere."""
    erasure_histories.check(case.place, case.dice.randrange(1 << 30))
    case.verified()


ROWS = [Row("erasure", "subjects erased", 50, 400, 40, erased)]
