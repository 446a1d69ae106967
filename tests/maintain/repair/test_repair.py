"""Repair, damage by damage: what comes back, what is lost, and that the lake goes on."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

import lakelog
from lakelog import document
from lakelog.disk import disk
from lakelog.errors import DamagedLake, DamagedManifest, DamagedSegment
from lakelog.moves.publication import Change, publish
from tests.support import damage, lakes
from tests.support.repairing import (
    cured,
    forget_wals,
    frame_starts,
    head,
    made,
    move_file,
    object_file,
    sealed,
    spoil,
    types,
    wal_files,
)

pytestmark = pytest.mark.damaged


def test_repair_of_an_intact_lake_changes_nothing(tmp_path: Path) -> None:
    """On a lake without damage repair writes no move and touches no file."""
    path = str(tmp_path / "lake")
    damage.build(path)
    before = {name: Path(path, name).read_bytes() for name in damage.files(path)}
    done = damage.repaired(path)
    assert (done.fetched, done.aside, done.lost, done.done) == ([], [], [], [])
    assert {name: Path(path, name).read_bytes() for name in damage.files(path)} == before


def test_a_damaged_head_move_keeps_its_state(tmp_path: Path) -> None:
    """A head move that still names its state is passed by a move onto that very state."""
    path = made(tmp_path, sealed([{"type": "A"}], [{"type": "B"}], [{"type": "C", "id": "c"}]))
    move, _, _ = head(path)
    file = move_file(path, move.number)
    spoil(file, file.read_bytes().index(b'"author"'), 10)
    done = cured(path)
    assert types(path) == ["A", "B", "C", "~"]
    assert any("onto its own state" in line for line in done.done)
    assert done.lost == [f"branch main: move {move.number} of its log"]
    with lakelog.open(path) as lake:
        lake.append([{"type": "AGAIN", "id": "c"}])
        assert lake.count() == 4
        ops = {entry.move.number: entry.move.op for entry in lake.log()}
        assert (ops[move.number], ops[move.number + 1]) == ("lost", "repair")
        assert lake.store.refs.head("main").move.generation > move.generation


@pytest.mark.parametrize("way", ["emptied", "missing"])
def test_a_head_move_without_a_trace_is_made_again_from_segments(way: str, tmp_path: Path) -> None:
    """What was sealed after the last readable move is found in the segments, ids included."""
    path = made(tmp_path, sealed([{"type": "A"}], [{"type": "B", "id": "b"}, {"type": "C"}]))
    move, _, _ = head(path)
    file = move_file(path, move.number)
    if way == "missing":
        file.unlink()
    else:
        file.write_bytes(b"")
    done = cured(path)
    assert types(path) == ["A", "B", "C", "~"]
    assert any("2 later events taken back" in line for line in done.done)
    with lakelog.open(path) as lake:
        lake.append([{"type": "AGAIN", "id": "b"}])
        assert lake.count() == 4


def test_the_only_move_is_made_again(tmp_path: Path) -> None:
    """A lake whose only move is gone opens again with its tail."""
    path = made(tmp_path, lambda lake: lake.append([{"type": "A"}, {"type": "B"}]))
    move_file(path, 1).write_bytes(b"")
    cured(path)
    assert types(path) == ["A", "B", "~"]


def test_a_branch_without_a_readable_move_is_made_again(tmp_path: Path) -> None:
    """If no move can be read, everything that was sealed comes back from the segments."""
    path = made(tmp_path, sealed(*[[{"type": t, "id": t}] for t in "ABC"]))
    for number in range(1, 5):
        move_file(path, number).write_bytes(b"\0" * 300)
    cured(path)
    assert types(path) == ["A", "B", "C", "~"]


def test_an_older_move_in_the_place_of_the_head_is_not_believed(tmp_path: Path) -> None:
    """A copy of another move under the head's number does not bring that move's state."""
    path = made(tmp_path, sealed(*[[{"type": t}] for t in "ABC"]))
    move_file(path, 4).write_bytes(move_file(path, 2).read_bytes())
    done = cured(path)
    assert types(path) == ["A", "B", "C", "~"]
    assert not any("own state" in line for line in done.done)


def test_an_old_damaged_move_gets_a_stand_in(tmp_path: Path) -> None:
    """An old move is replaced by one with op lost; the chain stays provable, the state as it is."""
    path = made(tmp_path, sealed(*[[{"type": t}] for t in "ABCDE"]))
    spoil(move_file(path, 3), 0, 400)
    done = cured(path)
    assert done.lost == ["branch main: move 3 of its log"]
    assert types(path) == [*"ABCDE", "~"]
    with lakelog.open(path) as lake:
        stand_in = lake.store.refs.read("main", 3)
        assert stand_in.op == "lost"
        assert stand_in.message == lake.store.refs.read("main", 4).prev


def test_packed_moves_are_made_again_as_far_as_they_can_be_read(tmp_path: Path) -> None:
    """A damaged file of packed moves is replaced by one with stand-ins for what is lost."""
    path = str(tmp_path / "lake")
    lakes.packed(path)
    (file,) = Path(path, "refs/heads/main").glob("packed-*")
    moves = head(path)[0].number
    file.write_bytes(file.read_bytes()[:-400])
    done = cured(path)
    assert done.lost
    assert len(types(path)) == 7
    with lakelog.open(path) as lake:
        assert len(lake.log()) > moves


@pytest.mark.usefixtures("long_manifests")
def test_a_damaged_manifest_of_the_head_is_made_again_from_segments(tmp_path: Path) -> None:
    """If the head's manifest is gone, later segments are put on the newest state that opens."""
    path = made(tmp_path, sealed([{"type": "A"}], [{"type": "B", "id": "b"}], [{"type": "C"}]))
    move, state, _ = head(path)
    for digest in (move.snapshot, state.parent):
        object_file(path, "manifests", digest).write_bytes(b"")
    with pytest.raises(DamagedManifest):
        types(path)
    done = cured(path)
    assert types(path) == ["A", "B", "C", "~"]
    assert any("2 later events taken back" in line for line in done.done)
    with lakelog.open(path) as lake:
        lake.append([{"type": "AGAIN", "id": "b"}])
        assert lake.count() == 4


