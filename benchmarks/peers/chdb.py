"""ClickHouse in the process: a MergeTree that is told to sync."""

from __future__ import annotations

import threading
from typing import Any

import chdb.session as sessions
import orjson

from benchmarks.peers import files, sql


class Peer:
    """A MergeTree table; the process has one session, which its threads take in turn."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.session = sessions.Session(f"{root}/clickhouse")
        self.session.query("CREATE DATABASE IF NOT EXISTS lake ENGINE = Atomic")
        self.session.query("USE lake")
        self.session.query("""CREATE TABLE IF NOT EXISTS events(time DateTime64(6, 'UTC'),
            type LowCardinality(String), category LowCardinality(String), source
            LowCardinality(String), subject String, data String CODEC(ZSTD(1)))
            ENGINE = MergeTree ORDER BY (type, time)
            SETTINGS fsync_after_insert = 1, fsync_part_directory = 1""")
        self._lock = threading.Lock()

    def load(self, path: str) -> None:
        """Insert what ClickHouse reads itself."""
        self.session.query(f"""INSERT INTO events SELECT parseDateTime64BestEffort(timestamp, 6,
            'UTC'), event_type, ifNull(content_type, ''), ifNull(source, ''), ifNull(item_id, ''),
            data FROM file('{path}', JSONEachRow, 'timestamp String, event_type String,
            content_type Nullable(String), source Nullable(String), item_id Nullable(String),
            data String')""")

    def commit(self, events: list[files.Event]) -> None:
        """Insert JSON lines."""
        rows = b"\n".join(
            orjson.dumps(
                {
                    "time": e["timestamp"].rstrip("Z"),
                    "type": e["event_type"],
                    "category": e.get("content_type") or "",
                    "source": e.get("source") or "",
                    "subject": e.get("item_id") or "",
                    "data": orjson.dumps(e.get("data")).decode(),
                }
            )
            for e in events
        )
        with self._lock:
            self.session.query(f"INSERT INTO events FORMAT JSONEachRow {rows.decode()}")

    def index(self) -> None:
        """Index what the needle asks for."""
        self.session.query(
            "ALTER TABLE events ADD INDEX by_subject subject TYPE bloom_filter GRANULARITY 1"
        )
        self.session.query(
            "ALTER TABLE events MATERIALIZE INDEX by_subject SETTINGS mutations_sync = 1"
        )

    def ask(self, name: str, turn: int = 0) -> list[tuple[Any, ...]]:
        """The answer to one question."""
        query = sql.question(sql.CLICKHOUSE, name, turn)
        text = self.session.query(query, "JSONCompactEachRow").bytes()
        return [tuple(orjson.loads(line)) for line in text.splitlines()]

    def export(self, path: str) -> None:
        """Write every event to a Parquet file."""
        self.session.query(
            f"SELECT * FROM events INTO OUTFILE '{path}' TRUNCATE FORMAT Parquet"
            " SETTINGS output_format_parquet_compression_method = 'zstd'"
        )

    def tidy(self) -> None:
        """Merge the parts."""
        self.session.query("OPTIMIZE TABLE events FINAL")

    def size(self) -> int:
        """Bytes of the active parts."""
        query = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = 'events'"
        return int(self.session.query(query, "TabSeparated").bytes())

    def close(self) -> None:
        """Close the session."""
        self.session.close()

    def load_texts(self, path: str) -> None:
        """Insert all lines with a text index, and merge the parts."""
        self.session.query("""CREATE TABLE texts(time DateTime64(6, 'UTC'), text String
            CODEC(ZSTD(1)), INDEX words(text) TYPE text(tokenizer = splitByNonAlpha,
            preprocessor = lower(text))) ENGINE = MergeTree ORDER BY time""")
        self.session.query(f"""INSERT INTO texts SELECT parseDateTime64BestEffort(
            JSONExtractString(line, 'timestamp'), 6, 'UTC'), line
            FROM file('{path}', LineAsString, 'line String')""")
        self.session.query("OPTIMIZE TABLE texts FINAL")

    def find(self, question: str, asked: str) -> int:
        """The answer to one question; words side by side are looked for in texts that have both."""
        parts = asked.replace("_", " ").split()
        has = " AND ".join(f"hasToken(text, '{part}')" for part in parts)
        if len(parts) > 1:
            has += f" AND positionCaseInsensitive(text, '{asked}') > 0"
        query = f"SELECT * FROM texts WHERE {has} ORDER BY time DESC LIMIT 100"
        if question == "inside":
            query = f"SELECT count() FROM texts WHERE text ILIKE '%{asked}%'"
        elif question == "count":
            query = f"SELECT count() FROM texts WHERE {has}"
        elif question == "hours":
            query = f"SELECT toStartOfHour(time), count() FROM texts WHERE {has} GROUP BY 1"
        lines = self.session.query(query, "JSONCompactEachRow").bytes().splitlines()
        rows = [orjson.loads(line) for line in lines]
        if question in ("inside", "count", "hours"):
            return sum(int(row[-1]) for row in rows)
        return len(rows)

    def text_bytes(self) -> tuple[int, int]:
        """All bytes of the table, and those of the index."""
        query = """SELECT sum(bytes_on_disk), sum(secondary_indices_compressed_bytes)
            FROM system.parts WHERE table = 'texts' AND active"""
        whole, index = orjson.loads(self.session.query(query, "JSONCompactEachRow").bytes())
        return int(whole), int(index)
