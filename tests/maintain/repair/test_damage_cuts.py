"""Zeros, cuts, swapped and missing files: named by verify, and no query ever gives wrong rows."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import DamagedRef, DamagedWal
from lakelog.maintain.repair.verify import verify
from lakelog.wal.tail import Tail
from tests.support import damage, lakes
from tests.support.cuts import frames_of, pairs
from tests.support.damage import Rows
from tests.support.effort import IS_WHOLE

pytestmark = pytest.mark.damaged
SILENT = {"hint", "condemned", "verified", "tags", "wal", "words"}
"""Kinds of file that may be gone without a trace (FORMAT.md, F14.4)."""


STRIDE = 1 if IS_WHOLE else 5


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Rows]:
    """A lake with every kind of file, and what is in it."""
    path = str(tmp_path_factory.mktemp("cuts") / "lake")
    damage.build(path)
    return path, damage.read(path)


def check(path: str, right: Rows, names: list[str], why: str) -> None:
    """Check that verify names the files, and that a new process reads the right rows or fails."""
    problems = damage.checked(path).problems
    for name in names:
        assert any(p.path == f"{path}/{name}" for p in problems), f"{name} is not named: {why}"
    found = damage.outcome(path)
    if not damage.is_right(found, right):
        torn = [p for p in problems if p.kind == "torn"]
        assert torn, why
        assert all(row in right[0] for row in found[0]), why
        assert all(row in right[1] for row in found[1]), why


def test_zeroed_blocks_are_named(whole: tuple[str, Rows]) -> None:
    """512 bytes of zeros anywhere in any file are named, and never read as something else."""
    path, right = whole
    dice = random.Random(1)
    for name in damage.files(path):
        data = Path(path, name).read_bytes()
        ends = range(max(len(data) - 512, 0) + 1)
        for at in sorted({0, ends[-1], dice.choice(ends), dice.choice(ends)}):
            zeroed = data[:at] + b"\0" * len(data[at : at + 512]) + data[at + 512 :]
            with damage.changed(path, name, zeroed):
                check(path, right, [name], f"{name} zeroed from byte {at}")


def test_a_file_cut_short_is_named(whole: tuple[str, Rows]) -> None:
    """Any file but a WAL cut anywhere, even to nothing, is named, and never read as something."""
    path, right = whole
    dice = random.Random(2)
    for name in damage.files(path):
        data = Path(path, name).read_bytes()
        if damage.kind_of(name) in ("wal", "verified"):
            continue
        for size in {0, len(data) - 1, dice.randrange(len(data))}:
            with damage.changed(path, name, data[:size]):
                check(path, right, [name], f"{name} cut to {size}")


def kept_frames(tail: Tail, writer: str) -> set[int] | str:
    """Return the sequences of a writer's frames in the tail, or the file that is in the way."""
    try:
        return {f.sequence for f in tail.collect().frames.get(writer, [])}
    except DamagedWal as error:
        return error.path


@pytest.mark.matrix
@pytest.mark.rounds
@pytest.mark.parametrize("index", range(4))
def test_a_wal_cut_anywhere_gives_every_frame_before_the_cut(
    whole: tuple[str, Rows], index: int
) -> None:
    """A WAL cut at any byte gives all its frames before the cut, or fails by name where it must.
    By default it is cut at every fifth, and around the end of each frame.

    It must where its header or first frame is cut, or where a later file of its writer shows that
    frames are missing. Verify names the file, but for a cut between two frames of the last file.
    """
    path, _ = whole
    name = [n for n in damage.files(path) if damage.kind_of(n) == "wal"][index]
    later = f"{name[:-11]}1.jsonl.zst"
    data = Path(path, name).read_bytes()
    frames = frames_of(data)
    writer = os.path.basename(name)[:32]
    with lakelog.open(path) as lake:
        mark = lake.store.refs.head("main").move.wal.get(writer, -1)
        around = {end + by for _, end in frames for by in (-1, 0, 1)}
        for size in {*range(index % STRIDE, len(data), STRIDE), *around} & {*range(len(data))}:
            whole_frames = {s for s, end in frames if end <= size}
            missed = (
                later != name and Path(path, later).exists() and len(whole_frames) < len(frames)
            )
            with damage.changed(path, name, data[:size]):
                kept = kept_frames(Tail(lake.store.paths, lake.store.refs, "main"), writer)
                if missed or not whole_frames:
                    assert kept == f"{path}/{name}"
                else:
                    assert isinstance(kept, set)
                    here = {s for s, _ in frames}
                    assert kept & here == {s for s in whole_frames if s > mark}
                between = size in {end for _, end in frames}
                named = {p.path for p in verify(lake.store).problems}
                assert f"{path}/{name}" in named or (between and not missed), size


