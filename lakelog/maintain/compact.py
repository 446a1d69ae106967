"""Compaction: small neighbours become one segment, sorted by type and time, at zstd 10. Where
subjects have several rows, those of one stand together, so that reading them opens one page.

Reading gets cheaper and the lake smaller; no event changes. The policy is pure (`choose`,
`portions`). Each group is one publish {remove inputs, add output}; if an input is gone or the
branch was rewound meanwhile, the output is left to gc. A step takes at most FILES_MAX files and
as many bytes of rows, uncompressed, as the memory setting allows; rows are merged as Arrow tables,
since a vector of DuckDB 2.0 has 2,048 rows, which are gigabytes where an event is a megabyte.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass

from lakelog import bloom, ranks, typed_columns, word_indexes
from lakelog.database import connect
from lakelog.disk import disk
from lakelog.entries import Entry, Record, SegmentEntry
from lakelog.errors import Damaged, StaleFiles
from lakelog.libraries import duckdb, pa
from lakelog.maintain import row_order
from lakelog.maintain.payloads import PayloadStorage, SegmentRows, read_segment
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.refs import Head
from lakelog.runtime.progress import ProgressCallback
from lakelog.segments import (
    Segment,
    SegmentEncoder,
    put_segment,
    rows_sql,
    rows_target,
    text_encodings,
)
from lakelog.settings import Settings
from lakelog.store import Store
from lakelog.workers import WorkerPool

# Written once and read often, so it may take its time.
LEVEL = 10
SMALLEST = 19
"""The level for what is kept and hardly read again: several times the time for a tenth of the
space."""
FILES_MAX = 256
"""Segments that one step merges at most, so that a step ends whatever it meets."""
DUE = 64
"""This many segments that could be merged start a run in the background."""
_SHARE, _ROW = 8, 256
"""Rows may take this part of the memory in the settings, as sorting and encoding copy them; a row
takes this many bytes besides its long texts."""


@dataclass(frozen=True)
class Compaction:
    """What one run did: segments read and written, and their bytes."""

    removed: int = 0
    added: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


def choose(
    entries: list[SegmentEntry], settings: Settings, targets: int = 1
) -> list[list[SegmentEntry]]:
    """Return groups of neighbours to merge, each within the target size, or so many times that;
    full sorted segments stay."""
    groups: list[list[SegmentEntry]] = []
    current: list[SegmentEntry] = []
    rows = size = 0
    # By all events: larger lakes have larger segments, so that their number stays small.
    target = rows_target(settings, sum(e.events for e in entries))
    target = min(target * targets, settings.segment_rows)
    # Neighbours in seq, so that the seq ranges of live segments never overlap (F10.2).
    ordered = sorted((e for e in entries if e.kind == "events"), key=lambda e: e.seq)
    for entry in ordered:
        fits = rows + entry.events <= target and len(current) < FILES_MAX
        if current and not (fits and size + entry.bytes <= settings.segment_bytes):
            groups.append(current)
            current, rows, size = [], 0, 0
        current.append(entry)
        rows, size = rows + entry.events, size + entry.bytes
    groups.append(current)
    return [group for group in groups if _is_worth_it(group)]


def portions(group: list[SegmentEntry], weights: list[int], limit: int) -> list[list[SegmentEntry]]:
    """Cut a group into parts of at most `limit` bytes of rows; what is longer alone is left out."""
    groups: list[list[SegmentEntry]] = [[]]
    size = 0
    for entry, weight in zip(group, weights, strict=True):
        if size + weight > limit:
            groups.append([])
            size = 0
        if weight <= limit:
            groups[-1].append(entry)
            size += weight
    return [group for group in groups if _is_worth_it(group)]


def is_due(entries: list[SegmentEntry], settings: Settings) -> bool:
    """Whether enough small segments have accumulated for a run in the background."""
    return sum(len(group) for group in choose(entries, settings)) >= DUE


def _is_worth_it(group: list[SegmentEntry]) -> bool:
    # One alone is worth it where its rows still lie in the order of arrival.
    return len(group) > 1 or bool(group and group[0].layout == "arrival")


def compact(
    store: Store,
    branch: str,
    progress: ProgressCallback | None = None,
    level: int = LEVEL,
    pool: WorkerPool | None = None,
) -> Compaction:
    """Merge the groups of `choose`, by workers if there are some. One that cannot be read does not
    stop the others: the first DamagedSegment is raised at the end. Raises OSError at once.

    At a higher `level` of zstd, up to SMALLEST, sorted segments of lower ones are rewritten too.
    """
    # Two compactors at once would be correct: the second finds its inputs gone, after all the work.
    with store.alone("compact") as is_alone:
        if not is_alone:
            return Compaction()
        with (
            contextlib.closing(connect(store.paths, store.settings)) as engine,
            ThreadPoolExecutor(1, "encode") as encoding,
        ):
            merging = _Merging(store, branch, engine, encoding, level, pool)
            return _merge_all(store, branch, merging, progress)


def _merge_all(
    store: Store, branch: str, merging: _Merging, progress: ProgressCallback | None
) -> Compaction:
    failures, is_unfinished = list[Damaged](), True
    while is_unfinished:
        # Read anew in each round: what was published meanwhile may be merged, too.
        head = store.refs.head(branch)
        entries = store.manifests.segments(store.manifests.of(head.move))
        groups = choose(entries, store.settings, row_order.targets(store, entries))
        # Groups cut short by the number of files leave some that can be merged once more.
        is_unfinished = not failures and any(len(group) == FILES_MAX for group in groups)
        groups += merging.larger(entries, groups)
        merging.begin(head, entries)
        for index, failure in enumerate(merging.add(groups)):
            if failure:
                failures.append(failure)
            # The group is published with the next one; those before it are.
            if progress and index:
                progress(index, len(groups))
        is_unfinished = merging.end() and is_unfinished
        if progress and groups:
            progress(len(groups), len(groups))
    if failures:
        # All others are merged: the damage is told at the end.
        raise failures[0]
    return merging.total


class _Merging:
    """Merges group after group: one is encoded by a thread, and written and published once the next
    has been read and converted. Workers write theirs, which are published here."""

    def __init__(
        self,
        store: Store,
        branch: str,
        engine: duckdb.DuckDBPyConnection,
        encoding: Executor,
        level: int,
        pool: WorkerPool | None = None,
    ) -> None:
        self._store, self._branch, self._encoding, self._level = store, branch, encoding, level
        self._payloads, self._pool = PayloadStorage(store, engine), pool
        self._pending: _SortedSegment | None = None
        self.total = Compaction()

    def begin(
        self,
        head: Head | None,
        entries: list[SegmentEntry],
        learnt: typed_columns.PayloadTyping.Learnt | None = None,
    ) -> None:
        """Go on with groups of these segments of the branch, which has this head."""
        self._head, self._useful = head, True
        self._payloads.typing.learnt = learnt or self._payloads.typing.learnt
        # Segments beside each other share the layout of their payloads.
        self._payloads.neighbours = [entry for entry in entries if entry.fields]

    def larger(
        self, entries: list[SegmentEntry], groups: list[list[SegmentEntry]]
    ) -> list[list[SegmentEntry]]:
        """Return groups of what else is to be written."""
        if self._level <= LEVEL:
            return []
        grouped_keys = {entry.key for group in groups for entry in group}
        neighbours = [e for e in entries if e.layout == "sorted" and e.key not in grouped_keys]
        paths = self._store.paths
        self._store.verified.obtain([(e.key, paths.object("segments", e.key)) for e in neighbours])
        return [[entry] for entry in neighbours if self._is_larger(entry)]

    def _is_larger(self, entry: SegmentEntry) -> bool:
        """Whether a segment was written at a lower level."""
        try:
            notes = Segment(self._store.paths, entry.key).metadata()
        except (FileNotFoundError, pa.ArrowException):
            return True  # what is damaged is found, and said, as that of any group
        level = notes.get("zstd", "")
        return not (level.isdecimal() and int(level) >= self._level)

    def add(self, groups: list[list[SegmentEntry]]) -> Iterator[Damaged | None]:
        """Merge groups; yield of each what of it is damaged. Raises OSError, Unreachable."""
        # The first one teaches how payloads are stored: so those of workers are stored alike.
        own_count = len(groups) if self._pool is None else 1
        for group in groups[:own_count]:
            try:
                for sorted_segment in self.merged(group):
                    # While this one is encoded, the one before is written.
                    self.end()
                    self._pending = sorted_segment
            except Damaged as error:
                self.end()  # those before it
                yield error
            else:
                yield None
        if self._pool is not None:
            self.end()
            yield from self._add_merged(self._pool, groups[own_count:])

    def _add_merged(
        self, pool: WorkerPool, groups: list[list[SegmentEntry]]
    ) -> Iterator[Damaged | None]:
        options = self._store.paths.root, self._payloads.typing.learnt, self._level
        tasks = ((*options, group, self._beside(group)) for group in groups)
        for outcome in pool.results(_merge_group, tasks):
            for group, output in () if isinstance(outcome, Damaged) else outcome:
                self._publish(group, output)
            self._useful = self._useful and bool(outcome)
            yield outcome if isinstance(outcome, Damaged) else None

    def _beside(self, group: list[SegmentEntry]) -> list[SegmentEntry]:
        """Return those neighbours that may be nearest to a segment of a group."""
        begin, end = group[0].seq[0], group[-1].seq[0]
        neighbours = self._payloads.neighbours
        before = max((e.seq[0] for e in neighbours if e.seq[0] < begin), default=begin)
        after = min((e.seq[0] for e in neighbours if e.seq[0] > end), default=end)
        return [e for e in neighbours if before <= e.seq[0] <= after]

    def merged(self, group: list[SegmentEntry]) -> Iterator[_SortedSegment]:
        """Merge one group, in as many steps as its rows need. Raises DamagedSegment, OSError."""
        store = self._store
        # First of all: a footer that is damaged could give any weight, and rows that nobody wrote.
        store.verified.require(group)
        weights = [_weight(store, entry) for entry in group]
        limit = store.settings.task_memory // _SHARE
        shares = portions(group, weights, limit)
        if len(group) == 1 and weights[0] <= limit:
            shares = [group]  # also if it is sorted, where it was chosen to be written anew
        # Nothing that fits the memory: another round would find the same.
        self._useful = self._useful and bool(shares)
        for share in shares:
            rows = self._payloads.rows(share)
            yield _sorted_segment(rows, share, self._level, self._payloads, self._encoding)

    def end(self) -> bool:
        """Publish what is left; return whether every group was merged."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._publish(pending.group, pending.put(self._store))
        return self._useful

    def _publish(self, group: list[SegmentEntry], output: SegmentEntry) -> None:
        # Otherwise the output is garbage, which gc collects.
        if _swap(self._store, self._branch, self._head, group, [output]):
            size = sum(e.bytes for e in group)
            self.total = _sum(self.total, Compaction(len(group), 1, size, output.bytes))
            for drop in (bloom.drop, ranks.drop):
                drop(self._store.paths, (entry.key for entry in group))
        else:
            self._useful = False


