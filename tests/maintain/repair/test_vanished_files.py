"""Files that are gone without a gap in any numbers: noticed by segments, or beside a copy."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lakelog
from lakelog import history, subscriptions
from lakelog.cli import cli
from lakelog.disk import disk
from lakelog.errors import DamagedLake, GcRefused, LakeReplaced
from tests.support import damage, lakes, vanishing
from tests.support.effort import share
from tests.support.repairing import (
    cured,
    forget_wals,
    head,
    move_file,
    object_file,
    types,
    wal_files,
)

pytestmark = pytest.mark.damaged
PARTS = 4
LIVES = int(os.environ.get("LAKELOG_VANISHINGS", share(192)))


def short_lived(path: str, *names: str, branch: str = "main") -> None:
    """Append each event with a writer of its own, sealed, trimmed and gone."""
    for name in names:
        settings = {"seal": "never", "gc_grace_hours": 0}
        with lakelog.open(path, settings=settings, branch=branch) as lake:
            lake.append({"type": name, "subject": name})
        with lakelog.open(path, branch=branch) as lake:
            lake.settle()


def lose_moves(path: str, first: int) -> None:
    """Lose the moves from a number on, with the hint."""
    for number in range(first, head(path)[0].number + 1):
        move_file(path, number).unlink()
    Path(path, "refs/heads/main/hint").unlink()


def run(path: str, *words: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(cli, ["--lake", path, *words, "--json"])
    return done.exit_code, json.loads(done.stdout)


def reasons(report: dict[str, Any]) -> str:
    return "; ".join(problem["reason"] for problem in report["problems"])


@pytest.mark.parametrize("part", range(PARTS))
def test_what_is_left_of_a_lake_is_never_less_than_known(part: int, tmp_path: Path) -> None:
    """Whatever vanishes, a lake with fewer events than moves, WALs or a copy know is never called
    intact, gc deletes none of them, and repair brings them back or lists the loss."""
    for seed in range(part, LIVES, PARTS):
        vanishing.play(seed, tmp_path / f"{seed}")


def test_lost_newest_moves_are_noticed_and_taken_back(tmp_path: Path) -> None:
    """Segments that only lost moves named make verify say so; gc refuses; repair brings back."""
    path = str(tmp_path / "lake")
    short_lived(path, *"ABCD")
    lose_moves(path, 3)
    assert types(path) == ["A"]
    code, said = run(path, "verify")
    assert code == 3
    assert "the newest moves are lost" in reasons(said)
    with lakelog.open(path) as lake, pytest.raises(GcRefused, match="nothing was deleted"):
        lake.gc()
    with lakelog.open(path) as lake, pytest.raises(GcRefused, match="newest moves are lost"):
        lake.expire()
    done = cured(path)
    assert done.lost == []
    assert "branch main: its newest moves are lost; 3 events taken back from segments" in done.done
    assert types(path) == [*"ABCD", "~"]
    with lakelog.open(path) as lake:
        lake.gc()
    assert types(path) == [*"ABCD", "~"]


def test_a_publish_that_died_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment without a move whose frames are in a WAL, or were sealed by another publish, is
    left over: verify finds the lake intact, and gc removes it."""
    path, real = str(tmp_path / "lake"), disk.link

    def link(source: str, target: str) -> None:
        if "/refs/heads/" in target:
            raise KeyboardInterrupt
        real(source, target)

    short_lived(path, "A")
    with lakes.opened(path) as lake:
        lake.append({"type": "B"})
        with monkeypatch.context() as patch:
            patch.setattr(disk, "link", link)
            with pytest.raises(KeyboardInterrupt):
                lake.settle()
    assert len(list(Path(path, "segments").rglob("*.parquet"))) == 2
    assert damage.checked(path).intact
    short_lived(path, "C")
    assert len(list(Path(path, "segments").rglob("*.parquet"))) == 3
    assert damage.checked(path).intact
    with lakelog.open(path) as lake:
        assert lake.gc().deleted == 1
    assert types(path) == ["A", "B", "C"]


def test_what_was_rolled_back_or_deleted_is_no_damage(tmp_path: Path) -> None:
    """A segment that only a rolled back state or a deleted branch names proves nothing."""
    path = str(tmp_path / "lake")
    short_lived(path, *"AB")
    with lakelog.open(path) as lake:
        lake.branch("dev").close()
    short_lived(path, "DEV", branch="dev")
    with lakelog.open(path) as lake:
        lake.rollback("main@2")
        history.delete_branch(lake.store, "dev", lake.settle)
        assert lake.verify().problems == ()
        lake.gc()
        lake.gc()
        assert lake.verify().problems == ()


