"""Tags and branches as schemas: `"v1".events` reads a schema of its own for each state of the ref.

The name of that schema is put into the query in the place of the ref's. A schema has views of the
segments of its state, and stays until it is one of many that newer states have superseded.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from lakelog.errors import InvalidName, QueryFailed
from lakelog.libraries import pa
from lakelog.query.lake_tables import LakeTables
from lakelog.query.sql.qualifiers import TABLES, qualifiers
from lakelog.query.sql.table_sql import View
from lakelog.runtime.closest import did_you_mean
from lakelog.runtime.lazy import Lazy
from lakelog.store import disk

if TYPE_CHECKING:
    from lakelog.query.providers import Pinned
    from lakelog.query.sql import payload
    from lakelog.query.sql.analysis import Query
    from lakelog.store.manifest import Manifest
else:
    payload = Lazy("lakelog.query.sql.payload")

_SCHEMA = re.compile(r"\blakelog_\d+\b")
VERSIONS_MAX = 64
"""So many states of other refs can be read at once; relations on older ones fail."""


class RefSchemas:
    """The schemas of one session; `versions` are the names of the refs, by schema."""

    def __init__(self, tables: LakeTables) -> None:
        self._tables = tables
        self._schemas: dict[str, tuple[str, object, str]] = {}
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

    def requalified(self, query: Query) -> Query:
        """Put the schema of a state where the query names a tag or branch: `"v1".events`."""
        qualified = {pair for pair in query.tables if pair[0]}
        if query.parsed and not qualified:
            return query
        tables = {table for _, table in qualified}
        if not query.parsed and "." in query.sql:
            tables = {*self._tables.names()}
        states: dict[str, Pinned | None] = {}  # one of each ref, whatever is read of it
        schemas: dict[tuple[str, str], str | None] = {}
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
            tagged = disk.exists(store.paths.tag(name))
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
        if table in TABLES or self._tables.provider is None:
            return events
        return self._tables.provider.schema(name, pinned, table, events)

    def events(self, query: Query) -> dict[str, View]:
        """Return what `events` is in each schema that a query names; under another name if what it
        needs leaves out some of its segments."""
        schemas = (match[0] for match in _SCHEMA.finditer(query.sql))
        views = {schema: self._events[schema] for schema in schemas if schema in self._events}
        for schema, view in views.items():
            if needed := query.of_refs.get(self.versions[schema]):
                some = self._tables.among(view.entries, needed)
                if len(some) < len(view.entries):
                    name = f"{payload.WIDE}{schema}"
                    views[schema] = view._replace(name=name, entries=some)
        return views

    def is_ref(self, name: str) -> bool:
        """Whether a tag or branch has this name."""
        store = self._tables.store
        return disk.exists(store.paths.tag(name)) or name in store.refs.branches()

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
        schema_of_ref = self._schemas.get(name)
        if schema_of_ref and schema_of_ref[0] == state.digest and schema_of_ref[1] is tail:
            return schema_of_ref[2]
        schema = self.new_schema(name)
        self._fill(schema, state, tail)
        self.states[schema] = pinned
        self._schemas[name] = state.digest, tail, schema
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
        for schema in [v for v in self.versions if v not in current][:-VERSIONS_MAX]:
            del self.versions[schema]
            self._events.pop(schema, None)
            self.states.pop(schema, None)
            self._tables.connect().cursor().execute(f"DROP SCHEMA {schema} CASCADE")

    def _fill(self, schema: str, state: Manifest, tail: pa.Table | None) -> None:
        cursor = self._tables.connect().cursor()
        entries = self._tables.verified_segments(state)
        for table in TABLES:
            segments = [e for e in entries if e.kind == table]
            source = None
            if tail is not None and table == "events":
                cursor.register("lakelog_tail", tail)
                cursor.execute(f"CREATE TABLE {schema}.lakelog_tail AS FROM lakelog_tail")
                source = f"{schema}.lakelog_tail"
            if table == "events":
                self._events[schema] = View("events", segments, None, source=source)
            cursor.execute(
                f"CREATE VIEW {schema}.{table} AS {self._tables.view_sql(table, segments, source)}"
            )
