"""Random lives of log files, written and rotated in every way, against a ledger of every line."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lakelog.collect import watch
from tests.support import lakes
from tests.support.histories import WAYS, History
from tests.support.world import warm_engine
from tests.torture.case import Case, Row

STEPS = 20
ON_DISK = 4
"""Each so many a history is on the disk, where numbers of inodes are used again, not in memory."""
DISK = "/var/tmp"
"""What is on a disk even where the usual directory for temporary files is in memory."""


def lives(case: Case) -> None:
    """Live through one history, every second time with logs that are all rotated in one way;
    require each line that could be seen, none more often than written, and an audit that agrees."""
    warm_engine(case.patch)
    case.patch.setattr(watch, "STABLE", 0.0)
    case.patch.setattr(watch, "GRACE", 0.0)
    with (
        lakes.opened(str(case.place / "lake")) as lake,
        tempfile.TemporaryDirectory(dir=DISK if case.number % ON_DISK == 3 else case.place) as home,
    ):
        way = WAYS[case.number // 2 % len(WAYS)] if case.number % 2 else ""
        history = History(lake, Path(home) / "logs", case.dice, way)
        history.interrupt(case.patch)
        history.play(STEPS)
        story = "\n".join(history.steps)
        faults = history.faults()
        assert not faults, f"{faults[:5]}\n{story}"
        proof = history.audit()
        assert not proof.wrong, f"the audit says {proof.wrong[:3]}\n{story}"
        assert not proof.failed, f"the audit says {proof.failed[:3]}\n{story}"
        case.tally.notes["lines stored again in doubt"] += history.repeated()
    case.tally.notes["lines"] += len(history.written)
    case.verified(sum(step.strip() in ("kill", "away") for step in history.steps))


ROWS = [Row("identity", "lives of log files", 300, 10_000, 45, lives)]
