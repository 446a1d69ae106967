"""What a table lacks: the difference between the state in its watermark and one of the lake.

States are compared by their segments, and compaction, which exchanges segments and keeps the rows,
is seen through by their lineage. So what is read is what is new. Where a state lost rows, by a
rollback, retention or dedupe, the segments that differ are compared row by row. If the older state
was collected meanwhile, rows are known by seq, as long as the branch still has it in its history
and was not rewound since; else all is filled again. A lake that was restored from a backup and
went on has the same numbers with other events: only a digest tells the two apart.

The first step has all removals, and all rows below the watermark's `upto`. Each later one continues
at a seq that divides the segments: so in between, too, the table holds the rows of one state below
one seq.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakelog.errors import Damaged, DamagedRef, UnknownRef
from lakelog.maintain import compact
from lakelog.segments import segment_sql
from lakelog.store.bootstrap import Store
from lakelog.store.entry import SegmentEntry
from lakelog.store.manifest import Manifest
from lakelog.sync.target import KEY, Watermark
from lakelog.views.lineage import Lineage, Part, cover_of

if TYPE_CHECKING:
    import duckdb


REWOUND = "the lake was rewound"
OTHER_HISTORY = (
    "the lake has another history, as after it was restored from a backup: the state of the last"
    " sync is not in it"
)


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
    """The steps to a state. With `clear` the table is emptied first, and they are one; `reason` is
    why."""

    steps: tuple[Step, ...]
    clear: bool = False
    reason: str = ""


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
        return Delta(_steps(list(parts_of(entries)), 0, state.next_seq))
    if old.snapshot == state.digest and old.upto == state.next_seq:
        return Delta(())
    try:
        before = store.manifests.segments(store.manifests.load(old.snapshot), "events")
        removed, added = _differences(store, before, entries, old.upto, state)
        compact.check(store, [part.entry for part in removed])
    except Damaged:  # collected meanwhile, or never there
        if not is_in_history(store, cursor, old, entries):
            return everything(entries, state, OTHER_HISTORY)
        if old.generation != generation or old.events != _count(store, cursor, entries, old.upto):
            return everything(entries, state, REWOUND)
        removed, added = [], _from(entries, old.upto)
    return Delta(_steps(added, old.upto, state.next_seq, removed))


def everything(entries: list[SegmentEntry], state: Manifest, reason: str = "") -> Delta:
    """Return the delta that fills an emptied table."""
    steps = (Step(parts_of(entries), state.next_seq),)
    return Delta(steps, clear=True, reason=reason)


def is_in_history(
    store: Store, cursor: duckdb.DuckDBPyConnection, old: Watermark, entries: list[SegmentEntry]
) -> bool:
    """Whether the branch, whose state now has these segments, was once in a watermark's state."""
    try:
        return store.refs.read(old.branch, old.move).snapshot == old.snapshot
    except DamagedRef:
        return False
    except UnknownRef:
        if old.move > store.refs.head_number(old.branch):
            return False
    # gc dropped the move. Then the event that was the last one has to be there as it was.
    seq = int(old.tip.partition(":")[0] or -1)
    holding = [e for e in entries if e.seq[0] <= seq <= e.seq[1]]
    return bool(holding) and _tip(store, cursor, holding, seq) == old.tip


def tip_of(store: Store, cursor: duckdb.DuckDBPyConnection, entries: list[SegmentEntry]) -> str:
    """Return the seq of the last event and a digest of it; nothing where there is none."""
    last = max(entries, key=lambda e: e.seq[1], default=None)
    return _tip(store, cursor, [last], last.seq[1]) if last else ""


def _tip(
    store: Store, cursor: duckdb.DuckDBPyConnection, entries: list[SegmentEntry], seq: int
) -> str:
    values = "epoch_us(time), type, source, id, message, data"
    text = ", ".join(f"coalesce(({each})::VARCHAR, '')" for each in values.split(", "))
    query = f"SELECT md5(concat_ws(chr(31), {text})) FROM ({_rows(store, parts_of(entries))})"
    found = cursor.execute(f"{query} WHERE {KEY} = {seq}").fetchall()
    return f"{seq}:{found[0][0]}" if len(found) == 1 else ""


def parts_of(entries: list[SegmentEntry]) -> tuple[Part, ...]:
    """Return segments as parts that are read whole."""
    return tuple(Part(entry, {}) for entry in entries)


def joined(steps: list[Step]) -> list[Step]:
    """Return steps of one transaction as few: many segments are read faster than one by one."""
    whole = [step for step in steps if not step.removed]
    if len(whole) < 2:
        return steps
    added = tuple(part for step in whole for part in step.added)
    first = [step for step in steps if step.removed]
    return [*first, Step(added, whole[-1].upto, below=whole[-1].below)]


def size(store: Store, cursor: duckdb.DuckDBPyConnection, step: Step) -> int:
    """Return how many events a step adds or removes."""
    if not step.removed and not any(part.without for part in step.added):
        return step.events
    queries = [rows_sql(store, step)] if step.added else []
    queries += [keys_sql(store, step)] if step.removed else []
    counts = (cursor.execute(f"SELECT count(*) FROM ({query})").fetchall() for query in queries)
    return sum(int(rows[0][0]) for rows in counts)


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
        return list(parts_of(older)), list(parts_of(entries))
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
