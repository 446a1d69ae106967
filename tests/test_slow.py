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


def test_the_parts_are_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "IS_WHOLE", False)
    monkeypatch.setattr(effort, "_WHOLE_PATHS", ("tests/whole.py",))
    names = [f"tests/test_x.py::test_y[{number}]" for number in range(40)]
    for count in (1, 4, 8):
        parts = [effort.SlowPart(number, count) for number in range(count)]
        played = [[name for name in names if part.has(name)] for part in parts]
        assert all(played)
        assert sorted(name for part_names in played for name in part_names) == sorted(names)
        assert all(part.has("tests/whole.py::test_y") for part in parts)


def test_which_part_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "IS_WHOLE", False)
    monkeypatch.delenv("LAKELOG_TEST_SLOW", raising=False)
    assert effort.slow_part(is_run_of_all=False) == (0, 1)
    commits = effort._commits()
    assert effort.slow_part(is_run_of_all=True) == (commits % 8, 8)
    for choice, part in (("4", (commits % 4, 4)), ("3/4", (3, 4)), ("1", (0, 1))):
        monkeypatch.setenv("LAKELOG_TEST_SLOW", choice)
        assert effort.slow_part(is_run_of_all=True) == part
        assert effort.slow_part(is_run_of_all=False) == part
