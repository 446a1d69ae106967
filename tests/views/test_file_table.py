"""The table `files`: where rows came from, how much of each file was read, and what is waiting."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import lakelog
from lakelog.views import LakeViews
from tests.support import lakes
from tests.support.cli import run

COLUMNS = ["path", "host", "origin", "size", "consumed", "behind", "lines", "read_at"]
LINE = '{"type": "A"}\n'


def test_files_are_a_table_that_joins_with_events(tmp_path: Path) -> None:
    """Each file with its host and origin, by which SQL tells where a row came from; what was
    appended since is behind; a packed file counts in other bytes."""
    log, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    log.write_text(LINE * 3)
    packed.write_bytes(gzip.compress(LINE.encode() * 2))
    with lakes.opened(str(tmp_path / "lake")) as lake:
        lake.append({"type": "OWN"})
        lake.ingest([str(log), str(packed)])
        lake.tag("v1")
        found = lake.sql("SELECT * FROM files ORDER BY path")
        assert found.columns == COLUMNS
        rows = found.fetchall()
        size = len(LINE) * 3
        assert rows[0][:2] == (str(log), os.uname().nodename)
        assert rows[0][3:7] == (size, size, 0, 3)
        assert (rows[1][0], rows[1][4:7]) == (str(packed), (len(LINE) * 2, None, 2))
        joined = lake.sql("""SELECT f.path, count(*) FROM events LEFT JOIN files f USING (origin)
            GROUP BY 1 ORDER BY 1 NULLS LAST""").fetchall()
        assert joined == [(str(log), 3), (str(packed), 2), (None, 1)]
        with log.open("a") as file:
            file.write(LINE)
        behind = "SELECT behind FROM {} WHERE path LIKE '%.jsonl'"
        assert lake.sql(behind.format("files")).fetchall() == [(len(LINE),)]
        assert lake.sql(behind.format('"v1".files')).fetchall() == [(0,)]
        assert lake.at("v1").sql(behind.format("files")).fetchall() == [(0,)]
        lake.ingest(str(log))
        assert lake.sql(behind.format("files")).fetchall() == [(0,)]


def test_a_lake_without_files_has_the_table(tmp_path: Path) -> None:
    """A lake without files has the table, without rows, and names it."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        assert lake.sql("SELECT * FROM files").columns == COLUMNS
        assert lake.sql("SELECT count(*) FROM files").fetchall() == [(0,)]
        names = [name for (name,) in lake.sql("SHOW TABLES").fetchall()]
        assert "files" in names
    shown = run(tmp_path / "lake", "sql", "SELECT path, host FROM files", "--format", "csv")
    assert shown.stdout.strip() == "path,host"


def test_a_name_of_the_user_hides_the_table(tmp_path: Path) -> None:
    """A view, a table and a part of the query that are called `files` are what the user meant."""
    with lakelog.open(str(tmp_path / "lake"), settings={"seal": "never"}) as lake:
        query = "WITH files AS (SELECT 7 AS n) SELECT n FROM files"
        assert lake.sql(query).fetchall() == [(7,)]
        lake.append({"type": "A"})
        LakeViews(lake).create("files", "SELECT 8 AS n FROM events")
        assert lake.sql("SELECT n FROM files").fetchall() == [(8,)]
