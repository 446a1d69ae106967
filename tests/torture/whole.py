"""Row whole: random histories through all entrances and operations at once, beside a model."""

from __future__ import annotations

from tests.support import whole_history
from tests.torture.case import Case, Row

STEPS = 40


def whole(case: Case) -> None:
    """Play a history; ask one question after each step, all at the end."""
    steps = whole_history.check(case.place, case.start, case.patch, case.some(STEPS))
    case.tally.notes["steps"] += len(steps)
    case.verified()


ROWS = [Row("whole", "lives by all entrances", 200, 3000, 60, whole)]
