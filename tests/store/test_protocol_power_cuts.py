"""Power cuts between any two changes of a scheduled run: what was acknowledged is there, once.

Images are made by tests/support/powercut.py and opened with the real code. A failure prints the
cast, the seed, the change before which the power failed and the mood of the disk.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable

import pytest

from tests.support.casts import perform
from tests.support.effort import share
from tests.support.powercut import CASTS, MOODS, Journal, Skip, recover
from tests.support.scratch import memory
from tests.support.world import World, warm_engine

SEEDS, CUTS = share(10), 8


def cuts(
    cast: str,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    skips: Skip = lambda *_: False,
    count: int = CUTS,
) -> int:
    """Play one seed, cut its power at several places, recover from each; return how many."""
    journals: list[Journal] = []

    def watch(world: World) -> None:
        journals.append(Journal(world, skips))

    perform(cast, seed, monkeypatch, watch)
    [journal], dice = journals, random.Random(f"cuts {cast} {seed}")
    for _ in range(count):
        step, mood = dice.randint(0, len(journal.log)), dice.choice(MOODS)
        folder = tempfile.mkdtemp(dir=memory())
        try:
            promised = journal.image(step, dice, mood, f"{folder}/lake")
            recover(journal.world, f"{folder}/lake", promised)
        except Exception as error:
            where = f"{cast} {seed}, power cut before change {step} of {len(journal.log)}, {mood}"
            raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
        finally:
            shutil.rmtree(folder)
    return count


@pytest.mark.matrix
@pytest.mark.rounds
@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_acknowledged_appends_are_durable_across_power_cuts(
    cast: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut anywhere every acknowledged event, tag and branch is there, once; every
    byte verifies, and recovering twice changes nothing."""
    warm_engine(monkeypatch)
    cuts(cast, seed, monkeypatch)


def _no_file_sync(name: str, what: str, callers: str) -> bool:
    """No file is ever synced."""
    return name == "sync_file"


def _no_folder_sync(name: str, what: str, callers: str) -> bool:
    """No directory is ever synced."""
    return name == "sync_dir"


def _no_wal_sync(name: str, what: str, callers: str) -> bool:
    """The writer does not sync its frames."""
    return name == "sync_file" and "_store_frame" in callers and "_open_next" not in callers


def _no_sync_before_trim(name: str, what: str, callers: str) -> bool:
    """The move that covers a file is not made durable before the file is unlinked (5.7)."""
    return "/refs/heads/" in what and bool({"trim", "link_move"} & set(callers.split()))


def _no_sync_before_drop(name: str, what: str, callers: str) -> bool:
    """A watermark is left out before the unlinks of its files are durable (5.6)."""
    return "watermarks" in callers.split()


def _no_sync_of_objects(name: str, what: str, callers: str) -> bool:
    """Segments and manifests are not synced before a move names them."""
    return name == "sync_file" and "finish" in callers


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("cast", "skips"),
    [
        ("sealing", _no_file_sync),
        ("sealing", _no_folder_sync),
        ("sealing", _no_wal_sync),
        ("sealing", _no_sync_before_trim),
        ("stopping", _no_sync_before_drop),
        ("sealing", _no_sync_of_objects),
    ],
)
def test_a_missing_fsync_is_found(
    cast: str, skips: Callable[[str, str, str], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one kind of sync some power cut loses or damages something."""
    warm_engine(monkeypatch)
    for seed in range(60):
        try:
            cuts(cast, seed, monkeypatch, skips, 10)
        except AssertionError:
            return
    raise AssertionError(f"600 power cuts did not notice: {skips.__doc__}")
