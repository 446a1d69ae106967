"""Merged states in the engine's memory: a base that never changes, and what lies over it.

A state of millions of subjects is too long to be written anew for every ten thousand events. So
where a view has a key, rows of the base that were touched since are hidden by their row ids, and
what they became stands in `top`: reading is one pass over integers, extending costs what is new.
Where top grew long, `fold` makes a new base of both. States without a key are short, and merged
as a whole. Tables are dropped once no layer uses them.
"""

from __future__ import annotations

import collections
import itertools
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakelog.store.sql import identifier

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

SCHEMA = "lakelog_views"
_ROW, _HASH = "lakelog_row", "lakelog_hash"
"""Where a hidden row stands in the base; and 32 bits of a key, which find the rows it may have."""


@dataclass(frozen=True)
class Shape:
    """What a state looks like and how it is made: see Definition."""

    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...]
    merged: bool
    map: str
    merge: str

    @property
    def listed(self) -> str:
        """The columns, for a SELECT list."""
        return ", ".join(identifier(name) for name, _ in self.columns)

    def rows(self, query: str) -> str:
        """SQL for the rows of a table of this shape: the columns in their types, and the hash."""
        cast = ", ".join(f"{identifier(n)}::{kind} AS {identifier(n)}" for n, kind in self.columns)
        select = f"SELECT {cast} FROM ({query}\n)"
        if not self.key:
            return select
        keys = ", ".join(map(identifier, self.key))
        return f"SELECT *, (hash({keys}) >> 32)::UINTEGER AS {_HASH} FROM ({select})"


class Table:
    """A table of the engine that is dropped some time after the last use; `sums` are its totals."""

    def __init__(self, name: str, rows: int, dropped: collections.deque[str]) -> None:
        self.name, self.rows = name, rows
        self.sums: dict[str, tuple[Table, dict[str, str]]] = {}
        weakref.finalize(self, dropped.append, name)


Tables = tuple[Table, Table | None, Table | None]
"""A base, what lies over it, and the rows of the base that it hides."""


class Layer:
    """One state: rows of base that are not in hidden, and top; `results` and `kept` of it.

    The three tables are one attribute, for another thread may put a folded base in their place.
    """

    def __init__(
        self, shape: Shape, base: Table, top: Table | None = None, hidden: Table | None = None
    ) -> None:
        self.shape = shape
        self.tables: Tables = base, top, hidden
        self.results: dict[Any, pa.Table] = {}
        self.kept: dict[Any, tuple[str, list[Table]]] = {}

    @property
    def rows(self) -> int:
        """Rows held, hidden ones included."""
        base, top, _ = self.tables
        return base.rows + (top.rows if top else 0)

    def pinned(self) -> tuple[str, Tables]:
        """SQL that reads the state, and the tables that must be kept while it runs."""
        base, top, hidden = tables = self.tables
        sql = f"SELECT {self.shape.listed} FROM {base.name}"
        if hidden is not None and hidden.rows:
            sql += f" WHERE rowid NOT IN (SELECT {_ROW} FROM {hidden.name})"
        if top is not None and top.rows:
            sql += f" UNION ALL SELECT {self.shape.listed} FROM {top.name}"
        return sql, tables