def _merge_group(
    root: str,
    learnt: typed_columns.PayloadTyping.Learnt,
    level: int,
    group: list[SegmentEntry],
    neighbours: list[SegmentEntry],
) -> list[tuple[list[SegmentEntry], SegmentEntry]] | Damaged:
    """Merge a group in a process that does tasks; return which segments became which."""
    store = Store.load(root).for_task()
    with (
        contextlib.closing(connect(store.paths, store.settings)) as engine,
        ThreadPoolExecutor(1, "encode") as encoding,
    ):
        merging = _Merging(store, "", engine, encoding, level)
        merging.begin(None, neighbours, learnt)
        try:
            return [(s.group, s.put(store)) for s in merging.merged(group)]
        except Damaged as error:
            return error


def _sum(before: Compaction, added: Compaction) -> Compaction:
    pairs = zip(dataclasses.astuple(before), dataclasses.astuple(added), strict=True)
    return Compaction(*(a + b for a, b in pairs))


def _weight(store: Store, entry: SegmentEntry) -> int:
    """Estimate how many bytes the rows of a segment take in memory. Raises DamagedSegment."""
    size = read_segment(store, entry, Segment.uncompressed)
    return int(size + entry.events * _ROW)


@dataclass(frozen=True)
class _SortedSegment:
    """A sorted segment of the rows of `group`, which a thread may still be encoding."""

    group: list[SegmentEntry]
    table: pa.Table
    fields: str
    text_rows: int
    data: Future[bytes]
    word_indexer: word_indexes.WordIndexer

    def put(self, store: Store) -> SegmentEntry:
        """Wait for the bytes and write them durably; return the entry."""
        entry = put_segment(store.paths, self.data.result(), self.table, "events", "sorted")
        # Now, while it is known what the rows have: an index made later reads them again.
        self.word_indexer.finish(store.paths, entry.key)
        store.verified.add(entry.key, store.paths.object("segments", entry.key))
        # The span of the inputs: rows that were removed leave holes, and keep others their numbers.
        span = min(e.seq[0] for e in self.group), max(e.seq[1] for e in self.group)
        made_from = tuple(e.key for e in self.group)
        return dataclasses.replace(
            entry,
            seq=span,
            made_from=made_from,
            fields=self.fields,
            text_rows=self.text_rows,
            has_numbers=True,
        )


