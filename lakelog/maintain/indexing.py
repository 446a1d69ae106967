"""Word indexes of segments that have none: of those that compaction did not write."""

from __future__ import annotations

import contextlib

from lakelog.errors import Damaged
from lakelog.libraries import duckdb
from lakelog.maintain import compact
from lakelog.maintain.payloads import read_segment
from lakelog.runtime.progress import ProgressCallback
from lakelog.segments import word_index, word_indexing
from lakelog.segments.connection import connect
from lakelog.store import disk
from lakelog.store.bootstrap import Store
from lakelog.store.entry import SegmentEntry


def missing(store: Store, branch: str) -> list[SegmentEntry]:
    """Return the segments of a branch that have no intact index, but those of few rows."""
    state = store.manifests.of(store.refs.head(branch).move)
    return [
        entry
        for entry in store.manifests.segments(state)
        if entry.kind == "events" and word_index.is_missing(store.paths, entry.key, entry.events)
    ]


def build_missing(store: Store, branch: str, progress: ProgressCallback | None = None) -> int:
    """Build the indexes that segments of a branch lack, and return how many; segments that cannot
    be read get none. Raises OSError."""
    count, lacking = 0, missing(store, branch)
    # While one process builds them, another would only do the same.
    with disk.claim(f"{store.paths.cache}/words.lock") as alone:
        if not (alone and lacking):
            return 0
        with contextlib.closing(connect(store.paths, store.settings)) as engine:
            for number, entry in enumerate(lacking, 1):
                with contextlib.suppress(Damaged):
                    _build(store, entry, engine)
                    count += 1
                if progress:
                    progress(number, len(lacking))
    return count


def _build(store: Store, entry: SegmentEntry, engine: duckdb.DuckDBPyConnection) -> None:
    compact.check(store, [entry])
    read_segment(store, entry, lambda paths, _: word_indexing.build(paths, entry, engine))
