"""Databases of the older event store, loaded into a lake."""

from __future__ import annotations

import gzip
import json
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lakelog
from lakelog import EventDatabase
from lakelog.cli import cli
from lakelog.compat import sqlite_import
from lakelog.errors import LakelogError

START = 1_760_000_000.5
SCHEMA = """
CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp REAL NOT NULL,
    event_type TEXT, action TEXT, source TEXT, data_json TEXT, data_compressed BLOB, hash TEXT,
    processed BOOLEAN DEFAULT 0, created_at REAL);
CREATE TABLE patterns (id INTEGER PRIMARY KEY, event_id INTEGER, pattern_type TEXT,
    confidence REAL, pattern_data TEXT, embryo_id TEXT, created_at REAL);
CREATE TABLE system_stats (id INTEGER PRIMARY KEY, timestamp REAL, total_events INTEGER,
    events_per_second REAL, active_embryos INTEGER, avg_fitness REAL, storage_mb REAL,
    created_at REAL);
"""
COLUMNS = "timestamp, event_type, action, source, data_json, data_compressed, processed, created_at"


def packed(data: Any) -> bytes:
    """Data as the older store packed large ones."""
    return gzip.compress(json.dumps(data).encode())


def rows() -> list[tuple[Any, ...]]:
    """Rows of `events` of every kind: flat, packed, without data, and two equal ones."""
    large = {"genome": "ACGT" * 5000}
    return [
        (START, "mutation", "create", "core", '{"fitness": 0.75}', None, 1, START + 1),
        (START + 1, "signal", None, None, None, packed(large), 0, START + 2),
        (START + 2, "signal", "go", "core", "", zlib.compress(b'{"action":"own"}'), 0, None),
        (START + 3, "tick", None, "core", '{"n":123456789012345678901234567890}', None, 0, START),
        (START + 4, "tick", "same", "core", "[1,2]", None, 0, START + 9),
        (START + 4, "tick", "same", "core", "[1,2]", None, 1, START + 9),
    ]


