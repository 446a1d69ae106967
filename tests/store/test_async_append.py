"""lake.aappend: durable appends that an event loop awaits."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import lakelog
from lakelog.disk import disk
from lakelog.errors import InvalidEvent, WriterClosed
from tests.conftest import MakeLake


def test_an_awaited_append_is_durable(make_lake: MakeLake) -> None:
    """One event, many, and content dedupe, as with `append`."""
    lake = make_lake()

    async def main() -> list[lakelog.Receipt]:
        one = await lake.aappend({"type": "A", "id": "given"})
        many = await lake.aappend([{"type": "B", "data": {"n": n}} for n in range(5_000)])
        again = await lake.aappend({"type": "C"}, dedupe="content")
        await lake.aappend({"type": "C"}, dedupe="content")
        return [one, many, again]

    one, many, again = asyncio.run(main())
    assert (one.count, many.count, again.count) == (1, 5_000, 1)
    assert one.ids == ["given"]
    assert len(set(many.ids)) == 5_000
    assert make_lake().count() == 5_002


def test_concurrent_tasks_share_syncs(make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand tasks that append at once cost few syncs, and each gets its own receipt."""
    lake = make_lake()
    lake.append({"type": "FIRST"})
    syncs, sync = [], disk.sync_file
    monkeypatch.setattr(disk, "sync_file", lambda fd: (syncs.append(fd), sync(fd)))

    async def main() -> list[lakelog.Receipt]:
        events = ({"type": "T", "source": "s", "data": {"n": n}} for n in range(1_000))
        return await asyncio.gather(*(lake.aappend(event) for event in events))

    receipts = asyncio.run(main())
    assert len(syncs) < 100
    assert all(receipt.count == 1 for receipt in receipts)
    query = (
        "SELECT origin || ':' || position FROM events WHERE type = 'T' ORDER BY (data->>'n')::INT"
    )
    assert [i for r in receipts for i in r.ids] == [i for (i,) in lake.sql(query).fetchall()]


def test_the_loop_goes_on_while_the_disk_syncs(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tasks run although the disk hangs."""
    lake = make_lake()
    lake.append({"type": "FIRST"})
    released, sync = threading.Event(), disk.sync_file

    def hang(fd: int) -> None:
        assert released.wait(240)
        sync(fd)

    monkeypatch.setattr(disk, "sync_file", hang)

    async def main() -> int:
        append = asyncio.create_task(lake.aappend({"type": "A"}))
        ticks = 0
        while ticks < 20:
            await asyncio.sleep(0.001)
            assert not append.done()
            ticks += 1
        released.set()
        await append
        return ticks

    assert asyncio.run(main()) == 20
    assert make_lake().count() == 2


def test_an_error_is_raised_where_it_is_awaited(make_lake: MakeLake) -> None:
    """Events that are none, and a lake that was closed."""
    lake = make_lake()

    async def main() -> None:
        with pytest.raises(InvalidEvent, match="no type"):
            await lake.aappend({"source": "x"})
        with pytest.raises(InvalidEvent, match="dedupe"):
            await lake.aappend({"type": "A"}, dedupe="all")
        lake.close()
        results: list[Any] = await asyncio.gather(
            *(lake.aappend({"type": "A"}) for _ in range(10)), return_exceptions=True
        )
        assert {type(result) for result in results} == {WriterClosed}

    asyncio.run(main())


def test_a_cancelled_append_leaves_the_others_alone(make_lake: MakeLake) -> None:
    """Those that were grouped with it are stored and return."""
    lake = make_lake()

    async def main() -> None:
        tasks = [asyncio.create_task(lake.aappend({"type": "A"})) for _ in range(10)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(r, lakelog.Receipt) for r in results].count(True) >= 9

    asyncio.run(main())
    assert make_lake().count() >= 9


def test_the_end_of_the_loop_waits_for_what_runs(make_lake: MakeLake) -> None:
    """A task that nobody awaits any more is stored, as the loop's executor ends its work."""
    lake = make_lake()

    async def main() -> None:
        task = asyncio.create_task(lake.aappend({"type": "A"}))
        await asyncio.sleep(0)
        del task

    asyncio.run(main())
    deadline = time.monotonic() + 240
    while not lake.count() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lake.count() == 1
