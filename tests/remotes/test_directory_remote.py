"""Remotes that are directories: the suite, and what a lake in use there adds."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import history
from lakelog.errors import Diverged, TransferRefused, Unreachable
from lakelog.history.thinning import KEEP_MOVES
from lakelog.maintain import gc as collecting
from lakelog.remotes import carry, known, pushes
from lakelog.remotes import fetches as fetching
from lakelog.remotes.directory import DirectoryRemote
from lakelog.remotes.remote import Pace
from tests.support.lakes import opened
from tests.support.remote_suite import RemoteSuite, add, checked, cloned, heads, pull, push, rows
from tests.support.volume_suite import RemoteVolumeSuite


class TestDirectory(RemoteSuite, RemoteVolumeSuite):
    """A directory that the first push makes a lake."""

    @pytest.fixture
    def url(self, home: Path) -> str:
        return str(home / "remote")

    def test_a_remote_directory_is_a_lake(self, path: str, url: str) -> None:
        push(path)
        assert rows(url) == rows(path)
        with lakelog.open(url) as lake:
            assert lake.verify().problems == ()

    def test_a_remote_in_use_keeps_its_pending_events(self, path: str, url: str) -> None:
        push(path)
        with opened(url) as there:
            there.append({"type": "PENDING"})
            add(path, "more")
            push(path)
            assert there.count() == len(rows(path)) + 1
            there.settle()
            assert there.count() == len(rows(path)) + 1
        assert pull(path).refs["main"] == "updated"
        assert rows(path) == rows(url)

    def test_a_push_takes_no_version_that_was_given_there(self, path: str, url: str) -> None:
        with opened(path) as here:
            here.tag("empty")
            here.append({"type": "add", "subject": "s"}, expect={"s": 0})
            push(path)
            with opened(url) as there:
                there.append({"type": "there", "subject": "s"}, expect={"s": 1})
                here.append({"type": "here", "subject": "s"}, expect={"s": 1})
                with pytest.raises(Diverged):
                    push(path)
                assert [event["type"] for event in there.stream("s")] == ["add", "there"]
                there.append({"type": "last", "subject": "s"}, expect={"s": 2})
                here.rollback("empty")
                push(path, force=True)
                there.settle()
                assert there.stream("s").version == 0
                there.append({"type": "add", "subject": "s"}, expect={"s": 0})
                assert [event["type"] for event in there.stream("s")] == ["add"]

    @pytest.mark.parametrize("label", ["up to date", "kept"])
    def test_concurrent_fetches_of_a_tag_end_well(
        self, path: str, url: str, home: Path, monkeypatch: pytest.MonkeyPatch, label: str
    ) -> None:
        """As one of a timer beside a pull; a person may also give the name to another state."""
        push(path)
        clone = cloned(url, home / "clone")
        with opened(path) as here:
            here.tag("new")
        push(path, "new")
        real = carry.download

        def late(*words: Any) -> None:
            monkeypatch.setattr(carry, "download", real)
            if label == "kept":
                add(clone, "another")
                with opened(clone) as there:
                    there.tag("new")
            else:
                pull(clone)
            real(*words)

        monkeypatch.setattr(carry, "download", late)
        with opened(clone) as there:
            assert fetching.fetch(there, "origin").refs["new"] == label

    def test_maintenance_at_the_remote_is_no_divergence(self, path: str, url: str) -> None:
        push(path)
        with opened(url) as there:
            there.compact()
        add(path, "more")
        assert push(path).refs == {"main": "updated"}
        assert rows(url) == rows(path)

    @pytest.mark.parametrize("is_restored", [False, True])
    def test_a_common_move_that_was_packed_is_compared(
        self, path: str, url: str, home: Path, is_restored: bool
    ) -> None:
        """Where a backup of the remote was restored, a move of its number may say something else:
        then a pull would drop what is only here."""
        push(path)
        shutil.copytree(url, home / "copy")
        add(path, "more")
        push(path)
        if is_restored:
            shutil.rmtree(url)
            shutil.copytree(home / "copy", url)
        before = rows(path)
        with opened(url) as there:
            there.append({"type": "THERE"})
            for number in range(2 * KEEP_MOVES):
                there.snapshot(f"snapshot {number}")
            assert there.gc().packed > KEEP_MOVES
        if is_restored:
            with pytest.raises(Diverged):
                pull(path)
            assert rows(path) == before
        else:
            assert pull(path).refs["main"] == "updated"
            assert rows(path) == rows(url)
            assert len(rows(path)) == len(before) + 1

    def test_gc_at_the_remote_takes_nothing_that_a_push_names(
        self, path: str, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        push(path)
        with opened(url) as there:
            there.store.change_settings(lakelog.Settings(gc_grace_hours=0))
        add(path, "more")
        real, runs = DirectoryRemote.publishing, []

        def late(remote: DirectoryRemote, objects: dict[str, int]) -> object:
            # Between the upload and the lock, once: all that was uploaded is garbage by then.
            if not runs:
                runs.append(0)
                with opened(url) as there:
                    runs.append(there.gc().deleted)
            return real(remote, objects)

        monkeypatch.setattr(DirectoryRemote, "publishing", late)
        push(path)
        assert runs[1] >= 2
        assert rows(url) == rows(path)
        with opened(url) as there:
            assert there.verify().problems == ()

    def test_gc_keeps_what_was_fetched(self, path: str, url: str, home: Path) -> None:
        push(path)
        other = str(home / "other")
        with opened(other, gc_grace_hours=0) as lake:
            known.add(lake.store, "origin", url)
            lakelog.remotes.fetches.fetch(lake, "origin")
            collecting.gc(lake.store)
            assert lake.sql('SELECT count(*) FROM "origin/main".events').fetchone() == (205,)
            assert lake.count() == 0

    def test_a_branch_without_moves_is_not_cloned_and_can_be_pushed(
        self, path: str, url: str, home: Path
    ) -> None:
        """A first push that was interrupted as it made the branch left a folder of no moves."""
        push(path)
        for file in Path(url, "refs/heads/main").iterdir():
            file.unlink()
        with pytest.raises(TransferRefused, match="branch 'main' has no move there"):
            fetching.clone(url, str(home / "clone"))
        assert push(path).refs == {"main": "new"}
        assert rows(cloned(url, home / "clone")) == rows(path)

    def test_a_branch_that_lost_its_moves_is_named_beside_others(
        self, path: str, url: str, home: Path
    ) -> None:
        """A clone has the others, and says which one is not in it."""
        with opened(path) as lake:
            lake.branch("side").close()
            pushes.push(lake, "origin", branches=["main", "side"])
        for file in Path(url, "refs/heads/side").iterdir():
            file.unlink()
        assert [fault.path for fault in checked(path).faults] == ["refs/heads/side"]
        result = fetching.clone(url, str(home / "clone"))
        assert result.refs["origin/main"] == "new"
        assert result.refs["origin/side"].startswith("no move there: push it again")
        with opened(home / "clone") as clone:
            assert clone.branches() == ["main"]
            assert fetching.fetch(clone, "origin").refs["origin/side"].startswith("no move there")

    def test_removing_a_remote_forgets_its_branches(self, path: str, url: str) -> None:
        push(path)
        with opened(path) as lake:
            assert "origin/main" in lake.store.refs.tag_names()
            known.remove(lake.store, "origin")
            assert lake.store.refs.tag_names() == ["v1"]
        assert heads(url).keys() == {"main"}


def test_a_trickle_is_given_up_and_a_slow_link_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the kind of remote: by the bytes that come while somebody waits for them."""
    monkeypatch.setattr("lakelog.remotes.remote.SLOW_SECONDS", 0.1)

    def pieces(size: int) -> Iterator[bytes]:
        for _ in range(30):
            time.sleep(0.01)
            yield bytes(size)

    assert sum(map(len, Pace("x").over(pieces(10)))) == 300
    with pytest.raises(Unreachable, match="100 bytes a second"):
        list(Pace("x").over(pieces(1)))


