"""An erasure may be stopped at every change it makes to the disk: it is before or after, never done
with bytes left, and the same call ends it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import LakelogError
from lakelog.manifest import manifest
from lakelog.volume import replacements
from tests.support import erasure_histories as histories
from tests.support import seam
from tests.support.effort import IS_WHOLE
from tests.support.seam import Fault, Killed

ADA, WORD, OTHER = "ada-3f9k2m", "secret-8x4q7t", "bob-7k2q9x"
OTHERS = 6
POINTS = 3
"""Changes at which it is stopped, of all that it makes; each one with LAKELOG_MATRIX=all."""


@pytest.fixture(autouse=True, scope="module")
def _small_parts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "FAN", 4)
        patch.setattr(replacements, "_SHARD_MAX", 1)
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A lake with pages, a tag, a branch, a filter and a write-ahead log, and how many changes to
    the disk it takes to erase ADA and OTHER."""
    path = tmp_path_factory.mktemp("prepared") / "lake"
    with lakelog.open(path, settings={"seal": "never"}) as lake:
        for number in range(OTHERS):
            lake.append({"type": "A", "subject": f"u{number}"})
            lake.append({"type": "A", "subject": ADA, "message": WORD})
            lake.append({"type": "A", "subject": OTHER})
            lake.settle()
        lake.tag("v1")
        lake.branch("side").close()
        lake.compact()
        lake.schema()
        lake.append({"type": "A", "subject": ADA, "message": WORD})
    erased, counted = str(path.with_name("erased")), Fault(10**9, None)
    shutil.copytree(path, erased)
    with pytest.MonkeyPatch.context() as patch, lakelog.open(erased, create=False) as lake:
        seam.install(patch, counted)
        assert lake.erase(subject=[ADA, OTHER], why="asked").is_done
    return path, counted.changes


@pytest.mark.parametrize("fault", ["death", "error"])
def test_an_erasure_may_stop_at_every_step(
    fault: str, prepared: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed or failed anywhere, it is not done while a byte is there, and can be ended."""
    path, unfinished = str(tmp_path / "lake"), 0
    before, changes = prepared
    for at in range(1, changes, 1 if IS_WHOLE else changes // POINTS):
        shutil.copytree(before, path)
        error = Killed() if fault == "death" else OSError(errno.EIO, "planted")
        planted = Fault(at, error)
        lake = lakelog.open(path, create=False)
        with monkeypatch.context() as patch:
            seam.install(patch, planted)
            with contextlib.suppress(Killed, OSError, LakelogError):
                lake.erase(subject=[ADA, OTHER], why="asked")
        if fault == "death":
            planted.release()
        else:
            lake.close()
        where = f"{fault} at change {at} ({planted.fired})"
        with lakelog.open(path, create=False) as again:
            assert again.verify().intact, where
            assert again.sql(
                "SELECT count(*) FROM events WHERE subject NOT IN (?, ?)", [ADA, OTHER]
            ).fetchall() == [(OTHERS,)], where
            found = histories.places_with(Path(path), [ADA, WORD, OTHER])
            statuses = again.erasures()
            if sum(status.is_done for status in statuses) == 2:
                assert not found, where
            unfinished += bool(found)
            for temporary in Path(path).rglob(".tmp-*"):
                os.utime(temporary, (0, 0))  # an hour later they are nobody's
            status = again.erase(subject=[ADA, OTHER], why="asked")
            assert sum(s.erasure.events for s in again.erasures()) == 7 + 6, where
            assert status.is_done, (where, status)
            assert len([s for s in again.erasures() if not s.is_done]) == 0, where
            assert histories.places_with(Path(path), [ADA, WORD, OTHER]) == [], where
            assert again.verify().intact, where
            assert again.at("v1").count() == again.count() == OTHERS, where
        with contextlib.suppress(OSError):
            lake.close()
        shutil.rmtree(path)
    assert unfinished > 1
