"""Bookkeeping events: they can be asked for, and are in nothing that leaves the lake by default."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import lakelog
from lakelog import train
from lakelog.cli import cli
from lakelog.event import BookkeepingEvent
from tests.support.trainsets import lake_of, notes, recipe, rows

OWN = [
    BookkeepingEvent.of(kind, "a.log", level="WARN", message="could not be read")
    for kind in (BookkeepingEvent.WATCH, BookkeepingEvent.BACKUP)
]
EARLIER = {"type": "train.export", "source": "lakelog", "subject": "demo"}
NAMESAKES = [
    {"type": "lakelog.watch", "source": "shop", "message": "an application's own"},
    {"type": "start", "source": "lakelog", "message": "a program of the same name"},
    {"type": "lakelog.watch", "message": "of no source"},
]
ALL = {"split": {"train": 1.0, "validation": 0.0, "test": 0.0}, "dedupe": {"exact": False}}


@pytest.mark.parametrize("kind", ["events", "text"])
def test_second_training_set_is_the_first(tmp_path: Path, kind: str) -> None:
    """What an export notes in the lake is in no later export, nor are other bookkeeping events."""
    with lake_of(tmp_path / "lake", [*notes(20), *OWN, EARLIER]) as lake:
        for name in ("one", "two"):
            train.export(lake, recipe(kind, **ALL), tmp_path / name)
        assert lake.sql(f"FROM events WHERE type = '{BookkeepingEvent.TRAIN}'").fetchall()
    first, second = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert len(first) == 20
    assert first == second


def test_events_without_bookkeeping_are_those_of_the_sql(tmp_path: Path) -> None:
    """The condition in Python keeps the rows that the one in SQL keeps, in every combination."""
    sources = (None, "", "lakelog", "Lakelog", "lakelog.")
    types = ("lakelog.", "lakelog.watch", "lakelogs", "train.export", "train.exports", "x")
    events = [{"type": kind, "source": source} for kind in types for source in sources]
    with lake_of(tmp_path / "lake", events) as lake:
        for only in ("true", "source = 'lakelog'", "source IS NULL", "false"):
            query = f"SELECT type, source FROM events WHERE {only}"
            rows = BookkeepingEvent.without(lake.sql(query).to_arrow_table().combine_chunks())
            wanted = lake.sql(f"{query} AND {BookkeepingEvent.IS_DATA}").to_arrow_table()
            assert rows.to_pylist() == wanted.to_pylist()


def test_recipe_can_ask_for_bookkeeping(tmp_path: Path) -> None:
    """With [select] bookkeeping, and of a tag just as of the present state, the notes are there."""
    with lake_of(tmp_path / "lake", [*notes(5), *OWN]) as lake:
        lake.tag("v1")
        for query in ("SELECT * FROM events", 'SELECT * FROM "v1".events'):
            made = recipe("events", query, **ALL)
            assert train.export(lake, made, tmp_path / f"a{len(query)}").rows == {"train": 5}
            made["select"]["bookkeeping"] = True
            out = tmp_path / f"b{len(query)}"
            assert train.export(lake, made, out).rows["train"] >= 7


def test_namesakes_are_data(tmp_path: Path) -> None:
    """Only both together, source and type, make an event one of lakelog's own."""
    with lake_of(tmp_path / "lake", [*NAMESAKES, *OWN]) as lake:
        train.export(lake, recipe("events", **ALL), tmp_path / "out")
        assert lake.sql("SELECT count(*) FROM events").fetchall() == [(6,)]
    assert {r["message"] for r in rows(tmp_path / "out")} == {e["message"] for e in NAMESAKES}


@pytest.mark.parametrize("table", ["events", " Events", '"v1".events', '"events"'])
def test_export_of_the_table_leaves_bookkeeping_out(tmp_path: Path, table: str) -> None:
    """`export events` has none of it; a query that names the table has what it asks for."""
    with lake_of(tmp_path / "lake", [*notes(3), *OWN]) as lake:
        lake.tag("v1")
    out = tmp_path / "out.jsonl"
    for query, count in ((table, 3), (f"SELECT * FROM {table}", 5)):
        arguments = ["--lake", str(tmp_path / "lake"), "export", query, "-o", str(out)]
        assert CliRunner().invoke(cli, arguments).exit_code == 0
        assert len([json.loads(line) for line in out.read_text().splitlines()]) == count


def test_bookkeeping_is_no_behaviour(tmp_path: Path) -> None:
    """A type that only lakelog appended is no finding between two states."""
    with lakelog.open(str(tmp_path / "lake")) as lake:
        lake.append(notes(20))
        lake.tag("v1")
        lake.append([{**n, "type": "other"} for n in notes(20)])
        lake.append(OWN * 20)
        found = lake.diff("v1", "main").behaviour
    assert sorted(f.name for f in found.types) == ["note", "other"]
    assert {f.name for f in found.sources} <= {"test"}
