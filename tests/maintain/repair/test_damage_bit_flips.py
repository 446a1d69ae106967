"""One flipped bit anywhere in a lake: verify names the file, and no query ever gives other rows.

A query may fail with a named error or give exactly the right rows. The one exception: the last
frame of a WAL without END may be an unfinished append, so its rows may be missing, and verify
says torn.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import Damaged
from tests.support import damage
from tests.support.damage import Rows
from tests.support.effort import share
from tests.support.flips import is_allowed

pytestmark = pytest.mark.damaged
FLIPS = {"segments": 240, "wal": 240, "manifests": 200, "move": 120, "ids": 80}
FLIPS = {kind: share(count, 20) for kind, count in FLIPS.items()}
EACH = share(180, 20)
KINDS = """segments wal manifests move ids lakelog.json hint packed tags condemned verified
    words""".split()
SPREAD = 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Rows]:
    """A lake with every kind of file, and what is in it."""
    path = str(tmp_path_factory.mktemp("flips") / "lake")
    damage.build(path)
    return path, damage.read(path)


def of_kind(path: str, kind: str) -> list[str]:
    """The files of a lake of one kind."""
    return [name for name in damage.files(path) if damage.kind_of(name) == kind]


def spots(path: str, kind: str, count: int, seed: str) -> list[tuple[str, int, int]]:
    """Choose (file, byte, bit) evenly over the files of a kind, each place at most once."""
    dice = random.Random(seed)
    chosen = []
    names = of_kind(path, kind)
    for name in names:
        size = os.path.getsize(f"{path}/{name}")
        wanted = min(size, -(-count // len(names)))
        places = sorted(dice.sample(range(size), wanted))
        chosen += [(name, at, dice.randrange(8)) for at in places]
    return chosen


def named(path: str, name: str) -> set[str]:
    """How verify names a file: the kinds of its problems."""
    return {p.kind for p in damage.checked(path).problems if p.path == f"{path}/{name}"}


@pytest.mark.matrix
@pytest.mark.rounds
@pytest.mark.parametrize("part", range(SPREAD))
@pytest.mark.parametrize("kind", KINDS)
def test_bit_flip_corruption_is_named_and_never_believed(
    whole: tuple[str, Rows], kind: str, part: int
) -> None:
    """A flipped bit is named by verify; a new process reads the right rows or fails by name."""
    path, right = whole
    every = spots(path, kind, FLIPS.get(kind, EACH), f"both {kind}")
    for name, at, bit in every[part::SPREAD]:
        before = Path(path, name).read_bytes()
        data = damage.flipped(before, at, bit)
        with damage.changed(path, name, data):
            kinds = named(path, name)
            assert kinds, f"verify does not name {name} with bit {bit} of byte {at} flipped"
            found = damage.outcome(path)
            assert is_allowed(found, right, kinds), f"{name}, bit {bit} of byte {at}: wrong rows"
            if isinstance(found, Damaged):
                assert found.path == f"{path}/{name}", f"{name} is blamed on {found.path}"


@pytest.mark.matrix
@pytest.mark.rounds
@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("kind", KINDS)
def test_verify_names_flips_all_over_a_file(whole: tuple[str, Rows], kind: str, part: int) -> None:
    """Verify names flips at every byte of small files, and at hundreds of places of larger ones."""
    path, _ = whole
    for name, at, bit in spots(path, kind, share(1500, 20), f"verify {kind}")[part::2]:
        before = Path(path, name).read_bytes()
        data = damage.flipped(before, at, bit)
        with damage.changed(path, name, data):
            assert named(path, name), f"verify does not name {name}: {at}, bit {bit}"


def test_every_kind_of_file_is_there(whole: tuple[str, Rows]) -> None:
    """The damaged lake has every kind of file, segments of each kind and layout, and pages."""
    path, (events, bad, count) = whole
    assert {damage.kind_of(name) for name in damage.files(path)} == set(KINDS)
    with lakelog.open(path) as lake:
        state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
        entries = lake.store.manifests.segments(state)
        assert {(e.kind, e.layout) for e in entries} == {
            ("events", "arrival"),
            ("events", "sorted"),
            ("quarantine", "arrival"),
        }
        assert state.pages
        assert len(state.ids) == 2
        assert lake.stats().pending > 0
    assert len(events) == count > 20
    assert len(bad) == 2
