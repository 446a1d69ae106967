"""Ids in files: only formats that define an id of events give one, so that no line is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lakelog
from lakelog.ingest.audit import audit

MANY = 1500
"""So many lines are decided by SQL, a few by the exact rule."""


def log(path: Path, count: int, **members: object) -> str:
    """Write JSON lines of which each second one has the id of the one before."""
    with path.open("w") as file:
        for n in range(count):
            line = {"time": 1_700_000_000 + n, **members, "id": f"req-{n // 2}", "n": n}
            file.write(json.dumps(line) + "\n")
    return str(path)


@pytest.mark.parametrize("count", [4, MANY])
@pytest.mark.parametrize("members", [
    {"level": "info", "message": "served"}, {"event": "served"}, {"data": {"path": "/"}},
    {"type": None}, {"type": ""},
])  # fmt: skip
def test_an_id_of_unknown_json_lines_loses_none(
    lake: lakelog.Lake, tmp_path: Path, members: dict[str, object], count: int
) -> None:
    """Lines without a type may repeat an id, which is that of a request or a user."""
    report = lake.ingest(log(tmp_path / "app.log", count, **members))
    assert (report.events, report.skipped, report.quarantined) == (count, 0, 0)
    query = "SELECT count(id), count(DISTINCT data->>'id'), count(DISTINCT data->>'n') FROM events"
    assert lake.sql(query).fetchall() == [(0, count // 2, count)]
    (file,) = audit(lake.store, lake.branch_name, lake.engine, []).files
    assert file.wrong == 0


@pytest.mark.parametrize("count", [4, MANY])
@pytest.mark.parametrize("key", ["type", "event_type"])
def test_an_id_beside_a_type_is_that_of_the_event(
    lake: lakelog.Lake, tmp_path: Path, key: str, count: int
) -> None:
    """Lines as lakelog writes them say which event they are, which is stored once."""
    report = lake.ingest(log(tmp_path / "app.log", count, **{key: "SERVED"}))
    assert (report.events, report.skipped) == (count // 2, count // 2)
    query = "SELECT count(DISTINCT id), count(data->>'id') FROM events"
    assert lake.sql(query).fetchall() == [(count // 2, 0)]


@pytest.mark.parametrize("count", [4, MANY])
@pytest.mark.parametrize(("header", "stored"), [("time,id,n", 1), ("time,type,id,n", 2)])
def test_an_id_of_a_table(
    lake: lakelog.Lake, tmp_path: Path, header: str, stored: int, count: int
) -> None:
    """A column `id` holds ids of events only beside a column of types."""
    kind = "A," if "type" in header else ""
    rows = (f"{1_700_000_000 + n},{kind}r{n // 2},{n}\n" for n in range(count))
    path = tmp_path / "table.csv"
    path.write_text(f"{header}\n{''.join(rows)}")
    report = lake.ingest(str(path))
    assert (report.events, report.quarantined) == (count // stored, 0)
    query = "SELECT count(id), count(data->>'id') FROM events"
    assert lake.sql(query).fetchall() == [(count // 2, 0) if kind else (0, count)]


def test_the_id_of_a_bulk_request_is_that_of_its_document(
    lake: lakelog.Lake, tmp_path: Path
) -> None:
    """The `_id` of an action counts, whatever the document without a type calls its id."""
    action = '{"index":{"_index":"logs","_id":"%d"}}\n{"@timestamp":5,"id":"x","n":%d}\n'
    path = tmp_path / "bulk.ndjson"
    path.write_text("".join(action % (n, n) for n in (1, 2, 2)))
    report = lake.ingest(str(path))
    assert (report.events, report.skipped) == (2, 1)
    query = "SELECT id, data->>'id' FROM events ORDER BY id"
    assert lake.sql(query).fetchall() == [("1", "x"), ("2", "x")]


def test_appended_ids_are_those_of_events(lake: lakelog.Lake) -> None:
    """What is appended says what its id is, with whatever key it gives its type."""
    for event in ({"type": "A", "id": "1"}, {"event": "A", "id": "1"}, {"type": "B", "id": "1"}):
        lake.append(event)
    assert lake.sql("SELECT id, data->>'id' FROM events").fetchall() == [("1", None)]
