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
from collections.abc import Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass

from lakelog import ranks
from lakelog.errors import Damaged, DamagedSegment, StaleFiles
from lakelog.libraries import duckdb, np, pa, pc
from lakelog.maintain.payloads import PayloadStorage, SegmentRows, read_segment
from lakelog.moves import Change, publish
from lakelog.runtime.progress import ProgressCallback
from lakelog.segments import arrays, bloom, field_ids, segment, segment_sql, typed, word_indexing
from lakelog.segments.connection import connect
from lakelog.settings import Settings
from lakelog.store import disk
from lakelog.store.bootstrap import Store
from lakelog.store.entry import Entry, Record, SegmentEntry, tombstone
from lakelog.store.manifest import Manifest
from lakelog.store.ref import Head

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
_ROW_GROUP_BYTES = 32_000_000
CLUSTER, _TARGETS = 16_384, 4
"""Where subjects are common, segments have so many times the usual rows, for each that is opened
takes as long as thousands of rows; and rows of a cluster, as of a page then, are so many. Of twice
as many targets a subject is read a third faster, and a few minutes of all events half as fast. With
half as many rows a cluster, a segment is 4 % larger, and a subject is read a quarter faster."""


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
    target = segment.rows_target(settings, sum(e.events for e in entries))
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
    return [part for part in groups if _is_worth_it(part)]


def is_due(entries: list[SegmentEntry], settings: Settings) -> bool:
    """Whether enough small segments have accumulated for a run in the background."""
    return sum(len(group) for group in choose(entries, settings)) >= DUE


def _is_worth_it(group: list[SegmentEntry]) -> bool:
    # One alone is worth it where its rows still lie in the order of arrival.
    return len(group) > 1 or bool(group and group[0].layout == "arrival")


