"""The model of many machines: what docs/scaling.md says of it."""

from __future__ import annotations

import argparse

from benchmarks import shared_scale


def test_machines_that_lose_are_carried_by_those_that_win() -> None:
    arguments = argparse.Namespace(
        writers=60, every=1.0, latency=0.1, lost=0.01, seconds=20, seed=1, wait=1
    )
    bucket = shared_scale.run(arguments)
    assert len(bucket.delays) > 10 * bucket.move > 0
    assert max(bucket.carried) <= arguments.writers
