"""What peers share: a directory, its size, and questions by DuckDB over Arrow or Parquet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.peers import sql


def size(root: str) -> int:
    """Bytes of all files below a directory."""
    return sum(path.stat().st_size for path in Path(root).rglob("*") if path.is_file())


def sync(root: str) -> None:
    """Sync every file and directory below one: what a peer that does not sync leaves undone."""
    for folder, _, names in os.walk(root):
        for name in (*names, "."):
            descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def arrow(events: list[dict[str, Any]]) -> Any:
    """Events as an Arrow table of the columns that the questions ask for."""
    import json

    import pyarrow as pa

    times = pa.array([e["timestamp"].rstrip("Z") for e in events]).cast(pa.timestamp("us"))
    columns = {
        "time": times.cast(pa.timestamp("us", "UTC")),
        "type": [e["event_type"] for e in events],
        "category": [e.get("content_type") for e in events],
        "source": [e.get("source") for e in events],
        "subject": [e.get("item_id") for e in events],
        "data": [json.dumps(e.get("data"), separators=(",", ":")) for e in events],
    }
    return pa.table(columns)


def read(path: str) -> Any:
    """The events of a file as an Arrow table."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection.sql(sql.READ.format(path=path)).to_arrow_table()


class OverDuckDB:
    """Answers questions by DuckDB over what `source` calls a table."""

    source = "events"

    def __init__(self) -> None:
        import duckdb

        self.engine = duckdb.connect()
        self.engine.execute("SET TimeZone = 'UTC'")

    def ask(self, name: str) -> list[tuple[Any, ...]]:
        """The answer to one question."""
        return self.engine.execute(sql.DUCKDB[name].format(t=self.source)).fetchall()
