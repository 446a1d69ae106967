"""The torture suite runs: a small part of a case of each row, and what it says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.torture import report
from tests.torture.case import Case, Row, Tally
from tests.torture.mutants import MUTANTS
from tests.torture.rows import ROWS
from tests.torture.run import Finding, Result, play, run

CASES = {
    "kills": 0, "ingest": 0, "states": 14, "calls": 11, "lies": 4, "full": 1, "corrupt": 3,
    "schedule": 0, "gc": 0, "history": 1, "sequence": 0, "watch": 400, "fuzz": 3, "clock": 2,
    "leaks": 0, "planted": 8,
}  # fmt: skip
"""Of each row that needs neither root nor seconds, the case to play."""


@pytest.fixture
def wrong() -> Row:
    """A row whose third case is wrong."""

    def third(case: Case) -> None:
        assert case.number != 2, "planted"
        case.verified()

    return Row("wrong", "nothing", 50, 500, 1, third)


@pytest.mark.parametrize("name", CASES)
def test_a_case_of_each_row_finds_nothing_wrong(name: str) -> None:
    """A small case of a row verifies something, and finds nothing wrong in this tree."""
    tally, error = play(ROWS[name], 1, CASES[name], size=0.1)
    assert error == ""
    assert tally.done > 0


def test_a_wrong_case_is_told_with_its_replay(wrong: Row) -> None:
    """What goes wrong is a finding with seed, commit and the line that plays it again."""
    result = run(wrong, 50, 20, seed=7, jobs=2)
    assert not result.holds
    assert [f.replay for f in result.findings] == [
        "python -m tests.torture wrong --seed 7 --case 2"
    ]
    said = report.findings([result])
    assert "planted" in said
    assert "commit " in said
    assert play(wrong, 7, 2)[1] != ""
    assert play(wrong, 7, 3) == (Tally(1, 1), "")


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
