"""Delta Lake by delta-rs: files and log are not synced."""

from __future__ import annotations

import deltalake as delta

from benchmarks.peers import files


class Peer(files.OverDuckDB):
    """A Delta table, asked through its files."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self.root, self.path = root, f"{root}/table"
        self._marked = 0

    def load(self, path: str) -> None:
        """Write an Arrow table as the engine read it."""
        delta.write_deltalake(self.path, files.read(path), mode="append")
        files.sync(self.root)

    def commit(self, events: list[files.Event]) -> None:
        """Write an Arrow table."""
        delta.write_deltalake(self.path, files.arrow(events), mode="append")

    def refresh(self) -> None:
        """Ask the newest version."""
        self.source = f"read_parquet({delta.DeltaTable(self.path).file_uris()!r})"

    def mark(self) -> None:
        """Remember this version."""
        self._marked = delta.DeltaTable(self.path).version()

    def past(self) -> int:
        """How many events the remembered version held."""
        return delta.DeltaTable(self.path, version=self._marked).count()

    def back(self) -> None:
        """Restore the remembered version."""
        delta.DeltaTable(self.path).restore(self._marked)

    def tidy(self) -> None:
        """Merge files and remove those no longer in use."""
        table = delta.DeltaTable(self.path)
        table.optimize.compact()
        table.vacuum(0, dry_run=False, enforce_retention_duration=False)

    def size(self) -> int:
        """Bytes of the table."""
        return files.size(self.path)
