"""Keys are destroyed wholly or not at all, wherever it stops; and no flipped bit gives a wrong
row."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import LakelogError
from lakelog.keys.vault import VAULT
from lakelog.protect import PROTECTIONS
from tests.support import encrypted, protected, seam
from tests.support.effort import IS_WHOLE
from tests.support.protected import payloads, shown
from tests.support.seam import Fault, Killed

FLIPS = int(os.environ.get("LAKELOG_SEALED_FLIPS", "8"))
"""Bits that are flipped in files of a lake that is sealed or encrypted, and in its keys."""


@pytest.mark.parametrize("fault", ["death", "error"])
def test_destroying_a_key_may_stop_at_every_step(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fields are there or gone, it is never done with a key left, and the same call ends it;
    who had the lake open stores what can be read."""
    kept, at = tmp_path / "kept", 0
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(10))
        lake.settle()
    for name in ("lake", "keys"):
        shutil.copytree(tmp_path / name, kept / name)
    fired = True
    while fired:
        at += 1 if IS_WHOLE or not at else 4
        for name in ("lake", "keys"):
            shutil.rmtree(tmp_path / name)
            shutil.copytree(kept / name, tmp_path / name)
        PROTECTIONS.clear()
        planted = Fault(at, Killed() if fault == "death" else OSError(errno.EIO, "planted"))
        lake, other = (lakelog.open(tmp_path / "lake", create=False) for _ in range(2))
        assert payloads(other) == shown(range(10))
        with monkeypatch.context() as patch:
            seam.install(patch, planted)
            with contextlib.suppress(Killed, OSError, LakelogError):
                lake.erase(subject="s1", why="asked")
        fired = bool(planted.fired)
        if fault == "death":
            planted.release()
        else:
            lake.close()
        protected.append(other, [11])
        other.close()
        PROTECTIONS.clear()
        where = f"{fault} at change {at} ({planted.fired})"
        with lakelog.open(tmp_path / "lake", create=False) as again:
            *rows, later = payloads(again)
            assert [later] == shown([11]), where
            assert rows in (shown(range(10)), shown(range(10), ("s1",))), where
            # A key that is gone is known to be: what is older is refused from then on.
            assert again.erasures() or rows == shown(range(10)), where
            if any(status.is_done for status in again.erasures()):
                assert rows == shown(range(10), ("s1",)), where
            assert again.erase(subject="s1", why="asked").is_done, where
            *rows, later = payloads(again)
            assert rows == shown(range(10), ("s1",)), where
            # It came before this call, but it may have come behind the erasure that this one ended.
            assert [later] in (shown([11]), shown([11], ("s1",))), where
            assert again.verify().intact, where
    assert at > 8


def files_below(*roots: Path) -> list[Path]:
    """Files that hold rows, states or keys."""
    found = [path for root in roots for path in sorted(root.rglob("*")) if path.is_file()]
    return [p for p in found if "cache" not in p.parts and p.stat().st_size]


@pytest.mark.parametrize("form", ["sealed", "encrypted"])
def test_no_flipped_bit_gives_a_wrong_row(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is named by its file, or changes nothing."""
    root, rng = tmp_path / "lake", random.Random(7)
    monkeypatch.setenv("LAKELOG_KEY", encrypted.KEY)
    if form == "encrypted":
        encrypted.create(root, monkeypatch)
        lake = lakelog.open(root)
    else:
        lake = protected.create(root, monkeypatch)
    with lake:
        protected.append(lake, range(10))
        lake.settle()
        lake.compact()
        protected.append(lake, range(10, 15))
    shutil.rmtree(root / "cache")
    files = files_below(root / "segments", root / "wal", root / "manifests", root / "refs")
    files += files_below(tmp_path / "keys") if form == "sealed" else []
    files += [root / "lakelog.json"]
    silent = 0
    for _ in range(FLIPS):
        path = rng.choice(files)
        whole = path.read_bytes()
        place, bit = rng.randrange(len(whole)), 1 << rng.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        where = f"{path}, byte {place}, bit {bit}"
        PROTECTIONS.clear()
        VAULT.lakes.clear()
        try:
            with lakelog.open(root, create=False) as damaged:
                rows = payloads(damaged)
                is_told = not damaged.verify().intact
            wanted = shown(range(15))
            assert rows == wanted if not is_told else all(row in wanted for row in rows), where
            silent += not is_told
        except LakelogError:
            pass
        path.write_bytes(whole)
        shutil.rmtree(root / "cache", ignore_errors=True)
    PROTECTIONS.clear()
    with lakelog.open(root, create=False) as lake:
        assert payloads(lake) == shown(range(15))
    assert silent < FLIPS / 2
