"""A work queue on an event log: each item is completed once, or ends as a dead letter.

    queue = WorkQueue(lake, "thumbnails")
    queue.add([Item("photos", "p-1", {"path": "1.jpg"})])
    queue.run(make_thumbnail, concurrency=4)         # in any number of processes
    queue.dead_letters()

Facts about an item are DISCOVER, PROCESS (attempt n is claimed by a worker, until a time), FAIL
(attempt n failed; may be tried again at a time, or is dead) and COMPLETE; what an item is follows
from the set of its facts, in whatever order they are read. Whoever appends facts holds the queue's
lock and has read all earlier ones, so that an attempt has one worker and an item one COMPLETE. A
worker holds a lock of its own while it lives: claims of one that died are open again at once, those
of one that hangs after their lease. The processor may see an item again that it did not finish, so
what it does should bear being repeated.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lakelog.disk import File, LockFile, disk
from lakelog.errors import InvalidEvent, InvalidSetting, ItemRejected
from lakelog.lake import Lake
from lakelog.pipeline import fact_log
from lakelog.pipeline.fact_log import COMPLETE, DISCOVER, FAIL, PROCESS, Fact, FactLog
from lakelog.pipeline.standing import DeadLetter, Item, ItemKey, Standing, key_of, state_of
from lakelog.runtime.progress import ProgressCallback

_GRACE = 30.0
"""Seconds of a lease beyond the time-out: for the worker to record its outcomes."""
_LOOK = 0.5
"""Seconds between two looks at claims of other workers, and at `stop`."""
Processor = Callable[["Item"], Any]


@dataclass
class RunReport:
    """What a run did: attempts by their outcome; `dead` of the failed ones were the last."""

    completed: int = 0
    failed: int = 0
    dead: int = 0


@dataclass
class _Outcome:
    """How an attempt ended: with a result, or with an error, which may be final."""

    item: Item
    result: object = None
    error: str = ""
    is_final: bool = False


class WorkQueue:
    """A queue of a name, in a lake or an oos.log. Threads and processes may share it.

    An item is tried up to `attempts` times, each `timeout` seconds long at most; after the n-th
    failure it waits `backoff` * 2**(n-1) seconds, `backoff_max` at most, less up to a half by
    chance. Raises InvalidSetting.
    """

    def __init__(
        self,
        log: Lake | FactLog | str | os.PathLike[str],
        name: str,
        *,
        attempts: int = 5,
        timeout: float = 300.0,
        backoff: float = 1.0,
        backoff_max: float = 300.0,
    ) -> None:
        # Not `<= 0`, which NaN would pass.
        numbers = {"attempts": attempts, "timeout": timeout, "backoff_max": backoff_max}
        for label, value in numbers.items():
            if not value > 0:
                raise InvalidSetting(f"{label} is a number above 0, not {value!r}")
        self._log = fact_log.open_log(log)
        self.name, self.attempts, self.timeout = name, attempts, timeout
        self._backoff, self._backoff_max = backoff, backoff_max
        self._items: dict[ItemKey, Standing] = {}
        # Those among them that are not completed or dead, and those that are claimed.
        self._open: dict[ItemKey, Standing] = {}
        self._taken: dict[ItemKey, Standing] = {}
        self._mutex = threading.RLock()

    def add(self, items: Iterable[Item]) -> int:
        """Add items; return how many were new. Known ones, in whatever state, stay as they are.

        Raises InvalidEvent for an item that cannot be stored; then none is.
        """
        with self._exclusive() as facts:
            new: dict[ItemKey, Fact] = {}
            for item in items:
                key = item.source, item.id
                # Also among those that are being added: a feed may name an item twice.
                if key not in self._items and key not in new:
                    new[key] = self._fact(DISCOVER, key, dict(item.data), fact_log.ADDED)
                    # Each by itself, so that the error is of one item; nothing is stored yet.
                    self._log.check(new[key])
            facts += new.values()
            return len(new)

    def counts(self) -> dict[str, int]:
        """Return how many items are waiting, running, completed and dead."""
        counts = dict.fromkeys(("waiting", "running", "completed", "dead"), 0)
        for standing in self._snapshot().values():
            counts[state_of(standing)] += 1
        return counts

    def items(self, state: str | None = None) -> list[Item]:
        """Return the items, or those that are waiting, running, completed or dead."""
        return [
            Item(*key, standing.data, standing.attempt)
            for key, standing in self._snapshot().items()
            if state in (None, state_of(standing))
        ]

    def dead_letters(self) -> list[DeadLetter]:
        """Return the items that are not tried again, each with its last error."""
        letters = []
        for key, standing in self._snapshot().items():
            if standing.is_dead:
                error = str(standing.failed[max(standing.failed)].get("error") or "unknown")
                item = Item(*key, standing.data, standing.attempt)
                letters.append(DeadLetter(item, standing.failures, error))
        return letters

    def requeue(self, items: Iterable[Item] | None = None) -> int:
        """Try dead letters again, all or some, as if they had never failed; return how many."""
        keys = None if items is None else {(item.source, item.id) for item in items}
        with self._exclusive() as facts:
            for key, standing in self._items.items():
                if standing.is_dead and (keys is None or key in keys):
                    # Attempts up to this one no longer count.
                    data = {"requeued": standing.attempt}
                    facts.append(self._fact(DISCOVER, key, data, f"requeue/{standing.attempt}"))
            return len(facts)

    def run(
        self,
        process: Processor,
        *,
        concurrency: int = 1,
        batch: int | None = None,
        max_items: int | None = None,
        stop: threading.Event | None = None,
        forever: bool = False,
        only: Iterable[Item] | None = None,
        progress: ProgressCallback | None = None,
    ) -> RunReport:
        """Process items until none is left, or until `stop`; then those that run are finished.

        `process` is called with an Item, in up to `concurrency` threads. What it returns is stored
        with COMPLETE; an exception is a failure, ItemRejected a final one. What exceeds the
        time-out is a failure, and its result is ignored (a thread cannot be ended). `batch` items
        are claimed at once, `concurrency` by default, and `max_items` in all; `only` some, if they
        are given. With `forever` new items are waited for. `progress` is called in this thread, as
        items are completed or dead. Raises OSError if outcomes cannot be stored.
        """
        worker = _QueueWorker(self, process, concurrency, batch or concurrency)
        worker.quota = float("inf") if max_items is None else max_items
        worker.forever, worker.progress = forever, progress
        # By their keys: an item that was asked for may have other facts by the time it is claimed.
        worker.only = None if only is None else {(item.source, item.id) for item in only}
        return worker.go(stop or threading.Event())

    @contextlib.contextmanager
    def _exclusive(self) -> Any:
        """Hold the queue's lock, knowing all facts; what the block leaves in the list is stored."""
        # The mutex first: an flock does not exclude threads of one process.
        with self._mutex, fact_log.locked(self._log.lock_path(self.name)):
            self._refresh()
            facts: list[Fact] = []
            try:
                yield facts
                # With the lock in hand: nobody has claimed in between.
                if facts:
                    self._log.append(facts)
            except BaseException:
                # The block may have learned what is not stored now.
                self._log.restart()
                raise
            # Learned only once it is stored.
            self._learn(facts)

    def _snapshot(self) -> dict[ItemKey, Standing]:
        with self._mutex:
            self._refresh()
            return dict(self._items)

    def _refresh(self) -> None:
        facts, is_new = self._log.read(self.name)
        if is_new:
            for index in (self._items, self._open, self._taken):
                index.clear()
        self._learn(facts)

    def _learn(self, facts: list[Fact]) -> None:
        for fact in facts:
            key = key_of(fact)
            standing = self._items.setdefault(key, Standing())
            # Adding is in any order: what follows from the facts decides.
            standing.add(fact)
            state = state_of(standing)
            for index, holds in (
                (self._open, state in ("waiting", "running")),
                (self._taken, state == "running"),
            ):
                if holds:
                    index[key] = standing
                else:
                    index.pop(key, None)

    def _fact(self, fact_type: str, key: ItemKey, data: Mapping[str, object], step: str) -> Fact:
        standing = self._items.get(key)
        # Under the ids of an earlier life nothing would be stored.
        step += f"~{standing.life}" if standing and standing.life else ""
        return fact_log.fact_of(self.name, fact_type, key, data, step)

    def _failure(self, item: Item, error: str, dead: bool, at_once: bool = False) -> Fact:
        """Return the fact of a failed attempt, which is the last one if there were too many."""
        failures = self._items[item.source, item.id].failures + 1
        dead = dead or failures >= self.attempts
        # Bounded before it is used: 2**60 seconds are for ever anyway.
        pause = min(self._backoff * 2 ** min(failures - 1, 60), self._backoff_max)
        # Less by chance, so that items that failed together do not come back together.
        pause = 0.0 if at_once else pause * random.uniform(0.5, 1.0)
        data: dict[str, object] = {"error": error, "attempt": item.attempt, "dead": dead}
        if not dead:
            data["retry_at"] = round(time.time() + pause, 3)
        return self._fact(FAIL, (item.source, item.id), data, f"fail/{item.attempt}")


