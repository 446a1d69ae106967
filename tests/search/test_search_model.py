"""Random searches find what a model finds, in every state that events can be in."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.support import encrypted
from tests.support.effort import share
from tests.support.search_model import random_query, random_word
from tests.support.search_states import (
    STATES,
    require_right_answer,
    require_right_neighbours,
    shrink_indexes,
    shrink_scans,
    states,
)

QUERIES = int(os.environ.get("LAKELOG_SEARCHES", share(900)))
SEEDS = range(5)
ENCRYPTED = 4


@pytest.fixture(params=SEEDS)
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of a play."""
    return int(request.param)


@pytest.fixture(autouse=True)
def small_blocks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word indexes of few rows, that know the counts of all but the rarest words, or of none; in
    some plays the newest rows are looked for in two steps."""
    shrink_indexes(monkeypatch, is_counted=seed != 3)
    if seed % 2:
        shrink_scans(monkeypatch)


@pytest.mark.rounds
def test_searches_find_what_a_model_finds(
    home: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words, phrases, parts, fields, levels and what combines them, in a tail, sealed, mixed,
    compacted, branched, rolled back, pulled and erased, in a plain lake and an encrypted one, with
    word indexes, without, and with damaged ones; the right events, newest first."""
    dice = random.Random(seed)
    if seed == ENCRYPTED:
        encrypted.create(home / "lake", monkeypatch)
    for lake, events in states(home, dice, is_ascii=seed % 2 == 0):
        for _ in range(max(QUERIES // (STATES * len(SEEDS)), 1)):
            require_right_answer(lake, events, dice.choice([random_query, random_word])(dice))
        asked = random_word(dice)
        require_right_neighbours(lake, events, asked, dice.randrange(3), dice.randrange(3))
