"""Traps that users fell into: each is refused in words, or does what they expected."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lakelog
from lakelog import errors
from lakelog.cli import cli
from lakelog.cli.tail import line


@pytest.fixture
def lake(home: Path) -> Any:
    """A lake with three events."""
    with lakelog.open(home / "lake") as made:
        made.append([{"type": "X", "data": {"n": n}} for n in range(3)])
        yield made


def test_a_text_that_is_called_data_stays_text(lake: lakelog.Lake) -> None:
    """Only the payload of events is JSON in JSON: another text of that name keeps its type."""
    lake.append([{"type": "A", "message": '{"a":1}', "data": {"b": 2}}, {"type": "B", "data": 7}])
    query = "SELECT data FROM events WHERE type IN ('A', 'B') ORDER BY type"
    assert rows_of(lake, query) == [{"data": {"b": 2}}, {"data": 7}]
    assert rows_of(lake, "SELECT message AS data FROM events WHERE type = 'A'") == [
        {"data": '{"a":1}'}
    ]
    assert rows_of(lake, "SELECT '123' AS data") == [{"data": "123"}]


def rows_of(lake: lakelog.Lake, query: str) -> Any:
    done = CliRunner().invoke(cli, ["--lake", lake.path, "sql", query, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("text", ["CREATE TABLE t AS SELECT 1", "INSERT INTO events VALUES (1)"])
def test_a_statement_that_would_vanish_is_refused(lake: lakelog.Lake, text: str) -> None:
    """A table made by the last statement is gone with the command, so it is refused with advice."""
    done = CliRunner().invoke(cli, ["--lake", lake.path, "sql", text])
    assert done.exit_code == 2
    assert "scratch tables last until you leave" in done.stderr
    assert rows_of(lake, "CREATE TABLE t AS SELECT 1 AS a; FROM t") == [{"a": 1}]


def test_after_close_nothing_is_answered(home: Path) -> None:
    """A closed lake says so to every query; relations made before still give their rows."""
    lake = lakelog.open(home / "l")
    lake.append({"type": "A"})
    relation = lake.sql("SELECT type FROM events")
    lake.close()
    assert relation.fetchall() == [("A",)]
    for ask in (
        lake.count,
        lambda: lake.sql("SELECT 1"),
        lambda: lake.sql("FROM events"),
        lake.tail,
        lambda: next(lake.follow()),
        lake.settle,
        lambda: lake.tag("v1"),
        lake.compact,
    ):
        with pytest.raises(errors.LakeClosed, match="closed"):
            ask()


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO events VALUES (1)",
        "DELETE FROM events",
        "UPDATE events SET type = 'b'",
        "DROP TABLE events",
    ],
)
def test_a_change_of_events_by_sql_says_what_does_it(lake: lakelog.Lake, change: str) -> None:
    """Events cannot be changed by SQL, and the error names the verbs that store and remove them."""
    with pytest.raises(errors.QueryFailed, match=r"^SQL only reads a lake: `append`"):
        lake.sql(change)


def test_a_mistyped_lake_is_not_made(home: Path) -> None:
    """Ingest of a file that is not there makes no lake."""
    done = CliRunner().invoke(cli, ["--lake", f"{home}/new", "ingest", f"{home}/missing.log"])
    assert done.exit_code == 1
    assert not (home / "new").exists()


@pytest.mark.parametrize("name", ["x.csv.gz", "x.jsonl.zst", "x.jsonl.gz"])
@pytest.mark.parametrize("verb", ["sql", "export"])
def test_the_ending_decides_how_a_file_is_packed(
    lake: lakelog.Lake, home: Path, name: str, verb: str
) -> None:
    """.gz and .zst behind the ending of a text compress it; ingest reads it back."""
    count = lake.count()
    done = CliRunner().invoke(
        cli, ["--lake", lake.path, verb, "SELECT * FROM events", "-o", f"{home}/{name}"]
    )
    assert done.exit_code == 0, done.output
    with lakelog.open(home / "back") as back:
        back.ingest(f"{home}/{name}")
        assert back.count() == count


@pytest.mark.parametrize("name", ["x.tsv", "x.xlsx", "x.parquet.gz", "x.gz"])
def test_an_unknown_ending_is_refused(lake: lakelog.Lake, home: Path, name: str) -> None:
    """Export names the endings it knows, rather than write Parquet under another name."""
    done = CliRunner().invoke(
        cli, ["--lake", lake.path, "export", "events", "-o", f"{home}/{name}"]
    )
    assert done.exit_code == 2
    assert not (home / name).exists()


def test_nan_and_infinities_are_kept_as_text(lake: lakelog.Lake) -> None:
    """What JSON has no number for is the text that SQL casts back to it, in every row."""
    lake.append([{"type": "L", "data": {"loss": float("nan"), "x": [float("-inf"), None]}}])
    query = "SELECT data->>'loss', (data->>'loss')::DOUBLE, data FROM events WHERE type = 'L'"
    text, number, data = lake.sql(query).fetchall()[0]
    assert (text, str(number)) == ("NaN", "nan")
    assert json.loads(data) == {"loss": "NaN", "x": ["-Infinity", None]}


def test_tail_shows_all_digits(lake: lakelog.Lake) -> None:
    """An integer of 23 digits stands on a terminal as it was given."""
    lake.append({"type": "N", "data": {"n": 12345678901234567890123}})
    event = lake.sql("FROM events WHERE type = 'N'").to_arrow_table().to_pylist()[0]
    assert "n=12345678901234567890123" in line(event, 200, False)


def test_a_level_of_its_own_is_found(lake: lakelog.Lake) -> None:
    """A level that is none of the six stays a level, appended or ingested."""
    lake.append({"type": "A", "level": "http"})
    Path(f"{lake.path}.jsonl").write_text('{"type":"B","level":"http"}\n')
    lake.ingest(f"{lake.path}.jsonl")
    assert lake.sql("SELECT count(*) FROM events WHERE level = 'HTTP'").fetchall() == [(2,)]


READ_ON = """
import os, signal, sys, threading, lakelog
lake = lakelog.open(sys.argv[1])
rows = "range(3) a, range(30000000000) b"
wait = "CASE WHEN b.range < 200000 THEN b.range WHEN b.range % 20000000000 = 1 THEN b.range END"
relation = lake.sql(f"SELECT w FROM (SELECT {wait} AS w FROM {rows}) WHERE w IS NOT NULL")
read = relation.to_arrow_reader(1000)
next(read)
try:
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    for _ in read: pass
except KeyboardInterrupt:
    print("stopped", lake.sql("SELECT count(*) FROM events").fetchall())
