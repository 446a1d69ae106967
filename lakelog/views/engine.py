"""Answering projections: what is known of a state is looked up, what is new is mapped and merged.

A state of the lake is a set of segments and the live tail. The layer of its segments is made of one
of a state that differs little, in memory or noted on disk, and of the segments that this one lacks.
Where there is none, it is made of the pieces on disk that cover no more than they hold, and of the
segments that none covers. The tail is laid over it, and where it only grew, only its new rows are.
Layers belong to segments, not to branches: a rollback or a branch finds those of its own state.
What was computed is written to the cache beside the answering thread.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakelog import arrays
from lakelog.engine.messages import EngineMessage
from lakelog.errors import QueryFailed
from lakelog.event import EVENT_COLUMNS
from lakelog.libraries import duckdb, np, pa
from lakelog.manifest import Manifest
from lakelog.paths import Paths
from lakelog.query import SegmentMap, TailRows
from lakelog.runtime.lazy import Lazy
from lakelog.runtime.locks import OrderedLock, Rank
from lakelog.store import Store
from lakelog.views import finalize, ledger
from lakelog.views.definition import ViewDefinition
from lakelog.views.layers import Layer, LayerBuilder, LayerPart, LayerTable, StateShape
from lakelog.views.lineage import Lineage, SegmentRead
from lakelog.views.mapping import TIME, Mapper, RowsProvider, engine_name, shape_of
from lakelog.views.params import Values, time_sql
from lakelog.views.partials import Partials, PieceFile
from lakelog.views.state_notes import StateNote, StateNotes
from lakelog.views.state_writer import CachedState, StateWriter, ViewState

if TYPE_CHECKING:
    from lakelog.protect import sealed_blocks
else:
    sealed_blocks = Lazy("lakelog.protect.sealed_blocks")

_CELL_BYTES = 24
_SHARED_ROWS = 10_000
"""New rows of a tail become a table that all views read, if they are no more: the engine plans a
query over a table faster than one over Arrow."""


@dataclass(frozen=True)
class Limits:
    """When the engine changes its ways: rows of a state merged as a whole, share of a base that
    may lie over it, layers of a view in memory, pieces read before they are written as one, cells
    of all layers in memory (by default as the lake's memory allows), bytes on disk."""

    small: int = 50_000
    fold: float = 0.05
    layers: int = 3
    pieces: int = 8
    cells: int | None = None
    disk_bytes: int = 2 << 30


@dataclass(frozen=True)
class _CachedLayer:
    """A layer of the segments of a state in memory, and what the cache has of them."""

    state: CachedState
    layer: Layer


@dataclass
class _Foundation:
    """What is known of a state: a layer, the tables of other pieces, and what is to be read beside
    them; of which state that is, and how many pieces were loaded."""

    state: CachedState
    layer: Layer | None
    deltas: list[LayerTable]
    missing: list[SegmentRead]
    load_count: int


@dataclass
class _TailOverlay:
    """A layer with the tail over it."""

    under: Layer
    tail: pa.Table
    layer: Layer


@dataclass(frozen=True)
class _NewRows:
    """Rows of a tail from one on, as a table."""

    tail: pa.Table
    start: int
    next_seq: int
    table: LayerTable


class Projector:
    """The projections of one process on one lake. Safe for threads."""

    def __init__(
        self,
        store: Store,
        database: duckdb.DuckDBPyConnection,
        source: RowsProvider,
        limits: Limits | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._store = store
        # By the memory of a task, as what is kept of all views grows with the values in the data.
        self._cells = self._limits.cells or store.settings.task_memory // _CELL_BYTES
        self._builder = LayerBuilder(database, self._limits.small)
        self._mapper = Mapper(store.paths, source, self._builder)
        partials = Partials(store.paths, self._limits.disk_bytes)
        notes = StateNotes(store.paths)
        self._writer = StateWriter(store, self._builder, partials, notes, self._limits.pieces)
        self._lineage = Lineage()
        self._layers_by_view: dict[str, list[_CachedLayer]] = {}
        self._layers_by_state: collections.OrderedDict[tuple[str, str], Layer] = (
            collections.OrderedDict()
        )
        self._tail_overlays: dict[str, _TailOverlay] = {}
        self._new_rows: _NewRows | None = None
        self._shapes: dict[str, StateShape] = {}
        self._protected_maps = ProtectedMaps(store.paths)
        self._mutex = OrderedLock(Rank.PROJECTOR)
        self.background_writer = self._writer.background_writer

    def read(
        self,
        definition: ViewDefinition,
        values: Values,
        state: Manifest,
        tail: pa.Table | None,
        *,
        moment: int,
        window: tuple[int, int] | None = None,
        opens: bool = False,
    ) -> pa.Table:
        """Answer a projection over a state and its tail; `window` cuts it to times in us, `opens`
        shows protected fields. Raises QueryFailed, Damaged, InvalidKey."""
        opens = opens and not ledger.Ledger.is_view(definition)
        try:
            with self.background_writer.answering():
                with self._mutex.hold_once():
                    is_kept = self._protected_maps.may_keep(
                        self._builder.cursor, definition, values, opens
                    )
                    if window is None and is_kept:
                        layer = self._layer(definition, values, state, tail)
                    else:
                        layer = self._cut(definition, values, state, tail, window, opens)
                query = finalize.asked(definition, values)
                # Outside of the mutex: finish may take long, and reads tables that never change.
                return finalize.finish(self._builder, layer, query, moment)
        except duckdb.Error as error:
            message = EngineMessage(error).gist()
            raise QueryFailed(f"view {definition.name}: {message}") from None

    def close(self) -> None:
        """Write what is waiting; then let go of everything. A forked child only lets go."""
        # The thread is the parent's: a child that waited for it would never end.
        if not self.background_writer.is_ours:
            return
        self.background_writer.drain()
        with self._mutex.hold_once():
            self._layers_by_view.clear()
            self._layers_by_state.clear()
            self._tail_overlays.clear()
            self._new_rows = None

    def _layer(
        self, definition: ViewDefinition, values: Values, state: Manifest, tail: pa.Table | None
    ) -> Layer:
        name = definition.state(values, engine_name())
        with self._builder.cursor() as cursor:
            shape = self._shape(cursor, name, definition, values)
            layer = self._layers_by_state.get((name, state.key))
            if layer is None:
                generation = self._store.erased.refresh()
                layer = self._segments(cursor, ViewState(name, shape, state, generation))
                self._layers_by_state[name, state.key] = layer
                self._shed(name)
            self._layers_by_state.move_to_end((name, state.key))
            if tail is None or not tail.num_rows:
                return layer
            return self._with_tail(cursor, name, layer, state, tail)

    def _shape(
        self,
        cursor: duckdb.DuckDBPyConnection,
        name: str,
        definition: ViewDefinition,
        values: Values,
    ) -> StateShape:
        shape = self._shapes.get(name)
        if shape is None:
            shape = shape_of(cursor, definition, values)
            # A name has the values of parameters in it, of which there is no end.
            if len(self._shapes) > 256:
                self._shapes.clear()
            self._shapes[name] = shape
        return shape

    def _segments(self, cursor: duckdb.DuckDBPyConnection, target: ViewState) -> Layer:
        """The layer of a state's segments."""
        with self._store.manifests.without_collections():
            base = self._near(cursor, target) or self._compared(cursor, target)
        layer, deltas, computed = base.layer, base.deltas, None
        if base.missing or layer is None:
            fresh = self._mapper.mapped(cursor, target.shape, base.missing)
            computed = base.missing, fresh
            if layer is None:
                layer = Layer(target.shape, LayerPart(fresh))
            else:
                deltas.append(fresh)
        if deltas:
            layer = self._builder.extend(cursor, layer, deltas)
            self._fold(layer)
        cached_state = CachedState(StateNote.of(target.state))
        if base.state.note.content == cached_state.note.content:
            cached_state = base.state
        # One that is noted already, too, where its pieces are not written, or too many to load.
        if (
            cached_state is not base.state
            or not cached_state.note.piece_files
            or base.load_count > self._limits.pieces
        ):
            self._writer.write(target, base.state, cached_state, computed, layer, base.load_count)
        layers = self._layers_by_view.setdefault(target.name, [])
        layers[:] = [layer_ for layer_ in layers if layer_.state is not cached_state]
        layers.append(_CachedLayer(cached_state, layer))
        del layers[: -self._limits.layers]
        return layer

    def _near(self, cursor: duckdb.DuckDBPyConnection, target: ViewState) -> _Foundation | None:
        """What a state is made of that differs little, in memory or noted on disk; None where there
        is none, or rows of it are gone."""
        state, manifests = target.state, self._store.manifests
        notes = self._writer.notes.of(target.name, target.shape)
        states: list[tuple[CachedState, Layer | None]] = [
            *((cached.state, cached.layer) for cached in self._layers_by_view.get(target.name, ())),
            *((CachedState(note), None) for note in notes),
        ]
        near = [(d, *s) for s in states if (d := s[0].note.distance(state)) is not None]
        # Of states that differ as much by their pages the one of nearly as many events is nearest.
        near.sort(key=lambda n: (n[0], abs(n[1].note.events - state.totals.events)))
        for _, cached_state, layer in near:
            missing = cached_state.note.reads(manifests, self._lineage, state)
            if missing is None:
                continue
            if layer is not None:
                return _Foundation(cached_state, layer, [], missing, 0)
            piece_files = cached_state.note.piece_files
            tables = [
                self._writer.partials.load(self._builder, cursor, file, target.shape)
                for file in piece_files
            ]
            deltas = [table for table in tables if table is not None]
            if len(deltas) == len(piece_files):
                layer = Layer(target.shape, LayerPart(deltas.pop(0)))
                return _Foundation(cached_state, layer, deltas, missing, len(piece_files))
        return None

    def _compared(self, cursor: duckdb.DuckDBPyConnection, target: ViewState) -> _Foundation:
        """What the pieces on disk have of a state, of which each segment is compared."""
        state, manifests, lineage = target.state, self._store.manifests, self._lineage
        entries = manifests.segments(state, "events")
        cover = Lineage.cover_of(entries)
        lineage.note(cover)
        partials = self._writer.partials.of(target.name, target.shape)
        for partial in partials:
            lineage.note(partial.cover)
        # What was computed is found again under compacted segments only by their lineage; with
        # nothing computed yet there is nothing to find, and older manifests need not be read.
        if partials and lineage.unknown(cover):
            lineage.search(manifests, state, cover)
        leaves, covered = lineage.leaves(cover), set[str]()
        piece_files, tables = list[PieceFile](), list[LayerTable]()
        # Those of the most events first; they are cheaper to load than to compute, but one that
        # overlaps what is covered would count its events twice.
        for partial in partials:
            partial_leaves = lineage.leaves(partial.cover)
            if partial_leaves <= leaves and not partial_leaves & covered:
                table = self._writer.partials.load(
                    self._builder, cursor, partial.file, target.shape
                )
                if table is None:
                    self._writer.partials.forget(partial.file)
                    continue
                piece_files.append(partial.file)
                tables.append(table)
                covered |= partial_leaves
        missing = lineage.missing(entries, frozenset(covered))
        # Of a segment an unknown part is covered: nothing can be taken from it, so all of
        # it is mapped again.
        if missing is None:
            piece_files, tables = [], []
            missing = [SegmentRead(e, Lineage.cover_of([e])) for e in entries]
        events = sum(file.events for file in piece_files)
        cached_state = CachedState(StateNote((), {}, (), events, tuple(piece_files)))
        layer = Layer(target.shape, LayerPart(tables.pop(0))) if tables else None
        return _Foundation(cached_state, layer, tables, missing, len(piece_files))

    def _with_tail(
        self,
        cursor: duckdb.DuckDBPyConnection,
        name: str,
        layer: Layer,
        state: Manifest,
        tail: pa.Table,
    ) -> Layer:
        """Lay the live tail over a layer; of a tail that grew, only what is new."""
        over = self._tail_overlays.get(name)
        under, start = layer, 0
        if over is not None and over.under is layer:
            # The same table, not an equal one: a tail is a new table whenever a row is added.
            if over.tail is tail:
                return over.layer
            if TailRows.begins_with(tail, over.tail):
                under, start = over.layer, over.tail.num_rows
        rows = self._tail_rows(cursor, tail, start, state.next_seq)
        extended = self._builder.lay(cursor, under, rows)
        self._tail_overlays[name] = _TailOverlay(layer, tail, extended)
        return extended

    def _cut(
        self,
        definition: ViewDefinition,
        values: Values,
        state: Manifest,
        tail: pa.Table | None,
        window: tuple[int, int] | None,
        opens: bool,
    ) -> Layer:
        """The state of the events of some times only, or of all; not kept."""
        with self._builder.cursor() as cursor:
            shape = self._shape(cursor, definition.state(values, engine_name()), definition, values)
            near, inside = self._store.manifests.segments(state), "true"
            if window is not None:
                low, high = window
                near = self._store.manifests.segments_between(state, low, high - 1)
                inside = f"time >= {time_sql(low)} AND time < {time_sql(high)}"
            # Without a cover, as a part of a segment's events must not be kept as the whole.
            sources = [SegmentRead(e, {}) for e in near if e.kind == "events"]
            tail_rows = ""
            if tail is not None and tail.num_rows:
                tail_rows = self._tail_rows(cursor, tail, 0, state.next_seq)
            table = self._mapper.mapped(cursor, shape, sources, tail_rows, inside, opens=opens)
            return Layer(shape, LayerPart(table))

    def _tail_rows(
        self, cursor: duckdb.DuckDBPyConnection, tail: pa.Table, start: int, next_seq: int
    ) -> str:
        """SQL for rows of the tail, with the seq they will have if nobody else is sealed before."""
        shared = self._new_rows
        if shared and shared.tail is tail and (shared.start, shared.next_seq) == (start, next_seq):
            return f"FROM {shared.table.name}"
        rows = tail.slice(start)
        # As a sealer would number them, so that the merged state stays right once they are sealed.
        seq = arrays.integers(np.arange(start, tail.num_rows, dtype=np.int64) + next_seq)
        cursor.register("lakelog_tail_rows", rows.append_column("seq", seq))
        columns = ", ".join((*EVENT_COLUMNS, "seq"))
        place = f"{TIME} + {next_seq} + {TailRows.ORDER} AS place"
        query = f"SELECT {columns}, {place} FROM lakelog_tail_rows"
        if rows.num_rows > _SHARED_ROWS:
            return query
        table = self._builder.table(cursor, query)
        self._new_rows = _NewRows(tail, start, next_seq, table)
        return f"FROM {table.name}"

    def _fold(self, layer: Layer) -> None:
        """Have a layer made one table, if much lies over its base."""
        base, *overlays = layer.parts
        if sum(overlay.rows for overlay in overlays) <= base.table.rows * self._limits.fold:
            return

        def fold() -> None:
            with self._builder.cursor() as cursor:
                self._builder.fold(cursor, layer)

        self.background_writer.put(fold)

    def _shed(self, newest: str) -> None:
        """Forget what was not asked for lately, until the rest is no more than memory is for it."""
        for old in [k for k in self._layers_by_state if k[0] == newest][: -self._limits.layers]:
            del self._layers_by_state[old]
        while len(self._layers_by_state) > 1:
            tables = {
                # One more: the hashes, and their index.
                layer_part.table.name: layer_part.table.rows * (len(h.layer.shape.columns) + 1)
                for layers in self._layers_by_view.values()
                for h in layers
                for layer_part in h.layer.parts
            }
            if sum(tables.values()) <= self._cells:
                return
            # The state that was asked for longest ago; the last one always stays.
            (name, _), _ = self._layers_by_state.popitem(last=False)
            # No state of this view is left, so its layers and its tail go as well.
            if name != newest and all(
                cached_name != name for cached_name, _ in self._layers_by_state
            ):
                self._layers_by_view.pop(name, None)
                self._tail_overlays.pop(name, None)


_KNOWN_MAX = 256


class ProtectedMaps:
    """Which maps of a lake read protected fields: what such a view computes is kept nowhere.

    What is kept on disk has no word of such a field, and what a query shows depends on the keys of
    its process. So such a view is computed from the events whenever it is asked.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._reads_fields: dict[tuple[str, tuple[str, ...]], bool] = {}

    def may_keep(
        self,
        connect: Callable[[], duckdb.DuckDBPyConnection],
        definition: ViewDefinition,
        values: Values,
        opens: bool,
    ) -> bool:
        """Whether what a view computes may be kept, of events whose fields are opened or not."""
        protection = self._paths.protection
        # The ledger, for which queries ask all the time, lists fields as they are stored. What was
        # stored before fields were protected has them in plain.
        if protection is None or not (opens or protection.since):
            return True
        if ledger.Ledger.is_view(definition):
            return True
        query, protected_fields = definition.filled("map", values), protection.fields
        reads = self._reads_fields.get((query, protected_fields))
        if reads is None:
            if len(self._reads_fields) > _KNOWN_MAX:
                self._reads_fields.clear()
            with contextlib.closing(connect()) as cursor:
                reads = SegmentMap(query).reads_members(cursor, protected_fields)
            self._reads_fields[query, protected_fields] = reads
        return not reads
