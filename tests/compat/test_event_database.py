"""The older event store's class, as its programs use it: `EventDatabase` on a lake."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

import lakelog
from lakelog import EventDatabase
from lakelog.compat import omega
from lakelog.errors import InvalidEvent, InvalidSetting, LakeNotFound
from tests.support.processes import environment

START = 1_760_000_000.5
MUTATION = {
    "timestamp": START,
    "event_type": "mutation",
    "action": "create",
    "source": "core",
    "data": {"fitness": 0.75, "generation": 3},
}
NAMES = ("action", "data", "x", "é", "1e5", '"', "\\u", "")
LEAVES = (
    None,
    True,
    "",
    "go",
    "a\n\u2028é",
    0.12345678901234567,
    123456789.12345678,
    2**53 + 1,
    0.0001,
    0,
    -1,
    2**64 - 1,
    10**30,
    0.1,
    1.5,
    -0.0,
    1e16,
    1e-7,
    5e300,
)


@pytest.fixture
def database(lake: lakelog.Lake) -> EventDatabase:
    """The older store on a new lake."""
    return EventDatabase(lake)


def table(database: EventDatabase, name: str = "events") -> list[dict[str, Any]]:
    """A table of the old schema, by id."""
    relation = database.lake.sql(f"SELECT * FROM omega.{name} ORDER BY id")
    found: list[dict[str, Any]] = relation.to_arrow_table().to_pylist()
    return found


def test_a_program_of_the_older_store(tmp_path: Path) -> None:
    """It stores, asks by time and type, marks, and counts; all of it is there after a restart."""
    with EventDatabase(str(tmp_path / "omega")) as database:
        number = database.store_event(MUTATION)
        later = [{**MUTATION, "timestamp": START + n, "event_type": "signal"} for n in (1, 2, 3)]
        numbers = database.store_events_batch(later)
        assert len({number, *numbers}) == 4
        assert all(0 <= n < 2**63 for n in (number, *numbers))
    with EventDatabase(str(tmp_path / "omega")) as database:
        (event,) = database.get_events(event_type="mutation")
        assert event["id"] == number
        assert (event["timestamp"], event["action"], event["source"]) == (START, "create", "core")
        assert json.loads(event["data_json"]) == event["data"] == MUTATION["data"]
        assert (event["data_compressed"], event["processed"]) == (None, False)
        assert abs(event["created_at"] - time.time()) < 600
        between = database.get_events(start_time=START + 1, end_time=START + 2)
        assert [row["id"] for row in between] == [numbers[1], numbers[0]]
        assert len(database.get_events(limit=2)) == 2
        assert database.mark_processed([number]) == 1
        assert [row["id"] for row in database.get_events() if row["processed"]] == [number]
        stats = database.get_database_stats()
        assert stats["total_events"] == 4
        assert stats["event_types"] == {"signal": 3, "mutation": 1}
        assert stats["database_size_mb"] >= 0
        for _ in range(2):
            # The mark is no event of the older store, and its time none of one.
            stats = database.get_database_stats()
            assert (stats["oldest"], stats["newest"]) == (START, START + 3)
            database.lake.settle()
        assert database.cleanup_old_events(days_to_keep=30) == 4
        assert database.get_events() == []


def test_storing_is_idempotent(database: EventDatabase) -> None:
    """An equal event, its time in any spelling, has the same number and is one row."""
    number = database.store_event(MUTATION)
    same = {**MUTATION, "timestamp": "2025-10-09T08:53:20.500000Z"}
    assert (
        database.store_events_batch([same, MUTATION, dict(reversed(same.items()))]) == [number] * 3
    )
    other = database.store_event({**MUTATION, "action": "drop"})
    assert other != number
    assert {row["id"] for row in table(database)} == {number, other}
    untimed = {"event_type": "start", "data": {"n": None}}
    assert database.store_event(untimed) == database.store_event(untimed)
    assert database.store_event({"event_type": "start", "data": {"n": float("nan")}}) != (
        database.store_event(untimed)
    )
    database.lake.compact()
    assert len(table(database)) == database.get_database_stats()["total_events"] == 4


@pytest.mark.parametrize(
    ("event", "action", "data"),
    [
        ({"action": "go", "data": {"x": 1}}, "go", {"x": 1}),
        ({"action": "go", "data": {}}, "go", {}),
        ({"action": "go"}, "go", {}),
        ({"action": "go", "data": {"action": "stop"}}, "go", {"action": "stop"}),
        ({"data": {"action": "stop", "x": 1}}, None, {"action": "stop", "x": 1}),
        (
            {"action": None, "data": {"action": "stop", "data": 1}},
            None,
            {"action": "stop", "data": 1},
        ),
        ({"action": "go", "data": [1, 2]}, "go", [1, 2]),
        ({"action": "go", "data": "text"}, "go", "text"),
        ({"data": {"data": {"a": 1}}}, None, {"data": {"a": 1}}),
        ({"action": "go", "data": {"data": None}}, "go", {"data": None}),
        ({"action": "go", "agent": 7, "data": {"x": 1}}, "go", {"x": 1, "agent": 7}),
        ({}, None, None),
    ],
)
def test_action_and_data_come_back(
    database: EventDatabase, event: dict[str, Any], action: str | None, data: Any
) -> None:
    """`action` is its column, and `data_json` the data alone, whatever the data holds."""
    number = database.store_event({"event_type": "e", **event})
    (row,) = database.get_events()
    assert (row["id"], row["action"], row["data"]) == (number, action, data)
    (row,) = table(database)
    text = row["data_json"]
    assert (row["action"], None if text is None else json.loads(text)) == (action, data)


def random_value(random: Random, depth: int) -> Any:
    """A JSON value, often an object with members called action and data."""
    if depth == 0 or random.random() < 0.3:
        return random.choice(LEAVES)
    if random.random() < 0.2:
        return [random_value(random, depth - 1) for _ in range(random.randrange(3))]
    names = random.sample(NAMES, random.randrange(4))
    return {name: random_value(random, depth - 1) for name in names}


def test_look_ups_write_data_as_sql_does(database: EventDatabase) -> None:
    """Rows of get_events are those of `omega.events` byte for byte, and have the data stored."""
    random = Random(16)
    payloads = [(random.choice((None, "go")), random_value(random, 3)) for _ in range(400)]
    events = [
        {"event_type": "e", "action": action, "data": data, "timestamp": START + n}
        for n, (action, data) in enumerate(payloads)
    ]
    numbers = database.store_events_batch(events)
    rows = {row["id"]: row for row in database.get_events()}
    for number, (action, data) in zip(numbers, payloads, strict=True):
        assert rows[number]["action"] == action
        assert rows[number].pop("data") == ({} if data is None and action else data)
    assert [rows[number] for number in sorted(rows)] == table(database)


def test_patterns_and_statistics_are_rows_of_their_tables(database: EventDatabase) -> None:
    """Events that report a pattern or statistics fill the tables, in details of data as well."""
    number = database.store_event(MUTATION)
    found = {"event_id": number, "pattern_type": "burst", "confidence": 0.9, "pattern_data": [1]}
    database.store_event({"event_type": "omega.pattern", "timestamp": START, "data": found})
    own = database.store_event(
        {"event_type": "PATTERN_DETECTED", "details": {"name": "drift", "confidence": 0.5}}
    )
    rows = {row["pattern_type"]: row for row in table(database, "patterns")}
    assert rows["burst"]["event_id"] == number
    assert (rows["burst"]["pattern_data"], rows["burst"]["created_at"]) == ("[1]", START)
    assert (rows["drift"]["event_id"], rows["drift"]["confidence"]) == (own, 0.5)
    counts = {"total_events": 9, "events_per_second": 1.5, "storage_mb": 0.25}
    database.store_event({"event_type": "system_stats", "timestamp": START, "data": counts})
    (row,) = table(database, "system_stats")
    assert {name: row[name] for name in counts} == counts
    assert (row["timestamp"], row["active_embryos"]) == (START, None)


def test_large_events_are_compressed_and_come_back_whole(tmp_path: Path) -> None:
    """A megabyte of data takes a small part of it on disk; its column is the text, unpacked."""
    events = [
        {**MUTATION, "timestamp": START + n, "data": {"n": n, "genome": "ACGT" * 250_000}}
        for n in range(5)
    ]
    with EventDatabase(str(tmp_path / "omega")) as database:
        numbers = database.store_events_batch(events)
    files = [path for path in (tmp_path / "omega").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    with EventDatabase(str(tmp_path / "omega")) as database:
        rows = {row["id"]: row for row in database.get_events()}
        assert [rows[number]["data"] for number in numbers] == [e["data"] for e in events]
        assert {row["data_compressed"] for row in rows.values()} == {None}


def test_crash_recovery_keeps_what_was_stored(tmp_path: Path) -> None:
    """After `kill -9` each event whose number was returned is there; storing them again, as a
    program does that was restarted, doubles none."""
    program = """
        import os, signal, sys
        from lakelog import EventDatabase
        database = EventDatabase(sys.argv[1])
        for n in range(300):
            event = {"event_type": "mutation", "timestamp": 1e9 + n, "data": {"n": n}}
            print(database.store_event(event), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "omega")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    numbers = list(map(int, done.stdout.split()))
    with EventDatabase(str(tmp_path / "omega")) as database:
        again = [
            {"event_type": "mutation", "timestamp": 1e9 + n, "data": {"n": n}} for n in range(300)
        ]
        assert database.store_events_batch(again) == numbers
        assert [row["id"] for row in database.get_events()] == numbers[::-1]


