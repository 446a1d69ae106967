"""The list of slow tests: see tests/support/slow.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import effort, slow
from tests.support.tree import ROOT


def test_each_test_of_the_list_is_there() -> None:
    """One that was renamed would be played with each commit."""
    lines = effort.SLOW.read_text().splitlines()
    assert lines == sorted(set(lines))
    for line in lines:
        path, name, *_ = line.split("::")  # a class may inherit its tests, or be made by a call
        assert name in (ROOT / path).read_text(), line


def test_the_slowest_take_most_of_the_time(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    here, case = "tests.test_slow", '<testcase classname="{}" name="{}" time="{}"/>'
    cases = [
        case.format(here, "test_long[a]", 9),
        case.format(here, "test_long[b.c]", 7),
        case.format(here, "test_short", 4),
        case.format("tests.remotes.test_directory_remote.TestDirectory", "test_of_a_class", 8),
        case.format("elsewhere", "test_of_another", 90),
    ]
    report.write_text(f"<testsuites>{''.join(cases)}</testsuites>")
    assert slow.slowest([str(report)]) == [
        "tests/remotes/test_directory_remote.py::TestDirectory::test_of_a_class",
        "tests/test_slow.py::test_long",
    ]


def test_four_quarters_are_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "IS_WHOLE", False)
    monkeypatch.setattr(effort, "_WHOLE_PATHS", ("tests/whole.py",))
    names = [f"tests/test_x.py::test_y[{number}]" for number in range(40)]
    parts = [{name for name in names if effort.is_in_quarter(name, n)} for n in range(4)]
    assert all(parts)
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert all(effort.is_in_quarter(name, effort.ALL_SLOW) for name in names)
    assert all(effort.is_in_quarter("tests/whole.py::test_y", number) for number in range(4))


def test_which_quarter_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "IS_WHOLE", False)
    monkeypatch.delenv("LAKELOG_TEST_SLOW", raising=False)
    assert effort.quarter(is_run_of_all=False) == effort.ALL_SLOW
    of_commit = effort.quarter(is_run_of_all=True)
    assert of_commit in range(4)
    for choice, number in (("commit", of_commit), ("3", 3), ("all", effort.ALL_SLOW)):
        monkeypatch.setenv("LAKELOG_TEST_SLOW", choice)
        assert effort.quarter(is_run_of_all=True) == number
