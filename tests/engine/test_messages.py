"""What the engine says in its errors: each word that lakelog looks for is still there."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from lakelog.engine.messages import EngineMessage


@pytest.fixture
def own() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (a INT PRIMARY KEY, s TEXT, data TEXT)")
        connection.execute("CREATE VIEW events AS FROM t")
        yield connection


def words_of(own: duckdb.DuckDBPyConnection, query: str) -> EngineMessage:
    """What the engine says of a query that fails."""
    with pytest.raises(duckdb.Error) as caught:
        own.execute(query).fetchall()
    return EngineMessage(caught.value)


def test_the_gist_is_one_line_without_the_query(own: duckdb.DuckDBPyConnection) -> None:
    """Lists of candidates, advice and the picture of the query are left out."""
    for query in ("SELECT nosuch FROM t", "SELECT sum(s) FROM t", "SELECT\n(", "FROM nosuch"):
        words = words_of(own, query).gist()
        assert "Error: " in words
        assert not {"LINE", "Candidate", "\n", "select one"} & {*words.split(" "), *words}, words


def test_the_place_and_its_picture(own: duckdb.DuckDBPyConnection) -> None:
    """The line is counted from 1, and a caret stands below the place."""
    words = words_of(own, "SELECT a,\nnosuch FROM t")
    assert words.line_of() == 2
    assert EngineMessage("Parser Error: nothing").line_of() is None
    line, caret = words.picture()
    assert line == "LINE 2: nosuch FROM t"
    assert caret.index("^") == line.index("nosuch")
    moved = words.renumbered("-- typed\nSELECT a,\n\nnosuch FROM t")
    assert moved.line_of() == 4


@pytest.mark.parametrize(
    ("query", "table", "name"),
    [
        ("FROM nosuch", "nosuch", "nosuch"),
        ("SELECT nosuch FROM t", "", "nosuch"),
        ("SELECT nosuch(1)", "", "nosuch"),
        ("SELECT 1 / 'a'", "", ""),
    ],
)
def test_names_that_are_missing(
    own: duckdb.DuckDBPyConnection, query: str, table: str, name: str
) -> None:
    """Of a table, by which the caller's own is found, and of whatever else a query names."""
    words = words_of(own, query)
    assert (words.missing_table(), words.missing_name()) == (table, name)


class NoRefs:
    """A lake with one tag."""

    def tag_names(self) -> list[str]:
        return ["release"]

    def branches(self) -> list[str]:
        return ["main"]


def test_suggestions_are_of_the_lake(own: duckdb.DuckDBPyConnection) -> None:
    """For a table that is missing, and for a tag or branch that is, taken for a schema."""

    def suggested(query: str) -> str:
        return words_of(own, query).with_suggestion(lambda: ["sessions"], NoRefs())

    assert "did you mean 'sessions'?" in suggested("FROM session")
    assert "no tag or branch \"relase\": did you mean 'release'?" in suggested(
        'FROM "relase".events'
    )


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("DELETE FROM events", "SQL only reads a lake"),
        ("UPDATE events SET a = 1", "SQL only reads a lake"),
        ("INSERT INTO events VALUES (1)", "SQL only reads a lake"),
        ("CREATE OR REPLACE TABLE events (a INT)", "SQL only reads a lake"),
        ("SELECT fields.x FROM t", "fields are known where FROM names events"),
        ("SELECT data.x FROM t", "write data->>'x'"),
        ("SELECT nosuch FROM t", "a field of the payload is data->>'nosuch'"),
        ("SELECT sesion FROM (SELECT 1 AS session, 2 AS level)", "did you mean 'session'?"),
        ("SELECT data FROM range(1)", "only events have data"),
        ("FROM nosuch", "see `lakelog views`"),
    ],
)
def test_hints(own: duckdb.DuckDBPyConnection, query: str, hint: str) -> None:
    """What a lake's user should write instead, once: what passes several hands as well."""
    explained = words_of(own, query).explained()
    assert hint in explained
    assert EngineMessage(explained).explained() == explained


@pytest.mark.parametrize(
    ("query", "is_of_value"),
    [
        ("SELECT 'a'::INT", True),
        ("SELECT 300::UTINYINT", True),
        ("SELECT 9223372036854775807 + 1::BIGINT", True),
        ("SELECT nosuch", False),
        ("SELECT (", False),
    ],
)
def test_errors_of_values(own: duckdb.DuckDBPyConnection, query: str, is_of_value: bool) -> None:
    """Told from errors of the query, which fail for every row."""
    assert words_of(own, query).is_of_value() is is_of_value


@pytest.mark.parametrize(
    ("text", "is_unfinished"),
    [
        ("SELECT 'a", True),
        ('SELECT "a', True),
        ("SELECT 1 /* a", True),
        ("SELECT $$a", True),
        ("SELECT $x$a", True),
        ("SELECT (", False),
        ("SELEC 1", False),
    ],
)
def test_unfinished_texts(own: duckdb.DuckDBPyConnection, text: str, is_unfinished: bool) -> None:
    """A string, comment or quoted name that more lines may end."""
    assert words_of(own, text).is_unfinished() is is_unfinished


def test_a_row_that_a_table_refuses(own: duckdb.DuckDBPyConnection) -> None:
    """By a key, or by a value that does not fit."""
    own.execute("INSERT INTO t (a) VALUES (1)")
    for query in ("INSERT INTO t (a) VALUES (1)", "INSERT INTO t (a) VALUES ('x')"):
        assert words_of(own, query).is_of_row()
    assert not words_of(own, "SELECT nosuch").is_of_row()


def test_a_file_of_another_process(tmp_path: Path) -> None:
    """A database that is open for writing elsewhere is locked."""
    path = f"{tmp_path}/own.db"
    script = "import duckdb, sys\ntry: duckdb.connect(sys.argv[1])\nexcept Exception as e: print(e)"
    with duckdb.connect(path):
        command = [sys.executable, "-c", script, path]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert EngineMessage(said).is_locked()


@pytest.mark.parametrize("way", ["rows", "arrow"])
def test_an_interrupt(own: duckdb.DuckDBPyConnection, way: str) -> None:
    """By whatever way it comes: as the engine's error, or through a stream of Arrow's."""
    query = "SELECT sum(hash(i * j)) FROM range(10000000) a(i), range(10000000) b(j)"
    endless = "SELECT i FROM range(100000000000) t(i)"
    reader = own.sql(endless).to_arrow_reader(1000) if way == "arrow" else None
    timer = threading.Timer(0.2, own.interrupt)
    timer.start()
    with pytest.raises((duckdb.Error, RuntimeError, OSError, pa.ArrowException)) as caught:
        own.execute(query).fetchall() if reader is None else [None for _ in reader]
    timer.join()
    assert EngineMessage.is_interrupt(caught.value)
    assert not EngineMessage.is_interrupt(OSError(4, "the append was interrupted: try it again"))
    assert not EngineMessage.is_interrupt(duckdb.IOException("IO Error: nothing"))


def test_the_reason_and_the_file(own: duckdb.DuckDBPyConnection) -> None:
    """Without the kind of the error; and by the file, gc is told from a mistake of the user."""
    words = words_of(own, "SELECT regexp_matches('', '(')")
    assert words.reason().startswith("missing )")
    words = words_of(own, "FROM '/nosuch/lake/x.parquet'")
    assert words.names_file("/nosuch/lake")
    assert not words.names_file("/nosuch/lak")