@pytest.mark.usefixtures("long_manifests")
def test_quarantined_lines_come_back_with_the_events_sealed_beside_them(tmp_path: Path) -> None:
    """Both segments of one sealing are taken back, though they hold the same WAL frames."""

    def build(lake: lakelog.Lake) -> None:
        lake.append({"type": "A"})
        lake.settle()
        lake.append({"type": "B"})
        lake.quarantine([("f", 1, "bad", "{")])
        lake.settle()

    path = made(tmp_path, build)
    object_file(path, "manifests", head(path)[0].snapshot).write_bytes(b"")
    cured(path)
    assert types(path) == ["A", "B", "~"]
    with lakelog.open(path) as lake:
        assert lake.sql("SELECT line FROM quarantine").fetchall() == [("{",)]


def test_a_damaged_page_is_made_anew(tmp_path: Path) -> None:
    """A page comes again from the manifests before it; the totals prove that nothing is missing."""

    def build(lake: lakelog.Lake) -> None:
        for i in range(40):
            entry = lakes.tiny_segment(lake, f"T{i:02d}")
            publish(lake.store, "main", lambda *_, entry=entry: Change("ingest", entries=(entry,)))

    path = made(tmp_path, build)
    _, state, entries = head(path)
    object_file(path, "manifests", state.pages[1].digest).write_bytes(b"")
    done = cured(path)
    assert any("a damaged page rebuilt, nothing lost" in line for line in done.done)
    assert types(path) == [*(f"T{i:02d}" for i in range(40)), "~"]
    assert [e.seq for e in head(path)[2]][:40] == [e.seq for e in entries]


