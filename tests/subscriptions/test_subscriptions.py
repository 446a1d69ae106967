"""Subscriptions: each event is handled once, in its order, whatever fails or goes back."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lakelog
from lakelog import history, subscriptions
from lakelog.cli import cli
from lakelog.entries import Record
from lakelog.errors import (
    DamagedManifest,
    Diverged,
    InvalidSetting,
    QueryFailed,
    SubscriptionGone,
    SubscriptionRewound,
)
from lakelog.lake import Lake
from lakelog.moves.publication import Change, publish
from lakelog.remotes import known
from lakelog.remotes.fetches import clone, pull
from lakelog.remotes.pushes import push
from lakelog.subscriptions import administration, record
from lakelog.subscriptions.catch_up import read
from lakelog.subscriptions.members import Membership
from lakelog.subscriptions.position import PARTITIONS, Position
from tests.conftest import MakeLake

SUBSCRIPTIONS = int(os.environ.get("LAKELOG_SUBSCRIPTION_COUNT", "300"))


def numbers(count: int, start: int = 0, **columns: Any) -> list[dict[str, Any]]:
    return [
        {"type": "IN", "subject": f"s{n % 5}", "data": {"n": n}, **columns}
        for n in range(start, start + count)
    ]


def number(event: dict[str, Any]) -> int:
    return int(json.loads(event["data"])["n"])


def handle(lake: Lake, name: str = "test", where: str | None = None) -> list[int]:
    """The numbers of events that a subscription hands out now."""
    seen: list[int] = []
    with lake.subscribe(name, where=where) as subscription:
        subscription.run(lambda event: seen.append(number(event)), once=True)
    return seen


def wait_for(condition: Any) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_subscription_goes_on_where_it_was(make_lake: MakeLake) -> None:
    """Published and pending events come once, in order; another name has a position of its own."""
    lake = make_lake()
    lake.append(numbers(50))
    lake.settle()
    lake.append(numbers(50, 50))
    assert handle(lake) == list(range(100))
    assert handle(lake) == []
    lake.compact()
    lake.append(numbers(3, 100))
    assert handle(lake) == [100, 101, 102]
    assert handle(lake, "other") == list(range(103))


def test_a_subscription_has_events_that_match(make_lake: MakeLake) -> None:
    """A condition is SQL, also with `search`; one that is wrong, or another one, is an error."""
    lake = make_lake()
    lake.append([*numbers(10), {"type": "IN", "message": "request timed out", "data": {"n": 77}}])
    assert handle(lake, "some", "data->>'n' IN ('3', '5')") == [3, 5]
    assert handle(lake, "words", "search('timed')") == [77]
    with pytest.raises(QueryFailed):
        lake.subscribe("wrong", where="nonsense = 1")
    # In parentheses this is SQL, and all events of every member.
    for wrong in ("type = 'no') OR (true", "true); CREATE TABLE made AS (SELECT 1"):
        with pytest.raises(QueryFailed, match="not one expression"):
            lake.subscribe("wrong", where=wrong)
    with pytest.raises(InvalidSetting, match="1 or more"):
        lake.subscribe("some").run(print, attempts=0)
    with pytest.raises(InvalidSetting, match="is for events where"):
        lake.subscribe("some", where="type = 'OUT'")
    for name in ("", " x", "a\nb", "x" * 300):
        with pytest.raises(InvalidSetting):
            lake.subscribe(name)
    for start in ("later", "12", "-1"):
        with pytest.raises(InvalidSetting, match="no place to begin"):
            lake.subscribe("new", from_=start)
    lake.subscribe("late", from_="end").close()
    lake.append(numbers(1, 500))
    assert handle(lake, "late") == [500]


def test_live_events_are_handed_out_at_once(make_lake: MakeLake) -> None:
    """What is appended while a subscriber waits reaches it without a settle, each event once."""
    lake, seen, stop = make_lake(), list[int](), threading.Event()

    def run() -> None:
        with lakelog.open(lake.path) as own, own.subscribe("live") as subscription:
            subscription.run(lambda event: seen.append(number(event)), stop=stop, commit_every=0.05)

    thread = threading.Thread(target=run)
    thread.start()
    for start in range(0, 60, 3):
        lake.append(numbers(3, start, **({"id": f"i{start}"} if start % 2 else {})))
        wait_for(lambda start=start: seen and seen[-1] >= start)
    # Three events of one id are one.
    expected = [n for n in range(60) if n // 3 * 3 % 2 == 0 or n % 3 == 0]
    wait_for(lambda: len(seen) == len(expected))
    stop.set()
    thread.join()
    assert seen == expected
    assert handle(lake, "live") == []


def test_order_across_an_ingest_is_that_of_arrival(make_lake: MakeLake, tmp_path: Any) -> None:
    """What is ingested is published before what was appended earlier, and handed out after it."""
    lake = make_lake()
    lake.subscribe("test").close()
    lake.append(numbers(5))
    file = tmp_path / "more.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in numbers(5, 5)))
    lake.ingest(str(file))
    assert handle(lake) == list(range(10))


def test_reactions_are_committed_with_the_position(make_lake: MakeLake) -> None:
    """What a handler returns is appended in the move that takes the position; neither alone."""
    lake = make_lake()
    lake.append(numbers(20))
    with lake.subscribe("react", where="type = 'IN'") as subscription:
        subscription.run(
            lambda event: [{"type": "OUT", "data": {"n": number(event)}}] * 2, once=True
        )
        subscription.run(lambda event: pytest.fail("once more"), once=True)
    (count,) = lake.sql("SELECT count(*) FROM events WHERE type = 'OUT'").fetchone() or ()
    assert count == 40
    moves = [entry.move.op for entry in lake.log()]
    assert moves.count("subscription") == 2  # created, and moved with its outputs
    lake.append(numbers(1, 20))

    def fail(event: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with lake.subscribe("react") as subscription, pytest.raises(KeyboardInterrupt):
        subscription.run(fail, once=True)
    assert handle(lake, "react") == [20]


def test_an_event_that_fails_becomes_a_dead_letter(make_lake: MakeLake) -> None:
    """A handler that raises for ever stops neither later events nor others; a letter is retried."""
    lake, seen = make_lake(), list[int]()
    lake.append(numbers(10))

    def fail_at_four(event: dict[str, Any]) -> None:
        if number(event) == 4:
            raise ValueError("no four")
        seen.append(number(event))

    with lake.subscribe("fails") as subscription:
        assert subscription.run(fail_at_four, once=True, attempts=2) == 10
    assert sorted(set(seen)) == [n for n in range(10) if n != 4]
    access = lake.subscriptions()
    (letter,) = subscriptions.dead_letters(access, "fails")
    assert (number(letter.event), letter.error, letter.attempts) == (4, "ValueError: no four", 2)
    assert handle(lake, "fails") == []
    assert handle(lake, "other") == list(range(10))  # dead letters are not handed out
    assert administration.retry(access, "fails", fail_at_four) == (0, 1)
    assert administration.retry(access, "fails", lambda event: None) == (1, 0)
    assert subscriptions.dead_letters(access, "fails") == []
    (status,) = (s for s in subscriptions.listed(access) if s.name == "fails")
    assert (status.handled, status.dead) == (10, 0)


def fail(event: dict[str, Any]) -> None:
    raise ValueError("the server is down")


def test_many_dead_letters_are_retried_in_few_moves(make_lake: MakeLake) -> None:
    """A server that was down leaves many: what is handled within a second is one move."""
    lake = make_lake()
    lake.append(numbers(300))
    with lake.subscribe("mail") as subscription:
        subscription.run(fail, once=True, attempts=1)
    access, before = lake.subscriptions(), len(lake.log())

    def handled(event: dict[str, Any]) -> dict[str, Any]:
        return {"type": "OUT", "data": {"n": number(event)}}

    assert administration.retry(access, "mail", handled) == (300, 0)
    assert len(lake.log()) - before < 100
    (counts,) = lake.sql(
        "SELECT count(*), count(DISTINCT data->>'n') FROM events WHERE type = 'OUT'"
    ).fetchall()
    assert counts == (300, 300)
    assert subscriptions.dead_letters(access, "mail") == []


def test_a_retry_beside_others_that_commit_handles_each_letter_once(make_lake: MakeLake) -> None:
    """A member that commits all the time holds up no retry, and two retries divide the letters."""
    lake = make_lake()
    lake.append(numbers(10))
    with lake.subscribe("mail") as subscription:
        subscription.run(fail, once=True, attempts=1)
    access, seen = lake.subscriptions(), list[int]()

    def handle_beside(event: dict[str, Any]) -> dict[str, Any]:
        # Another one settles each letter before this one can.
        if not seen:
            administration.retry(access, "mail", lambda event: None)
        seen.append(number(event))
        return {"type": "OUT"}

    assert administration.retry(access, "mail", handle_beside) == (0, 10)
    assert lake.sql("SELECT count(*) FROM events WHERE type = 'OUT'").fetchall() == [(0,)]
    (status,) = subscriptions.listed(access)
    assert (status.handled, status.dead) == (10, 0)


def test_an_interrupted_retry_keeps_what_was_handled(make_lake: MakeLake) -> None:
    """Mails that were sent before Ctrl-C are not sent again by the next retry."""
    lake, seen = make_lake(), list[int]()
    lake.append(numbers(5))
    with lake.subscribe("mail") as subscription:
        subscription.run(fail, once=True, attempts=1)

    def send(event: dict[str, Any]) -> None:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(number(event))

    access = lake.subscriptions()
    with pytest.raises(KeyboardInterrupt):
        administration.retry(access, "mail", send)
    left = [number(letter.event) for letter in subscriptions.dead_letters(access, "mail")]
    assert sorted(seen + left) == [0, 1, 2, 3, 4]


def test_a_reset_settles_letters_of_events_that_come_again(make_lake: MakeLake) -> None:
    """An event is handled or a dead letter, never both, and never two of them."""
    lake = make_lake()
    lake.append(numbers(10))
    access = lake.subscriptions()
    with lake.subscribe("mail") as subscription:
        subscription.run(fail, once=True, attempts=1)
    subscriptions.reset(access, "mail", "end")
    assert len(subscriptions.dead_letters(access, "mail")) == 10
    subscriptions.reset(access, "mail", "4")
    assert [number(e.event) for e in subscriptions.dead_letters(access, "mail")] == [0, 1, 2, 3]
    assert handle(lake, "mail") == list(range(4, 10))
    (status,) = subscriptions.listed(access)
    assert status.dead == 4


@pytest.mark.parametrize("name", ["2026-11-28", "cafebabe", "@mail", "~", '"', "Ü" * 200])
def test_a_name_need_not_be_one_of_a_branch(make_lake: MakeLake, name: str) -> None:
    """Any name that a subscription may be created under has members, too."""
    lake = make_lake()
    lake.append(numbers(3))
    assert handle(lake, name) == [0, 1, 2]
    assert handle(lake, name) == []


def test_a_subscription_has_no_dead_letters_of_another_of_its_name(make_lake: MakeLake) -> None:
    """What a removed one gave up is not listed for one that was created again."""
    lake = make_lake()
    lake.append(numbers(3))
    access = lake.subscriptions()
    with lake.subscribe("mail") as subscription:
        subscription.run(fail, once=True, attempts=1)
    subscriptions.remove(access, "mail")
    assert handle(lake, "mail") == [0, 1, 2]
    assert subscriptions.dead_letters(access, "mail") == []
    assert administration.retry(access, "mail", fail) == (0, 0)


def test_an_event_whose_output_cannot_be_appended_becomes_a_dead_letter(
    make_lake: MakeLake,
) -> None:
    """It fails as one does whose handler raises, and stops neither the member nor later events."""
    lake = make_lake()
    lake.append(numbers(10))

    def react(event: dict[str, Any]) -> dict[str, Any]:
        return {"type": "OUT"} if number(event) != 4 else {"type": "OUT", "time": "noon"}

    with lake.subscribe("react", where="type = 'IN'") as subscription:
        assert subscription.run(react, once=True, attempts=1) == 10
    (letter,) = subscriptions.dead_letters(lake.subscriptions(), "react")
    assert number(letter.event) == 4
    assert "'noon' is not a date" in letter.error
    assert administration.retry(lake.subscriptions(), "react", react) == (0, 1)
    assert lake.sql("SELECT count(*) FROM events WHERE type = 'OUT'").fetchall() == [(9,)]


def test_a_rollback_takes_positions_back(make_lake: MakeLake) -> None:
    """In each state each event is handled once; a branch goes on with a position of its own."""
    lake = make_lake()
    lake.append(numbers(5))
    assert handle(lake) == [0, 1, 2, 3, 4]
    lake.tag("v1")
    lake.append(numbers(5, 5))
    assert handle(lake) == [5, 6, 7, 8, 9]
    lake.rollback("v1")
    lake.append(numbers(2, 20))
    with lake.branch("side") as side:
        assert handle(side) == [20, 21]
    assert handle(lake) == [20, 21]
    lake.undo(force=True)
    assert handle(lake) == []


def test_positions_for_a_database_of_the_program(make_lake: MakeLake, tmp_path: Any) -> None:
    """Batches and their positions in one transaction of SQLite: a crash between any two steps
    neither loses nor doubles an event; a rollback of the lake is an error that says where to go."""
    lake = make_lake()
    lake.append(numbers(30))
    path = str(tmp_path / "own.db")
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE seen (n); CREATE TABLE place (text);"
            " INSERT INTO place VALUES ('beginning')"
        )
    for crash_after in (0, 1, 3, 10):
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            ((stored,),) = database.execute("SELECT text FROM place").fetchall()
            with lake.subscribe(None, from_=stored) as subscription:
                for count, batch in enumerate(subscription.batches(size=4, timeout=0.05)):
                    database.execute("BEGIN IMMEDIATE")
                    for event in batch.events:
                        database.execute("INSERT INTO seen VALUES (?)", [number(event)])
                    if count == crash_after:
                        break
                    database.execute("UPDATE place SET text = ?", [batch.position])
                    database.execute("COMMIT")
    with closing(sqlite3.connect(path)) as database:
        assert [n for (n,) in database.execute("SELECT n FROM seen")] == list(range(30))
        ((stored,),) = database.execute("SELECT text FROM place").fetchall()
    lake.tag("v1")
    lake.append(numbers(5, 30))
    (batch,) = lake.subscribe(None, from_=stored).batches(timeout=0.05)
    lake.rollback("v1")
    lake.append(numbers(1, 90))
    with pytest.raises(SubscriptionRewound) as caught:
        lake.subscribe(None, from_=batch.position)
    (after,) = lake.subscribe(None, from_=caught.value.position).batches(timeout=0.05)
    assert [number(event) for event in after.events] == [90]
    with make_lake("another") as another, pytest.raises(InvalidSetting, match="another lake"):
        another.subscribe(None, from_=batch.position)
    with lake.branch("side") as side, pytest.raises(InvalidSetting, match="of branch 'main'"):
        side.subscribe(None, from_=batch.position)
    # Numbers that are texts, as a program may have stored them, or below the first.
    wrong = [json.dumps({**json.loads(batch.position), "seq": seq}) for seq in ("1", -1)]
    for changed in ("{}", *wrong):
        with pytest.raises(InvalidSetting, match="is not the position"):
            lake.subscribe(None, from_=changed)


def read_numbers(lake: lakelog.Lake, place: str) -> tuple[list[int], str]:
    """Read what follows a position, commit by commit; return the numbers and the new position."""
    read = list[int]()
    for batch in lake.subscribe(None, from_=place).batches(timeout=0.05):
        read += map(number, batch.events)
        place = batch.position
    return read, place


def grown(lake: lakelog.Lake, starts: list[int], place: str) -> tuple[list[int], str]:
    """Publish three events from each number on, and read them at once."""
    read = list[int]()
    for start in starts:
        lake.append(numbers(3, start))
        more, place = read_numbers(lake, place)
        read += more
    return read, place


@pytest.mark.parametrize("is_compacted", [False, True])
@pytest.mark.parametrize("change", ["undo", "branch", "rollback"])
def test_a_rewound_position_is_before_the_first_other_event(
    home: Path, change: str, is_compacted: bool
) -> None:
    """Also where the branch was taken to a state of as many events or more."""
    lake = lakelog.open(home / "lake")
    lake.append(numbers(4))
    lake.tag("v1")
    branch = lake.branch("side")
    if change == "undo":
        branch.append(numbers(30, 900))
        branch.settle()
        branch.rollback("v1")
    read, place = grown(branch, [100, 200, 300, 400], "beginning")
    if is_compacted:
        branch.compact()
    if change == "undo":
        branch.undo(force=True)
    elif change == "rollback":
        lake.append(numbers(20, 700))
        branch.rollback(lake.settle().move.snapshot)
    else:
        branch.close()
        lake.append(numbers(20, 700))
        with lakelog.open(home / "lake", branch="side") as reopened:
            history.delete_branch(lake.store, "side", reopened.settle)
        branch = lake.branch("side")
    with pytest.raises(SubscriptionRewound) as caught:
        branch.subscribe(None, from_=place)
    kept = json.loads(caught.value.position)["seq"]
    present = "SELECT (data->>'n')::INTEGER FROM events ORDER BY seq"
    expected = [n for (n,) in branch.sql(present).fetchall()]
    # What the program keeps of what it read, and what it reads from there on, is all of the state.
    assert read[:kept] + read_numbers(branch, caught.value.position)[0] == expected
    assert kept == 4


def test_a_position_of_a_newer_copy_is_refused(make_lake: MakeLake, tmp_path: Path) -> None:
    """Within a window, too: of a lake that was restored it would leave out what comes next."""
    lake = make_lake()
    lake.append(numbers(2))
    lake.backup(tmp_path / "copy")
    lake.append(numbers(4, 2))
    with lake.subscribe(None) as subscription:
        first, *_, last = list(subscription.batches(size=2, timeout=0.05))
    with lakelog.open(tmp_path / "copy", create=False) as restored:
        restored.append(numbers(1, 90))
        for count in (0, 9):
            restored.append(numbers(count, 91))
            restored.settle()
            for batch in (first, last):
                with pytest.raises(InvalidSetting, match="newer copy"):
                    restored.subscribe(None, from_=batch.position)
        # As an older version gave it: nothing tells.
        known = {**json.loads(first.position), "upto": 0}
        older = {name: known[name] for name in known if name not in ("move", "commit")}
        restored.subscribe(None, from_=json.dumps(older)).close()


def test_a_commit_to_a_restored_backup_is_refused(make_lake: MakeLake, tmp_path: Path) -> None:
    """The subscription stands there where it stood, and what follows are other events."""
    lake = make_lake()
    lake.append(numbers(2))
    with lake.subscribe("copies") as subscription:
        next(subscription.batches(timeout=0.05)).commit()
        lake.backup(tmp_path / "copy")
        lake.append(numbers(4, 2))
        batch = next(subscription.batches(timeout=5))
        shutil.rmtree(lake.path)
        shutil.copytree(tmp_path / "copy", lake.path)
        with lakelog.open(lake.path, create=False) as restored:
            restored.append(numbers(4, 90))
            restored.settle()
            with pytest.raises(SubscriptionRewound):
                batch.commit()
            with restored.subscribe("copies") as again:
                events = next(again.batches(timeout=5)).events
    assert [json.loads(event["data"])["n"] for event in events] == [90, 91, 92, 93]


def test_a_backup_that_is_restored_ends_batches(make_lake: MakeLake, tmp_path: Path) -> None:
    """Its next events have numbers of some that were handed out, and would be left out."""
    lake = make_lake()
    lake.append(numbers(2))
    lake.backup(tmp_path / "copy")
    lake.append(numbers(4, 2))
    with lake.subscribe(None) as subscription:
        batches = subscription.batches(timeout=5)
        assert [json.loads(e["data"])["n"] for e in next(batches).events] == [0, 1, 2, 3, 4, 5]
        shutil.rmtree(lake.path)
        shutil.copytree(tmp_path / "copy", lake.path)
        with lakelog.open(lake.path, create=False) as restored:
            restored.append(numbers(1, 90))
            with pytest.raises(SubscriptionRewound) as caught:
                next(batches)
            with restored.subscribe(None, from_=caught.value.position) as again:
                (batch,) = again.batches(timeout=0.05)
    assert [json.loads(e["data"])["n"] for e in batch.events] == [0, 1, 90]


def test_batches_are_committed_by_their_reader(make_lake: MakeLake) -> None:
    """What was not committed comes again; one member that is slower than another may not commit."""
    lake = make_lake()
    lake.append(numbers(10))
    with lake.subscribe("test", where="type = 'IN'") as one, lake.subscribe("test") as other:
        first, second = (next(iter(s.batches(size=5, timeout=1))) for s in (one, other))
        assert first.events == second.events
        first.commit([{"type": "OUT", "data": {"n": 5}}])
        with pytest.raises(SubscriptionRewound):
            second.commit([{"type": "OUT"}])
    assert handle(lake, "test") == [5, 6, 7, 8, 9]
    assert lake.sql("SELECT count(*) FROM events WHERE type = 'OUT'").fetchall() == [(1,)]


def test_subscriptions_are_reset_and_removed(make_lake: MakeLake) -> None:
    """Reset goes to a place; a member of one that was removed ends; both say what is missing."""
    lake = make_lake()
    lake.append(numbers(10))
    access = lake.subscriptions()
    assert len(handle(lake)) == 10
    subscriptions.reset(access, "test", "7")
    assert handle(lake) == [7, 8, 9]
    subscriptions.reset(access, "test")
    (status,) = subscriptions.listed(access)
    assert (status.position, status.events_behind) == (0, 10)
    assert status.seconds_behind > 0
    with lake.subscribe("test") as subscription:
        subscriptions.remove(access, "test")
        assert subscriptions.listed(access) == []
        with pytest.raises(SubscriptionGone):
            next(iter(subscription.batches(timeout=1)))
    for change in (subscriptions.remove, subscriptions.reset, subscriptions.dead_letters):
        with pytest.raises(SubscriptionGone, match="no subscription 'test'"):
            change(access, "test")


def test_members_share_partitions(make_lake: MakeLake) -> None:
    """Two members have half of the partitions each; what one held is taken over when it leaves."""
    lake, seen, stops = make_lake(), ([], [], []), [threading.Event() for _ in range(3)]

    def run(place: int) -> None:
        with lakelog.open(lake.path) as own, own.subscribe("group") as subscription:
            subscription._lease = 0.5
            subscription.run(
                lambda event: seen[place].append(number(event)),
                stop=stops[place],
                commit_every=0.05,
            )

    threads = [threading.Thread(target=run, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    count = 0
    until = time.monotonic() + 20
    while not (seen[0] and seen[1]) and time.monotonic() < until:
        lake.append(numbers(20, count, subject=None))
        lake.append(
            [
                {**event, "subject": f"x{number}"}
                for number, event in enumerate(numbers(20, count + 20))
            ]
        )
        count += 40
        time.sleep(0.1)
    stops[0].set()
    threads[0].join()
    wait_for(lambda: len({*seen[0], *seen[1]}) == count)
    stops[1].set()
    threads[1].join()
    assert seen[0]
    assert seen[1]
    assert handle(lake, "group") == []
    (status,) = subscriptions.listed(lake.subscriptions())
    assert status.handled == count


def test_windows_may_be_read_in_parts(make_lake: MakeLake, monkeypatch: Any) -> None:
    """A position within a window of segments goes on behind the last event, also once it is
    compacted."""
    lake = make_lake()
    monkeypatch.setattr("lakelog.subscriptions.catch_up._WINDOW", 20)
    monkeypatch.setattr("lakelog.subscriptions.catch_up._FETCHED", 7)
    for start in range(0, 100, 10):
        lake.append(numbers(10, start))
        lake.settle()
    access, places, seen = lake.subscriptions(), [Position()], list[int]()
    while places[-1].seq < 100:
        state = access.state(access.head())
        table = next(read(access.store, access.connect, state, None, places[-1], 3))
        seen += [number(event) for event in table.events.to_pylist()]
        places.append(table.position)
        if len(places) == 12:
            lake.compact()
    assert seen == list(range(100))


def test_many_subscriptions(make_lake: MakeLake) -> None:
    """A lake with very many subscriptions hands out, lists and removes as one with few."""
    lake = make_lake()
    lake.append(numbers(10))
    access = lake.subscriptions()
    head = lake.settle()

    def add(_: Any, state: Any) -> Any:
        entries = tuple(
            record.SubscriptionRecord(f"s{n}", "00", None, 1, (Position(10),) * PARTITIONS).entry()
            for n in range(SUBSCRIPTIONS)
        )
        return Change("subscription", "many", entries)

    publish(access.store, "main", add)
    assert access.head().move.number == head.move.number + 1
    assert len(handle(lake)) == 10
    lake.append(numbers(1, 10))
    assert handle(lake, "s7") == [10]
    assert len(subscriptions.listed(access)) == SUBSCRIPTIONS + 1
    subscriptions.remove(access, "s8")
    assert len(subscriptions.listed(access)) == SUBSCRIPTIONS


def test_a_merge_waits_for_subscriptions(make_lake: MakeLake, home: Any) -> None:
    """A pull that would renumber events that were handled is refused; one that does not, merges."""
    lake = make_lake()
    lake.append(numbers(5))
    known.add(lake.store, "origin", str(home / "hub"))
    push(lake, "origin", branches=["main"])
    clone(str(home / "hub"), str(home / "other"))
    with lakelog.open(str(home / "other")) as other:
        other.append(numbers(5, 5))
        push(other, "origin", branches=["main"])
    lake.append(numbers(2, 20))
    handle(lake)
    with pytest.raises(Diverged, match="subscription 'test' handled events"):
        pull(lake, "origin", merge=True)
    subscriptions.remove(lake.subscriptions(), "test")
    pull(lake, "origin", merge=True)
    assert handle(lake) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 21]


def test_subscriptions_on_the_command_line(make_lake: MakeLake, tmp_path: Any) -> None:
    """A command gets JSON lines, may append, and fails into dead letters, which are retried."""
    lake = make_lake()
    lake.append(numbers(3))

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(cli, ["--lake", lake.path, "subscriptions", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    file = tmp_path / "lines"
    run("run", "copy", "--to-command", f"cat > {file}", "--once")
    assert [json.loads(line)["data"]["n"] for line in file.read_text().splitlines()] == [0, 1, 2]
    run("run", "react", "--to-command", "sed s/IN/OUT/", "--append", "--once")
    assert lake.sql("SELECT count(*) FROM events WHERE type = 'OUT'").fetchall() == [(3,)]
    run("run", "fails", "--to-command", "! grep -q :2", "--attempts", "1", "--once")
    assert "ended with 1" in run("dead", "fails", "--json")
    run("dead", "fails", "--retry", "true")
    assert run("dead", "fails", "--json").strip() in ("", "[]")
    assert {s["name"] for s in json.loads(run("list", "--json"))} == {"copy", "react", "fails"}
    run("reset", "copy", "--from", "end")
    run("remove", "react")
    assert "react" not in run("list")


def test_a_member_that_is_alone_writes_nothing(make_lake: MakeLake) -> None:
    """A thousand idle subscribers cost no writes; signs of life begin where another looks."""
    lake = make_lake()
    with closing(Membership(lake.store, "main", "idle", 0.02)):
        (path,) = Path(lake.path).glob("cache/subscriptions/*/*/*.json")
        before = path.read_bytes()
        time.sleep(0.2)
        assert path.read_bytes() == before
        with closing(Membership(lake.store, "main", "idle", 0.02)):
            wait_for(lambda: path.read_bytes() != before)


def test_many_subscriptions_are_listed_as_they_stand(make_lake: MakeLake) -> None:
    """The lag of one whose partitions stand apart is the mean of theirs."""
    lake = make_lake()
    lake.append(numbers(128))
    access, places = lake.subscriptions(), [Position(128)] * PARTITIONS
    places[3] = Position(0)
    lake.settle()
    apart = record.SubscriptionRecord("apart", "00", None, 1, tuple(places))
    together = record.SubscriptionRecord("together", "00", None, 1, (Position(28),) * PARTITIONS)
    entries = (apart.entry(), together.entry())
    publish(access.store, "main", lambda *_: Change("subscription", "two", entries))
    statuses = [(s.name, s.position, s.events_behind) for s in subscriptions.listed(access)]
    assert statuses == [("apart", 0, 2), ("together", 28, 100)]


_MALFORMED = [{"positions": p} for p in (None, [[]], [{"seq": 1, "partitions": [PARTITIONS]}])]


@pytest.mark.parametrize("malformed", [*_MALFORMED, {"where": 1}])
def test_a_malformed_subscription_is_damage(lake: Lake, malformed: dict[str, object]) -> None:
    """One that is not as F6.20 has it, as another program may write it, is DamagedManifest."""
    members = {"id": "00", "created": 1, "positions": [{"seq": 1}]} | malformed
    entry = Record("subscription", "odd", members)
    publish(lake.store, "main", lambda *_: Change("subscription", "odd", (entry,)))
    for ask in (lambda: handle(lake, "odd"), lambda: subscriptions.listed(lake.subscriptions())):
        with pytest.raises(DamagedManifest, match="malformed"):
            ask()
