"""Every call to the operating system fails in turn, below lakelog's own door to the disk.

Each verb runs once to count its calls; then again for each call and each kind of failure, once
and for ever. Afterwards the lake opens, verifies, holds every acknowledged event once, and the
same verb works when it is tried again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import lakelog
from lakelog.disk import disk
from lakelog.errors import AlreadyExists, LakelogError, NothingToUndo
from lakelog.history import thinning
from tests.support.feeds import feed, put
from tests.support.seam import Killed
from tests.support.verbs import FREE, VERBS, Verb, check, events, names, prepared
from tests.support.world import warm_engine
from tests.torture.case import Case, Row

DOOR = os.path.dirname(disk.__file__)
CALLS = """write fdatasync fsync ftruncate open close link unlink replace mkdir rmdir listdir
    stat""".split()
FAULTS: dict[str, tuple[int, bool]] = {
    "EIO once": (errno.EIO, False),
    "EIO for ever": (errno.EIO, True),
    "ENOSPC once": (errno.ENOSPC, False),
    "ENOSPC for ever": (errno.ENOSPC, True),
    "EINTR once": (errno.EINTR, False),
    "short once": (0, False),
    "short for ever": (0, True),
    "torn, then death": (-1, True),
}
FULL = {"write", "open", "link", "mkdir"}
"""Calls that need room: a full disk lets others through."""


def _ingest(lake: lakelog.Lake) -> None:
    lake.ingest(put(Path(f"{lake.path}.feed"), feed(20, subject="f", id="once") + b'{"oops\n'))


WORK: dict[str, tuple[Verb, list[str]]] = {
    **{name: (verb, adds) for name, (_, verb, adds) in VERBS.items()},
    "ingest": (_ingest, ["f"]),
    "compact": (lambda k: k.compact(), []),
}
START = {"ingest": "append", "compact": "settle"}
PARTS = 6
"""A case takes every so manieth call of a verb, so that a short run reaches every verb."""
PLAYS = random.Random(7).sample([(v, f) for v in WORK for f in FAULTS], len(WORK) * len(FAULTS))
WRITERS = {"first append", "append", "append to next file"}


class Calls:
    """The module `os` as the door to the disk sees it, whose calls fail from the `at`-th on."""

    def __init__(self, at: int, fault: str) -> None:
        self._code, self._sticky = FAULTS[fault]
        self._at, self.count, self.fired = at, 0, 0
        self.sites: set[str] = set()
        self._open: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return (lambda *a, **k: self._call(name, real, *a, **k)) if name in CALLS else real

    def _call(self, name: str, real: Any, *args: Any, **kwargs: Any) -> Any:
        if name == "close":
            self._open.discard(args[0])
            return real(*args, **kwargs)
        if self.fired and self._code == -1:
            raise Killed
        if self._touches(name, args):
            self.count += 1
            if self.count == self._at or (self._sticky and self.count > self._at):
                self.fired += 1
                self.sites.add(_site())
                if self._code == 0:
                    return real(args[0], bytes(args[1][: max(1, len(args[1]) // 2)]))
                self._tear(name, args)
                raise Killed if self._code == -1 else OSError(self._code, "planted")
        result = real(*args, **kwargs)
        if name == "open":
            self._open.add(result)
        return result

    def _touches(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether this kind of failure can happen in this call."""
        if self._code == 0:
            return name == "write" and len(args[1]) > 1
        if self._code == errno.ENOSPC:
            return name in FULL and not (name == "open" and not args[1] & os.O_CREAT)
        return True

    def _tear(self, name: str, args: tuple[Any, ...]) -> None:
        if name == "write" and self._code in (-1, errno.ENOSPC):
            os.write(args[0], args[1][: len(args[1]) // 2])

    def release(self) -> None:
        """Close what a dead process had open."""
        for fd in self._open:
            with contextlib.suppress(OSError):
                os.close(fd)


def _site() -> str:
    """Where in lakelog, outside the door, the failing call comes from."""
    frame = sys._getframe(3)
    while frame.f_back and frame.f_code.co_filename.startswith(DOOR):
        frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def calls(case: Case) -> None:
    """Fail calls of one verb in one way, each in a lake of its own."""
    verb, fault = PLAYS[case.number % len(PLAYS)]
    warm_engine(case.patch)
    case.patch.setattr(thinning, "UNPACKED", 3)
    before = prepared(START.get(verb, verb), case.place, case.patch)
    with lakelog.open(str(before), create=False) as lake:
        there = set(names(lake))
    sites: set[str] = set()
    for at in range(1 + case.number // len(PLAYS) % PARTS, 10_000, round(PARTS / case.size)):
        planted = Calls(at, fault)
        where = f"{verb}, {fault} at call {at}"
        _fail(case, before, verb, planted, there, where, again=at % 3 == 0)
        sites |= planted.sites
        if not planted.fired:
            break
        case.verified(planted.fired)
    case.tally.notes["call sites that failed, summed over plays"] += len(sites)


def _fail(
    case: Case, before: Path, verb: str, planted: Calls, there: set[str], where: str, again: bool
) -> None:
    do, adds = WORK[verb]
    path, ever = str(case.place / "lake"), there | {f"e{n}" for n in range(20)} | set(adds)
    shutil.copytree(before, path)
    lake = lakelog.open(path, create=False)
    wanted, killed = set(there), planted._code == -1
    try:
        with case.patch.context() as inner:
            inner.setattr(disk, "os", planted)
            with contextlib.suppress(Killed, OSError, LakelogError):
                do(lake)
                if verb in WRITERS:
                    wanted |= set(adds)
        if killed:
            planted.release()
        else:
            lake.append(events(60, 1))
            wanted.add("e60")
        check(path, wanted, ever | {"e60"}, verb in FREE)
        with lakelog.open(path) as again, contextlib.suppress(AlreadyExists, NothingToUndo):
            do(again)
        if again:
            check(path, there | set(adds), ever | {"e60"}, verb in FREE)
    except Exception as error:
        raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            lake.close()
        shutil.rmtree(path)


ROWS = [Row("calls", "failed calls, each site", 2000, 2000, 80, calls, cases=len(PLAYS) * PARTS)]