"""


def test_an_interrupt_stops_a_stream_half_read(lake: lakelog.Lake) -> None:
    """Ctrl-C is heard after the first rows too, while the engine looks for the next ones."""
    words = [sys.executable, "-c", READ_ON, lake.path]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert done.stdout == "stopped [(3,)]\n", done.stderr


ABANDONED = """
import sys, lakelog
lake = lakelog.open(sys.argv[1])
rows = "range(3) a, range(30000000000) b"
wait = "CASE WHEN b.range < 200000 THEN b.range WHEN b.range % 20000000000 = 1 THEN b.range END"
relation = lake.sql(f"SELECT w FROM (SELECT {wait} AS w FROM {rows}) WHERE w IS NOT NULL")
how, _, what = sys.argv[2].partition(" ")
read = getattr(relation, how)(1000)
rows = next(read) if how == "iter_rows" else [next(read) for _ in range(150)]
if what == "deleted":
    del read, relation
elif what == "closed":
    lake.close()
print("left", flush=True)
"""


@pytest.mark.matrix
@pytest.mark.parametrize("what", ["deleted", "closed", "at the end"])
@pytest.mark.parametrize("how", ["iter_rows", "to_arrow_reader"])
def test_a_stream_left_half_read_is_not_waited_for(lake: lakelog.Lake, how: str, what: str) -> None:
    """Whoever has read enough goes on at once, however long the engine would look for more."""
    words = [sys.executable, "-c", ABANDONED, lake.path, f"{how} {what}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("left\n", "")


INTERRUPTED = """
import os, signal, sys, threading, lakelog
lake = lakelog.open(sys.argv[1])
huge = "range(1000000) a, range(1000000) b, events"
relation = lake.sql(f"SELECT sum(a.range * b.range) AS s FROM {huge}")
try:
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    read = getattr(relation, sys.argv[2])()
    next(read)  # only a stream gets here
except KeyboardInterrupt:
    print("stopped", lake.sql("SELECT count(*) FROM events").fetchall())
"""


@pytest.mark.matrix
@pytest.mark.parametrize(
    "read", ["fetchall", "to_arrow_table", "__len__", "iter_rows", "to_arrow_reader"]
)
def test_an_interrupt_stops_a_running_query(lake: lakelog.Lake, read: str) -> None:
    """Ctrl-C ends a query that runs, whatever reads it, and the lake answers the next one."""
    words = [sys.executable, "-c", INTERRUPTED, lake.path, read]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert done.stdout == "stopped [(3,)]\n", done.stderr


LEFT = """
import os, signal, sys, threading, lakelog
lake = lakelog.open(sys.argv[1])

def ask():
    huge = "range(1000000) a, range(1000000) b, events"
    try:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        lake.sql(f"SELECT sum(a.range * b.range) AS s FROM {huge}").to_arrow_table()
    except KeyboardInterrupt:
        print("stopped")

