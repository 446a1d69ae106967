"""Kinds of lines that programs write, each read as a person would read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.ingest import transform


def stored(lake: lakelog.Lake, path: Path) -> list[dict[str, Any]]:
    """The events of a file, the members of their payload beside their columns."""
    report = lake.ingest(str(path))
    assert (report.quarantined, report.arrivals) == (0, 0)
    query = "SELECT * REPLACE (strftime(time, '%Y-%m-%d %H:%M:%S') AS time) FROM events"
    table = lake.sql(f"{query} ORDER BY position").to_arrow_table()
    return [{**row, **json.loads(row["data"] or "{}")} | columns(row) for row in table.to_pylist()]


def columns(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row, which count more than members of its payload."""
    return {name: row[name] for name in ("time", "type", "source", "level", "message")}


@pytest.mark.parametrize("few", [0, 500])
def test_texts_of_structlog_are_messages(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """A log has one type however many texts there are; a member that is a type stays one, and so
    does an event's name of other programs."""
    monkeypatch.setattr(transform, "FEW", few)
    lines: list[dict[str, Any]] = [
        {
            "event": "started" if n % 5 == 0 else f"request {n} done in 3 ms",
            "level": "info",
            "logger": "app",
            "timestamp": f"2026-11-24T10:00:{n % 60:02}Z",
        }
        for n in range(600)
    ]
    (tmp_path / "a.log").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = stored(lake, tmp_path / "a.log")
    assert {event["type"] for event in found} == {"log"}
    assert {event["source"] for event in found} == {"app"}
    assert [event["message"] for event in found] == [line["event"] for line in lines]
    assert {event["level"] for event in found} == {"INFO"}


def test_sentences_make_no_types(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Also where structlog was told to write neither a level nor a logger."""
    lines = [{"event": f"request {n} took {n} ms", "ts": 1_700_000_000 + n} for n in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = stored(lake, tmp_path / "a.jsonl")
    assert {event["type"] for event in found} == {"log"}
    assert [event["message"] for event in found] == [line["event"] for line in lines]


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ({"event": "click", "level": "info"}, "click"),
        ({"event": "order placed", "user": 7}, "order placed"),
        ({"event": "order placed", "level": "info", "type": "shop"}, "shop"),
        ({"event": "user created", "level": "info", "logger": "a", "message": "m"}, "user created"),
    ],
)
def test_an_event_that_is_a_name_is_a_type(
    lake: lakelog.Lake, tmp_path: Path, members: dict[str, Any], kind: str
) -> None:
    """Only what structlog alone writes is read as its message."""
    line = {"time": "2026-11-24T10:00:00Z", **members}
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(line)}\n" * 3)
    assert {event["type"] for event in stored(lake, tmp_path / "a.jsonl")} == {kind}


@pytest.mark.parametrize(("name", "quarantined"), [("train.log", 0), ("train.json", 1)])
def test_dictionaries_of_python_are_text(
    lake: lakelog.Lake, tmp_path: Path, name: str, quarantined: int
) -> None:
    """As transformers print them; in a file that is named as JSON they are damage."""
    (tmp_path / name).write_text("{'loss': 0.6931, 'epoch': 0.01}\n")
    assert lake.ingest(str(tmp_path / name)).quarantined == quarantined
