"""SQLite in WAL mode, synchronous FULL."""

from __future__ import annotations

import sqlite3
import threading
import time
from itertools import islice
from typing import Any

import orjson

from benchmarks.peers import files, sql

INSERT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)"


class Peer:
    """A database file; one connection, for threads that wait for each other lose nothing by it."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.base = sqlite3.connect(
            f"{root}/events.sqlite", isolation_level=None, timeout=60, check_same_thread=False
        )
        self.base.execute("PRAGMA journal_mode = WAL")
        self.base.execute("PRAGMA synchronous = FULL")
        self.base.execute("""CREATE TABLE IF NOT EXISTS events(time TEXT, type TEXT, category TEXT,
            source TEXT, subject TEXT, data TEXT)""")
        self._lock = threading.Lock()
        self.until = float("inf")

    def load(self, path: str) -> None:
        """Insert all in one transaction, or as much as there is time for."""
        self.base.execute("BEGIN IMMEDIATE")
        with open(path, "rb") as file:
            while time.perf_counter() < self.until and (lines := list(islice(file, 10_000))):
                self.base.executemany(INSERT, map(files.row, map(orjson.loads, lines)))
        self.base.execute("COMMIT")
        self.base.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def commit(self, events: list[files.Event]) -> None:
        """Insert in one transaction."""
        rows = [files.row(event) for event in events]
        with self._lock:
            self.base.execute("BEGIN IMMEDIATE")
            self.base.executemany(INSERT, rows)
            self.base.execute("COMMIT")

    def prepare_streams(self) -> None:
        """Make the table of streams."""
        self.base.execute(
            "CREATE TABLE streams(subject TEXT, version INTEGER, event TEXT,"
            " PRIMARY KEY (subject, version))"
        )

    def expect(self, subject: str, version: int, event: files.Event) -> None:
        """Insert one event in a transaction that looks at the version of its subject first."""
        text, run = orjson.dumps(event).decode(), self.base.execute
        with self._lock:
            run("BEGIN IMMEDIATE")
            query = "SELECT coalesce(max(version), 0) FROM streams WHERE subject = ?"
            assert run(query, (subject,)).fetchone() == (version,)
            run("INSERT INTO streams VALUES (?, ?, ?)", (subject, version + 1, text))
            run("COMMIT")

    def stream(self, subject: str) -> int:
        """Read all events of a subject."""
        query = "SELECT event FROM streams WHERE subject = ? ORDER BY version"
        return len([orjson.loads(text) for (text,) in self.base.execute(query, (subject,))])

    def hold(self) -> None:
        """Leave what is inserted in the WAL: no checkpoint."""
        self.base.execute("PRAGMA wal_autocheckpoint = 0")

    def index(self) -> None:
        """Index what the needle asks for."""
        self.base.execute("CREATE INDEX by_subject ON events(subject)")

    def ask(self, name: str, turn: int = 0) -> list[tuple[Any, ...]]:
        """The answer to one question."""
        return self.base.execute(sql.question(sql.SQLITE, name, turn)).fetchall()

    def export(self, path: str) -> None:
        """Write every event to a Parquet file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([(name, pa.string()) for name in files.NAMES])
        found = self.base.execute("SELECT * FROM events")
        with pq.ParquetWriter(path, schema, compression="zstd") as file:
            while rows := found.fetchmany(65_536):
                columns = [pa.array(c, pa.string()) for c in zip(*rows, strict=True)]
                file.write_batch(pa.record_batch(columns, schema=schema))

    def size(self) -> int:
        """Bytes of the database."""
        self.base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return files.size(self.root)

    def close(self) -> None:
        """Close the database."""
        self.base.close()

    def load_texts(self, path: str) -> None:
        """Insert all lines in one transaction into a table of FTS5, and merge its index."""
        self.base.execute("CREATE VIRTUAL TABLE texts USING fts5(text, time UNINDEXED)")
        self.base.execute("BEGIN IMMEDIATE")
        with open(path, "rb") as file:
            while lines := list(islice(file, 10_000)):
                rows = ((line.decode(), orjson.loads(line)["timestamp"]) for line in lines)
                self.base.executemany("INSERT INTO texts VALUES (?, ?)", rows)
        self.base.execute("INSERT INTO texts(texts) VALUES ('optimize')")
        self.base.execute("COMMIT")

    def find(self, question: str, asked: str) -> int | None:
        """The answer to one question; what is inside of words is not indexed."""
        if question == "inside":
            return None
        match = f'"{asked}"'
        if question == "count":
            query = "SELECT count(*) FROM texts WHERE texts MATCH ?"
            return int(self.base.execute(query, [match]).fetchone()[0])
        query = "SELECT * FROM texts WHERE texts MATCH ? ORDER BY rowid DESC LIMIT 100"
        if question == "hours":
            query = "SELECT substr(time, 1, 13), count(*) FROM texts WHERE texts MATCH ? GROUP BY 1"
        rows = self.base.execute(query, [match]).fetchall()
        return sum(int(count) for _, count in rows) if question == "hours" else len(rows)

    def text_bytes(self) -> tuple[int, int]:
        """All bytes, and those of the index."""
        query = "SELECT sum(length(block)) FROM texts_data"
        return self.size(), int(self.base.execute(query).fetchone()[0])
