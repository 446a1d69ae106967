"""Whether the tests that `make test` runs notice the bugs of `make torture`.

    python -m tests.support.planting [--bugs N,N-N] [PATH...]

Each bug of tests/torture/mutants.py is planted in a run of its own, which ends with its first
failure. A bug is planted in the processes of pytest and not in those that tests start.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time

import pytest

from tests.support.tree import ROOT
from tests.torture.mutants import MUTANTS

VARIABLE = "LAKELOG_PLANTED_BUG"
FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Plant the bug whose number the environment has; this module is a plugin of such a run."""
    patch = pytest.MonkeyPatch()
    MUTANTS[int(os.environ[VARIABLE])].plant(patch)


def first_failure(number: int, paths: list[str]) -> str:
    """Return the first test that fails with a bug, "" if none does."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "2", "-p", __spec__.name, *paths]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, VARIABLE: str(number)}, capture_output=True, text=True
    )
    match = FAILURE.search(done.stdout)
    if done.returncode and not match:
        raise RuntimeError(done.stdout + done.stderr)
    return match[1] if match else ""


def numbers(text: str) -> list[int]:
    """Read a list such as `1,4-7`; "" is every bug."""
    if not text:
        return list(range(len(MUTANTS)))
    ranges = (part.split("-") for part in text.split(","))
    return [n for bounds in ranges for n in range(int(bounds[0]), int(bounds[-1]) + 1)]


def main() -> None:
    """Print a line for each bug, and how many are noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bugs", default="")
    parser.add_argument("paths", nargs="*")
    arguments = parser.parse_args()
    chosen = numbers(arguments.bugs)
    noticed = 0
    for number in chosen:
        started = time.monotonic()
        test = first_failure(number, arguments.paths)
        noticed += bool(test)
        seconds = time.monotonic() - started
        print(
            f"{number:3} {MUTANTS[number].what}: {test or 'NOT NOTICED'} ({seconds:.0f} s)",
            flush=True,
        )
    print(f"{noticed} of {len(chosen)} planted bugs are noticed")


if __name__ == "__main__":
    main()
