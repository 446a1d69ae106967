"""Repair when more than one thing is gone: a page with its parents, a file in its copy too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import lakelog
from lakelog.disk import disk
from lakelog.history import thinning
from lakelog.history import window as history_window
from lakelog.moves.publication import Change, publish
from tests.support import damage, lakes
from tests.support.publishing import publish_ids
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
NAMES = [f"T{i:02d}" for i in range(40)]


def mended(path: str) -> damage.RepairOutcome:
    """Repair a lake that cannot go back to its first move any more; check that it goes on."""
    done = damage.repaired(path)
    assert done.after is not None
    assert done.after.problems == ()
    with lakelog.open(path, create=False) as lake:
        before = lake.count()
        lake.append({"type": "~"})
        lake.settle()
        assert lake.count() == before + 1
        assert lake.verify().problems == ()
    return done


def one_by_one(lake: lakelog.Lake) -> None:
    """Publish 40 segments of one event each: two pages and a tail."""
    for name in NAMES:
        entry = lakes.tiny_segment(lake, name)
        publish(lake.store, "main", lambda *_, entry=entry: Change("seal", entries=(entry,)))


def test_the_first_page_is_made_anew_beside_later_ones(tmp_path: Path) -> None:
    """A page comes back from the states before it, and later pages that can be read are read:
    what came at once is in no tail."""

    def build(lake: lakelog.Lake) -> None:
        one_by_one(lake)
        entries = tuple(lakes.tiny_segment(lake, f"U{i:02d}") for i in range(40))
        publish(lake.store, "main", lambda *_: Change("seal", entries=entries))

    path = made(tmp_path, build)
    _, state, entries = head(path)
    assert len(state.pages) == 3
    object_file(path, "manifests", state.pages[0].digest).write_bytes(b"")
    done = cured(path)
    assert any("a damaged page rebuilt, nothing lost" in line for line in done.done)
    assert types(path) == [*NAMES, *(f"U{i:02d}" for i in range(40)), "~"]
    assert [e.seq for e in head(path)[2]][:80] == [e.seq for e in entries]


@pytest.mark.usefixtures("long_manifests")
def test_a_page_without_the_states_before_it_comes_back_from_segments(tmp_path: Path) -> None:
    """If nothing proves what a page held, its events come from the segments themselves."""
    path = made(tmp_path, sealed(*[[{"type": name, "id": name}] for name in NAMES[:20]]))
    _, state, _ = head(path)
    with lakelog.open(path) as lake:
        moves = [lake.store.refs.read("main", n) for n in lake.store.refs.numbers("main")]
        states = [lake.store.manifests.load(move.snapshot) for move in moves]
    before = {found.digest for found in states if not found.pages}
    for digest in before | {state.pages[0].digest}:
        object_file(path, "manifests", digest).write_bytes(b"")
    done = mended(path)
    assert types(path) == [*NAMES[:20], "~"]
    assert any("20 later events taken back" in line for line in done.done)
    with lakelog.open(path) as lake:
        lake.append({"type": "AGAIN", "id": NAMES[0]})
        assert lake.count() == 21


def test_a_page_that_cannot_be_proved_is_not_guessed(tmp_path: Path) -> None:
    """Entries that stood in no tail are in their page alone: the state before it is taken, and
    what published them is named, to be done again."""

    def build(lake: lakelog.Lake) -> None:
        lake.append({"type": "A"})
        lake.settle()
        entries = tuple(lakes.tiny_segment(lake, name) for name in NAMES)
        publish(lake.store, "main", lambda *_: Change("ingest", "f.jsonl", entries=entries))

    path = made(tmp_path, build)
    object_file(path, "manifests", head(path)[1].pages[0].digest).write_bytes(b"")
    done = cured(path)
    assert types(path) == ["A", "~"]
    assert "branch main: what move 3 did (ingest f.jsonl): do it again" in done.lost


@pytest.mark.usefixtures("long_manifests")
def test_a_lost_state_of_an_ingest_is_named_and_done_again(tmp_path: Path) -> None:
    """Files taken in with a state that is gone are named; taking them in again brings each row
    once."""
    file = tmp_path / "f.jsonl"
    file.write_text("".join(json.dumps({"type": "I", "n": n}) + "\n" for n in range(50)))

    def build(lake: lakelog.Lake) -> None:
        lake.append({"type": "A"})
        lake.settle()
        lake.ingest(str(file))

    path = made(tmp_path, build)
    object_file(path, "manifests", head(path)[0].snapshot).write_bytes(b"")
    done = damage.repaired(path)
    assert "branch main: what move 3 did (ingest f.jsonl): do it again" in done.lost
    with lakelog.open(path) as lake:
        assert (lake.count(), lake.ingest(str(file)).events, lake.count()) == (1, 50, 51)


@pytest.mark.usefixtures("long_manifests")
def test_without_any_state_everything_comes_back_from_segments(tmp_path: Path) -> None:
    """If no manifest at all can be read, what was sealed is taken back in order."""
    path = made(tmp_path, sealed(*[[{"type": t, "id": t}] for t in "ABC"]))
    for file in Path(path, "manifests").rglob("*.zst"):
        file.write_bytes(b"")
    done = mended(path)
    assert types(path) == ["A", "B", "C", "~"]
    assert any("3 later events taken back" in line for line in done.done)


@pytest.mark.usefixtures("long_manifests")
def test_commits_lost_with_state_and_segment_are_listed(tmp_path: Path) -> None:
    """Where the state and a segment sealed since are both gone, the group commits are listed."""
    path = made(tmp_path, sealed(*[[{"type": t}] for t in "ABC"]))
    move, state, entries = head(path)
    for digest in (move.snapshot, state.parent):
        object_file(path, "manifests", digest).write_bytes(b"")
    object_file(path, "segments", entries[-1].key).write_bytes(b"")
    for file in wal_files(path):
        file.unlink()
    done = cured(path)
    assert types(path) == ["A", "B", "~"]
    assert any("group commits 2 to 2 of writer" in line for line in done.lost)


def lost_race(path: str, twice: bool) -> None:
    """Make a lake in which sealings that lost a race left segments of frames sealed by another."""
    with lakes.opened(path) as lake, lakes.opened(path) as other:
        real, turns = disk.link, list[str]()

        def link(source: str, target: str) -> None:
            if "/refs/heads/" in target and not turns:
                turns.append(target)
                if not twice:
                    lake.append({"type": "B"})
                other.settle()
            real(source, target)

        lake.append({"type": "A"})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(disk, "link", link)
            lake.settle()
        lake.append({"type": "C"})
        lake.settle()


@pytest.mark.parametrize("twice", [True, False])
def test_of_two_sealings_of_the_same_frames_one_is_taken_back(tmp_path: Path, twice: bool) -> None:
    """A race for the same frames leaves two segments of them: the larger counts, and once."""
    path = str(tmp_path / "lake")
    lost_race(path, twice)
    assert len(list(Path(path, "segments").rglob("*.parquet"))) == 3
    for file in Path(path, "manifests").rglob("*.zst"):
        file.write_bytes(b"")
    mended(path)
    assert types(path) == (["A", "C", "~"] if twice else ["A", "B", "C", "~"])


def test_folded_moves_are_made_again_from_their_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file of packed moves costs nothing while the moves it folds are still there."""
    path = made(tmp_path, sealed(*[[{"type": t}] for t in "ABCDEFGH"]))
    file = Path(path, "refs/heads/main/packed-000000000001-000000000004.jsonl.zst")
    file.write_bytes(b"cut short, and nothing was unlinked yet")
    assert damage.checked(path).problems
    done = cured(path)
    assert done.lost == []
    assert types(path) == [*"ABCDEFGH", "~"]
    for number in range(1, 5):
        move_file(path, number).unlink()
    with lakelog.open(path) as lake:
        assert [e.move.number for e in lake.log()][-4:] == [4, 3, 2, 1]


