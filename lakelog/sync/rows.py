"""The rows of a mapping, as the target takes them, in batches that are read ahead.

Values of columns that a user gave a type are converted here. A row with a value that cannot be is
handed over apart, as it was.

Writing batches of rows, and setting those aside that a target refuses for what is in them.

A batch that is refused is divided until single rows are left: those go to the quarantine of the
lake, with the reason, and all others are written. What is refused for another reason, such as a
missing right, stops the sync as before.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson

from lakelog import sql
from lakelog.engine.messages import EngineMessage
from lakelog.erased import Refusal
from lakelog.errors import InvalidSetting, QueryFailed, SyncRefused
from lakelog.lake import Lake
from lakelog.libraries import duckdb, pa
from lakelog.query import SegmentMap
from lakelog.sync.column_types import Conversion
from lakelog.sync.mapping import NO_ROWS, Mapping, set_events
from lakelog.sync.target import KEY, RowRefused, SyncTarget, Watermark

_CHUNK_ROWS, _CHUNK_BYTES = 8_192, 64 << 20
"""Rows that are read at once, and bytes of them that are written at once, at most."""
_UNCONVERTED = "lakelog_unconverted"
"""A column that is null, or has the values of the row that cannot be converted, as JSON."""
_SHOWN, _FEW = 60, 1_000
"""Characters of a value that a message shows; rows that are refused at a time."""


@dataclass(frozen=True)
class UnconvertedRow:
    """A row with its values as they were, and what is wrong with one."""

    values: dict[str, object]
    problem: str


class RowReader:
    """Reads rows of one mapping for one target, so many at a time as a batch has."""

    def __init__(
        self,
        lake: Lake,
        mapping: Mapping,
        target: SyncTarget,
        batch_rows: int,
        refuse: Callable[[UnconvertedRow], None],
    ) -> None:
        self._lake, self._mapping, self._target = lake, mapping, target
        self._refuse = refuse
        # No more than the target writes at once, or batches would be cut twice.
        self._rows = min(batch_rows, target.write_rows)

    def opens_fields(self, mark: Watermark | None = None) -> bool:
        """Whether rows have protected fields, opened by the keys of this process. Raises InvalidKey
        where a table with this watermark has some, which would be gone without keys."""
        protection = self._lake.store.paths.protection
        if protection is None:
            return False
        with self._lake.engine().cursor() as cursor:
            rows = SegmentMap(self._mapping.query, "events")
            if not rows.reads_members(cursor, protection.fields):
                return False
        if mark is not None and mark.has_fields:
            protection.require_ciphers()
        return protection.ciphers() is not None

    def mapped(self, events: str) -> Iterator[pa.Table]:
        """Yield what the mapping makes of events, given as SQL. Raises QueryFailed."""
        for rows in self.batches(self._query(), events):
            if self._mapping.is_keyed and rows[KEY].null_count:
                raise QueryFailed(
                    f"the mapping has a row whose {KEY} is null: leave {KEY} as it is"
                )
            converted = self._converted(rows) if self._mapping.conversions else rows
            if converted.num_rows:
                yield converted

    def _converted(self, rows: pa.Table) -> pa.Table:
        """Rows whose values could all be converted; the others are refused."""
        unconverted = rows[_UNCONVERTED]
        if unconverted.null_count < rows.num_rows:
            types = {c.column: c.column_type for c in self._mapping.conversions}
            # A few at a time: refused rows become Python objects, of which millions would not fit.
            for batch in rows.filter(unconverted.is_valid()).to_batches(max_chunksize=_FEW):
                for row in python_rows(batch):
                    failed = orjson.loads(row.pop(_UNCONVERTED))
                    values = {name: value for name, value in failed.items() if value is not None}
                    name, value = next(iter(values.items()))
                    is_public = self._lake.store.paths.protection is None
                    shown = repr(value[:_SHOWN]) if is_public else "a value"
                    problem = f"column {name}: {shown} is not {types[name]}"
                    self._refuse(UnconvertedRow(row | values, problem))
            rows = rows.filter(unconverted.is_null())
        return rows.drop_columns([_UNCONVERTED])

    def schema(self) -> pa.Schema:
        """The names and types of mapped rows."""
        with self._lake.engine().cursor() as cursor:
            set_events(cursor, NO_ROWS)
            schema = cursor.sql(self._query()).to_arrow_reader(1).schema
            names = [column.name for column in self._mapping.columns]
            return pa.schema([schema.field(name) for name in names])

    def _query(self) -> str:
        expressions = []
        for column in self._mapping.columns:
            name = sql.identifier(column.name)
            expressions.append(f"{self._target.value_sql(column)} AS {name}")
        source = f"{self._mapping.query}\n"
        if conversions := self._mapping.conversions:
            expressions.append(_UNCONVERTED)
            source = _converting(source, conversions)
        nested = [sql.identifier(name) for name in sorted(self._mapping.nested)]
        as_json = ", ".join(f"to_json({name}) AS {name}" for name in nested)
        columns = f"* REPLACE ({as_json})" if nested else "*"
        # The query may end in a comment.
        return f"SELECT {', '.join(expressions)} FROM (SELECT {columns} FROM ({source}))"

    def require_one_row(self, events: str) -> None:
        """Refuse events of which one has several rows. Raises QueryFailed."""
        query = f"SELECT {KEY} FROM ({self._mapping.query}\n) GROUP BY {KEY} HAVING count(*) > 1"
        for rows in self.batches(f"{query} LIMIT 1", events):
            if rows.num_rows:
                raise QueryFailed(
                    f"the mapping makes several rows of one event ({KEY} {rows[KEY][0]}): use the"
                    " mode append"
                )

    def batches(self, query: str, events: str = NO_ROWS) -> Iterator[pa.Table]:
        """Yield the rows of a query; `events` are those rows. Raises QueryFailed."""
        # A cursor of its own: one with an unfinished result runs nothing else.
        cursor = self._lake.engine().cursor()
        try:
            set_events(cursor, events)
            # In small chunks, so that a first batch is there early.
            reader = cursor.sql(query).to_arrow_reader(_CHUNK_ROWS)
            tables = _gathered(reader, self._rows)
            # The next rows are read and mapped while the target writes these.
            with ThreadPoolExecutor(1, "lakelog-sync") as pool:
                next_batch = pool.submit(next, tables, None)
                while (rows := next_batch.result()) is not None:
                    next_batch = pool.submit(next, tables, None)
                    yield rows
        # Arrow raises OSError for what the engine says while it reads on.
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise QueryFailed(f"the mapping: {EngineMessage(error).gist()}") from None
        finally:
            cursor.close()


def _converting(query: str, conversions: tuple[Conversion, ...]) -> str:
    """SQL for rows of a query with values converted, and those that cannot be."""
    values = ", ".join(f"{c.value} AS {sql.identifier(c.column)}" for c in conversions)
    failed = ", ".join(
        f"{sql.literal(c.column)}: CASE WHEN {c.has_failed} THEN {c.source}::VARCHAR END"
        for c in conversions
    )
    any_failed = " OR ".join(c.has_failed for c in conversions)
    unconverted = f"CASE WHEN {any_failed} THEN to_json({{{failed}}})::VARCHAR END"
    return f"SELECT * REPLACE ({values}), {unconverted} AS {_UNCONVERTED} FROM ({query})"


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
            # In chunks of the original buffers: nothing is copied.
            count, size = max(0, count - rows), sum(chunk.nbytes for chunk in waiting)
    if waiting:
        yield pa.Table.from_batches(waiting)


ON_ERROR = ("stop", "quarantine")
_MOST = 1_000
"""So many rows of a batch may be set aside: if more are refused, it is not for one of them."""


def from_quarantine(address: str, table: str) -> str:
    """SQL for the part of a query that reads the rows that a table has refused: `position` is the
    key of each, `line` its JSON."""
    return f"FROM quarantine WHERE origin = {sql.literal(_origin(address, table))}"


def line_of(row: dict[str, Any]) -> str:
    """Return the line of a row in the quarantine."""
    return orjson.dumps(row, default=str).decode()


def python_rows(rows: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """Return rows as values of Python; dates that it does not have as text."""
    try:
        return list(rows.to_pylist())
    except (OverflowError, ValueError):
        # One by one, so that the others have the line that they have alone.
        if rows.num_rows > 1:
            singles = (python_rows(rows.slice(n, 1)) for n in range(rows.num_rows))
            return list(itertools.chain.from_iterable(singles))
        for n, field in enumerate(rows.schema):
            if pa.types.is_temporal(field.type):
                rows = rows.set_column(n, field.name, rows.column(n).cast(pa.string()))
        return list(rows.to_pylist())


def _origin(address: str, table: str) -> str:
    return f"{Refusal.ROWS_OF_TABLES}{address} {table}"


class RowWriter:
    """Writes rows of one table; with `sets_aside` refused ones are kept for the quarantine."""

    def __init__(
        self, lake: Lake, target: SyncTarget, table: str, *, keyed: bool, sets_aside: bool
    ) -> None:
        if sets_aside and not target.can_set_aside:
            raise InvalidSetting(
                f"{target.address} cannot undo a part of a batch, so that refused rows cannot be"
                " set aside: use --on-error stop"
            )
        self._lake, self._target, self._table = lake, target, table
        self._keyed, self._sets_aside = keyed, sets_aside
        self._refused: list[tuple[str, int, str, str]] = []
        self.refusals = ""
        """A state that has what this batch has put into the quarantine; nothing if it has not."""

    def write(self, rows: pa.Table) -> int:
        """Write rows; return how many. Raises SyncRefused, ConnectionLost."""
        if not self._sets_aside:
            self._target.write(self._table, rows, self._keyed)
            return int(rows.num_rows)
        # Each half is its own attempt: a database undoes what it was refused for alone.
        try:
            with self._target.attempt():
                self._target.write(self._table, rows, self._keyed)
            return int(rows.num_rows)
        except RowRefused as error:
            if rows.num_rows == 1:
                reason = str(error)
                # A reason is not sealed as its line is, and a server repeats values.
                if self._lake.store.paths.protection is not None:
                    place = f"{self._target.address}, table {self._table}"
                    reason = f"{place}: a value is refused: --on-error stop says which"
                self._set_aside(python_rows(rows)[0], reason)
                return 0
        half = rows.num_rows // 2
        return self.write(rows.slice(0, half)) + self.write(rows.slice(half))

    def refuse(self, row: UnconvertedRow) -> None:
        """Set a row aside that cannot be converted. Raises RowRefused where that is not wanted."""
        place = f"{self._target.address}, table {self._table}, {KEY} {row.values.get(KEY)}"
        if not self._sets_aside:
            can_set_aside = self._target.can_set_aside
            way = "use --on-error quarantine" if can_set_aside else "give its type with --column"
            raise RowRefused(
                f"{place}: {row.problem}: change the column in the query, or {way}; this batch was"
                " not written"
            )
        self._set_aside(row.values, f"{place}: {row.problem}")

    def begin(self) -> None:
        """Forget what an earlier batch has set aside, which was not committed."""
        self._refused.clear()
        self.refusals = ""

    def flush(self) -> int:
        """Put refused rows into the quarantine that are not there; return how many. Call it before
        the commit: what happens in between loses none."""
        fresh = []
        if self._refused:
            # A batch is repeated after a cut, and all are when the table is filled again.
            keys = ", ".join(str(line[1]) for line in self._refused)
            source = from_quarantine(self._target.address, self._table)
            query = f"SELECT position, line {source} AND position IN ({keys})"
            quarantined = set(self._lake.sql(query).fetchall())
            fresh = [line for line in self._refused if (line[1], line[3]) not in quarantined]
        if fresh:
            self._lake.quarantine(fresh)
        if self._refused:
            self.refusals = self._lake.settle().move.snapshot
        self._refused.clear()
        return len(fresh)

    def _set_aside(self, row: dict[str, Any], reason: str) -> None:
        if len(self._refused) >= _MOST:
            raise SyncRefused(f"more than {_MOST:,} rows of a batch were refused: {reason}")
        line = line_of(row)
        origin, key = _origin(self._target.address, self._table), row.get(KEY)
        # In the mode `replace` it may be anything.
        position = key if isinstance(key, int) and key >= 0 else 0
        self._refused.append((origin, position, reason, line))
