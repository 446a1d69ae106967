"""Copying the events of a lake into tables of a database, incrementally and each exactly once.

One round settles the lake, reads the table's watermark, compares its state with the newest, and
takes the table there in transactions of about `batch_rows` rows, each with its watermark. A round
that is cut off at any point is continued by the next, which reads the watermark again; so a
connection that breaks during COMMIT needs no other answer. Afterwards the table is what the mapping
makes of the lake: rows of events that the lake lost by a rollback, retention or dedupe are removed
(`on_rewind="propagate"`), or the sync stops before it writes anything ("refuse").
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakelog.clients import backoff
from lakelog.clients.failure import ConnectionLost
from lakelog.engine import messages
from lakelog.errors import InvalidSetting, QueryFailed, SyncRefused, Unreachable
from lakelog.lake import Lake
from lakelog.runtime.lazy import Lazy
from lakelog.segments import sql
from lakelog.store import disk
from lakelog.store.manifest import Manifest
from lakelog.store.refs import Head
from lakelog.sync import delta
from lakelog.sync.delta import Delta, Step
from lakelog.sync.known import target_of
from lakelog.sync.mapping import NO_ROWS, read_mapping, set_events
from lakelog.sync.target import (
    KEY,
    REPLACE,
    WATERMARKS,
    Column,
    TableShape,
    Target,
    Watermark,
    WatermarkMoved,
)

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
else:
    pa = Lazy("pyarrow")
    duckdb = Lazy("duckdb")

MODES = ("upsert", "append", REPLACE)
ON_REWIND = ("propagate", "refuse")
_CHUNK_ROWS, _CHUNK_BYTES = 8_192, 64 << 20
"""Rows that are read at once, and bytes of them that are written at once, at most."""
RETRIES = 6
_REMOVED = "events were removed from the lake by a rollback, retention or dedupe"
_EMPTIED = "the table was emptied by somebody else"


@dataclass(frozen=True)
class SyncResult:
    """What a sync did to a table: rows written and deleted, in how many transactions.

    `total` counts the rows that are there now, `snapshot` is the state that they are of, and
    `is_rebuilt` says whether the table was emptied and filled again.
    """

    target: str
    table: str
    written: int
    deleted: int
    commits: int
    total: int
    snapshot: str
    is_rebuilt: bool


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


def sync(
    lake: Lake,
    target: str | Target,
    *,
    table: str | None = None,
    query: str | None = None,
    mode: str = "upsert",
    on_rewind: str = "propagate",
    batch_rows: int | None = None,
) -> SyncResult:
    """Bring a table of a database up to date with a lake, and return what that took.

    `target` is a URL such as `sqlite:PATH`; `table` is what it names, or `events`; `query` is SQL
    over `events` whose rows are events one by one. The table and new columns are created.
    `batch_rows` are the rows of a transaction, as many as the target likes by default. Raises
    InvalidSetting, QueryFailed, SyncRefused, Unreachable, MissingPackage; of the batch that failed
    nothing is written.
    """
    with contextlib.closing(
        Syncer(lake, target, table, query, mode=mode, on_rewind=on_rewind, batch_rows=batch_rows)
    ) as syncer:
        return syncer.run()


def status(lake: Lake, target: str | Target) -> list[SyncStatus]:
    """Return the tables of a target and how far each is behind. Raises as `sync` does."""
    to = target_of(target) if isinstance(target, str) else target
    if not to.exists():
        return []
    try:
        to.connect()
        shapes = [(table, mark, to.shape(table)) for table, mark in to.watermarks().items()]
    except ConnectionLost as error:
        raise Unreachable(str(error)) from None
    finally:
        to.close()
    return [_status(lake, to.address, *each) for each in shapes]


class Syncer:
    """Keeps one table up to date, round by round. One thread uses it."""

    def __init__(
        self,
        lake: Lake,
        target: str | Target,
        table: str | None = None,
        query: str | None = None,
        *,
        mode: str = "upsert",
        on_rewind: str = "propagate",
        batch_rows: int | None = None,
        retries: int = RETRIES,
        progress: Callable[[int], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Check what was asked; connects later. Raises InvalidSetting, QueryFailed.

        `progress` is called with the rows written so far, `say` with each retry.
        """
        for value, choices in ((mode, MODES), (on_rewind, ON_REWIND)):
            if value not in choices:
                raise InvalidSetting(f"{value!r} is not one of {', '.join(choices)}")
        self._target = target_of(target) if isinstance(target, str) else target
        table = self._target.table if table is None else table
        if not table.strip(". ") or table == WATERMARKS or "\0" in table:
            raise InvalidSetting(f"{table!r} cannot be the table of a sync: choose another name")
        batch_rows = self._target.batch_rows if batch_rows is None else batch_rows
        if batch_rows < 1:
            raise InvalidSetting("a batch has at least one row")
        self._lake, self._store = lake, lake.store
        self._table, self._mode, self._refuses = table, mode, on_rewind == "refuse"
        self._batch_rows, self._retries = batch_rows, retries
        self._progress, self._say = progress or (lambda rows: None), say or (lambda text: None)
        # Of its own: the mapping sees other `events` than the lake's queries do.
        self._cursor: duckdb.DuckDBPyConnection = lake.engine().cursor()
        self._mapping = read_mapping(self._cursor, query, mode)
        if mode == REPLACE and not self._target.can_replace:
            raise InvalidSetting(
                f"{self._target.address} cannot exchange all rows of a table at once: use another"
                " mode, or a database for the mode replace"
            )
        if mode == "upsert" and not self._mapping.is_keyed:
            raise QueryFailed(f"the mapping has no column {KEY}: add it, or use the mode append")
        self._is_connected = False
        self._written = self._deleted = self._commits = 0
        self._is_rebuilt = False

    def run(self, stop: threading.Event | None = None) -> SyncResult:
        """Bring the table up to the lake's newest state; ends between two batches if `stop` is set.

        Raises SyncRefused, QueryFailed, Unreachable, MissingPackage, Damaged.
        """
        self._written = self._deleted = self._commits = 0
        self._is_rebuilt = False
        head = self._lake.settle()
        attempt, commits = 0, 0
        while True:
            try:
                mark = self._round(head, stop or threading.Event())
                break
            except (ConnectionLost, WatermarkMoved) as error:
                self._disconnect()
                # Whoever gets on has not failed so many times in a row.
                attempt = 1 if self._commits > commits else attempt + 1
                commits = self._commits
                if attempt > self._retries or (stop is not None and stop.is_set()):
                    raise Unreachable(f"{error} (tried {attempt} times)") from None
                self._say(f"{error}; trying again")
                time.sleep(backoff.pause(attempt))
            except BaseException:
                self._target.rollback()
                raise
        return SyncResult(
            self._target.address,
            self._table,
            self._written,
            self._deleted,
            self._commits,
            mark.rows,
            mark.snapshot,
            self._is_rebuilt,
        )

    def close(self) -> None:
        """Close the connection."""
        self._disconnect()
        self._cursor.close()

    def _disconnect(self) -> None:
        self._target.close()
        self._is_connected = False

    def _round(self, head: Head, stop: threading.Event) -> Watermark:
        """Take the table from its watermark to a state."""
        if not self._is_connected:
            self._target.connect()
            self._is_connected = True
        self._target.recover(self._table)
        state = self._store.manifests.load(head.move.snapshot)
        mark = self._target.watermarks().get(self._table)
        shape = self._target.shape(self._table)
        create, extend = self._schema_changes(mark, shape)
        # A column that is added now has no values for the rows that are there.
        rebuilt = "a column was added" if extend and mark else ""
        if mark and _is_emptied(mark, shape):
            rebuilt = _EMPTIED
        mark = mark or Watermark(
            self._store.lake_id, self._lake.branch_name, self._mapping.query, self._mode
        )
        change = self._change(mark, state, head, rebuilt)
        mark = dataclasses.replace(
            mark,
            mapping=self._mapping.query,
            mode=self._mode,
            move=head.move.number,
            generation=head.move.generation,
            snapshot=state.digest,
            state_time=state.time,
        )
        entries = self._store.manifests.segments(state, "events")
        if change.reason:
            self._say(f"{change.reason}: all rows are written again")
        steps = list(change.steps)
        while steps:
            # A commit costs milliseconds, whatever it holds: small steps share one.
            group = [steps.pop(0)]
            while steps and sum(s.events for s in (*group, steps[0])) <= self._batch_rows:
                group.append(steps.pop(0))
            group = delta.joined(group)
            is_last = not steps
            self._target.begin(self._table, mark.version)
            if create:
                self._target.create(self._table, self._mapping.columns, self._mode == "upsert")
            elif extend:
                self._target.extend(self._table, extend)
            if change.clear:
                self._target.clear(self._table)
                mark = dataclasses.replace(mark, rows=0)
            deleted = sum(self._remove(step) for step in group)
            written = sum(self._add(step, self._written) for step in group)
            # With the rows, in one transaction: whoever reads it knows what is there.
            mark = dataclasses.replace(
                mark,
                upto=group[-1].upto,
                events=state.totals.events if is_last else -1,
                rows=mark.rows + written - deleted,
                version=mark.version + 1,
                synced_at=disk.now_us(),
                tip=delta.tip_of(self._store, self._cursor, entries) if is_last else "",
            )
            self._target.commit(self._table, mark)
            create, extend = False, ()
            self._commits += 1
            self._written, self._deleted = self._written + written, self._deleted + deleted
            self._is_rebuilt |= bool(change.reason)
            if stop.is_set():
                break
        return mark

    def _change(self, mark: Watermark, state: Manifest, head: Head, rebuilt: str) -> Delta:
        """What is to be done, as far as it is allowed; `rebuilt` is why the table is filled again
        whatever it lacks. Raises SyncRefused."""
        self._require_same_lake(mark)
        entries = self._store.manifests.segments(state, "events")
        is_kept = mark.mapping == self._mapping.query
        if mark.version and (not is_kept or (mark.mode == REPLACE) != (self._mode == REPLACE)):
            rebuilt = "the mapping is another one"
        has_lost = False
        if rebuilt:
            change = delta.everything(entries, state, rebuilt)
        else:
            generation = head.move.generation
            change = delta.compare(self._store, self._cursor, mark, state, generation)
            first = change.steps[0] if change.steps else None
            # Compaction alone may also differ; only rows that are gone change the table.
            has_lost = bool(first and first.removed) and self._has_removals(change.steps[0])
            if has_lost and self._refuses:
                raise self._refusal(_REMOVED)
            if has_lost and not self._mapping.is_keyed:
                change = delta.everything(entries, state, _REMOVED)
        if change.clear and self._refuses:
            raise self._refusal(change.reason)
        is_changed = has_lost or any(step.added for step in change.steps)
        if self._mode == REPLACE and not change.clear and is_changed:
            change = delta.everything(entries, state)
        return change

    def _refusal(self, reason: str) -> SyncRefused:
        return SyncRefused(
            f"{self._target.address}, table {self._table}: {reason} since the last sync: run it"
            " with --on-rewind propagate, which removes or rebuilds rows, or sync to another table"
        )

    def _require_same_lake(self, mark: Watermark) -> None:
        ours = self._store.lake_id, self._lake.branch_name
        if (mark.lake_id, mark.branch) != ours:
            what = "lake" if mark.lake_id != ours[0] else f"branch, {mark.branch}"
            raise SyncRefused(
                f"{self._target.address}: table {self._table} is synced from another {what}:"
                " choose another table with --table"
            )

    def _schema_changes(
        self, mark: Watermark | None, shape: TableShape | None
    ) -> tuple[bool, tuple[Column, ...]]:
        """Whether to create the table, and columns to add. Raises SyncRefused."""
        where = f"{self._target.address}, table {self._table}"
        if shape is None:
            if mark is not None:
                raise SyncRefused(
                    f"{where}: the table is gone: delete its row in {WATERMARKS} to rebuild it"
                )
            return True, ()
        if mark is None and not shape.is_empty:
            raise SyncRefused(
                f"{where}: it has rows that no sync wrote: empty it, or choose another with --table"
            )
        # Names are compared as SQL does it where a user created the table.
        declared = {name.lower(): kind for name, kind in shape.types.items()}
        for column in self._mapping.columns:
            given = declared.get(column.name.lower())
            wanted = given is not None and self._target.mismatch(column, given)
            if wanted:
                raise SyncRefused(
                    f"{where}: column {column.name} is {given}, where {wanted} is needed: change it"
                    " with ALTER TABLE, or cast the column in the mapping"
                )
        if self._mode == "upsert" and not shape.is_keyed:
            raise SyncRefused(
                f"{where}: {KEY} is not a unique key: add one, or use the mode append"
            )
        columns = () if shape.is_schemaless else self._mapping.columns
        added = (c for c in columns if c.name.lower() not in declared)
        return False, tuple(added)

    def _has_removals(self, step: Step) -> bool:
        query = f"SELECT 1 FROM ({delta.keys_sql(self._store, step)}) LIMIT 1"
        return bool(self._cursor.execute(query).fetchall())

    def _remove(self, step: Step) -> int:
        """Delete the rows of events that are gone; return how many."""
        if not step.removed or not self._mapping.is_keyed:
            return 0
        keys = self._batches(delta.keys_sql(self._store, step))
        return sum(self._target.delete(self._table, batch) for batch in keys)

    def _add(self, step: Step, before: int) -> int:
        """Write the mapped rows of a step; return how many."""
        if not step.added:
            return 0
        if self._mapping.is_several and self._mode == "upsert":
            self._require_one_row(step)
        written = 0
        for batch in self._batches(self._select(), delta.rows_sql(self._store, step)):
            if self._mapping.is_keyed and batch[KEY].null_count:
                raise QueryFailed(
                    f"the mapping has a row whose {KEY} is null: leave {KEY} as it is"
                )
            self._target.write(self._table, batch, self._mode == "upsert")
            written += batch.num_rows
            self._progress(before + written)
        return written

    def _require_one_row(self, step: Step) -> None:
        """Refuse a step in which an event has several rows. Raises QueryFailed."""
        query = f"SELECT {KEY} FROM ({self._mapping.query}\n) GROUP BY {KEY} HAVING count(*) > 1"
        rows = self._batches(f"{query} LIMIT 1", delta.rows_sql(self._store, step))
        for batch in rows:
            if batch.num_rows:
                raise QueryFailed(
                    f"the mapping makes several rows of one event ({KEY} {batch[KEY][0]}): use the"
                    " mode append"
                )

    def _select(self) -> str:
        """The mapping's rows as the target takes them."""
        listed = []
        for column in self._mapping.columns:
            name = sql.identifier(column.name)
            listed.append(f"{self._target.value_sql(column)} AS {name}")
        nested = [sql.identifier(name) for name in sorted(self._mapping.nested)]
        as_json = ", ".join(f"to_json({name}) AS {name}" for name in nested)
        source = f"SELECT * REPLACE ({as_json})" if nested else "SELECT *"
        return f"SELECT {', '.join(listed)} FROM ({source} FROM ({self._mapping.query}\n))"

    def _batches(self, query: str, events: str = NO_ROWS) -> Iterator[pa.Table]:
        """Yield the rows of a query, so many at a time as a batch has; `events` are those rows."""
        # A cursor of its own: one with an unfinished result runs nothing else.
        cursor = self._lake.engine().cursor()
        try:
            set_events(cursor, events)
            reader = cursor.sql(query).to_arrow_reader(_CHUNK_ROWS)
            tables = _gathered(reader, min(self._batch_rows, self._target.write_rows))
            # The next rows are read and mapped while the target writes these.
            with ThreadPoolExecutor(1, "lakelog-sync") as pool:
                ahead = pool.submit(next, tables, None)
                while (rows := ahead.result()) is not None:
                    ahead = pool.submit(next, tables, None)
                    yield rows
        # Arrow raises OSError for what the engine says while it reads on.
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise QueryFailed(f"the mapping: {messages.gist(str(error))}") from None
        finally:
            cursor.close()


