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

How far a table is behind its lake.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from lakelog.disk import disk
from lakelog.entries import SegmentEntry
from lakelog.errors import Damaged, DamagedRef, QueryFailed, UnknownRef
from lakelog.lake import Lake
from lakelog.libraries import duckdb
from lakelog.manifest import Manifest
from lakelog.protect import sealed_blocks
from lakelog.segments import rows_sql
from lakelog.store import Store
from lakelog.sync.mapping import NO_ROWS, read_mapping
from lakelog.sync.rows import from_quarantine
from lakelog.sync.target import KEY, TableShape, Watermark
from lakelog.views import Lineage, SegmentRead

REWOUND = "the lake was rewound"
ERASED = "events were erased"
DESTROYED = "keys of subjects were destroyed"
REFUSED = "a rollback or a restore took refused rows out of the quarantine"
OTHER_HISTORY = (
    "the lake has another history, as after it was restored from a backup: the state of the last"
    " sync is not in it"
)


@dataclass(frozen=True)
class DeltaStep:
    """Rows to add, and with the first step rows to remove; afterwards all below `upto` is there.

    Rows of `removed` from `below` on are not in the table.
    """

    added: tuple[SegmentRead, ...]
    upto: int
    removed: tuple[SegmentRead, ...] = ()
    below: int = 0

    @property
    def events(self) -> int:
        """At least so many events are read for it."""
        return sum(source_part.entry.events for source_part in self.added)

    def rows_sql(self, store: Store) -> str:
        """Return SQL for the events that it adds, their segments verified. Raises Damaged."""
        added = _rows(store, self.added)
        if not self.removed:
            return added
        return f"SELECT * FROM ({added}) EXCEPT SELECT * FROM ({self._earlier_rows(store)})"

    def keys_sql(self, store: Store) -> str:
        """Return SQL for the keys of events that it removes. Raises Damaged."""
        query = f"SELECT * FROM ({self._earlier_rows(store)})"
        if self.added:
            query += f" EXCEPT SELECT * FROM ({_rows(store, self.added)})"
        return f"SELECT {KEY} FROM ({query})"

    def _earlier_rows(self, store: Store) -> str:
        return f"SELECT * FROM ({_rows(store, self.removed)}) WHERE {KEY} < {self.below}"


@dataclass(frozen=True)
class Delta:
    """The steps to a state. With `clear` the table is emptied first, and they are one; `reason` is
    why."""

    steps: tuple[DeltaStep, ...]
    clear: bool = False
    reason: str = ""


def delta_between(
    store: Store,
    cursor: duckdb.DuckDBPyConnection,
    old: Watermark,
    state: Manifest,
    generation: int,
) -> Delta:
    """Return what a table with this watermark lacks of a state, as steps in the order of seq.

    Where both states are there, segments are compared, so that compaction and rollbacks cost what
    they changed. Where the old one was collected, rows are told by seq, if the history of the
    branch vouches for them; else the table is filled again, and `reason` says why. Raises Damaged.
    """
    entries = store.manifests.segments(state, "events")
    if not old.snapshot:
        return Delta(_steps(list(parts_of(entries)), 0, state.next_seq))
    # No state says so: the rows are there, and what was opened with the keys is to go.
    if old.destroyed_keys != store.destroyed_keys():
        return everything(entries, state, DESTROYED)
    # The usual case of a quiet lake costs no look at a segment.
    if old.snapshot == store.manifests.stored_as(state.digest) and old.upto == state.next_seq:
        return Delta(())
    if store.erased.holds(old.snapshot):  # nothing says any more which rows these were
        return everything(entries, state, ERASED)
    try:
        before = store.manifests.segments(store.manifests.load(old.snapshot), "events")
        removed, added = _differences(store, before, entries, old.upto, state)
        store.verified.require([removed_part.entry for removed_part in removed])
    # The old state is gone: rows can still be told by seq, if the branch kept its numbers.
    except Damaged:  # collected meanwhile, or never there
        # A lake that was restored has the same numbers for other events.
        if not is_in_history(store, cursor, old, entries):
            return everything(entries, state, OTHER_HISTORY)
        if old.generation != generation or old.events != _count(store, cursor, entries, old.upto):
            return everything(entries, state, REWOUND)
        removed, added = [], _from(entries, old.upto)
    return Delta(_steps(added, old.upto, state.next_seq, removed))


