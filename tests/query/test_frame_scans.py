"""First queries over a tail read a few columns from its frames, and answer as if of its rows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.cli import cli
from lakelog.cli.render.results import PROBE
from lakelog.engine.syntax import nodes
from lakelog.event import EncodedBatch
from lakelog.query.frame_scans import columns_read
from lakelog.query.sql.tree import tree_of

MakeLake = Callable[..., lakelog.Lake]
TYPES = "SELECT type FROM events ORDER BY type"
COLUMNS = "time type category source subject level message".split()
EVENTS = [
    {"type": "A", "source": "s", "subject": "x", "level": "INFO", "message": 'say "hi"\n\\'},
    {"timestamp": "2026-09-01T00:00:00.007826Z", "event_type": "B", "content_type": "c"},
    {
        "ts": "2026-09-01T02:00:00+02:00",
        "type": "ünï 漢字 🦆",
        "item_id": "",
        "data": {"type": "no"},
    },
    {"@timestamp": "2026-09-01T00:00:00Z", "type": "A", "data": {"a": [1, {"source": "no"}]}},
    {"type": "A", "message": ',"data":{"type":"no"}', "data": ['"', "}\n"]},
]


@pytest.mark.parametrize("sealed", [0, 2])
def test_a_first_query_gives_what_later_ones_do(make_lake: MakeLake, sealed: int) -> None:
    lake = make_lake(seal="never")
    if sealed:
        lake.append(EVENTS[:sealed])
        lake.settle()
    for each in EVENTS[sealed:]:
        lake.append(each)
    lake.append([{"type": "A", "data": {"n": n}} for n in range(5000)])
    whole = lake.sql("FROM events").project(", ".join(COLUMNS)).fetchall()
    for asked in (COLUMNS, *([name] for name in COLUMNS)):
        first = lakelog.open(lake.path).sql(f"SELECT {', '.join(asked)} FROM events").fetchall()
        assert first == [tuple(row[COLUMNS.index(name)] for name in asked) for row in whole]


def test_an_answer_is_of_the_state_at_its_call(make_lake: MakeLake) -> None:
    lake = make_lake(seal="never")
    lake.append([{"type": "A"}, {"type": "B"}])
    read, kept, unread = (lake.sql(TYPES) for _ in range(3))
    assert read.fetchall() == [("A",), ("B",)]
    lake.append({"type": "C"})
    assert lake.sql("SELECT type, data FROM events ORDER BY 1").fetchall()[2] == ("C", None)
    assert kept.fetchall() == [("A",), ("B",)]
    lake.settle()
    assert kept.to_arrow_table().column(0).to_pylist() == ["A", "B"]
    assert unread.columns == ["type"]
    assert list(unread) == read.fetchall() == [("A",), ("B",)]


def test_an_answer_outlives_the_files_it_is_read_from(make_lake: MakeLake) -> None:
    lake = make_lake(seal="never")
    lake.append([{"type": "A"}, {"type": "B"}])
    answer = lakelog.open(lake.path).sql(TYPES)
    lake.settle()
    lake.close()
    assert answer.fetchall() == [("A",), ("B",)]


def test_lakes_of_one_process_are_not_mixed_up(make_lake: MakeLake) -> None:
    """The files in memory of one answer may have the names of those of an earlier one."""
    lake = make_lake(seal="never")
    for letter in "ABC":
        lake.append({"type": letter})
        assert lake.sql("SELECT max(type) FROM events").fetchall() == [(letter,)]


def test_a_payload_that_the_engine_cannot_parse_is_answered_from_rows(make_lake: MakeLake) -> None:
    lake = make_lake(seal="never")
    batch = EncodedBatch.of([{"type": "A", "data": {"t": "HOLE"}}, {"type": "B"}])
    batch.text = batch.text.replace(b"HOLE", b"\\ud8")
    lake.append_encoded(batch)
    assert lake.sql(TYPES).fetchall() == [("A",), ("B",)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT type, count(*) FROM events WHERE source = 'a' GROUP BY ALL", {"type", "source"}),
        ("SELECT count(*) FROM events e WHERE e.level IS NULL", {"level"}),
        ("SELECT count(*) FILTER (type = 'A') FROM events, (SELECT max(time) AS t FROM events)", 2),
        ("SELECT count(*) FROM events", set()),
        ("SELECT data->>'x' FROM events", {"data"}),
        ("SELECT events.data.x FROM events", {"data"}),
        ("SELECT seq, type FROM events", {"seq", "type"}),
        ("FROM events", None),
        ("SELECT e.* FROM events e", None),
        ("SELECT COLUMNS('t.*') FROM events", None),
        ("SELECT #1 FROM events", None),
        ("SELECT e FROM events e", None),
        ("SELECT count(events) FROM events", None),
        ("SELECT a FROM events AS e(a, b)", None),
        ("SELECT a.type FROM events a NATURAL JOIN events b", None),
        ("SELECT type FROM events a JOIN events b USING (type)", None),
        ("SUMMARIZE events", None),
        ("SELECT type FROM query('FROM events')", None),
    ],
)
def test_columns_are_known_or_taken_for_all(
    make_lake: MakeLake, query: str, expected: set[str] | int | None
) -> None:
    """A query that could read columns which it does not name is not answered from some."""
    cursor = make_lake()._session.connect().cursor()
    columns = columns_read(nodes(tree_of(cursor, query)["statements"]))
    assert (len(columns or ()) if isinstance(expected, int) else columns) == expected


@pytest.mark.parametrize("before", ["", "-- how many?\n", "WITH a AS (SELECT 1) "])
def test_a_process_that_asks_once_loads_no_arrays(make_lake: MakeLake, before: str) -> None:
    lake = make_lake(seal="never")
    lake.append([{"type": "A"}] * 3)
    program = (
        "import sys, lakelog\n"
        f"lake = lakelog.open({lake.path!r})\n"
        f"answer = lake.sql({before!r} 'SELECT type, count(*) FROM events GROUP BY type')\n"
        "assert answer.fetchall() == [('A', 3)]\n"
        "unneeded = {'numpy', 'pyarrow', 'duckdb', 'concurrent.futures'}\n"
        "unneeded |= {'lakelog.query.sql.payload', 'lakelog.typed_columns.schema'}\n"
        "print(unneeded & {*sys.modules})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


QUERIES = [
    "SELECT type FROM events",
    "SELECT source, count(*) AS n FROM events GROUP BY source ORDER BY source",
    "SELECT type FROM events; SELECT data->>'n' AS n FROM events; SELECT max(time) FROM events",
    "BEGIN; SELECT max(type) AS a FROM events; CREATE TABLE x AS SELECT 1 AS a; COMMIT; FROM x",
    "BEGIN; SELECT nope FROM events",
    "SELECT type::INT FROM events",
    "WITH events AS (SELECT 1 AS type) SELECT type FROM events",
    "CREATE VIEW v AS SELECT type FROM events; SELECT count(*) AS n FROM v; SELECT 1 FROM events",
    "PREPARE p AS SELECT max(source) AS m FROM events; SELECT max(type) FROM events; EXECUTE p",
    "SET VARIABLE x = 'B'; SELECT max(time) AS t FROM events WHERE type = getvariable('x')",
    "; ".join(f"SELECT max({name}) AS {name} FROM events" for name in COLUMNS),
]


@pytest.mark.matrix
@pytest.mark.parametrize("query", QUERIES)
def test_the_command_line_answers_as_if_the_tail_were_sealed(
    make_lake: MakeLake, tmp_path: Path, query: str
) -> None:
    """In any order of statements, and with the same words where a statement is wrong."""
    answers = []
    for name in ("tail", "sealed"):
        lake = make_lake(name, seal="never")
        lake.append(
            {"type": "AB"[n % 2], "source": f"s{n % 3}", "time": n, "data": {"n": n}}
            for n in range(PROBE + 10)
        )
        if name == "sealed":
            lake.settle()
        done = CliRunner().invoke(cli, ["--lake", lake.path, "-q", "sql", query, "--json"])
        answers.append((done.exit_code, done.stdout, done.stderr))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("at", [0, PROBE + 5])
@pytest.mark.parametrize("form", ["csv", "jsonl", "table", "arrow"])
def test_the_command_line_has_rows_of_payloads_that_the_engine_cannot_parse(
    make_lake: MakeLake, home: Path, form: str, at: int
) -> None:
    """Whether it comes to them with the first rows or behind them."""
    lake = make_lake(seal="never")
    batch = EncodedBatch.of([{"type": f"T{n}", "data": {"t": "HOLE"}} for n in range(PROBE + 10)])
    lines = batch.text.split(b"\n")
    lines[at] = lines[at].replace(b"HOLE", b"\\ud8")
    batch.text = b"\n".join(lines)
    lake.append_encoded(batch)
    words = ["--lake", lake.path, "sql", "SELECT type FROM events", "-o", str(home / f"x.{form}")]
    done = CliRunner().invoke(cli, [*words, "--format", form])
    assert done.exit_code == 0, done.output
    last = "T199" if form == "table" else f"T{PROBE + 9}"
    assert last.encode() in (home / f"x.{form}").read_bytes()


def test_a_command_that_asks_once_loads_no_arrays(make_lake: MakeLake) -> None:
    lake = make_lake(seal="never")
    lake.append([{"type": "A"}] * 3)
    program = (
        "import sys; from lakelog.cli import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "finally: print({'numpy', 'pyarrow'} & {*sys.modules})\n"
    )
    words = ["--lake", lake.path, "sql", "SELECT max(type) AS t FROM events", "--format", "csv"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert done.stdout == "t\nA\nset()\n"