def _gathered(reader: pa.RecordBatchReader, rows: int) -> Iterator[pa.Table]:
    """Yield what a reader has as tables of so many rows, or fewer where they are large."""
    waiting: list[pa.RecordBatch] = []
    count = size = 0
    for batch in reader:
        waiting.append(batch)
        count, size = count + batch.num_rows, size + batch.nbytes
        while count >= rows or size >= _CHUNK_BYTES:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, rows)
            waiting = table.slice(rows).to_batches()
            count, size = max(0, count - rows), sum(rest.nbytes for rest in waiting)
    if waiting:
        yield pa.Table.from_batches(waiting)


def _status(
    lake: Lake, address: str, table: str, mark: Watermark, shape: TableShape | None
) -> SyncStatus:
    """Compare a table with the lake as it is now, its unpublished events included."""
    events = seconds = None
    rows, note = mark.rows, ""
    if _is_emptied(mark, shape):
        rows, note = 0, _EMPTIED if shape else "the table is gone"
    if (mark.lake_id, mark.branch) != (lake.store.lake_id, lake.branch_name):
        note = "the table is of another lake or branch"
    else:
        head = lake.store.refs.head(lake.branch_name)
        state = lake.store.manifests.load(head.move.snapshot)
        with contextlib.closing(lake.engine().cursor()) as cursor:
            change = delta.compare(lake.store, cursor, mark, state, head.move.generation)
            lacking = sum(delta.size(lake.store, cursor, step) for step in change.steps)
        if note:
            lacking = state.totals.events
        events = lacking + max(0, lake.count() - state.totals.events)
        note = note or change.reason
        is_same = mark.snapshot == state.digest and not note
        behind = max(0.0, (disk.now_us() - mark.state_time) / 1e6)
        seconds = 0.0 if is_same and not events else behind
    return SyncStatus(address, table, mark.mode, rows, mark.synced_at, events, seconds, note)


def _is_emptied(mark: Watermark, shape: TableShape | None) -> bool:
    """Whether somebody deleted all rows of a table behind the sync's back."""
    return mark.rows > 0 and (shape is None or (shape.is_empty and not shape.expires))
