"""How much of the processor live tails may take: most of it is left to those who store."""

from __future__ import annotations

import asyncio
import time
from collections import deque

_TURN, _BYTE = 200e-6, 8e-9
"""Seconds of its loop's time that a server plans for a chunk and for a byte of one: several times
those that it takes to send them, so that most of the time is left to those who store."""
_AHEAD, _LATE = 0.02, 0.02
"""Seconds that deliveries may be ahead of their plan before they wait; seconds of lateness by which
the loop is known to have too much to do."""
_PRICE_MAX, _PRICE_STEP = 20.0, 1.02
_BUSY_PRICE = 4.0
"""How much higher the price is while the process takes a whole processor, as it does when it stores
all it can."""
_SAMPLE = 0.5
_TICK, _TICK_TURNS = 0.01, 100
"""Seconds after which those are let go on whose time has come, and how many at most."""


class ProcessorUse:
    """How much of a processor this process takes besides the thread that asks, from 0 to 1, as it
    was in the last `_SAMPLE` seconds."""

    def __init__(self) -> None:
        self._share, self._at, self._cpu = 0.0, time.monotonic(), 0.0

    def share(self) -> float:
        """Return it."""
        seconds = time.monotonic() - self._at
        if seconds >= _SAMPLE:
            cpu_seconds = time.process_time() - time.thread_time()
            self._share = min((cpu_seconds - self._cpu) / seconds, 1.0) if self._cpu else 0.0
            self._at, self._cpu = self._at + seconds, cpu_seconds
        return self._share


class TailPace:
    """Spreads what all clients together are sent over time: with many clients, much of what comes
    could take all of the loop. Who gets too little is slow, and catches up. Where the loop is late,
    by other work or on a busy machine, a delivery has a higher price, and while much is stored.

    Those who wait stand in one queue, which one timer moves on: a timer of each client's own would
    cost more than what it is sent."""

    def __init__(self) -> None:
        self._free_at, self._price, self._lowest = 0.0, 1.0, 1.0
        self._use = ProcessorUse()
        self._queue: deque[tuple[float, asyncio.Future[bool]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._is_ended = False

    def turn(self, size: int) -> asyncio.Future[bool] | None:
        """Plan a delivery of so many bytes; return what is settled when it may begin, None for at
        once. To settle it earlier ends the wait."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        begins = max(self._free_at, now)
        self._free_at = begins + (_TURN + size * _BYTE) * self._price
        if self._is_ended or (not self._queue and begins - now < _AHEAD):
            self._lowest = 1.0 + _BUSY_PRICE * self._use.share() ** 2
            self._price = max(self._price / _PRICE_STEP, self._lowest)
            return None
        waiter: asyncio.Future[bool] = loop.create_future()
        self._queue.append((begins, waiter))
        if self._timer is None:
            self._timer = loop.call_later(_TICK, self._release)
        return waiter

    def end(self) -> None:
        """Let all go on who wait, and whoever comes, as the server stops."""
        self._is_ended = True
        while self._queue:
            settle(self._queue.popleft()[1], True)

    def _release(self) -> None:
        """Let those go on whose time has come: no more than may keep others waiting for long."""
        loop, queue = asyncio.get_running_loop(), self._queue
        now = loop.time()
        self._lowest = 1.0 + _BUSY_PRICE * self._use.share() ** 2
        for _ in range(_TICK_TURNS):
            if not queue or queue[0][0] > now:
                break
            begins, waiter = queue.popleft()
            # By small steps up and down, so that it stays where the loop is just in time.
            self._price *= _PRICE_STEP if now - begins > _LATE else 1 / _PRICE_STEP
            self._price = min(max(self._price, self._lowest), _PRICE_MAX)
            settle(waiter, True)
        self._timer = loop.call_later(_TICK, self._release) if queue else None


def settle(waiter: asyncio.Future[bool], is_news: bool) -> None:
    """Let one client go on."""
    if not waiter.done():
        waiter.set_result(is_news)
