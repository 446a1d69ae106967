"""Temporary files: a writer is about to give them a name, or was killed before it could."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lakelog
from lakelog.disk import disk
from tests.support import seam

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


def test_a_seal_that_fails_leaves_no_temporary_file(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever step of it a full disk fails, what was written for it is gone, for nothing else
    makes room; once its move is there it has not failed."""
    for at in itertools.count(1):
        lake, has_failed = make_lake(f"lake{at}", rotate_events=1), False
        lake.append({"type": "A", "id": "a"})
        lake.append({"type": "B"})
        fault = seam.Fault(at, OSError(errno.ENOSPC, "No space left on device"))
        with monkeypatch.context() as patch:
            seam.install(patch, fault)
            try:
                lake.settle()
            except OSError:
                has_failed = True
        if not fault.fired:
            break
        left = list(Path(lake.path).rglob(f"*{disk.TEMPORARY}*"))
        assert fault.fired == "unlink" or not left, (at, fault.fired)
        is_sealed = lake.log()[0].move.op == "seal"
        assert fault.fired == "sync_dir" or has_failed != is_sealed, (at, fault.fired)


def test_a_torn_line_in_the_cache_keeps_no_spilled_file(make_lake: MakeLake) -> None:
    """A power cut may tear a line of a derived file, and anything may lie beside the filters: what
    killed processes spilled goes all the same."""
    lake = make_lake()
    lake.append({"type": "A"})
    lake.settle()
    paths = lake.store.paths
    torn = Path(paths.verified)
    torn.write_bytes(torn.read_bytes()[:31])
    spilled, strange = Path(paths.cache, "spill-0123"), Path(paths.blooms, "notes")
    for folder in (spilled, strange):
        folder.mkdir(parents=True)
        (folder / "part.tmp").write_bytes(b"x")
        for path in (folder / "part.tmp", folder):
            os.utime(path, (1, 1))
    lake.gc()
    assert not spilled.exists()
    torn.unlink()  # which verify tells