def test_concurrent_threads_store_each_event_once(database: EventDatabase) -> None:
    """Threads that store overlapping events leave one row for each."""
    events = [{**MUTATION, "timestamp": START + n} for n in range(60)]
    threads = [
        threading.Thread(target=database.store_events_batch, args=(events[n * 10 : n * 10 + 20],))
        for n in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(database.get_events()) == 60


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ("text", "an event is a dict with an event_type, not text"),
        ({"data": {}}, "no type"),
        ({"event_type": "e", "timestamp": "yesterday"}, "is not a date"),
        ({"event_type": "e", "data": {"x": object()}}, "which JSON cannot"),
    ],
)
def test_of_a_batch_with_an_invalid_event_nothing_is_stored(
    database: EventDatabase, event: Any, said: str
) -> None:
    """The error names the event's place and the reason."""
    with pytest.raises(InvalidEvent, match="event 1: ") as caught:
        database.store_events_batch([MUTATION, event])
    assert said in str(caught.value)
    assert database.get_events() == []


@pytest.mark.parametrize(
    "data",
    [{"ids": [[1], {"a": 1}, None, "7", 1.5, True, 2**70]}, {"ids": 7}, "text", [1], 5, None],
)
def test_marks_of_other_programs(database: EventDatabase, data: Any) -> None:
    """What is no mark marks nothing, and leaves the others as they are, in the table as well."""
    marked, other = (database.store_event({"event_type": name}) for name in "ab")
    database.mark_processed([marked])
    database.lake.append({"type": omega.PROCESSED, "data": data})
    for _ in range(2):
        rows = {row["id"]: row["processed"] for row in database.get_events()}
        assert rows == {row["id"]: row["processed"] for row in table(database)}
        assert rows == {marked: True, other: False}
        database.lake.settle()


def test_mistakes_are_one_line(database: EventDatabase, tmp_path: Path) -> None:
    """Numbers that are none, spans that are none, and a path that is an SQLite database."""
    with pytest.raises(InvalidEvent, match="'7' is no number of an event"):
        database.mark_processed(["7"])  # type: ignore[list-item]
    with pytest.raises(InvalidSetting, match="above 0, not 0"):
        database.cleanup_old_events(0)
    with pytest.raises(InvalidEvent, match="is not a date"):
        database.get_events(start_time="soon")
    old = sqlite3.connect(tmp_path / "events.db")
    old.execute("CREATE TABLE events (id INTEGER)")
    old.close()
    with pytest.raises(LakeNotFound, match="import it with `lakelog events import-sqlite"):
        EventDatabase(tmp_path / "events.db")
    assert database.mark_processed([]) == 0
    assert omega.PROCESSED not in database.get_database_stats()["event_types"]
