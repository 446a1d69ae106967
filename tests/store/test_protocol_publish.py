"""Publishing, step by step: what a lost race, an unclear link or a long sleep must lead to."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lakelog
from lakelog import document
from lakelog.disk import disk
from lakelog.entries.entry import Record
from lakelog.errors import OutcomeUnknown
from lakelog.history import thinning
from lakelog.manifest import Manifest
from lakelog.moves.publication import Change, publish
from lakelog.refs import Head, Refs
from tests.support.publishing import before_next_move, event, found, publish_ids

MakeLake = Callable[..., lakelog.Lake]


def test_a_publish_that_lost_a_race_retries_with_its_ids(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id that another publish brought meanwhile is not stored a second time."""
    lake, other = make_lake(), make_lake()
    lake.append([event("a", "1"), event("b", "2"), event("c")])
    tried = before_next_move(monkeypatch, lambda: publish_ids(other, ["2"]))
    lake.settle()
    assert tried == ["000000000002.json", "000000000002.json", "000000000003.json"]
    assert found(lake) == ["a", "c"]


def test_a_rewind_in_between_starts_a_seal_anew(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A duplicate that was dropped for its twin is kept if the twin leaves the branch meanwhile."""
    lake, other = make_lake(), make_lake()
    lake.append(event("twin", "1"))
    lake.settle()
    lake.append([event("duplicate", "1"), event("more")])

    def rewind() -> None:
        first = other.store.refs.read("main", 1).snapshot
        publish(other.store, "main", lambda *_: Change("rollback", snapshot=first, rewind=True))

    before_next_move(monkeypatch, rewind)
    lake.settle()
    assert found(lake) == ["duplicate", "more"]


def test_another_publish_in_between_costs_no_second_segment(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a lost race that touches nothing of it, a seal's segment is used as it is."""
    lake, other = make_lake(), make_lake()
    lake.append(event("a"))
    before_next_move(monkeypatch, lambda: publish_ids(other, ["9"]))
    lake.settle()
    segments = list(Path(lake.path, "segments").rglob("*.parquet"))
    assert (found(lake), len(segments)) == (["a"], 1)


@pytest.mark.parametrize("linked", [True, False])
def test_an_unclear_link_is_read_back(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    """If linking a move fails, the number is read back: ours counts, absent is tried again."""
    lake = make_lake()
    lake.append(event("a"))
    real, failed = disk.link, list[str]()

    def link(source: str, target: str) -> None:
        if "/refs/heads/" in target and not failed:
            failed.append(target)
            if linked:
                real(source, target)
            raise OSError(errno.EIO, "planted")
        real(source, target)

    monkeypatch.setattr(disk, "link", link)
    assert lake.settle().move.number == 2
    assert failed
    assert [entry.move.op for entry in lake.log()] == ["seal", "init"]
    assert found(lake) == ["a"]


def test_an_outcome_that_cannot_be_read_keeps_every_file(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If neither the link nor the look after it works, nobody claims or removes anything."""
    lake = make_lake()
    lake.append(event("a"))

    def link(source: str, target: str) -> None:
        raise OSError(errno.EIO, "planted")

    real = disk.link
    monkeypatch.setattr(
        disk, "link", lambda s, t: link(s, t) if "/refs/heads/" in t else real(s, t)
    )
    with pytest.raises(OutcomeUnknown):
        lake.settle()
    assert len(list(Path(lake.path, "segments").rglob("*.parquet"))) == 1
    monkeypatch.setattr(disk, "link", real)
    assert found(lake) == ["a"]
    lake.settle()
    assert found(lake) == ["a"]


def test_a_move_of_another_is_not_taken_for_ours(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writers' settles for one number: one makes it, the other the next; both are whole."""
    lake, other = make_lake(), make_lake()
    lake.append(event("a"))

    def also() -> None:
        other.append(event("b"))
        other.settle()

    tried = before_next_move(monkeypatch, also)
    lake.settle()
    assert tried[:2] == ["000000000002.json", "000000000002.json"]
    assert found(lake) == ["a", "b"]
    assert [e.move.op for e in lake.log()] == ["seal", "init"]  # the other took both writers


def test_the_watermark_of_a_writer_without_files_is_left_out(make_lake: MakeLake) -> None:
    """Moves name writers that have files, not all that ever lived."""
    lake = make_lake()
    for name in "abcd":
        with lakelog.open(lake.path) as writer:
            writer.append(event(name))
        head = lake.settle()
    assert len(head.move.wal) == 1
    assert found(lake) == ["a", "b", "c", "d"]


def test_a_writer_whose_watermark_was_left_out_meanwhile_is_not_sealed_again(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seal the same frames. The other one wins, its files go, and so does its watermark: then
    no watermark does not mean that they are still to be sealed."""
    with make_lake() as writer:
        writer.append(event("once"))
    lake, other = make_lake(), make_lake()

    def seal() -> None:
        other.settle()
        other.append(event("later"))
        other.settle()
        assert len(other.store.refs.head("main").move.wal) == 1

    before_next_move(monkeypatch, seal)
    lake.settle()
    assert sorted(found(lake)) == ["later", "once"]


def test_undo_concurrent_with_rollback_undoes_the_last(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another goes back while we undo an earlier move, it is that rollback which is undone."""
    lake, other = make_lake(), make_lake()
    for name in "abc":
        lake.append(event(name))
        lake.tag(name)
    lake.rollback("a")
    lake.rollback("b")
    before_next_move(monkeypatch, lambda: other.rollback("a"))
    lake.undo()
    assert found(lake) == ["a", "b"]
    assert [e.move.op for e in lake.log(2)] == ["undo", "rollback"]


# --- the head ------------------------------------------------------------------------------------


@pytest.mark.parametrize("newest", [1, 2, 3, 4, 5, 8, 17])
def test_the_head_is_found_from_any_number(make_lake: MakeLake, newest: int) -> None:
    """Whatever move a process saw last, or its hint names, it finds the newest."""
    lake = make_lake()
    for number in range(2, newest + 1):
        lake.snapshot(str(number))
    for start in range(1, newest + 1):
        refs = Refs(lake.store.volume)
        data = document.encode({"branch": "main", "number": start})
        Path(lake.store.paths.hint("main")).write_bytes(data)
        assert refs.head("main").move.number == newest
        assert Refs(lake.store.volume)._newest("main", start) == newest


def _hint(number: int, branch: str = "main") -> bytes:
    return document.encode({"branch": branch, "number": number})


@pytest.mark.parametrize(
    "hint",
    [None, b"", b"\0" * 100, _hint(1), _hint(2)[:-5], _hint(2, "other"), b"\xff{}", _hint(0)],
    ids=["missing", "empty", "zeroed", "stale", "torn", "of another", "garbage", "naught"],
)
def test_a_hint_is_advice_only(make_lake: MakeLake, hint: bytes | None) -> None:
    """Without a good hint the head is found by listing."""
    lake = make_lake()
    lake.append(event("a"))
    lake.snapshot("two")
    path = Path(lake.store.paths.hint("main"))
    path.unlink()
    if hint is not None:
        path.write_bytes(hint)
    with lakelog.open(lake.path) as again:
        assert again.store.refs.head("main").move.number == 3
        assert found(again) == ["a"]
        again.snapshot("three")
    assert document.decode(path.read_bytes())["number"] == 4


def test_a_publisher_that_slept_while_its_number_was_packed(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number whose file was folded away is taken for all that: the sleeper tries the next."""
    monkeypatch.setattr(thinning, "UNPACKED", 3)
    lake, other = make_lake(history_days=0), make_lake()
    lake.append(event("a"))

    def go_on() -> None:
        for number in range(9):
            other.snapshot(str(number))
        time.sleep(0.05)  # file systems stamp files a few milliseconds behind the clock
        assert other.gc().packed > 3

    def plan(_: Head, __: Manifest) -> Change:
        return Change("snapshot", "of the sleeper")

    before_next_move(monkeypatch, go_on)
    done = publish(lake.store, "main", plan)
    assert done is not None
    assert done.move.number == 12
    log = [entry.move for entry in lake.log()]
    assert [move.number for move in log] == list(range(12, 0, -1))
    assert log[0].message == "of the sleeper"
    assert found(lake) == ["a"]


def test_no_move_is_built_on_one_that_may_not_last(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the sync after a move failed, the next one syncs the directory before it is linked."""
    store, failing = make_lake().store, True
    directory, done = store.paths.head_dir("main"), list[str]()
    sync_dir, link = disk.sync_dir, disk.link

    def synced(path: str) -> None:
        if path == directory and failing and "link" in done:
            raise OSError(errno.EIO, "planted")
        done.append("sync" if path == directory else "other")
        sync_dir(path)

    def linked(source: str, target: str) -> None:
        link(source, target)
        done.append("link" if os.path.dirname(target) == directory else "other")

    monkeypatch.setattr(disk, "sync_dir", synced)
    monkeypatch.setattr(disk, "link", linked)
    change = Change("ingest", entries=(Record("artifact", "a", {}),))
    with pytest.raises(OSError, match="planted"):
        publish(store, "main", lambda *_: change)
    failing = False
    done.clear()
    publish(store, "main", lambda *_: change)
    assert [name for name in done if name != "other"] == ["sync", "link", "sync"]


@pytest.mark.usefixtures("long_manifests")
@pytest.mark.parametrize("what", ["segments", "manifests"])
def test_new_files_are_looked_for_right_before_the_link(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Whoever stands still in the last sync before the link until gc took its files writes them
    again."""
    lake = make_lake()
    lake.append(event("a"))
    finish, gone = disk.finish, list[Path]()
    before = set(Path(lake.path, what).rglob("*.*"))

    def slow(files: list[disk.Begun]) -> None:
        finish(files)
        if not gone:
            gone.extend(set(Path(lake.path, what).rglob("*.*")) - before)
            for made in gone:
                made.unlink()

    monkeypatch.setattr(disk, "finish", slow)
    lake.settle()
    assert len(gone) == 1
    assert found(lake) == ["a"]
    assert not lake.verify().problems
