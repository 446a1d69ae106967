"""Ingest, watching, growth, compaction and rollbacks of one file, every step a switch.

tests/support/feeding.py says what each does and what must hold after every move.
"""

from __future__ import annotations

import pytest

from tests.support.effort import share
from tests.support.feeding import perform
from tests.support.world import warm_engine

SEEDS, CHUNK = share(100, 10), 10


@pytest.mark.rounds
@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_every_schedule_takes_each_line_once(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is faster, wherever the others stand: after every move the branch holds what is
    before the cursor, and at the end each line once."""
    warm_engine(monkeypatch)
    moves = sum(perform(seed, monkeypatch).moves for seed in range(start, start + CHUNK))
    assert moves > 5 * CHUNK, "too few publishes to mean anything"
