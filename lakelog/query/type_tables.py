"""Tables of one type: `types.COMPLETE` has the events of that type, with the fields of their
payloads as typed columns instead of `data`.

Such a table is a temporary view of the cursor that asks, and its name is put into the query in the
place of `types.COMPLETE`, with COMPLETE as its alias. So each query makes it over the segments that
it can need. Which columns it has is said by the schema of payloads (views/type_columns.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from lakelog.engine import catalog
from lakelog.libraries import duckdb
from lakelog.query.lake_tables import LakeTables
from lakelog.query.ref_schemas import RefSchemas
from lakelog.query.sql import table_sql
from lakelog.query.sql.analysis import Predicate, Query, TypeRef
from lakelog.query.sql.qualifiers import Token, tokens
from lakelog.query.sql.table_sql import View
from lakelog.query.sql.tree import TYPES
from lakelog.segments import sql

if TYPE_CHECKING:
    from lakelog.query.providers import Pinned

_BEFORE = frozenset("FROM JOIN DESCRIBE DESC SUMMARIZE SHOW PIVOT UNPIVOT".split())
"""What stands before a table, in statements whose tree the engine does not give."""
_AFTER = frozenset(
    "WHERE GROUP ORDER LIMIT JOIN LEFT RIGHT FULL INNER CROSS NATURAL SEMI ANTI ASOF POSITIONAL ON"
    " USING UNION EXCEPT INTERSECT HAVING SELECT WINDOW QUALIFY OFFSET ; ) ,".split()
)
"""What stands after a table without an alias, in those."""
_LASTS = re.compile(r"\s*prepare\b|\bcreate\b.*\b(?:view|macro|function)\b", re.I | re.S)


_VIEW = re.compile(rf'"{TYPES}\.((?:[^"]|"")*)"(?: AS "\1")?')
_NAME = re.compile(r"[A-Za-z_]\w*")


class TypeTables:
    """The tables of types that queries of a session name."""

    def __init__(self, tables: LakeTables, refs: RefSchemas) -> None:
        self._tables, self._refs = tables, refs
        self._lasting: set[str] = set()

    def replaced(self, cursor: duckdb.DuckDBPyConnection, query: Query) -> Query:
        """Return a query that reads views in the place of tables of types.

        Raises QueryFailed for a type of a ref that has no events.
        """
        if TYPES not in query.sql.lower() or self._tables.provider is None:
            return query
        types = _found(query)
        if types and self._is_taken(cursor):
            types = []
        names = {}
        for ref in types:
            view = _view_name(ref.name)
            names[ref.ref, ref.name] = (
                self._refs.type_view(ref.ref, ref.name, view) if ref.ref else view
            )
        # What a statement makes is read by later ones that do not name the type.
        if not query.parsed and _LASTS.search(query.sql):
            self._lasting |= {ref.name for ref in types if not ref.ref}
        return replace(query, sql=_replaced(query.sql, types, names), types=types)

    def views(self, query: Query, pinned: Pinned) -> list[View]:
        """Return the views of the tables that a query reads, of one state.

        Raises QueryFailed for a type that has no events.
        """
        needs = {name: [Predicate()] for name in self._lasting}
        for ref in query.types:
            if not ref.ref:
                needs.setdefault(ref.name, []).append(ref.need)
        views = []
        provider, (state, pending) = self._tables.provider, pinned
        for name in needs if provider else ():
            table = provider.type_table(pinned, name)  # type: ignore[union-attr]
            types = {table.type}
            needs_of_type = [replace(n, types=types & (n.types or types)) for n in needs[name]]
            entries = self._tables.choose(state, Query(parsed=True, needs=needs_of_type))
            tail = self._tables.numbered_tail(pending, state)
            views.append(View(_view_name(name), entries, tail, table.values, table))
        return views

    def over_columns(
        self, query: str, pinned: Pinned | None, views: list[View], of_refs: Mapping[str, View]
    ) -> tuple[str, list[View]]:
        """Return a query over a state that reads extractions from payloads as columns, and the
        views that it needs; `of_refs` are the `events` of other schemas."""

        def kinds(schema: str, path: tuple[str | int, ...]) -> frozenset[str]:
            provider = self._tables.provider
            state = self._refs.states.get(schema) if schema else pinned
            return provider.field_kinds(state, path) if provider and state else frozenset()

        cursor, keep = self._tables.engine().cursor(), self._tables.hides_tables
        return table_sql.over_typed_columns(cursor, query, views, of_refs, kinds, keep=keep)

    def is_named(self, query: Query) -> bool:
        """Whether a query may read a table of a type."""
        return bool(self._lasting or any(not ref.ref for ref in query.types))

    def _is_taken(self, cursor: duckdb.DuckDBPyConnection) -> bool:
        """Whether `types` means something else: a tag, a branch, or a schema of the user's."""
        return self._refs.is_ref(TYPES) or catalog.has_schema(cursor, TYPES)


