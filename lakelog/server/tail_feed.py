"""The live tail of one lake: a reader for each condition, and a ring that its clients read from.

All clients with the same condition stand at places of one ring, which is bounded: one that reads
too slowly for it drops out, alone, and catches up from its own position by pages that the reader
reads between its own, until it stands where the ring is again. So a client costs a place, not a
queue.

A reader is a thread. What it made reaches the loop by calls in order, so that the ring belongs to
the loop alone and needs no lock.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakelog.errors import LakelogError
from lakelog.libraries import pa
from lakelog.server.limits import ServerLimits
from lakelog.server.tail_chunks import TailChunk, chunks_of, state_chunk

if TYPE_CHECKING:
    from lakelog.store.tail import PendingFrames
    from lakelog.subscriptions import BranchRewound, LivePages

_LOG = logging.getLogger("lakelog.server")
_PAGE = 2_000
"""Events of a page."""
_PAGES = 4
"""Pages that are remembered for other clients at the same place."""
_GAP, _GAP_CLIENT, _GAP_MAX, _SHARE = 0.01, 0.0001, 0.5, 4
"""Seconds between two looks at a lake in which much happens: more, the more clients there are, and
at least so many times those that a look takes."""


@dataclass(frozen=True)
class CaughtUp:
    """What follows a position, and the place in the ring behind it, None where more follows."""

    chunks: tuple[TailChunk, ...]
    position: str
    place: int | None


@dataclass(frozen=True)
class _Request:
    position: str
    answer: asyncio.Future[CaughtUp]


class TailFeed:
    """The events of one condition for its clients. All but the reader runs in the loop."""

    def __init__(self, open_pages: Callable[[], LivePages], limits: ServerLimits) -> None:
        self._open_pages, self._limits = open_pages, limits
        self._loop = asyncio.get_running_loop()
        self._chunks: deque[TailChunk] = deque()
        self.first, self._bytes = 0, 0
        self._waiting: set[asyncio.Future[bool]] = set()
        self._inbox: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._is_noted, self._is_done, self._is_ended = False, False, threading.Event()
        self._asked: list[_Request] = []
        self._recent: OrderedDict[tuple[str, int], CaughtUp] = OrderedDict()
        self.clients = 0
        self.position = ""
        """Where the ring ends."""
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="lakelog-tail", daemon=True)
        self._thread.start()

    # The side of the loop.

    async def catch_up(self, position: str) -> CaughtUp:
        """Return what follows a position. Raises LakelogError, OSError."""
        answer: asyncio.Future[CaughtUp] = self._loop.create_future()
        self._inbox.put(_Request(position, answer))
        if self._is_done:  # it may not have been seen any more
            answer.cancel()
            raise self.failure or LakelogError("the server is stopping")
        return await answer

    def at(self, place: int) -> TailChunk | None:
        """The chunk at a place; None where there is none yet, or none any more."""
        index = place - self.first
        return self._chunks[index] if 0 <= index < len(self._chunks) else None

    async def wait(self, waiter: asyncio.Future[bool], seconds: float) -> bool:
        """Wait until there is something more, and return True, or so many seconds. To settle the
        future ends it, too."""
        self._waiting.add(waiter)
        timer = self._loop.call_later(seconds, settle, waiter, False)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiting.discard(waiter)

    @property
    def is_ended(self) -> bool:
        """Whether nothing more comes."""
        return self._is_ended.is_set() or self.failure is not None

    def notify(self) -> None:
        """Let the reader look at the lake; any thread may call it."""
        if not self._is_noted:
            self._is_noted = True
            self._inbox.put(None)

    def end(self) -> None:
        """Let clients and reader end."""
        self._is_ended.set()
        self._inbox.put(None)
        self._wake()

    @property
    def is_alive(self) -> bool:
        """Whether its reader still runs."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait until the reader has ended."""
        self._thread.join()

    def _publish(self, chunks: tuple[TailChunk, ...], position: str) -> None:
        for chunk in chunks:
            self._chunks.append(chunk)
            self._bytes += chunk.size
        while self._bytes > self._limits.tail_bytes and len(self._chunks) > 1:
            self._bytes -= self._chunks.popleft().size
            self.first += 1
        self.position = position
        if chunks:
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            settle(waiter, True)

    # The side of the reader.

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:
            if not isinstance(error, (LakelogError, OSError)):
                _LOG.exception("tail")
            self.failure = error
            self._call(self._wake)
        self._is_done = True
        failure = self.failure or LakelogError("the server is stopping")
        waiting = [self._inbox.get() for _ in range(self._inbox.qsize())]
        for request in (*self._asked, *waiting):
            if request is not None:
                self._call(_refuse, request.answer, failure)

    def _read(self) -> None:
        pages = self._open_pages()
        position = "end"
        end = 0
        while not self._is_ended.is_set():
            self._take_requests()
            clock = time.monotonic()
            pending = pages.pending()
            began = end
            while not self._is_ended.is_set():
                page = pages.page(position, pending, _PAGE)
                position = page.position
                chunks = _chunks(page.events, page.positions, page.rewound, position)
                end += len(chunks)
                self._call(self._publish, chunks, position)
                if page.is_end:
                    break
            for request in self._asked:
                self._answer(pages, request, pending, end)
            if end > began or not self._asked:
                # Most of the time is left to those who store.
                pause = max(_GAP + _GAP_CLIENT * self.clients, _SHARE * (time.monotonic() - clock))
                self._is_ended.wait(min(pause, _GAP_MAX))

    def _take_requests(self) -> None:
        """Wait for something to do; one look is enough for all clients that wait for a page."""
        inbox = [self._inbox.get()]
        self._is_noted = False
        while not self._inbox.empty():
            inbox.append(self._inbox.get())
        self._asked = [request for request in inbox if request is not None]

    def _answer(
        self, pages: LivePages, request: _Request, pending: PendingFrames, end: int
    ) -> None:
        """Read a page for a client; the ring stands behind all that is pending."""
        key = request.position, end
        answer = self._recent.get(key)
        if answer is None:
            try:
                page = pages.page(request.position, pending, _PAGE)
            except (LakelogError, OSError) as error:
                self._call(_refuse, request.answer, error)
                return
            place = end if page.is_end else None
            chunks = _chunks(page.events, page.positions, page.rewound, page.position)
            answer = CaughtUp(chunks, page.position, place)
            self._recent[key] = answer
            if len(self._recent) > _PAGES:
                self._recent.popitem(last=False)
        self._call(_settle_with, request.answer, answer)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop was closed meanwhile
            self._is_ended.set()


def _chunks(
    events: pa.Table, positions: list[str], rewound: BranchRewound | None, end: str
) -> tuple[TailChunk, ...]:
    return tuple(chunks_of(events, positions)) if rewound is None else (state_chunk(rewound, end),)


def settle(waiter: asyncio.Future[bool], is_news: bool) -> None:
    """Let one client go on."""
    if not waiter.done():
        waiter.set_result(is_news)


def _settle_with(answer: asyncio.Future[CaughtUp], result: CaughtUp) -> None:
    if not answer.done():
        answer.set_result(result)


def _refuse(answer: asyncio.Future[CaughtUp], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
