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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

SCHEMA = "lakelog_views"
_ROW = "lakelog_row"


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
        return ", ".join(_quoted(name) for name, _ in self.columns)

    @property
    def cast(self) -> str:
        """The columns with their types, for a SELECT list."""
        return ", ".join(f"{_quoted(n)}::{kind} AS {_quoted(n)}" for n, kind in self.columns)


class Table:
    """A table of the engine that is dropped some time after the last use."""

    def __init__(self, name: str, rows: int, dropped: collections.deque[str]) -> None:
        self.name, self.rows = name, rows
        weakref.finalize(self, dropped.append, name)


@dataclass
class Layer:
    """One state: base rows that are not hidden, and top. `results` and `kept` were made of it."""

    shape: Shape
    base: Table
    top: Table | None = None
    hidden: Table | None = None
    results: dict[str, pa.Table] = field(default_factory=dict)
    kept: dict[str, tuple[str, list[Table]]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows held, hidden ones included."""
        return self.base.rows + (self.top.rows if self.top else 0)

    def pinned(self) -> tuple[str, tuple[Table | None, ...]]:
        """SQL that reads the state, and the tables that must be kept while it runs."""
        base, top, hidden = self.base, self.top, self.hidden
        sql = f"SELECT {self.shape.listed} FROM {base.name}"
        if hidden is not None and hidden.rows:
            sql += f" WHERE rowid NOT IN (SELECT {_ROW} FROM {hidden.name})"
        if top is not None and top.rows:
            sql += f" UNION ALL SELECT {self.shape.listed} FROM {top.name}"
        return sql, (base, top, hidden)


class Builder:
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

    def mapped(self, cursor: duckdb.DuckDBPyConnection, shape: Shape, segment: str) -> Table:
        """Keep the partial of the rows that SQL gives, merged in itself."""
        view(cursor, "segment", segment)
        if shape.merged:
            return self.table(cursor, _cast(shape, shape.map))
        view(cursor, "partials", shape.map)
        return self.table(cursor, _cast(shape, shape.merge))

    def merged(
        self, cursor: duckdb.DuckDBPyConnection, shape: Shape, parts: Iterable[str]
    ) -> Table:
        """Keep what the partials that several SELECTs give merge into."""
        view(cursor, "partials", " UNION ALL ".join(parts))
        return self.table(cursor, _cast(shape, shape.merge))

    def extend(self, cursor: duckdb.DuckDBPyConnection, layer: Layer, delta: str) -> Layer:
        """Return the state that merging in the partials of a SELECT gives."""
        held, kept = layer.pinned()
        if not layer.shape.key or layer.rows <= self._small:
            made = self.merged(cursor, layer.shape, (held, delta))
            del kept
            return Layer(layer.shape, made)
        return self._overlay(cursor, layer, delta)

    def fold(self, cursor: duckdb.DuckDBPyConnection, layer: Layer) -> None:
        """Make base and top one table, for whoever reads next."""
        held, kept = layer.pinned()
        base = self.table(cursor, held)
        if (layer.base, layer.top, layer.hidden) == kept:
            layer.base, layer.top, layer.hidden = base, None, None

    def _overlay(self, cursor: duckdb.DuckDBPyConnection, layer: Layer, delta: str) -> Layer:
        shape, listed = layer.shape, layer.shape.listed
        base, top, hidden = layer.base, layer.top, layer.hidden
        new = self.table(cursor, f"SELECT {listed} FROM ({delta}\n)")
        hit = self.table(
            cursor, f"SELECT b.rowid AS {_ROW}, b.* FROM {base.name} b {_join('SEMI', shape, new)}"
        )
        parts = [f"SELECT {listed} FROM {new.name}"]
        seen = f"SELECT {_ROW} FROM {hit.name}"
        if hidden is None:
            parts.append(f"SELECT {listed} FROM {hit.name}")
        else:
            fresh = f"{_ROW} NOT IN (SELECT {_ROW} FROM {hidden.name})"
            parts.append(f"SELECT {listed} FROM {hit.name} WHERE {fresh}")
            seen = f"SELECT {_ROW} FROM {hidden.name} UNION {seen}"
        if top is not None:
            parts.append(f"SELECT {listed} FROM {top.name} b {_join('SEMI', shape, new)}")
        view(cursor, "partials", " UNION ALL ".join(parts))
        merged = _cast(shape, shape.merge)
        if top is not None:
            merged = (
                f"SELECT {listed} FROM {top.name} b {_join('ANTI', shape, new)} UNION ALL {merged}"
            )
        return Layer(shape, base, self.table(cursor, merged), self.table(cursor, seen))


def view(cursor: duckdb.DuckDBPyConnection, name: str, query: str) -> None:
    """Give a query a name that only this connection knows."""
    cursor.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {query}")


def _cast(shape: Shape, query: str) -> str:
    return f"SELECT {shape.cast} FROM ({query}\n)"


def _join(kind: str, shape: Shape, new: Table) -> str:
    """Rows of `b` whose key is, or is not, among the new ones; null is a key like others."""
    on = " AND ".join(f"b.{_quoted(k)} IS NOT DISTINCT FROM n.{_quoted(k)}" for k in shape.key)
    return f"{kind} JOIN {new.name} n ON {on}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
