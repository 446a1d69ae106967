"""Planted bugs: each row must notice the bugs that are its own, or the row means nothing."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import time

from tests.support import effort
from tests.torture import trace
from tests.torture.case import Case, Row
from tests.torture.mutants import MUTANTS, Mutant
from tests.torture.run import play

PATIENCE = 45
"""Seconds of work in which a bug must be noticed; beside other work that takes longer."""
SLOWED = 5
"""Seconds on the clock for one of work, at most."""
CAUGHT, MISSED, BROKEN = 0, 3, 4


def planted(case: Case) -> None:
    """Plant one bug in a process of its own, and play its row until it is noticed."""
    number = case.number % len(MUTANTS)
    mutant = MUTANTS[number]
    test = effort.noticed().get(mutant.what)
    if mutant.row == "erasure" and test:
        require_noticed(number, test)
        case.tally.notes["by tests"] += 1
        return case.verified()
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = BROKEN
        atexit._clear()  # what the parent has made is the parent's to remove
        try:
            os.dup2(theirs, 2)
            error = noticed(case, mutant)
            os.write(theirs, error.strip().rpartition("\n")[2].encode())
            code = CAUGHT if error else MISSED
        finally:
            sys.stderr.flush()
            with contextlib.suppress(Exception):
                atexit._run_exitfuncs()
            os._exit(code)
    os.close(theirs)
    try:
        with os.fdopen(ours, "rb") as file:
            said = file.read().decode(errors="replace")
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code != MISSED, f"not noticed in {PATIENCE} s by {mutant.row}: {mutant.what}"
    assert code == CAUGHT, f"could not be planted ({code}): {mutant.what}\n{said[-1500:]}"
    for slip in ("NameError", "AttributeError", "TypeError", "SyntaxError"):
        assert slip not in said, f"the plant itself fails: {mutant.what}: {said}"
    if os.environ.get("LAKELOG_DEBUG"):
        print(f"{mutant.what}, by {mutant.row}: {said[-300:]}")
    case.tally.notes[f"by {mutant.row}"] += 1
    case.verified()


def require_noticed(number: int, test: str) -> None:
    """Plant a bug that leaves something at one place of many, where random histories come too
    seldom: the test of that place must fail."""
    command = [sys.executable, "-m", "tests.support.planting", "--bugs", f"{number}", test]
    played = subprocess.run(command, capture_output=True, text=True, check=False)
    said = f"{played.stdout[-500:]}{played.stderr[-1500:]}"
    assert "1 of 1 planted bugs" in played.stdout, f"{MUTANTS[number].what}: {test}: {said}"


def noticed(case: Case, mutant: Mutant) -> str:
    """The error of the first case of the mutant's row that goes wrong, "" if none does in time."""
    # Here: that table has the row of this module, too.
    from tests.torture import rows

    mutant.plant(case.patch)
    case.patch.setattr(trace, "by_strace", lambda *_: None)
    worked, until = time.process_time() + PATIENCE, time.monotonic() + PATIENCE * SLOWED
    number = mutant.first
    while time.process_time() < worked and time.monotonic() < until:
        _, error = play(rows.ROWS[mutant.row], case.seed, number, case.size, PATIENCE)
        if error:
            return error
        number += mutant.step
    return ""


ROWS = [
    Row(
        "planted",
        "planted bugs, all caught",
        len(MUTANTS),
        len(MUTANTS),
        70,
        planted,
        cases=len(MUTANTS),
    )
]
