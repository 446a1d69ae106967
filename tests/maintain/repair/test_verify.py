"""What verify names: damage that only the whole lake shows, for each file looks right by itself."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard

import lakelog
from lakelog.disk import disk
from lakelog.entries.entry import Record, Removal
from lakelog.errors import Damaged, DamagedRef, DamagedWal
from lakelog.history import thinning
from lakelog.maintain.repair import verify
from lakelog.moves.publication import Change, publish
from lakelog.wal import frames as wal
from tests.support import damage, lakes

MakeLake = Callable[..., lakelog.Lake]
pytestmark = pytest.mark.damaged


def said(lake: lakelog.Lake) -> list[tuple[str, str, str]]:
    """What verify says of a lake: (file, reason, kind) each."""
    found = damage.checked(lake.path).problems
    return [(os.path.basename(p.path), p.reason, p.kind) for p in found]


def wal_file(lake: lakelog.Lake) -> Path:
    """The only WAL file of a lake."""
    (file,) = Path(lake.store.paths.wal_dir("main")).iterdir()
    return file


def lie(lake: lakelog.Lake) -> Path:
    """Put in a WAL whose only frame has right sums, and two lines where its header says one."""
    name = "ab" * 16
    header = wal.Header(lake.store.lake_id, "main", name, 0, 0, (), os.uname().nodename, 0, 1)
    lines = [b'{"type":"A"}\n{"type":"B"}']
    frame = wal.encode_frame(b"\n".join(lines), len(lines), 0, 0, 0, 1, zstandard.ZstdCompressor())
    file = Path(lake.store.paths.wal("main", name, 0))
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(wal.Header.encode(header) + frame)
    return file


def test_totals_that_are_not_the_sums_are_named(lake: lakelog.Lake) -> None:
    """A state that counts events it does not hold is named, though every file is whole."""
    lake.append([{"type": "A"}, {"type": "B"}])
    lake.settle()
    never = lakes.tiny_segment(lake, "X").tombstone()
    head = publish(lake.store, "main", lambda *_: Change("ingest", entries=(never,)))
    assert head is not None
    ((name, reason, _),) = said(lake)
    assert name.startswith(head.move.snapshot)
    assert reason == "its totals are not the sums of its segments"


def test_a_page_that_goes_while_verify_reads_is_named(make_lake: MakeLake) -> None:
    """A page removed after its bytes were read is named, and verify goes on to the end."""
    lake = make_lake()
    entries = tuple(Record("artifact", f"a{i}", {}) for i in range(20))
    publish(lake.store, "main", lambda *_: Change("ingest", entries=entries))
    state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    page = Path(lake.store.paths.object("manifests", state.pages[0].digest))
    move = Path(lake.store.paths.move("main", 1)).stat().st_size

    def progress(done: int, total: int) -> None:
        if total - done <= 2 * move and page.exists():  # the objects stand before the moves
            page.unlink()

    found = lake.verify(progress=progress).problems
    assert [(p.path, p.reason) for p in found] == [(str(page), "the manifest or page is missing")]


def test_a_branch_without_moves_is_named(lake: lakelog.Lake) -> None:
    """If the moves of the only branch are gone with their hint, that is damage, not a new lake."""
    for file in Path(lake.store.paths.head_dir("main")).iterdir():
        file.unlink()
    assert said(lake) == [("main", "the branch has no moves", "damage")]


def test_a_move_of_a_lake_that_went_another_way_is_named(make_lake: MakeLake, home: Path) -> None:
    """A whole move under the right number, but of a copy that went on, breaks the chain."""
    lake = make_lake()
    lake.append({"type": "A"})
    lake.settle()
    lake.snapshot("before")
    copy = damage.copied(lake.path, home / "copy")
    with lakelog.open(copy) as other:
        other.snapshot("there")
        other.snapshot("there again")
        taken = Path(other.store.paths.move("main", 5))
        lake.snapshot("here")
        lake.snapshot("here again")
        shutil.copy(taken, lake.store.paths.move("main", 5))
    assert said(lake) == [("000000000005.json", "it does not name the move before it", "damage")]


def test_a_strange_file_beside_the_wals_is_named_and_set_aside(lake: lakelog.Lake) -> None:
    """A file that is no WAL hides nothing: it is named, and repair moves it out of the way."""
    lake.append({"type": "A"})
    Path(lake.store.paths.wal_dir("main"), "notes.txt").write_text("text")
    assert said(lake) == [("notes.txt", "not a WAL file's name", "derived")]
    assert lake.verify().intact
    lake.verify().require()
    done = lake.repair()
    assert (len(done.aside), done.lost) == (1, [])
    assert Path(lake.path, done.aside[0]).read_text() == "text"
    assert lake.count() == 1


def test_bytes_after_the_end_of_a_wal_are_named(make_lake: MakeLake) -> None:
    """A finished file that goes on was written to by somebody else."""
    with make_lake() as lake:
        lake.append({"type": "A"})
    with wal_file(lake).open("ab") as file:
        file.write(b"more")
    ((_, reason, kind),) = said(lake)
    assert (reason, kind) == ("there are bytes after its end", "damage")
    with pytest.raises(Damaged, match="after its end"):
        damage.checked(lake.path).require()


def test_a_frame_cut_out_whole_is_named(make_lake: MakeLake) -> None:
    """Frames that are whole, with one missing between them, are not taken for all."""
    with make_lake() as lake:
        for i in range(3):
            lake.append({"type": f"T{i}"})
        (group,) = lake._session.tail("main").scan().values()
        starts = [frame.offset for frame in group[0].frames]
    file = wal_file(lake)
    data = file.read_bytes()
    file.write_bytes(data[: starts[1]] + data[starts[2] :])
    assert "its sequence numbers are not contiguous" in [reason for _, reason, _ in said(lake)]
    with lakelog.open(lake.path) as again, pytest.raises(DamagedWal):
        again.count()


def test_a_file_missing_between_others_is_named(make_lake: MakeLake) -> None:
    """Of four files of a writer the third is gone: the error names the file before the gap."""
    with make_lake(rotate_events=1) as lake:
        for i in range(4):
            lake.append({"type": f"T{i}"})
    files = sorted(Path(lake.store.paths.wal_dir("main")).iterdir())
    files[2].unlink()
    with lakelog.open(lake.path) as again, pytest.raises(DamagedWal) as caught:
        again.count()
    assert caught.value.path == str(files[1])
    assert "frames after 1 are missing" in str(caught.value)
    assert [name for name, _, _ in said(lake)] == [files[1].name]


def test_a_frame_that_does_not_hold_what_it_says_is_named(lake: lakelog.Lake) -> None:
    """A frame whose sums hold but whose header lies is damage for verify and for a query."""
    file = lie(lake)
    ((name, reason, _),) = said(lake)
    assert name == file.name
    assert "does not hold what its header says" in reason
    with pytest.raises(DamagedWal, match="does not hold what its header says"):
        lake.sql("SELECT * FROM events").fetchall()


@pytest.mark.parametrize("way", ["goes on", "stays", "is sealed and trimmed"])
def test_a_frame_half_written_by_a_living_writer(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Verify looks again before it calls a frame torn that somebody may be writing just now."""
    lake = make_lake()
    lake.append({"type": "A"})
    file = wal_file(lake)
    lake.append({"type": "B"})
    both = file.read_bytes()
    half = both.rstrip(b"\0")[:-20]
    looks: list[float] = []

    def put(data: bytes) -> None:
        with file.open("r+b") as handle:
            handle.write(data)
            handle.truncate(len(data))

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if way == "goes on" and len(looks) == 2:
            put(both)
        elif way == "is sealed and trimmed":
            file.rename(f"{lake.path}/away")

    monkeypatch.setattr(verify, "time", SimpleNamespace(sleep=sleep))
    put(half)
    kinds = [p.kind for p in lake.verify().problems]
    assert (kinds, len(looks)) == {
        "goes on": ([], 2),
        "stays": (["torn"], 3),
        "is sealed and trimmed": ([], 1),
    }[way]


