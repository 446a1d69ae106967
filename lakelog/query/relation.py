"""Relation: the answer to a query, evaluated when its rows are asked for.

It has the methods of DuckDB's relation and gives what they give. What goes wrong while it is
evaluated is QueryFailed with one line, as for what `sql` itself refuses; and Ctrl-C stops it,
which a native call does not hear by itself (lakelog/query/stream.py).
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from lakelog import render
from lakelog.engine.messages import EngineMessage
from lakelog.errors import QueryFailed
from lakelog.libraries import duckdb, np, pa
from lakelog.query import stream
from lakelog.query.stream import READING, Batches, ResultRow, Stream
from lakelog.runtime.lazy import LazyProperty
from lakelog.sql import identifier

if TYPE_CHECKING:
    import altair
    import pandas
    import polars
    from duckdb.sqltypes import DuckDBPyType

_ARROW_CASTS = {
    "UHUGEINT": "DECIMAL(38, 0)",
    **dict.fromkeys(("BIT", "BIGNUM", "TIME WITH TIME ZONE"), "VARCHAR"),
}
"""Types that Arrow lacks, which the engine gives it as other values: the largest UHUGEINT is -1."""
_NESTED_KINDS = frozenset(("array", "list", "map", "struct"))
_LONG = frozenset(
    "count execute explain fetchdf max min mean sum tf to_csv to_dicts to_parquet torch write_csv"
    " write_parquet".split()
)
"""What evaluates a query at one go."""

_T = TypeVar("_T")
Failure = Callable[[str], QueryFailed]
"""Returns the error for the engine's words."""


def _arrow_cast(column_type: DuckDBPyType) -> str | None:
    """Return the type to cast to where Arrow lacks one or what is inside it, else None."""
    type_name = column_type.id
    if type_name not in _NESTED_KINDS:
        return _ARROW_CASTS.get(str(column_type))
    children: list[tuple[str, Any]] = [
        (name, child) for name, child in column_type.children if hasattr(child, "id")
    ]
    casts = [_arrow_cast(child) for _, child in children]
    if not any(casts):
        return None
    types = [cast or str(child) for cast, (_, child) in zip(casts, children, strict=True)]
    if type_name == "list":
        return f"{types[0]}[]"
    if type_name == "array":
        return f"{types[0]}[{column_type.children[1][1]}]"
    if type_name == "struct":
        types = [
            f"{identifier(name)} {member}"
            for (name, _), member in zip(children, types, strict=True)
        ]
    return f"{type_name}({', '.join(types)})"


def failed(message: str) -> QueryFailed:
    """Return the error for the engine's words."""
    return QueryFailed(EngineMessage(message).explained(), message)


def translated(error: Exception, failure: Failure) -> BaseException:
    """Return what to raise for what the engine raises: QueryFailed, for its interrupt
    KeyboardInterrupt."""
    if EngineMessage.is_interrupt(error):
        return KeyboardInterrupt()
    return failure(str(error)) if isinstance(error, duckdb.Error) else error


@contextlib.contextmanager
def guarded(failure: Failure = failed) -> Iterator[None]:
    """Raise what the engine raises as QueryFailed, and its interrupt as KeyboardInterrupt."""
    try:
        yield
    except (duckdb.Error, RuntimeError) as error:
        raise translated(error, failure) from None


def require(package: str, feature: str, install: str) -> None:
    """Raise QueryFailed with one sentence if a package that only some need is not installed."""
    if find_spec(package) is None:
        raise QueryFailed(f"{feature} needs {package}: {install}")