def test_a_damaged_segment_is_set_aside_and_its_events_are_listed(tmp_path: Path) -> None:
    """Only the events of the damaged segment are lost; the line says which and how many."""
    path = made(tmp_path, sealed(lakes.events("A", 3), lakes.events("B", 2), [{"type": "C"}]))
    with lakelog.open(path) as lake:
        lake.tag("v1")
    lost = head(path)[2][1]
    before = spoil(object_file(path, "segments", lost.key))
    forget_wals(path)
    with pytest.raises(DamagedSegment):
        types(path)
    done = cured(path)
    assert types(path) == ["A", "A", "A", "C", "~"]
    assert len(done.lost) == 1
    assert "2 events" in done.lost[0]
    assert "seq 3 to 4" in done.lost[0]
    assert "types B 2" in done.lost[0]
    assert "sources s0 1, s1 1" in done.lost[0]
    assert done.kept == ["branch main: 4 events in 2 segments, up to 0 in WALs"]
    (aside,) = [Path(path, name) for name in done.aside if name.endswith("parquet")] or [
        Path(path, name) for name in done.aside if ".parquet" in name
    ]
    assert len(aside.read_bytes()) == len(before)
    with lakelog.open(path) as lake:
        assert f"segments/{lost.key}" in lake.verify().lost
        with pytest.raises(DamagedSegment):
            lake.sql('SELECT * FROM "v1".events')


@pytest.mark.parametrize(
    ("note", "spoilt"),
    [
        (b"lakelog.branch", b"lakelog.brancj"),
        (b"lakelog.branch\x18\x04main", b"lakelog.branch\x18\x04maio"),
    ],
    ids=["no branch", "another branch"],
)
def test_the_notes_of_a_damaged_segment_are_not_believed(
    note: bytes, spoilt: bytes, tmp_path: Path
) -> None:
    """They make no branch that never was."""
    path = made(tmp_path, sealed([{"type": "A"}], [{"type": "B"}]))
    file = object_file(path, "segments", head(path)[2][1].key)
    data = file.read_bytes()
    assert data.count(note) == 1
    file.write_bytes(data.replace(note, spoilt))
    forget_wals(path)
    lost = cured(path).lost
    assert [line for line in lost if "1 events" not in line] == []
    assert types(path) == ["A", "~"]
    with lakelog.open(path) as lake:
        assert lake.branches() == ["main"]


def test_lost_events_with_ids_can_be_retried(tmp_path: Path) -> None:
    """The ids of a lost segment are forgotten, so that its events can be delivered again."""
    path = made(tmp_path, sealed([{"type": "A", "id": "a"}], [{"type": "B", "id": "b"}]))
    file = object_file(path, "segments", head(path)[2][1].key)
    spoil(file, 4, 3)
    forget_wals(path)
    assert "1 events" in cured(path).lost[0]
    with lakelog.open(path) as lake:
        lake.append([{"type": "A2", "id": "a"}, {"type": "B2", "id": "b"}])
    assert types(path) == ["A", "B2", "~"]


def test_inputs_that_are_left_of_a_damaged_compacted_segment_come_back(tmp_path: Path) -> None:
    """If one input is lost as well, the events of the others come back, under their seq; the move
    that compacted may be lost too."""
    path = made(tmp_path, sealed(lakes.events("A", 2), lakes.events("B", 2), lakes.events("C", 2)))
    middle = head(path)[2][1]
    with lakelog.open(path) as lake:
        lake.compact()
        compacted = head(path)[0].number
        lake.append({"type": "D"})
        lake.settle()
        before = lake.sql("SELECT seq, type FROM events ORDER BY 1").fetchall()
    forget_wals(path)
    (entry,) = (e for e in head(path)[2] if e.made_from)
    object_file(path, "segments", entry.key).unlink()
    object_file(path, "segments", middle.key).unlink()
    move_file(path, compacted).unlink()
    done = cured(path)
    lost = [line for line in done.lost if line.startswith("branch main: 2 events of segment")]
    assert [middle.key[:12] in line for line in lost] == [True]
    with lakelog.open(path) as lake:
        after = lake.sql("SELECT seq, type FROM events WHERE type <> '~' ORDER BY 1").fetchall()
    assert after == [row for row in before if row[1] != "B"]


