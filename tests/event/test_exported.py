"""Rows of `events` come back as the events that they were, by every way in."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lakelog
from lakelog.event import EVENT_COLUMNS, assigned_columns

MakeLake = Callable[..., lakelog.Lake]
QUERY = """SELECT epoch_us(time), type, category, source, subject, level, message, data, id
    FROM events ORDER BY ALL"""
EVENTS: list[dict[str, Any]] = [
    {"type": "A", "source": "s", "id": "x", "subject": "q", "level": "warn", "data": {"v": 1.5}},
    {"type": "B", "message": "hi", "data": [1, {"seq": 3, "origin": "moon"}]},
    {"type": "C", "data": "5"},
    {"type": "D", "data": "no JSON"},
    {"type": "E"},
]


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


APPENDED: dict[str, Callable[[lakelog.Lake, Path], Any]] = {
    "parquet": lambda _, path: pq.read_table(path),
    "arrow": lambda _, path: pa.ipc.open_file(path).read_all(),
    "jsonl": lambda _, path: _lines(path),
}
READ: dict[str, Callable[[lakelog.Lake], Any]] = {
    "tail": lambda lake: lake.tail(10),
    "relation": lambda lake: lake.sql("FROM events"),
    "rows": lambda lake: lake.sql("FROM events").to_arrow_table().to_pylist(),
    "without seq": lambda lake: lake.sql("SELECT * EXCLUDE (seq) FROM events"),
}


@pytest.fixture(params=["tail", "sealed", "compacted"])
def original(make_lake: MakeLake, request: pytest.FixtureRequest) -> lakelog.Lake:
    lake = make_lake("original")
    lake.append(EVENTS)
    for change in {"tail": [], "sealed": [lake.settle], "compacted": [lake.compact]}[request.param]:
        change()
    return lake


@pytest.mark.matrix
@pytest.mark.parametrize("ending", ["parquet", "arrow", "jsonl", "csv"])
def test_an_export_gives_the_events_back(
    original: lakelog.Lake, make_lake: MakeLake, home: Path, ending: str
) -> None:
    path = home / f"out.{ending}"
    original.export("events", path)
    expected = original.sql(QUERY).fetchall()
    ingested = make_lake("ingested")
    ingested.ingest(path)
    if ending == "csv":  # which does not tell a text from JSON
        with path.open() as file:
            assert assigned_columns(next(csv.reader(file)))
        assert ingested.sql(
            "SELECT count(*) FROM events WHERE data LIKE '%ingested_at%'"
        ).fetchall() == [(0,)]
        return
    assert ingested.sql(QUERY).fetchall() == expected
    appended = make_lake("appended")
    appended.append(APPENDED[ending](original, path))
    assert appended.sql(QUERY).fetchall() == expected


@pytest.mark.parametrize("way", READ)
def test_rows_that_python_read_are_appended_as_events(
    original: lakelog.Lake, make_lake: MakeLake, way: str
) -> None:
    other = make_lake("other")
    other.append(READ[way](original))
    assert other.sql(QUERY).fetchall() == original.sql(QUERY).fetchall()
    # With content keys they are equal to themselves.
    other.append(READ[way](original), dedupe="content")
    other.append(READ[way](original), dedupe="content")
    assert other.count() == 2 * len(EVENTS) - 1


def test_other_rows_keep_columns_of_these_names(make_lake: MakeLake, home: Path) -> None:
    """Appended and ingested alike."""
    table = pa.table({"type": ["A"], "position": [5], "origin": ["moon"], "seq": [7]})
    pq.write_table(table, home / "rows.parquet")
    ways: list[Callable[[lakelog.Lake], Any]] = [
        lambda lake: lake.append(table),
        lambda lake: lake.append(table.to_pylist()),
        lambda lake: lake.ingest(home / "rows.parquet"),
    ]
    for number, way in enumerate(ways):
        lake = make_lake(str(number))
        way(lake)
        (data,) = lake.sql("SELECT data FROM events").fetchall()
        assert json.loads(data[0]) == {"position": 5, "origin": "moon", "seq": 7}
    assert not assigned_columns((*EVENT_COLUMNS, "other"))


@pytest.mark.parametrize(
    "text", ["1e400", '{"a":1e400}', '{"a":[123456789012345678901234567890]}', '"\\ud800"', "NaN"]
)
def test_json_in_a_column_is_read_by_one_rule(make_lake: MakeLake, home: Path, text: str) -> None:
    table = pa.table({"type": ["A"], "data": [text]})
    pq.write_table(table, home / "rows.parquet")
    with pa.ipc.new_file(home / "rows.arrow", table.schema) as file:
        file.write_table(table)
    found = []
    for number, name in enumerate(("rows.parquet", "rows.arrow", "")):
        lake = make_lake(str(number))
        _ = lake.ingest(home / name) if name else lake.append(table)
        found += lake.sql("SELECT data FROM events").fetchall()
    assert len({*found}) == 1
    if text != "NaN":
        line = make_lake("line")
        (home / "rows.jsonl").write_text(f'{{"type":"A","data":{text}}}\n')
        line.ingest(home / "rows.jsonl")
        assert found[0] == line.sql("SELECT data FROM events").fetchall()[0]
