"""The torture suite runs: a small part of a case of each row, and what it says of them."""

from __future__ import annotations

import atexit
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.requirements import skip
from tests.torture import report
from tests.torture.__main__ import _say
from tests.torture.case import Case, Row, Tally
from tests.torture.mutants import MUTANTS, Mutant
from tests.torture.rows import ROWS
from tests.torture.run import Finding, Result, Worker, play, run

PATIENCE = 4
"""Seconds that a case may stand still: no other one takes so long, on a busy machine either."""
CASES = {
    "kills": 0,
    "ingest": 0,
    "states": 14,
    "calls": 11,
    "lies": 4,
    "full": 1,
    "corrupt": 3,
    "sealed": 1,
    "schedule": 0,
    "gc": 0,
    "history": 1,
    "sequence": 0,
    "ids": 0,
    "watch": 400,
    "fuzz": 3,
    "clock": 2,
    "leaks": 0,
    "searches": 1,
    "planted": 8,
    "views": 0,
    "repair": 3,
    "vanished": 0,
    "logrotate": 21,
    "forgeries": 0,
    "honestsets": 0,
    "years": 0,
}
"""Of each row that needs neither root nor seconds, the case to play."""
FOUND = [
    ("identity", 902, 318),
    ("identity", 902, 713),
    ("identity", 1201, 7247),
    ("identity", 1501, 2431),
    ("repair", 77, 1),
    ("repair", 5, 22),
]
"""Cases (row, seed, number) that were wrong once, and whose cause has no test of its own."""


@pytest.fixture
def wrong() -> Row:
    """A row whose third case is wrong, and whose cases are all played: else one worker may have
    done enough before the other is there."""

    def third(case: Case) -> None:
        assert case.number != 2, "planted"
        case.verified()

    return Row("wrong", "nothing", 50, 500, 1, third, cases=52)


@pytest.mark.matrix
@pytest.mark.parametrize("name", CASES)
def test_a_case_of_each_row_finds_nothing_wrong(name: str) -> None:
    """A small case of a row verifies something, and finds nothing wrong in this tree."""
    if reason := ROWS[name].missing():
        skip(reason)
    tally, error = play(ROWS[name], 1, CASES[name], size=0.1)
    assert error == ""
    assert tally.done > 0


@pytest.mark.matrix
@pytest.mark.parametrize(("name", "seed", "number"), FOUND)
def test_a_case_that_was_wrong_once_stays_right(name: str, seed: int, number: int) -> None:
    _, error = play(ROWS[name], seed, number)
    assert not error, error


def test_a_wrong_case_is_told_with_its_replay(wrong: Row) -> None:
    """What goes wrong is a finding with seed, commit and the line that plays it again."""
    result = run(wrong, 50, 240, seed=7, jobs=2)
    assert not result.holds
    assert [f.replay for f in result.findings] == [
        "python -m tests.torture wrong --seed 7 --case 2"
    ]
    said = report.findings([result])
    assert "planted" in said
    assert "commit " in said
    assert play(wrong, 7, 2)[1] != ""
    assert play(wrong, 7, 3) == (Tally(1, 1), "")


def _dies(case: Case) -> None:
    if case.number == 4:
        (case.place / "left").write_bytes(b"x")
        os.kill(os.getpid(), signal.SIGKILL)


def _is_ended(case: Case) -> None:
    if case.number == 4:
        os._exit(3)


def _hangs(case: Case) -> None:
    """What a call outside Python does that never returns: no alarm is heard."""
    if case.number == 4:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        if os.fork() == 0:
            time.sleep(600)
        time.sleep(600)


