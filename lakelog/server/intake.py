"""Storing what requests bring: an answer is given once all of it is on disk.

Requests that come at the same time share a write and a sync. The same request, sent again within
ten minutes because its answer was lost, gets the first answer again and is not stored again; one
that comes while the first is being stored waits for it. Records that are no events are in the
quarantine before the answer tells of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from lakelog.lake import Lake
from lakelog.server.arrivals import Arrivals, RequestRefused
from lakelog.server.limits import ServerLimits
from lakelog.store.async_append import AsyncAppends

_INLINE = 1 << 16
"""Bodies of fewer bytes are parsed in the loop: a thread would cost more."""
_RETRY_SECONDS = "1"
AnswerType = TypeVar("AnswerType")


class EventIntake(Generic[AnswerType]):
    """Stores the bodies of one server. Its methods run in one event loop."""

    def __init__(self, lake: Lake, limits: ServerLimits) -> None:
        self._lake, self._limits = lake, limits
        self._appends = AsyncAppends(lake.append_encoded)
        self._waiting_bytes = 0
        self._answers: OrderedDict[bytes, tuple[float, asyncio.Future[AnswerType]]] = OrderedDict()
        self.stored = self.rejects = self.repeated = 0

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Reserve memory for a body. Raises RequestRefused if there is none left."""
        if self._waiting_bytes and self._waiting_bytes + size > self._limits.waiting_bytes:
            raise RequestRefused(
                429, "too much waits to be stored: try again", {"Retry-After": _RETRY_SECONDS}
            )
        self._waiting_bytes += size
        try:
            yield
        finally:
            self._waiting_bytes -= size

    async def once(
        self,
        identity: tuple[str, ...],
        body: bytes,
        parse: Callable[[], Arrivals],
        answer: Callable[[Arrivals], AnswerType],
    ) -> AnswerType:
        """Store a body once, and return its answer; `identity` tells requests of equal bodies
        apart. Raises RequestRefused, OSError, LakelogError: then it may be sent again."""
        self._forget()
        key = hashlib.sha256("\0".join(identity).encode() + b"\0" + body).digest()
        earlier = self._answers.get(key)
        if earlier is not None:
            self.repeated += 1
            return await asyncio.shield(earlier[1])
        future: asyncio.Future[AnswerType] = asyncio.get_running_loop().create_future()
        self._answers[key] = time.monotonic(), future
        # It goes on where a client goes away, who may come again for the answer.
        try:
            result = await self._stored(body, parse, answer)
        except BaseException as error:
            self._answers.pop(key, None)
            future.set_exception(error)
            future.exception()  # nobody may wait for it
            raise
        future.set_result(result)
        return result

    async def _stored(
        self, body: bytes, parse: Callable[[], Arrivals], answer: Callable[[Arrivals], AnswerType]
    ) -> AnswerType:
        loop = asyncio.get_running_loop()
        result = parse() if len(body) < _INLINE else await loop.run_in_executor(None, parse)
        if result.encoded.ids:
            await self._appends.store(result.encoded)
        if result.rejects:
            await loop.run_in_executor(None, self._set_aside, result)
        self.stored += result.stored
        self.rejects += len(result.rejects)
        return answer(result)

    def _set_aside(self, result: Arrivals) -> None:
        self._lake.quarantine(
            [("http", reject.number, reject.reason, reject.record) for reject in result.rejects]
        )

    def _forget(self) -> None:
        """Forget answers that are too old to be ingest_request for again."""
        until = time.monotonic() - self._limits.remembered_seconds
        while self._answers:
            began, future = next(iter(self._answers.values()))
            if began > until or not future.done():
                return
            self._answers.popitem(last=False)
