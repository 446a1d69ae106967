"""What a remote is: a place that holds the files of a lake under the names of FORMAT.md.

A kind of remote is one class with the methods of `Remote`. It moves bytes and knows nothing of
lakes: what is uploaded, in which order, and what may be believed is decided above it. Objects and
refs appear whole under their names or not at all; `put_new` decides races between pushes as `link`
does in a lake. A kind without such names (a registry) maps keys to what it has.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar

from lakelog import clients
from lakelog.errors import TransferRefused, Unreachable
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    from concurrent import futures
else:
    futures = Lazy("concurrent.futures")

TRIES = 5
"""Attempts at one request before a remote counts as unreachable."""
DOCUMENT_MAX = 4 << 20
"""Bytes of a move, a tag or lakelog.json at most."""
WORKERS = 8
"""Objects under way at once."""
SETTLING = 1.0
"""Seconds after which a name that was written belongs to the last one that wrote it, where a kind
has no way to take it: longer than between the look of another push and its write."""
SLOW_SECONDS, SLOWEST = 45.0, 100
"""Who sends fewer bytes a second than that, over so many seconds of waiting, is given up."""
_NOTED = 0.001
_PIECE = 1 << 20
_T = TypeVar("_T")
_R = TypeVar("_R")


class Interrupted(ConnectionError):
    """Raised by a kind of remote where a request may succeed if it is made again; `advice` is for
    one that never did."""

    def __init__(self, message: str, advice: str = "run it again, it goes on where it was") -> None:
        super().__init__(message)
        self.advice = advice


class Pace:
    """Ends what comes so slowly that it never would: a byte every few seconds breaks no timeout of
    a connection. The first bytes may take as long as they do. Raises Unreachable."""

    def __init__(self, url: str) -> None:
        self._url, self._waited, self._got, self._is_first = url, 0.0, 0, True

    def over(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the pieces as they come."""
        while True:
            started = time.monotonic()
            chunk = next(chunks, None)
            if chunk is None:
                return
            self.add(time.monotonic() - started, len(chunk))
            yield chunk

    def add(self, seconds: float, count: int) -> None:
        """Note that so many bytes were waited for so long."""
        # The first bytes wait for the far end's disk; tiny waits are the noise of the scheduler.
        if self._is_first or seconds < _NOTED:
            self._is_first = False
            self._got += count
            return
        self._waited, self._got = self._waited + seconds, self._got + count
        if self._waited > SLOW_SECONDS:
            if self._got < self._waited * SLOWEST:
                raise Unreachable(
                    f"{self._url}: less than {SLOWEST} bytes a second come from there: run it again"
                    " when it is faster, it goes on where it was"
                )
            self._waited, self._got = 0.0, 0


