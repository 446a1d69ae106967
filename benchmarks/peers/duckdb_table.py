"""DuckDB, a table in a database file: synced at each commit."""

from __future__ import annotations

import threading

import duckdb

from benchmarks.peers import files, sql


class Peer(files.OverDuckDB):
    """A database file; every thread has a cursor of its own."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.engine = duckdb.connect(f"{root}/events.duckdb")
        self.engine.execute("SET TimeZone = 'UTC'")
        self.engine.execute("""CREATE TABLE IF NOT EXISTS events(time TIMESTAMPTZ, type VARCHAR,
            category VARCHAR, source VARCHAR, subject VARCHAR, data VARCHAR)""")
        self._mine = threading.local()

    def load(self, path: str) -> None:
        """Insert what the engine reads, and checkpoint."""
        self.engine.execute(f"INSERT INTO events {sql.READ.format(path=path)}")
        self.engine.execute("CHECKPOINT")

    def commit(self, events: list[files.Event]) -> None:
        """Insert an Arrow table."""
        if not hasattr(self._mine, "cursor"):
            self._mine.cursor = self.engine.cursor()
        fresh = files.arrow(events)
        self._mine.cursor.register("fresh", fresh)
        self._mine.cursor.execute("INSERT INTO events SELECT * FROM fresh")

    def hold(self) -> None:
        """Leave what is inserted in the WAL: no checkpoint."""
        self.engine.execute("SET checkpoint_threshold = '1TB'")

    def index(self) -> None:
        """Index what the needle asks for."""
        self.engine.execute("CREATE INDEX by_subject ON events(subject)")

    def size(self) -> int:
        """Bytes of the database."""
        self.engine.execute("CHECKPOINT")
        return files.size(self.root)

    def close(self) -> None:
        """Close the database."""
        self.engine.close()
