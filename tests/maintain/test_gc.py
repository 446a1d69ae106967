"""gc: only what nothing names goes, only after the grace, and nothing where anything is unclear."""

from __future__ import annotations

import dataclasses
import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import document, history
from lakelog.disk import LockFile, disk
from lakelog.errors import GcRefused, LakelogError, UnknownRef
from lakelog.history import thinning
from lakelog.history import window as history_window
from lakelog.maintain import gc as collecting
from lakelog.manifest import manifests
from lakelog.refs import Move
from lakelog.settings import Settings
from lakelog.values import from_micros

MakeLake = Callable[..., lakelog.Lake]
HOUR = 3_600_000_000


def put(lake: lakelog.Lake, *types: str) -> None:
    """Append one event per type, sealed."""
    lake.append([{"type": name} for name in types])
    lake.settle()


def types(lake: Any) -> str:
    """Return the types of all events, sorted, as one word."""
    return "".join(sorted(t for (t,) in lake.sql("SELECT type FROM events").fetchall()))


def orphan(lake: lakelog.Lake, name: str = "0") -> str:
    """Write a manifest that nothing names, as a lost race leaves behind; return its digest."""
    state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    commit = (name * 32)[:32]
    return lake.store.manifests.write(dataclasses.replace(state, commit=commit)).digest


def path_of(lake: lakelog.Lake, digest: str) -> Path:
    """Return where a manifest or page is."""
    return Path(lake.store.paths.object("manifests", digest))


def files(lake: lakelog.Lake) -> dict[str, int]:
    """Return every file of a lake with its size, locks and the condemned list left out."""
    found = {}
    for path in Path(lake.path).rglob("*"):
        if path.is_file() and path.suffix != ".lock" and path.name != "condemned.json":
            found[str(path.relative_to(lake.path))] = path.stat().st_size
    return found


def condemned(lake: lakelog.Lake) -> dict[str, int]:
    """Return what gc holds unreferenced, and since when (us)."""
    body: Any = document.decode(disk.read(lake.store.paths.condemned))
    return dict(body["names"])


def age(lake: lakelog.Lake, *, listed: int = 0, written: int = 0) -> None:
    """Make the condemned list, and the files on it, so many hours older."""
    names = condemned(lake)
    body = {"names": {name: since - listed * HOUR for name, since in names.items()}}
    disk.replace_whole(lake.store.paths.condemned, document.encode(body))
    if written:
        then = time.time() - written * 3600
        for name in names:
            if Path(collecting.path_of(lake.store, name)).exists():
                os.utime(collecting.path_of(lake.store, name), (then, then))


def moves(lake: lakelog.Lake, count: int) -> None:
    """Make so many moves that change no event."""
    for number in range(count):
        lake.snapshot(str(number))


# --- grace ----------------------------------------------------------------------------------------


def test_a_lake_that_was_used_has_no_garbage_in_its_window(lake: lakelog.Lake) -> None:
    """What any move of the window names is kept: nothing is even condemned."""
    for name in "abc":
        put(lake, name)
    lake.tag("v1")
    lake.compact()
    lake.rollback("v1")
    before = files(lake)
    done = lake.gc()
    assert (done.deleted, done.condemned, done.packed, done.names) == (0, 0, 0, ())
    assert files(lake) == before


def test_garbage_waits_for_the_grace_and_goes(lake: lakelog.Lake) -> None:
    """The grace counts from when gc first saw it unreferenced, and from its writing."""
    put(lake, "a")
    digest = orphan(lake)
    size = path_of(lake, digest).stat().st_size
    assert (lake.gc().deleted, lake.gc().condemned) == (0, 1)
    age(lake, listed=23, written=100)
    assert lake.gc().deleted == 0
    age(lake, listed=2)
    told = lake.gc(dry_run=True)
    assert (told.deleted, told.bytes, told.dry_run) == (1, size, True)
    assert path_of(lake, digest).exists()
    done = lake.gc()
    assert (done.deleted, done.bytes, done.condemned) == (1, size, 0)
    assert done.names == (f"manifests/{digest}",)
    assert not path_of(lake, digest).exists()
    assert condemned(lake) == {}


