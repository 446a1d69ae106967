"""Real power cuts: the kernel's own ext4 and XFS are shut down under writers, and mounted again.

Only what was acknowledged before the cut counts: a sync that returns while the file system is
being shut down may lie.
"""

from __future__ import annotations

import itertools
import os
import signal
import struct
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

import lakelog
from tests.support.requirements import MOUNTS, find, lacking
from tests.torture import mounts
from tests.torture.case import Case, Row

KINDS = [kind for kind in mounts.MAKERS if find(mounts.MAKERS[kind][0])]
_ACK = struct.Struct("<qq")
WRITERS, CUTS = 3, 6


class KernelCrash(Exception):
    """A killed process does not end: the kernel crashed while it worked for it."""


def cuts(case: Case) -> None:
    """Cut the power of one file system several times while processes write."""
    kind = KINDS[case.number % len(KINDS)]
    options = case.dice.choice(mounts.OPTIONS[kind])
    volume = mounts.Volume(kind, case.place, options)
    acked: set[str] = set()
    for absent in mounts.MAKERS.keys() - set(KINDS):
        case.tally.notes[f"SKIPPED: {absent}, {lacking(mounts.MAKERS[absent][0])}"] += 1
        case.tally.skipped += 1
    try:
        path = str(volume.place / "lake")
        lakelog.open(path, settings={"seal": "never", "rotate_events": 40}).close()
        for turn in range(case.some(CUTS)):
            acked |= _cut(case, volume, path, turn)
            _check(path, acked, f"{kind} ({options or 'defaults'}), cut {turn + 1}")
            case.verified()
            case.tally.notes[f"cuts of {kind}"] += 1
        case.tally.notes["acks"] += len(acked)
    except KernelCrash:
        case.tally.notes[f"SKIPPED: the kernel crashed below {kind} ({options})"] += 1
        case.tally.skipped += 1
    finally:
        volume.close()


def _cut(case: Case, volume: mounts.Volume, path: str, turn: int) -> set[str]:
    """Let processes work, cut, and mount again; return what was acknowledged before the cut."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    works = [lambda me=me: _write(path, theirs, me) for me in range(WRITERS)]
    works.append(lambda: _keep_house(path))
    pids = [_start(work, turn * 100 + n) for n, work in enumerate(works)]
    try:
        time.sleep(0.05 + case.dice.random() * 0.1 + 0.01 * turn)
        until = time.monotonic() + 20
        told = b""
        while len(told) < 16 * (1 + case.dice.randrange(60)) and time.monotonic() < until:
            told += _drained(ours)
            time.sleep(0.002)
        told += _drained(ours)
        volume.cut()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        crashed = [pid for pid in pids if not _ended(pid)]
        os.close(ours)
        os.close(theirs)
    if crashed:
        raise KernelCrash
    volume.umount()
    volume.mount()
    return {f"{me}-{n}" for me, n in _ACK.iter_unpack(told[: len(told) // 16 * 16])}


def _ended(pid: int) -> bool:
    """Whether a killed process ends. Linux 6.18 stops in jbd2_journal_dirty_metadata (BUG at
    transaction.c:1517) where ext4 with data=journal is shut down under a page that is being
    written, and keeps the process, and the mount, until the machine starts again."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.005)
    return False


def _start(work: Callable[[], object], me: int) -> int:
    pid = os.fork()
    if pid == 0:
        signal.alarm(120)
        try:
            work()
        except BaseException:
            if os.environ.get("LAKELOG_DEBUG"):
                traceback.print_exc()
        os._exit(0)
    return pid


def _write(path: str, pipe: int, me: int) -> NoReturn:
    lake = lakelog.open(path, create=False)
    me = os.getpid() * 10 + me
    for n in itertools.count():
        lake.append({"type": "k", "subject": f"{me}-{n}"})
        os.write(pipe, _ACK.pack(me, n))


def _keep_house(path: str) -> NoReturn:
    lake = lakelog.open(path, create=False)
    for n in itertools.count():
        (lake.settle, lake.settle, lake.compact, lake.gc)[n % 4]()
        time.sleep(0.005)


def _drained(pipe: int) -> bytes:
    data = b""
    try:
        while part := os.read(pipe, 65_536):
            data += part
    except BlockingIOError:
        pass
    return data


def _check(path: str, acked: set[str], where: str) -> None:
    """Everything acknowledged is there, once; every byte verifies."""
    with lakelog.open(path, create=False) as lake:
        found = [n for (n,) in lake.sql("SELECT subject FROM events").fetchall()]
        lost = acked - set(found)
        assert not lost, f"{where}: lost {sorted(lost)[:5]} of {len(acked)}"
        assert len(found) == len(set(found)), f"{where}: doubled"
        damage = [p for p in lake.verify().problems if p.kind == "damage"]
        assert not damage, f"{where}: {damage}"
        lake.settle()
        assert lake.count() == len(found), where


ROWS = [
    Row(
        "power",
        "power cuts, ext4 and XFS",
        150,
        1500,
        45,
        cuts,
        missing=lambda: lacking(MOUNTS, *([] if KINDS else ["mkfs.ext4"])),
    )
]