def test_an_id_run_of_a_branch_without_events_is_made_anew(tmp_path: Path) -> None:
    """Where no event is left to make keys from, those that can still be read are kept."""
    path = made(tmp_path, lambda lake: publish_ids(lake, ["1", "2"]))
    (run,) = head(path)[1].ids
    spoil(object_file(path, "ids", run.digest), 0, 8)
    done = cured(path)
    assert any("1 id run(s) rebuilt" in line for line in done.done)
    with lakelog.open(path) as lake:
        before = lake.count()
        lake.append([{"type": "X", "source": "s", "id": i} for i in ("1", "2", "3")])
        assert lake.count() == before + 1


def test_a_lost_id_run_beside_a_lost_segment(tmp_path: Path) -> None:
    """A segment and an id run that are both gone are both mended; no event stays shut out."""
    path = made(tmp_path, sealed([{"type": "A", "id": "a"}], [{"type": "B", "id": "b"}]))
    _, state, entries = head(path)
    spoil(object_file(path, "segments", entries[1].key), 4, 3)
    object_file(path, "ids", state.ids[0].digest).unlink()
    forget_wals(path)
    cured(path)
    with lakelog.open(path) as lake:
        lake.append([{"type": "A2", "id": "a"}, {"type": "B2", "id": "b"}])
    assert types(path) == ["A", "B2", "~"]


