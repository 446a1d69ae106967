"""Tasks for several processes: those of this machine, or a Ray cluster.

    local, local:N     processes of this machine: one for each processor, or N
    ray                those of the Ray cluster that this machine is part of, each with a processor
    ray://HOST:PORT    those of a Ray cluster that is reached by Ray's client

A task is a call of a module's function, with arguments that can be pickled. Results come in the
order of the tasks. What a worker was at when it died another does once more: so a task that is done
twice must leave what it leaves when it is done once.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, cast

from lakelog.errors import InvalidSetting, MissingPackage, Unreachable
from lakelog.runtime import interpreter
from lakelog.runtime.lazy import Lazy
from lakelog.workers import worker_process
from lakelog.workers.worker_process import TaskOutcome

if TYPE_CHECKING:
    import subprocess

    import ray
else:
    ray, subprocess = Lazy("ray"), Lazy("subprocess")

_T = TypeVar("_T")
WorkerTask = tuple[Callable[..., object], tuple[object, ...]]
LOCAL, RAY, RAY_CLIENT = "local", "ray", "ray://"
ATTEMPTS = 4
"""A task whose worker died so often is given up: it may be what kills them."""
_AHEAD = 2
"""Tasks of each worker that are under way or wait for it: more would only take memory."""


class WorkerPool(ABC):
    """What does tasks; `count` of them at once."""

    count: int
    _threads: ThreadPoolExecutor

    @staticmethod
    @contextlib.contextmanager
    def at(place: str | None) -> Iterator[WorkerPool | None]:
        """Have the workers of a place, None for none. Raises InvalidSetting for a place that is
        none, MissingPackage without Ray, Unreachable for a cluster that does not answer."""
        pool = None if place is None else _pool_at(place)
        try:
            yield pool
        finally:
            if pool is not None:
                pool.close()

    @staticmethod
    def local(count: int) -> WorkerPool:
        """Return so many processes of this machine, which start with the first tasks."""
        return _LocalWorkers(count)

    @staticmethod
    def is_elsewhere(place: str | None) -> bool:
        """Whether tasks leave this machine."""
        return place == RAY or (place is not None and place.startswith(RAY_CLIENT))

    def results(
        self, function: Callable[..., _T], tasks: Iterable[tuple[object, ...]]
    ) -> Iterator[_T]:
        """Yield what the function returns for each tuple of arguments, or raise what it raises.
        Raises Unreachable for a task whose workers died."""
        pending = deque[Future[_T]]()
        try:
            for arguments in tasks:
                pending.append(self.submit(function, arguments))
                if len(pending) >= _AHEAD * self.count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for task in pending:
                task.cancel()

    def submit(self, function: Callable[..., _T], arguments: tuple[object, ...]) -> Future[_T]:
        """Have one task done, behind those that wait; see `results`."""
        return self._threads.submit(self._result, function, arguments)

    @abstractmethod
    def close(self) -> None:
        """End what was started."""

    @abstractmethod
    def _outcome(self, task: WorkerTask) -> TaskOutcome:
        """Have a task done; return what `worker_process.outcome` makes of it."""

    def _result(self, function: Callable[..., object], arguments: tuple[object, ...]) -> Any:
        is_done, value = self._outcome((function, arguments))
        if isinstance(value, BaseException) and not is_done:
            raise value
        return value


def _pool_at(place: str) -> WorkerPool:
    if WorkerPool.is_elsewhere(place) and place != RAY_CLIENT:
        return _RayWorkers(place)
    name, colon, number = place.partition(":")
    if name == LOCAL and (not colon or (number.isdecimal() and int(number))):
        return WorkerPool.local(int(number) if colon else os.cpu_count() or 1)
    raise InvalidSetting(
        f"no workers are at {place!r}: name local, local:N, ray or ray://HOST:PORT"
    )


class _LocalWorkers(WorkerPool):
    """Processes of this machine. They end when this one does, whatever ends it."""

    def __init__(self, count: int) -> None:
        self.count, self._is_closed = count, False
        self._threads = ThreadPoolExecutor(count, "worker")
        self._idle: list[_Process] = []
        self._processes: list[_Process] = []

    def close(self) -> None:
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in [*self._processes]:  # for its end threads wait
            process.end()
        self._threads.shutdown()
        for process in self._processes:
            process.end()

    def _outcome(self, task: WorkerTask) -> TaskOutcome:
        message = pickle.dumps(task, protocol=5)
        for _ in range(ATTEMPTS):
            process = self._idle.pop() if self._idle else self._started()
            try:
                if self._is_closed:  # it started when the others were ended
                    raise EOFError
                answer = process.answer(message)
            except (OSError, EOFError):
                process.end()
                if self._is_closed:
                    break
                continue
            self._idle.append(process)
            outcome: TaskOutcome = pickle.loads(answer)
            return outcome
        raise Unreachable(
            f"a task was given up, as {ATTEMPTS} processes died of it (the last with"
            f" {process.status}): there may be too little memory for so many"
        )

    def _started(self) -> _Process:
        process = _Process()
        self._processes.append(process)
        return process


class _Process:
    """One process, which does a task at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lakelog.workers.worker_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process, which then ends it
            cwd="/",  # or a directory that is called lakelog would be found first
            env=interpreter.environment(),
        )

    @property
    def status(self) -> int | None:
        """How it ended: minus the number of a signal, None while it lives."""
        return self._process.returncode

    def answer(self, task: bytes) -> bytes:
        """Have a pickled task done. Raises OSError or EOFError where the process died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        worker_process.send(self._process.stdin, task)
        return worker_process.receive(self._process.stdout)

    def end(self) -> None:
        """End the process, and wait for it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):  # what was not sent
                stream.close()


