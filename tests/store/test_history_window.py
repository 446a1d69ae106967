"""The window of history, judged by the clocks of the host and of the file system."""

from __future__ import annotations

from pathlib import Path

import pytest

import lakelog
from lakelog.disk import disk
from lakelog.errors import UnknownRef
from lakelog.history.thinning import HOUR


def test_what_gc_deleted_is_no_damage_to_a_host_whose_clock_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    year = 365 * 24 * HOUR
    behind = disk.now_us() - year
    monkeypatch.setattr(disk, "now_us", lambda: behind)
    with lakelog.open(tmp_path / "lake", settings={"gc_grace_hours": 0}) as lake:
        lake.append([{"type": "OLD", "time": "2001-01-01T00:00:00Z"}, {"type": "NEW"}])
        old = lake.settle().move.snapshot
        assert lake.retention("365d", apply=True).applied
        assert lake.gc().deleted
        assert lake.verify().problems == ()
        with pytest.raises(UnknownRef, match="outside the kept history"):
            lake.rollback(old)