ask()
"""


def test_nothing_is_left_of_an_interrupted_query(lake: lakelog.Lake) -> None:
    """The engine has nothing to complain of at the end of the process."""
    words = [sys.executable, "-c", LEFT, lake.path]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert (done.stdout, done.stderr) == ("stopped\n", "")


@pytest.mark.matrix
@pytest.mark.parametrize("read", ["fetchall", "pl"])
def test_an_interrupt_is_heard_beside_polars(lake: lakelog.Lake, read: str) -> None:
    """Polars has the system go on with a wait that Ctrl-C comes upon; in a program that has signal
    handlers of its own, such as a notebook, a query is waited for."""
    own = "import polars\nsignal.signal(signal.SIGTERM, lambda *_: None)\nlake ="
    program = INTERRUPTED.replace("lake =", own, 1)
    words = [sys.executable, "-c", program, lake.path, read]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout == "stopped [(3,)]\n", done.stderr


SIGNALLED = """
import asyncio, os, signal, sys, threading, lakelog
# One thread: the second query lasts longer than the signal waits, on a machine of many cores too.
lake = lakelog.open(sys.argv[1], settings={"threads": 1})
count = "SELECT count(*) FROM range(1000000) a, range(1000000) b, events"
short = "SELECT count(*) FROM range(100000000) a, events WHERE a.range % 7 = 3"

def send(number, after):
    threading.Timer(after, os.kill, (os.getpid(), number)).start()

def ask(query, **signals):
    relation = lake.sql(query)  # before the signals, which are to come while the engine works
    for name, after in signals.items():
        send(getattr(signal, name), after)
    return relation.fetchall()

def leave(number, frame):
    raise SystemExit(5)

async def served():
    heard = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, heard.set)
    print(ask(short, SIGUSR1=0.2))
    await asyncio.wait_for(heard.wait(), 240)
    print("served")

how = sys.argv[2]
if how != "forked":
    signal.signal(signal.SIGTERM, leave)
if how == "served":
    asyncio.run(served())
    sys.exit()
if how == "noted":
    signal.signal(signal.SIGUSR1, lambda number, frame: print("noted", flush=True))
    print(ask(short, SIGUSR1=0.1))
    ask(count, SIGUSR1=0.2, SIGTERM=0.6)
if how == "forked":
    lake.sql("FROM events").fetchall()
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    try:
        ask(count, SIGINT=0.6)
    except KeyboardInterrupt:
        sys.exit(5)
ask(count, SIGTERM=0.6)
"""


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("how", "said", "code"),
    [
        ("ended", "", 5),
        ("forked", "", 5),
        ("noted", "noted\n[(42857142,)]\nnoted\n", 5),
        ("served", "[(42857142,)]\nserved\n", 0),
    ],
)
def test_signal_handlers_run_during_a_query(
    lake: lakelog.Lake, how: str, said: str, code: int
) -> None:
    """A program's own handlers run while the engine works: one that raises ends the query, one that
    returns leaves its answer as it is, and those of an event loop are called."""
    words = [sys.executable, "-c", SIGNALLED, lake.path, how]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert (done.stdout, done.returncode) == (said, code), done.stderr


def test_late_errors_are_ours(lake: lakelog.Lake) -> None:
    """What goes wrong while rows are read is QueryFailed, one line, with the hint that fits."""
    late = lake.sql("SELECT type::INT FROM events")
    streamed = lambda: list(late.to_arrow_reader())  # noqa: E731
    for ask in (late.fetchall, late.to_arrow_table, late.fetchone, lambda: list(late), streamed):
        with pytest.raises(errors.QueryFailed) as caught:
            ask()
        assert "\n" not in str(caught.value)
    with pytest.raises(errors.QueryFailed, match=r"data->>'words'"):
        lake.sql("SELECT data.words FROM events")
    with pytest.raises(errors.QueryFailed, match=r"data->>'words'"):
        lake.sql("FROM events").filter("data.words > 1")
    with pytest.raises(errors.QueryFailed, match="did you mean 'events'") as caught:
        lake.sql("FROM event")
    assert "pg_" not in str(caught.value)


def test_python_has_tail_follow_and_refs(lake: lakelog.Lake, home: Path) -> None:
    """tail gives the last events, follow those that come, tags and branches are listed."""
    assert [event["type"] for event in lake.tail(2)] == ["X", "X"]
    coming = lake.follow(where="type = 'LATER'", pause=0.01)
    timer = threading.Timer(0.2, lake.append, ({"type": "LATER"},))
    timer.start()
    assert next(coming)["type"] == "LATER"
    timer.join()
    lake.tag("v1")
    assert [tag.name for tag in lake.tags()] == ["v1"]
    assert lake.branches() == ["main"]
    assert lake.view("status").num_rows >= 0
    assert lakelog.open(home / "lake").path == lake.path
    assert {"dedupe", "views", "train", "connect", "Relation"} <= set(dir(lakelog))
    assert len(lakelog.dedupe.plan(lake, "type")) == 2
