"""What a life leaves behind: descriptors, threads and temporary files, none of them."""

from __future__ import annotations

import contextlib
import errno
import gc as memory
import os
import threading
from pathlib import Path

import lakelog
from lakelog.collect.watch import Watcher
from lakelog.disk import disk
from lakelog.errors import LakelogError
from tests.support import lakes, seam
from tests.support.feeds import PACKED, feed, put
from tests.support.seam import Fault
from tests.torture.case import Case, Row


def lives(case: Case) -> None:
    """Live ten lives, half of them on a disk that fails once; count what is left."""
    for warm in range(2):
        _live(case, f"warm{warm}", 0)
    before = held()
    dice, count = case.dice, case.some(10)
    for turn in range(count):
        _live(case, f"lake{turn}", dice.randint(1, 120) if turn % 2 else 0)
    memory.collect()
    after = held()
    files = len(after["descriptors"]) - len(before["descriptors"])
    threads = len(after["threads"]) - len(before["threads"])
    new = sorted(set(after["descriptors"].values()) - set(before["descriptors"].values()))
    assert files <= 0, f"{files} descriptors leaked: {new[:5]}"
    assert threads <= 0, f"{threads} threads leaked: {after['threads']}"
    case.verified(count // 2, count)


def held() -> dict[str, dict[int, str]]:
    """Open descriptors and running threads of this process, by what they are."""
    files = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            files[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
    files = {n: to for n, to in files.items() if not to.startswith("/proc/")}
    return {"descriptors": files, "threads": {t.ident or 0: t.name for t in threading.enumerate()}}


def _live(case: Case, name: str, fails: int) -> None:
    """Append, ingest, watch, query, seal, tag, compact, collect, close."""
    path, logs = str(case.place / name), case.place / f"{name}.logs"
    logs.mkdir()
    put(logs / "a.log", feed(30))
    put(logs / "b.log.gz", PACKED["gz"](feed(30, 100)))
    with case.patch.context() as patch:
        lake = lakes.opened(path, rotate_events=10, gc_grace_hours=0, threads=1)
        if fails:
            seam.install(patch, Fault(fails, OSError(errno.EIO, "planted")))
        with contextlib.suppress(OSError, LakelogError):
            for n in range(15):
                lake.append({"type": "T", "subject": f"e{n}"})
            lake.ingest(str(logs / "a.log"))
            lake.sql("SELECT count(*) FROM events").fetchall()
            lake.tag("t")
            lake.at("t").sql("SELECT 1 AS x FROM events").fetchall()
        with contextlib.suppress(OSError, LakelogError):
            watcher = Watcher(lake, [str(logs)])
            try:
                watcher.round()
            finally:
                watcher.close()
        with contextlib.suppress(OSError, LakelogError):
            lake.compact()
        lake.close()
    left = [str(p) for p in Path(path).rglob(f"{disk.TEMPORARY}*")]
    assert fails or not left, f"temporary files left by a good life: {left[:5]}"
    for temporary in left:
        os.utime(temporary, (0, 0))  # so old that nobody is about to name it
    with lakelog.open(path, create=False) as again:
        again.settle()
        again.gc()
        again.gc()
    left = [str(p) for p in Path(path).rglob(f"{disk.TEMPORARY}*")]
    assert not left, f"temporary files leaked: {left[:5]}"


ROWS = [Row("leaks", "lives, nothing left open", 100, 1000, 10, lives)]
