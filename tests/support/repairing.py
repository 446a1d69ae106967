"""What several tests use: repair, damage by damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lakelog
from lakelog.entries.entry import SegmentEntry
from lakelog.manifest import Manifest
from lakelog.refs import Move
from tests.support import damage, lakes

Build = Callable[[lakelog.Lake], Any]


def made(tmp_path: Path, build: Build, **settings: object) -> str:
    """Make a lake with one handle and close it; return its path."""
    path = str(tmp_path / "lake")
    with lakes.opened(path, **settings) as lake:
        build(lake)
    return path


def sealed(*batches: Any) -> Build:
    """Append batches, each sealed by itself."""

    def build(lake: lakelog.Lake) -> None:
        for batch in batches:
            lake.append(batch)
            lake.settle()

    return build


def types(path: str) -> list[str]:
    """The types of all events of a lake, sorted."""
    with lakelog.open(path, create=False) as lake:
        found = sorted(row[0] for row in lake.sql("SELECT type FROM events").fetchall())
        assert lake.count() == len(found)
        return found


def head(path: str) -> tuple[Move, Manifest, list[SegmentEntry]]:
    """The newest move of a lake, its state and the live segments."""
    with lakelog.open(path, create=False) as lake:
        move = lake.store.refs.head("main").move
        state = lake.store.manifests.load(move.snapshot)
        return move, state, lake.store.manifests.segments(state)


def move_file(path: str, number: int) -> Path:
    return Path(path, f"refs/heads/main/{number:012d}.json")


def object_file(path: str, kind: str, digest: str) -> Path:
    (found,) = Path(path, kind, digest[:2]).glob(f"{digest}.*")
    return found


def wal_files(path: str) -> list[Path]:
    return sorted(Path(path, "wal/main").iterdir(), key=lambda p: p.stat().st_mtime_ns)


def forget_wals(path: str) -> None:
    """Remove all WALs of a lake of which everything is published, as a later writer does: what they
    still have would come back from them."""
    for file in wal_files(path):
        file.unlink()


def spoil(file: Path, at: int = 0, size: int = 16) -> bytes:
    """Overwrite a stretch of a file; return what it held before."""
    before = file.read_bytes()
    at = at % len(before)
    file.write_bytes(before[:at] + b"\x55" * len(before[at : at + size]) + before[at + size :])
    return before


def cured(path: str, copy: str | None = None) -> damage.RepairOutcome:
    """Repair a lake; check that it verifies now, its head too, and that it goes on."""
    done = damage.repaired(path, copy)
    assert done.after is not None
    assert done.after.problems == ()
    with lakelog.open(path, create=False) as lake:
        assert lake.verify("main").problems == ()
        before = lake.count()
        lake.append({"type": "~"})
        lake.settle()
        assert lake.count() == before + 1
        lake.rollback("main@1")
        lake.undo(force=True)
        assert lake.count() == before + 1
        assert lake.gc(dry_run=True).dry_run
    return done


def frame_starts(file: Path) -> list[int]:
    """Where the frames of a WAL begin."""
    data, at, found = file.read_bytes(), 0, []
    while (at := data.find(b"\x5b\x2a\x4d\x18", at)) >= 0:
        found.append(at)
        at += 4
    return found
