"""A new data key that another process makes while a lake is open: whoever meets it finds it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import lakelog
from lakelog.server.sql.query_limits import QueryLimits
from lakelog.server.sql.workers import QueryWorkers
from tests.support import encrypted

_LIMITS = QueryLimits(workers=1, seconds=60, memory=700 << 20)
_COUNT = "SELECT count(*) AS n FROM events"


def _run(root: str, *words: str) -> None:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "lakelog", "--lake", root, *words]
    subprocess.run(command, check=True, capture_output=True)


def test_an_open_lake_goes_on_when_the_data_key_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it reads of others is under the new key, and so is an erasure that appends ask for."""
    root = encrypted.create(tmp_path / "lake", monkeypatch)
    with lakelog.open(root) as lake:
        lake.append([{"type": "A", "subject": name} for name in ("ada", "bob")])
        _run(root, "key", "rotate", "--data")
        _run(root, "append", "type=A", "subject=cyd")
        assert lake.count() == 3
        _run(root, "key", "rotate", "--data")
        _run(root, "erase", "--subject", "ada", "--why", "asked", "--yes")
        lake.append({"type": "A", "subject": "dan"})
        assert lake.count() == 3
        assert [status.is_done for status in lake.erasures()] == [True]
        assert lake.verify().intact


def test_a_server_finds_the_new_data_key_for_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that runs asks for it; one that starts later gets it, though the server never met it."""
    root = encrypted.create(tmp_path / "lake", monkeypatch)
    with lakelog.open(root) as lake:
        lake.append({"type": "A"})

    async def counted(workers: QueryWorkers) -> int:
        table = await workers.query(_COUNT)
        return int(table["n"][0].as_py())

    async def ask() -> list[int]:
        counts = list[int]()
        for _ in range(2):
            workers = QueryWorkers(root, "main", _LIMITS)
            try:
                for _ in range(2):
                    counts.append(await counted(workers))
                    _run(root, "key", "rotate", "--data")
                    _run(root, "append", "type=A")
            finally:
                await workers.close()
        return counts

    assert asyncio.run(ask()) == [1, 2, 3, 4]
