"""The lake against a list (tests/store/test_lake_model.py): sequences of forty steps, seeded.

Rows and refs are compared after every third step and, whole, at the end of each sequence.
"""

from __future__ import annotations

import hypothesis.core
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.lake_model import LakeMachine
from tests.torture.case import Case, Row

EACH, STEPS, SPARED = 10, 40, 3


def asked(machine: LakeMachine, step: int) -> None:
    """Ask for the events of one type, or with one id: the quick way to few of them."""
    kind, ident = "abc"[step % 3], "xyzw"[step % 4]
    rows = machine.branches[machine.acting.branch_name].now.all
    query, wanted = (
        (f"type = '{kind}'", sum(n for row, n in rows.items() if row[0] == kind))
        if step % 2
        else (f"id = '{ident}'", sum(n for row, n in rows.items() if row[1] == ident))
    )
    found = machine.acting.sql(f"SELECT type FROM events WHERE {query}").fetchall()
    assert len(found) == wanted, f"{len(found)} events with {query}, not {wanted}"


def sequences(case: Case) -> None:
    """Play some sequences, each compared with the model after every step."""
    case.patch.setattr(hypothesis.core, "global_force_seed", case.start)
    played, steps = [0], [0]

    class Counted(LakeMachine):
        """Counts what is played."""

        def check_invariants(self, *args: object, **kwargs: object) -> None:
            """Compare now and then, and count."""
            steps[0] += 1
            self.step = getattr(self, "step", 0) + 1
            if self.step % SPARED == 0:
                super().check_invariants(*args, **kwargs)  # type: ignore[misc]
                asked(self, self.step)

        def teardown(self) -> None:
            """Compare once more, and count."""
            super().teardown()
            played[0] += 1

    run_state_machine_as_test(
        Counted,
        settings=settings(
            max_examples=case.some(EACH),
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=False,
            database=None,
            print_blob=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    case.tally.notes["steps"] += steps[0]
    case.verified(steps[0], played[0])


ROWS = [Row("sequence", "sequences of 40 steps", 1000, 10_000, 120, sequences)]
