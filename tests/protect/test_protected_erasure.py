"""Erasures in lakes with protected fields: by conditions over them, and of lines nobody parsed."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import InvalidKey
from lakelog.ingest import Quarantine
from tests.support import encrypted, protected
from tests.support.cli import run
from tests.support.protected import PLANTED, payloads, shown, without_keys
from tests.support.sync_places import synced


def test_a_condition_sees_protected_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it chooses goes, comes back from no file, and everything else stays sealed."""
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(protected.event(n)) + "\n" for n in range(10)))
    condition = f"data->>'email' = '{PLANTED}1@example.org'"
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        lake.tag("empty")
        lake.ingest(path)
        lake.compact()
        with without_keys(tmp_path), pytest.raises(InvalidKey, match="is missing"):
            lake.erase(where=condition, why="leak")
        assert lake.preview_erasure(where=condition).events == 2
        assert lake.erase(where=condition, why="leak").erasure.events == 2
        others = [row for row in shown(range(10)) if row[0] != "s1"]
        assert payloads(lake) == others
        lake.rollback("empty")
        path.rename(tmp_path / "other.jsonl")  # its rows are known by their contents alone
        lake.ingest(tmp_path / "other.jsonl")
        assert payloads(lake) == others
        assert encrypted.found(tmp_path / "lake", [PLANTED]) == []


def test_a_preview_counts_protected_fields_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stay, and name the subject."""
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(2))
        data = {"email": "asked by ada-3f9k2m", "n": 2}
        lake.append({"type": "SIGNUP", "subject": "s2", "data": data})
        lake.append({"type": "SIGNUP", "subject": "ada-3f9k2m"})
        touched = lake.preview_erasure(subject="ada-3f9k2m", rows=True)
        assert (touched.events, touched.mentions) == (1, 1)


def test_a_replayed_line_does_not_bring_fields_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line was set aside before the key was destroyed, and is an event now. The preview says that
    lines stay."""
    events = [protected.event(n) | {"time": "2020-01-01T00:00:00Z"} for n in (1, 2)]
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        lake.quarantine([("f", n, "no", json.dumps(event)) for n, event in enumerate(events)])
        lake.settle()
        assert lake.sql("SELECT count(*) FROM quarantine").fetchall() == [(2,)]
        assert "quarantined lines" in [
            s.place for s in lake.preview_erasure(subject="s1").leftovers
        ]
        lake.erase(subject="s1", why="asked")
    run(tmp_path / "lake", "quarantine", "replay")
    with lakelog.open(tmp_path / "lake") as lake:
        assert payloads(lake) == shown(range(2, 3))
        assert lake.sql("SELECT count(*) FROM quarantine").fetchall() == [(0,)]


def test_sealed_lines_are_not_replayed_without_the_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands for a line is JSON, too: it would be stored as an event, and the line be lost."""
    line = json.dumps(protected.event(1))
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        lake.quarantine([("f", 1, "no", line)])
        lake.settle()
        with without_keys(tmp_path), pytest.raises(InvalidKey, match="is missing"):
            Quarantine(lake.store, "main").replay(lake.engine)
        assert lake.sql("SELECT line FROM quarantine").fetchall() == [(line,)]


def test_the_next_sync_takes_out_what_a_destroyed_key_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No event of the lake has changed, and each row is read again."""
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(10))
    target = f"sqlite:{tmp_path}/out.db"
    synced(str(tmp_path / "lake"), target)
    with lakelog.open(tmp_path / "lake") as lake:
        assert lake.erase(subject="s0", why="asked").copies
    said: list[str] = []
    synced(str(tmp_path / "lake"), target, say=said.append)
    assert said == ["keys of subjects were destroyed: all rows are written again"]
    synced(str(tmp_path / "lake"), target, say=said.append)
    assert len(said) == 1
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        rows = dict(database.execute("SELECT subject, group_concat(data) FROM events GROUP BY 1"))
    assert {subject: PLANTED in data for subject, data in rows.items()} == {
        f"s{n}": n > 0 for n in range(5)
    }
