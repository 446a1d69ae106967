"""One flipped bit in an encrypted lake with protected fields, or in its keys, and keys that are
wrong, missing or old: a line names it, or nothing changes. No query gives another row."""

from __future__ import annotations

import atexit
import functools
import os
import random
import shutil
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import LakelogError
from lakelog.keys.vault import VAULT
from lakelog.protect import PROTECTIONS
from tests.support import encrypted, protected
from tests.support.cli import run
from tests.support.protected import FIELDS, payloads, shown
from tests.support.scratch import memory
from tests.support.world import warm_engine
from tests.torture.case import Case, Row

EACH = 20
ROWS_MAX = 15
WAYS = ["bit"] * 8 + ["wrong master key", "missing fields' keys", "old fields' keys"]


@functools.cache
def built(process: int) -> Path:
    """Build the lake with its tail, segments, filters and a saved directory; once a process."""
    folder = Path(memory() or "/tmp", f"torture-sealed-{process}")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "saved").mkdir(parents=True)
    (folder / "saved" / "text").write_text("saved " * 500)
    with pytest.MonkeyPatch.context() as patch:
        root = encrypted.create(folder / "lake", patch)
        protected.keys_in(folder, patch)
        with lakelog.open(root) as lake:
            lake.protect(FIELDS)
            protected.append(lake, range(10))
            lake.settle()
            assert lake.sql("SELECT * FROM events WHERE subject = 's1'").fetchall()
            run(root, "state", "save", "--dir", str(folder / "saved"))
            old = protected.key_file(folder).read_bytes()
            lake.append({"type": "A", "subject": "gone", "data": {"email": "x", "n": -1}})
            lake.erase(subject="gone", why="asked")
            lake.erase(where="subject = 'gone'", why="asked")
            protected.append(lake, range(10, ROWS_MAX))
        (folder / "old").write_bytes(old)
    atexit.register(shutil.rmtree, folder, True)
    return folder


def sealed(case: Case) -> None:
    """Put faults into files and keys, and look."""
    warm_engine(case.patch)
    folder, dice = built(os.getpid()), case.dice
    protected.keys_in(folder, case.patch)
    for _ in range(case.some(EACH)):
        way = dice.choice(WAYS)
        if way == "bit":
            _flip(folder, dice)
        else:
            _take_keys(folder, way)
        case.tally.notes[way] += 1
        case.verified()


def _flip(folder: Path, dice: random.Random) -> None:
    """Flip a bit of one file: of the lake, of each of its folders alike, or of the keys."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted([*(folder / "lake").rglob("*"), protected.key_file(folder)]):
        if path.is_file() and path.stat().st_size:
            kinds.setdefault(path.relative_to(folder).parts[1], []).append(path)
    path = dice.choice(kinds[dice.choice(sorted(kinds))])
    whole, times = path.read_bytes(), path.stat()
    place, bit = dice.randrange(len(whole)), 1 << dice.randrange(8)
    shutil.copytree(folder / "lake", folder / "before")
    path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
    where, rows = f"{path}, byte {place}, bit {bit}", _outcome(folder)
    if isinstance(rows, str):
        assert "\n" not in rows, where
    elif rows != shown(range(ROWS_MAX)):
        with lakelog.open(folder / "lake", create=False) as damaged:
            assert not damaged.verify().intact, f"{where}: other rows, and not named"
        assert all(row in shown(range(ROWS_MAX)) for row in rows), f"{where}: rows that never were"
    path.write_bytes(whole)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    shutil.rmtree(folder / "lake")
    (folder / "before").rename(folder / "lake")


def _take_keys(folder: Path, way: str) -> None:
    """Be without the right keys."""
    path = protected.key_file(folder)
    with pytest.MonkeyPatch.context() as patch:
        if way == "wrong master key":
            patch.setenv("LAKELOG_KEY", "77" * 32)
            assert "key" in str(_outcome(folder))
        elif way == "missing fields' keys":
            patch.setenv("LAKELOG_SUBJECT_KEYS", str(folder / "nowhere"))
            hidden = shown(range(ROWS_MAX), tuple(f"s{n}" for n in range(5)))
            rows = _outcome(folder)
            assert not isinstance(rows, str), rows
            assert [(s, {k: v for k, v in d.items() if k != "$sealed"}) for s, d in rows] == hidden
        else:
            whole = path.read_bytes()
            path.write_bytes((folder / "old").read_bytes())
            assert "older" in str(_outcome(folder))
            path.write_bytes(whole)
    assert _outcome(folder) == shown(range(ROWS_MAX)), f"after {way}"


def _outcome(folder: Path) -> list[tuple[str, dict[str, object]]] | str:
    """Return what a new process sees: rows, or the line of an error."""
    PROTECTIONS.clear()
    VAULT.lakes.clear()
    VAULT._secrets.clear()
    try:
        with lakelog.open(folder / "lake", create=False) as lake:
            return payloads(lake)
    except LakelogError as error:
        return str(error)


ROWS = [Row("sealed", "faults in sealed bytes", 1_000, 10_000, 60, sealed)]