def test_a_damaged_compacted_segment_gives_way_to_what_it_was_made_of(tmp_path: Path) -> None:
    """Until gc takes them, the inputs of a compaction stand in for its damaged output."""
    path = made(tmp_path, sealed(lakes.events("A", 3), lakes.events("B", 3), lakes.events("C", 3)))
    with lakelog.open(path) as lake:
        lake.compact()
        before = lake.sql("SELECT seq, type FROM events ORDER BY 1").fetchall()
    (entry,) = head(path)[2]
    spoil(object_file(path, "segments", entry.key), 100)
    done = cured(path)
    assert done.lost == []
    with lakelog.open(path) as lake:
        after = lake.sql("SELECT seq, type FROM events WHERE type <> '~' ORDER BY 1").fetchall()
        assert after == before


@pytest.mark.parametrize("size", [16, 1000])
def test_dedupe_by_id_works_after_a_damaged_id_run(size: int, tmp_path: Path) -> None:
    """An id run is rebuilt from the events; content keys stay as far as they can be read."""

    def build(lake: lakelog.Lake) -> None:
        lake.append([{"type": "A", "id": f"i{i}"} for i in range(30)])
        lake.settle()
        lake.append([{"type": "B", "data": i} for i in range(30)], dedupe="content")
        lake.settle()

    path = made(tmp_path, build)
    for run in head(path)[1].ids:
        spoil(object_file(path, "ids", run.digest), 64, size)
    cured(path)
    with lakelog.open(path) as lake:
        count = lake.count()
        lake.append([{"type": "AGAIN", "id": f"i{i}"} for i in range(30)])
        lake.append({"type": "NEW", "id": "i30"})
        assert lake.count() == count + 1
        lake.append([{"type": "B", "data": i} for i in range(30)], dedupe="content")
        lake.settle()
        assert count + 1 <= lake.count() <= count + (4 if size == 16 else 31)


def test_a_damaged_wal_frame_in_the_middle_loses_only_itself(tmp_path: Path) -> None:
    """Frames before and after the damaged one are read and sealed; the file is set aside."""
    path = made(tmp_path, lambda lake: [lake.append(lakes.events(t, 2)) for t in "ABCD"])
    (file,) = wal_files(path)
    spoil(file, frame_starts(file)[1] + 70, 10)
    done = cured(path)
    assert types(path) == ["A", "A", "C", "C", "D", "D", "~"]
    assert len(done.lost) == 1
    assert "group commits 1 to 1" in done.lost[0]
    assert any(file.name in name for name in done.aside)


def test_several_damaged_frames_of_several_writers(tmp_path: Path) -> None:
    """Each gap of each writer is passed over and listed; all other frames stay."""
    path = str(tmp_path / "lake")
    for name in "XY":
        with lakes.opened(path) as lake:
            for i in range(7):
                lake.append({"type": f"{name}{i}"})
    for file in wal_files(path):
        for index in (1, 2, 5):
            spoil(file, frame_starts(file)[index] + 70, 10)
    done = cured(path)
    assert types(path) == sorted([f"{n}{i}" for n in "XY" for i in (0, 3, 4, 6)] + ["~"])
    assert len(done.lost) == 4


def test_a_damaged_wal_header_costs_nothing(tmp_path: Path) -> None:
    """The frames below a damaged header get a new one."""
    path = made(tmp_path, lambda lake: [lake.append(lakes.events(t, 2)) for t in "ABC"])
    (file,) = wal_files(path)
    spoil(file, 0, 30)
    done = cured(path)
    assert done.lost == []
    assert types(path) == ["A", "A", "B", "B", "C", "C", "~"]


def test_the_torn_end_of_a_dead_writer_is_kept_and_listed(tmp_path: Path) -> None:
    """Repair seals what stands before a torn end and keeps its bytes in cache/cut."""
    path = str(tmp_path / "lake")
    lakes.torn(path)
    done = cured(path)
    assert types(path) == ["WHOLE"] * 3 + ["~"]
    assert any("kept in cache/cut" in line for line in done.lost)
    assert len(os.listdir(Path(path, "cache/cut"))) == 1


