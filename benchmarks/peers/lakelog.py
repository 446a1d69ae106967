"""lakelog itself: synced as always."""

from __future__ import annotations

from typing import Any

import lakelog
from benchmarks.peers import files, sql

DURABLE = "synced"


class Peer:
    """A lake."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.lake = lakelog.open(f"{root}/lake")

    def load(self, path: str) -> None:
        """Take in a file of events."""
        self.lake.ingest(path)

    def commit(self, events: list[dict[str, Any]]) -> None:
        """Append, durably."""
        self.lake.append(events)

    def ask(self, name: str) -> list[tuple[Any, ...]]:
        """The answer to one question."""
        return self.lake.sql(sql.DUCKDB[name].format(t="events")).fetchall()

    def mark(self) -> None:
        """Name this state."""
        self.lake.tag("mark")

    def back(self) -> None:
        """Return to the named state."""
        self.lake.rollback("mark")

    def tidy(self) -> None:
        """Do what makes the lake small."""
        self.lake.compact()

    def size(self) -> int:
        """Bytes of the segments."""
        return files.size(f"{self.root}/lake/segments")