class Remote(abc.ABC):
    """The files of one remote, by key: `segments/ab/ab12….parquet`, `refs/tags/v1.json`.

    Methods raise Interrupted, Unreachable, TransferRefused, OSError. Threads share a remote.
    """

    deciding = ""
    """The service that decides whether `put_new` may take a name, which has to be tried once; "" of
    a kind that is known to refuse a taken name, or that looks again by itself."""
    lists_objects = False
    """Whether each ref there lists all objects that it needs, as `publishing` is told. Then
    `without`, `rewrite` and `purge` are what erases there."""

    is_lake_directory = True
    """Whether a lake may be opened there, which asks what came from others."""

    keeps_versions = False
    """Whether what is removed or replaced there stays as an older version, as far as it has said
    so in answer to what was stored."""

    def __init__(self, url: str) -> None:
        """`url` is an address as `checked_url` returns it."""
        self.url = url

    @property
    def collects(self) -> bool:
        """Whether gc may run there, so that objects have to be looked at again before they are
        named."""
        return True

    @abc.abstractmethod
    def stream(self, key: str, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a file from `start` on. Raises FileNotFoundError."""

    def piece(self, key: str, start: int, length: int) -> bytes:
        """Return so many bytes of a file from `start` on, or as many as there are. Raises
        FileNotFoundError."""
        data = bytearray()
        for chunk in self.stream(key, start):
            data += chunk
            if len(data) >= length:
                break
        return bytes(data[:length])

    @abc.abstractmethod
    def names(self, folder: str) -> Iterator[str]:
        """Yield the names of files and folders in a folder; none if it is not there."""

    def folders(self, folder: str) -> Iterator[str]:
        """Yield the names of the folders in a folder of few files, and perhaps of these."""
        return self.names(folder)

    def lengths(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield the names of the files of a folder with their lengths; none if it is not there."""
        return iter(())

    @abc.abstractmethod
    def size(self, key: str) -> int | None:
        """The length of a file in bytes, None if it is not there."""

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        """The lengths of some files, asked for together where that is possible; else one by one,
        each again where that was interrupted."""
        return [retrying(functools.partial(self.size, key)) for key in keys]

    @abc.abstractmethod
    def put(self, key: str, read_chunks: Callable[[], Iterator[bytes]], size: int) -> None:
        """Store an object, whole or not at all, also in the place of one that is not whole;
        `read_chunks` yields its bytes, at each call again."""

    @abc.abstractmethod
    def put_new(self, key: str, data: bytes) -> bool:
        """Store a file that must not exist, durably; False if the name is taken."""

    def try_new(self, key: str, data: bytes) -> bool:
        """`put_new` by the word of the service alone, without a look at what it has."""
        return self.put_new(key, data)

    @abc.abstractmethod
    def replace(self, key: str, data: bytes) -> None:
        """Store a file in the place of another one, durably."""

    def holding_config(self) -> AbstractContextManager[object]:
        """Keep programs of a lake in use from changing its lakelog.json, where that can be."""
        return contextlib.nullcontext()

    @abc.abstractmethod
    def remove(self, key: str) -> None:
        """Remove a file, if it is there."""

    def remove_all(self, keys: Sequence[str]) -> None:
        """Remove some files, if they are there, together where that is possible."""
        for key in keys:
            self.remove(key)

    def without(self, needed: Mapping[str, str]) -> list[str]:
        """Return those refs that do not list the object that each needs."""
        return []

    def rewrite(self, key: str, data: bytes) -> None:
        """Store a ref once more, with other lists."""
        self.replace(key, data)

    def purge(self, erased: Collection[str], is_old: Callable[[bytes], bool]) -> bool:
        """Delete objects by key, documents of refs that are old, and what lists them; return
        whether all could be deleted. Raises TransferRefused where a ref needs one."""
        for key in erased:
            self.remove(key)
        return True

    def flush(self) -> None:  # noqa: B027
        """Make durable what `put` stored, where that is not by itself."""

    @abc.abstractmethod
    def publishing(self, objects: Mapping[str, int]) -> AbstractContextManager[object]:
        """Keep gc from deleting anything until the context ends, in which one ref is made. It names
        `objects`, lengths by key: all of them where the remote lists them, else the new ones."""

    def close(self) -> None:  # noqa: B027
        """Close connections."""


def read(remote: Remote, key: str, limit: int = DOCUMENT_MAX) -> bytes:
    """Return a file of at most `limit` bytes. Raises FileNotFoundError, and as the methods do."""
    pace = Pace(remote.url)
    return retrying(lambda: _read(remote, key, limit, pace))


def _read(remote: Remote, key: str, limit: int, pace: Pace) -> bytes:
    data = bytearray()
    for chunk in pace.over(remote.stream(key)):
        data += chunk
        if len(data) > limit:
            raise TransferRefused(f"{remote.url}: {key} is longer than {limit:,} bytes: refused")
    return bytes(data)


def pieces(remote: Remote, key: str) -> Iterator[bytes]:
    """Yield the bytes of a file, going on where a connection broke. Raises FileNotFoundError,
    Unreachable."""
    got = attempts = 0
    pace = Pace(remote.url)
    while True:
        try:
            for chunk in pace.over(remote.stream(key, got)):
                # Bytes that came reset the count of attempts: a long transfer may break often, and
                # still advance.
                got, attempts = got + len(chunk), 0
                yield chunk
            return
        except Interrupted as error:
            attempts += 1
            give_up_or_wait(attempts, error)


def put(remote: Remote, key: str, data: bytes) -> None:
    """Store an object of these bytes, as `Remote.put` does."""
    starts = range(0, len(data), _PIECE)
    retrying(lambda: remote.put(key, lambda: (data[n : n + _PIECE] for n in starts), len(data)))


def put_new(remote: Remote, key: str, data: bytes) -> bool:
    """Store a file that must not exist; False if another one has the name."""
    for number in range(1, TRIES + 1):
        # Each attempt looks at what is there before it says that the name is taken.
        if retrying(lambda: remote.put_new(key, data)):
            return True
        # An attempt whose answer was lost may have succeeded: then the next one loses to it.
        try:
            # Ours by its bytes: a move has a random commit, so that no two are equal.
            return read(remote, key, max(len(data), DOCUMENT_MAX)) == data
        except FileNotFoundError:
            # S3 answers 409 while another write of the name is under way, which may come to
            # nothing: then nobody has it.
            give_up_or_wait(number, Interrupted(f"{remote.url}: {key} is neither free nor taken"))
    raise AssertionError


def clocks() -> tuple[float, float]:
    """Now, by both clocks: one stands still while the machine sleeps, and people set the other."""
    return time.monotonic(), time.time()


def seconds_since(then: tuple[float, float]) -> float:
    """How long ago that was, by the clock by which it is longer."""
    return max(now - before for now, before in zip(clocks(), then, strict=True))


def retrying(attempt: Callable[[], _T]) -> _T:
    """Return what `attempt` returns, made again where it was interrupted. Raises Unreachable."""
    for number in range(1, TRIES + 1):
        try:
            return attempt()
        except Interrupted as error:
            give_up_or_wait(number, error)
    raise AssertionError


def give_up_or_wait(number: int, error: Interrupted) -> None:
    """Wait after the nth attempt that was interrupted. Raises Unreachable after the last one."""
    if number >= TRIES:
        raise Unreachable(f"{error}: {error.advice}") from None
    time.sleep(clients.pause(number))


def in_parallel(
    work: Callable[[_T], _R],
    items: Iterable[_T],
    workers: int = WORKERS,
    *,
    only_reads: bool = False,
) -> Iterator[tuple[_T, _R]]:
    """Yield (item, result) as they are done, with a bounded number under way. Raises the first
    error, after what is under way has ended; but Ctrl-C at once if that `only_reads`."""
    waiting, waits = iter(items), True
    pool = futures.ThreadPoolExecutor(workers)
    running: dict[futures.Future[_R], _T] = {}
    # Twice as many as workers: results are given out while others are under way.
    try:
        while True:
            for item in waiting:
                running[pool.submit(work, item)] = item
                if len(running) >= 2 * workers:
                    break
            if not running:
                return
            for future in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except KeyboardInterrupt:
        # A server that stands still would be waited for until the time of its request is over.
        waits = not only_reads
        raise
    finally:
        # What has begun ends by itself.
        pool.shutdown(wait=waits, cancel_futures=True)
