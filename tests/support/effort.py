"""How much of the tests is run, by the environment.

LAKELOG_MATRIX        a test that repeats itself plays a sixteenth; `all`, as `make torture` sets
                      it, plays all of it, and 1 to 15 another sixteenth of the matrices and of
                      what is marked thorough; paths, all cases of these and the usual part of
                      the others
LAKELOG_TEST_SLOW     in how many parts the slow tests are played, one with each commit: 8 in a run
                      of all tests, and 1, which is all of them, where paths are given; `3/8` is
                      the part with number 3, of 0 to 7
LAKELOG_TEST_SAMPLE   one test of so many, always the same ones
LAKELOG_TEST_FIRST    paths whose tests run first, all of them whatever the sample
LAKELOG_TEST_SECONDS  no test begins later than this many seconds after the first
LAKELOG_TEST_PATIENCE how many times longer than on an idle machine a test may take
"""

from __future__ import annotations

import os
import subprocess
import time
import tomllib
from typing import NamedTuple
from zlib import crc32

from tests.support.tree import ROOT

_PARTS, _LEAST = 16, 3
_CHOICE = os.environ.get("LAKELOG_MATRIX", "0")
IS_WHOLE = _CHOICE == "all"
_WHOLE_PATHS = tuple(_CHOICE.split(os.pathsep)) if "/" in _CHOICE else ()
_PART = 0 if IS_WHOLE or _WHOLE_PATHS else int(_CHOICE)


def share(count: int, parts: int = _PARTS) -> int:
    """Return how many of `count` kills, examples or rounds to play: a sixteenth, or one of so many
    parts; at least three."""
    return count if IS_WHOLE else max(count // parts, min(count, _LEAST))


def is_played(case: str) -> bool:
    """Whether a case of a matrix of faults belongs to the part that is played."""
    return _is_whole(case) or crc32(case.encode()) % _PARTS == _PART


def _is_whole(case: str) -> bool:
    return IS_WHOLE or case.startswith(_WHOLE_PATHS)


SLOW, NOTICED = ROOT / "tests/slow.txt", ROOT / "tests/torture/noticed.toml"
SLOW_PARTS = 8


class SlowPart(NamedTuple):
    """One of so many parts of the slow tests, numbered from 0."""

    number: int
    count: int

    def has(self, case: str) -> bool:
        """Whether a case of a slow test belongs to this part, or is always played."""
        return _is_whole(case) or crc32(case.encode()) % self.count == self.number


def noticed() -> dict[str, str]:
    """Return the test that noticed each planted bug when tests/support/planting.py played them
    last."""
    return tomllib.loads(NOTICED.read_text())


def slow_tests() -> frozenset[str]:
    """Return the tests that take most of the time of a run of all, without their cases, as
    tests/support/slow.py has listed them; but what notices a planted bug is played always."""
    always = {name.partition("[")[0] for name in noticed().values()}
    return frozenset(SLOW.read_text().split()) - always


def slow_part(*, is_run_of_all: bool) -> SlowPart:
    """Return which part of the slow tests is played: where none is asked for another one with each
    commit, so that as many commits as there are parts play all."""
    choice = os.environ.get("LAKELOG_TEST_SLOW") or str(SLOW_PARTS if is_run_of_all else 1)
    number, _, count = choice.rpartition("/")
    parts = 1 if IS_WHOLE else int(count)
    return SlowPart((int(number) if number else _commits()) % parts, parts)


def _commits() -> int:
    """How many commits there are; 0 where that cannot be known."""
    command = ["git", "rev-list", "--count", "HEAD"]
    try:
        counted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return 0
    return int(counted.stdout)


SAMPLE = int(os.environ.get("LAKELOG_TEST_SAMPLE", "1"))
FIRST = tuple(filter(None, os.environ.get("LAKELOG_TEST_FIRST", "").split(os.pathsep)))
SECONDS = float(os.environ.get("LAKELOG_TEST_SECONDS", "inf"))
LIMIT, LONGEST = 10, 150
"""Seconds that a test may take on an idle machine; those of LONG."""
PATIENCE = float(os.environ.get("LAKELOG_TEST_PATIENCE", "4"))
LONG = """
    tests/backup/test_delete_originals.py::test_kill_9_while_logs_rotate
    tests/benchmarks/test_bench_peers.py::test_every_part_runs_and_is_kept
    tests/benchmarks/test_bench_smoke.py::test_a_benchmark_gives_rows_with_figures
    tests/benchmarks/test_bench_smoke.py::test_the_benchmarks_of_views_run
    tests/benchmarks/test_bench_smoke.py::test_the_table_of_claims_runs
    tests/cli/test_cli.py::test_demo_takes_the_whole_tour
    tests/dataframes/test_engines.py::test_clusters_have_the_rows_of_a_state
    tests/format/test_format_moves.py::test_thinning_may_die_at_every_step
    tests/notebook/test_magics.py::test_magics_in_a_shell
    tests/notebook/test_notebooks.py::test_shows_what_is_committed
    tests/state/test_state_faults.py::test_bombs_are_refused_in_bounded_memory
    tests/store/test_crash_recovery.py::test_killed_writers_lose_and_double_nothing
    tests/store/test_lake_model.py::TestLakeAgainstAList::runTest
    tests/store/test_protocol_planted.py::test_a_planted_bug_is_found
    tests/store/test_protocol_power_cuts.py::test_acknowledged_appends_are_durable_across_power_cuts
    tests/store/test_protocol_schedule.py::test_every_schedule_keeps_the_promises
    tests/store/test_surroundings.py::test_a_lake_that_nobody_closed_frees_its_descriptors
    tests/sync/test_full_disk.py::
    tests/test_architecture.py::test_the_tree_keeps_the_laws
    tests/test_readme.py::
    tests/torture/
    tests/train/test_train_hostile_sets.py::
    tests/test_typed_api.py::
    tests/test_packaging.py::
""".split()
"""Tests that take longer, by the beginnings of their names."""
_STARTED: list[float] = []


def is_first(case: str) -> bool:
    """Whether a test is of the paths that were asked for."""
    return case.startswith(FIRST) if FIRST else False


def is_sampled(case: str) -> bool:
    """Whether a test is in the sample, or of the paths that were asked for."""
    return is_first(case) or crc32(case.encode()) % SAMPLE == 0


def is_over() -> bool:
    """Whether the seconds are over; they count from the first time that this is asked."""
    now = time.monotonic()
    if not _STARTED:
        _STARTED.append(now)
    return now - _STARTED[0] > SECONDS


def limit(case: str, *, is_long: bool) -> float:
    """Return after how many seconds a test is ended."""
    is_long = is_long or _is_whole(case) or case.startswith(tuple(LONG))
    return (LONGEST if is_long else LIMIT) * PATIENCE
