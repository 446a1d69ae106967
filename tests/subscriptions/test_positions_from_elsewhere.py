"""Positions that another machine of a shared lake gave, or a lake that was restored since."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import InvalidSetting, SubscriptionRewound
from lakelog.lake import Lake
from lakelog.remotes.shared import attach
from lakelog.subscriptions import LivePages

Machines = tuple[Lake, Lake]


@pytest.fixture
def machines(home: Path) -> Iterator[Machines]:
    """Two directories of one lake; the second has not heard of the newest events."""
    for name in ("one", "two"):
        attach(f"file://{home}/bucket", str(home / name))
    with lakelog.open(home / "one") as one, lakelog.open(home / "two") as two:
        one.append([{"type": "x", "data": {"n": n}} for n in range(3)])
        one.exchange()
        two.exchange()
        yield one, two


def _position(lake: Lake, start: str = "beginning") -> str:
    subscription = lake.subscribe(None, from_=start)
    return [batch.position for batch in subscription.batches(timeout=0.1)][-1]


def test_position_of_a_program_on_another_machine(machines: Machines) -> None:
    one, two = machines
    one.append({"type": "y"})
    place = _position(one)
    one.append({"type": "z"})
    one.exchange()
    batches = list(two.subscribe(None, from_=place).batches(timeout=0.1))
    assert [event["type"] for batch in batches for event in batch.events] == ["z"]


def test_rollback_behind_a_position_on_another_machine(machines: Machines) -> None:
    """The machine learns of the rollback, and says from which event on all are others."""
    one, two = machines
    before = _position(one)
    one.tag("base")
    one.append({"type": "y"})
    place = _position(one, before)
    one.rollback("base")
    with pytest.raises(SubscriptionRewound, match="events from 3 on"):
        two.subscribe(None, from_=place)


def test_live_position_on_another_machine(machines: Machines) -> None:
    one, two = machines
    pages = LivePages(one.subscriptions(), None)
    one.append({"type": "y"})
    one.settle()
    place = pages.page("beginning", pages.pending(), 9).position
    one.append({"type": "z"})
    one.settle()
    other_pages = LivePages(two.subscriptions(), None)
    page = other_pages.page(place, other_pages.pending(), 9)
    assert page.events["type"].to_pylist() == ["z"]


def test_position_of_a_lake_that_was_restored_to_before_a_rollback(home: Path) -> None:
    """It has other events of numbers that the program would keep: all of them are refused."""
    path, backup = home / "lake", home / "backup"
    with lakelog.open(path) as lake:
        lake.append({"type": "first"})
        lake.tag("base")
        lake.append({"type": "second"})
        lake.backup(backup)
        lake.rollback("base")
        place = "beginning"
        for _ in range(3):
            lake.append({"type": "other"})
            place = _position(lake, place)
    shutil.rmtree(path)
    backup.rename(path)
    with lakelog.open(path) as restored:
        restored.append([{"type": "later"}] * 4)
        restored.settle()
        with pytest.raises(InvalidSetting, match="newer copy"):
            restored.subscribe(None, from_=place)