def compact(
    store: Store, branch: str, progress: ProgressCallback | None = None, level: int = LEVEL
) -> Compaction:
    """Merge the groups of `choose`. One that cannot be read does not stop the others: the first
    DamagedSegment is raised at the end. Raises OSError at once.

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
            merging = _Merging(store, branch, engine, encoding, level)
            return _merge_all(store, branch, merging, progress)


def _merge_all(
    store: Store, branch: str, merging: _Merging, progress: ProgressCallback | None
) -> Compaction:
    failures, is_unfinished = list[Damaged](), True
    while is_unfinished:
        # Read anew in each round: what was published meanwhile may be merged, too.
        head = store.refs.head(branch)
        entries = store.manifests.segments(store.manifests.of(head.move))
        groups = choose(entries, store.settings, _targets(store, entries))
        # Groups cut short by the number of files leave some that can be merged once more.
        is_unfinished = not failures and any(len(group) == FILES_MAX for group in groups)
        groups += merging.begin(head, entries, groups)
        for index, group in enumerate(groups):
            try:
                merging.add(group)
            except Damaged as error:
                failures.append(error)
                # Those before it are published.
                merging.end()
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


def _targets(store: Store, entries: list[SegmentEntry]) -> int:
    """Return how many times the usual rows a segment is to have, by the subjects of a large one."""
    events = [entry for entry in entries if entry.kind == "events" and entry.subject]
    if not events:
        return 1
    largest = max(events, key=lambda entry: entry.events)
    with contextlib.suppress(DamagedSegment):  # which is told when it is merged
        table, _ = read_segment(
            store, largest, lambda paths, key: segment.read_stored(paths, key, ["subject"])
        )
        return _TARGETS if has_common_subjects(table) else 1
    return 1


class _Merging:
    """Merges group after group: one is encoded by a thread, and written and published once the next
    has been read and converted."""

    def __init__(
        self,
        store: Store,
        branch: str,
        engine: duckdb.DuckDBPyConnection,
        encoding: Executor,
        level: int,
    ) -> None:
        self._store, self._branch, self._encoding, self._level = store, branch, encoding, level
        self._payloads = PayloadStorage(store, engine)
        self._pending: _SortedSegment | None = None
        self.total = Compaction()

    def begin(
        self, head: Head, entries: list[SegmentEntry], groups: list[list[SegmentEntry]]
    ) -> list[list[SegmentEntry]]:
        """Go on with groups of these segments of the branch; return what else is to be written."""
        self._head, self._useful = head, True
        # Segments beside each other share the layout of their payloads.
        self._payloads.neighbours = [entry for entry in entries if entry.fields]
        if self._level <= LEVEL:
            return []
        grouped_keys = {entry.key for group in groups for entry in group}
        neighbours = (e for e in entries if e.layout == "sorted" and e.key not in grouped_keys)
        return [[entry] for entry in neighbours if self._is_larger(entry)]

    def _is_larger(self, entry: SegmentEntry) -> bool:
        """Whether a segment was written at a lower level."""
        try:
            notes = segment.metadata(self._store.paths, entry.key)
        except (FileNotFoundError, pa.ArrowException):
            return True  # what is damaged is found, and said, as that of any group
        level = notes.get("zstd", "")
        return not (level.isdecimal() and int(level) >= self._level)

    def add(self, group: list[SegmentEntry]) -> None:
        """Merge one group, in as many steps as its rows need. Raises DamagedSegment, OSError."""
        store = self._store
        # First of all: a footer that is damaged could give any weight, and rows that nobody wrote.
        check(store, group)
        weights = [_weight(store, entry) for entry in group]
        limit = store.settings.task_memory // _SHARE
        shares = portions(group, weights, limit)
        if len(group) == 1 and weights[0] <= limit:
            shares = [group]  # also if it is sorted, where it was chosen to be written anew
        # Nothing that fits the memory: another round would find the same.
        self._useful = self._useful and bool(shares)
        for share in shares:
            rows = self._payloads.rows(share)
            merged = _sorted_segment(rows, share, self._level, self._payloads, self._encoding)
            # While this one is encoded, the one before is written.
            self._publish()
            self._pending = merged

    def end(self) -> bool:
        """Publish what is left; return whether every group was merged."""
        self._publish()
        return self._useful

    def _publish(self) -> None:
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        group, output = pending.group, pending.put(self._store)
        # Otherwise the output is garbage, which gc collects.
        if _swap(self._store, self._branch, self._head, group, [output]):
            size = sum(e.bytes for e in group)
            self.total = _sum(self.total, Compaction(len(group), 1, size, output.bytes))
            for drop in (bloom.drop, ranks.drop):
                drop(self._store.paths, (entry.key for entry in group))
        else:
            self._useful = False


def _sum(before: Compaction, added: Compaction) -> Compaction:
    pairs = zip(dataclasses.astuple(before), dataclasses.astuple(added), strict=True)
    return Compaction(*(a + b for a, b in pairs))


def _weight(store: Store, entry: SegmentEntry) -> int:
    """Estimate how many bytes the rows of a segment take in memory. Raises DamagedSegment."""
    size = read_segment(store, entry, segment.uncompressed)
    return int(size + entry.events * _ROW)


@dataclass(frozen=True)
class _SortedSegment:
    """A sorted segment of the rows of `group`, which a thread may still be encoding."""

    group: list[SegmentEntry]
    table: pa.Table
    fields: str
    texts: int
    data: Future[bytes]
    words: word_indexing.WordIndexer

    def put(self, store: Store) -> SegmentEntry:
        """Wait for the bytes and write them durably; return the entry."""
        entry = segment.put(store.paths, self.data.result(), self.table, "events", "sorted")
        # Now, while it is known what the rows have: an index made later reads them again.
        self.words.finish(store.paths, entry.key)
        store.verified.add(entry.key, store.paths.object("segments", entry.key))
        # The span of the inputs: rows that were removed leave holes, and keep others their numbers.
        span = min(e.seq[0] for e in self.group), max(e.seq[1] for e in self.group)
        made_from = tuple(e.key for e in self.group)
        return dataclasses.replace(
            entry,
            seq=span,
            made_from=made_from,
            fields=self.fields,
            texts=self.texts,
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
    step = _row_group(table)
    cluster = CLUSTER if has_common_subjects(table) else None
    order = sort_order(table, step, cluster)
    fields = payloads.choose(rows, group, order)
    commit, encodings = disk.random_hex(), segment.text_encodings(table, order)
    encoder = segment.SegmentEncoder(
        "events", "sorted", commit, level, fields, encodings, page_rows=cluster
    )
    encoder.blocks |= blocks
    words = word_indexing.WordIndexer(payloads.engine)
    text_count, future, size = 0, None, rows.text_bytes
    # A row group at a time: a sorted copy of the whole table would double the memory.
    for start in range(0, len(order), step):
        batch = table.take(order[start : start + step])
        words.add(batch, rows.schema)
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

    return _SortedSegment(group, table, key, text_count, encoding.submit(finish), words)


def _row_group(table: pa.Table) -> int:
    """Return the rows of a row group: fewer where they are long, as there are several copies."""
    fitting = int(_ROW_GROUP_BYTES * len(table) // max(table.nbytes, 1))
    return max(1, min(segment.ROW_GROUP, fitting))


def has_common_subjects(table: pa.Table) -> bool:
    """Whether most rows have a subject that several have, so that they gain by clusters."""
    subjects = table["subject"]
    count, distinct = len(subjects) - subjects.null_count, pc.count_distinct(subjects).as_py()
    return bool(count * 2 > len(subjects) and distinct * 2 < count)


def sort_order(table: pa.Table, step: int, cluster: int | None = None) -> pa.Array:
    """Return the order of rows by type, time and seq, cut into row groups of `step`, of which each
    is by type and seq; or that by subject and seq, cut into clusters, of which each is so as well.

    Statistics of row groups so say most about times. Within one, what came together stays together:
    neighbours of one origin compress better than neighbours in time.
    """
    type_rank, places = _ranks(table["type"]), np.arange(len(table))
    time, seq = (arrays.numbers(table[name].cast("int64")) for name in ("time", "seq"))
    group = np.zeros(len(seq), dtype=np.int64)
    if cluster is not None:
        # By subject over all: then statistics of row groups say most about subjects.
        group[np.lexsort((seq, _ranks(table["subject"])))] = places // cluster
    elif len(seq) > step:
        group[np.lexsort((seq, time, type_rank))] = places // step
    return arrays.integers(np.lexsort((seq, type_rank, group)))


def _ranks(texts: pa.ChunkedArray) -> np.ndarray:
    """Return the place of each text among the distinct ones, by their bytes; that of null is last.
    Sorting numbers is many times faster than comparing texts."""
    distinct = pc.unique(texts)
    ranks = np.empty(len(distinct), dtype=np.int32)
    ranks[arrays.numbers(pc.sort_indices(distinct))] = np.arange(len(distinct), dtype=np.int32)
    numbers: np.ndarray = ranks[arrays.numbers(pc.index_in(texts, distinct).cast("int64"))]
    return numbers


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
    check(store, group)
    cursor = connection.cursor()
    try:
        for name, table in (tables or {}).items():
            cursor.register(name, table)
        source = segment_sql.rows_sql(store.paths, group)
        rows = cursor.sql(f"SELECT * FROM ({source}) WHERE {condition}").to_arrow_table()
    finally:
        cursor.close()
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


def check(store: Store, group: list[SegmentEntry]) -> None:
    """Verify segments before their rows are rewritten: a flipped bit would get a valid digest.

    Raises DamagedSegment.
    """
    for entry in group:
        path = store.paths.object("segments", entry.key)
        try:
            intact = store.verified.is_intact(entry.key, path)
        except FileNotFoundError:
            raise DamagedSegment(path, "the segment is missing") from None
        if not intact:
            raise DamagedSegment(path, "the content does not match its name")


def number_entries(store: Store, state: Manifest, outputs: Iterable[SegmentEntry]) -> list[Record]:
    """Return the entries that record numbers of the members of sorted segments which a state
    lacks; none for a member whose number the state has for another one (F6.25)."""
    typed_entries = {entry.fields: entry for entry in outputs if entry.fields}
    schemas = [typed.of_entry(store.paths, entry) for entry in typed_entries.values()]
    if not schemas:
        return []
    known = {entry.key: entry.members["id"] for entry in store.manifests.records(state, "field")}
    numbers, entries = set(known.values()), list[Record]()
    members = (field_ids.members(schema).values() for schema in schemas)
    # A number that another member has would mean two fields.
    for key, number in itertools.chain.from_iterable(members):
        if key not in known and number not in numbers:
            known[key] = number
            numbers.add(number)
            entries.append(Record("field", key, {"id": number}))
    return entries


def _swap(
    store: Store, branch: str, base: Head, group: list[SegmentEntry], outputs: list[SegmentEntry]
) -> bool:
    """Publish the exchange if every input is still there and no rewind came."""
    keys = {e.key for e in group}

    def plan(head: Head, state: Manifest) -> Change | None:
        # After a rewind the numbers of the rows may be those of other events.
        if head.move.generation != base.move.generation:
            return None
        # One was compacted, expired or removed meanwhile: its rows must not come back.
        present = {e.key for e in store.manifests.segments(state)}
        if not keys <= present:
            return None
        numbers = number_entries(store, state, outputs)
        entries: tuple[Entry, ...] = (*map(tombstone, group), *outputs, *numbers)
        return Change("compact", entries=entries, message=f"{len(group)} segments into one")

    try:
        return publish(store, branch, plan) is not None
    except StaleFiles:
        return False
