"""Folds and streams: what was folded has the version to expect when the next event is appended."""

from __future__ import annotations

import threading

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.cli import cli
from lakelog.disk import disk
from lakelog.errors import WrongVersion
from lakelog.folds import Fold
from tests.conftest import MakeLake

COUNT: Fold[int] = Fold("count", lambda: 0, {"step": lambda state, event: state + 1}, every=4)


def step(lake: lakelog.Lake) -> None:
    """Append a step with the number that the state says."""
    while True:
        result = COUNT.of(lake, "s")
        event = {"type": "step", "subject": "s", "data": {"number": result.state}}
        try:
            lake.append(event, expect={"s": result.version})
        except WrongVersion:
            continue
        return


def test_a_decision_is_made_on_the_newest_state_or_not_at_all(make_lake: MakeLake) -> None:
    """Threads that fold, decide and append: each number once, in the order of the versions."""
    lake = make_lake()

    def run() -> None:
        for _ in range(6):
            step(lake)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = "SELECT (data->>'number')::INT FROM events WHERE subject = 's' ORDER BY position"
    assert [number for (number,) in lake.sql(numbers).fetchall()] == list(range(18))
    assert COUNT.of(lake, "s").version == 18


def test_the_version_is_that_of_the_state(make_lake: MakeLake) -> None:
    lake = make_lake()
    assert COUNT.of(lake, "s").version == 0
    lake.append({"type": "step", "subject": "s"})
    assert COUNT.of(lake, "s").version == 0  # it has no version, and counts
    step(lake)
    lake.settle()
    lake.tag("one")
    step(lake)
    assert (COUNT.of(lake, "s").state, COUNT.of(lake, "s").version) == (3, 2)
    lake.rollback("one")
    assert (COUNT.of(lake, "s").state, COUNT.of(lake, "s").version) == (2, 1)
    step(lake)
    assert COUNT.of(lake, "s").version == 2


def test_versions_are_applied_in_their_order_whatever_the_clock_does(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was two hours ahead while some were stored, which are sealed since."""
    numbers = Fold[list[int]](
        "numbers", list, {"step": lambda state, event: [*state, event.data["number"]]}
    )
    now = disk.now_us
    for number, hours in enumerate((0, 2, 0, -1)):
        monkeypatch.setattr(disk, "now_us", lambda hours=hours: now() + hours * 3_600_000_000)
        with make_lake() as lake:
            event = {"type": "step", "subject": "s", "data": {"number": number}}
            lake.append(event, expect={"s": number})
            lake.compact()
            assert numbers.of(lake, "s").state == [*range(number + 1)]


def test_a_version_stays_where_retention_removed_its_event(make_lake: MakeLake) -> None:
    """Whoever folds and decides goes on, as the stream does."""
    lake = make_lake()
    for _ in range(3):
        step(lake)
    lake.settle()
    command = ["--lake", lake.path, "retention", "--older-than", "1us", "--apply", "--yes"]
    assert CliRunner().invoke(cli, command).exit_code == 0
    result = COUNT.of(lake, "s")
    assert (result.state, result.version) == (0, lake.stream("s").version) == (0, 3)
    lake.append({"type": "step", "subject": "s"}, expect={"s": result.version})
    assert (COUNT.of(lake, "s").state, COUNT.of(lake, "s").version) == (1, 4)