@pytest.mark.parametrize("gone", ["moves", "wal", "tag", "branch", "all"])
def test_a_copy_that_knows_more_is_listed_and_fetched(tmp_path: Path, gone: str) -> None:
    """Newest moves with the hint, a WAL, a tag or a branch that only a copy has come from there,
    and are listed before; a second repair has nothing to do."""
    path, copy = str(tmp_path / "lake"), str(tmp_path / "copy")
    short_lived(path, *"AB")
    with lakelog.open(path) as lake:
        lake.tag("v1")
        lake.branch("dev").close()
        lake.ingest(str(_log(tmp_path)))
        lake.append({"type": "TAIL"})
        lake.backup(copy)
    right = damage.read(path)
    if gone in ("moves", "all"):
        lose_moves(path, 3)
    if gone in ("wal", "all"):
        for file in wal_files(path):
            file.unlink()
    if gone in ("tag", "all"):
        Path(path, "refs/tags/v1.json").unlink()
    if gone in ("branch", "all"):
        shutil.rmtree(f"{path}/refs/heads/dev")
    code, said = run(path, "repair", "--from", copy, "--dry-run")
    assert code == 3
    assert "the copy has" in reasons(said)
    code, said = run(path, "repair", "--from", copy, "--yes")
    assert (code, said["lost"], said["after"]["intact"]) == (0, [], True)
    assert damage.read(path) == right
    with lakelog.open(path) as lake:
        assert (lake.branches(), [tag.name for tag in lake.tags()]) == (["dev", "main"], ["v1"])
    code, said = run(path, "repair", "--from", copy)
    assert (code, said["problems"]) == (0, [])


def _log(tmp_path: Path) -> Path:
    file = tmp_path / "app.jsonl"
    file.write_text('{"type": "F", "subject": "f"}\n' * 3)
    return file


def test_an_older_copy_brings_nothing_back(tmp_path: Path) -> None:
    """What was rolled back, untagged or published since a copy was made is not fetched from it."""
    path, copy = str(tmp_path / "lake"), str(tmp_path / "copy")
    short_lived(path, *"AB")
    with lakelog.open(path) as lake:
        lake.tag("v1")
        lake.append({"type": "TAIL"})
        lake.backup(copy)
        history.delete_tag(lake.store, "v1", "main")
        lake.rollback("main@2")
    short_lived(path, "C")
    before = types(path)
    code, said = run(path, "repair", "--from", copy)
    assert (code, said["problems"]) == (0, [])
    assert types(path) == before


@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_lost_move_with_the_last_watermark_doubles_nothing(
    tmp_path: Path, *, is_compacted: bool
) -> None:
    """An old move is lost that alone said how far a finished writer was sealed: its rows are here,
    so no newest moves are lost, and its WAL does not come back from a copy made before the seal."""
    path, copy = str(tmp_path / "lake"), str(tmp_path / "copy")
    with lakelog.open(path, settings={"seal": "never", "gc_grace_hours": 0}) as lake:
        lake.append([{"type": "A"}, {"type": "B"}])
        lake.backup(copy)
    with lakelog.open(path) as lake:
        lake.settle()
    short_lived(path, "C", "D")
    if is_compacted:
        with lakelog.open(path) as lake:
            lake.compact()
            lake.expire()
            lake.gc()
            lake.gc()
        assert len(list(Path(path, "segments").rglob("*.parquet"))) == 1
    move_file(path, 2).unlink()
    code, said = run(path, "repair", "--from", copy, "--dry-run")
    assert (code, reasons(said)) == (3, "the move is missing")
    done = damage.repaired(path, copy)
    assert (done.fetched, done.lost) == ([], ["branch main: move 2 of its log"])
    assert damage.repaired(path, copy).done == []
    assert types(path) == ["A", "B", "C", "D"]


def test_events_that_a_lake_lost_before_it_went_on_come_from_the_copy(tmp_path: Path) -> None:
    """After its newest moves and their segments were lost a lake was written to: the moves of the
    copy cannot be linked any more, the events are added."""
    path, copy = str(tmp_path / "lake"), str(tmp_path / "copy")
    short_lived(path, *"ABC")
    with lakelog.open(path) as lake:
        lake.backup(copy)
    lose_moves(path, 3)
    keys = {entry.key for entry in head(path)[2]}
    for file in Path(path, "segments").rglob("*.parquet"):
        if file.name.split(".")[0] not in keys:
            file.unlink()
    short_lived(path, "NEW")
    code, said = run(path, "repair", "--from", copy, "--dry-run")
    assert (code, "2 events in it are not here" in reasons(said)) == (3, True)
    done = cured(path, copy)
    assert "branch main: 2 events of the copy added; it went another way since move 2" in done.done
    assert types(path) == ["A", "B", "C", "NEW", "~"]
    again = damage.repaired(path, copy)
    assert (again.fetched, again.done, again.lost) == ([], [], [])


