"""lakelog itself: synced as always."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lakelog
from benchmarks.peers import files, sql
from lakelog.search import Search

LAST = "2026-12-01T00:00:00Z"


class Peer:
    """A lake."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.lake = lakelog.open(f"{root}/lake")
        self._views: Any = None
        self._marked = ""

    def load(self, path: str) -> None:
        """Take in a file of events."""
        self.lake.ingest(path)

    def commit(self, events: list[files.Event]) -> None:
        """Append, durably."""
        self.lake.append(events)

    def ask(self, name: str, turn: int = 0) -> list[tuple[Any, ...]]:
        """The answer to one question, as it is asked at a turn."""
        return self.lake.sql(sql.question(sql.DUCKDB, name, turn)).fetchall()

    def views(self) -> list[Any]:
        """The five views as lakelog keeps them."""
        if self._views is None:
            self._views = lakelog.get_views(self.lake, now=LAST)
        kept = self._views
        asked: list[Callable[[], Any]] = [
            kept.podcast_status_view,
            lambda: kept.throughput_view("365d"),
            kept.error_analysis_view,
            kept.source_reliability_view,
            kept.system_health_view,
        ]
        return [view() for view in asked]

    def mark(self) -> None:
        """Publish this state and remember it."""
        self._marked = self.lake.settle().move.snapshot

    def tag(self, name: str) -> None:
        """Name this state."""
        self.lake.tag(name)

    def past(self) -> int:
        """How many events the remembered state held."""
        return self.lake.at(self._marked).count()

    def back(self) -> None:
        """Return to the remembered state."""
        self.lake.rollback(self._marked)

    def tidy(self) -> None:
        """Do what makes the lake small."""
        self.lake.compact()

    def hold(self) -> None:
        """Leave what is appended as it is: seal nothing, in no process."""
        store = self.lake.store
        # Settings given to `open` are for a lake that it creates.
        store.change_settings(replace(store.settings, seal="never"))

    def export(self, path: str) -> None:
        """Write every event to a Parquet file, with the columns that the others have."""
        asked = "SELECT time, type, category, source, subject, data FROM events"
        self.lake.sql(asked).write_parquet(path, compression="zstd")

    def size(self) -> int:
        """Bytes of the lake, with its manifests, indices and caches."""
        return files.size(f"{self.root}/lake")

    def small(self) -> int:
        """Bytes of the newest state: without the segments that only older ones have."""
        store = self.lake.store
        state = store.manifests.load(store.refs.head("main").move.snapshot)
        return self.size() - files.size(store.paths.root + "/segments") + state.totals.bytes

    def train(self, out: str) -> None:
        """Export a training set: redacted by every rule, each row once, split by subject."""
        import lakelog.train as sets
        from benchmarks.train import EXPORT

        sets.export(self.lake, EXPORT, out)

    def close(self) -> None:
        """Close the lake."""
        self.lake.close()

    def load_texts(self, path: str) -> None:
        """Take in a file and make it small, which indexes its words."""
        self.lake.ingest(path)
        self.lake.compact()

    def find(self, question: str, asked: str) -> int:
        """The answer to one question."""
        if question in ("count", "inside"):
            search = Search.of(asked if question == "count" else f"*{asked}*")
            ((count,),) = self.lake.sql(search.count()).fetchall()
            return int(count)
        if question == "hours":
            bars = self.lake.sql(Search.of(asked).histogram()).fetchall()
            return sum(int(count) for _, count in bars)
        return len(self.lake.search(f'"{asked}"', limit=100).fetchall())

    def expect(self, subject: str, version: int, event: files.Event) -> None:
        """Append one event to a stream of this version."""
        self.lake.append({**event, "subject": subject}, expect={subject: version})

    def stream(self, subject: str) -> int:
        """Read all events of a stream."""
        return sum(1 for _ in self.lake.stream(subject))

    def mine(self, path: str) -> list[str]:
        """Take in a file of messages, and return the template of each."""
        self.lake.ingest(path)
        asked = "SELECT pattern_id FROM event_patterns ORDER BY seq"
        return list(self.lake.sql(asked).to_arrow_table()["pattern_id"].to_pylist())

    def machine(self, name: str) -> AttachedPeer:
        """A directory that is attached to a bucket in this one."""
        return AttachedPeer(self.root, name)

    def text_bytes(self) -> tuple[int, int]:
        """Bytes of the newest state with its index of words; those of the index."""
        return self.small(), self.lake.stats().words_bytes


class AttachedPeer:
    """A lake of one machine, attached to a bucket."""

    def __init__(self, root: str, name: str) -> None:
        # Here alone: what other rows start would load what it needs.
        from lakelog.remotes.shared import attach

        attach(f"file://{root}/bucket", f"{root}/{name}")
        self._lake = lakelog.open(f"{root}/{name}")

    def commit(self, events: list[files.Event]) -> None:
        """Append, and publish to the bucket."""
        self._lake.append(events)
        self._lake.exchange()

    def ask(self, name: str) -> list[tuple[Any, ...]]:
        """Take what others published, and answer a question."""
        self._lake.exchange()
        return self._lake.sql(sql.question(sql.DUCKDB, name, 0)).fetchall()

    def close(self) -> None:
        """Close the lake."""
        self._lake.close()
