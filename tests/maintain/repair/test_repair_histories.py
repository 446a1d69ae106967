"""Repair past a damaged newest state: nothing doubled or brought back, all that is lost listed."""

from __future__ import annotations

from pathlib import Path

import pytest

import lakelog
from lakelog.errors import DamagedLake
from tests.support import damage, lakes
from tests.support.repairing import cured, head, move_file, object_file, types

pytestmark = [pytest.mark.damaged, pytest.mark.usefixtures("long_manifests")]


def short_lived(path: str, *names: str) -> None:
    """Append each event with a writer of its own, sealed, trimmed and gone."""
    for name in names:
        with lakes.opened(path) as lake:
            lake.append({"type": name})
        with lakes.opened(path) as lake:
            lake.settle()


def lose(path: str, what: str) -> None:
    """Lose the newest move, or the manifest that it names."""
    move, _, _ = head(path)
    file = object_file(path, "manifests", move.snapshot)
    if what == "move":
        move_file(path, move.number).unlink()
    elif what == "both":
        file.write_bytes(b"")
        move_file(path, move.number).write_bytes(b"")
    else:
        file.write_bytes(b"")


LOSSES = pytest.mark.parametrize("what", ["move", "manifest", "both"])


@LOSSES
def test_repair_after_compaction_doubles_nothing(tmp_path: Path, what: str) -> None:
    """The inputs of a compaction, whose writers are forgotten, are no events that were lost."""
    path = str(tmp_path / "lake")
    short_lived(path, *"ABCDEFGH")
    with lakes.opened(path, segment_rows=100) as lake:
        assert lake.compact().removed > 1
    short_lived(path, *"IJ")
    lose(path, what)
    cured(path)
    assert types(path) == [*"ABCDEFGHIJ", "~"]


@pytest.mark.matrix
@LOSSES
@pytest.mark.parametrize("verb", ["rollback", "retention"])
def test_repair_brings_nothing_back_that_was_removed(tmp_path: Path, what: str, verb: str) -> None:
    """What a rollback or retention took off stays off, though its segments are still there."""
    path = str(tmp_path / "lake")
    short_lived(path, *"AB")
    with lakes.opened(path) as lake:
        lake.tag("v1")
    short_lived(path, *"CD")
    with lakes.opened(path) as lake:
        if verb == "rollback":
            lake.rollback("v1")
        else:
            lake.append({"type": "OLD", "time": "2001-01-01T00:00:00Z"})
            lake.settle()
            lake.retention("3650d", apply=True)
    short_lived(path, *"EF")
    lose(path, what)
    cured(path)
    assert types(path) == ([*"ABEF", "~"] if verb == "rollback" else [*"ABCDEF", "~"])


def test_events_of_two_lost_states_come_back_or_are_listed(tmp_path: Path) -> None:
    """Where two states cannot be read, what was sealed for them is found, or named as lost."""
    path = str(tmp_path / "lake")
    short_lived(path, *"ABCD")
    _, state, entries = head(path)
    lose(path, "manifest")
    object_file(path, "manifests", state.parent).write_bytes(b"")
    object_file(path, "segments", entries[-1].key).write_bytes(b"")
    done = cured(path)
    assert types(path) == [*"ABC", "~"]
    assert any("group commits 0 to 0 of writer" in line for line in done.lost)


@pytest.mark.matrix
@LOSSES
@pytest.mark.parametrize("rotate", [1, 1000])
def test_a_living_writer_goes_on_after_repair(tmp_path: Path, what: str, rotate: int) -> None:
    """A writer whose seal was lost appends, and everything it appended is there."""
    path = str(tmp_path / "lake")
    with lakes.opened(path, rotate_events=rotate) as writer:
        for name in "ABC":
            writer.append({"type": name})
            with lakes.opened(path) as other:
                other.settle()
        lose(path, what)
        damage.repaired(path)
        writer.store.refs.forget()
        writer.append({"type": "D"})
        with lakelog.open(path) as reader:
            found = reader.sql("SELECT type FROM events ORDER BY type").fetchall()
            assert found == [(name,) for name in "ABCD"]
            reader.settle()
            assert reader.verify().problems == ()
    assert types(path) == list("ABCD")