def _sorted_segment(
    rows: SegmentRows,
    group: list[SegmentEntry],
    level: int,
    payloads: PayloadStorage,
    encoding: Executor,
) -> _SortedSegment:
    """Make one sorted segment of the rows of a group, typed where that fits them. All but the
    encoding is done at once."""
    rows, blocks = payloads.protected(rows, group)
    table = rows.table
    step = row_order.row_group(table)
    cluster = row_order.CLUSTER if row_order.has_common_subjects(table) else None
    order = row_order.sort_order(table, step, cluster)
    fields = payloads.choose(rows, group, order)
    commit, encodings = disk.random_hex(), text_encodings(table, order)
    encoder = SegmentEncoder(
        "events", "sorted", commit, level, fields, encodings, page_rows=cluster
    )
    encoder.blocks |= blocks
    word_indexer = word_indexes.WordIndexer(payloads.engine)
    text_count, future, size = 0, None, rows.text_bytes
    # A row group at a time: a sorted copy of the whole table would double the memory.
    for start in range(0, len(order), step):
        batch = table.take(order[start : start + step])
        word_indexer.add(batch, rows.schema)
        batch, added_bytes = payloads.convert(fields, batch, rows.schema)
        size += added_bytes
        text_count += len(batch) - batch["data"].null_count if fields else 0
        # One row group in hand at a time bounds the memory.
        if future:
            future.result()
        future, size = encoding.submit(encoder.add, batch, size), 0
    key = fields.schema.key if fields else ""

    def finish() -> bytes:
        # One thread encodes, in order: what went wrong in the last row group is raised here.
        if future:
            future.result()
        return encoder.finish()

    return _SortedSegment(group, table, key, text_count, encoding.submit(finish), word_indexer)


