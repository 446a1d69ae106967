"""ClickHouse in the process: a MergeTree that is told to sync."""

from __future__ import annotations

import json
from typing import Any

import chdb.session as sessions

from benchmarks.peers import sql

DURABLE = "synced"


class Peer:
    """A MergeTree table."""

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

    def load(self, path: str) -> None:
        """Insert what ClickHouse reads itself."""
        self.session.query(f"""INSERT INTO events SELECT parseDateTime64BestEffort(timestamp, 6,
            'UTC'), event_type, ifNull(content_type, ''), ifNull(source, ''), ifNull(item_id, ''),
            data FROM file('{path}', JSONEachRow, 'timestamp String, event_type String,
            content_type Nullable(String), source Nullable(String), item_id Nullable(String),
            data String')""")

    def commit(self, events: list[dict[str, Any]]) -> None:
        """Insert JSON lines."""
        rows = "\n".join(
            json.dumps({
                "time": e["timestamp"].rstrip("Z"), "type": e["event_type"],
                "category": e.get("content_type") or "", "source": e.get("source") or "",
                "subject": e.get("item_id") or "", "data": json.dumps(e.get("data")),
            })
            for e in events
        )  # fmt: skip
        self.session.query(f"INSERT INTO events FORMAT JSONEachRow {rows}")

    def ask(self, name: str) -> list[tuple[Any, ...]]:
        """The answer to one question."""
        text = self.session.query(sql.CLICKHOUSE[name], "JSONCompactEachRow").bytes()
        return [tuple(json.loads(line)) for line in text.splitlines()]

    def size(self) -> int:
        """Bytes of the active parts."""
        query = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = 'events'"
        return int(self.session.query(query, "TabSeparated").bytes())
