"""The older persistence manager, as its asyncio programs use it."""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import EventDatabase, EventPersistenceManager, create_event_persistence
from lakelog.compat import persistence
from lakelog.errors import InvalidSetting, WriterClosed
from tests.support import seam
from tests.support.processes import environment

START = 1_760_000_000.5


def event(n: int, **more: Any) -> dict[str, Any]:
    """The n-th event of a program of the older system."""
    return {
        "timestamp": START + n,
        "event_type": "mutation",
        "action": "create",
        "source": "core",
        "data": {"n": n},
        **more,
    }


def manager(path: Path, **settings: Any) -> EventPersistenceManager:
    """A manager on a lake in a directory."""
    nested = {"database_path": str(path / "events"), **settings}
    return create_event_persistence({"enable_persistence": True, "persistence": nested})


def stored(path: Path) -> list[int]:
    """The numbers n of the events stored, in order of time."""
    with EventDatabase(str(path / "events")) as database:
        return [row["data"]["n"] for row in database.get_events(limit=10**6)][::-1]


def test_a_program_of_the_older_manager(home: Path) -> None:
    """It starts, queues, reads its statistics and events, stops; a restart finds all of it."""

    async def program() -> None:
        running = manager(home, batch_size=4, batch_timeout=5.0)
        await running.start()
        assert await running.queue_event(event(0))
        assert await running.queue_events_batch([event(n) for n in range(1, 8)]) == 7
        while (await running.get_stats())["queue_size"]:
            await asyncio.sleep(0.01)
        assert len(await running.get_events(event_type="mutation", limit=5)) == 5
        assert [row["data"]["n"] for row in running.get_events(limit=2)] == [7, 6]
        await running.stop()
        assert [row["data"]["n"] for row in await running.get_events(limit=2)] == [7, 6]
        stats = running.get_stats()
        assert (stats["total_stored"], stats["queue_size"], stats["running"]) == (8, 0, False)
        assert stats["database_stats"]["total_events"] == 8
        assert stats["database_stats"]["database_size_mb"] > 0

    asyncio.run(program())
    assert stored(home) == list(range(8))


def test_nothing_is_lost_at_stop(home: Path) -> None:
    """Events are stored at `stop` however far the batch is from full, and those of batches whose
    caller did not wait; equal ones once, also after a restart of the manager."""

    async def program() -> None:
        running = manager(home, batch_size=10**6, batch_timeout=10**6)
        await running.start()
        for n in range(500):
            running.queue_event(event(n))
        running.queue_events_batch([event(n) for n in range(400, 900)])
        await running.stop()
        with pytest.raises(WriterClosed, match="start it again"):
            running.queue_event(event(0))
        await running.start()
        await running.queue_event(event(900))
        await running.queue_event(event(0))
        await running.stop()

    asyncio.run(program())
    assert stored(home) == list(range(901))


def test_a_batch_is_stored_after_its_timeout(home: Path) -> None:
    """A single event does not wait for others longer than batch_timeout."""

    async def program() -> None:
        running = manager(home, batch_size=100, batch_timeout=0.05)
        await running.start()
        await running.queue_event(event(1))
        while not running.get_stats()["total_stored"]:
            await asyncio.sleep(0.01)
        await running.stop()

    asyncio.run(program())


