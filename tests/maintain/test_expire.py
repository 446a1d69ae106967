"""Expiry of history: earlier states are given up by one move, and their files are deleted at once;
what a tag, another branch or the present state needs stays."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.disk import disk
from lakelog.errors import NotAllowed, QueryFailed, SnapshotGone, UnknownRef
from lakelog.history.thinning import window
from lakelog.maintain import gc as collecting
from lakelog.paths import LEASE
from lakelog.refs import Move
from lakelog.settings import Settings
from tests.support.cli import answer, run
from tests.support.effort import share

MakeLake = Callable[..., lakelog.Lake]
DAY = 86_400_000_000
Rows = set[tuple[str, int]]


def put(lake: lakelog.Lake, name: str, count: int = 200, age: int = 40) -> None:
    """Append events of so many days ago, of a size that is seen, in a segment of their own."""
    start = disk.now_us() - age * DAY
    data = [os.urandom(300).hex() for _ in range(count)]
    lake.append([{"type": name, "time": start + n, "data": {"n": data[n]}} for n in range(count)])
    lake.settle()


def segment_bytes(lake: lakelog.Lake) -> int:
    """Bytes of all segments on disk, named by any state or none."""
    files = Path(lake.store.paths.root, "segments").rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def rows(lake: Any) -> Rows:
    """Return the events of a state."""
    return set(lake.sql("SELECT type, epoch_us(time) FROM events").fetchall())


def test_removed_events_give_their_space_back_at_once(lake: lakelog.Lake) -> None:
    """Retention alone frees nothing for as long as undo can bring the events back."""
    put(lake, "old")
    put(lake, "new", count=3, age=1)
    before = segment_bytes(lake)
    assert lake.retention("30d", apply=True).events == 200
    lake.gc()
    assert segment_bytes(lake) >= before
    result = lake.expire("disk is full")
    assert result.bytes > before / 2
    assert result.condemned == 0
    assert segment_bytes(lake) < before / 10
    assert {name for name, _ in rows(lake)} == {"new"}
    assert lake.verify().intact
    assert next(lake.store.refs.newest_first("main")).message == "disk is full"
    with pytest.raises(UnknownRef, match="outside the kept history"):
        lake.undo()
    # No file is damaged: the look says what the undo does.
    said = run(lake.path, "undo", "--dry-run", code=1).stderr
    assert "a state since the last `expire`" in said
    put(lake, "later", count=1)
    assert len(rows(lake)) == 4
    assert lake.verify().intact


def test_nothing_is_deleted_beside_a_push(lake: lakelog.Lake) -> None:
    """A push that holds a lease may be about to name what is given up; the next run deletes it."""
    put(lake, "old")
    lake.retention("30d", apply=True)
    lease = Path(lake.store.paths.gc, f"{LEASE}1")
    lease.parent.mkdir(exist_ok=True)
    lease.touch()
    before = segment_bytes(lake)
    assert (lake.expire().deleted, segment_bytes(lake)) == (0, before)
    lease.unlink()
    assert lake.expire().deleted > 0
    assert segment_bytes(lake) == 0


@pytest.mark.parametrize("keep", ["tag", "branch"])
def test_what_another_ref_names_stays(lake: lakelog.Lake, keep: str) -> None:
    """A tag and a branch keep their states, whatever is given up beside them."""
    put(lake, "old")
    lake.tag("kept") if keep == "tag" else lake.branch("kept")
    expected = rows(lake)
    lake.retention("30d", apply=True)
    before = segment_bytes(lake)
    lake.expire()
    assert segment_bytes(lake) == before
    assert rows(lake) == set()
    assert set(lake.sql('SELECT type, epoch_us(time) FROM "kept".events').fetchall()) == expected
    assert lake.verify().intact


@pytest.mark.parametrize("hours", [24, 0])
def test_a_state_that_was_given_up_is_refused(make_lake: MakeLake, hours: int) -> None:
    """Nobody goes back to it or tags it, though its move still carries its manifest."""
    lake = make_lake(gc_grace_hours=hours)
    put(lake, "old")
    earlier = lake.snapshot("earlier").id
    lake.retention("30d", apply=True)
    lake.expire()
    for step in (
        lambda: lake.rollback(earlier),
        lambda: lake.tag("t", earlier),
        lambda: lake.at(earlier),
    ):
        with pytest.raises(UnknownRef, match="outside the kept history"):
            step()
    assert lake.verify().intact


def test_a_reader_of_an_earlier_state_is_told_to_read_again(lake: lakelog.Lake) -> None:
    """It gets an error and no other rows."""
    put(lake, "old")
    pinned = lake.at(lake.snapshot("s").id)
    lake.retention("30d", apply=True)
    lake.expire()
    lake.store.manifests.forget()
    with pytest.raises((SnapshotGone, UnknownRef)):
        pinned.sql("SELECT * FROM events").fetchall()


def test_an_answer_whose_rows_were_given_up_says_so(lake: lakelog.Lake) -> None:
    """Rows that are asked for only then: the query has to be asked again."""
    put(lake, "old")
    lake.settle()
    answer = lake.sql("SELECT data FROM events")
    lake.retention("30d", apply=True)
    lake.expire()
    with pytest.raises(QueryFailed, match="run it again"):
        answer.fetchall()


@pytest.mark.rounds
def test_random_histories_lose_nothing_that_is_named(make_lake: MakeLake) -> None:
    """Against a model of what each tag, each branch and the head hold."""
    for seed in range(share(40)):
        chance = random.Random(seed)
        lake, names = (
            make_lake(f"l{seed}"),
            {"tags": dict[str, Rows](), "branches": dict[str, Rows]()},
        )
        for step in range(chance.randrange(4, 14)):
            action = chance.choice(
                ["put", "put", "retention", "tag", "branch", "snapshot", "compact", "expire", "gc"]
            )
            if action == "put":
                put(lake, f"s{step}", chance.randrange(1, 4), chance.choice([1, 20, 40]))
            elif action == "retention":
                lake.retention(chance.choice(["10d", "30d"]), apply=True)
            elif action in ("tag", "branch"):
                getattr(lake, action)(f"{action}{step}")
                names["tags" if action == "tag" else "branches"][f"{action}{step}"] = rows(lake)
            else:
                getattr(lake, action)()
            for name, expected in (names["tags"] | names["branches"]).items():
                query = f'SELECT type, epoch_us(time) FROM "{name}".events'
                assert set(lake.sql(query).fetchall()) == expected, (seed, step, name)
        present = rows(lake)
        lake.expire()
        assert rows(lake) == present, seed
        assert lake.verify().intact, seed
        lake.close()


def test_crash_recovery_at_every_deletion(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it ends, the lake is intact, and the next run deletes what is left."""
    unlink, left = disk.unlink, [0]

    def failing(path: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(5, "the disk is gone", path)
        unlink(path)

    for place in range(1, 40, 3):
        lake = make_lake(f"l{place}")
        for n in range(4):
            put(lake, f"old{n}", count=20)
        lake.retention("30d", apply=True)
        left[0] = place
        with monkeypatch.context() as patch:
            patch.setattr(disk, "unlink", failing)
            try:
                lake.expire()
                is_whole = True
            except OSError:
                is_whole = False
        lake.store.manifests.forget()
        assert lake.verify().intact, place
        lake.expire()
        assert segment_bytes(lake) == 0, place
        assert rows(lake) == set()
        lake.close()
        if is_whole:
            return
    raise AssertionError("there are more deletions than were tried")


def moves(ops: list[tuple[str, float]]) -> list[Move]:
    """Moves with so many days of age, the newest first."""
    count = len(ops)
    return [
        Move(count - n, "main", "", "", round(-age * DAY), "", op, "", f"{count - n}", 0)
        for n, (op, age) in enumerate(ops)
    ]


@pytest.mark.parametrize(
    ("ops", "kept"),
    [
        ([("seal", 0), ("expire", 0), ("seal", 0), ("snapshot", 1)], 2),
        ([("expire", 90), ("seal", 91)], 1),
        ([("seal", 1), ("retention", 2), ("seal", 50)], 3),
        ([("seal", 1), ("retention", 40), ("seal", 50), ("snapshot", 60)], 2),
        ([("retention", 40), ("seal", 50)], 1),
        ([("seal", 1), ("snapshot", 40), ("seal", 50)], 3),
    ],
)
def test_kept_moves(ops: list[tuple[str, float]], kept: int) -> None:
    """History ends at `expire`, and at a retention that is older than the days of history: else the
    newest hundred moves would keep what it removed for good."""
    assert len(list(window(Settings(), moves(ops), 0))) == kept


def test_command_asks_and_reports(lake: lakelog.Lake) -> None:
    """A dry run counts what the removal deletes, and changes nothing; a tag is named."""
    put(lake, "old")
    lake.tag("v1")
    put(lake, "older")
    lake.retention("30d", apply=True)
    before = segment_bytes(lake)
    counted = answer(lake.path, "expire", "--dry-run")
    assert segment_bytes(lake) == before
    assert "without" not in run(lake.path, "expire", code=2).output
    deleted = answer(lake.path, "expire", "--yes", "-m", "space")
    assert (counted["deleted"], counted["bytes"]) == (deleted["deleted"], deleted["bytes"])
    assert segment_bytes(lake) < before
    assert (
        "1 tag kept with what they name: v1"
        in run(lake.path, "expire", "--yes", "--format", "table").stdout
    )
    assert "space" in run(lake.path, "log", "--format", "table").stdout


def test_write_ahead_log_of_removed_events_is_freed(make_lake: MakeLake) -> None:
    """That of the process that asks, too, which goes on as another writer with no event lost."""
    lake = make_lake()
    wal = Path(lake.store.paths.wal_dir("main"))
    for turn in range(3):
        put(lake, f"old{turn}")
        lake.append({"type": "kept"})
        lake.retention("30d", apply=True)
        lake.expire()
        assert sum(file.stat().st_size for file in wal.iterdir()) == 0
        assert [name for name, _ in sorted(rows(lake))] == ["kept"] * (turn + 1)
    assert len(lake.append([{"type": "a"}, {"type": "b"}]).ids) == 2
    assert len(rows(lake)) == 5


def test_concurrent_appends_are_acknowledged_once(make_lake: MakeLake) -> None:
    """While history is given up again and again, threads append through the same lake."""
    lake, ids = make_lake(), list[str]()

    def work(name: str) -> None:
        for n in range(60):
            ids.extend(lake.append([{"type": name, "data": {"n": n}}] * 2).ids)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        lake.expire()
    for thread in threads:
        thread.join()
    stored = lake.sql("SELECT origin || ':' || position FROM events").fetchall()
    assert sorted(ids) == sorted(id for (id,) in stored)
    assert len(set(ids)) == 360


def test_policy_may_forbid_it(lake: lakelog.Lake) -> None:
    """It takes away what undo and rollback need."""
    put(lake, "old")
    Path(lake.store.paths.policy).write_text('[allow]\nexpire = ["nobody"]\n')
    with pytest.raises(NotAllowed, match="expire"):
        lake.expire()
    assert collecting.expire(lake.store, "main", dry_run=True).dry_run
