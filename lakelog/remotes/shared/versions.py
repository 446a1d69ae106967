"""Versions of streams in a shared lake: decided in the bucket, by the move that publishes them.

Machines do not see each other's WALs. So the events of such an append are in no WAL: they are
written as a segment, and stored when its move is (F22.13). A version that another machine gave
first is in the state on which the move is made, as the number of a move is given once.
"""

from __future__ import annotations

import contextlib

from lakelog import database, frame_rows, identities
from lakelog.appends import KnownKeys, VersionedBatch
from lakelog.disk import Begun, disk
from lakelog.entries import IdRun, SegmentEntry
from lakelog.erasure import ErasedLines
from lakelog.errors import LakelogError
from lakelog.event import EncodedBatch
from lakelog.libraries import duckdb
from lakelog.maintain import Sealer
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.refs import Head
from lakelog.segments import write_segment
from lakelog.store import Clock, Store
from lakelog.wal import Frame, Tail


class VersionedAppend:
    """One append of a writer to streams of a shared lake."""

    def __init__(self, store: Store, branch: str, batch: VersionedBatch) -> None:
        self._store, self._branch, self._batch = store, branch, batch
        self._keys, self.origin = KnownKeys(store), disk.random_hex()

    def publish(self) -> None:
        """Publish the events, all of them or none. Raises WrongVersion, Unreachable, StaleFiles,
        Damaged, OutcomeUnknown, OSError."""
        store = self._store
        publish(store, self._branch, self._plan, lambda: None)
        # Each append adds an id run, and perhaps nothing else here is ever sealed. It is stored
        # already: what fails now is done after a later one.
        with contextlib.suppress(LakelogError, OSError):
            tail = Tail(store.paths, store.refs, self._branch)
            Sealer(store, self._branch, tail, connect=None).maintain()

    def _plan(self, head: Head, state: Manifest) -> Change:
        batch, keys = self._batch, self._keys.of(state.ids)
        # Another machine may have erased their subject since they were looked at.
        if self._store.erased.looked()[0]:
            encoded = EncodedBatch(batch.text, [None] * batch.events, False)
            with database.shared_database(self._store.paths) as connect:
                ErasedLines(self._store, connect).check(encoded)
        if not batch.number(keys.last_version):
            assert batch.refusal is not None
            raise batch.refusal
        pending_writes = list[Begun]()
        try:
            entry, runs = self._written(head, state, pending_writes)
        except BaseException:
            self._store.volume.abandon(pending_writes)
            raise
        return Change("seal", entries=(entry,), ids_add=runs, pending_files=pending_writes)

    def _written(
        self, head: Head, state: Manifest, pending_writes: list[Begun]
    ) -> tuple[SegmentEntry, tuple[IdRun, ...]]:
        """Write the events as a segment, with the run of their keys."""
        store, batch, commit = self._store, self._batch, disk.random_hex()
        # Those of a stream come one after the other, whatever the clocks of machines say.
        moment = Clock.following(head.move.time, disk.now_us())
        place = batch.events, batch.flags, 0, moment
        frame = Frame.unwritten(self.origin, batch.text, *place)
        with contextlib.ExitStack() as stack:

            def connect() -> duckdb.DuckDBPyConnection:
                engine = database.connect(store.paths, store.settings)
                return stack.enter_context(contextlib.closing(engine))

            table = frame_rows.events(connect, [frame])
        table, keys = identities.unique_rows(store, table, state.ids)
        runs = keys.write(store.paths, commit, pending_writes)
        entry = write_segment(
            store.paths,
            table,
            kind="events",
            layout="arrival",
            commit=commit,
            lake=store.lake_id,
            pending_writes=pending_writes,
        )
        return entry, runs