def rewrite(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    group: list[SegmentEntry],
    condition: str,
    level: int,
    tables: dict[str, object] | None = None,
) -> SegmentEntry:
    """Write the rows of `group` for which the SQL condition holds, with seq, sorted; `tables` are
    Arrow tables that it names."""
    store.verified.require(group)
    with connection.cursor() as cursor:
        for name, table in (tables or {}).items():
            cursor.register(name, table)
        source = rows_sql(store.paths, group)
        rows = cursor.sql(f"SELECT * FROM ({source}) WHERE {condition}").to_arrow_table()
    return write_sorted(store, connection, rows, group, level)


def write_sorted(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    rows: pa.Table,
    group: list[SegmentEntry],
    level: int,
) -> SegmentEntry:
    """Write rows of `group` with seq, in any order, as a sorted segment."""
    # The same thread would do, but `put` waits for a future.
    with ThreadPoolExecutor(1) as encoding:
        payloads = PayloadStorage(store, connection)
        return _sorted_segment(SegmentRows(rows), group, level, payloads, encoding).put(store)


def number_entries(store: Store, state: Manifest, outputs: Iterable[SegmentEntry]) -> list[Record]:
    """Return the entries that record numbers of the members of sorted segments which a state
    lacks; none for a member whose number the state has for another one (F6.25)."""
    typed_entries = {entry.fields: entry for entry in outputs if entry.fields}
    schemas = [
        typed_columns.Schema.of_entry(store.paths, entry) for entry in typed_entries.values()
    ]
    if not schemas:
        return []
    known_numbers = {e.key: e.members["id"] for e in store.manifests.records(state, "field")}
    numbers, entries = set(known_numbers.values()), list[Record]()
    members = (typed_columns.member_numbers(schema).values() for schema in schemas)
    # A number that another member has would mean two fields.
    for key, number in itertools.chain.from_iterable(members):
        if key not in known_numbers and number not in numbers:
            known_numbers[key] = number
            numbers.add(number)
            entries.append(Record("field", key, {"id": number}))
    return entries


def _swap(
    store: Store,
    branch: str,
    base: Head | None,
    group: list[SegmentEntry],
    outputs: list[SegmentEntry],
) -> bool:
    """Publish the exchange if every input is still there and no rewind came."""
    keys = {e.key for e in group}

    def plan(head: Head, state: Manifest) -> Change | None:
        # After a rewind the numbers of the rows may be those of other events.
        if base is None or head.move.generation != base.move.generation:
            return None
        # One was compacted, expired or removed meanwhile: its rows must not come back.
        present = {e.key for e in store.manifests.segments(state)}
        if not keys <= present:
            return None
        numbers = number_entries(store, state, outputs)
        entries: tuple[Entry, ...] = (*(entry.tombstone() for entry in group), *outputs, *numbers)
        return Change("compact", entries=entries, message=f"{len(group)} segments into one")

    try:
        return publish(store, branch, plan) is not None
    except StaleFiles:
        return False
