"""Merged states in the engine's memory: a base that never changes, and what lies over it.

A state of millions of subjects is too long to be written anew for every hundred events. So where
a view has a key, a state is in parts: rows that were touched since are hidden in the part that has
them, and what they became is a new part. They are found by a sorted index of their keys' hashes,
so that extending costs what is new. Of many parts over the base those are joined that are not
much shorter than the next, which keeps them few; where they grew long, `fold` makes a new base of
all. States without a key are short, and merged as a whole. Tables are dropped once no layer uses
them.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lakelog import arrays
from lakelog.libraries import duckdb, np, pa
from lakelog.runtime.locks import OrderedLock, Rank
from lakelog.sql import identifier

SCHEMA = "lakelog_views"
_ROW, _HASH = "lakelog_row", "lakelog_hash"
"""A row of a table; and 32 bits of a key, which find the rows it may have."""
_SCANNED = 50_000
"""Of longer tables an index is made when they are searched again: it takes as long as a scan."""
_SHORT, _TIMES = 2_000, 8
"""A part is joined with the next if it has so few rows, or at most so many times those."""
_PARTS = 4
"""So many parts need not be joined: to read one takes less than to make one of two."""
_SPARE = 8
"""So many short tables without use wait to be written over, which saves a statement for each."""


# Parquet has no such type, or gives back another one.
_LOSSY = ("UHUGEINT", "VARIANT", "UNION", "MAP", "ENUM", "BIT", "TIME WITH", "INTERVAL", "GEOMETRY")


@dataclass(frozen=True)
class StateShape:
    """What a state looks like and how it is made: see Definition."""

    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...]
    merged: bool
    map: str
    merge: str

    @property
    def is_lossless(self) -> bool:
        """Whether Parquet gives the columns back as they were: otherwise an answer from the cache
        would differ from one computed."""
        types = [type_ for _, type_ in self.columns]
        is_huge = any("HUGEINT" in type_ and type_ != "HUGEINT" for type_ in types)
        return not is_huge and not any(word in type_ for type_ in types for word in _LOSSY)

    @property
    def listed(self) -> str:
        """The columns, for a SELECT list."""
        return ", ".join(identifier(name) for name, _ in self.columns)

    def rows(self, query: str) -> str:
        """SQL for the rows of a table of this shape: the columns in their types, and the hash."""
        cast = ", ".join(
            f"{identifier(n)}::{type_} AS {identifier(n)}" for n, type_ in self.columns
        )
        select = f"SELECT {cast} FROM ({query}\n)"
        if not self.key:
            return select
        keys = ", ".join(map(identifier, self.key))
        # 32 bits: with the row's number they are one integer, which sorts as fast as there is.
        return f"SELECT *, (hash({keys}) >> 32)::UINTEGER AS {_HASH} FROM ({select})"


class Unused:
    """Names of tables that nobody uses: short ones, to write over, and others, to drop."""

    def __init__(self) -> None:
        self.short: collections.deque[str] = collections.deque()
        self.others: collections.deque[str] = collections.deque()

    def spare(self) -> str | None:
        """Take the name of a table to write over."""
        # No look at the length before: another thread may take the last one.
        try:
            return self.short.popleft()
        except IndexError:
            return None

    def droppable(self) -> Iterator[str]:
        """Take the names of those that are to be dropped."""
        while self.others:
            yield self.others.popleft()
        while len(self.short) > _SPARE:
            yield self.short.popleft()


class LayerTable:
    """A table of the engine that is dropped or written over some time after the last use."""

    def __init__(self, name: str, rows: int, unused: Unused) -> None:
        self.name, self.rows = name, rows
        self.index: np.ndarray | None = None
        """Sorted numbers: the hash of a key, shifted by 32 bits, and the row that has it."""
        # Searched once only, a table would need a scan for its index, too: that is made the second
        # time.
        self.was_scanned = False
        names = unused.short if rows <= _SCANNED else unused.others
        # Called by whatever thread drops the last reference, so that it may only append.
        weakref.finalize(self, names.append, name)


class Hidden:
    """Rows of a table, sorted; as a table of the engine once one was asked for."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.table: LayerTable | None = None


@dataclass(frozen=True)
class LayerPart:
    """The rows of a table, but for those that parts after it have in their place."""

    table: LayerTable
    hidden: Hidden | None = None

    @property
    def rows(self) -> int:
        """Rows that are not hidden."""
        return self.table.rows - (len(self.hidden.rows) if self.hidden else 0)

    # A layer never changes, for others may read it: a part of it is made anew.
    def without(self, rows: np.ndarray) -> LayerPart:
        """Return the part with more rows hidden."""
        if not len(rows):
            return self
        before = [self.hidden.rows] if self.hidden else []
        return dataclasses.replace(self, hidden=Hidden(np.sort(np.concatenate([*before, rows]))))


