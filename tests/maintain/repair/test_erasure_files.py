"""The files of erasures: each is verified, and a repair brings back what can be known of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog import document
from lakelog.maintain import LakeCheck, RepairOutcome
from lakelog.volume import DirectoryVolume, ErasedStates, replacements
from tests.support.attached import SharedMachines
from tests.support.erasure_histories import places_with

ADA, TAGS = "ada-3f9k2m", ("v0", "v3", "v6", "v9")
pytestmark = pytest.mark.damaged


@pytest.fixture(autouse=True)
def _short_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dozen states are many: they are divided."""
    monkeypatch.setattr(replacements, "_SHARD_MAX", 4)


@pytest.fixture
def root(home: Path, long_manifests: None) -> Path:
    """A lake from which ada was erased, with a copy from before (`old`) and one from after (`new`),
    and twelve states that had her, four of them with tags."""
    with lakelog.open(home / "lake", settings={"seal": "never"}) as lake:
        for n in range(12):
            lake.append([{"type": "A", "subject": subject} for subject in (ADA, "bob", "cid")])
            lake.settle()
            if n % 3 == 0:
                lake.tag(f"v{n}")
        lake.backup(str(home / "old"))
        lake.erase(subject=ADA, why="asked")
        lake.append({"type": "A", "subject": "dan"})
        lake.settle()
        lake.backup(str(home / "new"))
    return home / "lake"


def damage(path: Path, how: str) -> None:
    """Flip a bit in a file, or take it away."""
    if how == "gone":
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def counts(root: Path) -> list[int]:
    """How many events the newest state and each tag have."""
    with lakelog.open(root, create=False) as lake:
        return [lake.count(), *(lake.at(tag).count() for tag in TAGS)]


def replaced_segments(root: Path) -> dict[str, str]:
    """What stands in the place of segments, as another process reads it."""
    erased = ErasedStates(DirectoryVolume(str(root)))
    erased.refresh()
    return erased.segments()


def repaired(root: Path, copy: Path | None = None) -> RepairOutcome:
    """Repair a damaged lake, which is intact then and has no byte of ada."""
    check = LakeCheck(str(root))
    assert not check.verify().intact
    outcome = check.repair(str(copy) if copy else None)
    assert outcome.after is not None
    assert outcome.after.intact
    shutil.rmtree(root / "cache/damaged", ignore_errors=True)
    assert places_with(root, [ADA]) == []
    return outcome


@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_verify_names_each_damaged_file(root: Path, how: str) -> None:
    """A damaged file of an erasure is the one that `verify` names, and a repair removes that."""
    before = counts(root)
    shards = sorted(root.glob("erasures/*.shard"), key=lambda path: path.stat().st_size)
    paths = [shards[0], shards[-1], root / "erasures/states.json", *root.glob("erasures/*.rows")]
    if how == "flipped":  # nothing says that others were there
        paths += [*root.glob("erasures/*[0-9a-f].json"), *root.glob("copies/*")]
    for file in (path.relative_to(root) for path in paths):
        again = root.with_name("again")
        shutil.copytree(root, again)
        damage(again / file, how)
        named = {os.path.relpath(p.path, again) for p in LakeCheck(str(again)).verify().problems}
        assert str(file) in named
        assert named == {str(file)} or file.name == "states.json"
        repaired(again)
        assert counts(again) == before, file
        shutil.rmtree(again)


@pytest.mark.parametrize(
    ("lost", "copy"),
    [("*.shard", None), ("*.shard", "new"), ("states.json", None), ("*s*", "old"), ("*s*", "new")],
)
def test_states_are_read_as_before_after_a_loss(root: Path, lost: str, copy: str | None) -> None:
    """Whatever is lost of what stands in the place of states: each is read without the erased rows
    again; which segments were replaced is known again if the copy was made since."""
    before, segments = counts(root), replaced_segments(root)
    for path in root.glob(f"erasures/{lost}"):
        if path.suffix == ".shard" or path.name == "states.json":
            path.unlink()
    outcome = repaired(root, root.with_name(copy) if copy else None)
    assert counts(root) == before
    if copy == "new":
        assert replaced_segments(root) == segments
        assert outcome.lost == []
    else:
        (line,) = outcome.lost
        assert "push to each remote" in line


def test_an_old_copy_gives_no_erased_row_back(root: Path) -> None:
    """Where the manifest that stood in the place of a state is lost as well, the state stays lost:
    a copy from before the erasure has it, with the rows."""
    names = document.decode((root / "erasures/states.json").read_bytes())["shards"]
    with lakelog.open(root, create=False) as lake:
        snapshot = next(tag.snapshot for tag in lake.store.refs.tags() if tag.name == "v3")
        stored = lake.store.manifests.stored_as(snapshot)
        manifest = Path(lake.store.paths.object("manifests", stored))
    assert (root.with_name("old") / "manifests" / snapshot[:2] / f"{snapshot}.json.zst").exists()
    manifest.unlink()
    (root / "erasures" / f"{names[int(snapshot[0], 16)]}.shard").unlink()
    outcome = repaired(root, root.with_name("old"))
    assert any(snapshot[:12] in line for line in outcome.lost)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[SharedMachines]:
    """Machines with a bucket of files."""
    machines = SharedMachines(tmp_path)
    yield machines
    machines.close()


@pytest.mark.parametrize("file", ["*.shard", "states.json", "*[0-9a-f].json", "*.rows"])
def test_a_shared_lake_has_it_from_its_bucket(machines: SharedMachines, file: str) -> None:
    """What an attached directory lost of erasures comes from the bucket again."""
    for _ in range(6):
        subjects = (ADA, "bob")
        machines["a"].append([{"type": "A", "subject": subject} for subject in subjects])
        machines.exchange("a", "b")
    machines["a"].erase(subject=ADA, why="asked")
    machines.exchange("a", "b")
    root = Path(machines["b"].path)
    segments = replaced_segments(root)
    machines.close()
    for path in root.glob(f"erasures/{file}"):
        damage(path, "flipped")
    repaired(root)
    assert replaced_segments(root) == segments
    with lakelog.open(root, create=False) as lake:
        assert lake.count() == 6
