"""Every verb is stopped at every change it makes to the disk: by death, or by a failing disk.
By default it is every third one, at other ones for each verb.

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
from zlib import crc32

import pytest

import lakelog
from lakelog import history
from lakelog.errors import AlreadyExists, LakelogError, NothingToUndo
from lakelog.history import thinning
from tests.support import seam
from tests.support.effort import IS_WHOLE
from tests.support.scratch import memory
from tests.support.seam import Fault, Killed
from tests.support.verbs import FREE, VERBS, Verb, check, events, names, prepared
from tests.support.world import warm_engine

# --- what is there before, and the verb -----------------------------------------------------------


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder in memory; gc that keeps few moves."""
    warm_engine(monkeypatch)
    monkeypatch.setattr(thinning, "UNPACKED", 3)
    folder = Path(memory() or tmp_path, f"steps-{os.getpid()}")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def _delete_branch(lake: lakelog.Lake) -> None:
    history.delete_branch(lake.store, "side", lake.settle)


FAULTS: dict[str, Callable[[int], Fault]] = {
    "death": lambda at: Fault(at, Killed()),
    "one error": lambda at: Fault(at, OSError(errno.EIO, "planted")),
    "a full disk": lambda at: Fault(at, OSError(errno.ENOSPC, "planted"), sticky=True),
}


STRIDE = 1 if IS_WHOLE else 10


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


@pytest.mark.matrix
@pytest.mark.rounds
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
    stride = (1 if fault == "death" else 2) * STRIDE
    # Verbs publish by the same steps: each begins elsewhere, so that together they stop at all.
    at = crc32(f"{verb} {fault}".encode()) % stride + 1 - stride
    while True:
        at += stride
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
