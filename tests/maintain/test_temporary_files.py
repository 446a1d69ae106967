"""Temporary files: a writer is about to give them a name, or was killed before it could."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import lakelog
from lakelog.disk import disk

MakeLake = Callable[..., lakelog.Lake]


def test_a_young_temporary_file_stays_without_a_grace(make_lake: MakeLake) -> None:
    """F9.10: what a killed process left is an hour old some day."""
    lake = make_lake(gc_grace_hours=0)
    lake.append({"type": "A"})
    folders = (lake.store.paths.wal_dir("main"), lake.store.paths.head_dir("main"))
    files = [Path(disk.write_temporary(folder, b"x")) for folder in folders]
    for _ in range(2):
        assert lake.gc().deleted == 0
    assert all(file.exists() for file in files)
    then = time.time() - 3601
    for file in files:
        os.utime(file, (then, then))
    assert lake.gc().deleted == 2
    assert not any(file.exists() for file in files)