def everything(entries: list[SegmentEntry], state: Manifest, reason: str = "") -> Delta:
    """Return the delta that fills an emptied table."""
    steps = (DeltaStep(parts_of(entries), state.next_seq),)
    return Delta(steps, clear=True, reason=reason)


def has_lost_refusals(
    lake: Lake, refused: str, mark: Watermark, change: Delta, *, is_keyed: bool
) -> bool:
    """Whether a rollback or a restore took rows that a table refused, as `from_quarantine` has
    them, and left their events in the lake: they would be in neither from now on."""
    if not mark.refusals:
        return False
    manifests = lake.store.manifests
    # gc collects the older state before the newer one; a lake that was restored lacks the newer.
    is_restored = manifests.is_there(mark.snapshot) and not manifests.is_there(mark.refusals)
    generation = lake.store.refs.head(mark.branch).move.generation
    if mark.generation == generation and not is_restored:
        return False
    query = f"SELECT position {refused}"
    try:
        before = lake.at(mark.refusals).sql(query).fetchall()
    except (Damaged, UnknownRef):  # collected meanwhile: nothing says which rows these were
        return True
    keys = {row[0] for row in before}.difference(row[0] for row in lake.sql(query).fetchall())
    if not is_keyed or not change.steps:
        return bool(keys)
    # What is removed is to be in neither, and what was not reached is still to come.
    lost = f"SELECT unnest({[key for key in keys if key < mark.upto]}::BIGINT[])"
    with contextlib.closing(lake.engine().cursor()) as cursor:
        removed = change.steps[0].keys_sql(lake.store)
        return bool(cursor.execute(f"{lost} EXCEPT ({removed}) LIMIT 1").fetchall())


def is_in_history(
    store: Store, cursor: duckdb.DuckDBPyConnection, old: Watermark, entries: list[SegmentEntry]
) -> bool:
    """Whether the branch, whose state now has these segments, was once in a watermark's state: by
    its move, or, where that was collected, by the digest of the last event. A lake that was
    restored or replaced has the same numbers for other events."""
    try:
        return store.refs.read(old.branch, old.move).snapshot == old.snapshot
    except DamagedRef:
        return False
    except UnknownRef:
        if old.move > store.refs.head_number(old.branch):
            # The branch has not come that far: what the table has is of another lake.
            return False
    # gc dropped the move. Then the event that was the last one has to be there as it was.
    seq = int(old.tip.partition(":")[0] or -1)
    holding = [e for e in entries if e.seq[0] <= seq <= e.seq[1]]
    return bool(holding) and _tip(store, cursor, holding, seq) == old.tip


def tip_of(store: Store, cursor: duckdb.DuckDBPyConnection, entries: list[SegmentEntry]) -> str:
    """Return the seq of the last event and a digest of it; nothing where there is none."""
    newest = max(entries, key=lambda e: e.seq[1], default=None)
    return _tip(store, cursor, [newest], newest.seq[1]) if newest else ""


def _tip(
    store: Store, cursor: duckdb.DuckDBPyConnection, entries: list[SegmentEntry], seq: int
) -> str:
    values = "epoch_us(time), type, source, id, message, data"
    expression = ", ".join(f"coalesce(({value})::VARCHAR, '')" for value in values.split(", "))
    query = f"SELECT md5(concat_ws(chr(31), {expression})) FROM ({_rows(store, parts_of(entries))})"
    rows = cursor.execute(f"{query} WHERE {KEY} = {seq}").fetchall()
    return f"{seq}:{rows[0][0]}" if len(rows) == 1 else ""


def parts_of(entries: list[SegmentEntry]) -> tuple[SegmentRead, ...]:
    """Return segments as parts that are read whole."""
    return tuple(SegmentRead(entry, {}) for entry in entries)


