"""What several share: ids that come by every way in at once, and one Lake that threads share."""

from __future__ import annotations

from tests.support.identity_machine import History
from tests.support.shared_lake import Crew, interrupt_and_fork
from tests.torture.case import Case, Row

SECONDS = 20.0


def ids(case: Case) -> None:
    """Play a history against the model."""
    History(case.place, case.start, case.patch).play()
    case.verified()


def threads(case: Case) -> None:
    """Let eight threads use one Lake, every other time with forks and signals between."""
    crew = Crew(case.place, case.start)
    crew.run(SECONDS * case.size, interrupt_and_fork if case.number % 2 else None)
    crew.close()
    case.verified(done=sum(crew.calls.values()))


ROWS = [
    Row("ids", "ids by any way in, kept", 150, 2000, 90, ids),
    Row("threads", "threads sharing one lake", 2000, 20_000, 40, threads),
]
