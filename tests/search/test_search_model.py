"""Random searches find what a model finds, in every state that events can be in."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import LakelogError
from tests.support.effort import share
from tests.support.search_model import Event, random_event, random_query

QUERIES = int(os.environ.get("LAKELOG_SEARCHES", share(300)))
SEEDS = range(4)


@pytest.fixture(params=SEEDS)
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of a play."""
    return int(request.param)


def states(lake: lakelog.Lake, dice: random.Random) -> Iterator[list[Event]]:
    """Bring a lake into one state after another; yield the events of each."""
    events = [random_event(dice, number) for number in range(40)]
    lake.append(events)
    yield events  # the tail
    lake.snapshot("sealed")
    yield events
    more = [random_event(dice, number) for number in range(40, 60)]
    lake.append(more)
    yield events + more  # both
    lake.compact()
    yield events + more
    lake.rollback("@1")
    yield []
    lake.undo()
    yield events + more


@pytest.mark.rounds
def test_searches_find_what_a_model_finds(home: Path, seed: int) -> None:
    """Words, phrases, parts, fields, levels and what combines them, in a tail, sealed, mixed and
    compacted; the right events, newest first."""
    dice = random.Random(seed)
    with lakelog.open(home / "lake") as lake:
        for events in states(lake, dice):
            for _ in range(max(QUERIES // (6 * len(SEEDS)), 1)):
                asked = random_query(dice)
                wanted = {event["subject"] for event in events if asked.holds(event)}
                try:
                    rows = lake.search(asked.text).fetchall()
                except LakelogError as error:
                    raise AssertionError(f"{asked.text!r}: {error}") from error
                assert {row[4] for row in rows} == wanted, asked.text
                assert len(rows) == len(wanted)
                times = [(row[0], row[-1]) for row in rows]
                assert times == sorted(times, reverse=True)