def test_rows_of_a_cut_wal_are_those_before_the_cut(whole: tuple[str, Rows]) -> None:
    """A query over a WAL cut in its last frame gives all other rows, each as it was."""
    path, right = whole
    (name,) = [n for n in damage.files(path) if n.endswith("-000001.jsonl.zst")]
    data = Path(path, name).read_bytes()
    frames = frames_of(data)
    for size in range(frames[-2][1], frames[-1][1], 5):
        with damage.changed(path, name, data[:size]):
            found = damage.read(path)
            assert all(row in right[0] for row in found[0])
            assert len(found[0]) == found[2] == len(right[0]) - 2
            assert found[1] == right[1]


@pytest.mark.parametrize("part", range(2))
def test_swapped_files_are_named(whole: tuple[str, Rows], part: int) -> None:
    """Two files in each other's place are both named, and never read as what they stand for."""
    path, right = whole
    for a, b in pairs(path)[part::2]:
        first, second = Path(path, a).read_bytes(), Path(path, b).read_bytes()
        with contextlib.ExitStack() as stack:
            stack.enter_context(damage.changed(path, a, second))
            stack.enter_context(damage.changed(path, b, first))
            check(path, right, [a, b], f"{a} and {b} swapped")


def test_missing_files_are_noticed(whole: tuple[str, Rows]) -> None:
    """A missing file is noticed, unless it is one that can go without a trace."""
    path, right = whole
    with lakelog.open(path) as lake:
        state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
        needed = {e.key for e in lake.store.manifests.segments(state)}
    for name in damage.files(path):
        kind, digest = damage.kind_of(name), os.path.basename(name)[:64]
        with damage.changed(path, name, None):
            problems, found = damage.checked(path).problems, damage.outcome(path)
            if kind in SILENT:
                assert kind == "wal" or found == right
                continue
            assert problems or (kind == "segments" and digest not in needed), name
            assert damage.is_right(found, right), name


def test_a_wal_gone_before_a_later_one_is_noticed(whole: tuple[str, Rows]) -> None:
    """Where a later file of its writer is there, a missing WAL is an error and is named."""
    path, _ = whole
    (second,) = [n for n in damage.files(path) if n.endswith("-000001.jsonl.zst")]
    with damage.changed(path, f"{second[:-11]}0.jsonl.zst", None):
        assert [p.path for p in damage.checked(path).problems] == [f"{path}/{second}"]
        assert isinstance(damage.outcome(path), DamagedWal)


def test_swapped_tags_are_errors_not_other_states(tmp_path: Path) -> None:
    """Two tags in each other's place are named, and a query of either fails by name."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        lake.append({"type": "A"})
        lake.tag("one")
        lake.append({"type": "B"})
        lake.tag("two")
        one, two = (Path(path, f"refs/tags/{name}.json") for name in ("one", "two"))
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        two.write_bytes(first)
        assert {p.path for p in lake.verify().problems} == {str(one), str(two)}
        for name in ("one", "two"):
            with pytest.raises(DamagedRef):
                lake.sql(f'SELECT * FROM "{name}".events').fetchall()
            with pytest.raises(DamagedRef):
                lake.rollback(name)


@pytest.mark.parametrize("appends", [0, 1])
@pytest.mark.parametrize("is_frame_left", [False, True])
def test_a_wal_that_is_cut_below_its_writer_is_repaired_after_it(
    appends: int, is_frame_left: bool, tmp_path: Path
) -> None:
    """What is appended later is in the next file. The cut one is locked no longer than that, and
    what is missing of it is no torn end: it is listed."""
    path = str(tmp_path / "lake")
    with lakelog.open(path) as lake:
        lake.append({"type": "left"})
        (wal,) = Path(path, "wal", "main").iterdir()
        size = wal.stat().st_size if is_frame_left else 0
        lake.append({"type": "lost"})
        os.truncate(wal, size)
        for _ in range(appends):
            lake.append({"type": "after"})
    outcome = damage.repaired(path)
    assert outcome.after is not None
    assert outcome.after.problems == ()
    assert not wal.exists()
    assert outcome.lost
    expected = [("left",)] * is_frame_left + [("after",)] * appends
    with lakelog.open(path) as lake:
        assert lake.sql("SELECT type FROM events ORDER BY seq").fetchall() == expected
