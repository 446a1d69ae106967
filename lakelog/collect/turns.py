"""Large files take turns, so that the lines of all others come in meanwhile.

A file that needs long (much to catch up with, or packed) is read for a bounded time, published,
and left open until its next turn; between two turns the watcher looks at all other files. Few stay
open, for each holds chunks in memory: a new one has a first turn soon, which is all that most need,
and then waits until one of the others is at its end. A file is known here by its inode: under
whatever name it is seen meanwhile, it is read once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lakelog.ingest.batch import FileReport
from lakelog.ingest.ingest import Reading

SIZE = 256 << 20
"""Bytes that one file is read for in a turn, at most."""
SECONDS = 2.0
"""Seconds of one turn, after which no other begins in the same round."""
OPEN_MAX = 2
"""Files that stay open between two turns."""
_COUNTS = ("events", "quarantined", "nuls")
Identity = tuple[int, int]
Begin = Callable[[str, str, str], Reading]


@dataclass(frozen=True)
class TurnReport:
    """What one turn of a file brought, and whether the file is read to its end."""

    identity: Identity
    report: FileReport
    is_last: bool


@dataclass(eq=False)
class _Waiting:
    """A file that is read in turns, or will be; of one that lost its name `fd` is still open."""

    identity: Identity
    path: str
    name: str
    mode: str
    reading: Reading | None = None
    fd: int = -1
    had_turn: bool = False
    noted: FileReport = field(default_factory=lambda: FileReport(""))
    """What of its reading's report was given out before."""


class Turns:
    """The files that are read in turns. `begin(path, name, mode)` starts with one of them."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._waiting: list[_Waiting] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, identity: Identity) -> bool:
        return any(one.identity == identity for one in self._waiting)

    def add(self, identity: Identity, path: str, name: str, mode: str) -> None:
        """Let a file have turns until it is read to its end."""
        if identity not in self:
            self._waiting.append(_Waiting(identity, path, name, mode))

    def unname(self, identity: Identity, fd: int) -> bool:
        """Keep a file that lost its name until it is read, open as `fd`; False if it has no turns,
        or was never opened and cannot be any more."""
        one = next((one for one in self._waiting if one.identity == identity), None)
        if one is None:
            return False
        if one.reading is None:
            if fd < 0:
                self._waiting.remove(one)
                return False
            one.path, one.mode = f"/dev/fd/{fd}", "last"
        _close(one.fd)
        one.fd = fd
        return True

    def unnamed(self) -> dict[Identity, str]:
        """Paths to files that lost their names and are not read to their ends."""
        return {one.identity: f"/dev/fd/{one.fd}" for one in self._waiting if one.fd >= 0}

    def run(self) -> list[TurnReport]:
        """Give turns for a while, one to each file at most; return what each brought.

        Raises LakelogError and OSError when the lake itself fails.
        """
        done, until = list[TurnReport](), time.monotonic() + SECONDS
        for one in self._next():
            is_last = self._turn(one)
            report = _since(one)
            if is_last and one.fd >= 0 and one.mode != "last":
                # It lost its name while it was read: what was written since has no other reader.
                _end_reading(one)
                one.path, one.mode, is_last = f"/dev/fd/{one.fd}", "last", False
            done.append(TurnReport(one.identity, report, is_last))
            self._waiting.remove(one)
            if is_last:
                _end(one)
            else:
                self._keep(one)
            if time.monotonic() > until:
                break
        return done

    def close(self) -> None:
        """Let go of the files; what is left of them is read by whoever comes next."""
        for one in self._waiting:
            _end(one)
        self._waiting.clear()

    def _turn(self, one: _Waiting) -> bool:
        """Give one file its turn; return whether it was its last."""
        if one.reading is None:
            one.reading = self._begin(one.path, one.name, one.mode)
            one.noted = FileReport("")
        try:
            return one.reading.turn(SIZE, SECONDS)
        except BaseException:
            _end_reading(one)
            raise

    def _next(self) -> list[_Waiting]:
        """Who may have a turn now: the one whose last is longest ago first, so that it goes on
        however many new ones there are, then those that had none yet."""
        old = [one for one in self._waiting if one.had_turn][:OPEN_MAX]
        return [*old[:1], *(one for one in self._waiting if not one.had_turn), *old[1:]]

    def _keep(self, one: _Waiting) -> None:
        """Put a file that is not at its end behind those that stay open with it, or at the end of
        all that wait."""
        others = sum(other.had_turn for other in self._waiting)
        if not one.had_turn and others >= OPEN_MAX:
            _end_reading(one)
            place = others
        else:
            place = min(others, OPEN_MAX - 1)
        one.had_turn = True
        self._waiting.sort(key=lambda other: not other.had_turn)
        self._waiting.insert(place, one)


def _since(one: _Waiting) -> FileReport:
    """What a file brought since this was asked last."""
    assert one.reading is not None
    report, noted = one.reading.report, one.noted
    one.noted = replace(report)
    counts = {name: getattr(report, name) - getattr(noted, name) for name in _COUNTS}
    return replace(report, **counts)


def _end_reading(one: _Waiting) -> None:
    if one.reading is not None:
        one.reading.close()
    one.reading = None


def _end(one: _Waiting) -> None:
    _end_reading(one)
    _close(one.fd)
    one.fd = -1


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
