"""Writing to the cache what was computed of states: pieces, and which of them make which state.

All is written by the thread beside, once the answer is given. Where a state is made of many pieces
they become one: the largest stays as it is, unless the others have a quarter of its events, so that
an event is written few times.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from lakelog.libraries import duckdb
from lakelog.manifest import Manifest
from lakelog.store import Store
from lakelog.views.background_writer import BackgroundWriter
from lakelog.views.layers import Layer, LayerBuilder, LayerTable, StateShape
from lakelog.views.lineage import Lineage, SegmentRead
from lakelog.views.partials import Cover, Partials, PieceFile
from lakelog.views.state_notes import StateNote, StateNotes

_SHARE = 4
"""Pieces are written as one with another that has not so many times their events."""
_GROWN = 8
"""So many times the pieces that a reader may find, one process leaves at most."""


@dataclass
class CachedState:
    """The note of a state, which has pieces once all of them are written."""

    note: StateNote


@dataclass(frozen=True)
class ViewState:
    """A state of the lake of which a view is answered; the view by the name of what it keeps.
    `generation` is that of erasures before any row was read."""

    name: str
    shape: StateShape
    state: Manifest
    generation: int


class StateWriter:
    """Writes pieces and notes of one lake."""

    def __init__(
        self,
        store: Store,
        builder: LayerBuilder,
        partials: Partials,
        notes: StateNotes,
        count_max: int,
    ) -> None:
        """So many pieces, `count_max`, are not written as one."""
        self._store, self._builder, self._count_max = store, builder, count_max
        self.partials, self.notes = partials, notes
        self.background_writer = BackgroundWriter()

    def write(
        self,
        target: ViewState,
        base: CachedState,
        cached_state: CachedState,
        computed: tuple[list[SegmentRead], LayerTable] | None,
        layer: Layer,
        load_count: int,
    ) -> None:
        """Have a state written that is made of another, and of the partial of what was read; so
        many pieces were loaded for it."""

        def save() -> None:
            piece_files = base.note.piece_files
            if computed is not None:
                sources, table = computed
                cover = {key: info for source in sources for key, info in source.cover.items()}
                with self._builder.cursor() as cursor:
                    query = f"SELECT {target.shape.listed} FROM {table.name}"
                    new_file = self._save(target, cover, cursor, query)
                piece_files = (*piece_files, new_file) if new_file else ()
            # Else some of its events are in none of them, as where a disk was full.
            if not piece_files or _events(piece_files) != cached_state.note.events:
                return
            piece_files = tuple(sorted(piece_files, key=lambda file: file.events, reverse=True))
            if max(load_count, len(piece_files) // _GROWN) > self._count_max:
                piece_files = self._joined(target, piece_files, layer)
            cached_state.note = dataclasses.replace(cached_state.note, piece_files=piece_files)
            self.notes.add(target.name, target.shape, cached_state.note)

        self.background_writer.put(save)

    def _save(
        self, target: ViewState, cover: Cover, cursor: duckdb.DuckDBPyConnection, query: str
    ) -> PieceFile | None:
        """Keep the rows of a query as the piece of some segments."""
        # Nothing was read, as for a lake without events: an empty piece would cover nothing.
        if not cover:
            return None
        piece_file = self.partials.save(target.name, cover, target.shape, cursor, query)
        # Once the file is there: an erasure that is noted later removes it itself.
        if piece_file is not None and self._store.erased.refresh() != target.generation:
            self.partials.forget(piece_file)
            return None
        return piece_file

    def _joined(
        self, target: ViewState, piece_files: tuple[PieceFile, ...], layer: Layer
    ) -> tuple[PieceFile, ...]:
        """Write many pieces as few, and return these."""
        largest, *small_files = piece_files
        if largest.events > _SHARE * _events(small_files):
            joined = self._joined_partial(target, small_files)
            return (largest, joined) if joined else piece_files
        entries = self._store.manifests.segments(target.state, "events")
        cover = Lineage.cover_of(entries)
        with self._builder.cursor() as cursor:
            rows, tables = self._builder.pinned(cursor, layer)
            whole = self._save(target, cover, cursor, rows)
            # The rows are read from these tables: they have to live until here.
            del tables
        if whole is None:
            return piece_files
        # Once the whole is on disk: until then the small ones answer.
        self.partials.replace(piece_files, whole)
        return (whole,)

    def _joined_partial(self, target: ViewState, small_files: list[PieceFile]) -> PieceFile | None:
        """Write pieces as one, and remove the small ones of them."""
        cover: Cover = {}
        with self._builder.cursor() as cursor:
            tables = []
            for piece_file in small_files:
                partial = self.partials.partial(target.name, piece_file)
                table = self.partials.load(self._builder, cursor, piece_file, target.shape)
                if partial is None or table is None:
                    return None
                cover |= partial.cover
                tables.append(table)
            partials = [f"FROM {table.name}" for table in tables]
            table = self._builder.merged(cursor, target.shape, partials)
            query = f"SELECT {target.shape.listed} FROM {table.name}"
            joined = self._save(target, cover, cursor, query)
        if joined is not None:
            self.partials.replace(small_files, joined)
        return joined


def _events(piece_files: Iterable[PieceFile]) -> int:
    return sum(piece_file.events for piece_file in piece_files)