@pytest.mark.parametrize("is_sealed", [True, False])
def test_what_was_pushed_for_a_while_is_no_loss(home: Path, is_sealed: bool) -> None:
    """A clone pushes by a tag what a lake that was put back from a backup lacks, or what was
    ingested in the clone; then another state takes the tag's place."""
    path, clone, older = str(home / "lake"), str(home / "clone"), str(home / "older")
    add(path, "first")
    shutil.copytree(path, older)
    if is_sealed:
        add(path, "second")
    fetching.clone(path, clone)
    shutil.rmtree(path)
    shutil.copytree(older, path)
    (home / "file.jsonl").write_text('{"type": "A"}\n')
    with opened(clone) as lake:
        if not is_sealed:
            lake.ingest(str(home / "file.jsonl"))
        lake.tag("new")
    push(clone, "new")
    with opened(path) as lake:
        assert lake.at("new").count() == (80 if is_sealed else 41)
        assert lake.at("new").sql("SELECT max(type) FROM events").fetchall()
        assert lake.verify().problems == ()
    with opened(clone) as lake:
        history.delete_tag(lake.store, "new")
        lake.tag("new", "@1")
    push(clone, "new", force=True)
    with opened(path) as lake:
        assert lake.verify().problems == ()
        lake.gc()
        assert lake.count() == 40


@pytest.mark.parametrize("is_sealed", [True, False])
def test_what_was_fetched_for_a_while_is_no_loss(home: Path, is_sealed: bool) -> None:
    """A lake that was put back from a backup fetches what it had pushed since, or a clone what was
    ingested there; then they forget the remote, or are copied."""
    path, far, copy = str(home / "lake"), str(home / "far"), str(home / "copy")
    older = str(home / "older")

    def store(number: int) -> None:
        file = home / "file.jsonl"
        line = json.dumps({"type": "A", "id": f"{number}"})
        file.write_text(f"{file.read_text() if file.exists() else ''}{line}\n")
        with opened(path) as lake:
            if is_sealed:
                lake.append(json.loads(line))
                lake.settle()
            else:
                lake.ingest(str(file))

    store(1)
    with opened(path) as lake:
        known.add(lake.store, "origin", far)
    push(path)
    if is_sealed:
        shutil.copytree(path, older)
    else:
        fetching.clone(far, older)
    store(2)
    push(path)
    time.sleep(0.01)  # a file that is younger than the last move
    with opened(older) as lake:
        fetching.fetch(lake, "origin")
        assert lake.at("origin/main").count() == 2
        assert lake.at("origin/main").sql("SELECT max(id) FROM events").fetchall() == [("2",)]
        known.remove(lake.store, "origin")
        lake.backup(copy)
    for place in (older, copy):
        with opened(place) as lake:
            assert lake.verify().problems == ()
            lake.gc()
            assert lake.count() == 1
