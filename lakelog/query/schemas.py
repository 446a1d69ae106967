"""Tables that a query names with a schema: those of tags and branches, and of types.

`"v1".events` reads a schema of its own for each state of the ref, whose name is put into the query
in the place of the ref's. It has views of the segments of that state, and stays until it is one of
many that newer states have superseded.

`types.COMPLETE` has the events of that type, with the fields of their payloads as typed columns
instead of `data`. It is a temporary view of the cursor that asks, and its name is put into the
query in the place of `types.COMPLETE`, with COMPLETE as its alias. So each query makes it over the
segments that it can need. Which columns it has is said by the schema of payloads
(views/ledger.py).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from lakelog import sql
from lakelog.disk import File
from lakelog.engine.catalog import EngineCatalog
from lakelog.errors import InvalidName, QueryFailed
from lakelog.libraries import duckdb, pa
from lakelog.manifest import Manifest
from lakelog.query.lake_tables import LakeTables
from lakelog.query.providers import Pinned
from lakelog.query.sql.analysis import Predicate, Query, TypeRef
from lakelog.query.sql.table_sql import View
from lakelog.query.sql.tree import TYPES, WIDE
from lakelog.runtime.closest import did_you_mean

if TYPE_CHECKING:
    from lakelog.query.sql.extractions import TypeTable

_SCHEMA = re.compile(r"\blakelog_\d+\b")
VERSIONS_MAX = 64
"""So many states of other refs can be read at once; relations on older ones fail."""


class RefSchemas:
    """The schemas of one session; `versions` are the names of the refs, by schema."""

    def __init__(self, tables: LakeTables) -> None:
        self._tables = tables
        self._schemas: dict[str, tuple[tuple[str, bool], object, str]] = {}
        self.versions: dict[str, str] = {}
        self._events: dict[str, View] = {}
        self.states: dict[str, Pinned] = {}
        """The state that each schema has the events of."""
        self._made = 0

    def clear(self) -> None:
        """Forget the schemas of a database that is let go."""
        self._schemas.clear()
        self._events.clear()
        self.states.clear()
        self.versions.clear()

    def as_written(self, message: str) -> str:
        """What the engine says of a query, tables of types and refs as they were written."""
        return self.named(as_written(message))

    def named(self, message: str) -> str:
        """What the engine says, refs by their own names."""
        for schema, name in self.versions.items():
            message = re.sub(rf"\b{schema}\b", lambda _, name=name: f'"{name}"', message)  # type: ignore[misc]
        return message

    def requalified(self, query: Query) -> Query:
        """Put the schema of a state where the query names a tag or branch: `"v1".events`."""
        qualified = {pair for pair in query.tables if pair[0]}
        if query.parsed and not qualified:
            return query
        tables = {table for _, table in qualified}
        if not query.parsed and "." in query.sql:
            tables = {*self._tables.names()}
        # Each ref once: two tables of one query must be of the same state.
        states: dict[str, Pinned | None] = {}
        schemas: dict[tuple[str, str], str | None] = {}
        # By bytes: the engine counts places in UTF-8.
        data, output, end = query.sql.encode(), [], 0
        for start, stop, name, table in qualifiers(query.sql, tables):
            pair = name, table
            if pair not in schemas:
                is_table = pair in qualified or not query.parsed  # else a column called events
                if is_table and name not in states:
                    states[name] = self._state_of(name)
                pinned = states.get(name)
                schemas[pair] = self._schema(name, pinned, table) if is_table and pinned else None
            if schema := schemas[pair]:
                output += [data[end:start], schema.encode()]
                end = stop
        return replace(query, sql=b"".join([*output, data[end:]]).decode())

    def _state_of(self, name: str) -> Pinned | None:
        """Return the present state of a ref, or None for no such ref."""
        store = self._tables.store
        try:
            tagged = File(store.paths.tag(name)).exists()
        except InvalidName:
            return None
        if tagged:
            return store.manifests.of(store.refs.tag(name)), None
        if name in store.refs.branches():
            pending = self._tables.tail(name).collect()
            return store.manifests.of(pending.head.move), pending
        # SQL does not tell V1 from v1: take the only ref that is spelled so in another case.
        names = {*store.refs.tag_names(), *store.refs.branches()}
        names_in_case = [n for n in names if n != name and n.lower() == name.lower()]
        return self._state_of(names_in_case[0]) if len(names_in_case) == 1 else None

    def _schema(self, name: str, pinned: Pinned, table: str) -> str | None:
        """Return the schema that holds a table of the state of a ref."""
        events = self._events_schema(name, pinned)
        if table in Query.TABLES or self._tables.provider is None:
            return events
        return self._tables.provider.schema(name, pinned, table, events)

    def events(self, query: Query) -> dict[str, View]:
        """Return what `events` is in each schema that a query names; under another name if what it
        needs leaves out some of its segments."""
        schemas = (match[0] for match in _SCHEMA.finditer(query.sql))
        views = {schema: self._events[schema] for schema in schemas if schema in self._events}
        # Segments that a query cannot need are left out under a name of their own.
        for schema, view in views.items():
            if needed := query.of_refs.get(self.versions[schema]):
                some = self._tables.choice.among(view.entries, needed)
                if len(some) < len(view.entries):
                    name = f"{WIDE}{schema}"
                    views[schema] = view._replace(name=name, entries=some)
        return views

    def is_ref(self, name: str) -> bool:
        """Whether a tag or branch has this name."""
        store = self._tables.store
        return File(store.paths.tag(name)).exists() or name in store.refs.branches()

    def type_view(self, ref: str, type_: str, view: str) -> str:
        """Make a view of the events of a type of the state of a ref; return its name, in SQL.

        Raises QueryFailed for a type that has no events, or no such ref.
        """
        pinned, store = self._state_of(ref), self._tables.store
        if pinned is None:
            near = did_you_mean(ref, [*store.refs.tag_names(), *store.refs.branches()])
            raise QueryFailed(f'there is no tag or branch "{ref}"{near and f": {near}"}')
        assert self._tables.provider is not None
        table = self._tables.provider.type_table(pinned, type_)
        schema = self._events_schema(ref, pinned)
        events = self._events[schema]
        rows = self._tables.view_sql("events", events.entries, events.source, table.values)
        cursor = self._tables.connect().cursor()
        cursor.execute(f"CREATE OR REPLACE VIEW {schema}.{view} AS {table.rows_sql(rows)}")
        return f"{schema}.{view}"

    def _events_schema(self, name: str, pinned: Pinned) -> str:
        """Return the schema that holds `events` and `quarantine` of the state of a ref."""
        state, pending = pinned
        tail = self._tables.numbered_tail(pending, state)
        schema_of_ref, content = self._schemas.get(name), (state.key, self._tables.opens_fields)
        # The same state and tail: the schema of the last query serves again.
        if schema_of_ref and schema_of_ref[0] == content and schema_of_ref[1] is tail:
            return schema_of_ref[2]
        schema = self.new_schema(name)
        self._fill(schema, state, tail)
        self.states[schema] = pinned
        self._schemas[name] = content, tail, schema
        self.drop_old_versions()
        return schema

    def new_schema(self, name: str) -> str:
        """Make a schema for a version of a ref; some time later it is dropped."""
        self._made += 1
        schema = f"lakelog_{self._made}"
        self._tables.connect().cursor().execute(f"CREATE SCHEMA {schema}")
        self.versions[schema] = name
        return schema

    def drop_old_versions(self) -> None:
        """Drop the schemas of states that were superseded, but for the newest of them."""
        current = {schema for _, _, schema in self._schemas.values()}
        # Relations that were made before read them still.
        for schema in [v for v in self.versions if v not in current][:-VERSIONS_MAX]:
            del self.versions[schema]
            self._events.pop(schema, None)
            self.states.pop(schema, None)
            self._tables.connect().cursor().execute(f"DROP SCHEMA {schema} CASCADE")

    def _fill(self, schema: str, state: Manifest, tail: pa.Table | None) -> None:
        cursor = self._tables.connect().cursor()
        entries = self._tables.store.manifests.segments(state)
        self._tables.choice.verify(entries)
        for table in Query.TABLES:
            segments = [e for e in entries if e.kind == table]
            source = None
            if tail is not None and table == "events":
                cursor.register("lakelog_tail", tail)
                # Copied into a table: a view over Arrow would need its Python object for ever.
                cursor.execute(f"CREATE TABLE {schema}.lakelog_tail AS FROM lakelog_tail")
                source = f"{schema}.lakelog_tail"
            if table == "events":
                opens = self._tables.opens_fields
                self._events[schema] = View("events", segments, None, source=source, opens=opens)
            cursor.execute(
                f"CREATE VIEW {schema}.{table} AS {self._tables.view_sql(table, segments, source)}"
            )


_BEFORE = frozenset("FROM JOIN DESCRIBE DESC SUMMARIZE SHOW PIVOT UNPIVOT".split())
"""What stands before a table, in statements whose tree the engine does not give."""
_AFTER = frozenset(
    "WHERE GROUP ORDER LIMIT JOIN LEFT RIGHT FULL INNER CROSS NATURAL SEMI ANTI ASOF POSITIONAL ON"
    " USING UNION EXCEPT INTERSECT HAVING SELECT WINDOW QUALIFY OFFSET ; ) ,".split()
)
"""What stands after a table without an alias, in those."""


_VIEW = re.compile(rf'"{TYPES}\.((?:[^"]|"")*)"(?: AS "\1")?')
_NAME = re.compile(r"[A-Za-z_]\w*")


class TypeTables:
    """The tables of types that queries of a session name."""

    def __init__(self, tables: LakeTables, refs: RefSchemas) -> None:
        self._tables, self._refs = tables, refs
        self._lasting: dict[str, TypeTable | None] = {}

    def replaced(self, cursor: duckdb.DuckDBPyConnection, query: Query) -> Query:
        """Return a query that reads views in the place of tables of types.

        Raises QueryFailed for a type of a ref that has no events.
        """
        if TYPES not in query.sql.lower() or self._tables.provider is None:
            return query
        types = _found(query)
        # A tag or branch called `types` was there first.
        if types and self._is_taken(cursor):
            types = []
        names = {}
        for ref in types:
            view = _view_name(ref.name)
            names[ref.ref, ref.name] = (
                self._refs.type_view(ref.ref, ref.name, view) if ref.ref else view
            )
        # What a statement makes is read by later ones that do not name the type.
        if query.lasts:
            for ref in types:
                if not ref.ref:
                    self._lasting.setdefault(ref.name, None)
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
            try:
                table = provider.type_table(pinned, name)  # type: ignore[union-attr]
            except QueryFailed:
                last_table = self._lasting.get(name)
                if any(ref.name == name for ref in query.types):
                    raise
                # What does not name it goes on: it was taken back, or there never was such a type.
                if last_table is None:
                    continue
                table = last_table
            if name in self._lasting:
                self._lasting[name] = table
            types = {table.type}
            needs_of_type = [replace(n, types=types & (n.types or types)) for n in needs[name]]
            entries = self._tables.choose(state, Query(parsed=True, needs=needs_of_type)).entries
            tail = self._tables.numbered_tail(pending, state)
            view = View(_view_name(name), entries, tail, table.values, table)
            views.append(view._replace(opens=self._tables.opens_fields))
        return views

    def is_named(self, query: Query) -> bool:
        """Whether a query may read a table of a type."""
        return bool(self._lasting or any(not ref.ref for ref in query.types))

    def _is_taken(self, cursor: duckdb.DuckDBPyConnection) -> bool:
        """Whether `types` means something else: a tag, a branch, or a schema of the user's."""
        return self._refs.is_ref(TYPES) or EngineCatalog(cursor).has_schema(TYPES)


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
            # The engine draws its caret below a line that has the longer name in it.
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
        # REF.types.NAME has one name more in front.
        has_ref = around[place - 1].text == "."
        start_place = place - 2 if has_ref else place
        before = around[start_place - 1].text
        if before != ".":
            ref = around[start_place].name if has_ref else ""
            start = around[start_place].start
            yield _Match(ref, table.name, start, table.stop, before, after.text)


