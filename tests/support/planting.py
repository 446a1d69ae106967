"""Whether the tests that `make test` runs notice the bugs of `make torture`.

    python -m tests.support.planting [--bugs N,N-N] [--seconds N] [--record] [PATH...]

Each bug of tests/torture/mutants.py is planted in a fork of a process that has collected the tests.
It runs the test that noticed the bug before (tests/torture/noticed.toml), those of the packages
where the bug is, then all others, and ends with its first failure, unless that test fails without
the bug, too. `--record` keeps which test noticed which bug. A bug is planted in that process and
its forks, not in programs that tests start.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support.effort import NOTICED, noticed
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
    "erasure": [
        "tests/erasure/",
        "tests/protect/",
        "tests/format/test_format_erasure.py",
        "tests/train/test_train_erased.py",
    ],
    "sequence": ["tests/store/", "tests/maintain/", "tests/query/"],
}
"""Where the tests are that will notice, by row of the torture; else in tests/store/."""
PROCESSES = os.cpu_count() or 1


class Planting:
    """A plugin that runs the collected tests once for each bug."""

    def __init__(self, bugs: list[int], seconds: float) -> None:
        self._bugs, self._seconds = bugs, seconds
        self.noticed = dict[str, str]()
        self._before = noticed()
        self._failed, self._flawed = "", set[str]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember the first failure."""
        self._failed = self._failed or (report.nodeid if report.failed else "")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Play every bug, as many at once as there are cores; print a line for each."""
        left, running = [*reversed(self._bugs)], dict[int, tuple[int, int, float]]()
        while left or running:
            while left and len(running) < PROCESSES:
                number = left.pop()
                child, reading = self._fork(session, number)
                running[child] = number, reading, time.monotonic()
            child, _ = os.wait()
            if child in running:
                number, reading, began = running.pop(child)
                test = _answer(reading)
                if test and self._fails_without(test, session):
                    self._flawed.add(test)
                    left.append(number)
                else:
                    self._say(number, test, began)
        return True

    def _fails_without(self, test: str, session: pytest.Session) -> bool:
        child, reading = self._fork(session, None, test)
        os.waitpid(child, 0)
        return bool(_answer(reading))

    def _fork(self, session: pytest.Session, number: int | None, test: str = "") -> tuple[int, int]:
        """Play tests, or one of them, with a bug; return the process, and what tells its answer."""
        reading, writing = os.pipe()
        child = os.fork()
        if child:
            os.close(writing)
            return child, reading
        os.close(reading)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        answer = "not played to its end"
        try:
            items = [item for item in session.items if item.nodeid not in self._flawed]
            if number is not None:
                MUTANTS[number].plant(pytest.MonkeyPatch())
                near = tuple(NEAR.get(MUTANTS[number].row, ["tests/store/"]))
                before = self._before.get(MUTANTS[number].what, "no test")
                # The nearest first; what plays the bugs itself is no judge of them.
                items.sort(key=lambda i: not i.nodeid.startswith(near))
                items.sort(key=lambda i: not i.nodeid.startswith(before))
                items = [i for i in items if "planted" not in i.nodeid.partition("[")[0]]
            # The threads of Polars begin when it is imported, and a fork has none of them.
            items = [i for i in items if "polars" not in i.path.read_text()]
            answer = self._first_failure([i for i in items if test in ("", i.nodeid)])
        finally:
            os.write(writing, answer.encode())
            os._exit(0)

    def _first_failure(self, items: list[pytest.Item]) -> str:
        until = time.monotonic() + self._seconds
        for item, after in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if self._failed or time.monotonic() > until:
                break
        return self._failed

    def _say(self, number: int, test: str, began: float) -> None:
        seconds, what = time.monotonic() - began, MUTANTS[number].what
        if test:
            self.noticed[what] = test
        print(f"{number:3} {what}: {test or 'NOT NOTICED'} ({seconds:.0f} s)", flush=True)


def _answer(reading: int) -> str:
    """What a process that has ended wrote; those that it left behind may hold the pipe open."""
    os.set_blocking(reading, False)
    try:
        return os.read(reading, 65_536).decode()
    except BlockingIOError:
        return ""
    finally:
        os.close(reading)


def numbers(text: str) -> Iterator[int]:
    """Read a list such as `1,4-7`; "" is every bug."""
    for part in text.split(",") if text else [f"0-{len(MUTANTS) - 1}"]:
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def record(news: dict[str, str]) -> None:
    """Keep which test noticed which bug, beside what is known of the others."""
    known = noticed() | news
    lines = [
        f"{json.dumps(m.what)} = {json.dumps(known[m.what])}\n" for m in MUTANTS if m.what in known
    ]
    NOTICED.write_text("".join(lines))


def main() -> int:
    """Print a line for each bug, and how many are noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bugs", default="")
    parser.add_argument("--seconds", type=float, default=1200, help="for each bug")
    parser.add_argument("--record", action="store_true", help="keep which test noticed which bug")
    parser.add_argument("paths", nargs="*")
    given = parser.parse_args()
    plugin = Planting([*numbers(given.bugs)], given.seconds)
    code = pytest.main(["-q", "-p", "no:xdist", "--capture=no", *given.paths], plugins=[plugin])
    if given.record:
        record(plugin.noticed)
    print(f"{len(plugin.noticed)} of {len([*numbers(given.bugs)])} planted bugs are noticed")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
