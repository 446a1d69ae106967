"""DuckDB, COPY to one Parquet file: nothing is synced, nothing can be appended."""

from __future__ import annotations

from benchmarks.peers import files, sql


class Peer(files.OverDuckDB):
    """A Parquet file."""

    reading = sql.READ

    def __init__(self, root: str) -> None:
        super().__init__()
        self.root, self.source = root, f"read_parquet('{root}/events.parquet')"

    def load(self, path: str) -> None:
        """Write what the engine reads."""
        self.engine.execute(
            f"COPY ({self.reading.format(path=path)}) TO '{self.root}/events.parquet'"
            " (FORMAT parquet, COMPRESSION zstd)"
        )
        files.sync(self.root)

    def size(self) -> int:
        """Bytes of the file."""
        return files.size(self.root)
