"""Appends of asyncio programs: the loop never waits for the disk, and those who wait share a sync.

An append is encoded in the loop if it is small, then left to a thread of the loop's executor. That
stores all that wait, together, until nobody does; so a thousand tasks that append at once cost few
syncs, and one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from lakelog.appends.receipt import Receipt
from lakelog.event import EncodedBatch
from lakelog.runtime import forks
from lakelog.runtime.living import Living

_INLINE = 100
"""A batch of more events is encoded in the executor, too."""
LabelType = TypeVar("LabelType")


@dataclass(frozen=True)
class _Waiting(Generic[LabelType]):
    encoded: EncodedBatch
    tag: LabelType
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Receipt]


class AsyncAppends(Generic[LabelType]):
    """Collects the appends of all tasks and loops; `store` is durable when it returns.

    `announce` is called with what is stored together, before it is.
    """

    def __init__(
        self,
        store: Callable[[EncodedBatch], Receipt],
        announce: Callable[[list[tuple[LabelType, EncodedBatch]]], None] | None = None,
    ) -> None:
        self._store_now, self._announce = store, announce
        self._reset()
        _ALL.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Waiting[LabelType]] = []
        self._is_running = False

    async def append(self, events: list[Any], dedupe: str | None, tag: LabelType) -> Receipt:
        """Store events; return once they are durable. Raises what `Lake.append` does."""
        loop = asyncio.get_running_loop()
        if len(events) <= _INLINE:
            encoded = EncodedBatch.of(events, dedupe)
        else:
            encoded = await loop.run_in_executor(None, partial(EncodedBatch.of, events, dedupe))
        return await self.store(encoded, tag)

    async def store(self, encoded: EncodedBatch, tag: LabelType) -> Receipt:
        """Store encoded events, as `append` does."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Receipt] = loop.create_future()
        with self._lock:
            self._waiting.append(_Waiting(encoded, tag, loop, future))
            starts, self._is_running = not self._is_running, True
        if starts:
            loop.run_in_executor(None, self._run)
        return await future

    def _run(self) -> None:
        while True:
            with self._lock:
                group, self._waiting = self._waiting, []
                if not group:
                    self._is_running = False
                    return
            batches = [waiting.encoded for waiting in group]
            try:
                if self._announce is not None:
                    self._announce([(waiting.tag, waiting.encoded) for waiting in group])
                outcomes: list[Any] = _split(self._store_now(_merged(batches)), batches)
            except BaseException as error:
                outcomes = [error] * len(group)
            # One call for all of a loop: each wakes it up.
            for loop in {waiting.loop for waiting in group}:
                settled = [
                    (waiting.future, outcome)
                    for waiting, outcome in zip(group, outcomes, strict=True)
                    if waiting.loop is loop
                ]
                with contextlib.suppress(RuntimeError):  # a loop that was closed meanwhile
                    loop.call_soon_threadsafe(_settle_all, settled)


_ALL: Living[AsyncAppends[Any]] = Living()


def _after_fork() -> None:
    for appends in _ALL:
        appends._reset()


forks.after_in_child(_after_fork)


def _settle_all(settled: list[tuple[asyncio.Future[Receipt], Any]]) -> None:
    for future, outcome in settled:
        _settle(future, outcome)


def _settle(future: asyncio.Future[Receipt], outcome: Any) -> None:
    if future.done():  # its task was cancelled; the events are stored all the same
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _merged(batches: list[EncodedBatch]) -> EncodedBatch:
    if len(batches) == 1:
        return batches[0]
    payload = b"\n".join([batch.text for batch in batches if batch.ids])
    ids = [event_id for batch in batches for event_id in batch.ids]
    return EncodedBatch(payload, ids, any(batch.keyed for batch in batches))


def _split(receipt: Receipt, batches: list[EncodedBatch]) -> list[Receipt]:
    """Give each batch the receipt of its own events."""
    if len(batches) == 1:
        return [receipt]
    # Those of a frame follow each other.
    place = (
        receipt.places[0] if len(receipt.places) == 1 else list(itertools.chain(*receipt.places))
    )
    ends = list(itertools.accumulate([len(batch.ids) for batch in batches], initial=0))
    return [
        Receipt(batch.ids, receipt.origin, [place[start:end]])
        for batch, (start, end) in zip(batches, itertools.pairwise(ends), strict=True)
    ]
