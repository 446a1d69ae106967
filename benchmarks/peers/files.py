"""What peers share: a directory, its size, and questions by DuckDB over Arrow or Parquet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

from benchmarks.peers import sql

Event = dict[str, Any]
NAMES = ("time", "type", "category", "source", "subject", "data")


def size(root: str) -> int:
    """Bytes of all files below a directory."""
    return sum(path.stat().st_size for path in Path(root).rglob("*") if path.is_file())


def size_of(root: str, suffix: str) -> int:
    """Bytes of the files whose names end so."""
    return sum(path.stat().st_size for path in Path(root).rglob(f"*{suffix}"))


def sync(root: str) -> None:
    """Sync every file and directory below one: what a peer that does not sync leaves undone."""
    for folder, _, names in os.walk(root):
        for name in (*names, "."):
            descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def row(event: Event) -> tuple[Any, ...]:
    """The columns that the questions ask for, times as they came, the payload as JSON."""
    return (
        event["timestamp"],
        event["event_type"],
        event.get("content_type"),
        event.get("source"),
        event.get("item_id"),
        orjson.dumps(event.get("data")).decode(),
    )


def arrow(events: list[Event]) -> Any:
    """Events as an Arrow table of the columns that the questions ask for."""
    import pyarrow as pa

    times, *others = zip(*map(row, events), strict=True)
    stamps = pa.array([text.rstrip("Z") for text in times]).cast(pa.timestamp("us"))
    columns = [stamps.cast(pa.timestamp("us", "UTC")), *(pa.array(c, pa.string()) for c in others)]
    return pa.table(dict(zip(NAMES, columns, strict=True)))


def read(path: str) -> Any:
    """The events of a file as an Arrow table."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection.sql(sql.READ.format(path=path)).to_arrow_table()


class OverDuckDB:
    """Answers questions by DuckDB over what `source` calls a table."""

    source = "events"
    questions = sql.DUCKDB

    def __init__(self) -> None:
        import duckdb

        self.engine = duckdb.connect()
        self.engine.execute("SET TimeZone = 'UTC'")

    def refresh(self) -> None:
        """Let `source` name the newest state."""

    def ask(self, name: str, turn: int = 0) -> list[tuple[Any, ...]]:
        """The answer to one question."""
        self.refresh()
        query = sql.question(self.questions, name, turn, self.source)
        return self.engine.execute(query).fetchall()

    def export(self, path: str) -> None:
        """Write every event to a Parquet file."""
        self.refresh()
        self.engine.execute(
            f"COPY (FROM {self.source}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)"
        )
