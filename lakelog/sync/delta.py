"""What a table lacks: the difference between the state in its watermark and one of the lake.

States are compared by their segments, and compaction, which exchanges segments and keeps the rows,
is seen through by their lineage. So what is read is what is new. Where a state lost rows, by a
rollback, retention or dedupe, the segments that differ are compared row by row. If the older state
was collected meanwhile, rows are known by seq, as long as the branch was not rewound; else all is
filled again.

The first step has all removals, and all rows below the watermark's `upto`. Each later one continues
at a seq that divides the segments: so in between, too, the table holds the rows of one state below
one seq.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakelog.errors import Damaged
from lakelog.maintain import compact
from lakelog.segments import segment_sql
from lakelog.store.bootstrap import Store
from lakelog.store.entry import SegmentEntry
from lakelog.store.manifest import Manifest
from lakelog.sync.target import KEY, Watermark
from lakelog.views.lineage import Lineage, Part, cover_of

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Step:
    """Rows to add, and with the first step rows to remove; afterwards all below `upto` is there.

    Rows of `removed` from `below` on are not in the table.
    """

    added: tuple[Part, ...]
    upto: int
    removed: tuple[Part, ...] = ()
    below: int = 0

    @property
    def events(self) -> int:
        """At least so many events are read for it."""
        return sum(part.entry.events for part in self.added)


@dataclass(frozen=True)
class Delta:
    """The steps to a state. With `clear` the table is emptied first, and they are one."""

    steps: tuple[Step, ...]
    clear: bool = False


def compare(
    store: Store,
    cursor: duckdb.DuckDBPyConnection,
    old: Watermark,
    state: Manifest,
    generation: int,
) -> Delta:
    """Return what a table with this watermark lacks of a state. Raises Damaged."""
    entries = store.manifests.segments(state, "events")
    if not old.snapshot:
        return Delta(_steps([Part(e, {}) for e in entries], 0, state.next_seq))
    if old.snapshot == state.digest and old.upto == state.next_seq:
        return Delta(())
    try:
        before = store.manifests.segments(store.manifests.load(old.snapshot), "events")
        removed, added = _differences(store, before, entries, old.upto, state)
        compact.check(store, [part.entry for part in removed])
    except Damaged:  # collected meanwhile
        if old.generation != generation or old.events != _count(store, cursor, entries, old.upto):
            return everything(entries, state)
        removed, added = [], _from(entries, old.upto)
    return Delta(_steps(added, old.upto, state.next_seq, removed))


def everything(entries: list[SegmentEntry], state: Manifest) -> Delta:
    """Return the delta that fills an emptied table."""
    return Delta((Step(tuple(Part(e, {}) for e in entries), state.next_seq),), clear=True)


def joined(steps: list[Step]) -> list[Step]:
    """Return steps of one transaction as few: many segments are read faster than one by one."""
    whole = [step for step in steps if not step.removed]
    if len(whole) < 2:
        return steps
    added = tuple(part for step in whole for part in step.added)
    first = [step for step in steps if step.removed]
    return [*first, Step(added, whole[-1].upto, below=whole[-1].below)]


def rows_sql(store: Store, step: Step) -> str:
    """Return SQL for the events that a step adds, their segments verified. Raises Damaged."""
    added = _rows(store, step.added)
    if not step.removed:
        return added
    return f"SELECT * FROM ({added}) EXCEPT SELECT * FROM ({_held(store, step)})"


def keys_sql(store: Store, step: Step) -> str:
    """Return SQL for the keys of events that a step removes. Raises Damaged."""
    gone = f"SELECT * FROM ({_held(store, step)})"
    if step.added:
        gone += f" EXCEPT SELECT * FROM ({_rows(store, step.added)})"
    return f"SELECT {KEY} FROM ({gone})"


def _held(store: Store, step: Step) -> str:
    return f"SELECT * FROM ({_rows(store, step.removed)}) WHERE {KEY} < {step.below}"


def _differences(
    store: Store,
    before: list[SegmentEntry],
    entries: list[SegmentEntry],
    upto: int,
    state: Manifest,
) -> tuple[list[Part], list[Part]]:
    """Return what the older state has alone, and what the newer one has alone."""
    lineage, covers = Lineage(), (cover_of(before), cover_of(entries))
    for cover in covers:
        lineage.note(cover)
    if lineage.unknown(covers[1]):
        lineage.search(store.manifests, state, covers[1])
    if lineage.unknown(covers[0]):
        lineage.search(store.manifests, state, covers[0])
    common = lineage.leaves(covers[0]) & lineage.leaves(covers[1])
    # Of the older state only what is below `upto` was written.
    covered = frozenset(leaf for leaf in common if lineage.last(leaf) < upto)
    older = [e for e in before if e.seq[0] < upto]
    removed, added = lineage.missing(older, covered), lineage.missing(entries, covered)
    if removed is None or added is None:
        return [Part(e, {}) for e in older], [Part(e, {}) for e in entries]
    return removed, added


def _from(entries: list[SegmentEntry], upto: int) -> list[Part]:
    """Segments from a seq on."""
    parts = []
    for entry in entries:
        if entry.seq[1] >= upto:
            below = ((0, upto - 1),) if entry.seq[0] < upto else ()
            parts.append(Part(entry, {}, below))
    return parts


def _count(
    store: Store, cursor: duckdb.DuckDBPyConnection, entries: list[SegmentEntry], upto: int
) -> int:
    """The number of events of segments below a seq."""
    whole = sum(e.events for e in entries if e.seq[1] < upto)
    across = tuple(Part(e, {}) for e in entries if e.seq[0] < upto <= e.seq[1])
    if not across:
        return whole
    query = f"SELECT count(*) FROM ({_rows(store, across)}) WHERE {KEY} < {upto}"
    return whole + int(cursor.execute(query).fetchall()[0][0])


def _steps(
    added: list[Part], below: int, end: int, removed: list[Part] | None = None
) -> tuple[Step, ...]:
    """Divide segments where no seq range of one reaches over the next one's first."""
    groups = list(_disjoint(added, below))
    if not groups:
        return (Step((), end, tuple(removed or ()), below),)
    # What is below the watermark belongs with the removals: seq of both may be the same.
    if removed and groups[0][0].entry.seq[0] >= below:
        groups.insert(0, [])
    starts = [min(part.entry.seq[0] for part in group) for group in groups[1:]]
    return tuple(
        Step(tuple(group), upto, () if n else tuple(removed or ()), below)
        for n, (group, upto) in enumerate(zip(groups, [*starts, end], strict=True))
    )


def _disjoint(parts: list[Part], below: int) -> Iterator[list[Part]]:
    group: list[Part] = []
    reach = below - 1
    for part in sorted(parts, key=lambda p: p.entry.seq[0]):
        if group and part.entry.seq[0] > reach:
            yield group
            group = []
        group.append(part)
        reach = max(reach, part.entry.seq[1])
    if group:
        yield group


def _rows(store: Store, parts: tuple[Part, ...]) -> str:
    """SQL for the rows of segments, each verified before."""
    compact.check(store, [part.entry for part in parts])
    whole = [part.entry for part in parts if not part.without]
    queries = [segment_sql.rows_sql(store.paths, whole)] if whole else []
    for part in parts:
        if part.without:
            rest = " OR ".join(f"{KEY} BETWEEN {a} AND {b}" for a, b in part.without)
            rows = segment_sql.rows_sql(store.paths, [part.entry])
            queries.append(f"SELECT * FROM ({rows}) WHERE NOT ({rest})")
    return " UNION ALL ".join(queries)
