"""kill -9 at random moments: what was acknowledged stays, once, and the lake opens every time."""

from __future__ import annotations

from pathlib import Path

import duckdb  # noqa: F401 - loaded before the fork, so that a child starts quickly
import pyarrow.compute
import pyarrow.parquet  # noqa: F401
import pytest

from lakelog.query import session  # noqa: F401
from tests.support.effort import share
from tests.support.killed_crews import survive

KILLS = share(100)


@pytest.mark.matrix
@pytest.mark.rounds
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_writers_lose_and_double_nothing(tmp_path: Path, seed: int) -> None:
    """Kills of writers, sealer, compactor and gc lose and double nothing acknowledged."""
    acks = survive(str(tmp_path / "lake"), seed, KILLS)
    assert acks > KILLS, f"seed {seed}: too few acknowledgements to mean anything"
