"""A thread that reads much for an agent: one at a time, whoever asks, and until it has ended.

The threads of the loop's executor also parse what senders send and look after the lake: agents
that ask again and again, or leave, must not take them all. What reads cannot be ended, so it keeps
no process from ending either (a daemon).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future

from lakelog.server.sql.query_limits import QueryRefused
from lakelog.values import JsonObject


class LoneReader:
    """Runs one function at a time, each in a thread of its own."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    @property
    def is_busy(self) -> bool:
        """Whether a function runs, though nobody may wait for it any more."""
        return self._turn.locked()

    async def run(self, work: Callable[[], JsonObject]) -> JsonObject:
        """Return what a function returns. Raises QueryRefused where another one runs."""
        if not self._turn.acquire(blocking=False):
            raise QueryRefused("busy", "a diff or an audit is running", "ask again later", 429)
        future = Future[JsonObject]()
        # From here it cannot be cancelled: only who waits for it can leave.
        future.set_running_or_notify_cancel()

        def answer() -> None:
            try:
                answered = work()
            except BaseException as error:
                self._turn.release()
                future.set_exception(error)
            else:
                # Before it is told: whoever has the answer may ask for the next one.
                self._turn.release()
                future.set_result(answered)

        threading.Thread(target=answer, name="lakelog-agent", daemon=True).start()
        return await asyncio.wrap_future(future)
