"""Names of directories, columns, fields, tags and files are data: none becomes SQL or a pattern."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb
import pytest

import lakelog
from lakelog import database, sql, train
from lakelog.analyze import dedupe
from lakelog.errors import InvalidName
from tests.support import trainsets
from tests.support.cli import run
from tests.support.lakes import events

PLANTED = "x'; COPY (SELECT 1) TO 'planted"
TEXTS = [
    "quo'te",
    'dou"ble',
    "semi;colon -- x",
    "new\nline",
    "ünï 漢字 🦆",
    "back\\slash",
    "end\\",
    '\\"',
    "a.b",
    "$x",
    "{a,b}",
    "%s",
    "']; --",
    PLANTED,
]
FOLDERS = [
    "quo'te",
    'dou"ble',
    "semi;colon -- x",
    "new\nline",
    "ünï 漢字 🦆",
    "back\\slash",
    "~",
    "s3:",
    PLANTED,
]
PATTERNS = {
    "st*r": "star",
    "**": "other",
    "q?": "qq",
    "br[a]": "bra",
    "n[!a]": "nb",
    "[[]": "[",
    "type=web": "type=db",
    "level=INFO": "x",
    "seq=7": "y",
}
"""Directories whose names the engine takes for patterns or partitions, and what they match."""


@pytest.mark.parametrize("text", [*TEXTS, "nul\0nul", ""])
def test_a_literal_is_the_text(text: str) -> None:
    """What literal() writes reads as the text that it was given."""
    assert duckdb.sql(f"SELECT {sql.literal(text)}").fetchall() == [(text,)]


@pytest.mark.parametrize("name", TEXTS)
def test_an_identifier_is_the_name(name: str) -> None:
    """What identifier() writes names the column, and nothing else."""
    relation = duckdb.sql(
        f"SELECT {sql.identifier(name)} FROM (SELECT 1 AS {sql.identifier(name)})"
    )
    assert relation.columns == [name]


@pytest.mark.parametrize("name", [*TEXTS, "", "~/"])
def test_a_json_path_is_the_member(name: str) -> None:
    """What json_path() writes reaches a member of an object in an object by its names."""
    for inner in (name, "", "a/b~1"):
        text = sql.literal(json.dumps({name: {inner: 7}}))
        rows = duckdb.sql(f"SELECT {text}::JSON ->> {sql.json_path([name, inner])}").fetchall()
        assert rows == [("7",)]


def test_a_name_with_nul_is_refused() -> None:
    """SQL has no such identifier, and an error says so."""
    with pytest.raises(InvalidName, match="NUL"):
        sql.identifier("a\0b")


def exercise(path: Path) -> None:
    """Write, settle, compact, query and connect: all rows are there, each with its own values."""
    with lakelog.open(str(path)) as lake:
        for _ in range(3):
            lake.append(events("t", 4))
            lake.settle()
        lake.quarantine([("in.jsonl", 7, "no JSON", "{")])
        before = lake.sql("SELECT * FROM events ORDER BY seq").fetchall()
        assert [row[1] for row in before] == ["t"] * 12
        lake.compact()
        lake.append(events("t", 1))
        assert lake.sql("SELECT * FROM events WHERE seq < 12 ORDER BY seq").fetchall() == before
        assert lake.sql("SELECT count(*) FROM quarantine").fetchall() == [(1,)]
        assert len(dedupe.duplicates(lake, "type").fetchall()) == 1
    printed = run(path, "connect", "--print").stdout
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(printed)
    rows = connection.sql("SELECT * FROM events WHERE seq < 12 ORDER BY seq").fetchall()
    assert rows == before


@pytest.mark.matrix
@pytest.mark.parametrize("name", FOLDERS)
def test_a_lake_works_in_a_directory_of_any_name(tmp_path: Path, name: str) -> None:
    """Quotes, semicolons, newlines and SQL in the path of a lake mean nothing."""
    exercise(tmp_path / name / "lake")
    assert not list(tmp_path.rglob("planted"))


@pytest.mark.matrix
@pytest.mark.parametrize("name", PATTERNS)
def test_the_path_of_a_lake_is_no_pattern(tmp_path: Path, name: str) -> None:
    """A copy in a directory that the name would match is not read as well, nor is `type=web` taken
    for the type of every event.
    """
    path = tmp_path / name / "lake"
    exercise(path)
    shutil.copytree(path, tmp_path / PATTERNS[name] / "lake")
    with lakelog.open(str(path)) as lake:
        count = "SELECT count(*), count(DISTINCT (seq, type)) FROM events"
        lake.settle()
        assert lake.sql(f"{count} WHERE type = 't'").fetchall() == [(13, 13)]


def test_a_path_that_the_engine_cannot_be_given_is_an_error(tmp_path: Path) -> None:
    """A wildcard and a backslash in one path: one line says what to do."""
    with lakelog.open(str(tmp_path / "a*\\b")) as lake:
        lake.append(events("t", 4))
        lake.settle()
        with pytest.raises(InvalidName, match="rename the directory"):
            lake.sql("SELECT sum(seq) FROM events").fetchall()


@pytest.mark.parametrize("name", TEXTS)
def test_columns_of_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    """The heading of a CSV file becomes a field of that name; nothing of it is run."""
    cell = '"' + name.replace('"', '""') + '"'
    source = tmp_path / f"in{name.replace('/', '')}.csv"
    source.write_text(f"time,{cell}\n" + "2026-01-01T00:00:00Z,7\n" * 2, newline="")
    with lakelog.open(str(tmp_path / "lake")) as lake:
        lake.ingest(str(source), format="csv")
        (data,) = lake.sql("SELECT any_value(data::VARCHAR) FROM events").fetchall()[0]
        if "\n" not in name:  # a heading of two lines is no heading
            assert list(json.loads(data)) == [name]
            key = f"data.{name}"
            if "." not in name and "," not in name:
                assert len(dedupe.duplicates(lake, key).fetchall()) == 1
    assert not list(tmp_path.rglob("planted"))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "arrow"])
def test_an_export_keeps_names_of_columns(tmp_path: Path, ending: str) -> None:
    """Columns of any names are exported under them, into a file of any name."""
    with lakelog.open(str(tmp_path / "lake")) as lake:
        lake.append(events("t", 3))
        query = f"SELECT {', '.join(f'7 AS {sql.identifier(n)}' for n in TEXTS)} FROM events"
        for name in (TEXTS[0], PLANTED, "st*r"):
            target = tmp_path / f"out {name}.{ending}"
            run(lake.path, "export", query, "-o", str(target))
            assert target.exists()
            if ending == "parquet":
                assert duckdb.read_parquet(database.file_pattern(str(target))).columns == TEXTS
    assert not list(tmp_path.rglob("planted"))


@pytest.mark.parametrize("name", TEXTS)
def test_a_tag_or_branch_of_any_name_is_one_schema(tmp_path: Path, name: str) -> None:
    """A name that is allowed can be queried as a schema; any other one is refused as a name."""
    with lakelog.open(str(tmp_path / "lake")) as lake:
        lake.append(events("t", 3))
        lake.settle()
        for make in (lake.tag, lambda n: lake.branch(f"b {n}")):
            try:
                make(name)
            except InvalidName:
                continue
            full = name if make == lake.tag else f"b {name}"
            rows = lake.sql(f"SELECT count(*) FROM {sql.identifier(full)}.events").fetchall()
            assert rows == [(3,)]
    assert not list(tmp_path.rglob("planted"))


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["quo'te", "new\nline", "st*r", "br[a]", "type=web", PLANTED])
def test_a_training_set_is_checked_in_a_directory_of_any_name(tmp_path: Path, name: str) -> None:
    """It is clean where it stands, and a copy that its path would match is not read as well."""
    path = tmp_path / name / "set"
    path.parent.mkdir(parents=True)
    with trainsets.lake_of(tmp_path / "lake", trainsets.notes(200, 60)) as lake:
        train.export(lake, trainsets.recipe("text"), str(path))
    other = tmp_path / PATTERNS.get(name, "other") / "set"
    shutil.copytree(path, other)
    assert train.check(str(path)).leaks == ()
    assert train.diff(str(path), str(other)) == train.diff(str(path), str(path))
    assert not list(tmp_path.rglob("planted"))