@pytest.mark.matrix
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("harm", "said"),
    [(_dies, "killed with 9"), (_is_ended, "ended with 3"), (_hangs, "stood still")],
)
def test_a_case_whose_process_dies_or_hangs_is_told_and_the_run_goes_on(
    harm: Callable[[Case], None],
    said: str,
    jobs: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed for want of memory, ended or hung: a finding with its replay; the other cases play."""
    # Where other tests that run now have their folders, one of theirs may be left just then.
    monkeypatch.setattr("tests.torture.run.memory", lambda: str(tmp_path))
    monkeypatch.setattr("tests.torture.run.MEMORY", str(tmp_path))

    def play_or_harm(case: Case) -> None:
        harm(case)
        case.verified()

    # All of its cases are played: else one worker may have done enough before the other is there.
    row = Row("harmed", "nothing", 20, 200, 1, play_or_harm, cases=24)
    result = run(row, 20, 240, seed=3, jobs=jobs, patience=PATIENCE)
    (finding,) = result.findings
    assert said in finding.text
    assert finding.replay == "python -m tests.torture harmed --seed 3 --case 4"
    assert result.tally.done >= 20
    assert not list(tmp_path.iterdir())


def test_workers_leave_alone_what_their_parent_does_at_its_end() -> None:
    """A worker whose cases are played ends, whatever the parent registered for its own end."""
    atexit.register(time.sleep, 600)
    try:
        row = Row("n", "nothing", 4, 40, 1, Case.verified, cases=4)
        result = run(row, 4, 240, 3, 2, patience=PATIENCE)
    finally:
        atexit.unregister(time.sleep)
    assert not result.findings
    assert result.tally.done == 4


def test_a_case_that_stands_still_says_where() -> None:
    """A case that is heard no more is ended after its patience, and the line it was at is told."""

    def waits(case: Case) -> None:
        if case.number == 1:
            time.sleep(600)
        case.verified()

    row = Row("waits", "nothing", 5, 50, 1, waits)
    result = run(row, 5, 240, seed=3, jobs=1, patience=PATIENCE)
    (finding,) = result.findings
    assert "time.sleep(600)" in finding.text
    assert finding.number == 1
    assert result.tally.done == 5


def test_a_row_that_fell_short_goes_on_where_it_stopped() -> None:
    """More time plays the cases that were not played, and adds to what was."""
    played = run(Row("n", "nothing", 5, 50, 1, Case.verified), 4, 240, seed=3, jobs=2)
    result = Result(played.row, 9, 3, played.tally, next=played.next)
    assert result.short == 9 - played.tally.done > 0
    seen = os.pipe()

    def tells(case: Case) -> None:
        os.write(seen[1], bytes([case.number]))
        case.verified()

    row = Row("n", "nothing", 5, 50, 1, tells)
    # One worker: of two the other may have done enough before the one with that case is there.
    result.add(run(row, result.short, 240, seed=3, jobs=1, first=result.next))
    assert result.holds
    assert min(os.read(seen[0], 99)) == played.next >= 4


def test_the_table_fits_and_is_kept_as_json(wrong: Row, tmp_path: Path) -> None:
    """The table has a line a row in 80 columns; the file holds figures, replays and the machine."""
    good = Result(wrong, 50, 1, Tally(50, 20, 1))
    bad = Result(wrong, 50, 1, Tally(10), [Finding("wrong", 1, 2, "planted")])
    missing = Result(wrong, 50, 1, skipped="only root may mount")
    lines = report.table([good, bad, missing]).splitlines()
    assert len(lines) == 5
    assert max(map(len, lines)) <= 80
    assert "SKIPPED wrong: only root may mount" in report.notes([good, bad, missing])
    report.save([good, bad], tmp_path / "t.json")
    saved = json.loads((tmp_path / "t.json").read_text())
    assert [row["done"] for row in saved["rows"]] == [50, 10]
    assert saved["rows"][1]["wrong"][0]["replay"].endswith("wrong --seed 1 --case 2")
    assert saved["machine"]["cores"] >= 1


def test_rows_and_mutants_belong_together() -> None:
    """There are 25 planted bugs and more, each for a row that there is, no two alike."""
    assert len(MUTANTS) >= 25
    assert {mutant.row for mutant in MUTANTS} <= ROWS.keys()
    assert len({mutant.what for mutant in MUTANTS}) == len(MUTANTS)
    assert all(row.target > 0 and row.hour >= row.target and row.share > 0 for row in ROWS.values())
    assert max(len(row.what) for row in ROWS.values()) <= report.WIDTHS[1]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_a_planted_bug_still_fits_the_code(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each edits the source of one function: what it looks for is there once."""
    mutant.plant(monkeypatch)


def test_what_a_row_found_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever ends a long run has seen what it found so far, and how to play that again."""
    result = Result(Row("harmed", "nothing", 20, 200, 1, lambda case: None), 20, 3)
    result.findings.append(Finding("harmed", 3, 4, "Traceback\n  ...\nAssertionError: lost e7\n"))
    _say(result)
    said = capsys.readouterr().err
    assert "1 WRONG" in said
    assert "python -m tests.torture harmed --seed 3 --case 4: AssertionError: lost e7" in said


def test_what_a_dead_worker_left_goes_from_memory_and_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory may have room for the next folder only after a worker made its own, or before."""
    in_memory, on_disk = tmp_path / "memory", tmp_path / "disk"
    monkeypatch.setattr("tests.torture.run.MEMORY", str(in_memory))
    monkeypatch.setattr("tempfile.tempdir", str(on_disk))
    for place in (in_memory, on_disk):
        (place / "torture-12-x" / "lake").mkdir(parents=True)
        (place / "torture-123-x").mkdir()
    ours, theirs = os.pipe()
    Worker(0, 12, ours).clear()
    os.close(theirs)
    assert [path.name for path in tmp_path.glob("*/*")] == ["torture-123-x"] * 2
