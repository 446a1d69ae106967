"""Retention: events before a line leave the branch by one move; the others keep their places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import lakelog
from lakelog.disk import disk
from lakelog.entries.entry import SegmentEntry
from lakelog.errors import InvalidSetting
from lakelog.maintain import retention
from tests.support.cli import run

MakeLake = Callable[..., lakelog.Lake]
DAY = 86_400_000_000


def put(lake: lakelog.Lake, *ages: float) -> None:
    """Append events of so many days ago, sealed into a segment of their own."""
    now = disk.now_us()
    lake.append([{"type": f"t{age:g}", "time": now - int(age * DAY)} for age in ages])
    lake.settle()


def rows(lake: Any) -> dict[str, int]:
    """Return {type: seq}."""
    return dict(lake.sql("SELECT type, seq FROM events").fetchall())


def entry(key: str, low: int, high: int, kind: str = "events") -> SegmentEntry:
    """Return what the policy looks at."""
    return SegmentEntry(key, 1, kind, 1, "arrival", (low, high))


@pytest.mark.parametrize(
    ("given", "old", "straddling"),
    [
        ([], [], []),
        ([entry("a", 1, 9)], ["a"], []),
        ([entry("a", 1, 10)], [], ["a"]),
        ([entry("a", 9, 10)], [], ["a"]),
        ([entry("a", 10, 10)], [], []),
        ([entry("a", 11, 99)], [], []),
        ([entry("a", 1, 2), entry("b", 5, 50), entry("c", 50, 60)], ["a"], ["b"]),
        ([entry("q", 1, 2, "quarantine"), entry("r", 1, 20, "quarantine")], ["q"], []),
    ],
)
def test_what_a_line_takes(given: list[Any], old: list[str], straddling: list[str]) -> None:
    """Segments wholly before the line go, those across it are rewritten, the line itself stays."""
    found = retention.choose(given, 10)
    assert tuple([e.key for e in part] for part in found) == (old, straddling)


def test_a_preview_changes_nothing(lake: lakelog.Lake) -> None:
    """Without apply the counts are told, as a bound where a segment straddles the line."""
    put(lake, 40, 50)
    put(lake, 5, 35)
    put(lake, 1)
    told = lake.retention("30d")
    assert (told.removed, told.rewritten, told.events) == (1, 1, 4)
    assert (told.exact, told.applied) == (False, False)
    assert len(rows(lake)) == 5
    assert lake.retention("45d").exact is False
    assert lake.retention("60d").events == 0


def test_the_rest_keeps_its_places(lake: lakelog.Lake) -> None:
    """What stays of a straddling segment has the seq it had; holes are left, nothing renumbered."""
    put(lake, 40, 50)
    put(lake, 5, 35, 3, 45)
    put(lake, 1)
    done = lake.retention("30d", apply=True)
    assert (done.removed, done.rewritten, done.events) == (1, 1, 4)
    assert (done.exact, done.applied) == (True, True)
    assert rows(lake) == {"t5": 2, "t3": 4, "t1": 6}
    assert lake.count() == lake.stats().events == 3
    put(lake, 0)
    assert rows(lake)["t0"] == 7
    lake.compact()
    assert rows(lake) == {"t5": 2, "t3": 4, "t1": 6, "t0": 7}
    assert lake.retention("4d", apply=True).events == 1
    assert rows(lake) == {"t3": 4, "t1": 6, "t0": 7}


def test_statistics_of_the_rest_are_its_own(lake: lakelog.Lake) -> None:
    """Pruning after retention sees only types and times that are left."""
    put(lake, 5, 35)
    put(lake, 1)
    lake.retention("30d", apply=True)
    assert lake.explain("FROM events WHERE type = 't35'") == (0, 2)
    assert lake.explain("FROM events WHERE type = 't5'") == (1, 2)
    assert lake.stats().types == {"t5": 1, "t1": 1}
    span = lake.stats().time
    assert span is not None
    assert span[0] > disk.now_us() - 6 * DAY


def test_it_is_one_move_that_can_be_undone(lake: lakelog.Lake) -> None:
    """The log says how many events went before which time; undo brings them back."""
    put(lake, 40, 1)
    put(lake, 50)
    moves = len(lake.log())
    lake.retention("30d", apply=True)
    newest = lake.log()[0].move
    assert (newest.op, newest.message[:15]) == ("retention", "2 events before")
    assert len(lake.log()) == moves + 1
    state = lake.store.manifests.load(newest.snapshot)
    assert state.retention
    assert state.retention.before < disk.now_us() - 29 * DAY
    lake.undo()
    assert rows(lake) == {"t40": 0, "t1": 1, "t50": 2}


def test_pending_events_are_looked_at_too(lake: lakelog.Lake) -> None:
    """Retention settles first; what is appended later stays until the next time."""
    lake.append([{"type": "old", "time": "2001-01-01"}, {"type": "new"}])
    assert lake.retention("30d", apply=True).events == 1
    lake.append({"type": "late", "time": "2001-01-01"})
    assert lake.sql("SELECT type FROM events ORDER BY ALL").fetchall() == [("late",), ("new",)]


def test_nothing_to_remove_is_no_move(lake: lakelog.Lake) -> None:
    """A line before everything, and an empty lake, make no move."""
    assert lake.retention("1d", apply=True).applied is False
    put(lake, 1)
    moves = len(lake.log())
    done = lake.retention("30d", apply=True)
    assert (done.applied, done.events) == (False, 0)
    assert len(lake.log()) == moves


def test_everything_may_go(lake: lakelog.Lake) -> None:
    """A line after everything leaves an empty branch that takes new events."""
    put(lake, 40, 1)
    put(lake, 3)
    lake.quarantine([("a.log", 1, "bad", "{")])
    lake.settle()
    assert lake.retention("0s").events == 3
    assert lake.retention("0s", apply=True).events == 3
    assert (lake.count(), rows(lake)) == (0, {})
    assert lake.stats().segments == 0
    assert lake.sql("SELECT count(*) FROM quarantine").fetchall() == [(0,)]
    put(lake, 0)
    assert rows(lake) == {"t0": 3}


def test_other_branches_and_tags_keep_theirs(make_lake: MakeLake) -> None:
    """Only this branch is cut; states that were named keep all they had."""
    lake = make_lake()
    put(lake, 40, 1)
    lake.tag("v1")
    with lake.branch("dev") as dev:
        lake.retention("30d", apply=True)
        assert rows(dev) == rows(lake.at("v1")) == {"t40": 0, "t1": 1}
    assert rows(lake) == {"t1": 1}


def test_a_read_retries_after_a_concurrent_seal(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost race plans anew: old events sealed meanwhile go as well."""
    lake, other = make_lake(), make_lake()
    put(lake, 40, 1)
    link, calls = disk.link, []

    def link_after_another(source: str, target: str) -> None:
        if "/refs/heads/main/0" in target and not calls:
            calls.append(target)
            put(other, 50, 2)
        link(source, target)

    monkeypatch.setattr(disk, "link", link_after_another)
    assert lake.retention("30d", apply=True).events == 2
    assert calls
    assert sorted(rows(lake)) == ["t1", "t2"]


def test_a_span_may_be_longer_than_time(lake: lakelog.Lake) -> None:
    """Then no event is older."""
    lake.append({"type": "A", "time": "1066-10-14T09:00:00Z"})
    run(lake.path, "retention", "--older-than", "99999999999d", "--apply", "--yes")
    assert lake.count() == 1


@pytest.mark.parametrize("span", ["", "30", "a month", "-1d"])
def test_a_line_is_a_duration(lake: lakelog.Lake, span: str) -> None:
    """How old is said as 30d, 12h or the like."""
    with pytest.raises(InvalidSetting):
        lake.retention(span, apply=True)
