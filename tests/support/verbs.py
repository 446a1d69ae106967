"""What several tests use: every verb is stopped at every change it makes to the disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import document
from lakelog.disk import disk
from lakelog.wal.trimming import trim
from tests.support import lakes

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
    path = lake.store.paths.condemned
    condemned = dict.fromkeys(document.decode(Path(path).read_bytes())["names"], 0)
    assert condemned
    Path(path).write_bytes(document.encode({"names": condemned}))


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
