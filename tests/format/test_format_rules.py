"""The rules of FORMAT.md, sections 9 to 11: how states follow, what holds, finding the head."""

from __future__ import annotations

import fcntl
import itertools
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import lakelog
from lakelog import document
from lakelog.disk import LockFile
from lakelog.entries.entry import Record
from lakelog.errors import DamagedRef, UnknownRef
from lakelog.maintain.seal import Sealer
from lakelog.moves.publication import Change, publish
from lakelog.refs import Refs
from lakelog.wal.tail import Tail
from tests.support import damage, lakes, seam, second_reader, statements

pytestmark = pytest.mark.damaged


def watched(monkeypatch: pytest.MonkeyPatch) -> statements.Trace:
    """Note what the disk is asked to do from here on."""
    trace = statements.Trace()
    seam.install(monkeypatch, trace)
    return trace


def snapshot_of(path: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a lake with its inode and bytes."""
    files = (p for p in path.rglob("*") if p.is_file())
    return {p.relative_to(path).as_posix(): (p.stat().st_ino, p.read_bytes()) for p in files}


# --- 9. commit ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("long_manifests")
def test_what_must_be_whole_is_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F9.1: WALs, objects, moves and tags are written aside, synced, linked, their names synced."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        trace = watched(monkeypatch)
        lake.append({"type": "A", "id": "a"})
        lake.tag("v1")
        lake.store.change_settings(lakelog.Settings(threads=1))
    linked = [p for p in trace.paths("link") if ".tmp-" not in p]
    roots = {p.removeprefix(f"{tmp_path}/lake/").split("/")[0] for p in linked}
    assert roots == {"wal", "segments", "ids", "manifests", "refs", "gc"}
    for path in linked:
        steps = [name for name, p in trace.steps if p == path]
        assert steps[:3] == ["write_all", "sync_file", "link"]
        after = trace.steps[trace.first("link", path) :]
        assert ("sync_dir", os.path.dirname(path)) in after
    renamed = {os.path.basename(p) for p in trace.paths("rename")}
    assert renamed == {"hint", "lakelog.json"}


def test_an_append_is_one_write_and_one_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F9.2: an append writes one frame and syncs it; the first one also syncs the directory."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        trace = watched(monkeypatch)
        lake.append({"type": "A"})
        first, trace.steps = trace.steps, []
        lake.append({"type": "B"})
        assert [name for name, _ in trace.steps] == ["write_all", "sync_file"]
        assert trace.steps[0][1] == trace.steps[1][1]
    assert ("sync_dir", f"{tmp_path}/lake/wal/main") in first


@pytest.mark.usefixtures("long_manifests")
def test_a_publish_moves_the_pointer_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F9.3: segments, ids and pages, then the manifest, then the move, then its directory."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        filler = tuple(Record("artifact", f"a{i}", {}) for i in range(16))
        publish(lake.store, "main", lambda *_: Change("ingest", entries=filler))
        lake.append({"type": "A", "id": "a"})
        trace = watched(monkeypatch)
        lake.sealer().seal()
        steps = trace.steps[:]
    state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    page = trace.first("link", state.pages[0].digest)
    order = [trace.first("link", part) for part in ("/segments/", state.digest, "/refs/heads/")]
    assert order == sorted(order)
    assert trace.first("link", "/ids/") < order[1]
    assert page < order[1]
    after = [(n, p) for n, p in steps[order[2] :] if not p.endswith(("hint", ".jsonl"))]
    assert [name for name, _ in after if name in ("write_all", "link", "sync_file")] == ["link"]
    assert ("sync_dir", f"{tmp_path}/lake/refs/heads/main") in after


def test_moves_are_synced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F9.3, F9.6: the directory of moves is synced before a move is linked and before a WAL file is
    removed, unless this process has synced it since the move before was there."""
    folder = f"{tmp_path}/lake/refs/heads/main"
    with lakes.opened(str(tmp_path / "lake")) as a, lakes.opened(str(tmp_path / "lake")) as b:
        a.append({"type": "A"})
        a.tag("v1")
        a.append({"type": "B"})
        trace = watched(monkeypatch)
        a.rollback("v1")
        steps = [(name, path) for name, path in trace.steps if name in ("link", "sync_dir")]
        moved = [place for place, (name, path) in enumerate(steps) if "/refs/heads/" in path]
        assert [steps[place][0] for place in moved] == ["link", "sync_dir"] * 2
        b.append({"type": "C"})
        trace.steps.clear()
        b.settle()
        steps = [name for name, path in trace.steps if folder in path]
        assert steps[0] == "sync_dir"
        assert steps.index("link") > 0
        b.writer().close()
        trace.steps.clear()
        lakelog.wal.trimming.trim(a.store, "main", Tail(a.store.paths, a.store.refs, "main"))
        names = [name for name, path in trace.steps if folder in path or "/wal/" in path]
        assert names == ["sync_dir", "unlink"]


def test_a_lost_race_is_rebased(tmp_path: Path) -> None:
    """F9.4: of two publishers one links; the other tests its change anew and takes the next."""
    with lakes.opened(str(tmp_path / "lake")) as a, lakes.opened(str(tmp_path / "lake")) as b:
        a.append([{"type": "A", "id": "a"}])
        asked = []

        def plan(head: Any, state: Any) -> Change:
            asked.append(head.move.number)
            if len(asked) == 1:
                b.settle()
            return Change("snapshot")

        done = publish(a.store, "main", plan)
        assert done is not None
        assert asked == [1, 2]
        assert done.move.number == 3
        assert a.sealer().seal() is None
        assert a.count() == 1


def test_a_sealer_that_lost_makes_its_segment_anew(tmp_path: Path) -> None:
    """F9.4: a sealer whose key came meanwhile in another's id run drops the event."""
    with lakes.opened(str(tmp_path / "lake")) as a, lakes.opened(str(tmp_path / "lake")) as b:
        a.append([{"type": "A", "id": "same"}])
        files = a.sealer()._tail.scan()
        b.append([{"type": "B", "id": "same"}, {"type": "C"}])
        sealer = a.sealer()
        prepare = Sealer._prepare

        def raced(self: Sealer, head: Any, state: Any) -> Any:
            with mock.patch.object(sealer._tail, "scan", return_value=files):
                made = prepare(self, head, state)
            if not raced.done:
                raced.done = True
                b.settle()
            return made

        raced.done = False
        with mock.patch.object(Sealer, "_prepare", raced):
            sealer.seal()
        assert a.count() == 2
        assert len(second_reader.rows(a.path)) == 2


def test_a_sealer_leaves_what_another_sealed_and_trimmed(tmp_path: Path) -> None:
    """F9.4, F12.4: frames sealed and trimmed meanwhile are not published a second time, though
    their writer, idle in between, has a new file; as it lives, its watermark stays (F7.6)."""
    path = str(tmp_path / "lake")
    with lakes.opened(path, rotate_events=1) as a, lakes.opened(path) as b:
        a.append({"type": "A"})
        prepare, raced = Sealer._prepare, []

        def late(self: Sealer, head: Any, state: Any) -> Any:
            made = prepare(self, head, state)
            if not raced:
                raced.append(head)
                b.settle()
                publish(b.store, "main", lambda *_: Change("snapshot"))
                assert b.store.refs.head("main").move.wal == {a.writer().name: 0}
                a.append({"type": "B"})
            return made

        with mock.patch.object(Sealer, "_prepare", late):
            lakes.opened(path).sealer().seal()
        assert sorted(row["type"] for row in second_reader.rows(path)) == ["A", "B"]
        assert b.count() == 2


def test_a_failed_sync_poisons_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F9.5: after a failed sync the same frame goes into the next file; the old one is left."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        lake.append({"type": "A"})
        with lakes.failing("sync_file", 1):
            lake.append({"type": "B"})
        trace = watched(monkeypatch)
        lake.append({"type": "C"})
        first, second = sorted((tmp_path / "lake/wal/main").iterdir())
        assert set(trace.paths("write_all")) <= {"", str(second)}
        frames = [statements.parse_wal(p.read_bytes()).frames for p in (first, second)]
        assert frames[0][1]["text"] == frames[1][0]["text"]
        same = ("sequence", "bytes", "crc", "position", "ingested_at")
        assert all(frames[0][1][k] == frames[1][0][k] for k in same)
        assert lake.count() == 3


def test_a_wal_goes_only_when_it_is_sealed_and_finished(tmp_path: Path) -> None:
    """F9.6: a WAL stays while its writer holds it, or anything in it is not sealed; never cut."""
    folder = tmp_path / "lake/wal/main"
    with lakes.opened(str(tmp_path / "lake")) as a, lakes.opened(str(tmp_path / "lake")) as b:
        a.append({"type": "A"})
        (file,) = folder.iterdir()
        size = file.stat().st_size
        b.settle()
        assert file.stat().st_size == size
        a.append({"type": "B"})
        a.close()
        b.sealer()._tail.scan()
        lakelog.wal.trimming.trim(b.store, "main", Tail(b.store.paths, b.store.refs, "main"))
        assert file.exists()
        b.settle()
        assert not file.exists()
        assert b.count() == 2


def test_a_watermark_goes_after_the_directory_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F9.7, F7.6: a watermark is left out once no file is left, after a sync of the directory."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        with lakes.opened(str(tmp_path / "lake")) as other:
            other.append({"type": "A"})
        lake.settle()
        assert len(lake.store.refs.head("main").move.wal) == 1
        trace = watched(monkeypatch)
        publish(lake.store, "main", lambda *_: Change("snapshot"))
        assert lake.store.refs.head("main").move.wal == {}
        synced = trace.steps.index(("sync_dir", f"{tmp_path}/lake/wal/main"))
        assert synced < trace.first("link", "/refs/heads/")


def test_a_rollback_is_one_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F9.8: a rollback is one move to an old manifest; watermarks stay, the generation rises."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        lake.append({"type": "A"})
        lake.tag("v1")
        lake.append({"type": "B"})
        before = lake.settle().move
        files = snapshot_of(tmp_path / "lake")
        trace = watched(monkeypatch)
        lake.rollback("v1")
        after = lake.store.refs.head("main").move
        assert [os.path.basename(p) for p in trace.paths("link")] == [f"{after.number:012d}.json"]
        assert after.snapshot == lake.store.refs.tag("v1").snapshot
        assert (after.wal, after.generation) == (before.wal, before.generation + 1)
        assert files.keys() <= snapshot_of(tmp_path / "lake").keys()


def test_locks(tmp_path: Path) -> None:
    """F9.9: a writer holds flock on its newest file; queries, seals and publishes take none."""
    with lakes.opened(str(tmp_path / "lake"), rotate_events=1) as lake:
        lake.append({"type": "A"})
        lake.store.change_settings(lakelog.Settings(seal="never"))
        lake.append({"type": "B"})
        lake.append({"type": "C"})
        held = {p.name: LockFile(str(p)).is_held() for p in (tmp_path / "lake/wal/main").iterdir()}
        assert [locked for _, locked in sorted(held.items())] == [False, True]
        with mock.patch.object(fcntl, "flock", side_effect=AssertionError("a lock was asked for")):
            assert lake.count() == 3
            assert lake.sealer().seal() is not None


def test_gc_waits_for_the_grace(tmp_path: Path) -> None:
    """F9.10: an unreferenced object stays for the grace after gc first wrote it down."""
    path = tmp_path / "lake"
    lakes.sealed(str(path))
    with lakelog.open(str(path)) as lake:
        entry = lakes.tiny_segment(lake, "ORPHAN")
        file = Path(lake.store.paths.object("segments", entry.key))
        os.utime(file, (0, 0))
        assert lake.gc().condemned == 1
        assert lake.gc().deleted == 0
        body = document.decode((path / "gc/condemned.json").read_bytes())
        early = {name: when - 25 * 3_600_000_000 for name, when in body["names"].items()}
        (path / "gc/condemned.json").write_bytes(document.encode({"names": early}))
        assert lake.gc().deleted == 1
        assert not file.exists()


def test_gc_deletes_nothing_while_there_is_a_lease(tmp_path: Path) -> None:
    """F9.11: a file `gc/push-*` holds gc off for an hour; `gc/deleting` exists meanwhile."""
    path = tmp_path / "lake"
    lakes.sealed(str(path))
    lease, seen = path / "gc/push-0123", list[list[str]]()
    lease.touch()
    with lakelog.open(str(path)) as lake:
        lake.store.change_settings(lakelog.Settings(gc_grace_hours=0))
        entry = lakes.tiny_segment(lake, "ORPHAN")
        file = Path(lake.store.paths.object("segments", entry.key))
        assert lake.gc().deleted == 0
        assert file.exists()
        os.utime(lease, (0, 0))
        (path / "gc/deleting").touch()  # left by a run that was killed
        lake.gc(progress=lambda *_: seen.append(sorted(os.listdir(path / "gc"))))
        assert not file.exists()
    assert "deleting" in seen[0]
    assert "push-0123" not in seen[0]
    assert not (path / "gc/deleting").exists()


# --- 10. invariants -----------------------------------------------------------------------------


def test_invariants_of_states() -> None:
    """F10.1, F10.2: whatever a kept move or tag names is there; live seq ranges do not overlap."""
    for lake in map(lakes.at_rest, [damage.build, *lakes.ALL.values()]):
        names = [p.name for p in (lake / "refs/heads").iterdir()]
        kept = [m for name in names for m in statements.moves(lake, name)[-20:]]
        tags = [statements.parse_document(p.read_bytes()) for p in (lake / "refs/tags").iterdir()]
        for digest in {ref["snapshot"] for ref in (*kept, *tags)}:
            state = statements.manifest(lake, digest)
            for run in state["ids"]:
                assert (lake / f"ids/{run['digest'][:2]}/{run['digest']}.ids").exists()
            entries = [e for e in second_reader_entries(lake, state) if e["kind"] == "events"]
            for entry in entries:
                assert (lake / f"segments/{entry['key'][:2]}/{entry['key']}.parquet").exists()
            spans = sorted(entry["seq"] for entry in entries)
            assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))
            assert all(span[1] < state["next_seq"] for span in spans)


