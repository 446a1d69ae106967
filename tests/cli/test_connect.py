"""lakelog connect: what it prints opens the lake where there is no lakelog, row for row."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

import lakelog
from tests.conftest import MakeLake
from tests.support.cli import run
from tests.support.lakes import events

Rows = list[tuple[Any, ...]]


def bare(sql: str) -> duckdb.DuckDBPyConnection:
    """Run the SQL in a DuckDB that knows nothing of lakes."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(sql)
    return connection


def printed(lake: lakelog.Lake, *words: str) -> str:
    """What `lakelog connect` prints."""
    return run(lake.path, "connect", *words).stdout


def rows(source: Any, table: str = "events") -> Rows:
    """Return all rows of a table, in the order of the lake."""
    order = "seq" if table == "events" else "position"
    found: Rows = source.sql(f"SELECT * FROM {table} ORDER BY {order}").fetchall()
    return found


@pytest.fixture
def mixed(make_lake: MakeLake) -> lakelog.Lake:
    """A lake of a compacted segment, two as they arrived, a tail, and quarantined lines."""
    lake = make_lake()
    for name in ("A", "B"):
        lake.append(events(name, 5))
        lake.settle()
    lake.compact()
    lake.tag("v1")
    for name in ("C", "D"):
        lake.append(events(name, 3))
        lake.settle()
    lake.quarantine([("in.jsonl", 7, "no JSON", "{"), ("in.jsonl", 8, "no type", "{}")])
    lake.append(events("TAIL", 4))
    return lake


def test_the_sql_opens_the_same_rows(mixed: lakelog.Lake) -> None:
    """Sorted and arrived segments, the tail published first, seq and quarantine: all the same."""
    connection = bare(printed(mixed, "--print"))
    assert len(rows(connection)) == 20
    assert rows(connection) == rows(mixed)
    assert [row[-1] for row in rows(connection)] == list(range(20))
    assert rows(connection, "quarantine") == rows(mixed, "quarantine")
    names = "SELECT * FROM events LIMIT 0"
    assert connection.sql(names).columns == mixed.sql(names).columns
    assert connection.sql(names).types == mixed.sql(names).types


def test_the_sql_opens_a_state(mixed: lakelog.Lake) -> None:
    """--at takes a tag, publishes nothing, and its views never change."""
    connection = bare(printed(mixed, "--print", "--at", "v1"))
    assert rows(connection) == rows(mixed.at("v1"))
    assert {row[1] for row in rows(mixed)} > {"C", "TAIL"}
    mixed.settle()
    assert len(rows(connection)) == 10


def test_the_sql_says_what_it_opens(mixed: lakelog.Lake) -> None:
    """Its comments name the lake, the events, the snapshot, and how to keep it."""
    text = printed(mixed, "--print")
    state = mixed.at("main").snapshot().id
    notes = [line for line in text.splitlines() if line.startswith("--")]
    assert mixed.path in notes[0]
    assert "20 events" in notes[0]
    assert state in notes[1]
    assert f"tag NAME {state[:12]}" in notes[3]


def test_an_empty_lake_opens_with_typed_columns(lake: lakelog.Lake) -> None:
    """Without a segment the views have their columns and no rows."""
    connection = bare(printed(lake, "--print"))
    assert rows(connection) == rows(connection, "quarantine") == []
    for table in ("events", "quarantine"):
        query = f"SELECT * FROM {table}"
        assert connection.sql(query).types == lake.sql(query).types


@pytest.mark.parametrize("name", ["it's [a] *lake*", "line\nbreak; DROP", 'back\\slash """'])
def test_an_odd_path_is_quoted(make_lake: MakeLake, name: str) -> None:
    """Quotes, stars, brackets and line breaks in the lake's path are nothing but its path."""
    lake = make_lake(f"{name}/lake")
    lake.append(events("A", 3))
    assert rows(bare(printed(lake, "--print"))) == rows(lake)
    snippet: dict[str, Any] = {"__name__": "snippet"}
    exec(printed(lake, "--format", "python"), snippet)
    assert len(rows(snippet["lake"])) == 3


def test_the_python_snippet_runs_without_lakelog(mixed: lakelog.Lake, tmp_path: Path) -> None:
    """It is a program of its own that shows the events by type, and a module to go on from."""
    path = tmp_path / "open_lake.py"
    path.write_text(printed(mixed, "--format", "python"))
    said = subprocess.run(
        [sys.executable, "-W", "error", path],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    assert "TAIL" in said.stdout
    assert "lakelog" not in {
        line.split()[1] for line in path.read_text().splitlines() if "import" in line
    }


def test_json_holds_both(mixed: lakelog.Lake) -> None:
    """--json gives SQL, Python, the snapshot and its number of events."""
    made = json.loads(printed(mixed, "--json"))
    assert made["events"] == 20
    assert made["snapshot"] in made["sql"]
    assert made["sql"] in made["python"]


def test_the_files_are_those_of_the_state(mixed: lakelog.Lake) -> None:
    """--format files names what holds the events of the state: not what was rolled back, and not
    what a compaction wrote again; pyarrow, polars and DuckDB count the same."""
    import polars
    import pyarrow.dataset as dataset

    before = mixed.settle().move.snapshot
    mixed.append([{"type": "LATER"}] * 7)
    mixed.settle()
    mixed.compact()
    mixed.rollback(before)
    files = printed(mixed, "--format", "files").splitlines()
    assert json.loads(printed(mixed, "--json"))["files"] == files
    count = mixed.count()
    assert dataset.dataset(files).count_rows() == count
    assert polars.scan_parquet(files).select(polars.len()).collect().item() == count
    types = dataset.dataset(files).to_table(["type"])["type"].to_pylist()
    assert "LATER" not in types
    assert len(list(Path(mixed.path).glob("segments/*/*.parquet"))) > len(files)


def test_without_an_option_it_tells_the_ways(mixed: lakelog.Lake) -> None:
    """It names DuckDB, Python with and without lakelog, and the files, with the lake's path."""
    said = printed(mixed)
    assert said.count(mixed.path) >= 5
    for word in ("duckdb -init", "lakelog.connect(", "lakelog.open(", "--format files"):
        assert word in said
