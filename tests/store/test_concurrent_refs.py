"""Two at once: whoever loses a race for a name or a number is told, or goes on from the winner."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lakelog
from lakelog import history, identities
from lakelog.analyze import dedupe
from lakelog.bloom import filters as bloom
from lakelog.disk import disk
from lakelog.errors import (
    AlreadyExists,
    DamagedManifest,
    DamagedRef,
    GcRefused,
    OutcomeUnknown,
    StaleFiles,
    UnknownRef,
)
from lakelog.history import thinning
from lakelog.history import window as history_window
from lakelog.identities import identity_run
from lakelog.ingest.quarantine import Quarantine
from lakelog.maintain import DedupeNote
from lakelog.moves import publication as publish
from lakelog.refs import Tag
from lakelog.wal import tail
from tests.support import damage
from tests.support.publishing import before_next_move, event, found

MakeLake = Callable[..., lakelog.Lake]


def before_link(patch: pytest.MonkeyPatch, part: str, act: Callable[[], object]) -> None:
    """Do something right before the next file whose path has this part is linked."""
    real, done = disk.link, list[str]()

    def link(source: str, target: str) -> None:
        if part in target and not done:
            done.append(target)
            act()
        real(source, target)

    patch.setattr(disk, "link", link)


def test_a_publish_that_always_loses_gives_up(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a branch that never stands still a publish ends with an error; nothing is lost by it."""
    lake, other = make_lake(), make_lake()
    lake.append(event("a"))
    monkeypatch.setattr(publish, "_RETRIES", 3)
    real, busy = disk.link, list[str]()

    def link(source: str, target: str) -> None:
        if "/refs/heads/" in target and not busy:
            busy.append(target)
            other.snapshot("faster")
            busy.clear()
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "link", link)
        with pytest.raises(OutcomeUnknown, match="moved 3 times while publishing; try again"):
            publish.publish(lake.store, "main", lambda *_: publish.Change("snapshot"))
    assert found(lake) == ["a"]
    lake.snapshot("now")
    assert lake.log()[0].move.message == "now"