def test_ids_of_what_is_taken_back_are_known_though_their_run_is_lost(tmp_path: Path) -> None:
    """An event that repair takes back and that is sent again with its id is there once."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        lake.append([{"type": "A", "id": "a"}])
        lake.settle()
    _, state, _ = head(path)
    lose(path, "both")
    object_file(path, "ids", state.ids[0].digest).write_bytes(b"")
    cured(path)
    with lakelog.open(path) as lake:
        lake.append({"type": "AGAIN", "id": "a"})
    assert types(path) == ["A", "~"]


def test_what_a_later_rewind_took_off_a_finished_writer_stays_off(tmp_path: Path) -> None:
    """Past a rollback whose state is lost, nothing comes back that was sealed before it; that is
    listed, as the rollback may have kept some of it."""
    path = str(tmp_path / "lake")
    short_lived(path, *"ABC")
    with lakes.opened(path) as lake:
        lake.rollback("main@3")
    short_lived(path, "D")
    with lakelog.open(path) as lake:
        states = {entry.move.number: entry.move.snapshot for entry in lake.log()}
    assert states[5] == states[3]
    for number in (3, 4, 6):
        object_file(path, "manifests", states[number]).write_bytes(b"")
    done = cured(path)
    assert types(path) == ["A", "D", "~"]
    assert "branch main: what moves 3 to 5 sealed, as move 5 took some of it off" in done.lost


def test_a_copy_older_than_a_wal_does_not_shorten_it(tmp_path: Path) -> None:
    """Frames damaged here come from the copy, and those written since stay."""
    path, copy = str(tmp_path / "lake"), str(tmp_path / "copy")
    with lakes.opened(path) as lake:
        lake.append({"type": "A"})
        lake.append({"type": "B"})
        lake.backup(copy)
        lake.append({"type": "C"})
    (file,) = Path(path, "wal/main").iterdir()
    data = bytearray(file.read_bytes())
    data[data.index(b"LKF1") + 4] ^= 1
    file.write_bytes(data)
    assert cured(path, copy).lost == []
    assert types(path) == ["A", "B", "C", "~"]


def test_a_branch_whose_only_move_is_lost_with_its_hint_works_again(tmp_path: Path) -> None:
    """Events that wait in a WAL are there again, and that all states are lost is said."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        lake.append({"type": "A"})
    for file in Path(path, "refs/heads/main").iterdir():
        file.unlink()
    done = cured(path)
    assert types(path) == ["A", "~"]
    assert any("every state of it" in line for line in done.lost)


def test_a_branch_whose_only_state_is_lost_says_so(tmp_path: Path) -> None:
    """A branch that began at a state which is lost is empty, and that is listed."""
    path = str(tmp_path / "lake")
    short_lived(path, "A")
    with lakes.opened(path) as lake:
        lake.branch("other").close()
    lose(path, "manifest")
    done = damage.repaired(path)
    assert types(path) == ["A"]
    assert any(line.startswith("branch other: every state of it") for line in done.lost)


def test_a_lake_without_lakelog_json_is_known_by_its_moves(tmp_path: Path) -> None:
    """Where its hint and WALs are gone too, a lake with moves is damaged, not absent."""
    path = str(tmp_path / "lake")
    short_lived(path, "A")
    Path(path, "lakelog.json").unlink()
    Path(path, "refs/heads/main/hint").unlink()
    with pytest.raises(DamagedLake):
        lakelog.open(path)
    damage.repaired(path)
    assert types(path) == ["A"]


def test_views_after_a_repair_that_numbers_events_anew(tmp_path: Path) -> None:
    """A view that has some rows of a compacted segment counts just the others, though they had
    other numbers when it was last computed."""
    path = str(tmp_path / "lake")
    for source, count in (("a", 2), ("b", 5), ("c", 1)):
        with lakes.opened(path, seal="never") as lake:
            for _ in range(count):
                lake.append({"type": "COMPLETE", "source": source})
            lake.settle()
            if source == "a":
                lake.view("reliability")
    with lakelog.open(path) as lake:
        lake.settle()
    # Without their moves segments are put back by how much of a WAL they have.
    for number in range(2, 5):
        move_file(path, number).unlink()
    Path(path, "refs/heads/main/hint").unlink()
    damage.repaired(path)
    with lakelog.open(path) as lake:
        lake.compact()
        rows = [(row["source"], row["completed"]) for row in lake.view("reliability").to_pylist()]
        assert rows == [("a", 2), ("b", 5), ("c", 1)]