@pytest.mark.parametrize("is_foreign", [False, True])
def test_damage_in_the_space_of_a_dead_writer_is_cut(tmp_path: Path, is_foreign: bool) -> None:
    """Also far behind its frames; the file of another machine stays, as its writer may live."""
    path = str(tmp_path / "lake")
    machine = lakes.on_host("elsewhere") if is_foreign else contextlib.nullcontext()
    with machine, lakes.opened(path) as lake:
        for name in "AB":
            lake.append({"type": name})
        killed = damage.copied(path, tmp_path / "killed")
    (file,) = wal_files(killed)
    assert file.read_bytes().endswith(bytes(1_000))
    spoil(file, -1_000, 1)
    done = damage.repaired(killed) if is_foreign else cured(killed)
    assert file.exists() is is_foreign
    assert [line for line in done.lost if "kept in cache/cut" not in line] == []
    assert len(done.lost) == (not is_foreign)
    assert any("still written to" in line for line in done.done) is is_foreign
    assert types(killed) == ["A", "B"] + ["~"] * (not is_foreign)


def test_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    """A damaged WAL that a writer still holds stays where it is: its next append must be kept."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        lake.append(lakes.events("A", 2))
        lake.append(lakes.events("B", 2))
        (file,) = wal_files(path)
        at = frame_starts(file)[0] + 75
        with file.open("r+b") as handle:
            handle.seek(at)
            handle.write(b"\x55" * 8)
        done = damage.repaired(path)
        assert file.exists()
        assert any("still written to" in line for line in done.done)
        lake.append(lakes.events("C", 2))
    cured(path)
    assert types(path) == ["B", "B", "C", "C", "~"]


def test_a_damaged_tag_is_made_anew_or_listed(tmp_path: Path) -> None:
    """A tag whose bytes still name its state is rebuilt; one without a trace is listed."""
    path = made(tmp_path, sealed([{"type": "A"}]))
    with lakelog.open(path) as lake:
        lake.tag("kept", message="a message")
        lake.tag("lost")
        wanted = lake.store.refs.tag("kept").snapshot
    kept = Path(path, "refs/tags/kept.json")
    spoil(kept, kept.read_bytes().index(b"a message"), 4)
    Path(path, "refs/tags/lost.json").write_bytes(b"\0" * 200)
    done = cured(path)
    assert done.lost == ["tag lost: name the state again"]
    with lakelog.open(path) as lake:
        assert [tag.name for tag in lake.store.refs.tags()] == ["kept"]
        assert lake.store.refs.tag("kept").snapshot == wanted


def test_a_damaged_hint_is_thrown_away(tmp_path: Path) -> None:
    """A damaged hint hides nothing, and repair removes it."""
    path = made(tmp_path, sealed([{"type": "A"}]))
    Path(path, "refs/heads/main/hint").write_bytes(b"nonsense")
    assert types(path) == ["A"]
    cured(path)
    assert types(path) == ["A", "~"]


@pytest.mark.parametrize("way", ["spoiled", "missing"])
def test_a_lost_lakelog_json_is_named_and_written_anew(way: str, tmp_path: Path) -> None:
    """Without lakelog.json nothing is made in its place unasked; repair keeps the lake's id."""
    path = made(tmp_path, lambda lake: lake.append({"type": "A"}), rotate_seconds=7)
    with lakelog.open(path) as lake:
        lake_id = lake.store.lake_id
        lake.settle()
        lake.append({"type": "B"})
    file = Path(path, "lakelog.json")
    spoil(file, 20, 30) if way == "spoiled" else file.unlink()
    for create in (True, False):
        with pytest.raises(DamagedLake, match=r"lakelog\.json"):
            lakelog.open(path, create=create)
    done = damage.repaired(path)
    assert done.lost == ["settings in lakelog.json: they are the defaults now"]
    assert types(path) == ["A", "B"]
    with lakelog.open(path) as lake:
        assert lake.store.lake_id == lake_id
        assert lake.verify().problems == ()