def joined(steps: list[DeltaStep]) -> list[DeltaStep]:
    """Return steps of one transaction as few: many segments are read faster than one by one."""
    whole = [step for step in steps if not step.removed]
    if len(whole) < 2:
        return steps
    added = tuple(step_part for step in whole for step_part in step.added)
    # Removals stay a step of their own: they are one comparison over all segments.
    removing = [step for step in steps if step.removed]
    return [*removing, DeltaStep(added, whole[-1].upto, below=whole[-1].below)]


def size(store: Store, cursor: duckdb.DuckDBPyConnection, step: DeltaStep) -> int:
    """Return how many events a step adds or removes."""
    if not step.removed and not any(step_part.without for step_part in step.added):
        return step.events
    queries = [step.rows_sql(store)] if step.added else []
    queries += [step.keys_sql(store)] if step.removed else []
    counts = (cursor.execute(f"SELECT count(*) FROM ({query})").fetchall() for query in queries)
    return sum(int(rows[0][0]) for rows in counts)


def _differences(
    store: Store,
    before: list[SegmentEntry],
    entries: list[SegmentEntry],
    upto: int,
    state: Manifest,
) -> tuple[list[SegmentRead], list[SegmentRead]]:
    """Return what the older state has alone, and what the newer one has alone."""
    lineage, covers = Lineage(), (Lineage.cover_of(before), Lineage.cover_of(entries))
    for cover in covers:
        lineage.note(cover)
    if lineage.unknown(covers[1]):
        lineage.search(store.manifests, state, covers[1])
    if lineage.unknown(covers[0]):
        lineage.search(store.manifests, state, covers[0])
    common = lineage.leaves(covers[0]) & lineage.leaves(covers[1])
    # Of the older state only what is below `upto` was written.
    # A leaf that reaches over `upto` was written in part only: it is looked at row by row.
    covered = frozenset(leaf for leaf in common if lineage.last(leaf) < upto)
    older = [e for e in before if e.seq[0] < upto]
    removed, added = lineage.missing(older, covered), lineage.missing(entries, covered)
    if removed is None or added is None:
        return list(parts_of(older)), list(parts_of(entries))
    return removed, added


def _from(entries: list[SegmentEntry], upto: int) -> list[SegmentRead]:
    """Segments from a seq on."""
    remaining = []
    for entry in entries:
        if entry.seq[1] >= upto:
            excluded = ((0, upto - 1),) if entry.seq[0] < upto else ()
            remaining.append(SegmentRead(entry, {}, excluded))
    return remaining


def _count(
    store: Store, cursor: duckdb.DuckDBPyConnection, entries: list[SegmentEntry], upto: int
) -> int:
    """The number of events of segments below a seq."""
    # Whole segments are counted by their entries, and only those across are read.
    whole = sum(e.events for e in entries if e.seq[1] < upto)
    across = tuple(SegmentRead(e, {}) for e in entries if e.seq[0] < upto <= e.seq[1])
    if not across:
        return whole
    query = f"SELECT count(*) FROM ({_rows(store, across)}) WHERE {KEY} < {upto}"
    return whole + int(cursor.execute(query).fetchall()[0][0])


def _steps(
    added: list[SegmentRead], low: int, end: int, removed: list[SegmentRead] | None = None
) -> tuple[DeltaStep, ...]:
    """Divide segments where no seq range of one reaches over the next one's first."""
    groups = list(_disjoint(added, low))
    if not groups:
        return (DeltaStep((), end, tuple(removed or ()), low),)
    # What is below the watermark belongs with the removals: seq of both may be the same.
    if removed and groups[0][0].entry.seq[0] >= low:
        # Rows of one seq may be removed and added in the same step, never in two.
        groups.insert(0, [])
    starts = [min(step_part.entry.seq[0] for step_part in group) for group in groups[1:]]
    return tuple(
        DeltaStep(tuple(group), upto, () if n else tuple(removed or ()), low)
        for n, (group, upto) in enumerate(zip(groups, [*starts, end], strict=True))
    )


