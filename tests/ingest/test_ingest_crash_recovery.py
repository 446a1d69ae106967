"""kill -9 at random moments of ingest, and others at work on the same file: each row once."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401 - loaded before the fork, so that a child starts quickly
import pyarrow.compute
import pyarrow.parquet  # noqa: F401
import pytest

import lakelog
from lakelog.disk import disk
from lakelog.ingest import batch
from lakelog.lines import source
from lakelog.query import session  # noqa: F401
from tests.support.feeds import assert_each_once, event, feed, keyed, numbers, put, text
from tests.support.killed_ingests import KILLS, Feed, child, ended, killed, state, survive, taking
from tests.support.publishing import before_next_move


def end(pids: list[int]) -> None:
    """Wait until all children are done."""
    for pid in pids:
        assert ended(pid)


@pytest.mark.matrix
@pytest.mark.rounds
@pytest.mark.parametrize("kind", KILLS)
def test_killed_ingests_are_exactly_once(tmp_path: Path, kind: str) -> None:
    """However often ingest is killed, the rows published are those before the cursor, once."""
    kills, moves = survive(tmp_path, kind, kind, KILLS[kind])
    # Two of five are killed before a publish must have ended, which a slow machine does take.
    assert moves > kills // 4, "too few publishes to mean anything"


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["plain", "gz", "ids"])
def test_processes_on_one_file(tmp_path: Path, kind: str) -> None:
    """Three processes on one file at once, one of them killed now and then: every row once."""
    path, chance = str(tmp_path / "lake"), random.Random(kind)
    given = Feed(tmp_path / "f.jsonl", kind, 1500)
    with lakelog.open(path, settings={"seal": "never", "threads": 1}) as lake:
        for _ in range(3):
            pids = [child(taking(path, str(given.path)), chance.randint(50, 400)) for _ in "ab"]
            killed(taking(path, str(given.path)), chance)
            end(pids)
            assert state(lake)[0] == given.events(len(given.data))
            given.grow(700)
        lake.ingest(str(given.path))
        places = lake.sql("SELECT count(DISTINCT (origin, position)) AS n FROM events").fetchall()
        assert places == [(lake.count(),)] == [(given.events(len(given.data)),)]
        assert [p for p in lake.verify().problems if p.kind == "damage"] == []


def test_processes_on_a_short_file_that_grows(tmp_path: Path) -> None:
    """Processes that see a short file at different lengths do not take its lines twice."""
    path = str(tmp_path / "lake")
    lakelog.open(path, settings={"seal": "never", "threads": 1}).close()
    for turn in range(6):
        file, pids = tmp_path / f"f{turn}", []
        with open(file, "wb", buffering=0) as out:
            for n in range(4):
                data = feed(3, 100 * turn + 3 * n)
                out.write(data[:-20])  # a line is written in two parts
                pids.append(child(taking(path, str(file))))
                out.write(data[-20:])
        end(pids)
    with lakelog.open(path) as lake:
        lake.ingest(f"{tmp_path}/f*")
        assert sorted(numbers(lake)) == [100 * turn + n for turn in range(6) for n in range(12)]


def test_concurrent_with_compaction_appends_and_rollback(tmp_path: Path) -> None:
    """Beside appends, seals, compaction and rollbacks every row of the file is there once."""
    path, file = str(tmp_path / "lake"), tmp_path / "f"
    lakelog.open(path, settings={"seal": "never", "threads": 1}).close()
    put(file, feed(2000))
    chance = random.Random(11)

    def house() -> None:
        lake = lakelog.open(path)
        for turn in range(12):
            lake.append([{"type": "other"}] * 3)
            (lake.settle, lake.compact)[turn % 2]()

    def back() -> None:
        lake = lakelog.open(path)
        for _ in range(4):
            time.sleep(chance.random() * 0.1)
            lake.rollback(f"@{chance.randint(1, lake.log(1)[0].move.number)}")

    pids = [child(taking(path, str(file)), 30), child(taking(path, str(file)), 70)]
    pids += [child(house), child(back)]
    end(pids)
    with lakelog.open(path) as lake:
        lake.ingest(str(file))
        found = lake.sql("SELECT (data->>'n')::INT AS n FROM events WHERE type <> 'other'")
        assert sorted(n for (n,) in found.fetchall()) == list(range(2000))
        assert [p for p in lake.verify().problems if p.kind == "damage"] == []


# --- what may come between reading and publishing -------------------------------------------------


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], list[int]]:
    """Do something just before ingest publishes for the first time; count its publishes."""
    real, count = batch.publish, [0]

    def arrange(action: Callable[[], Any]) -> list[int]:
        def publish(*arguments: Any) -> Any:
            count[0] += 1
            if count[0] == 1:
                action()
            return real(*arguments)

        monkeypatch.setattr(batch, "publish", publish)
        return count

    return arrange


Between = Callable[[Callable[[], Any]], list[int]]
MakeLake = Callable[..., lakelog.Lake]


def test_another_process_was_faster(make_lake: MakeLake, tmp_path: Path, between: Between) -> None:
    """If another took the file, or the same file longer, ours gives nothing it gave."""
    lake, other = make_lake(), make_lake()
    path = put(tmp_path / "f", feed(300))
    counts = between(lambda: other.ingest(put(tmp_path / "copy", feed(200))))
    report = lake.ingest(path)
    assert (report.events, report.skipped, counts) == (100, 200, [3])
    assert_each_once(lake, 300)


@pytest.mark.parametrize(("ours", "theirs"), [(1, 3), (3, 1), (2, 50), (50, 2), (2, 2)])
def test_a_short_file_was_seen_at_another_length(
    make_lake: MakeLake, tmp_path: Path, between: Between, ours: int, theirs: int
) -> None:
    """A process that saw more of a short file, or less, published first: no line comes twice."""
    lake, other = make_lake(), make_lake()
    path = put(tmp_path / "f", feed(ours))

    def grown() -> None:
        other.ingest(put(tmp_path / "g", feed(theirs)))
        put(tmp_path / "f", feed(max(ours, theirs)))

    between(grown)
    lake.ingest(path)
    lake.ingest(path)
    assert_each_once(lake, max(ours, theirs))


@pytest.mark.parametrize("way", ["ingest", "append", "merged"])
def test_another_process_brought_our_ids(
    make_lake: MakeLake, tmp_path: Path, between: Between, way: str
) -> None:
    """Ids that were published meanwhile, by a file or by an append, are not stored again."""
    lake, other = make_lake(), make_lake()

    def same() -> None:
        if way == "append":
            other.append([event(n, id=f"id-{n}") for n in range(5, 8)])
            other.settle()
        else:
            other.ingest(put(tmp_path / "g", keyed(range(5, 8))))
        for n in range(8 if way == "merged" else 0):
            other.ingest(put(tmp_path / f"g{n}", keyed([100 + n])))

    counts = between(same)
    report = lake.ingest(put(tmp_path / "f", keyed(range(10))))
    assert (report.events, report.skipped) == (7, 3)
    assert counts[0] >= 2
    found = sorted(numbers(lake))
    assert found == [*range(10), *(range(100, 108) if way == "merged" else [])]


def test_a_rollback_took_the_twins(make_lake: MakeLake, tmp_path: Path, between: Between) -> None:
    """Events dropped because their ids were known are stored if a rollback took those away."""
    lake, other = make_lake(), make_lake()
    lake.append({"type": "first"})
    lake.tag("v1")
    lake.ingest(put(tmp_path / "a", keyed(range(10))))
    between(lambda: other.rollback("v1"))
    report = lake.ingest(put(tmp_path / "b", keyed(reversed(range(12)))))
    assert report.events == 12
    assert sorted(n for n in numbers(lake) if n is not None) == list(range(12))


@pytest.mark.parametrize("keep", [False, True])
def test_a_rollback_moved_the_cursor(
    make_lake: MakeLake, tmp_path: Path, between: Between, keep: bool
) -> None:
    """A rollback between two publishes takes the rows with the cursor, and they come again."""
    lake, other = make_lake(), make_lake()
    lake.ingest(put(tmp_path / "f", feed(10)))
    lake.tag("v1")
    lake.ingest(put(tmp_path / "f", feed(20)))
    between(lambda: other.rollback("v1", cursors=not keep))
    assert lake.ingest(put(tmp_path / "f", feed(30))).events == (10 if keep else 20)
    assert sorted(numbers(lake)) == [*range(10), *range(20 if keep else 10, 30)]


@pytest.mark.parametrize("what", ["faster", "rollback", "ids"])
def test_another_was_quick_right_after_our_publish(
    make_lake: MakeLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Whatever moves between our publish and the next batch: no line is lost and none twice."""
    monkeypatch.setattr(batch, "ROWS_MAX", 40)
    monkeypatch.setattr(source.Source, "CHUNK", 3000)
    lake, other, real, count = make_lake(), make_lake(), batch.publish, [0]
    lake.append({"type": "first"})
    lake.tag("v1")
    lines = keyed(range(300)) if what == "ids" else feed(300)
    path = put(tmp_path / "f", lines)
    steps = {
        "faster": lambda: other.ingest(path),
        "rollback": lambda: other.rollback("v1"),
        "ids": lambda: other.ingest(put(tmp_path / "g", keyed(reversed(range(200, 300))))),
    }

    def publish(*arguments: Any) -> Any:
        done, count[0] = real(*arguments), count[0] + 1
        if count[0] == 2:
            steps[what]()
        return done

    monkeypatch.setattr(batch, "publish", publish)
    lake.ingest(path)
    assert count[0] > 2
    assert sorted(n for n in numbers(lake) if n is not None) == list(range(300))


