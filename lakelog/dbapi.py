"""The Python database interface, PEP 249, over a lake; with Arrow under ADBC's names.

    with lakelog.connect("lake") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT type, count(*) FROM events WHERE time > ? GROUP BY 1", [since])
        print(cursor.fetchall())

A lake is read through SQL and never written: everything but a query is NotSupportedError, and
commit and rollback do nothing. Each execute sees what was appended before it, or one fixed state
with `at`.

    Error (a LakelogError)
    ├── InterfaceError           a closed connection or cursor, or no result to fetch
    └── DatabaseError
        ├── DataError            a value that cannot be cast, or is out of range
        ├── OperationalError     no such lake, a damaged file, the disk, memory
        ├── IntegrityError       never raised by a lake
        ├── InternalError        a fault of the engine
        ├── ProgrammingError     wrong SQL, unknown names, wrong parameters
        └── NotSupportedError    writing
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from lakelog import lake as lakes
from lakelog import views
from lakelog.engine.messages import EngineMessage
from lakelog.engine.syntax import ParsedStatement
from lakelog.errors import InvalidName, LakelogError, QueryFailed, UnknownRef
from lakelog.libraries import pa

if TYPE_CHECKING:
    from duckdb.sqltypes import DuckDBPyType

    from lakelog.pinned import PinnedLake
    from lakelog.query import Relation

apilevel = "2.0"
threadsafety = 1
"""Threads may share this module, not a connection."""
paramstyle = "qmark"
"""`?` with a sequence; `$name` with a dict works as well."""

_BATCH = 1024
Row = tuple[Any, ...]
Parameters = Sequence[object] | Mapping[str, object]


class Warning(Exception):
    """Never raised; PEP 249 names it."""


class Error(LakelogError):
    """The base of all errors here; the message says what to do, `__cause__` is the original
    error."""


class InterfaceError(Error):
    """Raised for a closed connection or cursor, or where there is no result to fetch."""


class DatabaseError(Error):
    """Raised for what goes wrong with the lake or a query."""


class DataError(DatabaseError):
    """Raised for a value that cannot be cast, or is out of range."""


class OperationalError(DatabaseError):
    """Raised where there is no lake, a file is damaged or gone, or memory or the disk fails."""


class IntegrityError(DatabaseError):
    """Never raised by a lake, which has no constraints."""


class InternalError(DatabaseError):
    """Raised for a fault of the engine."""


class ProgrammingError(DatabaseError):
    """Raised for wrong SQL, unknown names or states, and wrong parameters."""


class NotSupportedError(DatabaseError):
    """Raised for writing through SQL."""


class TypeObject:
    """A kind of column: equal to the type code of each type it stands for.

    Nested types (LIST, STRUCT, MAP, UNION, ARRAY) are of no kind.
    """

    def __init__(self, *codes: str) -> None:
        self._codes = frozenset(codes)

    def __eq__(self, code: object) -> bool:
        return self is code or code in self._codes

    def __hash__(self) -> int:
        return hash(self._codes)


STRING = TypeObject("VARCHAR", "ENUM", "UUID", "JSON")
BINARY = TypeObject("BLOB", "BIT")
NUMBER = TypeObject(
    *"BOOLEAN TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT".split(),
    *"UHUGEINT FLOAT DOUBLE DECIMAL".split(),
)
DATETIME = TypeObject(
    *("DATE", "TIME", "TIME WITH TIME ZONE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"),
    *("TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "INTERVAL"),
)
ROWID = TypeObject()
"""Equal to no type: an event's `seq` is a NUMBER."""

Date, Time, Timestamp, Binary = datetime.date, datetime.time, datetime.datetime, bytes


def DateFromTicks(ticks: float) -> datetime.date:
    """Return the date of seconds since 1970, in local time as PEP 249 has it."""
    return datetime.date.fromtimestamp(ticks)


def TimeFromTicks(ticks: float) -> datetime.time:
    """Return the time of day of seconds since 1970, in local time."""
    return datetime.datetime.fromtimestamp(ticks).time()