def test_an_open_lake_writes_its_lakelog_json_anew(tmp_path: Path) -> None:
    """A lake that is open still knows its id and settings, and loses neither."""
    path = made(tmp_path, sealed([{"type": "A"}]), rotate_seconds=7)
    with lakelog.open(path) as lake:
        Path(path, "lakelog.json").unlink()
        assert lake.repair().lost == []
        lake_id = lake.store.lake_id
    with lakelog.open(path, create=False) as lake:
        assert (lake.store.lake_id, lake.store.settings.rotate_seconds) == (lake_id, 7)


def test_a_move_of_a_lake_that_went_another_way_is_not_fetched(tmp_path: Path) -> None:
    """A copy that was written to since has other moves under the same numbers: they stay there,
    and its events are fetched with its WAL."""
    path = made(tmp_path, sealed([{"type": "A"}]))
    copy = damage.copied(path, tmp_path / "copy")
    sealed([{"type": "HERE"}])(lakelog.open(path))
    sealed([{"type": "THERE"}])(lakelog.open(copy))
    file = move_file(path, head(path)[0].number)
    spoil(file, file.read_bytes().index(b'"author"'), 10)
    done = cured(path, copy)
    (fetched,) = done.fetched
    assert fetched.startswith(f"{path}/wal/main/")
    assert types(path) == ["A", "HERE", "THERE", "~"]


@pytest.mark.usefixtures("long_manifests")
def test_a_state_only_older_moves_need_is_given_up(tmp_path: Path) -> None:
    """A lost manifest of an old move is noted, so that verify and gc go on; going there fails."""
    path = made(tmp_path, sealed(*[[{"type": t}] for t in "ABC"]))
    with lakelog.open(path) as lake:
        old = lake.store.refs.read("main", 2).snapshot
    object_file(path, "manifests", old).write_bytes(b"")
    done = cured(path)
    assert len(done.lost) == 1
    with lakelog.open(path) as lake:
        assert lake.verify().lost == (f"manifests/{old}",)
        with pytest.raises(DamagedManifest):
            lake.rollback("main@2")
        assert lake.count() == 4


def test_every_branch_is_repaired(tmp_path: Path) -> None:
    """Damage on a branch is mended there; a deleted branch and its moves stay as they are."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        lake.append({"type": "A"})
        with lake.branch("other") as other:
            other.append([{"type": "B"}])
            other.settle()
            other.append([{"type": "C"}])
        with lake.branch("gone") as gone:
            gone.append([{"type": "D"}])
        with lakelog.open(path, branch="gone") as gone:
            lakelog.history.delete_branch(gone.store, "gone", gone.settle)
    for branch in ("other", "gone"):
        (newest,) = sorted(Path(path, f"refs/heads/{branch}").glob("0*.json"))[-1:]
        newest.write_bytes(b"")
    (file,) = Path(path, "wal/other").iterdir()
    spoil(file, 0, 30)
    done = damage.repaired(path)
    assert done.after is not None
    assert done.after.problems == ()
    with lakelog.open(path, branch="other") as lake:
        assert lake.count() == 3


def test_what_is_set_aside_keeps_its_bytes(tmp_path: Path) -> None:
    """Every file set aside is in cache/damaged with the very bytes that were found."""
    path = made(tmp_path, sealed([{"type": "A"}]))
    file = object_file(path, "segments", head(path)[2][0].key)
    spoil(file)
    found = file.read_bytes()
    done = cured(path)
    assert [Path(path, name).read_bytes() for name in done.aside] == [found]


def test_the_note_of_lost_objects_is_a_document(tmp_path: Path) -> None:
    """gc/lost.json names what was given up; what comes back later counts as there."""
    path = made(tmp_path, sealed([{"type": "A"}], [{"type": "B"}]))
    key = head(path)[2][0].key
    file = object_file(path, "segments", key)
    before = spoil(file)
    cured(path)
    note = document.decode(disk.read(f"{path}/gc/lost.json"))
    assert list(note["names"]) == [f"segments/{key}"]
    file.write_bytes(before)
    with lakelog.open(path) as lake:
        assert lake.verify().lost == ()
