"""The live tail of one lake: a reader for each condition, and a ring that its clients read from.

All clients with the same condition stand at places of one ring, which is bounded: one that reads
too slowly for it drops out, alone, and catches up from its own position by chunks of pages that the
reader reads between its own, until it stands where the ring is again. So a client costs a place,
not a queue. What a page has is kept for a moment for those who come to the same position.

The ring is read on for who has come to its end: if all are slower than what arrives, nothing is
made that nobody can be sent. Who then begins at the end of the lake begins the ring there anew.

A reader is a thread. What it made reaches the loop by calls in order, so that the ring belongs to
the loop alone and needs no lock.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import math
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import orjson

from lakelog.errors import LakelogError
from lakelog.libraries import pa
from lakelog.query import NewestEvents
from lakelog.render import ColumnBatch, QueryResult
from lakelog.server.limits import ServerLimits
from lakelog.server.tail_pace import ProcessorUse, settle
from lakelog.subscriptions import BranchRewound, LivePages
from lakelog.wal import PendingFrames

CHUNK_BYTES = 1 << 15
_DATA = NewestEvents.COLUMNS.index("data")
RETRY_MS = 2_000


@dataclass(frozen=True)
class TailChunk:
    """Events as JSON with the position behind each, or news that is no event: what is sent at a
    time, made once for all clients that stand where it begins.

    As server-sent events each event has its position as `id`, so that a client that is cut off
    anywhere goes on behind the last one it has; as a message of a WebSocket, which comes whole or
    not at all, a chunk has one.
    """

    positions: tuple[str, ...]
    lines: tuple[bytes, ...]
    name: str = ""
    """The type of the event for the client; empty for an event of the lake."""

    @functools.cached_property
    def server_sent(self) -> bytes:
        """The chunk as server-sent events; an `id` without data is remembered and no event."""
        if not self.lines:
            return b":\nid: %b\n\n" % self.positions[0].encode()
        head = f"event: {self.name}\n".encode() if self.name else b""
        return b"".join(
            b"%bid: %b\ndata: %b\n\n" % (head, position.encode(), line)
            for position, line in zip(self.positions, self.lines, strict=True)
        )

    @functools.cached_property
    def message(self) -> str:
        """The chunk as one message of a WebSocket."""
        if not self.lines:
            return f'{{"id":"{self.positions[0]}"}}'
        content = self.lines[0] if self.name else b"[" + b",".join(self.lines) + b"]"
        member = (self.name or "events").encode()
        return (b'{"id":"%b","%b":%b}' % (self.positions[-1].encode(), member, content)).decode()

    @functools.cached_property
    def size(self) -> int:
        """Bytes of its text, roughly."""
        return sum(map(len, self.lines)) + sum(map(len, self.positions))


def chunks_of(events: pa.Table, positions: Sequence[str]) -> Iterator[TailChunk]:
    """Yield what a table of events becomes, with the position behind each."""
    lines, size, start = list[bytes](), 0, 0
    for line, position in zip(_lines(events), positions, strict=True):
        if lines and size + len(line) > CHUNK_BYTES:
            yield TailChunk(tuple(positions[start : start + len(lines)]), tuple(lines))
            start, lines, size = start + len(lines), [], 0
        lines.append(line)
        size += len(line) + len(position)
    if lines:
        yield TailChunk(tuple(positions[start:]), tuple(lines))


def state_chunk(rewound: BranchRewound, position: str) -> TailChunk:
    """What tells that the branch was taken to another state: how, which, and how many events it
    has. What follows came after it."""
    news = {"op": rewound.op, "snapshot": rewound.snapshot, "events": rewound.events}
    return TailChunk((position,), (orjson.dumps(news),), "state")


def behind_chunk(position: str) -> TailChunk:
    """What tells a client that it reads more slowly than events come, and goes on from here."""
    return TailChunk((position,), (b'{"reason":"slow"}',), "behind")


def quiet_chunk(position: str) -> TailChunk:
    """What tells a client where it stands, and that the server is there."""
    return TailChunk((position,), ())


def failure_chunk(position: str, reason: str) -> TailChunk:
    """What tells a client why its stream ends."""
    return TailChunk((position,), (orjson.dumps({"error": reason}),), "failure")


def _lines(events: pa.Table) -> list[bytes]:
    """Each event of a table as JSON in one line."""
    if not events.num_rows:
        return []
    columns = list(NewestEvents.COLUMNS)
    result = QueryResult(columns, map(ColumnBatch, events.to_batches()), (_DATA,))
    return b"".join(result.encode("ndjson")).split(b"\n")[:-1]


_LOG = logging.getLogger("lakelog.server")
_PAGE = 2_000
"""Events of a page."""
_CACHE_SECONDS = 30.0
"""How long a chunk is kept for other clients at the same position."""
_PAGE_SHARE = 8
"""The part of the ring's bytes that a page may have for clients that catch up. Chunks are kept for
whoever asks next, half of the ring's bytes: a page that is larger would push its own first ones
out, and be made again for each."""
_SEAL_SECONDS, _SEAL_LOOK = 3.0, 0.2
"""How long events are left until they are sealed, if they come faster than they can be shown."""
_LOOK_SHARE, _LOOK_SECONDS = 4, 0.05
"""A look makes no more than this share of the ring, and ends at a page after so many seconds of a
processor."""
_JOIN_SECONDS = 0.1
_GAP, _GAP_CLIENT, _SHARE, _BUSY_SHARE = 0.01, 0.0001, 1, 9
"""Seconds between two looks at a lake in which much happens: more, the more clients there are, and
at least so many times those of a processor that a look takes, while nothing and all it can is
stored."""


@dataclass(frozen=True)
class CaughtUp:
    """What follows a position next, and the place in the ring behind it, None where more follows;
    `expires` in time of the loop."""

    chunk: TailChunk | None
    position: str
    place: int | None
    expires: float = 0.0

    @property
    def size(self) -> int:
        """Bytes of its chunk."""
        return 0 if self.chunk is None else self.chunk.size


@dataclass
class _RingEnd:
    """Where the reader is with the ring: the position behind it, `end` before the first look, and
    the place."""

    position: str = "end"
    place: int = 0


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
        self._asked: dict[str, list[_Request]] = {}
        self._answers: set[asyncio.Future[CaughtUp]] = set()
        self._cache: OrderedDict[str, CaughtUp] = OrderedDict()
        self._cache_bytes = 0
        self._page = _PAGE
        """Events of a page for clients that catch up, by the size of those of the last one."""
        self._is_stale = False
        """Whether more has arrived than the ring has; set by the reader."""
        self.clients = 0
        self.position = ""
        """Where the ring ends."""
        self.failure: Exception | None = None
        self._pages: LivePages | None = None
        self._thread = threading.Thread(target=self._run, name="lakelog-tail", daemon=True)
        self._thread.start()

    # The side of the loop.

    async def catch_up(self, position: str) -> CaughtUp:
        """Return what follows a position: a chunk that was read lately for another client at once,
        else the next page, for which the reader is asked. Raises LakelogError, OSError; also when
        the feed ends meanwhile."""
        hit = self._cache.get(position)
        if hit is not None and hit.expires > self._loop.time():
            return hit
        answer: asyncio.Future[CaughtUp] = self._loop.create_future()
        self._inbox.put(_Request(position, answer))
        if self._is_done:  # it may not have been seen any more
            answer.cancel()
            raise self.failure or LakelogError("the server is stopping")
        self._answers.add(answer)
        try:
            return await answer
        finally:
            self._answers.discard(answer)

    def at(self, place: int) -> TailChunk | None:
        """The chunk at a place; None where there is none yet, or none any more."""
        index = place - self.first
        return self._chunks[index] if 0 <= index < len(self._chunks) else None

    async def wait(self, waiter: asyncio.Future[bool], seconds: float) -> bool:
        """Wait until there is something more, and return True, or so many seconds. To settle the
        future ends it, too."""
        self._waiting.add(waiter)
        if self._is_stale:
            self.notify()
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
        self._interrupt()
        self._wake()
        for answer in self._answers:  # what they wait for may take long
            _refuse(answer, LakelogError("the server is stopping"))

    @property
    def is_alive(self) -> bool:
        """Whether its reader still runs."""
        return self._thread.is_alive()

    def join(self, until: float) -> None:
        """Wait until the reader has ended, but not longer than until a time of the monotonic clock:
        it may try a condition with much that is long."""
        while self._thread.is_alive() and time.monotonic() < until:
            self._interrupt()  # again: one that comes between two steps of the engine is lost
            self._thread.join(_JOIN_SECONDS)

    def _interrupt(self) -> None:
        if self._pages is not None:
            self._pages.interrupt()

    def _publish(self, chunks: tuple[TailChunk, ...], position: str) -> None:
        for chunk in chunks:
            self._chunks.append(chunk)
            self._bytes += chunk.size
        # The newest chunk stays, however large it is: clients at its place could not get it else.
        while self._bytes > self._limits.tail_bytes and len(self._chunks) > 1:
            self._bytes -= self._chunks.popleft().size
            self.first += 1
        self.position = position
        if chunks:
            self._wake()

    def _begin_anew(self, place: int, position: str) -> None:
        """Let the ring begin at a place: who stands before it catches up."""
        self._chunks.clear()
        self.first, self._bytes, self.position = place, 0, position
        self._wake()

    def _give(self, position: str, requests: list[_Request], follows: list[CaughtUp]) -> None:
        """Let clients go on with what a page has behind a position, and keep it for others."""
        for answer in follows:
            if answer.size and "-" in position:  # and no name of a place that moves
                if (older := self._cache.pop(position, None)) is not None:
                    self._cache_bytes -= older.size
                expires = self._loop.time() + _CACHE_SECONDS
                self._cache[position] = replace(answer, expires=expires)
                self._cache_bytes += answer.size
            position = answer.position
        while self._cache_bytes > self._limits.tail_bytes // 2:
            _, oldest = self._cache.popitem(last=False)
            self._cache_bytes -= oldest.size
        for request in requests:
            if not request.answer.done():
                request.answer.set_result(follows[0])

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            settle(waiter, True)

    # The side of the reader.

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:
            if not self._is_ended.is_set():  # else it was interrupted
                if not isinstance(error, (LakelogError, OSError)):
                    _LOG.exception("tail")
                self.failure = error
                self._call(self._wake)
        self._is_done = True
        failure = self.failure or LakelogError("the server is stopping")
        waiting = [self._inbox.get() for _ in range(self._inbox.qsize())]
        asked = itertools.chain(*self._asked.values(), waiting)
        for request in asked:
            if request is not None:
                self._call(_refuse, request.answer, failure)

    def _read(self) -> None:
        self._pages = pages = self._open_pages()
        ring, before, use = _RingEnd(), None, ProcessorUse()
        patient_until = math.inf
        while not self._is_ended.is_set():
            self._take_requests()
            clock, began = time.monotonic(), time.thread_time()
            pending = pages.pending()
            # Told before it is looked at, so that whoever comes to the end meanwhile notifies.
            self._is_stale = True
            is_patient = not self._asked and clock < patient_until
            if self._waiting or ring.position == "end":
                if self._read_on(pages, pending, ring, is_patient=is_patient):
                    patient_until = min(patient_until, clock + _SEAL_SECONDS)
                    self._is_ended.wait(_SEAL_LOOK)
                else:
                    patient_until = math.inf
            for position, requests in self._asked.items():
                self._answer(pages, pending, ring, position, requests)
            if pending is not before:
                # Most of the processor is left to those who store.
                share = _SHARE + (_BUSY_SHARE - _SHARE) * use.share()
                pause = share * (time.thread_time() - began)
                self._is_ended.wait(max(_GAP + _GAP_CLIENT * self.clients, pause))
            before = pending
            if self._is_stale and self._waiting:
                self.notify()

    def _take_requests(self) -> None:
        """Wait for something to do; one look is enough for all clients that wait for a page."""
        inbox = [self._inbox.get()]
        self._is_noted = False
        while not self._inbox.empty():
            inbox.append(self._inbox.get())
        self._asked = {}
        for request in inbox:
            if request is not None:
                self._asked.setdefault(request.position, []).append(request)

    def _read_on(
        self, pages: LivePages, pending: PendingFrames, ring: _RingEnd, *, is_patient: bool
    ) -> bool:
        """Read the ring on to the end of what is pending, but no more than clients may be sent in a
        moment; return whether it waits until events are sealed."""
        size, until = 0, time.thread_time() + _LOOK_SECONDS
        while size < self._limits.tail_bytes // _LOOK_SHARE and time.thread_time() < until:
            page = pages.page(ring.position, pending, _PAGE, is_patient=is_patient)
            ring.position = page.position
            chunks = _chunks(page.events, page.positions, page.rewound, page.position)
            ring.place += len(chunks)
            size += sum(chunk.size for chunk in chunks)
            self._call(self._publish, chunks, page.position)
            if page.is_end:
                self._is_stale = False
            if page.is_end or page.awaits_seal:
                return page.awaits_seal
        return False

    def _answer(
        self,
        pages: LivePages,
        pending: PendingFrames,
        ring: _RingEnd,
        position: str,
        requests: list[_Request],
    ) -> None:
        """Read a page for those who ask for it."""
        try:
            page = pages.page(position, pending, self._page)
        except (LakelogError, OSError) as error:
            for request in requests:
                self._call(_refuse, request.answer, error)
            return
        if rows := page.events.num_rows:
            limit = self._limits.tail_bytes // _PAGE_SHARE * rows // (page.events.nbytes or 1)
            self._page = min(max(limit, 1), _PAGE)
        # The client is at the end of the lake, and the ring is not. The ring begins anew here; the
        # place that is left out tells those who stood at its end that they have to catch up.
        if page.is_end and self._is_stale:
            self._is_stale, ring.place, ring.position = False, ring.place + 1, page.position
            self._call(self._begin_anew, ring.place, ring.position)
        chunks = _chunks(page.events, page.positions, page.rewound, page.position)
        follows = [CaughtUp(chunk, chunk.positions[-1], None) for chunk in chunks[:-1]]
        place = ring.place if page.is_end else None
        follows.append(CaughtUp(chunks[-1] if chunks else None, page.position, place))
        self._call(self._give, position, requests, follows)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop was closed meanwhile
            self._is_ended.set()


def _chunks(
    events: pa.Table, positions: list[str], rewound: BranchRewound | None, end: str
) -> tuple[TailChunk, ...]:
    return tuple(chunks_of(events, positions)) if rewound is None else (state_chunk(rewound, end),)


def _refuse(answer: asyncio.Future[CaughtUp], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