def test_a_copy_made_during_a_seal_is_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment that is sealed after the WALs were copied, whose move is not copied, stays out."""
    path, copy = str(tmp_path / "lake"), str(tmp_path / "copy")
    short_lived(path, "A")
    real, calls = disk.listing, list[str]()

    def listing(folder: str) -> list[str]:
        if folder == f"{path}/refs/signatures" and not calls:
            calls.append(folder)
            short_lived(path, "B")
        return real(folder)

    with lakelog.open(path) as lake, monkeypatch.context() as patch:
        patch.setattr(disk, "listing", listing)
        lake.backup(copy)
    assert calls
    assert types(path) == ["A", "B"]
    assert damage.checked(copy).problems == ()
    assert types(copy) == ["A"]
    with lakelog.open(path) as lake:
        lake.backup(copy)
    assert damage.checked(copy).problems == ()
    assert types(copy) == ["A", "B"]


def test_a_living_writer_whose_wal_comes_from_a_copy_notices(tmp_path: Path) -> None:
    """It acknowledges nothing that goes into the file without a name; opened again, it goes on."""
    path, copy = str(tmp_path / "lake"), str(tmp_path / "copy")
    with lakes.opened(path) as lake:
        lake.append({"type": "A"})
        lake.backup(copy)
        for file in wal_files(path):
            file.unlink()
        damage.repaired(path, copy)
        with pytest.raises(LakeReplaced):
            lake.append({"type": "B"})
    with lakelog.open(path) as lake:
        lake.append({"type": "C"})
    assert types(path) == ["A", "C"]


def test_a_branch_without_moves_comes_back_from_its_segments(tmp_path: Path) -> None:
    """All moves of one of two branches are gone, with the hint and the WALs: what it had sealed is
    taken back, and an empty directory of a branch that never was stays as it is."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        lake.branch("dev").close()
    short_lived(path, *"AB")
    for file in [*Path(path, "refs/heads/main").iterdir(), *wal_files(path)]:
        file.unlink()
    Path(path, "refs/heads/unborn").mkdir()
    assert not damage.checked(path).intact
    done = damage.repaired(path)
    assert done.after is not None
    assert done.after.problems == ()
    assert types(path) == ["A", "B"]
    assert list(Path(path, "refs/heads/unborn").iterdir()) == []


@pytest.mark.parametrize("is_whole", [True, False])
def test_rows_of_a_lost_segment_come_from_wals_of_a_copy(tmp_path: Path, *, is_whole: bool) -> None:
    """A copy that was made before events were published has them in a WAL: they come from there,
    under their numbers if all do, without those that are stored already; the others are lost."""
    path, copy = str(tmp_path / "lake"), str(tmp_path / "copy")
    short_lived(path, "0")
    with lakelog.open(path, settings={"seal": "never"}) as lake:
        lake.append([{"type": "A", "id": "a"}, {"type": "A", "id": "a"}, {"type": "B"}])
        lake.append({"type": "C", "id": "c"})
        if not is_whole:
            lake.backup(copy)
        lake.append({"type": "D", "id": "d"})
        if is_whole:
            lake.backup(copy)
    with lakelog.open(path) as lake:
        lake.settle()
    right = damage.read(path)
    move, _, entries = head(path)
    (lost,) = (entry for entry in entries if "A" in entry.types)
    object_file(path, "segments", lost.key).unlink()
    if is_whole:
        done = damage.repaired(path, copy)
        assert done.done == ["branch main: 4 events of damaged segments taken back from WALs"]
        assert done.lost == []
        assert damage.read(path) == right
        assert head(path)[0].generation == move.generation
    else:
        done = damage.repaired(path, copy)
        assert done.lost[0].startswith("branch main: 1 of 4 events of segment")
        assert types(path) == ["0", "A", "B", "C"]
    assert done.after is not None
    assert done.after.problems == ()
    with lakelog.open(path) as lake:
        lake.append([{"type": "A", "id": "a"}, {"type": "C", "id": "c"}, {"type": "E"}])
        lake.settle()
    assert types(path) == ["0", "A", "B", "C", *(["D"] if is_whole else []), "E"]
    again = damage.repaired(path, copy)
    assert (again.fetched, again.done, again.lost) == ([], [], [])