def test_a_living_writer_s_file_with_a_damaged_header_is_left_alone(tmp_path: Path) -> None:
    """A header is not written anew under a living writer; once it is closed, nothing is lost."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        lake.append({"type": "A"})
        (file,) = wal_files(path)
        with file.open("r+b") as handle:
            handle.write(b"\x55" * 30)
        done = damage.repaired(path)
        assert any("still written to" in line for line in done.done)
        lake.append({"type": "B"})
    cured(path)
    assert types(path) == ["A", "B", "~"]


def test_a_branch_that_was_never_finished_is_passed_by(tmp_path: Path) -> None:
    """A folder of a branch that never got its first move needs no repair, the others get theirs."""
    path = made(tmp_path, sealed([{"type": "A"}], [{"type": "B"}]))
    Path(path, "refs/heads/unborn").mkdir()
    move_file(path, 3).write_bytes(b"")
    cured(path)
    assert types(path) == ["A", "B", "~"]


# --- copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["segments", "manifests", "ids", "tags", "move", "wal"])
def test_a_copy_that_is_damaged_too_is_not_believed(kind: str, tmp_path: Path) -> None:
    """A copy with the same file damaged otherwise, or without it, brings nothing: repair does
    what it can without."""
    path = str(tmp_path / "lake")
    damage.build(path)
    name = [n for n in damage.files(path) if damage.kind_of(n) == kind][-1]
    copy = damage.copied(path, tmp_path / "copy")
    for at, root in ((30, path), (50, copy)):
        spoil(Path(root, name), at, 12)
    none = damage.copied(path, tmp_path / "none")
    shutil.rmtree(copy if kind == "tags" else f"{tmp_path}/away", ignore_errors=True)
    for root, source in ((path, copy), (none, str(tmp_path / "nowhere"))):
        done = damage.repaired(root, source)
        assert done.fetched == []
        assert done.after is not None
        assert done.after.problems == ()
        assert done.lost or done.done


def test_a_damaged_wal_is_not_replaced_by_one_with_a_damaged_header(tmp_path: Path) -> None:
    """Of a WAL that is damaged here and in the copy, what can be read here is kept."""
    path = made(tmp_path, lambda lake: [lake.append(lakes.events(t, 2)) for t in "ABC"])
    copy = damage.copied(path, tmp_path / "copy")
    (file,) = wal_files(path)
    spoil(file, frame_starts(file)[1] + 70, 10)
    spoil(wal_files(copy)[0], 0, 30)
    done = cured(path, copy)
    assert done.fetched == []
    assert types(path) == ["A", "A", "C", "C", "~"]


def test_packed_moves_of_a_lake_that_went_another_way_are_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed moves that do not lead on to the moves here stay in the copy; here they are lost."""
    monkeypatch.setattr(thinning, "UNPACKED", 2)
    monkeypatch.setattr(history_window, "lake_time", lambda store: disk.now_us() + 1_000_000)
    path = made(tmp_path, lambda lake: lake.append({"type": "A"}), history_days=0)
    copy = damage.copied(path, tmp_path / "copy")
    for root in (path, copy):
        with lakelog.open(root) as lake:
            for number in range(6):
                lake.snapshot(f"{number} of {root}")
            assert lake.gc().packed
    (file,) = Path(path, "refs/heads/main").glob("packed-*")
    file.unlink()
    done = cured(path, copy)
    assert done.fetched == []
    assert any("of its log" in line for line in done.lost)
    assert types(path) == ["A", "~"]


@pytest.mark.parametrize("way", ["damaged", "another document", "missing"])
def test_lakelog_json_of_a_copy_is_read_before_it_is_believed(tmp_path: Path, way: str) -> None:
    """If the copy's lakelog.json is no better, the WALs tell the id, and the settings are lost."""
    path = made(tmp_path, lambda lake: lake.append({"type": "A"}), rotate_seconds=7)
    with lakelog.open(path) as lake:
        lake_id = lake.store.lake_id
        lake.tag("v1")
        lake.append({"type": "B"})
    Path(path, "wal/main", "notes.txt").write_text("no WAL")
    copy = damage.copied(path, tmp_path / "copy")
    spoil(Path(path, "lakelog.json"), 20, 30)
    if way == "damaged":
        spoil(Path(copy, "lakelog.json"), 40, 30)
    elif way == "missing":
        Path(copy, "lakelog.json").unlink()
    else:
        shutil.copy(Path(copy, "refs/tags/v1.json"), Path(copy, "lakelog.json"))
    done = damage.repaired(path, copy)
    assert done.lost == ["settings in lakelog.json: they are the defaults now"]
    with lakelog.open(path) as lake:
        assert lake.store.lake_id == lake_id
        assert lake.count() == 2


def test_without_a_wal_a_lost_lakelog_json_gets_a_new_id(tmp_path: Path) -> None:
    """Where nothing tells the lake's id any more it gets a new one, and goes on."""
    path = made(tmp_path, lambda lake: lake.snapshot("one"))
    Path(path, "lakelog.json").unlink()
    assert damage.repaired(path).lost == ["settings in lakelog.json: they are the defaults now"]
    with lakelog.open(path) as lake:
        assert len(lake.store.lake_id) == 32
        lake.append({"type": "A"})
        lake.settle()
        assert (lake.count(), lake.verify().problems) == (1, ())
