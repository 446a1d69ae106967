"""One fault in one file of a lake at rest: verify names it, and no query gives other rows."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import random
import shutil
import tempfile
from pathlib import Path

from lakelog.errors import Damaged
from tests.support import damage
from tests.support.cuts import frames_of, pairs
from tests.support.damage import Rows
from tests.support.flips import is_allowed
from tests.support.scratch import memory
from tests.support.world import warm_engine
from tests.torture.case import Case, Row

EACH = 40
WAYS = ["bit", "bit", "bit", "block", "cut", "swap", "byte"]


@functools.cache
def whole(process: int) -> tuple[str, Rows, list[tuple[str, str]]]:
    """A lake with every kind of file, what is in it, and files to swap; once a process."""
    folder = tempfile.mkdtemp(prefix="torture-", dir=memory())
    atexit.register(shutil.rmtree, folder, True)
    path = f"{folder}/lake"
    damage.build(path)
    return path, damage.read(path), pairs(path)


def corruptions(case: Case) -> None:
    """Put faults into files and look."""
    warm_engine(case.patch)
    path, right, swaps = whole(os.getpid())
    dice = case.dice
    kinds: dict[str, list[str]] = {}
    for name in damage.files(path):
        kinds.setdefault(damage.kind_of(name), []).append(name)
    for _ in range(case.some(EACH)):
        way = dice.choice(WAYS)
        if way == "swap":
            _swap(path, right, *dice.choice(swaps))
        else:
            name = dice.choice(kinds[dice.choice(sorted(kinds))])
            _spoil(path, right, name, way, dice)
        case.tally.notes[way] += 1
        case.verified()


def _spoil(path: str, right: Rows, name: str, way: str, dice: random.Random) -> None:
    """Change one file, and require that it is named and never believed."""
    data = Path(path, name).read_bytes()
    at = dice.randrange(len(data))
    spoilt = {
        "bit": damage.flipped(data, at, dice.randrange(8)),
        "byte": data[:at] + bytes([data[at] ^ dice.randint(1, 255)]) + data[at + 1 :],
        "block": data[:at] + bytes(len(data[at : at + 512])) + data[at + 512 :],
        "cut": data[:at],
    }[way]
    if spoilt == data:
        return
    where = f"{name}, {way} at byte {at} of {len(data)}"
    with damage.changed(path, name, spoilt):
        kinds = {p.kind for p in damage.checked(path).problems if p.path == f"{path}/{name}"}
        found = damage.outcome(path)
    unseen = not any(spoilt[at:]) and _may_end(name, data, at)
    assert kinds or unseen, f"{where}: not named"
    if not (unseen and not isinstance(found, Damaged)):
        torn = {"torn"} if way in ("cut", "block") and "torn" in kinds else kinds
        assert is_allowed(found, right, torn), f"{where}: wrong rows, and verify says {kinds}"
    else:
        assert damage.were_there(found, right), f"{where}: rows that never were"


def _may_end(name: str, data: bytes, size: int) -> bool:
    """Whether nobody can see that a file ends early, or in zeros (FORMAT.md, F14.4): a WAL between
    frames, and the cache of what was verified, which is written unsynced."""
    kind = damage.kind_of(name)
    return kind == "verified" or (kind == "wal" and size in {end for _, end in frames_of(data)})


def _swap(path: str, right: Rows, a: str, b: str) -> None:
    """Put two files in each other's place."""
    first, second = Path(path, a).read_bytes(), Path(path, b).read_bytes()
    with contextlib.ExitStack() as stack:
        stack.enter_context(damage.changed(path, a, second))
        stack.enter_context(damage.changed(path, b, first))
        named = {p.path for p in damage.checked(path).problems}
        found = damage.outcome(path)
    assert {f"{path}/{a}", f"{path}/{b}"} <= named, f"{a} and {b} swapped: not named"
    assert damage.is_right(found, right), f"{a} and {b} swapped: wrong rows"


ROWS = [Row("corrupt", "corruptions, none silent", 5000, 50_000, 60, corruptions)]
