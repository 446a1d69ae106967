"""The pace of live tails: who waits for a turn gets it, in order, or goes when it wants to."""

from __future__ import annotations

import asyncio

from lakelog.server.tail_pace import TailPace, settle

CHUNK = 1 << 20


def planned(pace: TailPace, count: int) -> list[asyncio.Future[bool]]:
    """The waiters of so many deliveries at once, without those that may begin as they come."""
    turns = [pace.turn(CHUNK) for _ in range(count)]
    waiters = [turn for turn in turns if turn is not None]
    assert 0 < len(waiters) < count
    return waiters


def test_turns_come_in_order_and_to_all() -> None:
    async def order_of_turns() -> list[int]:
        waiters, order = planned(TailPace(), 40), list[int]()
        for number, waiter in enumerate(waiters):
            waiter.add_done_callback(lambda _, number=number: order.append(number))
        await asyncio.gather(*waiters)
        return order

    order = asyncio.run(order_of_turns())
    assert order == list(range(len(order)))


def test_who_leaves_keeps_nobody_behind_it() -> None:
    async def leave() -> None:
        first, *others = planned(TailPace(), 20)
        settle(first, True)
        await asyncio.gather(*others)

    asyncio.run(leave())


def test_all_go_on_when_the_server_stops() -> None:
    async def stop() -> None:
        pace = TailPace()
        waiters = planned(pace, 1_000)
        pace.end()
        assert all(waiter.done() for waiter in waiters)
        # Who has just begun does not wait behind what was planned for the others.
        assert pace.turn(CHUNK) is None

    asyncio.run(stop())
