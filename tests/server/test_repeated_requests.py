"""Requests that come again after something went wrong: their events are there once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lakelog
from lakelog.disk import disk
from lakelog.event import EncodedBatch
from lakelog.server.arrivals import Arrivals
from lakelog.server.intake import EventIntake
from lakelog.server.limits import ServerLimits
from tests.support.http_lake import HttpLake, serving
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


def _stored_of(lake: lakelog.Lake, *moves: Callable[[], None]) -> list[int]:
    """How often a request is stored that comes before and after each of some moves of a clock, to
    one server, and then to the next one."""

    async def turns() -> list[int]:
        counts = list[int]()
        intake: EventIntake[int] = EventIntake(lake, ServerLimits())
        intake.load()
        arrivals = Arrivals(EncodedBatch.of([{"type": "beat"}]))
        for move in (lambda: None, *moves):
            move()
            await intake.once(("x",), "", b"beat", lambda: arrivals, lambda a: a.stored)
            counts.append(intake.stored)
        intake.close()
        return counts

    return asyncio.run(turns())


def test_an_equal_request_after_ten_minutes_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beat that comes once an hour is stored each time, also where nothing else comes; a server
    that starts in between knows how old the one before is."""
    real, wall, shift = time.clock_gettime_ns, disk.now_us, [0]
    monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: real(clock) + shift[0] * 10**9)
    monkeypatch.setattr(disk, "now_us", lambda: wall() + shift[0] * 10**6)

    def later(seconds: int) -> Callable[[], None]:
        return lambda: shift.__setitem__(0, shift[0] + seconds)

    with lakelog.open(tmp_path / "lake") as lake:
        assert _stored_of(lake, later(590), later(3600), later(3600)) == [1, 1, 2, 3]
        shift[0] += 400
        assert _stored_of(lake, later(100), later(200)) == [0, 0, 1]


def test_a_clock_that_was_ahead_hides_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says of requests of next week is not believed when that is over."""
    real, shift = disk.now_us, [7 * 86_400]
    monkeypatch.setattr(disk, "now_us", lambda: real() + shift[0] * 10**6)
    with lakelog.open(tmp_path / "lake") as lake:
        assert _stored_of(lake) == [1]
        shift[0] = 0
        assert _stored_of(lake, lambda: None) == [1, 1]
        assert len(os.listdir(tmp_path / "lake/server/requests")) == 1
        assert _stored_of(lake) == [0]


KEYED = {"idempotency-key": "one"}


@pytest.mark.parametrize("headers", [{}, KEYED], ids=["plain", "keyed"])
@pytest.mark.parametrize("is_killed", [False, True], ids=["running", "killed"])
def test_what_a_rollback_took_back_is_stored_when_it_comes_again(
    tmp_path: Path, headers: dict[str, str], is_killed: bool
) -> None:
    """And nothing else is, neither what came behind the rollback, nor what an undo brings back."""
    need_module("uvicorn")
    path = tmp_path / "lake"

    def send(server: HttpLake, *bodies: bytes) -> None:
        for body in bodies:
            reply = server.ask("/ingest/again", body, headers)
            assert reply.json["accepted"] == body.count(b"\n") + 1

    with contextlib.ExitStack() as stack:

        def again(server: HttpLake) -> HttpLake:
            if not is_killed:
                return server
            server.kill()
            return stack.enter_context(serving(path))

        server = stack.enter_context(serving(path))
        with lakelog.open(path, create=False) as lake:
            send(server, b'{"n":0}')
            lake.tag("before")
            send(server, b'{"n":1}\n{"n":2}', b'{"n":1}\n{"n":2}')
            lake.rollback("before")
            send(server, b'{"n":3}')
            server = again(server)
            for _ in range(2):
                send(server, b'{"n":1}\n{"n":2}', b'{"n":3}', b'{"n":0}')
            assert numbers(server) == ["0", "1", "2", "3"]
            lake.tag("after")
            send(server, b'{"n":4}')
            lake.rollback("after")
            assert numbers(server) == ["0", "1", "2", "3"]
            lake.undo()
            server = again(server)
            send(server, b'{"n":4}', b'{"n":3}', b'{"n":1}\n{"n":2}')
            assert numbers(server) == ["0", "1", "2", "3", "4"]
            # A server that looked while they were gone sees that they are back.
            lake.rollback("after")
            server = again(server)
            send(server, b'{"n":3}')
            lake.undo()
            send(server, b'{"n":4}')
            assert numbers(server) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("has_appended", [False, True])
def test_what_a_restored_backup_lacks_is_not_answered_as_stored(
    tmp_path: Path, has_appended: bool
) -> None:
    """It is refused like what is new, until the server is started again."""
    need_module("uvicorn")
    path = tmp_path / "lake"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(path))
        assert server.ask("/ingest", b'{"n":0}').status == 200
        with lakelog.open(path, create=False) as lake:
            lake.backup(tmp_path / "copy")
        assert server.ask("/ingest", b'{"n":1}').status == 200
        if not has_appended:
            server.stop()
            server = stack.enter_context(serving(path))
        shutil.copytree(path / "server", tmp_path / "copy" / "server", dirs_exist_ok=True)
        shutil.rmtree(path)
        shutil.copytree(tmp_path / "copy", path)
        statuses = [server.ask("/ingest", b'{"n":1}').status for _ in range(2)]
        assert statuses == ([503, 503] if has_appended else [200, 200])
        if has_appended:
            server.stop()
            server = stack.enter_context(serving(path))
            assert server.ask("/ingest", b'{"n":1}').status == 200
        assert numbers(server) == ["0", "1"]


def numbers(server: HttpLake) -> list[str]:
    return [row["n"] for row in server.events("SELECT data->>'n' AS n FROM events ORDER BY n")]
