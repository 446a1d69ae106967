"""Delta Lake by delta-rs: files and log are not synced."""

from __future__ import annotations

from typing import Any

import deltalake as delta

from benchmarks.peers import files

DURABLE = "not synced"


class Peer(files.OverDuckDB):
    """A Delta table, asked through its Arrow dataset."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self.root, self.path, self.source = root, f"{root}/table", "events"
        self._marked = 0

    def load(self, path: str) -> None:
        """Write an Arrow table as the engine read it."""
        delta.write_deltalake(self.path, files.read(path), mode="append")

    def commit(self, events: list[dict[str, Any]]) -> None:
        """Write an Arrow table."""
        delta.write_deltalake(self.path, files.arrow(events), mode="append")

    def ask(self, name: str) -> list[tuple[Any, ...]]:
        """The answer to one question."""
        paths = delta.DeltaTable(self.path).file_uris()
        self.source = f"read_parquet({paths!r})"
        return super().ask(name)

    def mark(self) -> None:
        """Remember this version."""
        self._marked = delta.DeltaTable(self.path).version()

    def back(self) -> None:
        """Restore the remembered version."""
        delta.DeltaTable(self.path).restore(self._marked)

    def size(self) -> int:
        """Bytes of the table."""
        return files.size(self.path)