def as_written(message: str) -> str:
    """Return what the engine says of a query with tables of types as they were written, and its
    caret at the place where that is then."""
    lines = message.split("\n")
    for number, line in enumerate(lines):
        match = _VIEW.search(line)
        while match:
            name = match[1] if _NAME.fullmatch(match[1]) else f'"{match[1]}"'
            table = f"{TYPES}.{name}"
            lines[number] = line = f"{line[: match.start()]}{table}{line[match.end() :]}"
            caret = lines[number + 1].find("^") if number + 1 < len(lines) else -1
            shift = match.end() - match.start() - len(table)
            if caret >= match.end():
                lines[number + 1] = lines[number + 1][shift:]
            match = _VIEW.search(line)
    return "\n".join(lines)


def _view_name(type_: str) -> str:
    """Return the name, in SQL, of the view that is such a table."""
    return sql.identifier(f"{TYPES}.{type_}")


def _found(query: Query) -> list[TypeRef]:
    """Return the tables `types.NAME` of a query: those that the engine's parser sees, or where it
    does not say where they are, those that stand where a table does."""
    if query.parsed and all(ref.start >= 0 for ref in query.types):
        return query.types
    refs = []
    for match in _matches(query.sql):
        before, after = match.before.upper(), match.after.upper()
        if before in _BEFORE and not match.has_member:
            is_plain = before in ("FROM", "JOIN") and (not after or after in _AFTER)
            has_alias = not is_plain  # or can have none
            ref = TypeRef(match.ref, match.name, match.start, match.stop, has_alias, Predicate())
            refs.append(ref)
    return refs


def _replaced(query: str, refs: Sequence[TypeRef], names: dict[tuple[str, str], str]) -> str:
    data, output, end = query.encode(), [], 0
    for match in _matches(query) if refs else ():
        key, replacement = (match.ref, match.name), ""
        same = [ref for ref in refs if (ref.ref, ref.name) == key]
        inside = [ref for ref in same if ref.start <= match.start < ref.stop]
        if same and match.has_member:  # types.COMPLETE.words
            replacement = sql.identifier(match.name)
        elif inside:
            alias = "" if inside[0].has_alias else f" AS {sql.identifier(match.name)}"
            replacement = f"{names[key]}{alias}"
        if replacement:
            output += [data[end : match.start], replacement.encode()]
            end = match.stop
    return b"".join([*output, data[end:]]).decode()


class _Match(NamedTuple):
    """`types.NAME` or `REF.types.NAME` in a query, and what stands around it."""

    ref: str
    name: str
    start: int
    stop: int
    before: str
    after: str

    @property
    def has_member(self) -> bool:
        """Whether a column follows."""
        return self.after == "."


def _matches(query: str) -> Iterator[_Match]:
    none = Token(len(query.encode()), "")
    around = [none, none, none, *tokens(query), none]
    for place in range(3, len(around) - 3):
        owner, dot, table, after = around[place : place + 4]
        if dot.text != "." or owner.name.lower() != TYPES:
            continue
        has_ref = around[place - 1].text == "."
        start_place = place - 2 if has_ref else place
        before = around[start_place - 1].text
        if before != ".":
            ref = around[start_place].name if has_ref else ""
            start = around[start_place].start
            yield _Match(ref, table.name, start, table.stop, before, after.text)