class _QueueWorker:
    """One worker, for one run."""

    quota = float("inf")
    forever = False
    only: set[ItemKey] | None = None
    progress: ProgressCallback | None = None

    def __init__(self, work: WorkQueue, process: Processor, concurrency: int, batch: int) -> None:
        if concurrency < 1 or batch < 1:
            raise InvalidSetting("concurrency and batch are at least 1")
        self._work, self._process = work, process
        self._concurrency, self._batch = concurrency, max(batch, concurrency)
        self._name = disk.random_hex(8)
        self._claimed: deque[Item] = deque()
        self._running: dict[Item, float] = {}
        self._finished: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        self._outcomes: list[_Outcome] = []
        self._report = RunReport()

    def go(self, stop: threading.Event) -> RunReport:
        """Work until there is nothing left to do."""
        # Held while the worker lives: the kernel drops it at its death.
        path = self._work._log.lock_path(self._worker_lock(self._name))
        with fact_log.locked(path):
            try:
                while True:
                    self._collect()
                    wake_at = self._step(stop.is_set())
                    self._tell()
                    # As many as may run at a time; others wait claimed.
                    while self._claimed and len(self._running) < self._concurrency:
                        self._start(self._claimed.popleft())
                    if not self._running and wake_at is None:
                        return self._report
                    self._wait(wake_at, stop)
            finally:
                with contextlib.suppress(OSError):
                    # The name is a worker's own, so that nobody else can hold it.
                    os.unlink(path)

    def _tell(self) -> None:
        """Report how far the run is."""
        if self.progress is not None:
            finished = self._report.completed + self._report.dead
            # Items of other workers count as well until they are done: this run may get them.
            remaining = min(
                len(self._candidates()), self.quota + len(self._claimed) + len(self._running)
            )
            self.progress(finished, finished + int(remaining))

    def _start(self, item: Item) -> None:
        self._running[item] = time.monotonic() + self._work.timeout
        # A daemon: one that exceeds its time must not keep the program from ending.
        thread = threading.Thread(target=self._attempt, args=(item,), daemon=True)
        thread.start()

    def _attempt(self, item: Item) -> None:
        """Process an item; the main function of a thread."""
        try:
            outcome = _Outcome(item, self._process(item))
        except ItemRejected as error:
            outcome = _Outcome(item, error=str(error) or "rejected", is_final=True)
        # Also SystemExit and the like, which would end this thread alone.
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            outcome = _Outcome(item, error=reason)
        self._finished.put(outcome)

    def _collect(self) -> None:
        """Take the outcomes that are there, and those of attempts whose time is over."""
        with contextlib.suppress(queue.Empty):
            while True:
                outcome = self._finished.get_nowait()
                # Not there any more: its time was over, and it has an outcome.
                if self._running.pop(outcome.item, None) is not None:
                    self._outcomes.append(outcome)
        clock = time.monotonic()
        for item in [item for item, until in self._running.items() if until <= clock]:
            del self._running[item]
            reason = f"timed out after {self._work.timeout:g} s"
            self._outcomes.append(_Outcome(item, error=reason))

    def _wait(self, wake_at: float | None, stop: threading.Event) -> None:
        """Wait for an outcome, for a time-out, or until something may have become ready."""
        ends = [until - time.monotonic() for until in self._running.values()]
        ends += [] if wake_at is None else [wake_at - time.time()]
        pause = max(min([*ends, _LOOK]), 0.001)
        if self._running:
            with contextlib.suppress(queue.Empty):
                outcome = self._finished.get(timeout=pause)
                # Only looked at: `_collect` takes it.
                self._finished.put(outcome)
        else:
            stop.wait(pause)

    def _step(self, is_stopping: bool) -> float | None:
        """Store outcomes and claim what is ready, as one write; return when to look again, in
        seconds since 1970, or None if nothing more will come."""
        work, report = self._work, RunReport()
        with work._exclusive() as facts:
            for outcome in self._outcomes:
                facts += self._facts_of(outcome, report)
            facts += self._lost()
            # Nobody is given what was erased, or rolled back, since it was claimed.
            remaining = [item for item in self._claimed if (item.source, item.id) in work._items]
            self._claimed = deque(remaining)
            if is_stopping:
                # Others may have them at once, and need not wait for the lease.
                facts += [self._release(item) for item in self._claimed]
            # As if they were stored: what follows depends on them. An error starts all anew.
            work._learn(facts)
            claims = [] if is_stopping else self._choose()
            # The last of a batch begins once those before it have had their time.
            until = time.time() + _GRACE + work.timeout * (1 + self._batch // self._concurrency)
            for item in claims:
                data = {"attempt": item.attempt, "worker": self._name, "lease_until": until}
                key = item.source, item.id
                facts.append(work._fact(PROCESS, key, data, f"process/{item.attempt}"))
            wake_at = None if is_stopping else self._wake_at()
        self._outcomes.clear()
        if is_stopping:
            self._claimed.clear()
        self._claimed.extend(claims)
        self.quota -= len(claims)
        self._report.completed += report.completed
        self._report.failed += report.failed
        self._report.dead += report.dead
        return wake_at

    def _facts_of(self, outcome: _Outcome, report: RunReport) -> list[Fact]:
        """Return what is to be stored of an outcome: nothing if it came too late."""
        work, item = self._work, outcome.item
        standing = work._items.get((item.source, item.id))
        # Completed by another worker meanwhile, or rolled back.
        if standing is None or standing.is_done:
            return []
        if not outcome.error:
            result = outcome.result
            data = dict(result) if isinstance(result, Mapping) else {"result": result}
            data = {k: v for k, v in data.items() if v is not None} | {"attempt": item.attempt}
            fact = work._fact(COMPLETE, (item.source, item.id), data, "complete")
            # Now, or all outcomes of this write would fail with it.
            try:
                work._log.check(fact)
            except InvalidEvent as error:
                outcome = _Outcome(item, error=f"result cannot be stored: {error}", is_final=True)
            else:
                report.completed += 1
                return [fact]
        # Its lease was over, and it counts as failed already.
        if item.attempt in standing.failed:
            return []
        fact = work._failure(item, outcome.error, outcome.is_final)
        report.failed += 1
        report.dead += fact["data"]["dead"]
        return [fact]

    def _lost(self) -> list[Fact]:
        """Return failures of attempts whose worker died or did not answer in time."""
        failed, is_alive = [], {self._name: True}
        for (source, id), standing in self._work._taken.items():
            worker = standing.worker
            if worker not in is_alive:
                path = self._work._log.lock_path(self._worker_lock(worker))
                is_alive[worker] = bool(worker) and File(path).exists() and LockFile(path).is_held()
                if not is_alive[worker]:
                    # Nobody needs the lock of a dead worker.
                    with contextlib.suppress(OSError):
                        os.unlink(path)
            is_late = time.time() > standing.until and worker != self._name
            if not is_alive[worker] or is_late:
                item = Item(source, id, standing.data, standing.attempt)
                reason = f"worker {worker} {'did not answer' if is_alive[worker] else 'died'}"
                # At once: the item did nothing wrong.
                failed.append(self._work._failure(item, reason, dead=False, at_once=True))
        return failed

    def _release(self, item: Item) -> Fact:
        """Return the fact that a claimed item was not begun."""
        key = item.source, item.id
        return self._work._fact(
            DISCOVER, key, {"released": item.attempt}, f"release/{item.attempt}"
        )

    def _choose(self) -> list[Item]:
        """Choose what to claim: a batch, once the last one is begun."""
        if self._claimed or len(self._running) >= self._concurrency:
            return []
        count = int(min(self._batch - len(self._running), self.quota))
        selection: list[Item] = []
        clock = time.time()
        for (source, id), standing in self._candidates():
            if len(selection) >= count:
                break
            # Failed a moment ago, it waits.
            is_due = standing.is_due(clock, self._work._backoff_max)
            if is_due and state_of(standing) == "waiting":
                selection.append(Item(source, id, standing.data, standing.attempt + 1))
        return selection

    def _candidates(self) -> Collection[tuple[ItemKey, Standing]]:
        """Return the open items that this run is for."""
        standings = self._work._open
        if self.only is None:
            return standings.items()
        return [(key, standings[key]) for key in self.only if key in standings]

    def _wake_at(self) -> float | None:
        """When something may become ready: None if nothing will, unless new items are added."""
        if self.quota <= 0:
            return None
        clock = time.time()
        # Until an attempt ends there is no room for others.
        if self._claimed or len(self._running) >= self._concurrency:
            return clock + _LOOK
        times = [clock + _LOOK] if self.forever else []
        for _, standing in self._candidates():
            if standing.is_claimed:
                times += [clock + _LOOK] if standing.worker != self._name else []
            else:
                is_due = standing.is_due(clock, self._work._backoff_max)
                times.append(clock if is_due else standing.retry_at)
                if is_due:
                    break
        return min(times, default=None)

    def _worker_lock(self, worker: str) -> str:
        return f"{self._work.name}\0worker\0{worker}"
