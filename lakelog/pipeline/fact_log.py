"""Where the facts of a queue are: a branch of a lake, or an oos.log.

A fact is an event: time, type, category (the queue), source and subject (the item), data. Whoever
changes the state of a queue holds its lock, reads what is new, and appends the facts that follow.
The lock is an flock, which the kernel drops when a process dies.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import orjson

from lakelog import arrays, formats, subscriptions
from lakelog import lake as lakes
from lakelog.appends import KnownKeys
from lakelog.disk import OpenFile, disk
from lakelog.errors import InvalidEvent
from lakelog.event import EncodedBatch, identity_key, payload_of
from lakelog.lake import Lake
from lakelog.sql import literal
from lakelog.store import Store
from lakelog.values import from_micros

Fact = dict[str, Any]
DISCOVER, PROCESS, COMPLETE, FAIL, FETCH = TYPES = (
    *("DISCOVER", "PROCESS", "COMPLETE", "FAIL", "FETCH"),
)
ADDED = "discover"
"""The step of an item that is added."""
_ALL = 2**31
_REMOVALS = ("erase", "retention", "dedupe", "lost")
"""Moves of a branch that take events away which are not taken back to."""


class FactLog(Protocol):
    """A log of facts. All of it is durable when `append` returns."""

    def read(self, queue: str) -> tuple[list[Fact], bool]:
        """Return the facts of a queue since the last call, and whether to begin anew with them."""

    def append(self, facts: list[Fact]) -> None:
        """Store facts, all or none. Raises InvalidEvent, OSError."""

    def check(self, fact: Fact) -> None:
        """Raise InvalidEvent for a fact that cannot be stored."""

    def restart(self) -> None:
        """Forget what was read: the next call of `read` returns all."""

    def lock_path(self, name: str) -> str:
        """Return the path of a lock file; the name tells locks of one log apart."""


class LakeLog:
    """The facts of one branch of an open lake."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._follower: subscriptions.Follower | None = None
        self._move, self._erasures = 0, 0

    def read(self, queue: str) -> tuple[list[Fact], bool]:
        """Return the new facts. After a rewind of the branch, or when some were removed, they are
        all of its facts."""
        if self._has_removed():
            self._follower = None
        rows, is_new = [], self._follower is None
        # Only what came since: a queue of millions is read once.
        if self._follower is not None:
            for batch in self._follower.more():
                if isinstance(batch, subscriptions.BranchRewound):
                    self._follower, is_new = None, True
                    # What was read holds no more: all facts of the state that is there now.
                    break
                rows += arrays.records(batch)
        if self._follower is None:
            types = ", ".join(map(literal, TYPES))
            condition = f"category = {literal(queue)} AND type IN ({types})"
            self._follower = subscriptions.Follower(self.lake.subscriptions(), condition)
            rows = arrays.records(self._follower.last(_ALL))
        return [{**row, "data": _parsed(row["data"])} for row in rows], is_new

    def _has_removed(self) -> bool:
        """Whether the branch may have lost events since the last call, of what was read then."""
        store, branch, before = self.lake.store, self.lake.branch_name, self._move
        # In this order: an erasure is noted before its move.
        self._move = store.refs.head(branch).move.number
        erasures, self._erasures = self._erasures, store.erased.refresh()
        # Nothing was read: whoever begins anew need not look at all of the history.
        if self._follower is None or (self._move, self._erasures) == (before, erasures):
            return False
        moves = store.refs.newest_first(branch)
        later = itertools.takewhile(lambda move: move.number > before, moves)
        return erasures != self._erasures or any(move.op in _REMOVALS for move in later)

    def append(self, facts: list[Fact]) -> None:
        """Store facts in one write. The id of one that adds an item is changed if the lake has it:
        retention or an erasure has removed the facts of the item and left their ids."""
        added = [fact for fact in facts if str(fact.get("id")).endswith(f"/{ADDED}")]
        if added:
            store = self.lake.store
            known_keys = KnownKeys(store).of(store.state(self.lake.branch_name).ids)
            for fact in added:
                if known_keys.holds(bytes.fromhex(identity_key(fact["source"], fact["id"]))):
                    fact["id"] += f"~{disk.random_hex(4)}"
        self.lake.append(facts)

    def check(self, fact: Fact) -> None:
        """Raise InvalidEvent for a fact that is no event."""
        EncodedBatch.of([fact])

    def restart(self) -> None:
        """Read all again at the next call."""
        self._follower = None

    def lock_path(self, name: str) -> str:
        """Return a path in the lake's cache."""
        digest = hashlib.sha256(f"{self.lake.branch_name}\0{name}".encode()).hexdigest()[:16]
        return f"{self.lake.store.paths.cache}/queue-{digest}.lock"


