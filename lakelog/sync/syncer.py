"""Keeps one table of a database up to date with a lake, round by round."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lakelog import clients
from lakelog.clients import Attempts, ConnectionLost
from lakelog.disk import disk
from lakelog.erased import copies
from lakelog.errors import InvalidSetting, QueryFailed, SyncRefused, Unreachable
from lakelog.lake import Lake
from lakelog.libraries import duckdb
from lakelog.manifest import Manifest
from lakelog.refs import Head
from lakelog.sync import delta
from lakelog.sync.delta import EMPTIED, Delta, DeltaStep, is_emptied
from lakelog.sync.mapping import read_mapping
from lakelog.sync.plan import target_of
from lakelog.sync.rows import ON_ERROR, RowReader, RowWriter, from_quarantine
from lakelog.sync.target import (
    KEY,
    REPLACE,
    WATERMARKS,
    SyncTarget,
    TableShape,
    TargetColumn,
    Watermark,
    WatermarkMoved,
)
from lakelog.wal import Tail

RETRIES = 6
_WAIT = 5.0
"""Seconds between attempts to reach a server that is away for long."""
_SEAL_EVERY, _SEALS, _SEAL_BYTES = 10.0, 3.0, 4_000_000
"""A sync that goes on seals events every so many seconds, some times in a row after a rest, and
whenever so many bytes wait."""
_REMOVED = "events were removed from the lake by a rollback, retention or dedupe"


@dataclass(frozen=True)
class SyncResult:
    """What a sync did to a table: rows written and deleted, in how many transactions.

    `total` counts the rows that are there now, `snapshot` is the state that they are of,
    `is_rebuilt` says whether the table was emptied and filled again, and `quarantined` counts rows
    that the target refused.
    """

    target: str
    table: str
    written: int
    deleted: int
    commits: int
    total: int
    snapshot: str
    is_rebuilt: bool
    quarantined: int = 0


@dataclass(frozen=True)
class _Round:
    """A table's watermark, what takes it to a state, whether to create the table first, and columns
    to add to it."""

    mark: Watermark
    change: Delta
    is_created: bool
    added: tuple[TargetColumn, ...]
    is_whole: bool
    """Whether all rows are written, also those that the mapping makes of no events."""


class Syncer:
    """Keeps one table up to date, round by round. One thread uses it."""

    MODES = ("upsert", "append", REPLACE)
    ON_REWIND = ("propagate", "refuse")
    ON_ERROR = ON_ERROR

    def __init__(
        self,
        lake: Lake,
        target: str | SyncTarget,
        table: str | None = None,
        query: str | None = None,
        *,
        mode: str = "upsert",
        on_rewind: str = "propagate",
        on_error: str = "stop",
        batch_rows: int | None = None,
        columns: Mapping[str, str] | None = None,
        retries: int = RETRIES,
        continuous: bool = False,
        progress: Callable[[int], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Check what was asked; connects later. Raises InvalidSetting, QueryFailed.

        One that is `continuous` waits for a server that is away, for as long as that takes; leaves
        it to others to seal events, unless they wait for some seconds; and lets go of a file
        between rounds. `progress` is called with the rows written so far, `say` with each retry.
        """
        choices_of = ((mode, self.MODES), (on_rewind, self.ON_REWIND), (on_error, self.ON_ERROR))
        for value, choices in choices_of:
            if value not in choices:
                raise InvalidSetting(f"{value!r} is not one of {', '.join(choices)}")
        self._target = target_of(target) if isinstance(target, str) else target
        self.address = self._target.address
        """Where the target is, without a password."""
        table = self._target.table if table is None else table
        if not table.strip(". ") or table == WATERMARKS or "\0" in table:
            raise InvalidSetting(f"{table!r} cannot be the table of a sync: choose another name")
        batch_rows = self._target.batch_rows if batch_rows is None else batch_rows
        if batch_rows < 1:
            raise InvalidSetting("a batch has at least one row")
        self._lake, self._store = lake, lake.store
        self.table, self._mode, self._refuses = table, mode, on_rewind == "refuse"
        self._batch_rows, self._retries = batch_rows, retries
        self._progress, self._say = progress or (lambda rows: None), say or (lambda message: None)
        # Of its own: the mapping sees other `events` than the lake's queries do.
        self._cursor: duckdb.DuckDBPyConnection = lake.engine().cursor()
        mapping = read_mapping(self._cursor, query, mode)
        names = self._target.type_names
        self._mapping = mapping.typed(columns or {}, names, self.address)
        if mode == REPLACE and not self._target.can_replace:
            raise InvalidSetting(
                f"{self.address} cannot exchange all rows of a table at once: use another"
                " mode, or a database for the mode replace"
            )
        if mode == "upsert" and not self._mapping.is_keyed:
            raise QueryFailed(f"the mapping has no column {KEY}: add it, or use the mode append")
        self._writer = RowWriter(
            lake, self._target, table, keyed=mode == "upsert", sets_aside=on_error == "quarantine"
        )
        refuse = self._writer.refuse
        self._reader = RowReader(lake, self._mapping, self._target, batch_rows, refuse)
        self._continuous, self._seals, self._looked_at = continuous, _SEALS, time.monotonic()
        self._tail = Tail(self._store.paths, self._store.refs, lake.branch_name)
        self._done: Watermark | None = None
        self.is_away = False
        """Whether the last attempts in a row to reach the target have failed."""
        self._is_connected, self._destroyed_keys, self._has_fields = False, 0, False
        self._written = self._deleted = self._commits = self._quarantined = 0
        self._is_rebuilt = False

    def run(self, stop: threading.Event | None = None) -> SyncResult:
        """Bring the table up to the lake's newest state; ends between two batches if `stop` is set.

        Raises SyncRefused, QueryFailed, Unreachable, MissingPackage, Damaged.
        """
        self._written = self._deleted = self._commits = self._quarantined = 0
        self._is_rebuilt = False
        stop, head = stop or threading.Event(), None
        attempts = Attempts(self._retries, self._say)
        while True:
            try:
                # Once for all attempts: where the table is further by then, `_since` goes on.
                head = head or self._head()
                if not self._is_idle(head):
                    self._done = self._round(head, stop)
                self.is_away = False
                if attempts.count >= attempts.limit:
                    self._say(f"{self.address} is synced again")
                break
            except (ConnectionLost, WatermarkMoved) as error:
                self._disconnect()
                attempts.fail(self._commits)
                if not self._continuous:
                    attempts.wait(str(error), stop)
                elif not self._wait_for_server(str(error), attempts.count, stop):
                    break
            except BaseException:
                self._target.rollback()
                raise
        if self._continuous and self._target.is_exclusive:
            self._disconnect()
        mark = self._done
        return SyncResult(
            self.address,
            self.table,
            self._written,
            self._deleted,
            self._commits,
            mark.rows if mark else 0,
            mark.snapshot if mark else "",
            self._is_rebuilt,
            self._quarantined,
        )

    def _is_idle(self, head: Head) -> bool:
        """Whether nobody else may look for the table meanwhile, and it has the state."""
        if self._done is None or not (self._continuous and self._target.is_exclusive):
            return False
        return self._done.snapshot == self._store.manifests.stored_as(head.move.snapshot)

    def _wait_for_server(self, problem: str, attempt: int, stop: threading.Event) -> bool:
        """Wait before another attempt, for as long as the server is away; False if stopped."""
        self.is_away = attempt >= self._retries
        # Once: a server may be away for days.
        if attempt in (1, self._retries):
            self._say(f"{problem}; {'trying again' if attempt == 1 else 'waiting for it'}")
        return not stop.wait(clients.pause(attempt) if attempt <= self._retries else _WAIT)

    def _head(self) -> Head:
        """Return the state to go to: the newest published one, with everything else published
        before, but seldom in a sync that goes on: each time is a segment."""
        clock = time.monotonic()
        # A bucket of tokens: a seal costs one, and one comes back in each `_SEAL_EVERY` seconds.
        self._seals = min(_SEALS, self._seals + (clock - self._looked_at) / _SEAL_EVERY)
        self._looked_at = clock
        if self._continuous and self._seals < 1:
            pending = self._tail.collect()
            if pending.bytes < _SEAL_BYTES:
                return pending.head
        before = self._store.refs.head(self._lake.branch_name).move.number
        with self._patience():
            head = self._lake.settle()
        self._seals -= head.move.number != before
        return head

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
        interrupted = self._target.interrupted(self.table)
        if interrupted:  # what is refused is refused before half a batch is taken back
            head = self._since(interrupted, head)
            self._plan(interrupted, self._store.manifests.of(head.move), head)
        self._target.recover(self.table)
        before = self._target.watermarks().get(self.table)
        head = self._since(before, head)
        # Before any row is read: one that is erased meanwhile, or whose key is, is written again.
        snapshot = self._store.manifests.stored_as(head.move.snapshot)
        self._destroyed_keys = self._store.destroyed_keys()
        self._has_fields = self._reader.opens_fields(before)
        state = self._store.manifests.of(head.move)
        plan = self._plan(before, state, head)
        change = plan.change
        is_first = True
        mark = self._mark_of(plan, state, head, snapshot)
        entries = self._store.manifests.segments(state, "events")
        if change.reason:
            self._say(f"{change.reason}: all rows are written again")
        steps = list(change.steps)
        if steps:  # before any row is there: who is killed afterwards does not come to it
            copies.note(self._lake.store.paths, "sync", self.address)
        while steps:
            # A commit costs milliseconds, whatever it holds: small steps share one.
            group = [steps.pop(0)]
            while steps and sum(s.events for s in (*group, steps[0])) <= self._batch_rows:
                group.append(steps.pop(0))
            group = delta.joined(group)
            is_last = not steps
            # Refused where another sync has committed since the watermark was read.
            self._target.begin(self.table, mark.version)
            if is_first and plan.is_created:
                self._target.create(self.table, self._mapping.columns, self._mode == "upsert")
            elif is_first and plan.added:
                self._target.extend(self.table, plan.added)
            # Once for the table: a delta that clears it is one step, and so one group.
            if change.clear:
                self._target.clear(self.table)
                mark = dataclasses.replace(mark, rows=0)
            self._writer.begin()
            deleted = sum(self._remove(step) for step in group)
            group_added = [step for step in group if step.added or plan.is_whole]
            rows_written = sum(self._add(step, self._written) for step in group_added)
            self._quarantined += self._writer.flush()
            # With the rows, in one transaction: whoever reads it knows what is there.
            mark = dataclasses.replace(
                mark,
                upto=group[-1].upto,
                events=state.totals.events if is_last else -1,
                rows=mark.rows + rows_written - deleted,
                version=mark.version + 1,
                refusals=self._writer.refusals or mark.refusals,
                synced_at=disk.now_us(),
                tip=delta.tip_of(self._store, self._cursor, entries) if is_last else "",
            )
            self._target.commit(self.table, mark)
            is_first = False
            self._commits += 1
            self._written, self._deleted = self._written + rows_written, self._deleted + deleted
            self._is_rebuilt |= bool(change.reason)
            if stop.is_set():
                break
        return mark

    def _since(self, mark: Watermark | None, head: Head) -> Head:
        """The state to go to, where another sync has taken the table further than to `head`: an
        older one would take back what it wrote."""
        if mark is None or mark.move <= head.move.number:
            return head
        with self._patience():
            return self._store.head_since(self._lake.branch_name, mark.move)

    @contextlib.contextmanager
    def _patience(self) -> Iterator[None]:
        """Have a sync that goes on wait for the bucket of a shared lake as for its target."""
        try:
            yield
        except Unreachable as error:
            if self._continuous:
                raise ConnectionLost(str(error)) from None
            raise

    def _mark_of(self, plan: _Round, state: Manifest, head: Head, snapshot: str) -> Watermark:
        """The watermark of a table that is taken to a state, which is stored as `snapshot`, before
        any of its steps."""
        return dataclasses.replace(
            plan.mark,
            mapping=self._mapping.query,
            columns=self._mapping.column_types,
            mode=self._mode,
            move=head.move.number,
            generation=head.move.generation,
            snapshot=snapshot,
            state_time=state.time,
            destroyed_keys=self._destroyed_keys,
            has_fields=self._has_fields,
            # What of them is left after a rollback: the next one is compared with that.
            refusals=head.move.snapshot if plan.mark.refusals else "",
        )

    def _plan(self, mark: Watermark | None, state: Manifest, head: Head) -> _Round:
        """What takes the table to a state, as far as it is allowed. Raises SyncRefused."""
        shape = self._target.shape(self.table)
        is_created, added = self._schema_changes(mark, shape)
        # A column that is added now has no values for the rows that are there.
        rebuilt = delta.SHORTENED if added and mark else ""
        if mark and is_emptied(mark, shape):
            rebuilt = EMPTIED
        mark = mark or Watermark(
            self._store.lake_id, self._lake.branch_name, self._mapping.query, self._mode
        )
        change = self._change(mark, state, head, rebuilt)
        # No events may make rows, too: a count of them is one.
        is_whole = self._mode == REPLACE and (change.clear or not mark.version)
        return _Round(mark, change, is_created, added, is_whole)

    def _change(self, mark: Watermark, state: Manifest, head: Head, rebuilt: str) -> Delta:
        """What is to be done, as far as it is allowed; `rebuilt` is why the table is filled again
        whatever it lacks. Raises SyncRefused."""
        self._require_same_lake(mark)
        entries = self._store.manifests.segments(state, "events")
        before = mark.mapping, mark.columns
        is_kept = before == (self._mapping.query, self._mapping.column_types)
        if mark.version and (not is_kept or (mark.mode == REPLACE) != (self._mode == REPLACE)):
            rebuilt = "the mapping is another one"
        has_lost = False
        if rebuilt:
            change = delta.everything(entries, state, rebuilt)
        else:
            generation = head.move.generation
            change = delta.delta_between(self._store, self._cursor, mark, state, generation)
            first_step = change.steps[0] if change.steps else None
            # Compaction alone may also differ; only rows that are gone change the table.
            has_lost = False
            if first_step and first_step.removed:
                query = f"SELECT 1 FROM ({first_step.keys_sql(self._store)}) LIMIT 1"
                has_lost = bool(self._cursor.execute(query).fetchall())
            if has_lost and self._refuses:
                raise self._refusal(_REMOVED)
            if has_lost and not self._mapping.is_keyed:
                change = delta.everything(entries, state, _REMOVED)
            refused = from_quarantine(self.address, self.table)
            is_keyed = self._mapping.is_keyed
            if not change.clear and delta.has_lost_refusals(
                self._lake, refused, mark, change, is_keyed=is_keyed
            ):
                change = delta.everything(entries, state, delta.REFUSED)
        if change.clear and self._refuses:
            raise self._refusal(change.reason)
        is_changed = has_lost or any(step.added for step in change.steps)
        if self._mode == REPLACE and not change.clear and is_changed:
            change = delta.everything(entries, state)
        return change

    def _refusal(self, reason: str) -> SyncRefused:
        return SyncRefused(
            f"{self.address}, table {self.table}: {reason} since the last sync: run it"
            " with --on-rewind propagate, which removes or rebuilds rows, or sync to another table"
        )

    def _require_same_lake(self, mark: Watermark) -> None:
        ours = self._store.lake_id, self._lake.branch_name
        if (mark.lake_id, mark.branch) != ours:
            difference = "lake" if mark.lake_id != ours[0] else f"branch, {mark.branch}"
            raise SyncRefused(
                f"{self.address}: table {self.table} is synced from another {difference}:"
                " choose another table with --table"
            )

    def _schema_changes(
        self, mark: Watermark | None, shape: TableShape | None
    ) -> tuple[bool, tuple[TargetColumn, ...]]:
        """Whether to create the table, and columns to add. Raises SyncRefused."""
        place = f"{self.address}, table {self.table}"
        if shape is None:
            if mark is not None:
                raise SyncRefused(
                    f"{place}: the table is gone: delete its row in {WATERMARKS} to rebuild it"
                )
            return True, ()
        if mark is None and not shape.is_empty:
            raise SyncRefused(
                f"{place}: it has rows that no sync wrote: empty it, or choose another with --table"
            )
        # Names are compared as SQL does it where a user created the table.
        declared = {name.lower(): sql_type for name, sql_type in shape.types.items()}
        for column in self._mapping.columns:
            declared_type = declared.get(column.name.lower())
            required = declared_type is not None and self._target.mismatch(column, declared_type)
            if required:
                advice = "cast the column in the mapping, or give its type with --column"
                if column.column_type:
                    advice = f"drop it and its row in {WATERMARKS}, and all is written again"
                raise SyncRefused(
                    f"{place}: column {column.name} is {declared_type}, where {required} is needed:"
                    f" change it with ALTER TABLE, or {advice}"
                )
        if self._mode == "upsert" and not shape.is_keyed:
            raise SyncRefused(
                f"{place}: {KEY} is not a unique key: add one, or use the mode append"
            )
        return False, shape.lacking(self._mapping.columns)

    def _remove(self, step: DeltaStep) -> int:
        """Delete the rows of events that are gone; return how many."""
        if not step.removed or not self._mapping.is_keyed:
            return 0
        keys = self._reader.batches(step.keys_sql(self._store))
        return sum(self._target.delete(self.table, batch) for batch in keys)

    def _add(self, step: DeltaStep, before: int) -> int:
        """Write the mapped rows of a step; return how many."""
        events, rows_written = step.rows_sql(self._store), 0
        if self._mapping.is_several and self._mode == "upsert":
            self._reader.require_one_row(events)
        for batch in self._reader.mapped(events):
            rows_written += self._writer.write(batch)
            self._progress(before + rows_written)
        return rows_written
