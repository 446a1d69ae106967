"""Random histories: every projection equals its plain answers, whatever happened to the lake.

LAKELOG_HISTORIES=1000 runs as many of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lakelog.manifest import manifest
from tests.support import viewhistory
from tests.support.effort import share

COUNT = int(os.environ.get("LAKELOG_HISTORIES", share(12)))


@pytest.mark.rounds
@pytest.mark.timeout(300 + 5 * COUNT)
def test_incremental_views_equal_plain_sql_after_any_history(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Appends, compactions, rollbacks, branches, erasures, new processes, a lost and damaged cache,
    manifests of many pages: no difference."""
    for seed in range(COUNT):
        # With pages of few entries every other history has many of them.
        monkeypatch.setattr(manifest, "FAN", 2 if seed % 2 else 16)
        assert viewhistory.run(home / str(seed), seed) > 10
