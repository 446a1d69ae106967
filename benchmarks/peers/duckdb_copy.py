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

    def load_texts(self, path: str) -> None:
        """Write the lines and their times."""
        lines = (
            f"read_csv('{path}', columns={{'text': 'VARCHAR'}}, header=false,"
            " delim='\1', quote='', escape='')"
        )
        self.engine.execute(
            f"COPY (SELECT text, (text->>'timestamp')::TIMESTAMP AS time FROM {lines})"
            f" TO '{self.root}/texts.parquet' (FORMAT parquet, COMPRESSION zstd)"
        )

    def find(self, question: str, asked: str) -> int:
        """The answer to one question, by reading all."""
        source = f"FROM '{self.root}/texts.parquet' WHERE contains(lower(text), '{asked}')"
        query = f"SELECT * {source} ORDER BY time DESC LIMIT 100"
        if question in ("count", "inside"):
            ((count,),) = self.engine.execute(f"SELECT count(*) {source}").fetchall()
            return int(count)
        if question == "hours":
            query = f"SELECT date_trunc('hour', time), count(*) {source} GROUP BY 1"
        rows = self.engine.execute(query).fetchall()
        return sum(int(count) for _, count in rows) if question == "hours" else len(rows)

    def text_bytes(self) -> tuple[int, int]:
        """Bytes of the file; there is no index."""
        return files.size(self.root), 0
