"""A lake that machines share in a bucket: each has all events, wherever they were appended."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog import document, train
from lakelog.alerts.question import RuleQueries
from lakelog.alerts.rule import AlertRule
from lakelog.disk import disk
from lakelog.errors import AlreadyExists, TransferRefused, Unreachable, UnsupportedStore
from lakelog.manifest import manifest
from lakelog.remotes import clone, known
from lakelog.remotes.directory import DirectoryRemote
from lakelog.remotes.shared import attach, mirrored_volume, offers, segment_cache
from tests.support.attached import SharedMachines, append, numbers, origins, publish_each
from tests.support.cli import answer, run


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[SharedMachines]:
    """Machines with a bucket of files."""
    machines = SharedMachines(tmp_path)
    yield machines
    machines.close()


def test_events_of_each_machine_are_seen_on_all_exactly_once(machines: SharedMachines) -> None:
    for start in range(0, 30, 10):
        append(machines["a"], *range(start, start + 5))
        append(machines["b"], *range(start + 5, start + 10))
        machines.exchange("a", "b", "c")
    for name in "abc":
        assert numbers(machines[name]) == list(range(30))
        assert max(origins(machines[name]).values()) == 1
    ids = {machines[name].store.refs.head("main").digest for name in "abc"}
    assert len(ids) == 1


def test_machines_that_attach_first_at_once_share_a_lake(
    machines: SharedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One looked whether a lake is there before the other had made it."""
    look = DirectoryRemote.names

    def late_look(remote: DirectoryRemote, folder: str) -> Iterator[str]:
        monkeypatch.undo()
        append(machines["b"], 1)
        machines["b"].exchange()
        return look(remote, folder)

    monkeypatch.setattr(DirectoryRemote, "names", late_look)
    append(machines["a"], 2)
    machines.exchange("a", "b")
    assert numbers(machines["a"]) == numbers(machines["b"]) == [1, 2]


def test_events_of_one_machine_are_readable_there_before_they_are_published(
    machines: SharedMachines,
) -> None:
    append(machines["a"], 1)
    assert numbers(machines["a"]) == [1]
    assert numbers(machines["b"]) == []


def test_a_machine_that_is_offline_appends_and_publishes_later(
    machines: SharedMachines, tmp_path: Path
) -> None:
    append(machines["a"], 1)
    machines.exchange("a", "b")
    assert numbers(machines["b"]) == [1]
    (tmp_path / "bucket").rename(tmp_path / "away")
    # As the place where a disk is mounted, without the disk.
    (tmp_path / "bucket").mkdir()
    append(machines["a"], 2)
    append(machines["b"], 3)
    with pytest.raises(Unreachable, match="not there now"):
        machines["a"].exchange()
    assert not list((tmp_path / "bucket").iterdir())
    assert numbers(machines["a"]) == [1, 2]
    assert numbers(machines.reopened("b")) == [1, 3]
    (tmp_path / "bucket").rmdir()
    (tmp_path / "away").rename(tmp_path / "bucket")
    machines.exchange("a", "b")
    assert numbers(machines["a"]) == numbers(machines["b"]) == [1, 2, 3]


def test_rules_and_training_sets_read_segments_that_are_elsewhere(
    machines: SharedMachines, tmp_path: Path
) -> None:
    """They have engines of their own, which get from the bucket what this machine does not have."""
    append(machines["a"], *range(20))
    machines.exchange("a", "b")
    assert not list((tmp_path / "b" / "segments").glob("*/*"))
    with contextlib.closing(RuleQueries(machines["b"])) as queries:
        count = AlertRule("count", query="SELECT count(*) AS value FROM events")
        assert [row.value for row in queries.ask(count, 0, disk.now_us())] == [20]
    recipe = {
        "select": {"sql": "SELECT * FROM events"},
        "shape": {"kind": "events"},
        "split": {"train": 1.0},
    }
    exported = train.export(machines["c"], recipe, str(tmp_path / "set"))
    assert sum(split["rows"] for split in exported.manifest["splits"].values()) == 20