class _RayWorkers(WorkerPool):
    """A Ray cluster, where lakelog is installed and the lake is mounted at the same path."""

    def __init__(self, address: str) -> None:
        with MissingPackage.unless("ray", f"--on {address}"):
            self._is_ours = not ray.is_initialized()
        try:
            if self._is_ours:
                with warnings.catch_warnings(action="ignore"):  # what it says is in the error
                    target = "auto" if address == RAY else address
                    ray.init(target, log_to_driver=False, logging_level="ERROR")
            self.count = max(int(ray.cluster_resources().get("CPU", 1)), 1)
        except Exception as error:
            raise _unreachable(address, error) from None
        self._address = address
        # A member of a cluster shares its memory. The client copies each byte a dozen times between
        # three processes, so its tasks are compressed.
        self._is_client = self._is_ours and address != RAY
        function = worker_process.compressed_outcome if self._is_client else worker_process.outcome
        # Ray does a task again if its worker, or the machine of it, is gone.
        remote: Callable[..., object] = ray.remote(max_retries=ATTEMPTS - 1)(function).remote
        self._start_task = remote
        # What a task needs and leaves is carried beside the thread that uses it.
        self._threads = ThreadPoolExecutor(_AHEAD * self.count, "ray")
        self._running = set[Any]()

    def close(self) -> None:
        for reference in [*self._running]:
            with contextlib.suppress(Exception):  # the cluster may be what is gone
                ray.cancel(reference, force=True)
        self._threads.shutdown(cancel_futures=True)
        if self._is_ours:
            ray.shutdown()

    def _outcome(self, task: WorkerTask) -> TaskOutcome:
        reference, arguments = None, cast("tuple[object, ...]", task)
        if self._is_client:
            arguments = (worker_process.compress(pickle.dumps(task, protocol=5)),)
        try:
            reference = self._start_task(*arguments)
            self._running.add(reference)
            answer = ray.get(reference)
        except Exception as error:
            raise _unreachable(self._address, error) from None
        finally:
            self._running.discard(reference)
        if self._is_client:
            answer = pickle.loads(worker_process.decompress(answer))
        return cast("TaskOutcome", answer)


def _unreachable(address: str, error: Exception) -> Unreachable:
    line = " ".join(str(error).split()) or type(error).__name__
    return Unreachable(f"{address}: {line[:300]}")