def test_a_young_file_waits_though_long_condemned(lake: lakelog.Lake) -> None:
    """A file written anew under a condemned name gets the whole grace again."""
    orphan(lake)
    lake.gc()
    age(lake, listed=100)
    assert lake.gc().deleted == 0
    age(lake, written=100)
    assert lake.gc().deleted == 1


def test_what_is_named_again_is_taken_off_the_list(lake: lakelog.Lake) -> None:
    """A tag saves what was condemned; losing the tag starts the grace from zero."""
    put(lake, "a")
    digest = orphan(lake)
    lake.gc()
    age(lake, listed=100, written=100)
    tag = dataclasses.replace(lake.tag("v1"), name="saved", snapshot=digest, carried=b"")
    lake.store.refs.link_tag(tag)
    assert (lake.gc().deleted, condemned(lake)) == (0, {})
    history.delete_tag(lake.store, "saved")
    assert (lake.gc().deleted, len(condemned(lake))) == (0, 1)
    assert path_of(lake, digest).exists()


def test_what_is_named_between_looking_and_deleting_stays(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All refs are read again before anything goes: a tag made meanwhile saves its state."""
    put(lake, "a")
    digest = orphan(lake)
    lake.gc()
    age(lake, listed=100, written=100)
    made = lake.tag("v1")
    replace = disk.replace_whole

    def tag_then_replace(path: str, data: bytes, *, sync: bool = True) -> None:
        if path == lake.store.paths.condemned and not (Path(lake.path) / "saved").exists():
            (Path(lake.path) / "saved").touch()
            tag = dataclasses.replace(made, name="saved", snapshot=digest, carried=b"")
            lake.store.refs.link_tag(tag)
        replace(path, data, sync=sync)

    monkeypatch.setattr(disk, "replace_whole", tag_then_replace)
    lake.gc()
    assert lake.at("saved").count() == 1
    (Path(lake.path) / "saved").unlink()


def test_leftover_temporary_files_go_everywhere(lake: lakelog.Lake) -> None:
    """What a crash left half-written is collected from every folder, after the grace."""
    put(lake, "a")
    paths = lake.store.paths
    folders = [paths.root, paths.tags, paths.cache, paths.gc]
    folders += [paths.head_dir("main"), paths.wal_dir("main")]
    folders += [f"{paths.root}/{name}" for name in ("segments/00", "ids/ff", "manifests/7f")]
    for folder in folders:
        disk.make_dirs(folder)
    made = [Path(disk.write_temporary(folder, b"x")) for folder in folders]
    assert (lake.gc().deleted, lake.gc().condemned) == (0, len(made))
    age(lake, listed=25, written=25)
    assert lake.gc().deleted == len(made)
    assert not any(path.exists() for path in made)


def test_references_go_before_what_they_name(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Manifests are deleted first, then id runs, then segments."""
    lake.append([{"type": "A", "id": str(n)} for n in range(3)])
    pending = lake.sealer()
    head = lake.store.refs.head("main")
    state = lake.store.manifests.load(head.move.snapshot)
    work = pending._prepare(head, state)
    disk.finish(work.pending_writes)
    orphan(lake)
    lake.gc()
    age(lake, listed=25, written=25)
    gone: list[str] = []
    unlink = disk.unlink
    monkeypatch.setattr(disk, "unlink", lambda path: (gone.append(path), unlink(path))[1])
    assert lake.gc().deleted == 3
    kinds = [Path(p).relative_to(lake.path).parts[0] for p in gone if ".tmp-" not in p]
    # Between the ends of the announcement; last the segment's filter and word index.
    assert kinds == ["gc", "manifests", "ids", "segments", "cache", "cache", "gc"]
    assert work.entries
    assert lake.count() == 3


# --- window, tags, branches -----------------------------------------------------------------------


@pytest.fixture
def old(make_lake: MakeLake) -> Iterator[lakelog.Lake]:
    """A lake without grace or window: its first states are more than a hundred moves ago."""
    lake = make_lake(gc_grace_hours=0, history_days=0)
    put(lake, "a")
    put(lake, "b")
    lake.tag("v1")
    with lake.branch("dev"):
        lake.compact()
        put(lake, "c")
        lake.compact()
        yield lake


def test_the_newest_hundred_moves_are_kept(old: lakelog.Lake) -> None:
    """However short the history, a hundred moves can be gone back to."""
    assert old.gc().deleted == 0
    moves(old, 101)
    log = old.log()
    old.gc()
    for entry in log[:100]:
        assert old.at(f"@{entry.move.number}").count() == 3
        assert old.at(entry.move.snapshot).count() == 3
    old.rollback(f"@{log[99].move.number}")


def test_states_past_the_window_are_collected(old: lakelog.Lake) -> None:
    """Older states go with what only they named; the log keeps the lines of what users did and of
    the moves before these, without counts."""
    moves(old, 130)
    before = old.log()
    done = old.gc()
    assert done.deleted > 0
    log = old.log()
    gone = [e.move for e in before if e.move not in [e.move for e in log]]
    assert {move.op for move in gone} == {"seal", "compact"}
    assert 2 in {move.number for move in gone}
    assert [e.events for e in log[:100]] == [3] * 100
    assert log[-1].events is None
    with pytest.raises(LakelogError):
        old.at(log[-1].move.snapshot).sql("FROM events")
    with pytest.raises(LakelogError, match="outside the kept history"):
        old.at("@2")
    assert types(old) == "abc"


def test_tags_and_branches_pin_what_they_name(old: lakelog.Lake) -> None:
    """A tag or a branch keeps its state whatever its age; without them it goes."""
    moves(old, 130)
    old.gc()
    assert types(old.at("v1")) == types(old.at("dev")) == "ab"
    segments = sum(name.startswith("segments/") for name in files(old))
    history.delete_tag(old.store, "v1")
    old.gc()
    assert types(old.at("dev")) == "ab"
    assert segments > 2
    assert types(old) == "abc"


def test_a_deleted_branch_pins_nothing_past_the_history(old: lakelog.Lake) -> None:
    """The newest hundred moves of a deleted branch keep their states no longer than its days."""
    with lakelog.open(old.path, branch="dev") as dev:
        put(dev, "d")
        dev.compact()
    kept = old.at("dev").id
    history.delete_branch(old.store, "dev", old.settle)
    segments = sum(name.startswith("segments/") for name in files(old))
    old.gc()
    assert sum(name.startswith("segments/") for name in files(old)) < segments
    assert not path_of(old, kept).exists()
    assert types(old) == "abc"
    assert old.verify().problems == ()
    with old.branch("dev") as again:
        assert types(again) == "abc"


def test_a_deleted_branch_can_be_gone_back_to_in_its_days(make_lake: MakeLake) -> None:
    """Within the days of history the states of a deleted branch stay."""
    lake = make_lake(gc_grace_hours=0)
    with lake.branch("dev") as dev:
        put(dev, "d")
    kept = lake.at("dev").id
    history.delete_branch(lake.store, "dev", lake.settle)
    lake.gc()
    assert types(lake.at(kept)) == "d"


@pytest.mark.thorough
def test_marking_finds_what_reading_every_state_finds(make_lake: MakeLake) -> None:
    """However states share their pages, just what some kept state holds is kept, and no more."""
    lake = make_lake(history_days=0, gc_grace_hours=0)
    store, chance = lake.store, random.Random(14)
    for number in range(160):
        put(lake, f"t{number}")
        if chance.random() < 0.08:
            lake.compact()
        if chance.random() < 0.05:
            lake.tag(f"v{number}")
        if chance.random() < 0.05:
            lake.rollback(f"@{chance.randint(max(1, number - 40), number)}")
    with lake.branch("dev") as dev:
        put(dev, "d")
        dev.compact()
    kept = {tag.snapshot for tag in store.refs.tags()}
    for branch in ("main", "dev"):
        numbers = store.refs.numbers(branch)[-thinning.KEEP_MOVES :]
        kept |= {store.refs.read(branch, n).snapshot for n in numbers}
    wanted = set(kept)
    for digest in kept:
        state = store.manifests.load(digest)
        wanted |= {page.digest for page in state.pages} | {run.digest for run in state.ids}
        wanted |= {entry.key for entry in store.manifests.segments(state)}
    assert {d.hex() for d in collecting.Marker(store, disk.now_us()).live} == wanted
    lake.gc()
    present = {n.split("/")[-1].split(".")[0] for n in files(lake) if n.startswith("segments/")}
    assert present == {d for d in wanted if f"segments/{d[:2]}/{d}.parquet" in files(lake)}
    assert lake.verify().problems == ()


@pytest.mark.usefixtures("long_manifests")
def test_every_page_is_read_once(make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of marking is that of the moves, not of the moves times their pages."""
    lake = make_lake()
    for number in range(60):
        put(lake, str(number))
    read, count = disk.read, dict[str, int]()

    def counting(path: str, *most: int) -> bytes:
        count[path] = count.get(path, 0) + 1
        return read(path, *most)

    monkeypatch.setattr(manifests, "_CACHED", 2)
    monkeypatch.setattr(disk, "read", counting)
    lake.gc(dry_run=True)
    assert {path: n for path, n in count.items() if "/manifests/" in path and n > 1} == {}
    assert sum("/manifests/" in path for path in count) > 60


def test_a_long_history_keeps_all(make_lake: MakeLake) -> None:
    """Within the days of history no state goes, however many moves there are."""
    lake = make_lake(gc_grace_hours=0)
    put(lake, "a")
    lake.compact()
    moves(lake, 120)
    assert (lake.gc().deleted, lake.gc().packed) == (0, 0)
    assert lake.at("@2").count() == 1


def automatic(ops: dict[int, str], newest: int, step: int) -> Iterator[Move]:
    """Yield moves, newest first, one every `step` seconds, of the ops given by number."""
    for number in range(newest, 0, -1):
        op = ops.get(number, "seal")
        time = number * step * 1_000_000
        yield Move(number, "main", "", "", time, "", op, "", f"s{number}", 0)


def kept_at(ops: dict[int, str], newest: int, step: int, now: int, days: int = 30) -> list[int]:
    """Return the numbers of the moves whose states are kept at a time (s)."""
    moves = automatic(ops, newest, step)
    window = thinning.window(Settings(history_days=days), moves, now * 1_000_000)
    return sorted(move.number for move in window)


def test_states_that_nobody_made_thin_out_with_age() -> None:
    """All of the last hour, then one a minute, an hour, a day; what users did, and the state
    before, stays for the days of history."""
    day, step = 86_400, 20
    newest = 12 * day // step
    user = {1_000: "rollback", 20_000: "snapshot", 30_001: "dedupe"}
    kept = kept_at(user, newest, step, 12 * day)
    ages = [12 * day - number * step for number in kept]
    assert {*user, 999, 19_999, 30_000} <= set(kept)
    assert sum(age <= 3_600 for age in ages) == 3_600 // step + 1
    assert abs(sum(3_600 < age <= day for age in ages) - 23 * 60) < 70
    assert abs(sum(day < age <= 7 * day for age in ages) - 6 * 24) < 30
    assert 5 <= sum(age > 7 * day for age in ages) < 5 + 2 + 7
    assert kept_at(user, newest, step, 12 * day, days=0) == kept[-100:]


def test_a_compaction_stands_for_its_minute() -> None:
    """Of the states of a minute the newest compacted one stays: it needs the fewest files."""
    hour = 3_600
    compacted = dict.fromkeys(range(30, 8 * hour, 60), "compact")
    kept = kept_at(compacted, 8 * hour, 1, 8 * hour)
    old = [n for n in kept if n < 6 * hour]
    assert set(old) == {n for n in compacted if n < 6 * hour}


def test_what_is_kept_later_was_kept_before() -> None:
    """So whatever gc deletes is asked for by no later look at the same history."""
    chance = random.Random(2)
    words = ["compact"] * 4 + ["rollback", "seal"]
    ops = {chance.randrange(1, 9_000): chance.choice(words) for _ in range(300)}
    before: set[int] | None = None
    for now in range(9_000 * 97, 9_000 * 97 + 45 * 86_400, 75_011):
        kept = set(kept_at(ops, 9_000, 97, now))
        assert before is None or kept <= before
        before = kept


def test_a_time_in_a_thinned_stretch_names_the_state_before(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the very state that a branch had at a time was thinned out, the one before is named."""
    clock = [disk.now_us() - 4 * HOUR]
    monkeypatch.setattr(disk, "now_us", lambda: clock[0])
    monkeypatch.setattr(history_window, "lake_time", lambda store: clock[0])
    lake = make_lake(gc_grace_hours=0)
    asked = {}
    for number in range(240):
        put(lake, str(number))
        asked[number] = from_micros(clock[0] + 1_000_000).isoformat()
        clock[0] += 25_000_000
    assert len(lake.log()) == 241
    clock[0] += HOUR
    for path in Path(lake.path).rglob("*.zst"):
        os.utime(path, (1, 1))
    newest = lake.store.refs.head("main").move.number
    assert lake.gc().packed > 100
    for number, moment in asked.items():
        assert number - 4 <= lake.at(moment).count() <= number + 1
    log = [entry.move.number for entry in lake.log()]
    assert all(entry.events is not None for entry in lake.log())
    gone = sorted(set(range(1, newest + 1)) - set(log))
    assert 60 < len(gone) < 140
    with pytest.raises(UnknownRef, match="outside the kept history"):
        lake.at(f"@{gone[0]}")
    # Going back state by state passes over those that were dropped.
    assert lake.at(f"@{newest}~{len(log) - 1}").count() == 0
    assert lake.at(f"@{newest}~1").id == lake.at(f"@{log[1]}").id
    assert lake.verify().problems == ()


# --- packed moves ---------------------------------------------------------------------------------


def test_old_moves_are_packed_and_stay_readable(make_lake: MakeLake) -> None:
    """Moves older than the window become one file; log and checks read them as before."""
    lake = make_lake(history_days=0)
    put(lake, "a")
    moves(lake, 250)
    before = [entry.move for entry in lake.log()]
    assert lake.gc().packed == 152
    names = disk.listing(lake.store.paths.head_dir("main"))
    assert sum(name.endswith(".json") for name in names) == 100
    assert "packed-000000000001-000000000152.jsonl.zst" in names
    for reader in (lake, make_lake()):
        assert [entry.move for entry in reader.log()] == before
        assert reader.at(f"@{before[0].number}").count() == 1
    assert lake.gc().packed == 0
    moves(lake, 100)
    assert lake.gc().packed == 100
    assert [entry.move for entry in make_lake().log()][100:] == before
    assert lake.verify().problems == ()


def test_a_process_that_slept_finds_the_head(make_lake: MakeLake) -> None:
    """A handle whose last known move was packed away still reads, writes and moves the branch."""
    lake, sleeper, other = make_lake(history_days=0), make_lake(), make_lake()
    put(lake, "a")
    for handle in (sleeper, other):
        assert handle.count() == 1
    moves(lake, 260)
    put(lake, "b")
    assert lake.gc().packed > 100
    assert types(sleeper) == "ab"
    put(other, "c")
    assert other.log()[0].move.number == 264
    for handle in (lake, sleeper, other, make_lake()):
        assert types(handle) == "abc"


def test_crash_recovery_between_packing_and_removing(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If only some of the packed moves were removed, the next run finishes; none is lost."""
    lake = make_lake(history_days=0)
    moves(lake, 250)
    before = [entry.move for entry in lake.log()]
    unlink = disk.unlink
    for allowed in (0, 20):
        removed: list[str] = []

        def fail(path: str, limit: int = allowed, removed: list[str] = removed) -> None:
            if "/heads/" in path and ".tmp-" not in path:
                removed.append(path)
                if len(removed) > limit:
                    raise OSError("planted")
            unlink(path)

        monkeypatch.setattr(disk, "unlink", fail)
        with pytest.raises(OSError, match="planted"):
            lake.gc()
        monkeypatch.setattr(disk, "unlink", unlink)
        assert [entry.move for entry in make_lake().log()] == before
        assert lake.verify().problems == ()
    assert lake.gc().packed > 0
    assert [entry.move for entry in make_lake().log()] == before


# --- refusals -------------------------------------------------------------------------------------


def _damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _first_segment_page(lake: lakelog.Lake) -> Path:
    state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    return path_of(lake, state.pages[0].digest)


def _unlink_moves(lake: lakelog.Lake) -> None:
    with lake.branch("dev") as dev:
        dev.append({"type": "pending"})
    for path in Path(lake.store.paths.head_dir("dev")).iterdir():
        path.unlink()


REFUSALS: dict[str, Callable[[lakelog.Lake], Any]] = {
    "an unreadable move": lambda lake: _damage(Path(lake.store.paths.move("main", 3))),
    "an unreadable tag": lambda lake: _damage(Path(lake.store.paths.tag("v1"))),
    "an unreadable manifest": lambda lake: _damage(path_of(lake, lake.at("v1").id)),
    "a missing manifest": lambda lake: path_of(lake, lake.at("@5").id).unlink(),
    "a missing page": lambda lake: _first_segment_page(lake).unlink(),
    "an unreadable page": lambda lake: _damage(_first_segment_page(lake)),
    "an unreadable list": lambda lake: _damage(Path(lake.store.paths.condemned)),
    "a branch that lost its moves": lambda lake: _unlink_moves(lake),
    "no branch at all": lambda lake: os.rename(lake.store.paths.heads, f"{lake.path}/away"),
}


@pytest.mark.damaged
@pytest.mark.usefixtures("long_manifests")
@pytest.mark.parametrize("why", REFUSALS)
def test_nothing_is_deleted_where_something_is_unclear(make_lake: MakeLake, why: str) -> None:
    """What cannot be read might name anything: gc stops before deleting, and says why."""
    lake = make_lake(gc_grace_hours=0)
    for number in range(20):
        put(lake, str(number))
    lake.tag("v1")
    if why == "no branch at all":
        history.delete_tag(lake.store, "v1")
    orphan(lake)
    with LockFile(f"{lake.store.paths.cache}/gc.lock").claim() as alone:
        assert alone
        names = {f"manifests/{orphan(lake)}": 0}
        disk.replace_whole(lake.store.paths.condemned, document.encode({"names": names}))
    other = make_lake()
    REFUSALS[why](lake)
    before = files(lake)
    with pytest.raises(GcRefused, match="nothing was deleted") as caught:
        other.gc()
    assert "\n" not in str(caught.value)
    assert files(lake) == before


def test_a_branch_that_was_never_finished_stops_nothing(make_lake: MakeLake) -> None:
    """A folder whose maker died before the first move names nothing and is no damage."""
    lake = make_lake(gc_grace_hours=0)
    Path(lake.store.paths.head_dir("unborn")).mkdir()
    orphan(lake)
    assert lake.gc().deleted == 1
    lake.branch("unborn").close()


def test_concurrent_gc_runs_once(lake: lakelog.Lake) -> None:
    """While another process collects this one is refused and may come back."""
    with LockFile(f"{lake.store.paths.cache}/gc.lock").claim() as alone:
        assert alone
        with pytest.raises(GcRefused, match="another process is collecting"):
            lake.gc()
    lake.gc()


def test_a_dry_run_leaves_no_trace(make_lake: MakeLake) -> None:
    """Only telling: no list is written, no file removed, no move packed."""
    lake = make_lake(gc_grace_hours=0, history_days=0)
    moves(lake, 220)
    orphan(lake)
    before = files(lake)
    told = lake.gc(dry_run=True)
    assert told.deleted > 0
    assert told.packed == 0
    assert files(lake) == before
    assert not Path(lake.store.paths.condemned).exists()


def test_a_long_list_is_deleted_in_batches(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress is told per batch, and each batch follows a look at what refs name since; what was
    marked is not read again."""
    lake = make_lake(gc_grace_hours=0)
    for number in range(20):
        put(lake, str(number))
    for number in range(collecting.BATCH + 1):
        orphan(lake, f"{number:032x}")
    saved = sorted(path.name[:64] for path in Path(lake.path, "manifests").rglob("*.zst"))
    saved = [d for d in saved if d not in {e.move.snapshot for e in lake.log()}][-1:]
    tag = dataclasses.replace(lake.tag("v1"), name="saved", snapshot=saved[0], carried=b"")
    told: list[tuple[int, int]] = []
    reads: list[str] = []
    read = disk.read

    def progress(done: int, total: int) -> None:
        told.append((done, total))
        if done == collecting.BATCH:
            lake.store.refs.link_tag(tag)
            monkeypatch.setattr(
                disk, "read", lambda path, *most: (reads.append(path), read(path, *most))[1]
            )

    lake.gc(progress=progress)
    assert told == [(500, 501), (501, 501)]
    assert path_of(lake, saved[0]).exists()
    again = {Path(path).name[:64] for path in reads if "/manifests/" in path}
    assert again == {saved[0], *(page.digest for page in lake.store.manifests.load(saved[0]).pages)}


def test_a_full_disk_is_collected(make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a byte left gc deletes what is due; packing and its list wait for the room."""
    lake = make_lake(history_days=0)
    moves(lake, 220)
    digest = orphan(lake)
    lake.gc()
    moves(lake, 220)
    age(lake, listed=25, written=25)
    write = disk.write_all

    def full(fd: int, data: bytes) -> None:
        if data and path_of(lake, digest).exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        write(fd, data)

    monkeypatch.setattr(disk, "write_all", full)
    done = lake.gc()
    assert (done.packed, path_of(lake, digest).exists()) == (0, False)
    assert done.deleted > 0
    assert lake.gc().packed > 0
    assert lake.verify().problems == ()


def test_a_full_disk_without_anything_due_is_said(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where gc cannot even note what it found, it says so, and has deleted nothing."""
    lake = make_lake()
    digest = orphan(lake)

    def full(fd: int, data: bytes) -> None:
        if data:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk, "write_all", full)
    with pytest.raises(OSError, match="No space left"):
        lake.gc()
    assert path_of(lake, digest).exists()


def test_the_cache_is_swept(make_lake: MakeLake) -> None:
    """Filters and marks of what is gone, and what killed processes spilled, do not stay."""
    lake = make_lake(gc_grace_hours=0)
    put(lake, "a")
    paths = lake.store.paths
    spilled, young = Path(paths.cache, "spill-0123"), Path(paths.cache, "spill-4567")
    dead, empty = Path(paths.bloom("ab" * 32)), Path(paths.buffers, "01.jsonl")
    index = Path(paths.words("ab" * 32))
    for path in (spilled / "part.tmp", young / "part.tmp", dead, index):
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"x")
    disk.make_dir(paths.buffers)
    empty.touch()
    alive = lake.at("main").id
    live = next(path for path in Path(lake.path, "segments").rglob("*.parquet"))
    lake.store.verified.add_all([(f"{n:064x}", str(live)) for n in range(1_500)])
    for path in (spilled, spilled / "part.tmp", dead, index, empty):
        os.utime(path, (1, 1))
    lake.gc()
    exist = [path.exists() for path in (spilled, young, dead, index, empty)]
    assert exist == [False, True, False, False, False]
    lines = Path(paths.verified).read_text().splitlines()
    assert {line.split()[0] for line in lines} == {live.stem}
    assert lake.at(alive).count() == 1
    assert make_lake().verify().problems == ()
