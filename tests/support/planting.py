"""Whether the tests that `make test` runs notice the bugs of `make torture`.

    python -m tests.support.planting [--bugs N,N-N] [--seconds N] [PATH...]

Each bug of tests/torture/mutants.py is planted in a fork of a process that has collected the tests.
It runs the tests of the packages where the bug is, then all others, and ends with its first
failure. A bug is planted in that process and its forks, not in programs that tests start.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator

import pytest

from tests.torture.mutants import MUTANTS

NEAR = {
    "repair": ["tests/maintain/"],
    "corrupt": ["tests/maintain/", "tests/format/"],
    "ingest": ["tests/ingest/", "tests/collect/"],
    "fuzz": ["tests/ingest/"],
    "watch": ["tests/collect/", "tests/files/"],
    "identity": ["tests/collect/", "tests/files/", "tests/ingest/"],
    "feed": ["tests/ingest/"],
    "views": ["tests/views/"],
    "sequence": ["tests/store/", "tests/maintain/", "tests/query/"],
}
"""Where the tests are that will notice, by row of the torture; else in tests/store/."""
PROCESSES = os.cpu_count() or 1


class Planting:
    """A plugin that runs the collected tests once for each bug."""

    def __init__(self, bugs: list[int], seconds: float) -> None:
        self._bugs, self._seconds = bugs, seconds
        self.noticed = 0
        self._failed = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember the first failure."""
        self._failed = self._failed or (report.nodeid if report.failed else "")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Play every bug, as many at once as there are cores; print a line for each."""
        left, running = iter(self._bugs), dict[int, tuple[int, int, float]]()
        while True:
            for number in left:
                running |= self._start(number, session)
                if len(running) == PROCESSES:
                    break
            if not running:
                return True
            child, _ = os.wait()
            if child in running:
                self._say(*running.pop(child))

    def _start(self, number: int, session: pytest.Session) -> dict[int, tuple[int, int, float]]:
        reading, writing = os.pipe()
        child = os.fork()
        if child:
            os.close(writing)
            return {child: (number, reading, time.monotonic())}
        os.close(reading)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        answer = "not played to its end"
        try:
            answer = self._first_failure(number, session)
        finally:
            os.write(writing, answer.encode())
            os._exit(0)

    def _first_failure(self, number: int, session: pytest.Session) -> str:
        MUTANTS[number].plant(pytest.MonkeyPatch())
        near = tuple(NEAR.get(MUTANTS[number].row, ["tests/store/"]))
        # The nearest first; what plays the bugs itself is no judge of them.
        items = sorted(session.items, key=lambda item: not item.nodeid.startswith(near))
        items = [item for item in items if "planted" not in item.nodeid.partition("[")[0]]
        until = time.monotonic() + self._seconds
        for item, after in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if self._failed or time.monotonic() > until:
                break
        return self._failed

    def _say(self, number: int, reading: int, began: float) -> None:
        with open(reading) as answer:
            test = answer.read()
        self.noticed += bool(test)
        seconds = time.monotonic() - began
        what = MUTANTS[number].what
        print(f"{number:3} {what}: {test or 'NOT NOTICED'} ({seconds:.0f} s)", flush=True)


def numbers(text: str) -> Iterator[int]:
    """Read a list such as `1,4-7`; "" is every bug."""
    for part in text.split(",") if text else [f"0-{len(MUTANTS) - 1}"]:
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def main() -> int:
    """Print a line for each bug, and how many are noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bugs", default="")
    parser.add_argument("--seconds", type=float, default=1200, help="for each bug")
    parser.add_argument("paths", nargs="*")
    given = parser.parse_args()
    plugin = Planting([*numbers(given.bugs)], given.seconds)
    code = pytest.main(["-q", "-p", "no:xdist", "--capture=no", *given.paths], plugins=[plugin])
    print(f"{plugin.noticed} of {len([*numbers(given.bugs)])} planted bugs are noticed")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