@dataclass(frozen=True)
class LayerChange:
    """How a layer became another: rows of it (None if there were none) gave way to others."""

    layer: Layer
    gone: LayerTable | None
    come: LayerTable


class Layer:
    """One state, in parts of which no two have a row of one key; and what was made of it.

    The parts are one attribute, for another thread may put a folded base in their place.
    """

    def __init__(
        self, shape: StateShape, *layer_parts: LayerPart, change: LayerChange | None = None
    ) -> None:
        self.shape, self.parts, self.change = shape, layer_parts, change
        self.results: dict[object, pa.Table] = {}
        self.tables: dict[object, list[LayerTable]] = {}
        """Of queries, those parts that do not depend on the time."""
        self.sums: dict[str, tuple[LayerTable, dict[str, str]]] = {}
        """Totals, with the types of their columns."""

    @property
    def rows(self) -> int:
        """Rows held, hidden ones included."""
        return sum(layer_part.table.rows for layer_part in self.parts)


class LayerBuilder:
    """Makes layers in the database of one process; `small` states are merged whole."""

    def __init__(self, database: duckdb.DuckDBPyConnection, small: int) -> None:
        self._database, self._small = database, small
        self._unused = Unused()
        self._numbers = itertools.count(1)
        self._mutex = OrderedLock(Rank.LAYERS)
        self._ready = False

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own, with the schema there and unused tables gone."""
        with self._mutex.hold_once():
            # Cursors share the database, and each has its own registered names.
            cursor = self._database.cursor()
            if not self._ready:
                cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
                self._ready = True
            for name in self._unused.droppable():
                cursor.execute(f"DROP TABLE IF EXISTS {name}")
        return cursor

    def table(self, cursor: duckdb.DuckDBPyConnection, query: str) -> LayerTable:
        """Keep the rows of a query."""
        name = self._unused.spare() or f"{SCHEMA}.t{next(self._numbers)}"
        # OR REPLACE: the name may be of a short table that nobody reads any more.
        try:
            counts = cursor.execute(f"CREATE OR REPLACE TABLE {name} AS {query}").fetchall()
        except BaseException:
            # It may have been made nevertheless.
            self._unused.others.append(name)
            raise
        return LayerTable(name, int(counts[0][0]) if counts else 0, self._unused)

    def mapped(
        self,
        cursor: duckdb.DuckDBPyConnection,
        shape: StateShape,
        segment: str,
        table: str = "segment",
    ) -> LayerTable:
        """Keep the partial of the rows that SQL gives, merged in itself; `table` is the name that
        the map has for them."""
        mapped = given(shape.map, **{table: segment})
        return self.table(
            cursor, shape.rows(mapped if shape.merged else given(shape.merge, partials=mapped))
        )

    def merged(
        self, cursor: duckdb.DuckDBPyConnection, shape: StateShape, partials: Iterable[str]
    ) -> LayerTable:
        """Keep what the partials that several SELECTs give merge into."""
        selects = (f"SELECT {shape.listed} FROM ({partial})" for partial in partials)
        return self.table(
            cursor, shape.rows(given(shape.merge, partials=" UNION ALL ".join(selects)))
        )

    def pinned(self, cursor: duckdb.DuckDBPyConnection, layer: Layer) -> tuple[str, object]:
        """SQL that reads a state, and what must be kept while it runs."""
        # Read once: another thread may put a folded base in the place of the parts meanwhile.
        layer_parts = layer.parts
        selects = (
            f"SELECT {layer.shape.listed} {self._read(cursor, layer_part)}"
            for layer_part in layer_parts
            # One part at least, even if empty: UNION ALL of nothing is no query.
            if layer_part.rows or layer_part is layer_parts[0]
        )
        return " UNION ALL ".join(selects), layer_parts

    def extend(
        self, cursor: duckdb.DuckDBPyConnection, layer: Layer, deltas: list[LayerTable]
    ) -> Layer:
        """Return the state that merging in some partials gives."""
        partials = [f"FROM {delta.name}" for delta in deltas]
        if self._is_small(layer):
            return self._whole(cursor, layer, partials)
        # Merged among themselves first: the base is then searched only once.
        partial = self.merged(cursor, layer.shape, partials) if len(deltas) > 1 else deltas[0]
        return self._overlay(cursor, layer, partial)

    def lay(self, cursor: duckdb.DuckDBPyConnection, layer: Layer, segment: str) -> Layer:
        """Return the state that merging in the rows that SQL gives makes."""
        if not self._is_small(layer):
            return self._overlay(cursor, layer, self.mapped(cursor, layer.shape, segment))
        partial = self.table(cursor, given(layer.shape.map, segment=segment))
        # Where no row is of this view, what was computed from its state stays.
        return self._whole(cursor, layer, [f"FROM {partial.name}"]) if partial.rows else layer

    def fold(self, cursor: duckdb.DuckDBPyConnection, layer: Layer) -> None:
        """Make all parts one table, for whoever reads next."""
        rows, layer_parts = self.pinned(cursor, layer)
        base = self.table(cursor, layer.shape.rows(rows))
        # If the parts are others by now, what was made is of an older state, and is dropped.
        if layer.parts is layer_parts:
            layer.parts = (LayerPart(base),)

    def _is_small(self, layer: Layer) -> bool:
        return not layer.shape.key or layer.rows <= self._small

    def _whole(self, cursor: duckdb.DuckDBPyConnection, layer: Layer, partials: list[str]) -> Layer:
        rows, layer_parts = self.pinned(cursor, layer)
        table = self.merged(cursor, layer.shape, [rows, *partials])
        # Kept until here: the tables must not be written over while the query reads them.
        del layer_parts
        return Layer(layer.shape, LayerPart(table))

    def _overlay(self, cursor: duckdb.DuckDBPyConnection, layer: Layer, new: LayerTable) -> Layer:
        """Return the state that a partial merged in itself makes with the rows of its keys."""
        if not new.rows:
            return layer
        shape, layer_parts = layer.shape, layer.parts
        # The index is made of the hashes while they are at hand; the part will be searched later.
        column = _column(cursor, f"SELECT {_HASH} FROM {new.name}")
        new.index, hashes = _index(column), np.unique(column)
        # Rows of another key with an equal hash come along: merged alone, they stay what they are.
        hits = [self._found(cursor, layer_part, new, hashes) for layer_part in layer_parts]
        replaced, come = None, new
        touched = [
            (layer_part, hit) for layer_part, hit in zip(layer_parts, hits, strict=True) if len(hit)
        ]
        if touched:
            numbers = _rows(cursor, "hits", [hit for _, hit in touched])
            reads = (
                f"FROM {layer_part.table.name} WHERE rowid IN ({rows})"
                for (layer_part, _), rows in zip(touched, numbers, strict=True)
            )
            replaced = self.table(cursor, " UNION ALL ".join(reads))
            come = self.merged(cursor, shape, [f"FROM {new.name}", f"FROM {replaced.name}"])
        over = [layer_part.without(hit) for layer_part, hit in zip(layer_parts, hits, strict=True)]
        # What is before a layer whose totals were never asked for need not stay for them.
        before = layer.change
        if before is not None and not (layer.sums or before.layer.sums):
            layer.change = None
        return Layer(
            shape,
            *self._joined(cursor, [*over, LayerPart(come)]),
            change=LayerChange(layer, replaced, come),
        )

    def _found(
        self,
        cursor: duckdb.DuckDBPyConnection,
        layer_part: LayerPart,
        new: LayerTable,
        hashes: np.ndarray,
    ) -> np.ndarray:
        """The rows of a part that may have a key of new ones."""
        table = layer_part.table
        if table.index is None and table.rows > _SCANNED and not table.was_scanned:
            table.was_scanned = True
            among = f"{_HASH} IN (SELECT {_HASH} FROM {new.name})"
            rows: np.ndarray = np.sort(
                _column(cursor, f"SELECT rowid FROM {table.name} WHERE {among}")
            )
        else:
            if table.index is None:
                table.index = _index(_column(cursor, f"SELECT {_HASH} FROM {table.name}"))
            rows = _indexed(table.index, hashes)
        if layer_part.hidden is None or not len(rows):
            return rows
        # Hidden rows have been replaced by a later part, where they will be found themselves.
        hidden = layer_part.hidden.rows
        places = np.minimum(np.searchsorted(hidden, rows), len(hidden) - 1)
        unhidden: np.ndarray = rows[hidden[places] != rows]
        return unhidden

    def _joined(
        self, cursor: duckdb.DuckDBPyConnection, layer_parts: list[LayerPart]
    ) -> list[LayerPart]:
        """Join the last of many parts where they are about as long; the base stays as it is."""
        if len(layer_parts) <= _PARTS:
            return [
                layer_part
                for layer_part in layer_parts
                if layer_part.rows or layer_part is layer_parts[0]
            ]
        start, rows = len(layer_parts) - 1, layer_parts[-1].rows
        # Never the base (0): joining it would be a fold, whose time no reader should wait for.
        while start > 1 and layer_parts[start - 1].rows <= max(_SHORT, _TIMES * rows):
            start -= 1
            rows += layer_parts[start].rows
        some = [layer_part for layer_part in layer_parts[start:] if layer_part.rows]
        if len(some) < 2:
            return [*layer_parts[:start], *some]
        numbers = iter(_rows(cursor, "hidden", [p.hidden.rows for p in some if p.hidden]))
        reads = (
            _but(layer_part.table, next(numbers))
            if layer_part.hidden
            else f"FROM {layer_part.table.name}"
            for layer_part in some
        )
        return [*layer_parts[:start], LayerPart(self.table(cursor, " UNION ALL ".join(reads)))]

    def _read(self, cursor: duckdb.DuckDBPyConnection, layer_part: LayerPart) -> str:
        """SQL for the rows of a part, from FROM on."""
        hidden = layer_part.hidden
        if hidden is None:
            return f"FROM {layer_part.table.name}"
        if hidden.table is None:
            (rows,) = _rows(cursor, "hidden", [hidden.rows])
            hidden_table = self.table(cursor, rows)
            with self._mutex.hold_once():  # one that another thread reads is not let go
                hidden.table = hidden.table or hidden_table
        return _but(layer_part.table, f"FROM {hidden.table.name}")


def _column(cursor: duckdb.DuckDBPyConnection, query: str) -> np.ndarray:
    """The only column that a query gives."""
    (column,) = cursor.execute(query).fetchnumpy().values()
    return column


def _rows(cursor: duckdb.DuckDBPyConnection, name: str, lists: list[np.ndarray]) -> list[str]:
    """Give a connection lists of row numbers under a name; return SQL that reads each.

    They are columns of one table, for a name takes as long as a short statement. The shorter ones
    end in repetitions, which neither IN nor NOT IN minds.
    """
    if not lists:
        return []
    longest = max(map(len, lists))
    padded = (np.pad(rows, (0, longest - len(rows)), "edge") for rows in lists)
    columns = {f"{_ROW}{nth}": arrays.integers(rows) for nth, rows in enumerate(padded)}
    cursor.register(f"lakelog_{name}", pa.table(columns))
    return [f"SELECT {column} FROM lakelog_{name}" for column in columns]


def _but(table: LayerTable, hidden: str) -> str:
    """SQL for the rows of a table without those of some numbers."""
    return f"FROM {table.name} WHERE rowid NOT IN ({hidden})"


def _index(hashes: np.ndarray) -> np.ndarray:
    """Return an index of a table whose rows have these hashes, in their order."""
    # The hash above the row number: one sort orders both, and one search finds all rows of a hash.
    numbers = hashes.astype(np.uint64) << np.uint64(32)
    numbers |= np.arange(len(hashes), dtype=np.uint64)
    numbers.sort()
    return numbers


def _indexed(index: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """The rows that an index has for hashes, sorted."""
    low = hashes.astype(np.uint64) << np.uint64(32)
    starts = np.searchsorted(index, low)
    # Ranges in place of single places: several rows may have a hash.
    counts = np.searchsorted(index, low | np.uint64(0xFFFFFFFF), "right") - starts
    ends = np.cumsum(counts)
    places = np.repeat(starts + counts - ends, counts) + np.arange(counts.sum())
    return np.sort((index[places] & np.uint64(0xFFFFFFFF)).astype(np.int64))


def view(cursor: duckdb.DuckDBPyConnection, name: str, query: str) -> None:
    """Give a query a name that only this connection knows."""
    cursor.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {query}")


def given(sql: str, **relations: str) -> str:
    """SQL that reads relations of its own, each of a name and a query; its order is lost."""
    # In a WITH, as names of a subquery hide those of tables around it.
    return f"(WITH {named(relations)} SELECT * FROM ({sql}\n))"


def named(relations: Mapping[str, str]) -> str:
    """SQL for the queries of a WITH, by their names."""
    # Materialized, a relation of millions of rows would be copied where it is read once.
    return ", ".join(f"{name} AS NOT MATERIALIZED ({q}\n)" for name, q in relations.items())
