"""A hundred files that look alike: they stay equal for a while, grow apart, are rotated, packed."""

from __future__ import annotations

from lakelog.audit.audit import audit
from lakelog.collect import watch
from tests.support import lakes
from tests.support.lookalike_files import Workers, play
from tests.support.world import warm_engine
from tests.torture.case import Case, Row


def lookalikes(case: Case) -> None:
    """Play a history of files that begin alike; require each line as often as it was written."""
    warm_engine(case.patch)
    case.patch.setattr(watch, "STABLE", -1.0)
    with lakes.opened(str(case.place / "lake")) as lake:
        workers = Workers(case.place / "logs", lake)
        play(workers, case.dice, case.some(100), 12)
        workers.close()
        proof = audit(lake.store, lake.branch_name, lake.engine, [str(workers.root)])
        assert not proof.wrong, "the audit finds something wrong"
        assert not proof.failed, "the audit could not read something"
    case.tally.notes["lines"] += workers.written.total()
    case.verified(len(list(workers.root.iterdir())))


ROWS = [Row("alike", "look-alike files, exact", 20, 300, 12, lookalikes)]