class FileLog:
    """An oos.log: `timestamp|event_type|content_type|source|item_id|data_json` in each line.

    Lines of other forms are left alone. Locks are files beside it.
    """

    def __init__(self, path: str) -> None:
        self.path, self._end = path, 0
        self._identity = (0, 0)  # device and inode of what was read

    def read(self, queue: str) -> tuple[list[Fact], bool]:
        """Return the facts of whole lines that are new; after a truncation, of all."""
        is_new = self._end == 0
        try:
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                identity = status.st_dev, status.st_ino
                # Another file has its name, or it is shorter: one that was emptied.
                if identity != self._identity or status.st_size < self._end:
                    self._end, self._identity, is_new = 0, identity, True
                file.seek(self._end)
                content = file.read()
        except FileNotFoundError:
            self._end = 0
            return [], True
        # A line that is being written is read the next time.
        whole = content[: content.rfind(b"\n") + 1]
        self._end += len(whole)
        facts = []
        for line in whole.splitlines():
            with contextlib.suppress(InvalidEvent):
                (fact,) = formats.FORMATS["oos"].events(line)
                # The log may be that of several queues, and have other events.
                if fact.get("category") == queue and fact["type"] in TYPES:
                    facts.append(fact)
        return facts, is_new

    def append(self, facts: list[Fact]) -> None:
        """Append lines and sync them."""
        lines = b"".join(map(_line, facts))
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        with OpenFile.closing(os.open(self.path, flags, 0o644)) as fd:
            # The queues of one file each have a lock: what one takes back must not be another's.
            OpenFile(fd).lock(wait=True)
            size = os.fstat(fd).st_size
            # The beginning of a line that a process left when it died: it stays a line of its own.
            if size and os.pread(fd, 1, size - 1) != b"\n":
                lines = b"\n" + lines
            try:
                OpenFile(fd).write(lines)
            except OSError:
                # Half of a line would join the next one.
                os.ftruncate(fd, size)
                raise
            OpenFile(fd).sync()

    def check(self, fact: Fact) -> None:
        """Raise InvalidEvent for a fact that is no event, or whose fields would divide a line."""
        EncodedBatch.of([fact])
        for name in ("type", "category", "source", "subject"):
            if any(mark in str(fact.get(name) or "") for mark in "|\r\n"):
                raise InvalidEvent(f"{name} holds a bar or a line break: {fact[name]!r}")

    def restart(self) -> None:
        """Read all again at the next call."""
        self._end = 0

    def lock_path(self, name: str) -> str:
        """Return a path beside the file."""
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        directory, base = os.path.split(self.path)
        return os.path.join(directory, f".{base}.{digest}.lock")


def open_log(log: Lake | FactLog | str | os.PathLike[str]) -> FactLog:
    """Return the log of an open lake, a lake's directory, or the path of an oos.log."""
    if isinstance(log, (str, os.PathLike)):
        path = os.fspath(log)
        # A directory that is a lake is one; any other path is an oos.log, also one that is not
        # there yet.
        return LakeLog(lakes.open(path)) if Store.is_lake(path) else FileLog(path)
    return LakeLog(log) if isinstance(log, Lake) else log


def fact_of(
    queue: str, fact_type: str, key: tuple[str, str], data: Mapping[str, object], step: str
) -> Fact:
    """Return a fact of now about an item, given by its source and id."""
    # The id tells what is said of which item, so that a lake stores no fact twice. Its first
    # slash ends the name of the queue: ids of items may have slashes, too.
    queue_name = queue.replace("%", "%25").replace("/", "%2F")
    moment = from_micros(time.time_ns() // 1000).replace(tzinfo=None)
    return {
        "time": f"{moment.isoformat(timespec='microseconds')}Z",
        "type": fact_type,
        "category": queue,
        "source": key[0],
        "subject": key[1],
        "id": f"{queue_name}/{key[1]}/{step}",
        "data": data,
    }


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock of a file, waiting for it. Raises OSError where it cannot be created."""
    while True:
        with OpenFile.closing(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)) as fd:
            OpenFile(fd).lock(wait=True)
            # Somebody may have removed the file while we waited: then the lock excludes nobody.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(fd)):
                    yield
                    return


def _line(fact: Fact) -> bytes:
    """Return a fact as a line."""
    head = (fact["time"], fact["type"], fact["category"], fact["source"], fact["subject"])
    # Through the encoder, which knows what of a payload JSON can express.
    (line,) = EncodedBatch.of([fact]).lines
    data = payload_of(line) or b"{}"
    return "|".join(str(field or "") for field in head).encode() + b"|" + data + b"\n"


def _parsed(document: str | None) -> object:
    try:
        return orjson.loads(document) if document else None
    except orjson.JSONDecodeError:
        return None
