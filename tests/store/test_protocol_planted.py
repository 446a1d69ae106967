"""Planted bugs: each rule of the protocol is taken out of the real code, and must be missed.

The same schedules that the real code passes (test_protocol_schedule.py) must fail without it.
"""

from __future__ import annotations

import pytest

from tests.support.casts import perform
from tests.support.protocol_bugs import PLANTED, Plant
from tests.support.world import warm_engine

SEARCH = 1200
"""Schedules that may pass: where days go by, one in 40 to 120 meets the bug, which is chance."""


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("cast", "plant"), PLANTED, ids=[plant.__name__.strip("_") for _, plant in PLANTED]
)
def test_a_planted_bug_is_found(cast: str, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one rule of the protocol some schedule breaks a promise."""
    warm_engine(monkeypatch)
    plant(monkeypatch)
    for seed in range(SEARCH):
        try:
            perform(cast, seed, monkeypatch)
        except AssertionError:
            return
    raise AssertionError(f"{SEARCH} schedules of {cast} did not notice: {plant.__doc__}")
