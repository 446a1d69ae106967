"""Following a branch: each event once, in the order of arrival, whatever the lake does."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import lakelog
from lakelog.errors import QueryFailed
from lakelog.event import BookkeepingEvent
from lakelog.store import VerifiedFiles
from lakelog.subscriptions import BranchRewound, Follower
from lakelog.subscriptions.delivery import DEAD_LETTER, NOT_DEAD, SETTLED

MakeLake = Callable[..., lakelog.Lake]


def follower(lake: lakelog.Lake, where: str | None = None) -> Follower:
    """A follower of the lake's branch."""
    return Follower(lake.subscriptions(), where)


def types(table: pa.Table) -> list[str]:
    """The types of events, which the tests use as names."""
    found: list[str] = table["type"].to_pylist()
    return found


def more(of: Follower) -> list[str]:
    """What came since, rewinds as a word."""
    found: list[str] = []
    for part in of.more():
        found += [f"<{part.op}>"] if isinstance(part, BranchRewound) else types(part)
    return found


def test_the_last_events(lake: lakelog.Lake) -> None:
    """Published ones by seq, then those of the tail; as many as asked for, or all there are."""
    for n in range(6):
        lake.append({"type": f"t{n}"})
        if n in (1, 3):
            lake.settle()
    for count in (0, 1, 2, 3, 5, 6, 99):
        expected = [f"t{n}" for n in range(6)][6 - min(count, 6) :]
        assert types(follower(lake).last(count)) == expected
    lake.compact()
    assert types(follower(lake).last(3)) == ["t3", "t4", "t5"]


def test_the_last_that_match(lake: lakelog.Lake) -> None:
    """A condition is searched for backwards through as many segments as it takes."""
    for n in range(40):
        lake.append([{"type": "A" if n % 9 else "B", "data": {"n": n}}, {"type": "C"}])
        lake.settle()
    lake.append({"type": "B", "data": {"n": 99}})
    found = follower(lake, "type = 'B' AND (data->>'n')::INT >= 9").last(3)
    assert [json.loads(d)["n"] for d in found["data"].to_pylist()] == [27, 36, 99]
    assert follower(lake, "type = 'NONE'").last(3).num_rows == 0