def TimestampFromTicks(ticks: float) -> datetime.datetime:
    """Return the moment of seconds since 1970, in local time with its offset: a lake takes times
    without one for UTC."""
    return datetime.datetime.fromtimestamp(ticks).astimezone()


def connect(
    path: str | os.PathLike[str], branch: str = "main", at: str | None = None
) -> Connection:
    """Open the lake at `path`, which must be there; `at` asks one of its states, fixed for good.

    Raises OperationalError for no lake or a damaged one, ProgrammingError for no such branch or
    state.
    """
    with _translate_errors():
        lake = lakes.open(path, create=False, branch=branch)
        try:
            return Connection(lake, lake if at is None else lake.at(at))
        except BaseException:
            lake.close()
            raise


class Connection:
    """A lake, or one state of it. A context manager that closes."""

    Warning, Error = Warning, Error
    InterfaceError, DatabaseError = InterfaceError, DatabaseError
    DataError, OperationalError, IntegrityError = DataError, OperationalError, IntegrityError
    InternalError, ProgrammingError = InternalError, ProgrammingError
    NotSupportedError = NotSupportedError

    def __init__(self, lake: lakes.Lake, source: lakes.Lake | PinnedLake) -> None:
        self._lake, self._source = lake, source
        self._is_closed = False

    def cursor(self) -> Cursor:
        """Return a cursor. Those of one connection do not disturb each other."""
        self._check()
        return Cursor(self)

    def commit(self) -> None:
        """Do nothing: there is nothing to commit."""
        self._check()

    def rollback(self) -> None:
        """Do nothing: a connection only reads, so there is nothing to take back.

        The lake itself goes back with Lake.rollback(ref).
        """
        self._check()

    def close(self) -> None:
        """Close the lake; cursors cannot be used any more. To close twice is no error."""
        self._is_closed = True
        self._lake.close()

    def view_names(self) -> list[str]:
        """Return the names of the views of the state: each is a table of queries."""
        self._check()
        with _translate_errors():
            return [view.name for view, _ in views.LakeViews(self._source).listed()]

    def _check(self) -> None:
        if self._is_closed:
            raise InterfaceError("the connection is closed")

    def __enter__(self) -> Connection:
        self._check()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Cursor:
    """Runs one query at a time and gives its rows, in Python values or as Arrow."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.arraysize = 1
        self.description: list[Row] | None = None
        self._is_closed = False
        self._relation: Relation | None = None
        self._rows: Iterator[Row] | None = None

    @property
    def rowcount(self) -> int:
        """-1: how many rows a query has is known when the last one is fetched."""
        return -1

    def execute(self, operation: str, parameters: Parameters | None = None) -> Cursor:
        """Prepare a query over the lake as it is now; its rows are made as they are fetched.

        Returns the cursor itself. Raises ProgrammingError, NotSupportedError, OperationalError.
        """
        self._check()
        self._drop_result()
        with _translate_errors():
            self._refuse_writes(operation)
            values = dict(parameters) if isinstance(parameters, Mapping) else parameters
            self._relation = self.connection._source.sql(operation, values or None)
            self.description = [
                _column_description(name, column_type)
                for name, column_type in zip(
                    self._relation.columns, self._relation.types, strict=True
                )
            ]
        return self

    def executemany(self, operation: str, seq_of_parameters: Sequence[Parameters]) -> None:
        """Raise NotSupportedError: it is for writes, and a lake is written by Lake.append."""
        self._check()
        raise NotSupportedError(_WRITES)

    def fetchone(self) -> Row | None:
        """Return the next row, or None after the last."""
        with _translate_errors():
            return next(self._row_iterator(), None)

    def fetchmany(self, size: int | None = None) -> list[Row]:
        """Return the next rows: `size`, or `arraysize` of them, fewer at the end."""
        with _translate_errors():
            return list(islice(self._row_iterator(), self.arraysize if size is None else size))

    def fetchall(self) -> list[Row]:
        """Return all rows that are left."""
        with _translate_errors():
            # Nothing was fetched yet: one call of the engine instead of one for each batch.
            if self._rows is None and self._relation is not None:
                self._check()
                self._rows = iter(self._relation.fetchall())
            return list(self._row_iterator())

    def fetch_arrow_table(self) -> pa.Table:
        """Return all rows as an Arrow table. Raises ProgrammingError once rows were fetched."""
        with _translate_errors():
            table: pa.Table = self._unread_relation().to_arrow_table()
            return table

    def fetch_record_batch(self, rows_per_batch: int = 131_072) -> pa.RecordBatchReader:
        """Return all rows as a stream of Arrow batches, each made when it is read."""
        with _translate_errors():
            reader: pa.RecordBatchReader = self._unread_relation().to_arrow_reader(rows_per_batch)
            return reader

    def setinputsizes(self, sizes: Sequence[object]) -> None:
        """Do nothing, as PEP 249 allows."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Do nothing, as PEP 249 allows."""

    def close(self) -> None:
        """Release the result. To close twice is no error."""
        self._drop_result()
        self._is_closed = True

    def _refuse_writes(self, operation: str) -> None:
        """Raise for anything but a single query."""
        parsed = ParsedStatement.list_of(self.connection._lake.engine().cursor(), operation)
        if len(parsed) != 1:
            raise ProgrammingError(f"execute takes one statement, not {len(parsed)}")
        if not parsed[0].is_query:
            raise NotSupportedError(_WRITES)

    def _unread_relation(self) -> Relation:
        self._check()
        if self._relation is None:
            raise InterfaceError("there is no result: execute a query first")
        if self._rows is not None:
            raise ProgrammingError("rows were fetched already: execute the query again for Arrow")
        # A relation can be read once: rows after an Arrow table would start again.
        self._rows = iter(())
        return self._relation

    def _row_iterator(self) -> Iterator[Row]:
        self._check()
        if self._relation is None:
            raise InterfaceError("there is no result: execute a query first")
        if self._rows is None:
            self._rows = self._relation.iter_rows(_BATCH)
        return self._rows

    def _drop_result(self) -> None:
        self._relation = self._rows = self.description = None

    def _check(self) -> None:
        if self._is_closed:
            raise InterfaceError("the cursor is closed")
        self.connection._check()

    def __iter__(self) -> Cursor:
        return self

    def __next__(self) -> Row:
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row

    def __enter__(self) -> Cursor:
        self._check()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_WRITES = "a lake is read through SQL, not written: append events with lakelog.open(path).append"