@pytest.mark.parametrize("way", ["compacted", "went on", "rolled back"])
def test_rows_of_a_lost_segment_come_from_other_segments_of_a_copy(
    tmp_path: Path, way: str
) -> None:
    """A copy that was made before a compaction has the rows of the compacted segment under the same
    numbers: they come from there, without those that are newer than the copy, and without any that
    were rolled back."""
    path, copy = str(tmp_path / "lake"), str(tmp_path / "copy")
    data = {"n": 1, "text": "x"}
    for name in "ABC":
        with lakelog.open(path, settings={"seal": "never", "gc_grace_hours": 0}) as lake:
            lake.append([{"type": name, "id": name, "data": data}, {"type": name}])
            lake.settle()
    with lakelog.open(path) as lake:
        lake.backup(copy)
        if way == "rolled back":
            lake.rollback("main@3")
        if way in ("went on", "rolled back"):
            lake.append([{"type": "D", "id": "D", "data": data}, {"type": "D"}])
            lake.settle()
        lake.compact()
        lake.expire()
        lake.gc()
        lake.gc()
    forget_wals(path)
    right = damage.read(path)[0]
    for file in Path(path, "segments").rglob("*.parquet"):
        file.unlink()
    done = damage.repaired(path, copy)
    assert done.after is not None
    found = damage.read(path)[0]
    assert found == [row for row in right if row[1] != "D"]
    assert bool(done.lost) == (found != right)
    if found:
        with lakelog.open(path) as lake:
            lake.append([{"type": name, "id": name} for name in "AB"])
        assert types(path) == sorted(row[1] for row in found)


def test_rows_of_a_lost_segment_come_from_the_wal_of_a_living_writer(tmp_path: Path) -> None:
    """It still has what was published while its writer goes on in it; no copy is needed, and what
    was rolled back does not come."""
    path = str(tmp_path / "lake")
    with lakes.opened(path, seal="never") as lake:
        lake.append({"type": "A", "id": "a"})
        lake.settle()
        lake.append({"type": "B"})
        lake.settle()
        lake.rollback("main@2")
        lake.append({"type": "C"})
        lake.settle()
        right = damage.read(path)
        for file in Path(path, "segments").rglob("*.parquet"):
            file.unlink()
        done = damage.repaired(path)
        assert not [line for line in done.lost if line.startswith("branch main")]
        assert damage.read(path) == right
    assert types(path) == ["A", "C"]


def test_no_lake_is_created_over_moves_alone(tmp_path: Path) -> None:
    """Without lakelog.json, a lake that never had an event is a damaged one, and repair keeps what
    it has."""
    path = str(tmp_path / "lake")
    with lakelog.open(path) as lake, lake.subscribe("s") as subscription:
        subscription.run(lambda _: None, once=True)
    Path(path, "lakelog.json").unlink()
    with pytest.raises(DamagedLake, match="missing, though the lake holds"):
        lakelog.open(path)
    assert damage.repaired(path).after is not None
    with lakelog.open(path) as lake:
        assert [s.name for s in subscriptions.listed(lake.subscriptions())] == ["s"]


@pytest.mark.parametrize("left", ["wal", "segments"])
def test_no_lake_is_created_over_what_is_left_of_one(tmp_path: Path, left: str) -> None:
    """Without lakelog.json and all moves, WALs or segments alone still are a damaged lake, which
    nothing replaces by an empty one; repair brings the events back."""
    path = str(tmp_path / "lake")
    short_lived(path, "A")
    if left == "wal":
        with lakelog.open(path, settings={"seal": "never"}) as lake:
            lake.append({"type": "B"})
        shutil.rmtree(f"{path}/segments")
    else:
        shutil.rmtree(f"{path}/wal/main")
    shutil.rmtree(f"{path}/refs/heads/main")
    Path(path, "lakelog.json").unlink()
    with pytest.raises(DamagedLake, match="missing, though the lake holds"):
        lakelog.open(path)
    done = damage.repaired(path)
    assert done.after is not None
    assert done.after.problems == ()
    assert types(path) == ["B" if left == "wal" else "A"]


def test_gc_refuses_while_the_hint_names_a_lost_move(tmp_path: Path) -> None:
    """A newest move that is missing is damage, so nothing is deleted before the repair."""
    path = str(tmp_path / "lake")
    short_lived(path, *"AB")
    move_file(path, 3).unlink()
    with lakelog.open(path) as lake, pytest.raises(GcRefused, match=r"3\.json is missing"):
        lake.gc()
    assert damage.repaired(path).after is not None
    with lakelog.open(path) as lake:
        lake.gc()
    assert types(path) == ["A", "B"]