def test_few_segments_are_opened(make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last events of a lake of many segments are found in the newest ones alone."""
    lake, opened = make_lake(), list[int]()
    for n in range(50):
        lake.append([{"type": f"t{n}"}] * 10)
        lake.settle()
    real = VerifiedFiles.require

    def require(verified: VerifiedFiles, group: list[Any]) -> None:
        opened.append(len(group))
        real(verified, group)

    monkeypatch.setattr(VerifiedFiles, "require", require)
    assert follower(lake).last(15).num_rows == 15
    assert sum(opened) <= 5
    opened.clear()
    assert follower(lake, "type = 't3'").last(15).num_rows == 10
    assert sum(opened) == 1


def test_live_events_of_all_processes(make_lake: MakeLake) -> None:
    """Events of other writers are given as they come, in the order of their arrival."""
    a, b = make_lake(), make_lake()
    following = follower(make_lake())
    a.append({"type": "before"})
    assert types(following.last(1)) == ["before"]
    for n in range(5):
        (a, b)[n % 2].append({"type": f"t{n}"})
    assert more(following) == ["t0", "t1", "t2", "t3", "t4"]
    a.settle()
    assert more(following) == []
    b.append([{"type": "t5"}, {"type": "t6"}])
    a.append({"type": "t7"})
    a.settle()
    b.append({"type": "t8"})
    assert more(following) == ["t5", "t6", "t7", "t8"] or more(following) == []
    assert more(following) == []


def test_dead_letters_are_left_out_of_a_tail_as_of_what_is_published(make_lake: MakeLake) -> None:
    """Whoever appended them, also beside events of others of the same source or type."""
    lake = make_lake()
    following = follower(lake, NOT_DEAD)
    following.last(0)
    for publish in (lambda: None, lake.settle):
        lake.append([{"type": "a"}, {"type": "b", "source": "web"}])
        lake.append([{"type": "c"}])
        publish()
        assert more(following) == ["a", "b", "c"]
        own = {"source": BookkeepingEvent.SOURCE}
        lake.append([{"type": DEAD_LETTER, **own}, {"type": "d", **own}, {"type": DEAD_LETTER}])
        lake.append({"type": SETTLED, **own})
        publish()
        assert more(following) == ["d", DEAD_LETTER]


def test_a_batch_seen_in_part(make_lake: MakeLake) -> None:
    """What was seen in the tail does not come again when it is sealed with more."""
    lake = make_lake()
    following = follower(lake)
    following.last(0)
    lake.append({"type": "t0"})
    assert more(following) == ["t0"]
    lake.append({"type": "t1"})
    lake.settle()
    lake.compact()
    lake.append({"type": "t2"})
    assert more(following) == ["t1", "t2"]


def test_rows_that_are_published_at_once(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Ingested files, whose rows never were in a WAL, are given too, each once."""
    following = follower(lake)
    following.last(0)
    (tmp_path / "a.jsonl").write_text('{"type":"f0"}\n{"type":"f1"}\n')
    lake.append({"type": "t0"})
    assert more(following) == ["t0"]
    lake.ingest(str(tmp_path / "a.jsonl"))
    assert more(following) == ["f0", "f1"]
    lake.settle()
    assert more(following) == []


def test_given_ids_come_once(make_lake: MakeLake) -> None:
    """A known id is no new event, in the tail as in what is published."""
    lake = make_lake()
    following = follower(lake)
    lake.append({"type": "A", "id": "1"})
    following.last(0)
    lake.append([{"type": "B", "id": "1"}, {"type": "C", "id": "2"}])
    assert more(following) == ["C"]
    lake.settle()
    lake.append([{"type": "D", "id": "2"}, {"type": "E"}])
    assert more(following) == ["E"]


def test_an_id_that_is_published_past_the_tail(lake: lakelog.Lake, tmp_path: Path) -> None:
    """An event of the tail that a file brings too, and first into the history, comes once."""
    following = follower(lake)
    following.last(0)
    lake.append([{"type": "A", "id": "1"}, {"type": "B", "id": "2", "source": "s"}])
    assert more(following) == ["A", "B"]
    (tmp_path / "a.jsonl").write_text('{"type":"A","id":"1"}\n{"type":"C","id":"2"}\n')
    lake.ingest(str(tmp_path / "a.jsonl"))
    assert more(following) == ["C"]
    lake.settle()
    lake.append({"type": "D", "id": "1"})
    assert more(following) == []


def test_many_at_once(lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came in bulk is given in tables of bounded size."""
    monkeypatch.setattr("lakelog.subscriptions.follower._ROWS_MAX", 5)
    following = follower(lake)
    following.last(0)
    for n in range(4):
        lake.append([{"type": f"{n}-{m}"} for m in range(3)])
        lake.settle()
    parts = [part for part in following.more() if isinstance(part, pa.Table)]
    assert [part.num_rows for part in parts] == [5, 5, 2]
    assert [t for part in parts for t in types(part)] == [
        f"{n}-{m}" for n in range(4) for m in range(3)
    ]


def test_what_is_published_after_a_rollback(lake: lakelog.Lake) -> None:
    """Events that take the numbers of those that were taken back are new all the same."""
    lake.append({"type": "t0"})
    lake.tag("v1")
    lake.append([{"type": "t1"}, {"type": "t2"}])
    following = follower(lake)
    assert types(following.last(9)) == ["t0", "t1", "t2"]
    lake.rollback("v1")
    lake.append({"type": "t3"})
    lake.settle()
    assert more(following) == ["<rollback>", "t3"]


def test_a_rollback_is_said(lake: lakelog.Lake) -> None:
    """Events before a rollback are given, then that it came, then what follows it."""
    lake.append({"type": "t0"})
    lake.tag("v1")
    following = follower(lake)
    assert types(following.last(9)) == ["t0"]
    lake.append({"type": "t1"})
    lake.settle()
    lake.append({"type": "t2"})
    lake.rollback("v1")
    lake.append({"type": "t3"})
    assert more(following) == ["t1", "t2", "<rollback>", "t3"]
    lake.undo(force=True)
    lake.append({"type": "t4"})
    assert more(following)[-2:] == ["<undo>", "t4"]
    lake.settle()
    lake.compact()
    assert more(following) == []
    assert following.last(2)["type"].to_pylist() == ["t2", "t4"]


@pytest.mark.parametrize("count", [1, 3])
def test_a_restored_backup_is_said(make_lake: MakeLake, tmp_path: Path, count: int) -> None:
    """What comes after it has numbers of events that were given, which mean others now."""
    lake = make_lake()
    lake.append({"type": "t0"})
    lake.settle()
    lake.backup(tmp_path / "copy")
    following = follower(lake)
    following.last(0)
    lake.append([{"type": "t1"}, {"type": "t2"}])
    lake.settle()
    assert more(following) == ["t1", "t2"]
    shutil.rmtree(lake.path)
    shutil.copytree(tmp_path / "copy", lake.path)
    with lakelog.open(lake.path, create=False) as other:
        other.append([{"type": f"t{n}"} for n in range(3, 3 + count)])
        assert more(following) == ["<restore>", *(f"t{n}" for n in range(3, 3 + count))]
        other.settle()
        assert more(following) == []
        (tmp_path / "more.jsonl").write_text('{"type":"t6"}\n')
        other.ingest(tmp_path / "more.jsonl")
        assert more(following) == ["t6"]


def test_many_streams_before_a_rollback(lake: lakelog.Lake) -> None:
    """Versions that were given from the tail do not come again, however many streams there are,
    though the branch was taken back before the next look."""
    lake.append({"type": "first"})
    lake.tag("v1")
    following = follower(lake)
    following.last(0)
    names = [f"s{n}" for n in range(130)]
    lake.append([{"type": "t", "subject": name} for name in names], expect=dict.fromkeys(names, 0))
    assert more(following) == ["t"] * 130
    lake.settle()
    lake.rollback("v1")
    lake.append({"type": "new"})
    assert more(following) == ["<rollback>", "new"]


@pytest.mark.parametrize(
    "where", ["nothing = 1", "type =", "type = 'x'; SELECT 1", "", "type = 'a"]
)
def test_a_condition_that_is_none(lake: lakelog.Lake, where: str) -> None:
    """It is refused at once, in one line."""
    with pytest.raises(QueryFailed) as caught:
        follower(lake, where)
    assert "\n" not in str(caught.value)


@pytest.mark.matrix
@pytest.mark.parametrize("seed", range(6))
def test_each_once_whatever_happens(make_lake: MakeLake, tmp_path: Path, seed: int) -> None:
    """Appends, seals, ingests, compactions and retentions in any order: each event once."""
    chance = random.Random(seed)
    lakes = [make_lake() for _ in range(3)]
    following = follower(make_lake())
    following.last(0)
    made, given = list[str](), list[str]()
    for step in range(60):
        lake, what = chance.choice(lakes), chance.random()
        names = [f"{step}-{n}" for n in range(chance.randrange(1, 4))]
        if what < 0.55:
            lake.append([{"type": name} for name in names])
            made += names
        elif what < 0.65:
            path = tmp_path / f"{step}.jsonl"
            path.write_text("".join(f'{{"type":"{name}"}}\n' for name in names))
            lake.ingest(str(path))
            made += names
        elif what < 0.85:
            lake.settle()
        elif what < 0.95:
            lake.compact()
        else:
            lake.retention("1d", apply=True)
        if chance.random() < 0.6:
            given += more(following)
    given += more(following)
    assert sorted(given) == sorted(made)
    assert given == made or len(set(given)) == len(given)


def test_python_follows_until_it_is_told_to_stop(make_lake: MakeLake) -> None:
    """`follow` begins at its call. It ends when `stop` is set, also between two events that came
    together, or when no event came for `timeout` seconds; 0 gives what is there."""
    lake, stop = make_lake(), threading.Event()
    lake.append({"type": "before"})
    coming = lake.follow(stop=stop, pause=0.01)
    idle = lake.follow(timeout=0)
    lake.append([{"type": "a"}, {"type": "b"}])
    lake.settle()
    assert [event["type"] for event in idle] == ["a", "b"]
    assert list(idle) == []
    assert next(coming)["type"] == "a"
    stop.set()
    assert list(coming) == []
    waiting, ended = lake.follow(stop=(later := threading.Event())), list[list[Any]]()
    thread = threading.Thread(target=lambda: ended.append(list(waiting)))
    thread.start()
    later.set()
    thread.join(60)
    assert ended == [[]]
    with pytest.raises(QueryFailed):
        lake.follow(where="nope = 1")
