"""Lance: files are not synced."""

from __future__ import annotations

from typing import Any

import lance

from benchmarks.peers import files

DURABLE = "not synced"


class Peer(files.OverDuckDB):
    """A Lance dataset, asked as Arrow by DuckDB."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self.root, self.path = root, f"{root}/events.lance"
        self._marked = 0

    def load(self, path: str) -> None:
        """Write an Arrow table as the engine read it."""
        lance.write_dataset(files.read(path), self.path, mode="append")

    def commit(self, events: list[dict[str, Any]]) -> None:
        """Append an Arrow table."""
        lance.write_dataset(files.arrow(events), self.path, mode="append")

    def ask(self, name: str) -> list[tuple[Any, ...]]:
        """The answer to one question."""
        self.engine.register("events", lance.dataset(self.path))
        return super().ask(name)

    def mark(self) -> None:
        """Remember this version."""
        self._marked = lance.dataset(self.path).version

    def back(self) -> None:
        """Restore the remembered version."""
        lance.dataset(self.path, version=self._marked).restore()

    def size(self) -> int:
        """Bytes of the dataset."""
        return files.size(self.path)
