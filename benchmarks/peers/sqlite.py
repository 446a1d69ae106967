"""SQLite in WAL mode, synchronous FULL, with a unique hash of each event."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from itertools import islice
from typing import Any

from benchmarks.peers import files, sql

DURABLE = "synced"


class Peer:
    """A database file."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.base = sqlite3.connect(f"{root}/events.sqlite", isolation_level=None, timeout=60)
        self.base.execute("PRAGMA journal_mode = WAL")
        self.base.execute("PRAGMA synchronous = FULL")
        self.base.execute("""CREATE TABLE IF NOT EXISTS events(time TEXT, type TEXT, category TEXT,
            source TEXT, subject TEXT, data TEXT, hash BLOB UNIQUE)""")
        self.base.execute("CREATE INDEX IF NOT EXISTS by_subject ON events(subject)")

    def load(self, path: str) -> None:
        """Insert by 10,000 in a transaction."""
        with open(path, "rb") as file:
            while lines := list(islice(file, 10_000)):
                self._insert(map(json.loads, lines))

    def commit(self, events: list[dict[str, Any]]) -> None:
        """Insert in one transaction."""
        self._insert(iter(events))

    def _insert(self, events: Iterator[dict[str, Any]]) -> None:
        rows = []
        for e in events:
            data = json.dumps(e.get("data"), separators=(",", ":"))
            values = (e["timestamp"], e["event_type"], e.get("content_type"), e.get("source"),
                      e.get("item_id"), data)  # fmt: skip
            rows.append((*values, hashlib.sha256(repr(values).encode()).digest()))
        self.base.execute("BEGIN IMMEDIATE")
        self.base.executemany("INSERT OR IGNORE INTO events VALUES (?,?,?,?,?,?,?)", rows)
        self.base.execute("COMMIT")

    def ask(self, name: str) -> list[tuple[Any, ...]]:
        """The answer to one question."""
        return self.base.execute(sql.SQLITE[name]).fetchall()

    def size(self) -> int:
        """Bytes of the database."""
        self.base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return files.size(self.root)
