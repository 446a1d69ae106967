"""A target whose disk becomes full: nothing half-applied, one line, and on once there is room."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakelog.errors import SyncRefused
from tests.support.lakes import copied, opened
from tests.support.requirements import MOUNTS
from tests.support.sync_places import (
    DuckdbPlace,
    Place,
    PostgresPlace,
    PostgresServer,
    SqlitePlace,
    admin,
    expected,
    postgres_server,
    synced,
)
from tests.torture import mounts

pytestmark = pytest.mark.needs(MOUNTS)
EVENTS, BATCH = 3_000, 400
ROOM = 128 << 20


@pytest.fixture
def path(home: Path) -> str:
    """A lake whose events take some three megabytes in a database."""
    return copied(ten_segments, home)


def ten_segments(path: str) -> None:
    for part in range(0, EVENTS, 300):
        with opened(path) as lake:
            lake.append([{"type": "a.b", "message": f"{part + n} " * 200} for n in range(300)])


@pytest.fixture
def disk(home: Path) -> Iterator[Path]:
    with mounts.tmpfs(home / "disk", ROOM) as place:
        yield place


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


def fills_up(path: str, place: Place, disk: Path, free: int) -> None:
    """Sync to a disk with so many bytes free, look, make room, and sync again."""
    mounts.grow(disk, -(-(_used(disk) + free) // 4096) * 4096)
    with pytest.raises(SyncRefused, match="free space") as caught:
        synced(path, place.url, batch_rows=BATCH)
    assert "\n" not in str(caught.value), "one line"
    mounts.grow(disk, ROOM)
    rows = _rows_there(place)
    assert rows == expected(path)[: len(rows)], "whole batches, in order"
    marks = place.target()
    marks.connect()
    mark = marks.watermarks().get("events")
    marks.close()
    assert len(rows) == (mark.rows if mark else 0), "the watermark says what is there"
    result = synced(path, place.url, batch_rows=BATCH)
    assert result.written == EVENTS - len(rows), "nothing is written again"
    assert place.rows() == expected(path)


def _rows_there(place: Place) -> list[tuple[object, ...]]:
    target = place.target()
    target.connect()
    is_there = target.shape("events") is not None
    target.close()
    return place.rows() if is_there else []


def _used(disk: Path) -> int:
    return shutil.disk_usage(disk).used


@pytest.mark.matrix
@pytest.mark.parametrize("free", [40, 120, 300, 700, 1200, 2000])
def test_disk_of_sqlite_becomes_full(path: str, disk: Path, free: int) -> None:
    fills_up(path, SqlitePlace(disk), disk, free << 10)


@pytest.mark.matrix
@pytest.mark.parametrize("free", [8, 120, 300, 560, 850, 1100])
def test_disk_of_duckdb_becomes_full(path: str, disk: Path, free: int) -> None:
    fills_up(path, DuckdbPlace(disk), disk, free << 10)


@pytest.mark.matrix
@pytest.mark.parametrize("free", [16, 120, 300, 700, 1200, 2000])
def test_disk_of_postgres_becomes_full(
    path: str, disk: Path, free: int, server: PostgresServer
) -> None:
    place, space = PostgresPlace(server), disk / "space"
    space.mkdir()
    with contextlib.suppress(LookupError):
        shutil.chown(space, "postgres")
    # The server's user must be able to reach it.
    for parent in (disk, disk.parent):
        parent.chmod(0o755)
    admin(server.url(), f"CREATE TABLESPACE small LOCATION '{space}'")
    try:
        admin(server.url(), f"ALTER DATABASE {place.database} SET TABLESPACE small")
        admin(place.url, "CHECKPOINT")
        fills_up(path, place, disk, free << 10)
    finally:
        admin(server.url(), f"DROP DATABASE {place.database} WITH (FORCE)")
        admin(server.url(), "DROP TABLESPACE small")
        server.used = ""