@pytest.fixture
def old(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A database of the older store, in use."""
    connection = sqlite3.connect(tmp_path / "events.db")
    connection.executescript(SCHEMA)
    add(connection, rows())
    connection.execute(
        "INSERT INTO patterns VALUES (1, 2, 'burst', 0.9, '{\"n\":2}', 'em-7', ?)", [START + 5]
    )
    connection.execute(
        "INSERT INTO system_stats VALUES (1, ?, 6, 1.5, 2, 0.75, 0.1, ?)", [START + 6, START + 7]
    )
    connection.commit()
    yield connection
    connection.close()


def add(connection: sqlite3.Connection, new: list[tuple[Any, ...]]) -> None:
    """Insert rows of `events`."""
    connection.executemany(f"INSERT INTO events ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?)", new)
    connection.commit()


def table(lake: lakelog.Lake, name: str) -> list[dict[str, Any]]:
    """A table of the old schema, in order of time and id."""
    key = "created_at" if name == "patterns" else "timestamp"
    relation = lake.sql(f"SELECT * FROM omega.{name} ORDER BY {key}, processed" if name == "events"
                        else f"SELECT * FROM omega.{name} ORDER BY {key}")  # fmt: skip
    found: list[dict[str, Any]] = relation.to_arrow_table().to_pylist()
    return found


def test_every_row_comes_back_in_its_columns(
    lake: lakelog.Lake, old: sqlite3.Connection, tmp_path: Path
) -> None:
    """Times, actions, data plain and packed, marks and created_at are those of the database."""
    done = sqlite_import.load(lake, str(tmp_path / "events.db"))
    assert (done.events, done.patterns, done.system_stats, done.processed) == (6, 1, 1, 2)
    assert (done.known, done.quarantined, done.damage) == (0, 0, "")
    events = table(lake, "events")
    for row, (time, kind, action, source, text, blob, mark, created) in zip(
        events, rows(), strict=True
    ):
        assert (row["timestamp"], row["event_type"], row["action"]) == (time, kind, action)
        assert (row["source"], row["processed"]) == (source, bool(mark))
        data = zlib.decompress(blob, wbits=47) if blob else text
        assert json.loads(row["data_json"]) == json.loads(data)
        assert created in (None, row["created_at"])
    (pattern,) = table(lake, "patterns")
    assert (pattern["event_id"], pattern["embryo_id"]) == (events[1]["id"], "em-7")
    assert (pattern["created_at"], json.loads(pattern["pattern_data"])) == (START + 5, {"n": 2})
    (stats,) = table(lake, "system_stats")
    assert (stats["timestamp"], stats["created_at"]) == (START + 6, START + 7)
    assert (stats["total_events"], stats["avg_fitness"]) == (6, 0.75)
    with EventDatabase(lake) as database:
        found = [database.get_event(row["id"]) for row in events]
        assert [{k: v for k, v in f.items() if k != "data"} for f in found if f] == events


def test_marks_that_are_text(lake: lakelog.Lake, old: sqlite3.Connection, tmp_path: Path) -> None:
    """Words for false mark no event."""
    words = ("False", "FALSE", "f", "no", "0", "", "True", "t", "1")
    add(old, [(START, "e", str(n), "s", None, None, w, START) for n, w in enumerate(words)])
    sqlite_import.load(lake, str(tmp_path / "events.db"))
    rows = {r["action"]: r["processed"] for r in table(lake, "events") if r["event_type"] == "e"}
    assert [rows[str(n)] for n in range(len(words))] == [False] * 6 + [True] * 3


def test_the_import_is_idempotent(
    lake: lakelog.Lake, old: sqlite3.Connection, tmp_path: Path
) -> None:
    """A second run, also of a copy, adds only rows and marks that are new."""
    path = tmp_path / "events.db"
    sqlite_import.load(lake, str(path))
    count = lake.count()
    again = sqlite_import.load(lake, str(path))
    assert (again.events, again.known, again.processed, lake.count()) == (0, 8, 0, count)
    add(old, [(START + 10, "new", None, None, None, None, 0, START)])
    old.execute("UPDATE events SET processed = 1 WHERE id = 2")
    old.commit()
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    later = sqlite_import.load(lake, str(copy))
    assert (later.events, later.known, later.processed) == (1, 8, 1)
    lake.compact()
    assert len(table(lake, "events")) == 7


def test_broken_rows_are_quarantined_once(
    lake: lakelog.Lake, old: sqlite3.Connection, tmp_path: Path
) -> None:
    """Rows without type, with a time that is none, or with data that is not JSON or does not
    unpack stop nothing; each is in the quarantine with its reason, and whole."""
    bad: list[tuple[Any, ...]] = [
        (START, None, None, None, "{}", None, 0, START),
        ("soon", "e", None, None, "{}", None, 0, START),
        (START, "e", None, None, "{not json", None, 0, START),
        (START, "e", None, None, None, b"\x1f\x8bgarbage", 0, START),
        (START, "e", None, None, None, packed([1] * 100)[:-12], 0, START),
        (START, "e", b"\xff\xfe", None, None, None, 0, START),
    ]
    add(old, [*bad, (START + 20, "good", None, None, None, None, 0, START)])
    old.execute("INSERT INTO patterns VALUES (2, 8, 'of a broken row', 1, 'text', NULL, NULL)")
    old.commit()
    path = str(tmp_path / "events.db")
    for quarantined in (6, 0):
        assert sqlite_import.load(lake, path).quarantined == quarantined
    assert len(table(lake, "events")) == 7
    assert [row["event_id"] is None for row in table(lake, "patterns")] == [False, True]
    lines = lake.sql("SELECT position, reason, line FROM quarantine ORDER BY position").fetchall()
    assert [position for position, _, _ in lines] == list(range(7, 13))
    for said, (_, reason, _) in zip(
        ("no type", "not a date", "not JSON", "unpack", "cut short", "not UTF-8"),
        lines,
        strict=True,
    ):
        assert said in reason
    assert json.loads(lines[2][2])["data_json"] == "{not json"


def test_a_database_that_lacks_columns_and_tables(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Columns and tables of later versions may be missing; times may be text."""
    connection = sqlite3.connect(tmp_path / "old.db")
    connection.execute("CREATE TABLE events (timestamp TEXT, event_type TEXT, data_json TEXT)")
    connection.execute("INSERT INTO events VALUES ('2025-10-09 08:53:20', 'e', '1')")
    connection.commit()
    connection.close()
    assert sqlite_import.load(lake, str(tmp_path / "old.db")).events == 1
    (row,) = table(lake, "events")
    assert (row["timestamp"], row["data_json"]) == (1_760_000_000.0, "1")


def test_a_damaged_database_is_read_up_to_the_damage(lake: lakelog.Lake, tmp_path: Path) -> None:
    """What can be read is loaded, and the damage is reported."""
    connection = sqlite3.connect(tmp_path / "events.db")
    connection.executescript(SCHEMA)
    many = [(START + n, "e", None, None, f'"{"x" * 500}"', None, 0, START) for n in range(3000)]
    add(connection, many)
    connection.close()
    content = bytearray((tmp_path / "events.db").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40_000] = bytes(40_000)
    (tmp_path / "events.db").write_bytes(content)
    done = sqlite_import.load(lake, str(tmp_path / "events.db"))
    assert "malformed, in table events" in done.damage
    assert done.events >= 500
    assert done.events == lake.count()


@pytest.mark.parametrize("words_of_verb", [["events", "import-sqlite"], ["import-sqlite"]])
def test_the_verb(
    words_of_verb: list[str], old: sqlite3.Connection, home: Path, tmp_path: Path
) -> None:
    """It creates the lake, says what was loaded, and fails where something was quarantined."""
    words = ["--lake", str(home / "lake"), *words_of_verb, str(tmp_path / "events.db")]
    first = CliRunner().invoke(cli, [*words, "--json"])
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["events"] == 6
    assert "6 new events, 0 rows known; 1 patterns; 1 statistics; 2 marked" in first.stderr
    add(old, [(START, None, None, None, None, None, 0, START)])
    second = CliRunner().invoke(cli, words)
    assert second.exit_code == 1
    assert "0 new events, 8 rows known; 1 quarantined" in second.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a database" * 100, "is no SQLite database that can be read"),
        (b"", "is no database of the older event store"),
    ],
)
def test_a_file_that_is_none(lake: lakelog.Lake, tmp_path: Path, content: bytes, said: str) -> None:
    """It is refused in one line."""
    (tmp_path / "x.db").write_bytes(content)
    with pytest.raises(LakelogError, match=said):
        sqlite_import.load(lake, str(tmp_path / "x.db"))
    with pytest.raises(FileNotFoundError):
        sqlite_import.load(lake, str(tmp_path / "none.db"))
    missing = CliRunner().invoke(cli, ["import-sqlite", str(tmp_path / "none.db")])
    assert (missing.exit_code, "there is no database" in missing.stderr) == (1, True)
