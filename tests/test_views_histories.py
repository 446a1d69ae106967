"""Random histories: every projection equals its plain answers, whatever happened to the lake.

LAKELOG_HISTORIES=1000 runs as many of them.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.support import viewhistory


def test_histories_leave_every_view_as_plain_sql_has_it(home: Path) -> None:
    """Appends, compactions, rollbacks, branches, a lost and damaged cache: no difference."""
    for seed in range(int(os.environ.get("LAKELOG_HISTORIES", "12"))):
        assert viewhistory.run(home / str(seed), seed) > 10