def test_the_caller_waits_for_room_while_the_disk_fails(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a full disk a bounded queue holds its callers up; once there is room all is stored."""
    full = threading.Event()

    def disk(name: str, real: Any, *args: Any, **kwargs: Any) -> Any:
        if full.is_set() and name in ("write_all", "create"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **kwargs)

    async def program() -> None:
        running = manager(home, batch_size=5, batch_timeout=0.01, queue_size=20)
        await running.start()
        await running.queue_event(event(0))
        full.set()
        queued = []

        async def caller() -> None:
            for n in range(1, 200):
                await running.queue_event(event(n))
                queued.append(n)

        task = asyncio.create_task(caller())
        while "No space left" not in running.get_stats()["last_error"] or len(queued) < 19:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert not task.done()
        assert len(queued) < 25
        full.clear()
        await task
        await running.stop()
        assert running.get_stats()["last_error"] == ""

    seam.install(monkeypatch, disk)
    asyncio.run(program())
    monkeypatch.undo()
    assert stored(home) == list(range(200))


def test_a_stop_that_cannot_store_says_so_and_keeps_the_events(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with the reason and the count, batches that wait for room included; after another
    start they are stored."""
    full = threading.Event()

    def disk(name: str, real: Any, *args: Any, **kwargs: Any) -> Any:
        if full.is_set() and name in ("write_all", "create"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **kwargs)

    async def program() -> None:
        running = manager(home, queue_size=20)
        await running.start()
        full.set()
        running.queue_events_batch([event(n) for n in range(300)])
        await asyncio.sleep(0)
        with pytest.raises(OSError, match=r"300 events are not stored yet: .*No space left"):
            await running.stop()
        full.clear()
        await running.start()
        await running.stop()

    monkeypatch.setattr(persistence, "_PATIENCE", 0.2)
    seam.install(monkeypatch, disk)
    asyncio.run(program())
    monkeypatch.undo()
    assert stored(home) == list(range(300))


def test_other_tasks_have_their_turn(home: Path) -> None:
    """Neither a large batch nor a loop that only queues keeps the event loop to itself."""

    async def program() -> None:
        running = manager(home)
        await running.start()
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        task = asyncio.create_task(other())
        await running.queue_events_batch([event(n) for n in range(3000)])
        assert turns >= 3000 // 60
        before = turns
        for n in range(3000):
            await running.queue_event(event(n))
        assert turns - before >= 3000 // 60
        task.cancel()
        await running.stop()

    asyncio.run(program())
    assert stored(home) == list(range(3000))


def test_what_is_no_event_is_quarantined(home: Path) -> None:
    """The caller gets False and no exception; the count and the reason are kept; a change of the
    dict after the call changes nothing."""
    cycle: dict[str, Any] = {"event_type": "e"}
    cycle["data"] = cycle
    bad = [{"data": {}}, event(1, data=object()), cycle, event(2, timestamp="soon"), "text"]

    async def program() -> None:
        running = manager(home)
        await running.start()
        assert [await running.queue_event(e) for e in bad] == [False] * 5  # type: ignore[arg-type]
        good = event(3)
        assert await running.queue_event(good)
        good["data"]["n"] = 4
        assert await running.queue_event(event(5, data={"n": 5, "x": float("nan"), "b": b"\xff"}))
        await running.stop()
        assert running.get_stats()["refused"] == 5

    asyncio.run(program())
    assert stored(home) == [3, 5]
    with lakelog.open(home / "events") as lake:
        rows = lake.sql("SELECT reason, line FROM quarantine").fetchall()
    assert len(rows) == 5
    assert sum("no type" in reason for reason, _ in rows) == 1
    assert json.loads(next(line for reason, line in rows if "date" in reason)) == bad[3]


def test_threads_without_an_event_loop(home: Path) -> None:
    """They queue as tasks do, and wait in the call where there is no room."""
    running = manager(home, batch_size=2, queue_size=3)
    asyncio.run(running.start())
    threads = [
        threading.Thread(
            target=lambda k=k: [running.queue_event(event(n)) for n in range(k, 200, 4)]
        )
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(running.stop())
    assert stored(home) == list(range(200))


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(0)", "1 / 0"])
def test_a_program_that_ends_without_stop_loses_nothing(home: Path, end: str) -> None:
    """At the end of the interpreter, what is queued is stored, also after an exception."""
    program = f"""
import asyncio
from lakelog import create_event_persistence

async def main():
    config = {{"database_path": {str(home / "events")!r}, "batch_timeout": 1000}}
    running = create_event_persistence({{"persistence": config}})
    await running.start()
    for n in range(50):
        event = {{"event_type": "e", "timestamp": 1e9 + n, "data": {{"n": n}}}}
        await running.queue_event(event)
    {end}

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True)
    assert stored(home) == list(range(50))


@pytest.mark.parametrize(("days", "left"), [(30, [2, 2]), (0, [1, 2, 2])])
def test_old_events_are_cleaned_up(
    home: Path, monkeypatch: pytest.MonkeyPatch, days: int, left: list[int]
) -> None:
    """Events older than retention_days are removed in the background; 0 days keep all."""
    monkeypatch.setattr(persistence, "_FIRST_CLEANUP", 0.0)

    with EventDatabase(str(home / "events")) as database:
        database.store_events_batch([event(1), event(2, timestamp=time.time())])

    async def program() -> None:
        made = manager(home, batch_size=1, retention_days=days)
        await made.start()
        await made.queue_event(event(2, timestamp=time.time()))
        while not made.get_stats()["total_stored"] or len(await made.get_events()) > len(left):
            await asyncio.sleep(0.05)
        await made.stop()

    asyncio.run(program())
    assert stored(home) == left


def test_settings(home: Path) -> None:
    """Disabled, nothing is opened or stored; a wrong value is one line that names it."""

    async def program() -> None:
        off = EventPersistenceManager({"enable_persistence": False, "database_path": str(home)})
        await off.start()
        assert await off.queue_event(event(1)) is False
        await off.stop()
        assert off.get_stats()["enabled"] is False

    asyncio.run(program())
    assert list(home.iterdir()) == []
    for settings, said in [
        ({"batch_size": 0}, "batch_size is a number above 0, not 0"),
        ({"batch_timeout": "5"}, "batch_timeout is a number above 0, not '5'"),
        ({"retention_days": -1}, "retention_days is a number above 0"),
    ]:
        with pytest.raises(InvalidSetting, match=said):
            create_event_persistence({"persistence": settings})
    with pytest.raises(InvalidSetting, match="persistence is an object"):
        create_event_persistence({"persistence": "yes"})
    flat = create_event_persistence(
        {"batch_size": 7, "other": 1, "persistence": {"retention_days": 0}}
    )
    assert (flat.config["batch_size"], flat.config["retention_days"]) == (7, 0)
