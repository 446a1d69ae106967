"""Long segments of a shared lake are read by ranges, of which each block is checked."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakelog.database.block_ranges import BLOCK, SegmentBlocks
from lakelog.errors import LakelogError
from lakelog.remotes.shared import name_file
from lakelog.server.sql.query_limits import QueryLimits
from lakelog.server.sql.workers import QueryWorkers
from tests.support.attached import SharedMachines

ROWS = 40
NEEDLE = "SELECT type, message FROM events WHERE subject = 's7'"
ANSWER = [("T", "message 7")]


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedMachines]:
    """Two machines: `a` has published a segment of 2.4 MB, and `b` knows the move."""
    monkeypatch.setattr("lakelog.database.block_ranges.LEAST", 1 << 20)
    machines = SharedMachines(tmp_path)
    lake = machines["a"]
    lake.append(
        [
            {"type": "T", "subject": f"s{n}", "message": f"message {n}", "data": noise()}
            for n in range(ROWS)
        ]
    )
    lake.exchange()
    machines["b"].exchange()
    yield machines
    machines.close()


def noise() -> str:
    """Return what no codec makes much shorter."""
    return os.urandom(30_000).hex()


def only(folder: Path) -> Path:
    """Return the only file below a folder."""
    (path,) = (p for p in folder.rglob("*") if p.is_file())
    return path


def cached(machines: SharedMachines) -> Path:
    """Return the file of `b` that has blocks of the segment."""
    return only(machines.root / "b/cache/ranges")


def is_whole(machines: SharedMachines) -> bool:
    """Whether `b` has the segment."""
    return any((machines.root / "b/segments").rglob("*.parquet"))


def test_a_needle_reads_some_blocks_and_keeps_them(machines: SharedMachines) -> None:
    assert machines["b"].sql(NEEDLE).fetchall() == ANSWER
    assert not is_whole(machines)
    size = only(machines.root / "bucket/segments").stat().st_size
    assert 0 < 512 * cached(machines).stat().st_blocks <= size // 4
    os.rename(machines.root / "bucket", machines.root / "away")
    assert machines.reopened("b").sql(NEEDLE).fetchall() == ANSWER


def test_a_typed_segment_is_read_by_ranges_in_a_new_process(machines: SharedMachines) -> None:
    """Its schema is in the footer, which nothing has read there."""
    lake = machines["a"]
    lake.append([{"type": "U", "subject": "u", "data": {"n": n, "x": noise()}} for n in range(40)])
    lake.exchange()
    lake.compact()
    store = lake.store
    assert all(entry.fields for entry in store.manifests.segments(store.state("main")))
    machines["b"].exchange()
    program = "import lakelog, sys; print(lakelog.open(sys.argv[1]).sql(sys.argv[2]).fetchall())"
    query = "SELECT max((data->>'n')::int) FROM events WHERE subject = 'u'"
    command = [sys.executable, "-c", program, machines["b"].path, query]
    assert subprocess.check_output(command, text=True) == "[(39,)]\n"
    assert not is_whole(machines)


def test_a_query_over_all_rows_fetches_the_segment(machines: SharedMachines) -> None:
    lake = machines["b"]
    assert lake.sql(NEEDLE).fetchall() == ANSWER
    assert lake.sql("SELECT count(*) FROM events WHERE message LIKE '%1%'").fetchone() == (13,)
    assert is_whole(machines)
    assert lake.sql(NEEDLE).fetchall() == ANSWER


def test_what_is_damaged_here_is_read_again(machines: SharedMachines) -> None:
    assert machines["b"].sql(NEEDLE).fetchall() == ANSWER
    path = cached(machines)
    path.write_bytes(bytes(path.stat().st_size))
    assert machines.reopened("b").sql(NEEDLE).fetchall() == ANSWER


@pytest.mark.parametrize("harm", ["flip", "cut", "forge"])
def test_what_is_damaged_in_the_bucket_is_refused(machines: SharedMachines, harm: str) -> None:
    """Also where whoever changed the segment gave the hashes of its blocks as they are then."""
    path = only(machines.root / "bucket/segments")
    data = bytearray(path.read_bytes())
    if harm == "cut":
        del data[-BLOCK:]
    else:
        data[-2000] ^= 1  # in the footer, which every query reads
    path.write_bytes(data)
    if harm == "forge":
        names = only(machines.root / "bucket/cache/names")
        head = name_file.NameHead(names.read_bytes(), bytes.fromhex(names.name))
        names.write_bytes(
            names.read_bytes()[: head.hashes[0]] + SegmentBlocks.hashes_of(bytes(data))
        )
    with pytest.raises(LakelogError, match=r"damaged|bytes of its name"):
        machines["b"].sql("SELECT * FROM events WHERE subject = 's7'").fetchall()


def test_a_bucket_that_goes_away_in_between_is_named_in_one_line(machines: SharedMachines) -> None:
    assert machines["b"].sql(NEEDLE).fetchall() == ANSWER
    cached(machines).unlink()
    os.rename(machines.root / "bucket", machines.root / "away")
    with pytest.raises(LakelogError, match="the shared lake is not there now") as caught:
        machines["b"].sql("SELECT data FROM events WHERE subject = 's8'").fetchall()
    assert "Traceback" not in str(caught.value)


def test_without_hashes_segments_are_fetched_whole(machines: SharedMachines) -> None:
    shutil.rmtree(machines.root / "bucket/cache/names")
    assert machines["b"].sql(NEEDLE).fetchall() == ANSWER
    assert is_whole(machines)


def test_blocks_count_towards_the_bound_of_the_cache(
    machines: SharedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakelog.remotes.shared.segment_cache._RESTING_SECONDS", -3600)
    assert machines["b"].sql(NEEDLE).fetchall() == ANSWER
    machines["b"].store.attachment._cache._limit = 1000
    machines["b"].exchange()
    assert not [*(machines.root / "b/cache/ranges").iterdir()]
    assert machines["b"].sql(NEEDLE).fetchall() == ANSWER


def test_blocks_of_an_erased_segment_are_dropped(machines: SharedMachines) -> None:
    assert machines["b"].sql(NEEDLE).fetchall() == ANSWER
    machines["a"].erase(subject="s9", why="asked")
    machines["b"].exchange()
    assert not [*(machines.root / "b/cache/ranges").iterdir()]
    assert machines["b"].sql(NEEDLE).fetchall() == ANSWER
    assert machines["b"].sql("SELECT 1 FROM events WHERE subject = 's9'").fetchall() == []


def test_processes_of_a_server_read_by_ranges(machines: SharedMachines) -> None:
    async def run() -> list[tuple[str, str]]:
        limits = QueryLimits(workers=1, seconds=60, memory=700 << 20, fetch=1_500_000)
        workers = QueryWorkers(machines["b"].path, "main", limits)
        try:
            rows = (await workers.query(NEEDLE)).to_pylist()
            return [(row["type"], row["message"]) for row in rows]
        finally:
            await workers.close()

    assert asyncio.run(run()) == ANSWER
    assert not is_whole(machines)
