"""What the SQL databases have in common: statements over tables, rows and watermarks."""

from __future__ import annotations

import abc
import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from lakelog import sql
from lakelog.clients import ConnectionLost
from lakelog.errors import LakelogError, SyncRefused
from lakelog.libraries import pa, pc
from lakelog.sync.target import (
    KEY,
    WATERMARKS,
    RowRefused,
    SyncTarget,
    TableShape,
    TargetColumn,
    Watermark,
)

_POINT = "lakelog_attempt"
_DIGITS = re.compile(r"\(\d+(?:, *(-?\d+))?\)")
"""What a declared numeric has in parentheses: digits in all, and those after the point."""


class SqlTarget(SyncTarget):
    """A SyncTarget by SQL. Subclasses connect, run statements, load Arrow, and explain errors."""

    can_set_aside = True
    can_replace = True
    BLOB: ClassVar[str]
    """The type of a new column of bytes; those of other kinds are as `type_names` has them."""
    HAS_SCALE = False
    """Whether a numeric column is declared with its digits."""
    ACCEPTED: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Declared types that take a kind without loss, where that is not the type of a new column."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._free_from: int | None = None
        self._is_attempt = False

    @abc.abstractmethod
    def _open(self) -> Any:
        """Return a connection in autocommit mode, with a method `fetch` as AdbcConnection has."""

    @abc.abstractmethod
    def _insert(self, table: str, rows: pa.Table, ending: str) -> None:
        """Insert rows of Arrow with a statement that ends in `ending`."""

    @abc.abstractmethod
    def _delete(self, table: str, keys: pa.Table) -> int:
        """Delete rows by KEY."""

    @abc.abstractmethod
    def _explained(self, error: Exception, table: str) -> LakelogError:
        """Return what to raise for an error of the driver."""

    @abc.abstractmethod
    def _columns(self, table: str) -> tuple[dict[str, str], bool]:
        """Return a table's types by column, and whether KEY alone is unique; no types: no table."""

    def _fetch(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement; return its rows."""
        rows: list[tuple[Any, ...]] = self._connection.fetch(statement)
        return rows

    BEGIN = READ = "BEGIN"
    LOCK = ""
    """A statement that lets no other sync begin before the transaction ends."""
    SAVE = (
        "INSERT INTO {table} (name, version, watermark) VALUES ({values}) ON CONFLICT (name)"
        " DO UPDATE SET version = excluded.version, watermark = excluded.watermark"
    )
    """A statement that inserts or replaces a watermark."""

    def connect(self) -> None:
        """Connect, or connect again; see SyncTarget."""
        # A connection of before may be in an aborted transaction.
        self.close()
        try:
            self._connection = self._open()
        except LakelogError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise self._explained(error, "") from None

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Have one state of the database within, whatever others commit."""
        with self._errors():
            self._fetch(self.READ)
        try:
            yield
        finally:
            self.rollback()

    def watermarks(self) -> dict[str, Watermark]:
        """The watermarks of all tables, by name."""
        with self._errors():
            if not self._columns(WATERMARKS)[0]:
                return {}
            rows = self._fetch(f"SELECT name, watermark FROM {WATERMARKS} ORDER BY name")
        return {name: Watermark.parse(record, f"{self.address} {name}") for name, record in rows}

    def shape(self, table: str) -> TableShape | None:
        """A table as it is, None where there is none."""
        with self._errors(table):
            types, is_keyed = self._columns(table)
            if not types:
                return None
            return TableShape(types, is_keyed, not self._has_rows(table))

    def value_sql(self, column: TargetColumn) -> str:
        """By default what Arrow carries as it is."""
        # Asked for at once, since begin has it created where it is missing.
        name = sql.identifier(column.name)
        if column.kind == "numeric":
            return f"{name}::DECIMAL(38, {column.scale})"
        # The engine's JSON is text with another name, and its nested values have a JSON form.
        return f"{name}::{_CASTS[column.kind]}"

    def mismatch(self, column: TargetColumn, declared: str) -> str:
        """The type that a column has to have, where the declared one does not fit; or nothing."""
        expected, declared = self._type(column), declared.lower()
        if column.column_type:
            return "" if self._is_declared(expected.lower(), declared) else expected
        plain = declared.split("(")[0].strip()
        own_type = expected.lower().split("(")[0]
        is_accepted = plain in self.ACCEPTED.get(column.kind, (own_type,))
        # Of too few digits after the point, it would round values without a word.
        digits = _DIGITS.search(declared) if column.kind == "numeric" else None
        is_short = digits is not None and int(digits[1] or 0) < column.scale
        return "" if is_accepted and not is_short else expected

    def begin(self, table: str, version: int) -> None:
        """Start a transaction on a table of this version; see SyncTarget."""
        self._free_from = None
        with self._errors(table):
            # The version is read in the transaction, behind the lock: no other sync can commit in
            # between.
            self._fetch(self.BEGIN)
            if self.LOCK:
                self._fetch(self.LOCK)
            # Not IF NOT EXISTS: PostgreSQL asks for the right to create tables all the same.
            if not self._columns(WATERMARKS)[0]:
                text_type = self.type_names.names["text"]
                self._fetch(
                    f"CREATE TABLE {WATERMARKS} (name {text_type} PRIMARY KEY,"
                    f" version BIGINT NOT NULL, watermark {text_type} NOT NULL)"
                )
            versions = self._fetch(
                f"SELECT version FROM {WATERMARKS} WHERE name = {sql.literal(table)}"
            )
        if (int(versions[0][0]) if versions else 0) != version:
            # At once, so that the lock is free for whoever is ahead.
            self.rollback()
            raise self.moved(table)

    def create(self, table: str, columns: Sequence[TargetColumn], keyed: bool) -> None:
        """Create the table, with KEY as its primary key if `keyed`."""
        defined = [self._definition(column, keyed) for column in columns]
        with self._errors(table):
            self._fetch(f"CREATE TABLE {self._name(table)} ({', '.join(defined)})")

    def extend(self, table: str, columns: Sequence[TargetColumn]) -> None:
        """Add columns."""
        with self._errors(table):
            for column in columns:
                added = self._definition(column, keyed=False)
                self._fetch(f"ALTER TABLE {self._name(table)} ADD COLUMN {added}")

    def clear(self, table: str) -> None:
        """Delete all rows."""
        with self._errors(table):
            self._fetch(f"DELETE FROM {self._name(table)}")

    def delete(self, table: str, keys: pa.Table) -> int:
        """Delete the rows of these events; return how many they were."""
        with self._errors(table):
            return self._delete(table, keys) if keys.num_rows else 0

    def write(self, table: str, rows: pa.Table, keyed: bool) -> None:
        """Insert rows; with `keyed` a row replaces one of the same KEY."""
        with self._errors(table):
            # Only `upsert` can meet its own rows again, after a cut or a rollback.
            ending = self._on_conflict(table, rows) if keyed else ""
            self._insert(table, rows, ending)

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Undo what is written within if a row of it is refused; see SyncTarget."""
        with self._errors():
            self._fetch(f"SAVEPOINT {_POINT}")
        self._is_attempt = True
        try:
            yield
        # A savepoint, since the rows before it are good and stay in the transaction.
        except RowRefused as refusal:
            try:
                with self._errors():
                    self._fetch(f"ROLLBACK TO SAVEPOINT {_POINT}")
                    self._fetch(f"RELEASE SAVEPOINT {_POINT}")
            except SyncRefused:  # a trigger has undone the transaction, and the savepoint with it
                raise SyncRefused(str(refusal)) from None
            raise
        finally:
            self._is_attempt = False
        with self._errors():
            self._fetch(f"RELEASE SAVEPOINT {_POINT}")

    def read(self, table: str, schema: pa.Schema, types: Mapping[str, str]) -> Iterator[pa.Table]:
        """Yield rows with the columns and types of a schema, as `write` was given them; a value of
        another type, which somebody else has written, is null. `types` are the declared ones."""
        names = ", ".join(self._readable(name, types.get(name, "")) for name in schema.names)
        # Read as text where it was given as text: each database writes such values in its own way.
        with self._errors(table):
            for rows in self._rows(f"SELECT {names} FROM {self._name(table)}"):
                columns = (
                    rows.columns if isinstance(rows, pa.RecordBatch) else zip(*rows, strict=True)
                )
                arrays = [_array(c, field.type) for c, field in zip(columns, schema, strict=True)]
                yield pa.Table.from_arrays(arrays, schema=schema)

    def _readable(self, name: str, declared: str) -> str:
        """SQL that reads a column of a declared type as text, where it was given as text."""
        return sql.identifier(name)

    @abc.abstractmethod
    def _rows(self, statement: str) -> Iterator[list[tuple[Any, ...]] | pa.RecordBatch]:
        """Run a statement; yield its rows, so many at a time. Python has no dates before the year 1
        and after 9999: who has these yields Arrow."""

    def commit(self, table: str, watermark: Watermark) -> None:
        """End the transaction with the watermark; see SyncTarget."""
        with self._errors(table):
            self._save(table, watermark)
            self._fetch("COMMIT")

    def rollback(self) -> None:
        """Give the transaction up; never raises."""
        with contextlib.suppress(Exception):
            self._fetch("ROLLBACK")

    def close(self) -> None:
        """Close the connection; never raises."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def _save(self, table: str, watermark: Watermark) -> None:
        values = f"{sql.literal(table)}, {watermark.version}, {sql.literal(watermark.to_json())}"
        self._fetch(self.SAVE.format(table=WATERMARKS, values=values))

    def _on_conflict(self, table: str, rows: pa.Table) -> str:
        """What a statement needs where rows of these keys may be there.

        Keys of which the table has none need nothing, and load twice as fast. As a transaction
        brings each event once, keys that were free before it need no second look, which would cost
        DuckDB more than the rows: it keeps what it has looked at apart, and writes it twice.
        """
        bounds = pc.min_max(rows[KEY]).as_py()
        lowest, highest = bounds["min"], bounds["max"]
        if self._free_from is not None and lowest >= self._free_from:
            return ""
        if not self._has_rows(table, f"WHERE {KEY} >= {lowest}"):
            self._free_from = lowest
            return ""
        if not self._has_rows(table, f"WHERE {KEY} BETWEEN {lowest} AND {highest}"):
            return ""
        changed = [sql.identifier(name) for name in rows.column_names if name != KEY]
        assignments = ", ".join(f"{name} = excluded.{name}" for name in changed)
        return f" ON CONFLICT ({KEY}) DO " + (f"UPDATE SET {assignments}" if changed else "NOTHING")

    def _has_rows(self, table: str, condition: str = "") -> bool:
        return bool(self._fetch(f"SELECT 1 FROM {self._name(table)} {condition} LIMIT 1"))

    def _definition(self, column: TargetColumn, keyed: bool) -> str:
        ending = " PRIMARY KEY" if keyed and column.name == KEY else ""
        return f"{sql.identifier(column.name)} {self._type(column)}{ending}"

    def _type(self, column: TargetColumn) -> str:
        if column.column_type:
            return self.type_names.spell(column.column_type)
        if column.kind == "blob":
            return self.BLOB
        sql_type = self.type_names.names[column.kind]
        has_scale = self.HAS_SCALE and column.kind == "numeric"
        return f"{sql_type}(38, {column.scale})" if has_scale else sql_type

    def _is_declared(self, expected: str, declared: str) -> bool:
        """Whether a table has the type that a user gave a column; both in lower case."""
        return expected == declared

    def _name(self, table: str) -> str:
        return sql.identifier(table)

    @contextlib.contextmanager
    def _errors(self, table: str = "") -> Any:
        """Raise our errors for those of the driver, with no transaction left open."""
        try:
            yield
        except LakelogError:
            raise
        # Drivers raise classes of their own, and an ADBC call on a closed handle a plain one.
        except Exception as error:
            is_gone = self._connection is None
            problem = f"{self.address}: the connection is closed"
            explained = ConnectionLost(problem) if is_gone else self._explained(error, table)
            is_undone = self._is_attempt and isinstance(explained, RowRefused)
            # A transaction that failed refuses all that follows: it is ended before anybody goes
            # on.
            if not isinstance(explained, ConnectionLost) and not is_undone:
                self.rollback()
            raise explained from None


def _array(values: Sequence[Any] | pa.Array, value_type: pa.DataType) -> pa.Array:
    """Values of a column as Arrow of a type; those that cannot be are null."""
    # Column by column in one call; only where that fails value by value.
    try:
        array = values if isinstance(values, pa.Array) else pa.array(values)
        # PostgreSQL's numeric is text of a type of its own.
        array = array.storage if isinstance(array, pa.ExtensionArray) else array
        # As wholly as it may be: a time zone and a smaller integer are others there.
        return (
            array.cast(value_type)
            if array.null_count < len(array)
            else pa.nulls(len(array), value_type)
        )
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        if len(values) > 1:
            chunks = (_array(values[n : n + 1], value_type) for n in range(len(values)))
            return pa.concat_arrays(list(chunks))
        return pa.nulls(len(values), value_type)


_CASTS = {
    "text": "VARCHAR",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "timestamptz": "TIMESTAMPTZ",
    "timestamp": "TIMESTAMP",
    "date": "DATE",
    "blob": "BLOB",
}
