"""Every verb is stopped at every change it makes to the disk: by death, or by a failing disk.

Afterwards the lake opens, verifies, holds every acknowledged event once and nothing that was not
given to it; the same verb works when it is tried again, by another process or by the same one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.errors import AlreadyExists, LakelogError, NothingToUndo
from lakelog.store import disk, document, history, thinning
from lakelog.store.trim import trim
from tests.support import lakes, seam
from tests.support.seam import Fault, Killed
from tests.support.world import MEMORY, warm_engine

SETTINGS = {"seal": "never", "rotate_events": 4, "threads": 1}
DAY = 86_400
Verb = Callable[[lakelog.Lake], object]


def events(start: int, count: int, given: str = "", **columns: Any) -> list[dict[str, Any]]:
    """Events named by numbers, with ids if `given` says how they begin."""
    return [
        {"type": "T", "subject": f"e{n}", **({"id": f"{given}{n}"} if given else {}), **columns}
        for n in range(start, start + count)
    ]


def names(lake: lakelog.Lake) -> list[str]:
    """The names of all events of a lake, sorted."""
    return sorted(name for (name,) in lake.sql("SELECT subject FROM events").fetchall())


# --- what is there before, and the verb -----------------------------------------------------------


def _nothing(lake: lakelog.Lake) -> None:
    lake.close()


def _one_file(lake: lakelog.Lake) -> None:
    lake.append(events(0, 2))


def _two_writers(lake: lakelog.Lake) -> None:
    lake.append(events(0, 2, "id"))
    with lakelog.open(lake.path) as other:
        other.append(events(1, 2, "id"))
        for n in range(3, 9):
            other.append(events(n, 1))


def _sealed(lake: lakelog.Lake) -> None:
    _two_writers(lake)
    lake.sealer().seal()


def _history(lake: lakelog.Lake) -> None:
    lake.append(events(0, 2, time="2001-01-01T00:00:00Z"))
    lake.append(events(2, 2))
    lake.snapshot("first")
    lake.append(events(4, 2))
    lake.snapshot("second")
    lake.rollback("@2")
    lake.append(events(6, 2))
    lake.settle()


def _many_pages(lake: lakelog.Lake) -> None:
    for n in range(17):
        lake.append(events(n, 1))
        lake.settle()


def _garbage(lake: lakelog.Lake) -> None:
    """Compacted and left alone for two months: old moves to pack, unreached files to delete."""
    _many_pages(lake)
    lake.compact()
    for n in range(8):
        lake.snapshot(str(n))
    lakes.tiny_segment(lake, "ORPHAN")
    for folder, _, files in os.walk(lake.path):
        for file in files:
            os.utime(f"{folder}/{file}", (0, 0))
    lake.gc()
    path = lake.store.layout.condemned
    condemned = dict.fromkeys(document.decode(Path(path).read_bytes())["names"], 0)
    assert condemned
    Path(path).write_bytes(document.encode({"names": condemned}))


def _delete_branch(lake: lakelog.Lake) -> None:
    history.delete_branch(lake.store, "side", lake.settle)


VERBS: dict[str, tuple[Callable[[lakelog.Lake], None], Verb, list[str]]] = {
    "first append": (_nothing, lambda k: k.append(events(50, 2, "x")), ["e50", "e51"]),
    "append": (_one_file, lambda k: k.append(events(50, 1, "x")), ["e50"]),
    "append to next file": (_two_writers, lambda k: k.append(events(50, 1, "x")), ["e50"]),
    "settle": (_two_writers, lambda k: k.settle(), []),
    "trim": (_sealed, lambda k: trim(k.store, "main", k._session.tail("main")), []),
    "merge pages": (_many_pages, lambda k: k.compact(), []),
    "snapshot": (_two_writers, lambda k: k.snapshot("s"), []),
    "tag": (_two_writers, lambda k: k.tag("v1"), []),
    "branch": (_two_writers, lambda k: k.branch("side"), []),
    "retention": (_history, lambda k: k.retention("3650d", apply=True), []),
    "rollback": (_history, lambda k: k.rollback("@3"), []),
    "undo": (_history, lambda k: k.undo(force=True), []),
    "gc": (_garbage, lambda k: k.gc(), []),
}
FREE = {"retention", "rollback", "undo"}
"""Verbs that take events off the branch on purpose."""
FAULTS: dict[str, Callable[[int], Fault]] = {
    "death": lambda at: Fault(at, Killed()),
    "one error": lambda at: Fault(at, OSError(errno.EIO, "planted")),
    "a full disk": lambda at: Fault(at, OSError(errno.ENOSPC, "planted"), sticky=True),
}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder in memory; gc that keeps few moves."""
    warm_engine(monkeypatch)
    monkeypatch.setattr(thinning, "UNPACKED", 3)
    folder = Path(MEMORY or tmp_path, f"steps-{os.getpid()}")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def prepared(verb: str, stage: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lake as it is before the verb, made two months ago, without its empty folders."""
    before, _, _ = VERBS[verb]
    with monkeypatch.context() as patch:
        now = disk.now_us()
        patch.setattr(disk, "now_us", lambda: now - 60 * DAY * 1_000_000)
        lake = lakelog.open(str(stage / "before"), settings=SETTINGS)
        before(lake)
        lake.close()
    for kind in ("segments", "ids", "manifests"):
        for leaf in (stage / "before" / kind).iterdir():
            with contextlib.suppress(OSError):
                leaf.rmdir()
    return stage / "before"


def stopped(path: str, verb: Verb, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> lakelog.Lake:
    """Open a lake and do the verb under a fault; return the handle, which may be dead."""
    lake = lakelog.open(path, create=False)
    with monkeypatch.context() as patch:
        seam.install(patch, fault)
        with contextlib.suppress(Killed, OSError, LakelogError):
            verb(lake)
    if isinstance(fault.error, Killed):
        fault.release()
    return lake


def check(path: str, wanted: set[str], allowed: set[str], free: bool) -> None:
    """Open a lake; require the wanted events, at most the allowed ones, each once."""
    with lakelog.open(path, create=False) as lake:
        found = names(lake)
        assert len(found) == len(set(found)), f"doubled: {found}"
        assert set(found) <= allowed, f"invented: {set(found) - allowed}"
        assert free or wanted <= set(found), f"lost: {wanted - set(found)}"
        assert lake.count() == len(found)
        lake.gc()
        damage = [p for p in lake.verify().problems if p.kind == "damage"]
        assert damage == []


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_may_stop_at_every_step(
    verb: str, fault: str, stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped anywhere, a verb leaves a whole lake, and can be done again."""
    _, do, adds = VERBS[verb]
    before = prepared(verb, stage, monkeypatch)
    with lakelog.open(str(before), create=False) as lake:
        there = set(names(lake))
        ever = there | {f"e{n}" for n in range(20)} | set(adds)
    path = str(stage / "lake")
    at = 0
    while True:
        at += 1 if fault == "death" else 2
        shutil.copytree(before, path)
        planted = FAULTS[fault](at)
        lake = stopped(path, do, planted, monkeypatch)
        where = f"{verb}, {fault} at change {at} ({planted.fired})"
        try:
            if fault == "death":
                check(path, there, ever, verb in FREE)
            else:
                lake.append(events(60, 1))
                check(path, there | {"e60"}, ever | {"e60"}, verb in FREE)
            with lakelog.open(path) as again, contextlib.suppress(AlreadyExists, NothingToUndo):
                do(again)
            check(path, there | set(adds), ever | {"e60"}, verb in FREE)
        except Exception as error:
            raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                lake.close()
            shutil.rmtree(path)
        if not planted.fired:
            break
    assert at > 3
