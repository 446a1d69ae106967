"""Requests that come again after something went wrong: their events are there once."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

import lakelog
from lakelog.event import EncodedBatch
from lakelog.server.arrivals import Arrivals
from lakelog.server.intake import EventIntake
from lakelog.server.limits import ServerLimits
from tests.support.http_lake import serving
from tests.support.requirements import need_module


def test_what_a_write_that_failed_left_is_not_stored_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes may be there where their sync failed; whether they are is seen before a retry is
    stored."""

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def ask(intake: EventIntake[int], number: int) -> int:
        arrivals = Arrivals(EncodedBatch.of([{"type": "t", "data": {"n": number}}]))
        body = str(number).encode()
        return await intake.once(("x",), "", body, lambda: arrivals, lambda a: a.stored)

    async def turns(lake: lakelog.Lake) -> None:
        intake: EventIntake[int] = EventIntake(lake, ServerLimits())
        intake.load()
        assert await ask(intake, 0) == 1
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", full)
            for number in (1, 2, 1):
                with pytest.raises(OSError, match="No space"):
                    await ask(intake, number)
        for number in (2, 1, 3, 1):
            assert await ask(intake, number) == 1
        intake.close()

    with lakelog.open(tmp_path / "lake") as lake:
        asyncio.run(turns(lake))
        rows = lake.sql("SELECT data->>'n', count(*) FROM events GROUP BY 1 ORDER BY 1").fetchall()
        assert rows == [("0", 1), ("1", 1), ("2", 1), ("3", 1)]


def test_what_a_rollback_took_back_is_stored_when_it_comes_again(tmp_path: Path) -> None:
    need_module("uvicorn")
    with serving(tmp_path / "lake") as server:
        with lakelog.open(server.path, create=False) as lake:
            lake.tag("before")
            for _ in range(2):
                assert server.ask("/ingest/again", b'{"n":1}').json["accepted"] == 1
            assert len(server.events()) == 1
            lake.rollback("before")
        assert server.events() == []
        for _ in range(2):
            assert server.ask("/ingest/again", b'{"n":1}').json["accepted"] == 1
        assert len(server.events()) == 1
