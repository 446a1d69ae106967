"""Iceberg by pyiceberg with a SQLite catalog: data files are not synced."""

from __future__ import annotations

import pyiceberg.catalog.sql as catalogs
from pyiceberg.exceptions import CommitFailedException

from benchmarks.peers import files

RETRIES = 20


class Peer(files.OverDuckDB):
    """An Iceberg table, asked through its data files."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self.root = root
        self._catalog = catalogs.SqlCatalog(
            "bench", uri=f"sqlite:///{root}/catalog.db", warehouse=f"file://{root}/warehouse"
        )
        self._catalog.create_namespace_if_not_exists("lake")
        names = ("event_type", "content_type", "source", "item_id")
        sample = {"timestamp": "2026-01-01T00:00:00Z", **dict.fromkeys(names, "x")}
        schema = files.arrow([sample]).schema
        self.table = self._catalog.create_table_if_not_exists("lake.events", schema=schema)
        self._marked = 0

    def load(self, path: str) -> None:
        """Append an Arrow table as the engine read it."""
        self.table.append(files.read(path))
        files.sync(self.root)

    def commit(self, events: list[files.Event]) -> None:
        """Append an Arrow table; who loses a race looks at the new state and tries again."""
        rows = files.arrow(events)
        for attempt in range(RETRIES):
            try:
                self.table.append(rows)
                return
            except CommitFailedException:
                if attempt + 1 == RETRIES:
                    raise
                self.table.refresh()

    def refresh(self) -> None:
        """Ask the newest snapshot."""
        self.table.refresh()
        paths = [
            task.file.file_path.removeprefix("file://") for task in self.table.scan().plan_files()
        ]
        self.source = f"read_parquet({paths!r})"

    def mark(self) -> None:
        """Remember this snapshot."""
        self._marked = self.table.current_snapshot().snapshot_id

    def tag(self, name: str) -> None:
        """Name this snapshot."""
        with self.table.manage_snapshots() as work:
            work.create_tag(self._marked, name)

    def past(self) -> int:
        """How many events the remembered snapshot held, by its manifests."""
        return self.table.scan(snapshot_id=self._marked).count()

    def back(self) -> None:
        """Return to the remembered snapshot."""
        with self.table.manage_snapshots() as work:
            work.rollback_to_snapshot(self._marked)

    def size(self) -> int:
        """Bytes of table and catalog."""
        return files.size(self.root)
