"""Ids in files: only formats that define an id of events give one, so that no line is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lakelog
from lakelog.audit.audit import audit
from lakelog.errors import InvalidEvent

MANY = 1500
"""So many lines are decided by SQL, a few by the exact rule."""


def log(path: Path, count: int, **members: object) -> str:
    """Write JSON lines of which each second one has the id of the one before."""
    with path.open("w") as file:
        for n in range(count):
            line = {"time": 1_700_000_000 + n, **members, "id": f"req-{n // 2}", "n": n}
            file.write(json.dumps(line) + "\n")
    return str(path)


@pytest.mark.matrix
@pytest.mark.parametrize("count", [4, MANY])
@pytest.mark.parametrize(
    "members",
    [
        {"level": "info", "message": "served"},
        {"event": "served"},
        {"data": {"path": "/"}},
        {"type": None},
        {"type": ""},
    ],
)
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


@pytest.mark.parametrize(
    "event",
    [
        {"type": "A", "source": "a", "id": "b\0c"},
        {"type": "A", "id": "b\0c", "level": "info"},
        {"type": "A", "id": "\ud800"},
        {"type": "A", "id": "1", "source": "a\ud800"},
    ],
)
def test_an_id_that_could_be_taken_for_another_is_refused(
    lake: lakelog.Lake, event: dict[str, str]
) -> None:
    """A NUL separates source and id within a key: with one in an id, two events shared theirs,
    and one that was acknowledged was never seen. So did texts that are no Unicode."""
    lake.append({"type": "A", "source": "a\0b", "id": "c"})
    with pytest.raises(InvalidEvent, match="event 1: id"):
        lake.append([{"type": "A"}, event])
    assert lake.count() == 1


@pytest.mark.parametrize("count", [3, 3_000])
def test_a_line_whose_id_holds_a_nul_goes_to_quarantine(
    lake: lakelog.Lake, tmp_path: Path, count: int
) -> None:
    """Ingest keeps the line with its reason, whether it was read one by one or in bulk."""
    lines = [f'{{"type":"A","source":"a","id":"{n}"}}\n' for n in range(count)]
    lines[1] = '{"type":"A","source":"a","id":"b\\u0000c"}\n'
    path = tmp_path / "events.jsonl"
    path.write_text("".join(lines))
    report = lake.ingest(path)
    assert (report.events, report.quarantined, lake.count()) == (count - 1, 1, count - 1)
    [(line, reason)] = lake.sql("SELECT line, reason FROM quarantine").fetchall()
    assert line == lines[1].strip()
    assert "NUL" in reason
