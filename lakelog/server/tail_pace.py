"""How much of the processor live tails may take: most of it is left to those who store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

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
_NAP = 1.0


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
    by other work or on a busy machine, a delivery has a higher price, and while much is stored."""

    def __init__(self) -> None:
        self._free_at, self._price = 0.0, 1.0
        self._use = ProcessorUse()

    async def turn(self, size: int, is_over: Callable[[], bool]) -> None:
        """Wait until a chunk of so many bytes may be sent, or there is nothing to wait for."""
        loop = asyncio.get_running_loop()
        lowest = 1.0 + _BUSY_PRICE * self._use.share() ** 2
        begins = max(self._free_at, loop.time())
        self._free_at = begins + (_TURN + size * _BYTE) * self._price
        if begins - loop.time() < _AHEAD:
            self._price = max(self._price / _PRICE_STEP, lowest)
            return
        while (pause := begins - loop.time()) > 0 and not is_over():
            await asyncio.sleep(min(pause, _NAP))
        is_late = loop.time() - begins > _LATE
        self._price *= _PRICE_STEP if is_late else 1 / _PRICE_STEP
        self._price = min(max(self._price, lowest), _PRICE_MAX)
