"""Spans of moves: a new directory, and one that was away for long, take many in one request."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import DamagedManifest, TransferRefused, Unreachable
from lakelog.remotes.shared import attach, move_spans
from tests.support.attached import SharedMachines, append, numbers, publish_each


def spanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> Iterator[SharedMachines]:
    """Yield one machine that has made one more move than `count`, in spans of four moves."""
    monkeypatch.setattr(move_spans, "SPAN", 4)
    monkeypatch.setattr(move_spans, "GROWTH", 2)
    machines = SharedMachines(tmp_path)
    publish_each(machines["a"], range(count))
    yield machines
    machines.close()


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedMachines]:
    """One machine that has made fifteen moves: three spans, two moves of the next one, and one."""
    yield from spanned(tmp_path, monkeypatch, 14)


def spans(root: Path) -> list[Path]:
    """Return the files of spans in a bucket, in their order."""
    return sorted((root / "bucket" / "packs" / "main").iterdir())


def history(machines: SharedMachines, name: str) -> list[tuple[int, str]]:
    """Return the moves that a machine knows."""
    refs = machines[name].store.refs
    return [(move.number, move.snapshot) for move in refs.newest_first("main")]


def test_a_new_directory_has_all_moves_and_goes_on(
    machines: SharedMachines, tmp_path: Path
) -> None:
    assert [path.name[7:19] for path in spans(tmp_path)] == [f"{n:012d}" for n in (1, 5, 9, 13)]
    assert history(machines, "b") == history(machines, "a")
    folder = tmp_path / "b" / "refs" / "heads" / "main"
    assert not (folder / "000000000003.json").exists()
    append(machines["b"], 14)
    machines.exchange("b", "a")
    assert numbers(machines["a"]) == numbers(machines["b"]) == list(range(15))
    assert machines["b"].at("@2").count() == machines["a"].at("@2").count()


def test_spans_that_nobody_stored_are_stored_by_who_asked_for_each_move(
    machines: SharedMachines, tmp_path: Path
) -> None:
    before = [path.read_bytes() for path in spans(tmp_path)]
    shutil.rmtree(tmp_path / "bucket" / "packs")
    assert history(machines, "b") == history(machines, "a")
    assert [path.read_bytes() for path in spans(tmp_path)] == before


@pytest.mark.parametrize("damage", ["flipped", "cut", "swapped"])
def test_a_span_that_cannot_be_believed_is_passed_over(
    machines: SharedMachines, tmp_path: Path, damage: str
) -> None:
    first, second, *_ = spans(tmp_path)
    data = second.read_bytes()
    wrong = {"flipped": data[:40] + bytes([data[40] ^ 1]) + data[41:], "cut": data[:-9]}
    second.write_bytes(wrong.get(damage) or first.read_bytes())
    assert history(machines, "b") == history(machines, "a")
    assert numbers(machines["b"]) == list(range(14))


def test_a_span_of_another_history_is_found_out(machines: SharedMachines, tmp_path: Path) -> None:
    other = SharedMachines(tmp_path / "other")
    for number in range(14):
        append(other["a"], number)
        other["a"].exchange()
    for path in spans(tmp_path):
        shutil.copy(tmp_path / "other" / "bucket" / "packs" / "main" / path.name, path)
    other.close()
    with pytest.raises(TransferRefused, match="is not there as this machine has it"):
        attach(machines.url, str(tmp_path / "b"))


def test_an_attachment_that_was_interrupted_between_spans_goes_on(
    machines: SharedMachines, tmp_path: Path
) -> None:
    assert numbers(machines["b"]) == list(range(14))
    folder = tmp_path / "b" / "refs" / "heads" / "main"
    for path in [*folder.glob("0*.json"), folder / "hint"]:
        path.unlink(missing_ok=True)
    attach(machines.url, str(tmp_path / "b"))
    machines.reopened("b").exchange()
    assert history(machines, "b") == history(machines, "a")


def manifest_files(root: Path) -> list[Path]:
    """Return the manifests and pages that a directory has."""
    return sorted(root.glob("manifests/*/*"))


@pytest.fixture
def long_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_manifests: None
) -> Iterator[SharedMachines]:
    """The same of ten moves, none of which carries its manifest: that of a large lake is too
    long."""
    yield from spanned(tmp_path, monkeypatch, 9)


def test_only_the_newest_of_long_manifests_are_fetched(
    long_states: SharedMachines, tmp_path: Path
) -> None:
    lake = long_states["b"]
    assert 0 < len(manifest_files(tmp_path / "b")) < 4
    assert numbers(lake) == list(range(9))
    assert lake.at("@5").count() == long_states["a"].at("@5").count() == 4
    logs = [[(e.move.number, e.events) for e in long_states[n].log()] for n in "ab"]
    assert logs[0] == logs[1]
    assert len(manifest_files(tmp_path / "b")) == len(manifest_files(tmp_path / "a"))


def test_older_states_of_a_new_directory_are_as_reachable_as_elsewhere(
    long_states: SharedMachines, tmp_path: Path
) -> None:
    """By time, by tag, by branch and by rollback; backup, clone, verify and gc go on as well."""
    first, second = long_states["a"], long_states["b"]
    states = [move.snapshot for move in first.store.refs.newest_first("main")]
    times = [move.time for move in first.store.refs.newest_first("main")]
    moment = datetime.fromtimestamp(times[4] / 1e6 + 1e-5, UTC).isoformat()
    assert long_states["c"].at(moment).snapshot().id == states[4]
    second.gc()
    long_states["d"].tag("old", states[6])
    with long_states["e"].branch("other", states[6]) as other:
        assert other.count() == long_states["d"].at("old").count()
    assert second.verify().problems == ()
    second.backup(str(tmp_path / "copy"))
    with lakelog.open(str(tmp_path / "copy"), create=False) as copy:
        assert copy.at(states[5]).count() == first.at(states[5]).count()
        assert copy.verify().problems == ()
    long_states["f"].rollback(states[5])
    first.exchange()
    assert numbers(first) == numbers(long_states["f"])


def test_a_new_directory_needs_no_manifest_that_a_prune_has_deleted(
    long_states: SharedMachines, tmp_path: Path
) -> None:
    gone = next(m for m in long_states["a"].store.refs.newest_first("main") if m.number == 4)
    (path,) = (tmp_path / "bucket").rglob(f"{gone.snapshot}*")
    path.unlink()
    shutil.rmtree(tmp_path / "bucket" / "packs")
    assert numbers(long_states["b"]) == list(range(9))
    with pytest.raises(DamagedManifest, match="missing"):
        long_states["b"].at(gone.snapshot).count()
    assert [e.events for e in long_states["b"].log() if e.move.number == 4] == [None]


def test_a_manifest_that_is_another_in_the_bucket_is_refused_when_it_is_read(
    long_states: SharedMachines, tmp_path: Path
) -> None:
    old = next(m for m in long_states["a"].store.refs.newest_first("main") if m.number == 4)
    new = long_states["a"].store.refs.head("main").move
    (wrong,) = (tmp_path / "bucket").rglob(f"{old.snapshot}*")
    (right,) = (tmp_path / "bucket").rglob(f"{new.snapshot}*")
    wrong.write_bytes(right.read_bytes())
    assert numbers(long_states["b"]) == list(range(9))
    with pytest.raises(TransferRefused, match="damaged there"):
        long_states["b"].at(old.snapshot).count()


def test_a_new_directory_reads_on_while_the_bucket_is_away(
    long_states: SharedMachines, tmp_path: Path
) -> None:
    assert numbers(long_states["b"]) == list(range(9))
    (tmp_path / "bucket").rename(tmp_path / "away")
    lake = long_states.reopened("b")
    assert numbers(lake) == list(range(9))
    events = [e.events for e in lake.log()]
    assert (events[0], len(events)) == (9, 10)
    with pytest.raises(Unreachable):
        lake.at("@3").count()
    lake.gc()


def test_rows_are_erased_from_states_that_were_not_here(
    long_states: SharedMachines, tmp_path: Path
) -> None:
    long_states["a"].append({"type": "T", "subject": "ada", "data": {"n": 90}})
    long_states["a"].exchange()
    append(long_states["a"], 91)
    long_states["a"].exchange()
    state = long_states["a"].store.refs.read("main", 11).snapshot
    erasure = long_states["b"].erase(subject="ada", why="asked")
    assert erasure.erasure.events == 1
    long_states.exchange("a", "b")
    for name in "abc":
        assert long_states[name].at(state).count() == 9
        assert long_states[name].verify().problems == ()