def test_a_rollback_holds_on_every_machine_and_keeps_what_is_pending(
    machines: SharedMachines,
) -> None:
    append(machines["a"], 1)
    machines.exchange("a", "b")
    machines["a"].tag("good")
    append(machines["a"], 2)
    machines.exchange("a", "b")
    append(machines["b"], 3)
    machines["a"].rollback("good")
    machines.exchange("b", "a")
    assert numbers(machines["a"]) == numbers(machines["b"]) == [1, 3]


def test_a_rollback_fetches_the_pages_of_its_target(
    machines: SharedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "FAN", 2)
    publish_each(machines["a"], range(6))
    state = machines["a"].store.refs.read("main", 6).snapshot
    assert machines["a"].store.manifests.load(state).pages
    machines["b"].rollback(state)
    machines["a"].exchange()
    assert numbers(machines["a"]) == numbers(machines["b"]) == list(range(5))


def test_a_rollback_to_what_the_bucket_lost_is_refused_unless_it_is_here(
    machines: SharedMachines, tmp_path: Path
) -> None:
    append(machines["a"], 1)
    machines["a"].exchange()
    machines["a"].tag("good")
    machines["a"].retention("0s", apply=True)
    machines.exchange("a", "b")
    for path in (tmp_path / "bucket" / "segments").glob("*/*"):
        path.unlink()
    with pytest.raises(TransferRefused, match="nothing was changed"):
        machines["b"].rollback("good")
    machines["a"].rollback("good")
    machines["b"].exchange()
    assert numbers(machines["b"]) == [1]


def test_tags_are_made_and_deleted_on_every_machine(machines: SharedMachines) -> None:
    append(machines["a"], 1)
    machines["a"].tag("v1")
    machines.exchange("b")
    assert numbers(machines["b"].at("v1")) == [1]  # type: ignore[arg-type]
    with pytest.raises(AlreadyExists):
        machines["c"].tag("v1")
    run(machines["b"].path, "tag", "--delete", "v1")
    machines.exchange("a")
    assert machines["a"].tags() == []


def test_two_machines_make_the_same_tag_and_one_is_refused(machines: SharedMachines) -> None:
    append(machines["a"], 1)
    append(machines["b"], 2)
    machines.exchange("a", "b")
    machines["a"].tag("v1")
    # Machine b has not heard of it: only the bucket can refuse.
    state = machines["b"].store.refs.head("main").move.snapshot
    with pytest.raises(FileExistsError):
        machines["b"].store.refs.link_tag(
            dataclasses.replace(machines["a"].store.refs.tag("v1"), message="mine", snapshot=state)
        )
    assert machines["b"].at("v1").count() == machines["a"].at("v1").count()


def test_branches_are_shared(machines: SharedMachines) -> None:
    append(machines["a"], 1)
    other = machines["a"].branch("trial")
    append(other, 2)
    other.exchange()
    machines.exchange("b")
    there = lakelog.open(machines["b"].path, branch="trial")
    assert numbers(there) == [1, 2]
    assert numbers(machines["b"]) == [1]
    append(there, 3)
    there.exchange()
    other.exchange()
    assert numbers(other) == [1, 2, 3]


def test_watermarks_of_other_machines_stay_when_their_files_are_not_here(
    machines: SharedMachines,
) -> None:
    # Without the watermark of a's writer its frames would be sealed again.
    append(machines["a"], 1)
    machines["a"].exchange()
    append(machines["b"], 2)
    machines["b"].exchange()
    append(machines["a"], 3)
    machines.exchange("a", "b")
    assert numbers(machines["b"]) == [1, 2, 3]
    assert max(origins(machines["b"]).values()) == 1


def test_writers_that_ended_are_left_out_of_later_moves(machines: SharedMachines) -> None:
    count = offers.HEADS + 4
    for n in range(count):
        append(machines["a"], n)
        machines["a"].exchange()
        if n % 4 == 0:
            machines.reopened("a")
    assert len(machines["a"].store.refs.head("main").move.wal) < count // 4
    assert numbers(machines["b"]) == list(range(count))


