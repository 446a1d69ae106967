"""Word indexes of segments that have none, as compaction did not write them; rank indexes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from lakelog import bloom, ranks, word_indexes
from lakelog.database import connect
from lakelog.disk import File, LockFile
from lakelog.entries import SegmentEntry
from lakelog.errors import Damaged, LakelogError
from lakelog.libraries import duckdb
from lakelog.maintain.payloads import read_segment
from lakelog.paths import Paths
from lakelog.store import Store
from lakelog.workers import WorkerPool


def missing(store: Store, branch: str) -> list[SegmentEntry]:
    """Return the segments of a branch that have no intact index, but those of few rows."""
    return [
        entry
        for entry in _segments(store, branch)
        if word_indexes.is_missing(store.paths, entry.key, entry.events)
    ]


def _unranked(store: Store, branch: str) -> list[SegmentEntry]:
    """The segments without a rank index, where somebody has asked for a ranked search."""
    if not (File(store.paths.rank_indexes).exists() and ranks.is_installed()):
        return []
    segments = _segments(store, branch)
    return [entry for entry in segments if ranks.is_missing(store.paths, entry.key)]


def _segments(store: Store, branch: str) -> list[SegmentEntry]:
    state = store.manifests.of(store.refs.head(branch).move)
    return store.manifests.segments(state, "events")


def build_missing(store: Store, branch: str, pool: WorkerPool | None = None) -> int:
    """Build the indexes that segments of a branch lack, by workers if there are some, and return
    how many; segments that cannot be read get none. Raises OSError; Unreachable and TransferRefused
    for a shared lake."""
    if store.attachment is not None:
        store.attachment.index(store, branch)
    lacking, unranked = missing(store, branch), _unranked(store, branch)
    # While one process builds them, another would only do the same.
    with LockFile(f"{store.paths.cache}/words.lock").claim() as alone:
        if not alone or not (lacking or unranked):
            return 0
        with contextlib.closing(connect(store.paths, store.settings)) as engine:
            tasks = ((store.paths.root, entry) for entry in lacking)
            outcomes: Iterator[bool] = (_is_built(store, entry, engine) for entry in lacking)
            if pool is not None:
                outcomes = pool.results(_build_words, tasks)
            count = sum(outcomes)
            for entry in unranked:
                with contextlib.suppress(LakelogError):
                    _build(store, entry, engine, ranks.build)
    return count


def _build_words(root: str, entry: SegmentEntry) -> bool:
    """Build the word index of a segment in a process that does tasks."""
    store = Store.load(root).for_task()
    with contextlib.closing(connect(store.paths, store.settings)) as engine:
        return _is_built(store, entry, engine)


def _is_built(store: Store, entry: SegmentEntry, engine: duckdb.DuckDBPyConnection) -> bool:
    """Build the word index of a segment, unless that is damaged."""
    try:
        _build(store, entry, engine, word_indexes.build)
    except Damaged:
        return False
    return True


def _build(
    store: Store,
    entry: SegmentEntry,
    engine: duckdb.DuckDBPyConnection,
    build: Callable[[Paths, SegmentEntry, duckdb.DuckDBPyConnection], None],
) -> None:
    generation = store.erased.refresh()
    store.verified.require([entry])
    read_segment(store, entry, lambda _: build(store.paths, entry, engine))
    # Once it is there: an erasure that is noted later removes it itself.
    if store.erased.refresh() != generation:
        bloom.drop(store.paths, [entry.key])
        ranks.drop(store.paths, [entry.key])
