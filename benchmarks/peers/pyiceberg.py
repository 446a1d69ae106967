"""Iceberg by pyiceberg with a SQLite catalog: data files are not synced."""

from __future__ import annotations

from typing import Any

import pyiceberg.catalog.sql as catalogs

from benchmarks.peers import files

DURABLE = "not synced"


class Peer(files.OverDuckDB):
    """An Iceberg table, asked through its data files."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self.root = root
        catalog = catalogs.SqlCatalog(
            "bench", uri=f"sqlite:///{root}/catalog.db", warehouse=f"file://{root}/warehouse"
        )
        catalog.create_namespace_if_not_exists("lake")
        names = ("event_type", "content_type", "source", "item_id")
        sample = {"timestamp": "2026-01-01T00:00:00Z", **dict.fromkeys(names, "x")}
        schema = files.arrow([sample]).schema
        self.table = catalog.create_table_if_not_exists("lake.events", schema=schema)
        self._marked = 0

    def load(self, path: str) -> None:
        """Append an Arrow table as the engine read it."""
        self.table.append(files.read(path))

    def commit(self, events: list[dict[str, Any]]) -> None:
        """Append an Arrow table."""
        self.table.append(files.arrow(events))

    def ask(self, name: str) -> list[tuple[Any, ...]]:
        """The answer to one question."""
        paths = [
            task.file.file_path.removeprefix("file://") for task in self.table.scan().plan_files()
        ]
        self.source = f"read_parquet({paths!r})"
        return super().ask(name)

    def mark(self) -> None:
        """Remember this snapshot."""
        self._marked = self.table.current_snapshot().snapshot_id

    def back(self) -> None:
        """Return to the remembered snapshot."""
        with self.table.manage_snapshots() as work:
            work.rollback_to_snapshot(self._marked)

    def size(self) -> int:
        """Bytes of table and catalog."""
        return files.size(self.root)