class Token(NamedTuple):
    """A token of a query that is no comment, and the byte at which it begins."""

    start: int
    text: str

    @property
    def stop(self) -> int:
        """The byte after it."""
        return self.start + len(self.text.encode())

    @property
    def name(self) -> str:
        """The name that it is, without quotes."""
        text = self.text
        return text[1:-1].replace('""', '"') if text.startswith('"') else text


def tokens(query: str) -> Iterator[Token]:
    """Yield the tokens of a query."""
    data = query.encode()
    starts = duckdb.tokenize(query)
    ends = [*(start for start, _ in starts[1:]), len(data)]
    for (start, token_type), end in zip(starts, ends, strict=False):
        if token_type != duckdb.token_type.comment:
            yield Token(start, data[start:end].strip().decode())


def qualifiers(query: str, tables: Container[str]) -> Iterator[tuple[int, int, str, str]]:
    """Yield (start, stop, name, table) of what stands before a dot and one of `tables`; places are
    those of bytes."""
    token_list = [*tokens(query)]
    # A name behind a dot is no schema but a column's table.
    before = ""
    for owner, dot, table in zip(token_list, token_list[1:], token_list[2:], strict=False):
        if dot.text == "." and before != "." and table.name.lower() in tables:
            yield owner.start, owner.stop, owner.name, table.name.lower()
        before = owner.text
