"""Views that workers compute before somebody asks: each maps some segments, and keeps the piece of
them in the cache, where whoever asks finds it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lakelog import query as queries
from lakelog.entries import SegmentEntry
from lakelog.manifest import Manifest
from lakelog.store import Store
from lakelog.views.definition import ViewDefinition
from lakelog.views.engine import Limits
from lakelog.views.layers import LayerBuilder
from lakelog.views.lineage import Lineage, SegmentRead
from lakelog.views.mapping import Mapper, engine_name, shape_of
from lakelog.views.params import Values
from lakelog.views.partials import Partials
from lakelog.workers import WorkerPool

if TYPE_CHECKING:
    from lakelog.query import Session

_EVENTS, _TASKS = 1 << 20, 2
"""A task has so many events at least, where there are more than so many tasks for each worker."""


class ViewBuild:
    """The pieces of one view, in one process."""

    def __init__(self, session: Session, definition: ViewDefinition, values: Values) -> None:
        self._tables, self._store = session.tables, session.store
        self._definition, self._values = definition, values
        self._builder = LayerBuilder(self._tables.connect(), Limits().small)
        self._cursor = self._builder.cursor()
        self._shape = shape_of(self._cursor, definition, values)
        self._name = definition.state(values, engine_name())
        self._pieces = Partials(self._store.paths, Limits().disk_bytes)

    def by(self, pool: WorkerPool, branch: str, state: Manifest) -> int:
        """Have workers compute what the cache lacks of a state; return of how many segments."""
        lacking = self._lacking(state)
        root = self._store.paths.root
        tasks = (
            (root, branch, self._definition, self._values, entries)
            for entries in _shares(lacking, pool.count)
        )
        for _ in pool.results(_keep, tasks):
            pass
        return len(lacking)

    def _lacking(self, state: Manifest) -> list[SegmentEntry]:
        """Return the segments of which no piece has anything; none for a view of which pieces
        cannot be kept."""
        if not self._shape.is_lossless:
            return []
        entries, lineage = self._store.manifests.segments(state, "events"), Lineage()
        partials = self._pieces.of(self._name, self._shape)
        cover = Lineage.cover_of(entries)
        for its_cover in (cover, *(partial.cover for partial in partials)):
            lineage.note(its_cover)
        if partials and lineage.unknown(cover):
            lineage.search(self._store.manifests, state, cover)
        leaves = lineage.leaves(cover)
        # A piece that also has segments which this state lacks is of no use for it.
        covers = (lineage.leaves(partial.cover) for partial in partials)
        covered = frozenset[str]().union(
            *(its_leaves for its_leaves in covers if its_leaves <= leaves)
        )
        sources = lineage.missing(entries, covered)
        return [source.entry for source in sources or () if not source.without]

    def keep(self, entries: list[SegmentEntry]) -> None:
        """Compute the piece of segments, and keep it, unless something was erased meanwhile."""
        generation = self._store.erased.refresh()
        sources = [SegmentRead(entry, Lineage.cover_of([entry])) for entry in entries]
        mapper = Mapper(self._store.paths, self._tables, self._builder)
        table = mapper.mapped(self._cursor, self._shape, sources)
        query = f"SELECT {self._shape.listed} FROM {table.name}"
        cover = Lineage.cover_of(entries)
        piece_file = self._pieces.save(self._name, cover, self._shape, self._cursor, query)
        if piece_file is not None and self._store.erased.refresh() != generation:
            self._pieces.forget(piece_file)


def _keep(
    root: str, branch: str, definition: ViewDefinition, values: Values, entries: list[SegmentEntry]
) -> None:
    """Keep the piece of segments, in a process that does tasks."""
    with contextlib.closing(queries.Session(Store.load(root).for_task(), branch)) as session:
        ViewBuild(session, definition, values).keep(entries)


def _shares(entries: list[SegmentEntry], worker_count: int) -> Iterator[list[SegmentEntry]]:
    """Divide segments among tasks."""
    share_events = max(sum(e.events for e in entries) // (_TASKS * worker_count), 1)
    share, events = list[SegmentEntry](), 0
    for entry in entries:
        share.append(entry)
        events += entry.events
        if events >= min(share_events, _EVENTS):
            yield share
            share, events = [], 0
    if share:
        yield share