def test_of_equal_ids_the_first_published_stays_and_the_other_is_reported(
    machines: SharedMachines, tmp_path: Path
) -> None:
    """A replay of the quarantine keeps it there: its id is known, and it is nowhere else."""
    machines["a"].append({"type": "T", "id": "x", "data": {"n": 1}})
    machines["b"].append(
        [{"type": "T", "id": "x", "data": {"n": 2}}, {"type": "T", "id": "y", "data": {"n": 3}}]
    )
    # The same event, which its sender gave to another machine after a time-out.
    machines["c"].append({"type": "T", "id": "x", "data": {"n": 1}})
    machines.exchange("a", "b", "c")
    assert "1 left" in run(tmp_path / "a", "quarantine", "replay").stderr
    for name in "abc":
        assert numbers(machines[name]) == [1, 3]
        refused = machines[name].sql("SELECT reason, line->>'data' FROM quarantine").fetchall()
        assert refused == [(refused[0][0], '{"n":2}')]
        assert "published first" in refused[0][0]


def test_segments_are_fetched_again_when_the_cache_lost_them(
    machines: SharedMachines, tmp_path: Path
) -> None:
    append(machines["a"], *range(100))
    machines.exchange("a", "b")
    shutil.rmtree(tmp_path / "b" / "segments")
    assert numbers(machines.reopened("b")) == list(range(100))
    shutil.rmtree(tmp_path / "b" / "segments")
    assert machines["b"].verify().intact


def test_a_segment_that_was_fetched_is_not_hashed_again(machines: SharedMachines) -> None:
    """It was on its way. What happens to it later is seen all the same."""
    append(machines["a"], *range(100))
    machines.exchange("a", "b")
    store = machines["b"].store
    (entry,) = store.manifests.segments(store.state("main"), "events")
    path = Path(store.paths.object("segments", entry.key))
    assert not path.exists()
    store.verified.obtain([(entry.key, str(path))])
    assert entry.key in Path(store.paths.verified).read_text()
    path.write_bytes(path.read_bytes()[:-9] + b"\0" * 9)
    assert not store.verified.is_intact(entry.key, str(path))


def test_a_segment_that_is_damaged_in_the_bucket_is_refused(
    machines: SharedMachines, tmp_path: Path
) -> None:
    append(machines["a"], *range(100))
    machines["a"].exchange()
    for path in (tmp_path / "bucket" / "segments").glob("*/*"):
        path.write_bytes(path.read_bytes()[:-9] + b"\0" * 9)
    with pytest.raises(TransferRefused, match="does not have the bytes of its name"):
        machines["b"].sql("SELECT * FROM events").fetchall()


def test_the_cache_drops_published_segments_that_nobody_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = SharedMachines(tmp_path)
    append(machines["a"], *range(500))
    machines["a"].exchange()
    attach(machines.url, str(tmp_path / "small"), cache=1)
    with lakelog.open(str(tmp_path / "small")) as lake:
        assert len(numbers(lake)) == 500
        segments = list((tmp_path / "small" / "segments").glob("*/*.parquet"))
        assert segments  # it was just read
        monkeypatch.setattr(segment_cache, "_RESTING_SECONDS", -1)
        lake.exchange()
        assert not list((tmp_path / "small" / "segments").glob("*/*.parquet"))
        monkeypatch.undo()
        assert len(numbers(lake)) == 500
    machines.close()


def test_the_cache_drops_what_was_read_by_a_clock_that_was_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = SharedMachines(tmp_path)
    append(machines["a"], *range(500))
    machines["a"].exchange()
    attach(machines.url, str(tmp_path / "small"), cache=1)
    with lakelog.open(str(tmp_path / "small")) as lake:
        real = time.time
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: real() + 86_400)
            assert len(numbers(lake)) == 500
        monkeypatch.setattr(segment_cache, "_RESTING_SECONDS", 0)
        lake.exchange()
        assert not list((tmp_path / "small" / "segments").glob("*/*.parquet"))
    machines.close()