def test_packed_moves_under_another_name_are_named(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of packed moves that holds others than its name says is damage, and gc stops at it."""
    monkeypatch.setattr(thinning, "UNPACKED", 2)
    lake = make_lake(history_days=0, gc_grace_hours=0)
    for i in range(6):
        lake.snapshot(str(i))
    time.sleep(0.05)  # file systems stamp files a few milliseconds behind the clock
    assert lake.gc().packed
    (file,) = Path(lake.store.paths.head_dir("main")).glob("packed-*")
    file.rename(file.with_name(file.name.replace("000000000001-", "000000000002-")))
    with lakelog.open(lake.path) as again, pytest.raises(DamagedRef, match="other moves than"):
        again.store.refs.read("main", 2)
    assert "other moves than its name says" in " ".join(reason for _, reason, _ in said(lake))


def test_links_to_nowhere_stop_nothing(make_lake: MakeLake) -> None:
    """A name that is listed but cannot be opened (an editor's lock, or a file just removed) is
    passed over by queries, counts, verify with its progress, and gc."""
    lake = make_lake(gc_grace_hours=0)
    lake.append({"type": "A"})
    Path(lake.path, "refs/.#main").symlink_to("nobody@nowhere.1")
    gone = Path(lake.store.paths.wal("main", "cd" * 16, 0))
    gone.symlink_to("gone")
    temporary = Path(lake.store.paths.gc, f"{disk.TEMPORARY}0")
    temporary.symlink_to("gone")
    seen: list[Any] = []
    assert lake.verify(progress=lambda *args: seen.append(args)).problems == ()
    assert seen[-1][0] <= seen[-1][1]
    with lakelog.open(lake.path) as again:
        assert (again.count(), again.stats().wal_bytes > 0) == (1, True)
        assert again.gc().deleted == 1
    assert not temporary.is_symlink()


def test_segments_of_a_page_that_a_state_removed_may_be_gone(make_lake: MakeLake) -> None:
    """The page still lists them; the states that held them are past the window, and collected."""
    lake, now = make_lake(gc_grace_hours=0, history_days=0), time.time()
    for number in range(20):
        lake.append({"type": "T", "time": now - 86_400 * (20.5 - number), "data": {"n": number}})
        lake.settle()
    lake.retention("17d", apply=True)
    state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    paged = lake.store.manifests.paged_segments(state)
    assert [e.key in paged for e in state.recent if isinstance(e, Removal)] == [True] * 4
    for number in range(101):
        lake.snapshot(f"{number}")
    while lake.gc().deleted:
        pass
    assert said(lake) == []
    assert lake.count() == 16