def _column_description(name: str, column_type: DuckDBPyType) -> Row:
    """A column as PEP 249 describes it; its type code is a name without parameters."""
    precision = scale = None
    if column_type.id == "decimal":
        precision, scale = (value for _, value in column_type.children)
    # JSON is an alias of VARCHAR in the engine, so its id says VARCHAR.
    code = "JSON" if str(column_type) == "JSON" else str(column_type.id).upper()
    return (name, code, None, None, precision, scale, None)


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise every failure as the error class that PEP 249 has for it."""
    try:
        yield
    # An error of this module has its class already.
    except Error:
        raise
    except (LakelogError, OSError) as error:
        raise _class_of(error)(str(error)) from error
    except Exception as error:
        if not EngineMessage.is_engine(error):  # a fault of ours stays what it is
            raise
        raise _class_of(error)(str(error)) from error


def _class_of(error: Exception) -> type[Error]:
    """The class for an error of lakelog, the disk, or the engine, which has the same tree."""
    if isinstance(error, (UnknownRef, InvalidName)):
        return ProgrammingError
    # A failed query hides the engine's own error, whose class says more.
    cause = error.__context__ if isinstance(error, QueryFailed) else error
    names = [error_type.__name__ for error_type in type(cause).__mro__]
    for error_type in DatabaseError.__subclasses__():
        if error_type.__name__ in names:
            return error_type
    return ProgrammingError if isinstance(error, QueryFailed) else OperationalError