def _disjoint(overlapping: list[SegmentRead], low: int) -> Iterator[list[SegmentRead]]:
    group: list[SegmentRead] = []
    reach = low - 1
    for candidate in sorted(overlapping, key=lambda p: p.entry.seq[0]):
        if group and candidate.entry.seq[0] > reach:
            yield group
            group = []
        group.append(candidate)
        reach = max(reach, candidate.entry.seq[1])
    if group:
        yield group


def _rows(store: Store, segment_parts: tuple[SegmentRead, ...]) -> str:
    """SQL for the rows of segments, each verified before."""
    if not segment_parts:
        return NO_ROWS
    # Each is hashed before it is read for the first time: damage must not reach the target.
    store.verified.require([segment_part.entry for segment_part in segment_parts])
    whole = [segment_part.entry for segment_part in segment_parts if not segment_part.without]
    queries = [rows_sql(store.paths, whole)] if whole else []
    for segment_part in segment_parts:
        if segment_part.without:
            condition = " OR ".join(f"{KEY} BETWEEN {a} AND {b}" for a, b in segment_part.without)
            rows = rows_sql(store.paths, [segment_part.entry])
            queries.append(f"SELECT * FROM ({rows}) WHERE NOT ({condition})")
    keys = (segment_part.entry.key for segment_part in segment_parts)
    return sealed_blocks.opened_sql(store.paths, " UNION ALL ".join(queries), keys)


EMPTIED = "the table was emptied by somebody else"
EXTENDED = "a column was added"
SHORTENED = "a column was dropped by somebody else"


@dataclass(frozen=True)
class SyncStatus:
    """How far a table is behind its lake: events to add or remove, and seconds between the states.

    Both are None where the table is of another lake or branch. `note` says what is wrong with it,
    such as that the next sync has to fill it again, and why.
    """

    target: str
    table: str
    mode: str
    rows: int
    synced_at: int
    events_behind: int | None
    seconds_behind: float | None
    note: str = ""


def status_of(
    lake: Lake, address: str, table: str, mark: Watermark, shape: TableShape | None
) -> SyncStatus:
    """Compare a table with the lake as it is now, its unpublished events included."""
    events = seconds = None
    rows, note = mark.rows, ""
    # A table that lost its rows lacks all of them, whatever its watermark says.
    if is_emptied(mark, shape):
        rows, note = 0, EMPTIED if shape else "the table is gone"
    if (mark.lake_id, mark.branch) != (lake.store.lake_id, lake.branch_name):
        note = "the table is of another lake or branch"
    else:
        head = lake.store.head_since(lake.branch_name, mark.move)
        state = lake.store.manifests.of(head.move)
        with contextlib.closing(lake.engine().cursor()) as cursor:
            change = delta_between(lake.store, cursor, mark, state, head.move.generation)
            refused = from_quarantine(address, table)
            note = note or _refill_reason(lake, cursor, refused, mark, shape, change)
            lacking = sum(size(lake.store, cursor, step) for step in change.steps)
        if note:
            lacking = state.totals.events
        events = lacking + max(0, lake.count() - state.totals.events)
        is_same = mark.snapshot == lake.store.manifests.stored_as(state.digest) and not note
        age = max(0.0, (disk.now_us() - mark.state_time) / 1e6)
        seconds = 0.0 if is_same and not events else age
    return SyncStatus(address, table, mark.mode, rows, mark.synced_at, events, seconds, note)


def _refill_reason(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    refused: str,
    mark: Watermark,
    shape: TableShape | None,
    change: Delta,
) -> str:
    """Why the next sync of the same mapping has to fill a table again; nothing if it has not."""
    try:
        mapping = read_mapping(cursor, mark.mapping, mark.mode)
    except QueryFailed:  # of a sync that was cut off once it had added columns
        return EXTENDED
    if shape is not None and shape.lacking(mapping.columns):
        return SHORTENED
    is_lost = not change.clear and has_lost_refusals(
        lake, refused, mark, change, is_keyed=mapping.is_keyed
    )
    return REFUSED if is_lost else change.reason


def is_emptied(mark: Watermark, shape: TableShape | None) -> bool:
    """Whether somebody deleted all rows of a table behind the sync's back."""
    return mark.rows > 0 and (shape is None or (shape.is_empty and not shape.expires))
