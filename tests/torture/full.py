"""Syncs that fail and then lie, and disks that are full for a while."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import lakelog
from lakelog.errors import LakelogError
from lakelog.maintain import compact
from tests.support import seam
from tests.support.feeds import feed, put
from tests.support.requirements import MOUNTS, lacking
from tests.support.world import warm_engine
from tests.torture import mounts
from tests.torture.case import Case, Row


class Liar:
    """A hook: one sync fails and loses what the file had unsynced; later syncs of it say yes."""

    def __init__(self, at: int) -> None:
        self._at, self.syncs, self.fired, self.lies = at, 0, 0, 0
        self._durable: dict[int, bytes] = {}
        self.lost: dict[int, list[tuple[int, bytes]]] = {}
        """By inode: where bytes never reach the disk, and what is there instead."""

    def __call__(self, name: str, real: Any, *args: Any, **kwargs: Any) -> Any:
        """Do it, unless it is the sync that fails."""
        if name != "sync_file":
            return real(*args, **kwargs)
        self.syncs += 1
        status = os.fstat(args[0])
        data = os.pread(args[0], status.st_size, 0)
        if self.syncs == self._at:
            self.fired += 1
            old = self._durable.get(status.st_ino, b"").ljust(len(data), b"\0")
            changed = [at for at, (a, b) in enumerate(zip(old, data, strict=True)) if a != b]
            gone = changed[0], old[changed[0] : changed[-1] + 1]
            self.lost.setdefault(status.st_ino, []).append(gone)
            self._durable[status.st_ino] = data
            raise OSError(errno.EIO, "planted: the sync failed")
        self.lies += status.st_ino in self.lost
        self._durable[status.st_ino] = data
        return real(*args, **kwargs)

    def drop_caches(self, root: str) -> None:
        """Let the lake be what the disk really holds: zeros, or what was overwritten, where a sync
        failed."""
        for folder, _, files in os.walk(root):
            for name in files:
                inode = os.stat(f"{folder}/{name}").st_ino
                for start, old in self.lost.get(inode, ()):
                    with open(f"{folder}/{name}", "r+b") as file:
                        file.seek(start)
                        file.write(old)


def lies(case: Case) -> None:
    """Let one sync of a life fail and lie; what was acknowledged is there all the same."""
    warm_engine(case.patch)
    root, dice = str(case.place / "lake"), case.dice
    lakelog.open(root, settings={"seal": "never", "rotate_events": 7, "threads": 1}).close()
    liar = Liar(1 + case.number % 40)
    acked: set[str] = set()
    lake = lakelog.open(root, create=False)
    with case.patch.context() as inner:
        seam.install(inner, liar)
        for n in range(30):
            with contextlib.suppress(OSError, LakelogError):
                lake.append({"type": "T", "subject": f"e{n}"})
                acked.add(f"e{n}")
            if dice.random() < 0.2:
                with contextlib.suppress(OSError, LakelogError):
                    dice.choice([lake.settle, lake.compact, lambda n=n: lake.tag(f"t{n}")])()
    liar.drop_caches(root)
    _holds(root, acked, f"sync {liar._at} failed")
    case.tally.notes["syncs that lied"] += liar.lies
    case.verified(liar.fired)


def _holds(root: str, acked: set[str], where: str) -> None:
    """Open a lake; all that was acknowledged is there once, and it goes on."""
    with lakelog.open(root, create=False) as lake:
        found = [n for (n,) in lake.sql("SELECT subject FROM events").fetchall() if n]
        assert acked <= set(found), f"{where}: lost {sorted(acked - set(found))[:5]}"
        assert len(found) == len(set(found)), f"{where}: doubled"
        damage = [p for p in lake.verify().problems if p.kind == "damage"]
        assert not damage, f"{where}: {damage}"
        lake.append({"type": "ON"})
        lake.settle()
        assert lake.sql("SELECT count(*) FROM events WHERE type = 'ON'").fetchall() == [(1,)]


def fills(case: Case) -> None:
    """Fill a disk of some size, or what a process may write; then there is room again."""
    case.patch.setattr(compact, "LEVEL", 1)  # it is not packing that is tried here
    if case.number % 2 == 0 and not lacking(MOUNTS):
        with mounts.tmpfs(case.place / "disk", case.dice.randint(300, 1500) * 4096) as small:
            _fill(case, small)
    else:
        case.tally.skipped += case.number % 2 == 0
        _limit(case)


def _fill(case: Case, small: Path) -> None:
    """Work until the disk is full, and a little longer; then give it room."""
    root, dice = str(small / "lake"), case.dice
    acked, refused = set[str](), 0
    lake = lakelog.open(root, settings={"seal": "never", "rotate_events": 200, "threads": 1})
    for n in range(2000):
        try:
            lake.append({"type": "T", "subject": f"e{n}", "data": dice.randbytes(3000).hex()})
            acked.add(f"e{n}")
            if dice.random() < 0.02:
                dice.choice([lake.settle, lake.compact, lake.gc])()
        except (OSError, LakelogError):
            refused += 1
            if refused > 8:
                break
            with contextlib.suppress(OSError, LakelogError):
                dice.choice([lake.settle, lake.gc, lake.compact, lambda n=n: lake.tag(f"t{n}")])()
    assert refused, "the disk never was full"
    assert lake.count() >= len(acked), "reads stop on a full disk"
    mounts.grow(small, 64 << 20)
    lake.append({"type": "T", "subject": "after"})
    lake.close()
    _holds(root, acked | {"after"}, f"{refused} refusals")
    case.tally.notes["full disks"] += 1
    case.verified(refused)


def _limit(case: Case) -> None:
    """Append and ingest in a process that may write no file longer than so much."""
    root, pipe = str(case.place / "lake"), os.pipe()
    lakelog.open(root, settings={"seal": "never", "rotate_bytes": 1 << 20, "threads": 1}).close()
    path = put(case.place / "f", feed(3000, subject="f"))
    most = case.dice.randint(2_000, 60_000)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            os.write(pipe[1], _limited(root, path, case).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(pipe[1])
    _, status = os.waitpid(pid, 0)
    told = os.read(pipe[0], 1 << 16).decode()
    os.close(pipe[0])
    assert status == 0, f"limit {most}: the process ended with {status}"
    refused, *acked = told.split()
    _holds_limited(root, set(acked), path, f"files of at most {most}")
    case.tally.notes["limited files"] += 1
    case.verified(int(refused))


def _limited(root: str, path: str, case: Case) -> str:
    """Append and ingest; return how often it was refused and what was acknowledged."""
    lake, dice, told, refused = lakelog.open(root, create=False), case.dice, list[str](), 0
    for n in range(60):
        try:
            lake.append({"type": "T", "subject": f"e{n}", "data": dice.randbytes(600).hex()})
            told.append(f"e{n}")
        except OSError:
            refused += 1
        if n % 20 == 19:
            try:
                lake.ingest(path)
            except (OSError, LakelogError):
                refused += 1
    return " ".join([str(refused), *told])


def _holds_limited(root: str, acked: set[str], path: str, where: str) -> None:
    """Without the limit the file is taken in, each line once."""
    with lakelog.open(root, create=False) as lake:
        lake.ingest(path)
        query = "SELECT subject, count(*), count(DISTINCT position) FROM events GROUP BY 1"
        found = {n: (c, d) for n, c, d in lake.sql(query).fetchall()}
        assert found.pop("f") == (3000, 3000), where
        assert acked <= found.keys(), f"{where}: lost {sorted(acked - found.keys())[:5]}"
        assert all(c == 1 for c, _ in found.values()), f"{where}: doubled"
        assert not [p for p in lake.verify().problems if p.kind == "damage"], where


def gate(case: Case) -> None:
    """A real disk under ext4 runs full: the kernel's own failed syncs, which lie afterwards."""
    with mounts.tmpfs(case.place / "thin", 12 << 20) as thin:
        volume = mounts.Volume("ext4", thin, "")
        try:
            acked, refused = _overfill(case, str(volume.place / "lake"))
            mounts.grow(thin, 96 << 20)
            with contextlib.suppress(OSError):
                mounts.run("umount", str(volume.place))
            with contextlib.suppress(OSError):
                mounts.run("e2fsck", "-y", "-f", str(volume.image))
            if not os.path.ismount(volume.place):
                volume.mount()
            root = str(case.place / "copy")
            shutil.copytree(volume.place / "lake", root)
        finally:
            volume.close()
    _holds(root, acked, f"{refused} refusals of a thin disk")
    case.verified(refused)


def _overfill(case: Case, root: str) -> tuple[set[str], int]:
    lake = lakelog.open(root, settings={"seal": "never", "threads": 1})
    acked, refused = set[str](), 0
    for n in range(400):
        try:
            lake.append(
                {"type": "T", "subject": f"e{n}", "data": case.dice.randbytes(60_000).hex()}
            )
            acked.add(f"e{n}")
        except (OSError, LakelogError):
            refused += 1
            if refused > 20:
                break
    with contextlib.suppress(OSError, LakelogError):
        lake.close()
    assert refused, "the thin disk never was full"
    return acked, refused


ROWS = [
    Row("lies", "fsync fails, then lies", 200, 1000, 12, lies),
    Row("full", "full disks, then room", 60, 300, 18, fills),
    Row(
        "thin",
        "real failed fsync, ext4",
        5,
        50,
        8,
        gate,
        missing=lambda: lacking(MOUNTS, "mkfs.ext4", "e2fsck"),
    ),
]