def second_reader_entries(lake: Path, state: dict[str, Any]) -> list[dict[str, Any]]:
    """The live segment entries of any manifest."""
    parts = [statements.manifest(lake, page["digest"])["entries"] for page in state["pages"]]
    live: dict[str, dict[str, Any]] = {}
    for entry in itertools.chain(*parts, state["tail"]):
        if entry.get("add") == "segment":
            live[entry["key"]] = entry
        elif entry.get("del") == "segment":
            live.pop(entry["key"], None)
    return list(live.values())


def test_an_acknowledged_event_is_somewhere(tmp_path: Path) -> None:
    """F10.3: at every moment an acknowledged event is in a frame above the watermark, or sealed."""
    path = str(tmp_path / "lake")
    with lakes.opened(path, rotate_events=3) as a, lakes.opened(path) as b:
        for i in range(12):
            a.append({"type": "A", "data": i})
            (b.sealer().seal if i % 3 == 1 else b.settle if i % 5 == 4 else b.count)()
            found = sorted(int(row["data"]) for row in second_reader.rows(path))
            assert found == list(range(i + 1))


def test_nothing_else_changes(tmp_path: Path) -> None:
    """F10.4: outside gc and cache only lakelog.json, hints and WALs change; WALs grow."""
    path = tmp_path / "lake"
    damage.build(str(path))
    before = snapshot_of(path)
    with lakelog.open(str(path)) as lake:
        lake.append([{"type": "A", "id": "fresh"}])
        middle = snapshot_of(path)
        lake.append([{"type": "B"}])
        lake.settle()
        lake.compact()
        lake.rollback("v1")
        lake.undo(force=True)
        lake.gc()
        after = snapshot_of(path)
    loose = ("gc/", "cache/", "refs/heads/main/hint", "lakelog.json")
    for old, new in ((before, middle), (middle, after)):
        for name, (inode, data) in old.items():
            if name.startswith(loose) or name not in new:
                assert name.startswith((*loose, "wal/")), name
            elif name.startswith("wal/"):
                assert new[name][1].startswith(data)
            else:
                assert new[name] == (inode, data), name


