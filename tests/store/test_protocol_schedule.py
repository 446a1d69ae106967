"""The real code under a deterministic scheduler: many actors, one directory, every step a switch.

tests/support/scheduler.py says how, casts.py who plays, world.py what must hold. A failure prints
its seed and the line that plays it again.
"""

from __future__ import annotations

import os

import pytest

from tests.support.casts import CASTS, perform
from tests.support.effort import share
from tests.support.world import warm_engine

SEEDS, CHUNK = int(os.environ.get("LAKELOG_SCHEDULES", share(50))), 5
ONE = os.environ.get("LAKELOG_SEED")
STARTS = [int(ONE)] if ONE else range(0, SEEDS, CHUNK)


@pytest.mark.rounds
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("cast", CASTS)
def test_every_schedule_keeps_the_promises(
    cast: str, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every interleaving an acknowledged event is in every later read, once; nothing that was
    taken away comes back, no count goes back, and every byte verifies at the end."""
    warm_engine(monkeypatch)
    for seed in range(start, start + 1 if ONE else min(start + CHUNK, SEEDS)):
        perform(cast, seed, monkeypatch)


def test_a_schedule_plays_again_from_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed gives the same moves and the same reads, step by step."""
    warm_engine(monkeypatch)
    one, two = (perform("sealing", 4, monkeypatch) for _ in range(2))
    assert one.scheduler.step == two.scheduler.step
    assert [(m.step, m.op, m.names) for m in one.moves] == [
        (m.step, m.op, m.names) for m in two.moves
    ]
    assert [(s.start, s.names) for s in one.reads] == [(s.start, s.names) for s in two.reads]
