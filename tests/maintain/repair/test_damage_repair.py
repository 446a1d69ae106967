"""Every file of a lake damaged in every way: repair makes the lake work, and says what is lost."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import Damaged
from tests.support import damage
from tests.support.damage import Rows

pytestmark = pytest.mark.damaged
KINDS = "segments wal manifests move ids lakelog.json hint packed tags condemned verified".split()
WAYS = ["bit", "block", "emptied", "halved", "zeroed", "missing", "another"]
Lake = tuple[str, Rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with every kind of file, and what is in it."""
    path = str(tmp_path_factory.mktemp("repair") / "lake")
    damage.build(path)
    return path, damage.read(path)


def damaged(data: bytes, way: str, others: list[bytes], seed: str) -> bytes | None:
    """Return the bytes of a file damaged in one way; None for a file that is gone."""
    half, dice = len(data) // 2, random.Random(seed)
    return {
        "bit": damage.flipped(data, dice.randrange(len(data)), dice.randrange(8)),
        "block": data[:half] + b"\0" * len(data[half : half + 16]) + data[half + 16 :],
        "emptied": b"",
        "halved": data[:half],
        "zeroed": b"\0" * len(data),
        "missing": None,
        "another": others[0] if others else b"something else\n",
    }[way]


def variants(path: str, kind: str, way: str, to: Path) -> Iterator[tuple[str, str]]:
    """Yield copies of the lake with one file of a kind damaged in a way, and that file's name."""
    names = [name for name in damage.files(path) if damage.kind_of(name) == kind]
    for index, name in enumerate(names):
        others = [Path(path, other).read_bytes() for other in names if other != name]
        data = damaged(Path(path, name).read_bytes(), way, others, f"{kind} {way} {index}")
        copy = damage.copied(path, to / f"{index}")
        if data is None:
            Path(copy, name).unlink()
        else:
            Path(copy, name).write_bytes(data)
        yield copy, name
        shutil.rmtree(copy)


def blamed(path: str) -> str:
    """Open a lake and return the file that a named error blames, "" if it opens."""
    try:
        lakelog.open(path, create=False).close()
    except Damaged as error:
        return error.path
    return ""


@pytest.mark.matrix
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_repair_makes_any_lake_work_and_lists_what_is_lost(
    whole: Lake, kind: str, way: str, tmp_path: Path
) -> None:
    """After repair the lake verifies, invents nothing, and goes on; every loss has a line."""
    path, right = whole
    for copy, name in variants(path, kind, way, tmp_path):
        assert blamed(copy) in ("", f"{copy}/{name}")
        done = damage.repaired(copy)
        assert done.after is not None
        assert done.after.problems == (), name
        now = damage.read(copy)
        before, after = damage.identities(right[0]), damage.identities(now[0])
        assert not Counter(after) - Counter(before), name
        unseen = way == "missing" and kind == "wal" and not name.endswith("-000000.jsonl.zst")
        if len(after) < len(before) or len(now[1]) < len(right[1]):
            assert done.lost or unseen or (way == "missing" and kind == "wal"), name
        with lakelog.open(copy) as lake:
            lake.append({"type": "ON"})
            lake.settle()
            assert lake.count() == now[2] + 1
            assert lake.gc(dry_run=True).dry_run


@pytest.mark.matrix
@pytest.mark.parametrize("way", ["block", "emptied", "missing", "another"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_brings_everything_back(whole: Lake, kind: str, way: str, tmp_path: Path) -> None:
    """With a copy of the lake, repair loses nothing: the same rows, seq included."""
    path, right = whole
    for copy, name in variants(path, kind, way, tmp_path):
        done = damage.repaired(copy, path)
        assert done.after is not None
        assert done.after.problems == ()
        if kind == "wal" and way == "missing" and done.fetched == []:
            continue  # gone without a trace (FORMAT.md, F14.4)
        assert damage.read(copy) == right, name
        assert done.lost == [] or kind in ("tags", "lakelog.json"), name