# --- 11. the head -------------------------------------------------------------------------------


def test_finding_the_head(tmp_path: Path) -> None:
    """F11.1, F11.2, F11.3: the highest number is the head, from any hint; one above is damage."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        for _ in range(11):
            publish(lake.store, "main", lambda *_: Change("snapshot"))
        hint = Path(lake.store.paths.hint("main"))
        for number in range(1, 13):
            hint.write_bytes(document.encode({"branch": "main", "number": number}))
            assert Refs(lake.store.volume).head("main").move.number == 12
        hint.unlink()
        assert Refs(lake.store.volume).head("main").move.number == 12
        assert second_reader.find_head(f"{path}/refs/heads/main")["number"] == 12
        hint.write_bytes(document.encode({"branch": "main", "number": 13}))
        with pytest.raises(DamagedRef, match="missing"):
            Refs(lake.store.volume).head("main")


def test_branches_that_are_not_there(tmp_path: Path) -> None:
    """F11.4: a branch without moves, or whose newest move is delete, is not there."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        with lake.branch("gone") as gone:
            lakelog.history.delete_branch(lake.store, "gone", gone.settle)
        os.mkdir(tmp_path / "lake/refs/heads/half")
        assert lake.store.refs.branches() == ["main"]
        for name in ("gone", "half", "never"):
            with pytest.raises(UnknownRef):
                Refs(lake.store.volume).head(name)
