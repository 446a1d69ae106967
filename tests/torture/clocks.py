"""Clocks that jump by seconds or years, back and forth, in the middle of a life.

Odd cases run the command under libfaketime, where the machine has it.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import lakelog
from lakelog.disk import disk
from lakelog.errors import LakelogError
from lakelog.store import Clock
from tests.support import lakes
from tests.support.feeds import feed, put
from tests.support.requirements import find, lacking, need
from tests.support.world import warm_engine
from tests.torture.case import Case, Row

YEAR = 31_557_600_000_000
JUMPS = [
    -20 * YEAR,
    -YEAR,
    -3_600_000_000,
    -1,
    1,
    3_600_000_000,
    40 * 3_600_000_000,
    YEAR,
    5 * YEAR,
]
FAKES = ["-3d", "+1y", "-1y", "+1y x10", "-20y", "+0 x100"]


def clocks(case: Case) -> None:
    """Live with a clock that jumps, and stamps files as it goes; nothing is lost, moves stay in
    order."""
    if case.number % 2 and find("faketime"):
        _faked(case)
        return
    if case.number % 2:
        case.tally.skipped += 1
        case.tally.notes[f"SKIPPED: {lacking('faketime')}"] += 1
    warm_engine(case.patch)
    real, shift, dice = disk.now_us, [0], case.dice
    sync = disk.sync_file

    def stamp(fd: int) -> None:
        sync(fd)
        os.utime(fd, ns=(disk.now_us() * 1000, disk.now_us() * 1000))

    case.patch.setattr(disk, "now_us", lambda: real() + shift[0])
    case.patch.setattr(disk, "sync_file", stamp)
    acked: list[str] = []
    with lakes.opened(str(case.place / "lake"), rotate_events=5, history_days=1) as lake:
        for turn in range(case.some(30)):
            shift[0] = dice.choice([0, shift[0], dice.choice(JUMPS)])
            lake.append({"type": "T", "subject": f"e{turn}"})
            acked.append(f"e{turn}")
            _one(case, lake, turn)
    shift[0] = 0
    _holds(case, str(case.place / "lake"), acked)
    case.verified(case.some(30))


def _one(case: Case, lake: lakelog.Lake, turn: int) -> None:
    """Do something else, in its own time."""
    dice = case.dice
    dice.seed(f"{case.seed} {case.number} {turn}")
    verbs = [
        lake.settle,
        lake.compact,
        lake.gc,
        lambda: lake.tag(f"t{turn}"),
        lambda: lake.snapshot(f"s{turn}"),
        lambda: lake.count(),
        lambda: lake.ingest(put(case.place / "f", feed(3 * turn, subject="f"))),
    ]
    dice.choice(verbs)()


def _holds(case: Case, path: str, acked: list[str]) -> None:
    """Open with a good clock: all is there once, in every tag as well, and verifies."""
    with lakelog.open(path, create=False) as lake:
        query = "SELECT subject FROM events WHERE subject LIKE 'e%'"
        assert sorted(n for (n,) in lake.sql(query).fetchall()) == sorted(acked)
        times = [entry.move.time for entry in lake.log()][::-1]
        steps = [after - before for before, after in itertools.pairwise(times)]
        assert all(s > 0 or s < -Clock.AHEAD for s in steps), "moves are not in order of time"
        for tag in lake.store.refs.tags():
            lake.at(tag.name).count()
        lake.append({"type": "ON"})
        lake.settle()
        lake.gc()
        assert not lake.verify().problems


def _faked(case: Case) -> None:
    """Append, seal, tag and collect by commands, each with a time of its own."""
    path, count = str(case.place / "lake"), 0
    for turn in range(case.some(5)):
        event = json.dumps({"type": "T", "subject": f"e{turn}"})
        for words in (["append"], ["snapshot", "-m", f"s{turn}"], ["gc"]):
            fake = case.dice.choice(FAKES)
            command = [need("faketime"), "-f", fake, sys.executable, "-m", "lakelog"]
            done = subprocess.run(
                [*command, "--lake", path, *words],
                input=event + "\n",
                text=True,
                capture_output=True,
                timeout=100,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
            assert done.returncode == 0, f"{words} at {fake}: {done.stderr}"
            count += 1
    with lakelog.open(path, create=False) as lake:
        found = sorted(n for (n,) in lake.sql("SELECT subject FROM events").fetchall())
        assert found == sorted(f"e{turn}" for turn in range(case.some(5)))
        try:
            assert not lake.verify().problems
        except LakelogError as error:
            raise AssertionError(f"after {count} commands: {error}") from error
    case.tally.notes["commands under libfaketime"] += count
    case.verified(count)


ROWS = [Row("clock", "clock jumps, harmless", 60, 250, 10, clocks)]
