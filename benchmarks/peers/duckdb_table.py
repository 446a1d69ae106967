"""DuckDB, a table in a database file: synced at each commit."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import files, sql

DURABLE = "synced"


class Peer(files.OverDuckDB):
    """A database file."""

    def __init__(self, root: str) -> None:
        import duckdb

        self.root = root
        self.engine = duckdb.connect(f"{root}/events.duckdb")
        self.engine.execute("SET TimeZone = 'UTC'")
        self.engine.execute("""CREATE TABLE IF NOT EXISTS events(time TIMESTAMPTZ, type VARCHAR,
            category VARCHAR, source VARCHAR, subject VARCHAR, data VARCHAR)""")

    def load(self, path: str) -> None:
        """Insert what the engine reads, and checkpoint."""
        self.engine.execute(f"INSERT INTO events {sql.READ.format(path=path)}")
        self.engine.execute("CHECKPOINT")

    def commit(self, events: list[dict[str, Any]]) -> None:
        """Insert an Arrow table."""
        table = files.arrow(events)
        self.engine.register("fresh", table)
        self.engine.execute("INSERT INTO events SELECT * FROM fresh")

    def size(self) -> int:
        """Bytes of the database."""
        self.engine.execute("CHECKPOINT")
        return files.size(self.root)
