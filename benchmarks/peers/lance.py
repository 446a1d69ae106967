"""Lance: files are not synced."""

from __future__ import annotations

from typing import Any

import lance

from benchmarks.peers import files, sql


class Peer(files.OverDuckDB):
    """A Lance dataset, asked as Arrow by DuckDB."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self.root, self.path = root, f"{root}/events.lance"
        self._marked = 0

    def load(self, path: str) -> None:
        """Write an Arrow table as the engine read it."""
        lance.write_dataset(files.read(path), self.path, mode="append")
        files.sync(self.root)

    def commit(self, events: list[files.Event]) -> None:
        """Append an Arrow table."""
        lance.write_dataset(files.arrow(events), self.path, mode="append")

    def refresh(self) -> None:
        """Ask the newest version."""
        self.engine.register("events", lance.dataset(self.path))

    def ask(self, name: str, turn: int = 0) -> list[tuple[Any, ...]]:
        """The answer to one question; counts by Lance itself, which has an index for them."""
        if name == "needle":
            found = lance.dataset(self.path).count_rows(f"subject = '{sql.subject(turn)}'")
            return [(found,)]
        if name == "count":
            return [(lance.dataset(self.path).count_rows(),)]
        return super().ask(name, turn)

    def index(self) -> None:
        """Index what the needle asks for."""
        lance.dataset(self.path).create_scalar_index("subject", "BTREE")

    def mark(self) -> None:
        """Remember this version."""
        self._marked = lance.dataset(self.path).version

    def tag(self, name: str) -> None:
        """Name this version."""
        lance.dataset(self.path).tags.create(name, self._marked)

    def past(self) -> int:
        """How many events the remembered version held."""
        return lance.dataset(self.path, version=self._marked).count_rows()

    def back(self) -> None:
        """Restore the remembered version."""
        lance.dataset(self.path, version=self._marked).restore()

    def size(self) -> int:
        """Bytes of the dataset."""
        return files.size(self.path)
