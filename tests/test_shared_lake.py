"""Threads that share a Lake: no call hangs, and each answer counts what was acknowledged before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.shared_lake import Crew, interrupt_and_fork

SECONDS = float(os.environ.get("LAKELOG_SHARED_SECONDS", "1.5"))


@pytest.fixture
def crew(home: Path) -> Iterator[Crew]:
    made = Crew(home, seed=int(os.environ.get("LAKELOG_SHARED_SEED", "1")))
    yield made
    made.close()


@pytest.mark.timeout(SECONDS * 4 + 300)
def test_threads_share_a_lake_concurrently(crew: Crew) -> None:
    crew.run(SECONDS)
    assert len(crew.calls) > 10


@pytest.mark.thorough
@pytest.mark.timeout(SECONDS * 4 + 300)
def test_threads_share_a_lake_with_forks_and_signals(crew: Crew) -> None:
    crew.run(max(SECONDS, 10), interrupt_and_fork)