class Relation:
    """Rows of one state of a lake. Each evaluation runs the query again over that same state."""

    def __init__(
        self,
        relation: duckdb.DuckDBPyRelation | None,
        stream: Stream,
        failure: Failure,
        *,
        is_whole: bool = True,
    ) -> None:
        """`stream` is of the query that the relation was made by, `is_whole` if it is just that;
        without a relation it makes one when something besides rows is asked for."""
        self._made, self._stream, self._failure = relation, stream, failure
        self._is_whole, self._process = is_whole, os.getpid()
        self._rows: Iterator[ResultRow] | None = None
        READING.add(self)

    @property
    def _relation(self) -> duckdb.DuckDBPyRelation:
        """The engine's relation."""
        if self._made is None:
            self._require_own_process()
            self._made = self._stream.relation()
        return self._made

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._relation.columns)

    @property
    def types(self) -> list[DuckDBPyType]:
        """The engine's types of the columns."""
        return list(self._relation.types)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns; the rows are counted."""
        return len(self), len(self.columns)

    def fetchall(self) -> list[ResultRow]:
        """All rows."""
        rows = self._call(self._stream.rows) if self._is_whole else None
        return list(self._run("fetchall")) if rows is None else list(rows)

    def fetchone(self) -> ResultRow | None:
        """The next row, or None after the last one."""
        if self._rows is None:
            self._rows = self.iter_rows()
        return next(self._rows, None)

    def fetchmany(self, size: int = 1) -> list[ResultRow]:
        """The next rows, `size` of them at most."""
        if self._rows is None:
            self._rows = self.iter_rows()
        return list(islice(self._rows, size))

    def iter_rows(self, size: int = 1024) -> Iterator[ResultRow]:
        """Each row, made `size` at a time. Of a relation narrowed by `filter` and its like,
        the engine makes all before the first; `to_arrow_reader` streams those too."""
        # The stream knows nothing of what a relation was narrowed by.
        run = self._call(self._stream.start) if self._is_whole else None
        if run is None:
            rows = self._relation.iter_rows(size)
            while batch := self._call(lambda: list(islice(rows, size))):
                yield from batch
            return
        try:
            while batch := self._call(run.read, size):
                yield from batch
        finally:
            with guarded(self._failure):
                run.stop()

    def to_arrow_table(self, size: int = 1_000_000) -> pa.Table:
        """All rows as an Arrow table."""
        return self.for_arrow(self)._run("to_arrow_table", size)

    def to_arrow_reader(self, size: int = 1_000_000) -> pa.RecordBatchReader:
        """All rows as a stream of Arrow batches; what goes wrong on the way is raised there."""
        reader = self.for_arrow(self)._run("to_arrow_reader", size)
        # Errors of a stream come while it is read: they are ours there, too.
        batches = Batches(self._stream, functools.partial(self._next_batch, reader))
        return pa.RecordBatchReader.from_batches(reader.schema, batches)

    def arrow(self, size: int = 1_000_000) -> pa.RecordBatchReader:
        """The same as `to_arrow_reader`, under DuckDB's name."""
        return self.to_arrow_reader(size)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.to_arrow_reader().__arrow_c_stream__(requested_schema)

    def df(self) -> pandas.DataFrame:
        """All rows as a pandas data frame."""
        require("pandas", ".df()", "pip install pandas")
        with warnings.catch_warnings():
            # The engine's own, which nobody who calls this can mend.
            warnings.filterwarnings("ignore", "The inplace keyword")
            return self._run("df")

    def pl(self) -> polars.DataFrame:
        """All rows as a Polars data frame."""
        require("polars", ".pl()", "pip install 'lakelog[polars]'")
        frame: polars.DataFrame = self.for_arrow(self)._run("pl")
        return frame

    def plot(
        self,
        x: str | None = None,
        y: str | None = None,
        color: str | None = None,
        *,
        kind: str | None = None,
        title: str = "",
    ) -> altair.Chart:
        """A chart: a line over time, bars by text, a histogram or points of numbers.

        Columns and `kind` ("line", "bar", "histogram", "point") that are not given are chosen by
        the types. Rows are aggregated by the engine. Raises QueryFailed for what cannot be plotted.
        """
        require("altair", ".plot()", "pip install 'lakelog[jupyter]'")
        return render.plot(self, x, y, color, kind, title)

    @LazyProperty
    def head(self) -> render.DisplayHead:
        """The first rows as text, for people; they are read once."""
        return render.DisplayHead.of(self)

    def watch(self) -> Callable[[], float | None]:
        """Return a function that tells how much of an evaluation is done, from 0 to 1, or None
        where the engine does not know; another thread may call it."""
        return self._stream.watch()

    def interrupt(self) -> None:
        """Stop an evaluation that another thread has asked for; there, KeyboardInterrupt is raised.
        One that comes between two steps of the engine is lost: call it until that has ended."""
        self._stream.interrupt()

    def _repr_html_(self) -> str:
        return self.head.to_html()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        # Both at once: each by itself would run the query again.
        plain, markup = self.head.to_text(), self.head.to_html()
        return {"text/plain": plain, "text/html": markup}

    def __dataframe__(self, nan_as_null: bool = False, allow_copy: bool = True) -> object:
        return self.to_arrow_table().__dataframe__(nan_as_null, allow_copy)

    def fetchnumpy(self) -> dict[str, np.ndarray]:
        """All rows as NumPy arrays, by column."""
        return dict(self._run("fetchnumpy"))

    def show(self) -> None:
        """Print the first rows."""
        self._run("show")

    def limit(self, count: int, offset: int = 0) -> Relation:
        """Some of the rows."""
        return self._narrowed("limit", count, offset)

    def filter(self, condition: str) -> Relation:
        """The rows for which SQL holds."""
        return self._narrowed("filter", condition)

    def order(self, by: str) -> Relation:
        """The rows in the order of some SQL."""
        return self._narrowed("order", by)

    def project(self, columns: str) -> Relation:
        """Other columns of the rows, as in SELECT."""
        return self._narrowed("project", columns)

    def aggregate(self, expressions: str, by: str = "") -> Relation:
        """Aggregates of the rows, for each value of `by`."""
        return self._narrowed("aggregate", expressions, by)

    def distinct(self) -> Relation:
        """The rows without repetitions."""
        return self._narrowed("distinct")

    if not TYPE_CHECKING:  # programs are checked against the methods above

        def __getattr__(self, name: str) -> object:
            """The other methods of DuckDB's relation, such as `join` and `write_csv`."""
            if name.startswith("_"):
                # Dunder and private names are asked for by libraries that try what an object can
                # do.
                raise AttributeError(name)
            attribute = getattr(self._relation, name)
            if not callable(attribute):
                return attribute

            def call(*args: object, **named: object) -> object:
                if name in _LONG:
                    return self._run(name, *args, **named)
                with guarded(self._failure):
                    self._stream.settle()
                    return _unwrapped(getattr(self._relation, name)(*args, **named), self)

            return call

    def __iter__(self) -> Iterator[ResultRow]:
        return self.iter_rows()

    def __len__(self) -> int:
        return int(self._run("__len__"))

    def __bool__(self) -> bool:
        return self.limit(1).__len__() > 0

    def __contains__(self, name: str) -> bool:
        return name in self._relation

    def __getitem__(self, name: str) -> Relation:
        return self._with(self._relation[name])

    def __repr__(self) -> str:
        return str(self._run("__repr__"))

    @staticmethod
    def for_arrow(relation: Any) -> Any:
        """The rows of a relation, which may be the engine's own, in types that Arrow has."""
        casts = [_arrow_cast(column_type) for column_type in relation.types]
        if not any(casts):
            return relation
        names = relation.limit(0).columns
        columns = [
            f"#{place}" + (f"::{cast} AS {identifier(name)}" if cast else "")
            for place, (name, cast) in enumerate(zip(names, casts, strict=True), 1)
        ]
        return relation.project(", ".join(columns))

    def _with(self, relation: duckdb.DuckDBPyRelation) -> Relation:
        return Relation(relation, self._stream, self._failure, is_whole=False)

    def _narrowed(self, name: str, *args: object) -> Relation:
        with guarded(self._failure):
            self._stream.settle()
            return self._with(getattr(self._relation, name)(*args))

    def _run(self, name: str, *args: object, **kwargs: object) -> Any:
        """Call a method that evaluates; Ctrl-C stops it within a moment."""

        def evaluate() -> object:
            self._stream.settle()
            return getattr(self._relation, name)(*args, **kwargs)

        return _unwrapped(self._call(evaluate), self)

    def _next_batch(self, reader: pa.RecordBatchReader) -> pa.RecordBatch | None:
        """The next batch of a stream, through which the engine's errors come as Arrow's."""
        try:
            return self._call(next, reader, None)
        except (OSError, pa.ArrowException) as error:
            if EngineMessage.is_interrupt(error):
                raise KeyboardInterrupt from None
            raise self._failure(str(error)) from None

    def _call(self, work: Callable[..., _T], *args: object) -> _T:
        """Let the engine work, so that signals are heard within a moment."""
        self._require_own_process()
        with guarded(self._failure):
            with stream.interrupting(self._stream.interrupt) as is_heard:
                if is_heard:
                    return work(*args)
            # Signals reach the main thread alone: others call the engine directly.
            if threading.current_thread() is not threading.main_thread():
                return work(*args)
            return self._beside(lambda: work(*args))

    def _require_own_process(self) -> None:
        # The engine's threads are not in a fork, where it would wait for them.
        if os.getpid() != self._process:
            raise QueryFailed("the query was asked before a fork: ask again in the new process")

    def _beside(self, call: Callable[[], _T]) -> _T:
        """Run a call in a thread of its own, interrupting the engine if the wait is: so the signal
        handlers of a program run, and may raise what they like."""
        outcome: list[_T] = []
        fault: list[BaseException] = []
        # Not Thread.join: up to Python 3.12 a join that a signal handler ends by an exception takes
        # the thread for ended, and the next join does not wait (bpo-45274).
        ended = threading.Event()

        def work() -> None:
            try:
                outcome.append(call())
            except BaseException as error:
                fault.append(error)
            finally:
                ended.set()

        threading.Thread(target=work, daemon=True).start()
        try:
            # Not at one go: once Polars is loaded, a signal does not end a wait any more.
            while not ended.wait(stream.HEARD):
                pass
        except BaseException:
            while not ended.is_set():
                self._stream.interrupt()
                ended.wait(stream.AGAIN)
            raise
        if fault:
            raise fault[0]
        return outcome[0]


def _unwrapped(value: object, relation: Relation) -> Any:
    """What a method gave, relations of the engine as ours."""
    return relation._with(value) if type(value) is type(relation._relation) else value