@pytest.mark.usefixtures("long_manifests")
def test_a_publish_retries_when_its_manifest_was_collected(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher that stood still until gc took its manifest does not publish a state that is
    not there: it writes another."""
    lake = make_lake()
    lake.append(event("a"))
    lake.settle()
    real, gone = disk.put_object, list[str]()

    def put(path: str, data: bytes) -> None:
        real(path, data)
        if not gone:
            gone.append(path)
            os.unlink(path)

    monkeypatch.setattr(disk, "put_object", put)
    lake.snapshot("kept")
    assert gone
    with lakelog.open(lake.path) as again:
        assert again.log()[0].move.message == "kept"
        assert found(again) == ["a"]


def short_lived(patch: pytest.MonkeyPatch, how: str, times: int) -> list[str]:
    """Let gc take the next new segments before their publish, or days go by; return which."""
    real, new, hit = disk.put_object, list[str](), list[str]()

    def put(path: str, data: bytes) -> None:
        real(path, data)
        if "/segments/" in path:
            new.append(path)
        elif "/manifests/" in path and new and len(hit) < times:
            hit.append(new.pop())
            if how == "gone":
                os.unlink(hit[-1])
            else:
                os.utime(hit[-1], (1, 1))

    def finish(files: list[disk.Begun]) -> None:
        named = [file.path for file in files if "/segments/" in file.path]
        finish_all(files)
        if named and len(hit) < times:
            hit.append(named[0])
            if how == "gone":
                os.unlink(hit[-1])
            else:
                os.utime(hit[-1], (1, 1))

    finish_all = disk.finish
    patch.setattr(disk, "put_object", put)
    patch.setattr(disk, "finish", finish)
    return hit


@pytest.mark.usefixtures("long_manifests")
@pytest.mark.parametrize("how", ["gone", "old"])
@pytest.mark.parametrize("what", ["settle", "retention", "dedupe"])
def test_new_segments_that_do_not_last_are_written_anew(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch, what: str, how: str
) -> None:
    """A publisher that stood still until gc took its segment, or may take it, writes another; if
    that happens again and again it says so, and nothing is lost."""
    lake = make_lake()
    rows = [event(name) | {"time": f"20{i}0-01-01T00:00:00Z"} for i, name in enumerate("abb")]
    lake.append(rows)
    act: dict[str, Callable[[], object]] = {
        "settle": lake.settle,
        "retention": lambda: lake.retention("3600d", apply=True),
        "dedupe": lambda: dedupe.apply(lake, dedupe.plan(lake, ["subject"])),
    }
    if what != "settle":
        lake.settle()
    before = found(lake)
    with monkeypatch.context() as patch:
        hit = short_lived(patch, how, 100)
        with pytest.raises(StaleFiles, match="try again"):
            act[what]()
        assert len(hit) == 4
        assert found(lake) == before
    short_lived(monkeypatch, how, 2)
    act[what]()
    assert found(lake) == {"settle": before, "retention": ["b"], "dedupe": ["a", "b"]}[what]
    assert not lake.verify().problems


@pytest.mark.usefixtures("long_manifests")
def test_a_compaction_whose_segment_does_not_last_leaves_all_as_it_was(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is done again next time; a clock ahead of the file system's by a year does no harm."""
    lake = make_lake()
    lake.append(event("a"))
    lake.settle()
    with monkeypatch.context() as patch:
        short_lived(patch, "gone", 1)
        assert lake.compact().added == 0
    now = disk.now_us
    monkeypatch.setattr(disk, "now_us", lambda: now() + 366 * 86_400_000_000)
    assert lake.compact().added == 1
    assert found(lake) == ["a"]


@pytest.mark.usefixtures("long_manifests")
def test_a_replay_whose_segment_does_not_last_says_so(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who does not write its files anew is told to try again, at once."""
    lake = make_lake()
    (tmp_path / "f").write_text("level=info msg=a\n")
    lake.ingest(str(tmp_path / "f"), format="json")
    with monkeypatch.context() as patch:
        hit = short_lived(patch, "gone", 100)
        with pytest.raises(StaleFiles, match="gone before it was published; try again"):
            Quarantine(lake.store, "main").replay(lake.engine, form="logfmt")
        assert len(hit) == 1
    assert Quarantine(lake.store, "main").replay(lake.engine, form="logfmt").stored == 1


def test_concurrent_creation_of_a_tag_succeeds_once(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that make a tag at once one is told that it exists; the tag is the other's."""
    lake, other = make_lake(), make_lake()
    before_link(monkeypatch, "/refs/tags/", lambda: other.tag("v1", message="theirs"))
    with pytest.raises(AlreadyExists, match="'v1' exists"):
        lake.tag("v1", message="ours")
    assert [(tag.name, tag.message) for tag in lake.store.refs.tags()] == [("v1", "theirs")]


@pytest.mark.parametrize("deleted", [False, True])
def test_concurrent_creation_of_a_branch_succeeds_once(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch, deleted: bool
) -> None:
    """Of two that make a branch at once, new or again, one is told that it exists."""
    lake, other = make_lake(), make_lake()
    lake.append(event("a"))
    if deleted:
        with lake.branch("dev") as dev:
            history.delete_branch(lake.store, "dev", dev.settle)

    def also() -> None:
        with other.branch("dev", message="theirs") as dev:
            dev.append(event("b"))

    before_link(monkeypatch, "/refs/heads/dev/", also)
    with pytest.raises(AlreadyExists, match="'dev' exists"):
        lake.branch("dev", message="ours")
    with make_lake(branch="dev") as dev:
        assert found(dev) == ["a", "b"]
        assert next(e.move.message for e in dev.log() if e.move.op == "branch") == "theirs"


def test_a_branch_comes_back_though_a_listing_missed_its_end(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that is listed while a file is linked may miss it: its number is not reused."""
    lake = make_lake()
    with lake.branch("dev") as dev:
        dev.append(event("a"))
    with make_lake(branch="dev") as dev:
        history.delete_branch(lake.store, "dev", dev.settle)
    last = lake.store.refs.numbers("dev")[-1]
    real = disk.listing

    def listing(path: str) -> list[str]:
        names = real(path)
        return [n for n in names if path != lake.store.paths.head_dir("dev") or f"{last}." not in n]

    with monkeypatch.context() as patch:
        patch.setattr(disk, "listing", listing)
        lake.branch("dev").close()
    moves = [entry.move for entry in make_lake(branch="dev").log()]
    assert [move.op for move in moves[:2]] == ["branch", "delete"]
    assert moves[0].number == last + 1


def test_undo_beside_another_user_keeps_what_it_kept(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another user moves the branch while undo works, that move is the one undone; the branch
    that keeps later events is made once and stays."""
    lake, other = make_lake(), make_lake()
    lake.append(event("a"))
    lake.snapshot("mine")
    lake.append(event("b"))
    lake.settle()
    before_link(monkeypatch, "/heads/main/0", lambda: other.rollback("main"))
    lake.undo(to_branch="kept")
    assert [entry.move.op for entry in lake.log()][:2] == ["undo", "rollback"]
    assert lake.log()[0].move.message == "of rollback to main"
    assert found(lake) == ["a", "b"]
    with make_lake(branch="kept") as kept:
        assert found(kept) == ["a", "b"]
        assert [entry.move.op for entry in kept.log()] == ["branch"]


@pytest.mark.usefixtures("long_manifests")
@pytest.mark.damaged
def test_repair_says_that_the_branch_moved_meanwhile(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repair that loses the race for the next move says so, and works when it is run again."""
    lake = make_lake()
    for name in "ab":
        lake.append(event(name))
        lake.settle()
    state = lake.store.refs.head("main").move.snapshot
    Path(lake.store.paths.object("manifests", state)).write_bytes(b"")
    with monkeypatch.context() as patch:
        before_next_move(patch, lambda: lake.snapshot("meanwhile"))
        with pytest.raises(DamagedRef, match="repair it again"):
            damage.repaired(lake.path)
    done = damage.repaired(lake.path)
    assert done.after is not None
    assert done.after.problems == ()
    with lakelog.open(lake.path) as again:
        assert found(again) == ["a", "b"]


@pytest.mark.usefixtures("long_manifests")
@pytest.mark.damaged
def test_a_state_that_went_since_it_was_read_is_no_target(lake: lakelog.Lake) -> None:
    """A rollback looks at the disk, not at what it remembers of a state."""
    lake.append(event("a"))
    lake.tag("v1")
    lake.append(event("b"))
    digest = lake.at("v1").id
    Path(lake.store.paths.object("manifests", digest)).unlink()
    with pytest.raises(DamagedManifest, match="the manifest is missing"):
        lake.rollback("v1")
    assert found(lake) == ["a", "b"]


@pytest.mark.damaged
def test_a_damaged_move_is_a_line_of_the_log(make_lake: MakeLake) -> None:
    """The log shows the moves it can read and says which it cannot; ids are still looked up."""
    lake = make_lake()
    for name in "abc":
        lake.append(event(name))
        lake.settle()
    Path(lake.store.paths.move("main", 3)).write_bytes(b"nonsense")
    with lakelog.open(lake.path) as again:
        log = again.log()
        assert [entry.move.op for entry in log] == ["seal", "damaged", "seal", "init"]
        assert [entry.events for entry in log] == [3, None, 1, 0]
        assert again.at(log[2].move.snapshot[:12]).id == log[2].move.snapshot


@pytest.mark.damaged
def test_the_beginning_of_two_ids_names_neither(lake: lakelog.Lake) -> None:
    """A beginning that two states share is refused in words that say what helps."""
    lake.append(event("a"))
    lake.settle()
    one = lake.store.refs.head("main").move.snapshot
    two = one[:10] + ("1" if one[10] == "0" else "0") * 54
    lake.store.refs.link_tag(Tag("v1", two, 1, "tester", "", "main", disk.random_hex()))
    with pytest.raises(UnknownRef, match="begins 2 snapshot ids: give more digits"):
        lake.at(one[:10])
    assert lake.at(one[:11]).id == one


def test_two_that_merge_the_same_id_runs(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that merge runs of ids at once one gives up; no id is forgotten."""
    lake, other = make_lake(), make_lake()
    for n in range(identity_run.FAN):
        lake.append(event(str(n), str(n)))
        if n < identity_run.FAN - 1:
            lake.settle()
    lake.sealer().seal()
    real, done = identities.join, list[str]()

    def join(*args: Any) -> Any:
        if not done:
            done.append("")
            other.sealer().maintain()
        return real(*args)

    monkeypatch.setattr(identity_run, "join", join)
    lake.sealer().maintain()
    assert [e.move.op for e in lake.log()].count("maintain") == 1
    lake.append([event(str(n), str(n)) for n in range(identity_run.FAN)])
    assert len(found(lake)) == identity_run.FAN


def test_a_removal_that_lost_a_race_retries(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal that loses a race uses what it wrote: no second segment, no row taken twice."""
    lake, other = make_lake(), make_lake()
    lake.append([event(name) for name in "abcd"])
    lake.settle()
    tried = before_next_move(monkeypatch, lambda: other.snapshot("meanwhile"))
    note = DedupeNote(("id",), "first", 0, 2)
    note.apply(lake.store, "main", np.array([1, 2]), 0, lake.engine)
    assert tried == ["000000000003.json", "000000000003.json", "000000000004.json"]
    assert found(lake) == ["a", "d"]
    assert len(list(Path(lake.path, "segments").rglob("*.parquet"))) == 2


def test_a_tail_that_never_stands_still_is_an_error(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader whose files vanish at every look ends with an error that names the folder."""
    lake, other = make_lake(), make_lake()
    lake.append(event("a"))
    (file,) = Path(lake.store.paths.wal_dir("main")).iterdir()
    away = file.with_name("away")
    real, looks = lake.store.refs.head, list[int]()

    def head(branch: str) -> Any:
        file.rename(away)
        looks.append(1)
        return real(branch)

    def listing(path: str) -> list[str]:
        if away.exists():
            away.rename(file)
        return os.listdir(path) if os.path.isdir(path) else []

    with monkeypatch.context() as patch:
        patch.setattr(other.store.refs, "head", head)
        patch.setattr(disk, "listing", listing)
        with pytest.raises(lakelog.errors.DamagedWal, match="no stable state after 100 reads"):
            other._session.tail("main").collect()
    assert len(looks) == tail.Tail.ATTEMPTS
    away.rename(file)
    assert found(other) == ["a"]


@pytest.mark.damaged
@pytest.mark.parametrize("what", ["move", "packed"])
def test_moves_that_cannot_be_read_are_not_folded(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """gc folds no move away that it cannot read, and removes none whose fold is not whole."""
    monkeypatch.setattr(thinning, "UNPACKED", 3)
    lake = make_lake(history_days=0)
    for number in range(9):
        lake.snapshot(str(number))
    if what == "move":
        Path(lake.store.paths.move("main", 2)).write_bytes(b"nonsense")
    else:
        Path(lake.store.paths.packed("main", 1, 7)).write_bytes(b"cut short by a dead disk")
    before = sorted(os.listdir(lake.store.paths.head_dir("main")))
    monkeypatch.setattr(history_window, "lake_time", lambda store: disk.now_us() + 1_000_000)
    with lakelog.open(lake.path) as again, pytest.raises(GcRefused, match="nothing was deleted"):
        again.gc()
    assert sorted(os.listdir(lake.store.paths.head_dir("main"))) == before


def test_filters_leave_memory_and_are_read_again(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bloom filters that do not fit in memory together give the same answers."""
    monkeypatch.setattr(bloom, "_MEMORY", 1)
    lake = make_lake()
    for name in "abc":
        lake.append(event(name, f"id-{name}"))
        lake.settle()
    for _ in range(2):
        for name in "abc":
            query = f"SELECT subject FROM events WHERE id = 'id-{name}'"
            assert lake.sql(query).fetchall() == [(name,)]
            assert lake.explain(query) == (1, 3)
            assert len(lake._session.tables.choice._filters._cached) == 1
