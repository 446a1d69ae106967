"""Who follows a lake: a feed for each condition, and the clients that stand in it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator

from lakelog.errors import LakelogError
from lakelog.lake import Lake
from lakelog.server.arrivals import RequestRefused
from lakelog.server.conditions import TailCondition, check_condition
from lakelog.server.limits import ServerLimits
from lakelog.server.tail_feed import (
    CaughtUp,
    TailChunk,
    TailFeed,
    behind_chunk,
    failure_chunk,
    quiet_chunk,
)
from lakelog.server.tail_pace import TailPace, settle
from lakelog.subscriptions import LivePages

HEARTBEAT = 15.0
"""Seconds without an event after which a client is told where it stands."""
_LOOK = 1.0
_STOP_SECONDS = 2.0
"""Seconds that the readers of a server which stops have for what they read."""
_LATER = {"Retry-After": "5"}


class TailHub:
    """The feeds of one lake, one for each condition that a client has now. It belongs to a loop."""

    def __init__(self, lake: Lake, limits: ServerLimits) -> None:
        self._lake, self._limits = lake, limits
        self._feeds: dict[TailCondition, TailFeed] = {}
        self._readers: list[TailFeed] = []
        self._is_ended = threading.Event()
        self._watch: threading.Thread | None = None
        self.clients, self.pace = 0, TailPace()

    async def client(self, condition: TailCondition, position: str) -> TailClient:
        """Let a client begin at a position. Raises RequestRefused, LakelogError, OSError."""
        if self._is_ended.is_set():
            raise RequestRefused(503, "the server is stopping", _LATER)
        if self.clients >= self._limits.tail_clients:
            raise RequestRefused(503, "too many clients follow this lake", _LATER)
        feed = self._feed(condition)
        # Counted before it waits: a feed ends with its last client, who may leave meanwhile.
        feed.clients += 1
        self.clients += 1
        try:
            return TailClient(self, condition, feed, await feed.catch_up(position))
        except BaseException:
            self.leave(condition, feed)
            raise

    def leave(self, condition: TailCondition, feed: TailFeed) -> None:
        """A client of a feed has gone."""
        self.clients -= 1
        feed.clients -= 1
        if not feed.clients:
            feed.end()
            if self._feeds.get(condition) is feed:
                del self._feeds[condition]

    def end(self) -> None:
        """Let all clients end, as nothing else would end them."""
        self._is_ended.set()
        for feed in self._feeds.values():
            feed.end()
        self.pace.end()

    @property
    def has_readers(self) -> bool:
        """Whether a reader is left, in the middle of what it reads."""
        return any(feed.is_alive for feed in self._readers)

    def join(self) -> None:
        """Wait a moment for the readers, which use the lake; not in the loop."""
        until = time.monotonic() + _STOP_SECONDS
        for feed in self._readers:
            feed.join(until)
        if self._watch is not None:
            self._watch.join()

    def _feed(self, condition: TailCondition) -> TailFeed:
        feed = self._feeds.get(condition)
        if feed is not None and not feed.is_ended:
            return feed
        if len(self._feeds) >= self._limits.tail_conditions:
            raise RequestRefused(503, "too many different conditions are followed", _LATER)

        def pages() -> LivePages:
            check_condition(self._lake.engine().cursor(), condition)
            return LivePages(self._lake.subscriptions(), condition.sql)

        feed = self._feeds[condition] = TailFeed(pages, self._limits)
        self._readers = [reader for reader in self._readers if reader.is_alive] + [feed]
        if self._watch is None:
            self._watch = threading.Thread(target=self._watching, name="lakelog-tails", daemon=True)
            self._watch.start()
        return feed

    def _watching(self) -> None:
        """Tell the feeds of what arrives."""
        for is_due in self._lake.subscriptions().signal.looks(self._is_ended, lambda: _LOOK):
            for feed in list(self._feeds.values()) if is_due else ():
                feed.notify()


class TailClient:
    """One client, from the position where it began."""

    def __init__(
        self, hub: TailHub, condition: TailCondition, feed: TailFeed, first: CaughtUp
    ) -> None:
        self._hub, self._condition, self._feed, self._first = hub, condition, feed, first
        self._waiter: asyncio.Future[bool] | None = None
        self._is_gone = False

    async def chunks(self) -> AsyncGenerator[TailChunk, None]:
        """Yield what follows, and from time to time a chunk without events: how far that is. The
        last one says why it ends, where that is a fault."""
        feed, answer = self._feed, self._first
        if answer.chunk is None:
            yield quiet_chunk(answer.position)
        while True:
            if answer.chunk is not None:
                await self._turn(answer.chunk)
                yield answer.chunk
            position, place = answer.position, answer.place
            while place is not None and not self.is_over:
                chunk_here = feed.at(place)
                if chunk_here is not None:
                    await self._turn(chunk_here)
                    yield chunk_here
                    position, place = chunk_here.positions[-1], place + 1
                # It was too slow: what it needs next has left the ring.
                elif place < feed.first:
                    yield behind_chunk(position)
                    place = None
                elif not await self._news():
                    # It has all of the ring, which may reach further: behind events that its
                    # condition leaves out.
                    position = feed.position
                    yield quiet_chunk(position)
            if self.is_over:
                break
            try:
                answer = await feed.catch_up(position)
            except (LakelogError, OSError) as error:
                if not self.is_over:  # its own fault, such as a condition that fits no longer
                    yield failure_chunk(position, str(error))
                    return
        if self.has_failed and feed.failure is not None:
            yield failure_chunk(position, str(feed.failure))

    @property
    def has_failed(self) -> bool:
        """Whether a fault ended it, of which it can be told."""
        return self._feed.failure is not None and not self._is_gone

    def leave(self) -> None:
        """It has gone, or its stream has ended."""
        if self._is_gone:
            return
        self._is_gone = True
        self._hub.leave(self._condition, self._feed)
        if self._waiter is not None:
            settle(self._waiter, True)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is sent to it: it has gone, or its feed has ended."""
        return self._is_gone or self._feed.is_ended

    async def _turn(self, chunk: TailChunk) -> None:
        """Wait until a chunk may be sent, or the client has gone."""
        self._waiter = self._hub.pace.turn(chunk.size)
        if self._waiter is not None:
            await self._waiter

    async def _news(self) -> bool:
        self._waiter = asyncio.get_running_loop().create_future()
        return await self._feed.wait(self._waiter, HEARTBEAT)
