"""A pool of query processes: each query has one to itself, and takes no other with it.

A process is started when a query needs it, and kept for the next ones. One whose query takes too
long, or whose client went away, is asked to stop; if it does not within a moment it is killed, and
another one takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from typing import Any

import orjson

from lakelog.libraries import pa
from lakelog.server.sql import query_limits as wire
from lakelog.server.sql.bucket_relay import BucketRelay, FetchAllowance
from lakelog.server.sql.query_limits import (
    ProcessRequest,
    QueryFormat,
    QueryLimits,
    QueryRefused,
    QueryRequest,
)
from lakelog.server.sql.worker_process import WorkerProcess

_GRACE = 0.5
"""Seconds that a query which is to stop has for it."""
_PATIENCE = 0.25
"""Seconds that a query waits for those that run before a process is started for it."""
_STOP_SECONDS = 2.0
"""Seconds that queries have when the server stops."""
SQL_MODULE = "lakelog.server.sql.worker"
_LOG = logging.getLogger("lakelog.server")
QueryParameters = list[Any] | dict[str, Any] | None


@dataclass(frozen=True)
class RunningQuery:
    """A query whose answer has begun. `chunks` gives it, piece by piece; close it to stop the
    query. Both raise QueryRefused."""

    snapshot: str | None
    chunks: AsyncGenerator[bytes, None]


class QueryWorkers:
    """Answers SQL over one branch of a lake. Its methods run in one event loop."""

    def __init__(
        self, root: str, branch: str, limits: QueryLimits, module: str = SQL_MODULE
    ) -> None:
        """`module` is what its processes run."""
        self._root, self._branch, self.limits, self._module = root, branch, limits, module
        self._relay = BucketRelay(root)
        self._idle: list[WorkerProcess] = []
        self._processes = set[WorkerProcess]()
        self._free = asyncio.Semaphore(limits.workers)
        self._starting = set[asyncio.Task[None]]()
        self._returned = asyncio.Event()
        self._numbers = itertools.count(1)
        self._waiting = 0
        self._tasks = set[asyncio.Task[None]]()
        self._is_closed = False
        self.answered = self.refused = self.killed = 0
        self.is_confined: bool | None = None
        """Whether the kernel bounds the files of query processes; None before the first."""

    @property
    def running(self) -> int:
        """How many queries are being answered."""
        return len(self._processes) - len(self._idle)

    async def query(
        self,
        sql: str,
        params: QueryParameters = None,
        *,
        at: str | None = None,
        limit: int | None = None,
        is_trusted: bool = False,
    ) -> pa.Table:
        """Return the rows of a SELECT as an Arrow table.

        `at` is a tag, branch, snapshot or time, None the present with its live tail. Of more than
        `limit` rows the others are left out; without it, more than the limits allow are refused.
        SQL of our own is `is_trusted` and may call any function. Whoever cancels the call cancels
        the query. Raises QueryRefused.
        """
        running = await self.start(
            sql, params, at=at, limit=limit, format=QueryFormat.ARROW, is_trusted=is_trusted
        )
        # All rows at once: the limits of the process bound them.
        data = b"".join([chunk async for chunk in running.chunks])
        return pa.ipc.open_stream(data).read_all()

    async def start(
        self,
        sql: str,
        params: QueryParameters = None,
        *,
        at: str | None = None,
        limit: int | None = None,
        format: QueryFormat = QueryFormat.JSON,
        is_trusted: bool = False,
    ) -> RunningQuery:
        """Start a query, and return once its columns are known; its answer is read from `chunks`,
        in a format. Raises QueryRefused."""
        request = QueryRequest(
            self.next_number(), sql, params, at, limit, format, is_trusted=is_trusted
        )
        frames = self.frames(request)
        head = orjson.loads(await anext(frames))
        return RunningQuery(head["snapshot"], frames)

    def next_number(self) -> int:
        """The number of a new request."""
        return next(self._numbers)

    async def prepare(self) -> None:
        """Have a process ready for the first request. Raises QueryRefused."""
        # Only where none was started yet: a first request may have come before.
        if not (self._processes or self._starting or self._is_closed):
            await self._begin_start(is_warm=True)

    def stop(self) -> None:
        """Begin no more queries, and end in a moment those that run."""
        self._is_closed = True
        # Killed a moment later: queries that are nearly done still answer.
        asyncio.get_running_loop().call_later(_STOP_SECONDS, self._kill_all)

    def _kill_all(self) -> None:
        for worker in self._processes:
            worker.kill()

    async def close(self) -> None:
        """End all processes; queries that run are refused."""
        self._is_closed = True
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        processes, self._idle = list(self._processes), []
        await asyncio.gather(*(worker.end() for worker in processes), return_exceptions=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def frames(self, request: ProcessRequest) -> AsyncGenerator[bytes, None]:
        """Yield the head of an answer, and then its pieces. Raises QueryRefused."""
        try:
            encoded = request.encode()
        except TypeError as error:  # as of an integer of more than 64 bits
            raise QueryRefused("bad_request", f"a value cannot be sent: {error}") from None
        worker = await self._leased()
        is_settled, allowance = False, FetchAllowance(self.limits.fetch)
        # From here: waiting for a process is not the query's time.
        deadline = asyncio.get_running_loop().time() + self.limits.seconds
        try:
            await worker.ask(encoded)
            while True:
                async with asyncio.timeout_at(deadline):
                    frame_type, content = await worker.read()
                if frame_type == wire.NEED:
                    self._begin(self._give(worker, content, allowance))
                    continue
                if frame_type == wire.END:
                    is_settled = True
                    self._note_end(worker, orjson.loads(content))
                    return
                yield content
        except TimeoutError:
            self.refused += 1
            raise QueryRefused(
                "time_limit",
                f"the query took longer than {self.limits.seconds:g} s",
                "ask for a shorter time, or fewer events",
            ) from None
        except (EOFError, OSError):
            is_settled = True
            self.refused += 1
            raise await self._ended(worker) from None
        finally:
            allowance.has_ended = True
            if is_settled:
                self._give_back(worker)
            else:
                # Not here: the caller may be cancelled once more meanwhile.
                self._begin(self._settle(worker, request.number))

    async def _give(self, worker: WorkerProcess, need: bytes, allowance: FetchAllowance) -> None:
        """Give a process what it needs of a bucket."""
        answer = await asyncio.to_thread(self._relay.answer, need, allowance)
        with contextlib.suppress(OSError):  # it has ended meanwhile
            await worker.give(answer)

    def _note_end(self, worker: WorkerProcess, ending: dict[str, Any]) -> None:
        if ending["retire"]:
            worker.kill()
        if error := ending.get("error"):
            self.refused += 1
            if error["code"] == "unavailable":  # no fault of who asked
                _LOG.error("%s", ending.get("traceback") or error["message"])
            raise QueryRefused(error["code"], error["message"], error["hint"], ending["status"])
        self.answered += 1

    async def _ended(self, worker: WorkerProcess) -> QueryRefused:
        """What a query is answered whose process ended under it: mostly for want of memory."""
        if self._is_closed:
            return _stopping()
        reason = await worker.ending()
        _LOG.warning("a query process is gone: %s", reason)
        self.killed += 1
        return QueryRefused(
            "process_ended",
            f"the process of the query is gone: {reason}",
            "it may have needed too much memory: ask for less",
        )

    async def _settle(self, worker: WorkerProcess, number: int) -> None:
        if not await worker.settle(number, _GRACE):
            self.killed += 1
        self._give_back(worker)

    async def _leased(self) -> WorkerProcess:
        """Wait for a process that is free, or start one. Raises QueryRefused."""
        if self._is_closed:
            raise _stopping()
        # Refused at once, rather than after a wait that the client may not have.
        if self._free.locked() and self._waiting >= self.limits.waiting:
            raise QueryRefused(
                "busy", f"{self._waiting} queries wait already", "send it again later", 429
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(self.limits.seconds):
                await self._free.acquire()
        except TimeoutError:
            raise QueryRefused("busy", "no process was free", "send it again later", 429) from None
        finally:
            self._waiting -= 1
        try:
            # The place is held while a process starts; it is given back where that fails.
            return await self._started()
        except BaseException:
            self._free.release()
            raise

    async def _started(self) -> WorkerProcess:
        """Wait for a process that is idle, or for a new one, whichever comes first."""
        time = asyncio.get_running_loop().time
        patient_until = time() + _PATIENCE
        while (worker := self._idle_worker()) is None:
            if self._is_closed:
                raise _stopping()
            # What runs may be done before another one has started, and sooner without that.
            patience = patient_until - time() if self._processes or self._starting else 0.0
            has_room = len(self._processes) + len(self._starting) < self.limits.workers
            if has_room and patience <= 0:
                self._begin_start()
            self._returned.clear()
            waiter = asyncio.ensure_future(self._returned.wait())
            try:
                ended_tasks, _ = await asyncio.wait(
                    {*self._starting, waiter},
                    timeout=patience if has_room and patience > 0 else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                waiter.cancel()
            for task in ended_tasks - {waiter}:
                if not task.cancelled():  # as `close` does
                    task.result()  # which raises what it could not be started for
        return worker

    def _idle_worker(self) -> WorkerProcess | None:
        while self._idle:
            worker = self._idle.pop()
            if worker.is_usable:
                return worker
            self._processes.discard(worker)
            self._begin(worker.end())
        return None

    def _begin_start(self, *, is_warm: bool = False) -> asyncio.Task[None]:
        task = asyncio.ensure_future(self._start(is_warm=is_warm))
        self._starting.add(task)
        task.add_done_callback(self._note_start)
        return task

    def _note_start(self, task: asyncio.Task[None]) -> None:
        self._starting.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _LOG.warning("%s", error)  # who waits for it has got another one, perhaps

    async def _start(self, *, is_warm: bool = False) -> None:
        """Start a process, which is idle then. Raises QueryRefused."""
        worker = await WorkerProcess.start(
            self._root, self._branch, self.limits, self._module, is_warm=is_warm
        )
        self._processes.add(worker)
        if self.is_confined is None and not worker.is_confined:
            _LOG.warning(
                "this kernel has no Landlock: query processes are bound by the engine alone"
            )
        self.is_confined = worker.is_confined
        self._make_idle(worker)

    def _make_idle(self, worker: WorkerProcess) -> None:
        if worker.is_usable and not self._is_closed:
            self._idle.append(worker)
        # It may have been ended by `close` meanwhile.
        elif worker in self._processes:
            self._processes.discard(worker)
            self._begin(worker.end())
        self._returned.set()

    def _give_back(self, worker: WorkerProcess) -> None:
        """Let the next query have a process, or its place if it has ended."""
        self._make_idle(worker)
        self._free.release()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done in a task of its own."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _stopping() -> QueryRefused:
    return QueryRefused("unavailable", "the server stops", "send it again later", 503)
