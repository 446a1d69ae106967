"""Storing what requests bring: an answer is given once all of it is on disk.

Requests that come at the same time share a write and a sync. The same request, sent again within
ten minutes because its answer was lost, is answered as the first time and not stored again, by this
server or the one after a kill; one that comes while the first is being stored waits for it. If it
has a name (`Idempotency-Key`), its events have keys of it, by which the lake stores them once, also
from several servers. Records that are no events are in the quarantine before the answer tells of
them.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Generic, TypeVar

from lakelog.appends import AsyncAppends
from lakelog.disk import File, disk
from lakelog.event import EncodedBatch
from lakelog.formats import EventMembers
from lakelog.lake import Lake
from lakelog.lake import open as open_lake
from lakelog.refs import Head, only_grew
from lakelog.server.arrivals import Arrivals, RequestRefused, arrivals_of
from lakelog.server.limits import ServerLimits
from lakelog.server.request_journal import NO_REQUEST, RequestJournal, Runs

_LOG = logging.getLogger("lakelog.server")
_INLINE = 1 << 16
"""Bodies of fewer bytes are parsed in the loop: a thread would cost more."""
_RETRY_SECONDS = "1"
_KEY_BYTES = 16
_QUARANTINED = 20_000
"""Records that are quarantined together: until they are written each takes a kilobyte."""
AnswerType = TypeVar("AnswerType")


class EventIntake(Generic[AnswerType]):
    """Stores the bodies of one server. Its methods run in one event loop.

    It has a writer of its own, so that the positions of what it stores are known before.
    """

    def __init__(self, lake: Lake, limits: ServerLimits) -> None:
        self._lake, self._limits = lake, limits
        self._own = open_lake(lake.path, create=False, branch=lake.branch_name)
        self._journal = RequestJournal(lake.path, limits.remembered_seconds)
        self._appends: AsyncAppends[bytes] = AsyncAppends(self._own.append_encoded, self._announce)
        self._waiting_bytes, self._parsing = 0, asyncio.Lock()
        self._head: Head | None = None
        self._config: tuple[int, int, int] | None = None
        self._places: dict[bytes, tuple[str, int, int]] = {}
        self._running: dict[bytes, asyncio.Future[AnswerType]] = {}
        self.stored = self.rejects = self.repeated = 0
        self.syslog_lost: Callable[[], int] = int

    def load(self) -> None:
        """Read which requests are stored. Raises OSError, LakelogError."""
        store = self._lake.store
        self._config = File(store.paths.config).identity()
        self._head = store.refs.head(self._lake.branch_name)
        self._journal.load(self._runs)

    def close(self) -> None:
        """Close its writer: nothing may wait to be stored any more."""
        self._own.close()

    def require_lake(self) -> None:
        """Refuse a lake that can take nothing, as another one, or a copy, is in its place. Raises
        LakeReplaced, LakelogError, OSError."""
        self._own.writer().require_lake()

    @contextmanager
    def room(self, size: int) -> Iterator[Callable[[int], None]]:
        """Reserve memory for a body; yield what reserves more for one that turns out to have so
        many bytes. Both raise RequestRefused if there is none left."""
        reserved = 0

        def reserve(total: int) -> None:
            nonlocal reserved
            growth, other_bytes = max(total - reserved, 0), self._waiting_bytes - reserved
            # One body alone is always let in: refused for its size, it could never be stored.
            if growth and other_bytes and self._waiting_bytes + growth > self._limits.waiting_bytes:
                raise RequestRefused(
                    429, "too much waits to be stored: try again", {"Retry-After": _RETRY_SECONDS}
                )
            reserved += growth
            self._waiting_bytes += growth

        try:
            reserve(size)
            yield reserve
        finally:
            self._waiting_bytes -= reserved

    async def once(
        self,
        identity: tuple[str, ...],
        name: str,
        body: bytes,
        parse: Callable[[], Arrivals],
        answer: Callable[[Arrivals], AnswerType],
    ) -> AnswerType:
        """Store a body once, and return its answer; `identity`, and the name that a client gave
        the request or "", tell requests of equal bodies apart. Raises RequestRefused, OSError,
        LakelogError: then it may be sent again."""
        key = _key_of((*identity, name), body)
        running = self._running.get(key)
        if running is not None:
            self.repeated += 1
            # Who comes again may go away again, too: that must not cancel the first one.
            return await asyncio.shield(running)
        future: asyncio.Future[AnswerType] = asyncio.get_running_loop().create_future()
        self._running[key] = future
        # It goes on where a client goes away, who may come again for the answer.
        try:
            keyed = partial(_keyed, parse, key) if name else parse
            result = answer(await self._store_body(key, body, keyed))
        except BaseException as error:
            future.set_exception(error)
            future.exception()  # nobody may wait for it
            # Its error has this frame: a cycle, which would keep the body for a while.
            del future
            raise
        finally:
            del self._running[key]
        future.set_result(result)
        return result

    async def store(self, events: list[EventMembers]) -> None:
        """Store events that no request brought. Raises OSError, LakelogError."""
        await self.keep(arrivals_of(events))

    async def keep(self, arrivals: Arrivals, uploader: tuple[str, ...] = ()) -> None:
        """Store events that are not told apart by their request. Of an `uploader`, whose events
        have ids, what is refused is known again, too. Raises OSError, LakelogError."""
        encoded = self._without_erased(arrivals).encoded
        await self._appends.store(encoded, NO_REQUEST)
        keys = list[bytes]()
        if uploader:
            refused = arrivals.rejects
            rejects = {_key_of((*uploader, r.reason, r.record), b""): r for r in refused}
            keys = [key for key in rejects if self._journal.stored(key) is None]
            arrivals = replace(arrivals, rejects=[rejects[key] for key in keys])
        if arrivals.rejects:
            await asyncio.get_running_loop().run_in_executor(None, self._set_aside, arrivals)
        if keys:
            # Afterwards: a kill in between has it quarantined again, and never not at all.
            self._journal.announce(self._own.writer().name, 0, [(key, 0) for key in keys])
            for key in keys:
                self._journal.remember(key, 0)
        self.stored += arrivals.stored
        self.rejects += len(arrivals.rejects)

    async def _store_body(self, key: bytes, body: bytes, parse: Callable[[], Arrivals]) -> Arrivals:
        """Store what a body brings, or what is missing of it."""
        loop = asyncio.get_running_loop()
        if len(body) < _INLINE:
            arrivals = self._without_erased(parse())
        else:
            # One after the other: what they are in memory is many times what they were sent as.
            async with self._parsing:
                arrivals = await loop.run_in_executor(None, lambda: self._without_erased(parse()))
        if self._journal.is_known(key):
            is_present = await loop.run_in_executor(None, self._is_present)
            # Events of before a rollback may be gone: answered as the first time, a request that
            # comes again would not be stored. Here, so that none is stored while it is looked at.
            if not is_present:
                self.load()
        if key in self._places and await loop.run_in_executor(None, self._is_there, key):
            self._journal.remember(key, arrivals.stored)
        present, count = self._journal.stored(key), arrivals.stored
        if present is not None and present >= count:
            self.repeated += 1
            return arrivals
        if arrivals.rejects and not present:
            # First, as the answer tells of them.
            await loop.run_in_executor(None, self._set_aside, arrivals, key)
        missing = arrivals.encoded
        # A kill came between its frames; without those that were erased nobody knows where.
        if present and not arrivals.erased:
            lines = missing.lines[present:]
            missing = EncodedBatch(b"\n".join(lines), missing.ids[present:], missing.keyed)
        try:
            await self._appends.store(missing, key)
        except Exception:
            # It was announced at these positions. The next server would take the events that stand
            # there later for those of this request, and not store it when it comes again.
            with suppress(OSError):  # then the disk takes nothing at all
                self._journal.cancel(self._own.writer().name, [key])
            self._keep_doubtful(key)
            raise
        self._places.pop(key, None)
        self._journal.remember(key, len(missing.ids))
        self.stored += len(missing.ids)
        self.rejects += len(arrivals.rejects)
        return arrivals

    def _without_erased(self, arrivals: Arrivals) -> Arrivals:
        """Leave out events that were erased: refused, they would be sent again for ever. Raises
        DamagedRef."""
        before = arrivals.stored
        arrivals.encoded = self._own.without_erased(arrivals.encoded)
        arrivals.erased = before - arrivals.stored
        if arrivals.erased:
            _LOG.warning("%d events were left out, which were erased", arrivals.erased)
        return arrivals

    def _announce(self, group: list[tuple[bytes, EncodedBatch]]) -> None:
        writer = self._own.writer()
        requests = [(key, len(encoded.ids)) for key, encoded in group]
        try:
            self._journal.announce(writer.name, writer.position, requests)
        except FileNotFoundError:  # a copy has no folder of a server
            self.require_lake()
            raise
        start = writer.position
        for key, count in requests:
            if key != NO_REQUEST:
                self._places[key] = writer.name, start, count
            start += count

    def _keep_doubtful(self, key: bytes) -> None:
        """Keep where the events of a request stand that could not be stored, if they may be there
        all the same: nobody knows what a write that failed has left (F3.10)."""
        _, start, count = self._places.get(key, ("", 0, 0))
        if not count or self._own.writer().position < start + count:
            self._places.pop(key, None)

    def _is_there(self, key: bytes) -> bool:
        """Whether the events of a request that failed are there. Raises OSError, LakelogError."""
        writer, start, count = self._places[key]
        # What is sealed is synced, which a write that failed may not be.
        self._lake.settle()
        query = """SELECT count(*) FROM events
            WHERE origin = $origin AND position BETWEEN $first AND $last"""
        place = {"origin": writer, "first": start, "last": start + count - 1}
        rows = self._lake.sql(query, place).fetchall()
        self._places.pop(key, None)
        return bool(rows[0][0] == count)

    def _is_present(self) -> bool:
        """Whether the branch has all that it had when the requests were read. Raises LakeReplaced
        where a copy took the place of the lake, which may lack what was stored since."""
        self.require_lake()
        store = self._lake.store
        # The tail of a copy may lack some, though its branch is where that of the lake was.
        if File(store.paths.config).identity() != self._config:
            return False
        return only_grew(store.refs, store.refs.head(self._lake.branch_name), self._head)

    def _runs(self, writer: str, since: int) -> Runs:
        """Where the events stand that a writer stored since a time (us)."""
        events = "events WHERE origin = $origin AND ingested_at >= make_timestamptz($since)"
        query = f"SELECT 0, max(position) + 1 FROM {events} HAVING count(*) > 0"
        # Only a branch that was taken back has gaps that mean anything.
        if self._head is not None and self._head.move.generation:
            query = f"""SELECT min(position), max(position) + 1 FROM (
                SELECT position, position - row_number() OVER (ORDER BY position) AS run
                FROM {events}) GROUP BY run ORDER BY 1"""
        return self._lake.sql(query, {"origin": writer, "since": since}).fetchall()

    def _set_aside(self, arrivals: Arrivals, key: bytes = NO_REQUEST) -> None:
        # Erasures and merges tell lines by their places: each request has places of its own.
        origin = f"http:{disk.random_hex() if key == NO_REQUEST else key.hex()}"
        lines = [(origin, r.number, r.reason, r.record) for r in arrivals.rejects]
        since = None if key == NO_REQUEST else self._journal.announce_quarantine(key)
        if since is not None:  # a kill, or a full disk, came between them and the events
            query = """SELECT origin, position, reason, line FROM quarantine
                WHERE origin = $origin AND ingested_at >= make_timestamptz($since)"""
            present = set(self._lake.sql(query, {"origin": origin, "since": since}).fetchall())
            lines = [line for line in lines if line not in present]
        for start in range(0, len(lines), _QUARANTINED):
            self._lake.quarantine(lines[start : start + _QUARANTINED])


def _key_of(identity: tuple[str, ...], body: bytes) -> bytes:
    """What tells a body apart from all others."""
    identity_bytes = "\0".join(identity).encode("utf-8", "replace")
    return hashlib.sha256(identity_bytes + b"\0" + body).digest()[:_KEY_BYTES]


def _keyed(parse: Callable[[], Arrivals], key: bytes) -> Arrivals:
    """What a request brings, with keys of the request."""
    arrivals = parse()
    arrivals.encoded = arrivals.encoded.of_request(key)
    return arrivals