class LayerBuilder:
    """Makes layers in the database of one process; `small` states are merged whole."""

    def __init__(self, database: duckdb.DuckDBPyConnection, small: int) -> None:
        self._database, self._small = database, small
        self._dropped: collections.deque[str] = collections.deque()
        self._numbers = itertools.count(1)
        self._mutex = threading.Lock()
        self._ready = False

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own, with the schema there and unused tables gone."""
        with self._mutex:
            cursor = self._database.cursor()
            if not self._ready:
                cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
                self._ready = True
            while self._dropped:
                cursor.execute(f"DROP TABLE IF EXISTS {self._dropped.popleft()}")
        return cursor

    def table(self, cursor: duckdb.DuckDBPyConnection, query: str) -> Table:
        """Keep the rows of a query."""
        name = f"{SCHEMA}.t{next(self._numbers)}"
        done = cursor.execute(f"CREATE TABLE {name} AS {query}").fetchall()
        return Table(name, int(done[0][0]) if done else 0, self._dropped)

    def mapped(
        self, cursor: duckdb.DuckDBPyConnection, shape: Shape, segment: str, table: str = "segment"
    ) -> Table:
        """Keep the partial of the rows that SQL gives, merged in itself; `table` is the name that
        the map has for them."""
        mapped = given(shape.map, **{table: segment})
        return self.table(
            cursor, shape.rows(mapped if shape.merged else given(shape.merge, partials=mapped))
        )

    def merged(
        self, cursor: duckdb.DuckDBPyConnection, shape: Shape, parts: Iterable[str]
    ) -> Table:
        """Keep what the partials that several SELECTs give merge into."""
        listed = (f"SELECT {shape.listed} FROM ({part})" for part in parts)
        return self.table(
            cursor, shape.rows(given(shape.merge, partials=" UNION ALL ".join(listed)))
        )

    def extend(self, cursor: duckdb.DuckDBPyConnection, layer: Layer, deltas: list[Table]) -> Layer:
        """Return the state that merging in some partials gives."""
        parts = [f"FROM {delta.name}" for delta in deltas]
        if self._is_small(layer):
            return self._whole(cursor, layer, parts)
        if len(deltas) > 1:
            return self._overlay(cursor, layer, self.table(cursor, " UNION ALL ".join(parts)))
        return self._overlay(cursor, layer, deltas[0])

    def lay(self, cursor: duckdb.DuckDBPyConnection, layer: Layer, segment: str) -> Layer:
        """Return the state that merging in the rows that SQL gives makes."""
        if self._is_small(layer):
            return self._whole(cursor, layer, [given(layer.shape.map, segment=segment)])
        return self._overlay(cursor, layer, self.mapped(cursor, layer.shape, segment))

    def _is_small(self, layer: Layer) -> bool:
        return not layer.shape.key or layer.rows <= self._small

    def _whole(self, cursor: duckdb.DuckDBPyConnection, layer: Layer, parts: list[str]) -> Layer:
        held, kept = layer.pinned()
        made = self.merged(cursor, layer.shape, [held, *parts])
        del kept
        return Layer(layer.shape, made)

    def fold(self, cursor: duckdb.DuckDBPyConnection, layer: Layer) -> None:
        """Make base and top one table, for whoever reads next."""
        held, kept = layer.pinned()
        base = self.table(cursor, layer.shape.rows(held))
        # Here, in the background: the next reader would have to add up the whole base.
        for totals, (_, columns) in list(kept[0].sums.items()):
            rows = f"SELECT {layer.shape.listed} FROM {base.name}"
            base.sums[totals] = self.table(cursor, given(totals, state=rows)), columns
        if layer.tables is kept:
            layer.tables = base, None, None

    def _overlay(self, cursor: duckdb.DuckDBPyConnection, layer: Layer, new: Table) -> Layer:
        shape, listed = layer.shape, layer.shape.listed
        base, top, hidden = layer.tables
        # Rows of another key with an equal hash come along: merged alone, they stay what they are.
        touched = f"SELECT rowid AS {_ROW}, {listed} FROM {base.name} WHERE {_among(new)}"
        if hidden is not None:
            touched += f" AND rowid NOT IN (SELECT {_ROW} FROM {hidden.name})"
        hit = self.table(cursor, touched)
        parts = [f"SELECT {listed} FROM {table.name}" for table in (new, hit)]
        if top is not None:
            parts.append(f"SELECT {listed} FROM {top.name} WHERE {_among(new)}")
        merged = shape.rows(given(shape.merge, partials=" UNION ALL ".join(parts)))
        if top is not None:
            merged = f"FROM {top.name} WHERE NOT {_among(new)} UNION ALL {merged}"
        over = self.table(cursor, merged)
        if hidden is not None:
            hit = self.table(cursor, f"FROM {hidden.name} UNION ALL FROM {hit.name}")
        return Layer(shape, base, over, hit)


def view(cursor: duckdb.DuckDBPyConnection, name: str, query: str) -> None:
    """Give a query a name that only this connection knows."""
    cursor.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {query}")


def given(sql: str, **relations: str) -> str:
    """SQL that reads relations of its own, each of a name and a query; its order is lost."""
    named = ", ".join(f"{name} AS NOT MATERIALIZED ({q}\n)" for name, q in relations.items())
    return f"(WITH {named} SELECT * FROM ({sql}\n))"


def _among(new: Table) -> str:
    """Whether a row may have the key of a new one."""
    return f"({_HASH} IN (SELECT {_HASH} FROM {new.name}))"