def test_a_rollback_keeps_cursors_that_moved_just_before_it(
    make_lake: MakeLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken in right before a rollback that keeps the cursors does not come again."""
    lake, other = make_lake(), make_lake()
    lake.ingest(put(tmp_path / "f", feed(10)))
    lake.tag("v1")
    lake.ingest(put(tmp_path / "f", feed(20)))
    tried = before_next_move(monkeypatch, lambda: other.ingest(put(tmp_path / "f", feed(30))))
    lake.rollback("v1", cursors=False)
    assert len(tried) == 3
    assert lake.ingest(put(tmp_path / "f", feed(40))).events == 10
    assert sorted(numbers(lake)) == [*range(10), *range(30, 40)]


def test_compaction_and_seals_between_do_no_harm(
    make_lake: MakeLake, tmp_path: Path, between: Between
) -> None:
    """Moves that touch neither cursor nor ids cost no second reading."""
    lake, other = make_lake(), make_lake()
    for n in range(3):
        lake.ingest(put(tmp_path / f"g{n}", feed(5000, 5000 * n)))

    def busy() -> None:
        other.append({"type": "T", "data": {"n": 16_000}})
        other.compact()
        other.tag("t")
        other.ingest(put(tmp_path / "h", feed(1000, 15_000)))

    counts = between(busy)
    lake.ingest(put(tmp_path / "f", text(event(n) for n in range(16_001, 17_000))))
    assert counts == [2]  # ours and the other's
    assert sorted(numbers(lake)) == list(range(17_000))


def test_a_file_renamed_and_replaced_while_it_is_read(
    make_lake: MakeLake, tmp_path: Path, between: Between
) -> None:
    """The open file is read to its end; its cursor is its own, not that of its name's new file."""
    lake = make_lake()
    path = tmp_path / "f"
    lake.ingest(put(path, feed(100)))

    def rotate() -> None:
        os.rename(path, tmp_path / "f.1")
        put(path, feed(50, 1000))

    put(path, feed(103))
    between(rotate)
    assert lake.ingest(str(path)).events == 3
    assert lake.ingest(str(path)).events == 50
    assert lake.ingest(str(tmp_path / "f.1")).events == 0
    assert sorted(numbers(lake)) == [*range(103), *range(1000, 1050)]


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_publish_retries_when_its_segment_vanished(
    make_lake: MakeLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """If gc took a new segment before its publish, the rows are read and written again."""
    real, left = batch.publish, [lost]

    def publish(store: Any, *given: Any) -> Any:
        left[0] -= 1
        for path in Path(store.paths.root, "segments").rglob("*.parquet") if left[0] >= 0 else ():
            path.unlink()
        return real(store, *given)

    monkeypatch.setattr(batch, "publish", publish)
    lake = make_lake()
    assert lake.ingest(put(tmp_path / "f.jsonl", feed(50) + b"oops\n")).events == 50
    assert_each_once(lake, 50)
    assert lake.at("main").sql("SELECT count(*) AS n FROM quarantine").fetchall() == [(1,)]


def test_a_clock_ahead_of_the_disk_s_costs_no_second_reading(
    make_lake: MakeLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the host's clock is a year ahead of the file system's, files go in all the same."""
    real, counts, now = batch.publish, [0], disk.now_us

    def publish(*given: Any) -> Any:
        counts[0] += 1
        assert counts[0] <= 2, "the file is read again and again"
        return real(*given)

    monkeypatch.setattr(batch, "publish", publish)
    monkeypatch.setattr(disk, "now_us", lambda: now() + 366 * 86_400_000_000)
    lake = make_lake()
    assert lake.ingest(put(tmp_path / "f", feed(50))).events == 50
    assert lake.ingest(put(tmp_path / "f", feed(60))).events == 10
    assert_each_once(lake, 60)