def test_what_is_remembered_of_objects_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory, and in the file that says when each was read."""
    monkeypatch.setattr(segment_cache, "_NOTED_AGAIN", -1)
    monkeypatch.setattr(segment_cache, "_READS_MAX", 4)
    monkeypatch.setattr(segment_cache, "_LOG_SPARE", 0)
    monkeypatch.setattr(segment_cache, "_RESTING_SECONDS", -1)  # each exchange looks
    monkeypatch.setattr(mirrored_volume, "_DELIVERED_MAX", 4)
    machines = SharedMachines(tmp_path)
    publish_each(machines["a"], range(8))
    machines["b"].exchange()
    for _ in range(8):
        assert numbers(machines["b"]) == list(range(8))
    log = tmp_path / "b" / "cache" / "fetched.jsonl"
    noted = len(log.read_bytes())
    machines["b"].exchange()
    assert len(log.read_bytes()) < noted / 2
    attachment = machines["b"].store.attachment
    assert len(attachment._cache._read_at) <= 4
    assert len(attachment.volume._delivered) <= 4
    append(machines["b"], 8)
    machines.exchange("b", "a")
    assert numbers(machines["a"]) == list(range(9))
    machines.close()


def test_a_pushed_lake_becomes_a_shared_one(machines: SharedMachines, tmp_path: Path) -> None:
    with lakelog.open(str(tmp_path / "old")) as old:
        append(old, 1, 2)
        known.add(old.store, "origin", f"{tmp_path}/bucket")
        run(old.path, "push", "origin")
    append(machines["a"], 3)
    machines.exchange("a", "b")
    assert numbers(machines["b"]) == [1, 2, 3]


def test_a_machine_pushes_what_only_the_bucket_has(
    machines: SharedMachines, tmp_path: Path
) -> None:
    append(machines["a"], 1, 2)
    machines.exchange("a", "b")
    known.add(machines["b"].store, "origin", f"{tmp_path}/elsewhere")
    run(machines["b"].path, "push", "origin")
    clone(f"{tmp_path}/elsewhere", f"{tmp_path}/clone")
    with lakelog.open(f"{tmp_path}/clone") as lake:
        assert numbers(lake) == [1, 2]


def test_the_bucket_itself_is_not_opened_as_a_lake(
    machines: SharedMachines, tmp_path: Path
) -> None:
    append(machines["a"], 1)
    machines["a"].exchange()
    with pytest.raises(UnsupportedStore, match="lakelog attach"):
        lakelog.open(str(tmp_path / "bucket"))


def test_a_lake_that_programs_append_to_is_no_bucket(tmp_path: Path) -> None:
    with lakelog.open(str(tmp_path / "own")) as own:
        append(own, 1)
        with pytest.raises(TransferRefused, match="lakelog push"):
            attach(f"file://{tmp_path}/own", str(tmp_path / "a"))


def test_an_interrupted_attachment_goes_on(machines: SharedMachines, tmp_path: Path) -> None:
    append(machines["a"], 1)
    machines["a"].exchange()
    attach(machines.url, str(tmp_path / "c"))
    shutil.rmtree(tmp_path / "c" / "refs" / "heads" / "main")
    attach(machines.url, str(tmp_path / "c"))
    assert numbers(machines["c"]) == [1]


def test_what_older_versions_do_not_know_they_refuse(machines: SharedMachines) -> None:
    body = document.decode(Path(machines["a"].store.paths.config).read_bytes())
    assert body["requires"] == ["bucket"]
    machines["a"].store.change_settings(machines["a"].store.settings)
    assert document.decode(Path(machines["a"].store.paths.config).read_bytes()) == body


def test_a_bucket_that_was_replaced_is_refused(machines: SharedMachines, tmp_path: Path) -> None:
    append(machines["a"], 1)
    machines["a"].exchange()
    shutil.copytree(tmp_path / "bucket", tmp_path / "old")
    append(machines["a"], 2)
    machines["a"].exchange()
    shutil.rmtree(tmp_path / "bucket")
    os.rename(tmp_path / "old", tmp_path / "bucket")
    append(machines["b"], 9)
    machines["b"].exchange()
    append(machines["a"], 3)
    with pytest.raises(TransferRefused, match="older copy of the bucket"):
        machines["a"].exchange()
    assert 3 in numbers(machines["a"])


def test_what_machines_have_of_a_bucket_that_went_back_is_brought_to_another(
    machines: SharedMachines, tmp_path: Path
) -> None:
    """As docs/shared-lakes.md says: what was published since, and what was not yet, once each."""
    append(machines["a"], 1)
    machines.exchange("a", "b")
    shutil.copytree(tmp_path / "bucket", tmp_path / "old")
    append(machines["a"], 2)
    machines.exchange("a", "b")
    append(machines["b"], 3)
    machines["b"].exchange()
    shutil.rmtree(tmp_path / "bucket")
    os.rename(tmp_path / "old", tmp_path / "bucket")
    append(machines["a"], 4)
    append(machines["b"], 5)
    with pytest.raises(TransferRefused, match=r"docs/shared-lakes\.md says how"):
        machines["b"].exchange()
    new = str(tmp_path / "new")
    run("", "clone", str(tmp_path / "bucket"), str(tmp_path / "hub"))
    run(tmp_path / "hub", "remote", "add", "new", new)
    run(tmp_path / "hub", "push", "new")
    assert "not here" in run(tmp_path / "b", "repair", code=3).output  # but in a
    assert "restored from here" in run(tmp_path / "a", "repair").output
    for name in "ab":
        copy = tmp_path / f"copy-{name}"
        run("", "backup", str(tmp_path / name), str(copy))
        run(copy, "remote", "add", "new", new)
        run(copy, "pull", "--merge")
        run(copy, "push")
    attach(f"file://{new}", str(tmp_path / "c"))
    with lakelog.open(tmp_path / "c", create=False) as lake:
        assert numbers(lake) == [1, 2, 3, 4, 5]
        assert lake.verify().intact


def test_the_verbs_attach_and_exchange(tmp_path: Path) -> None:
    bucket = f"file://{tmp_path}/bucket"
    for name in ("a", "b"):
        run("", "attach", bucket, str(tmp_path / name), "--cache", "1GB")
    run(tmp_path / "d", "attach", bucket)
    assert (tmp_path / "d" / "lakelog.json").exists()
    run(tmp_path / "a", "append", "type=T", "n=1")
    assert answer(tmp_path / "a", "exchange")["published"] == 1
    assert answer(tmp_path / "b", "exchange", "--json")["arrived"] == 1
    assert answer(tmp_path / "b", "sql", "SELECT count(*) AS n FROM events", "--json") == [{"n": 1}]
    with lakelog.open(str(tmp_path / "own")):
        assert "lakelog attach" in run(tmp_path / "own", "exchange", code=1).output
    assert (
        "is no size"
        in run("", "attach", bucket, str(tmp_path / "c"), "--cache", "big", code=2).output
    )


def test_a_bucket_is_not_attached_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without DIRECTORY its name is that of the URL, which may be the very place."""
    monkeypatch.chdir(tmp_path)
    for url in ("bucket", f"file://{tmp_path}/bucket"):
        assert "name another DIRECTORY" in run("", "attach", url, code=2).output
    assert not list(tmp_path.iterdir())


def test_what_a_shared_lake_cannot_do_is_refused_by_name(
    machines: SharedMachines, tmp_path: Path
) -> None:
    append(machines["a"], 1)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "file").write_text("x")
    result = run(machines["a"].path, "state", "save", "--dir", str(tmp_path / "state"), code=1)
    assert "shared" in result.output
    # Refused before it is read: nobody would collect what was stored of it.
    assert not list((tmp_path / "a" / "states").glob("*"))
    machines["a"].exchange()
    assert numbers(machines["b"]) == [1]
