"""The views of a lake as tables of its session, with their parameters at their defaults: `sessions`
of the state that is queried, `"v1".sessions` of a tag or branch."""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from lakelog import query as queries
from lakelog import values
from lakelog.disk import disk
from lakelog.engine.catalog import EngineCatalog
from lakelog.errors import InvalidEvent, InvalidView, QueryFailed, SnapshotGone
from lakelog.event import EVENT_COLUMNS
from lakelog.libraries import duckdb, pa
from lakelog.manifest import Manifest
from lakelog.query import EXTRA_SCHEMAS, Query, Relation, Session
from lakelog.runtime.closest import did_you_mean
from lakelog.runtime.lazy import Lazy
from lakelog.sql import identifier

if TYPE_CHECKING:
    from lakelog.query import TypeTable
    from lakelog.views import (
        builds,
        catalog,
        engine,
        guard,
        ledger,
        origin_table,
        params,
        pattern_tables,
    )
    from lakelog.views.definition import ViewDefinition
    from lakelog.views.engine import Projector
    from lakelog.wal import PendingFrames
    from lakelog.workers import WorkerPool

    Pinned = tuple[Manifest, PendingFrames | None]
    """A state, and what of its branch is not yet published."""
else:
    # A query that names no view needs none of them.
    builds, catalog, engine, guard, ledger = (
        Lazy(f"lakelog.views.{name}") for name in "builds catalog engine guard ledger".split()
    )
    origin_table, params, pattern_tables = (
        Lazy(f"lakelog.views.{name}") for name in "origin_table params pattern_tables".split()
    )

_STATES, _DEFINITIONS = 16, 256
_OFFERED = "lakelog_view_"
# Beyond all times that events can have.
_HIGHEST = 2**62
_EVENT_PATTERNS, _TEMPLATES = "event_patterns", "lakelog_view_event_templates"
_COMPUTED = ("files", "origins", "patterns", _EVENT_PATTERNS)
"""Tables that are no views: SQL alone does not compute them."""


class BranchSchema(NamedTuple):
    """The name of a schema that has the `events` of a ref."""

    name: str


class ViewTables:
    """Answers the views of a session's branch, and offers them to its queries. Safe for threads."""

    def __init__(self, session: Session) -> None:
        self.session, self._store = session, session.store
        self._tables = session.tables
        # The session's binder asks it for what tables of a query are missing.
        self._tables.provider = self
        self._engine: Projector | None = None
        self._own: collections.OrderedDict[str, dict[str, catalog.StoredView]] = (
            collections.OrderedDict()
        )
        self._checked: dict[str, ViewDefinition] = {}
        self._lasting: set[str] = set()
        self._fields: tuple[str, pa.Table | None, ledger.Ledger] | None = None
        self._mined: tuple[str, pa.Table | None, tuple[pa.Table, pa.Table]] | None = None

    @property
    def engine(self) -> Projector:
        """What keeps the states of views; made at the first view."""
        with self._tables.mutex.hold():
            if self._engine is None:
                self._engine = engine.Projector(self._store, self._tables.connect(), self._tables)
            return self._engine

    def fields(self, type: str | None, at: str | None) -> pa.Table:
        """Answer the ledger of a state, of one type if it is given."""
        return self.view(ledger.VIEW, {"type": type} if type is not None else None, at)

    def view(
        self,
        name: str,
        arguments: Mapping[str, object] | None = None,
        at: str | None = None,
        *,
        since: object = None,
        until: object = None,
        now: object = None,
    ) -> pa.Table:
        """Answer a view as an Arrow table; see lakelog.views.read."""
        try:
            return self._view_of(self._tables.state(at), name, arguments, at, since, until, now)
        except SnapshotGone:  # gc was faster: look again, once
            return self._view_of(self._tables.state(at), name, arguments, at, since, until, now)

    def _view_of(
        self,
        pinned: Pinned,
        name: str,
        arguments: Mapping[str, object] | None,
        source: str | BranchSchema | None,
        since: object = None,
        until: object = None,
        read_at: object = None,
    ) -> pa.Table:
        """Answer a view of a state; `source` is where that is found again."""
        state, pending = pinned
        definition = self._definition(name, self.own_views(state))
        values = params.values(definition.name, definition.params, arguments)
        moment = disk.now_us() if read_at is None else _micros("now", read_at)
        window = _window(since, until)
        if not definition.is_projection:
            return self._plain(definition, values, source, moment, window)
        tail, opens = self._tables.tail_rows(pending, state), self._tables.opens_fields
        if opens:
            self._tables.connect()  # knows how, if fields became protected meanwhile
        answer = self.engine.read(
            definition, values, state, tail, moment=moment, window=window, opens=opens
        )
        if not answer.num_rows:
            self._look_for_fields(definition, values, source)
        return answer

    def own_views(self, state: Manifest) -> dict[str, catalog.StoredView]:
        """The views that a state defines, by name."""
        # By digest, which names the content: other branches may be at the same state.
        views = self._own.get(state.digest)
        if views is None:
            views = self._own[state.digest] = catalog.stored_views(self._store, state)
            while len(self._own) > _STATES:
                self._own.popitem(last=False)
        return views

    def definitions(self, digest: str | None = None) -> list[tuple[ViewDefinition, bool]]:
        """Every view of a state by name, and whether the lake itself defines it."""
        state, _ = self._tables.state(digest)
        own_views = self.own_views(state)
        names = sorted({*catalog.built_in(), *own_views})
        return [(catalog.find(name, own_views), name in own_views) for name in names]

    def names(self, state: Manifest) -> list[str]:
        """Names of the views of a state, built-in and its own, and of computed tables."""
        own_views = self.own_views(state)
        return [*dict.fromkeys((*catalog.BUILT_IN, *own_views, *_COMPUTED))]

    def definition(self, name: str, digest: str | None = None) -> ViewDefinition:
        """One view of a state. Raises InvalidView where there is none."""
        state, _ = self._tables.state(digest)
        return catalog.find(name, self.own_views(state))

    def sample(self, rows: int) -> pa.Table:
        """Some rows of the branch with seq: of its oldest and newest segments, and of the tail."""
        state, pending = self._tables.state(None)
        entries = self._store.manifests.segments(state, "events")
        # The newest two and the oldest: forms of events change over time.
        near = entries[:1] + entries[-2:] if len(entries) > 3 else entries
        tail = self._tables.numbered_tail(pending, state)
        rows_sql = self._tables.rows_sql
        samples = [f"(SELECT * FROM ({rows_sql([e])}) LIMIT {rows // 4})" for e in near]
        cursor = self._tables.connect().cursor()
        if tail is not None:
            cursor.register("lakelog_tail", tail)
            columns = ", ".join((*EVENT_COLUMNS, "seq"))
            samples.append(f"(SELECT {columns} FROM lakelog_tail LIMIT {rows // 4})")
        query = " UNION ALL ".join(samples) or rows_sql([])
        return cursor.sql(query).to_arrow_table()

    def build(self, name: str, pool: WorkerPool, ref: str | None = None) -> int:
        """Have workers compute what the cache lacks of a view, at the defaults of its parameters;
        return of how many segments: none for one that is computed from all events, or has a
        parameter without a default. Raises InvalidView, Unreachable, Damaged."""
        state, _ = self._tables.state(ref)
        definition = self._definition(name, self.own_views(state))
        if not definition.is_projection or any(p.default is None for p in definition.params):
            return 0
        values = params.values(definition.name, definition.params, None)
        if self._engine is not None:
            # What this process is still writing would else be computed once more.
            self._engine.background_writer.drain()
        maps = engine.ProtectedMaps(self._store.paths)
        connect = self._tables.connect
        if not maps.may_keep(lambda: connect().cursor(), definition, values, False):
            return 0
        build = builds.ViewBuild(self.session, definition, values)
        return build.by(pool, self._tables.branch, state)

    def close(self) -> None:
        """Let go of the database, once what was computed is in the cache."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _definition(self, name: str, own_views: dict[str, catalog.StoredView]) -> ViewDefinition:
        definition = catalog.find(name, own_views)
        is_built_in = name not in own_views and name in catalog.BUILT_IN
        # Checked again when it changes: the lake may come from somebody else.
        if not is_built_in and self._checked.get(name) != definition:
            guard.check(definition, self._tables.connect().cursor())
            # Names are few, texts of definitions may be ever others.
            if len(self._checked) >= _DEFINITIONS:
                self._checked.clear()
            self._checked[name] = definition
        return definition

    def _plain(
        self,
        definition: ViewDefinition,
        values: params.Values,
        source: str | BranchSchema | None,
        moment: int,
        window: tuple[int, int] | None,
    ) -> pa.Table:
        """Run a view without sections over all events."""
        if window is not None:
            raise InvalidView(
                f"view {definition.name} is plain SQL: give it parameters for times,"
                " --since and --until are for incremental views"
            )
        query = definition.filled("query", values, moment)
        cursor = self._tables.connect().cursor()
        try:
            rows = cursor.sql(self._over_events(cursor, query, source))
            return Relation.for_arrow(rows).to_arrow_table()
        except duckdb.Error as error:
            raise QueryFailed(
                f"view {definition.name}: {self.session.failures.in_one_line(str(error))}"
            ) from None
        finally:
            cursor.close()

    def _over_events(
        self, cursor: duckdb.DuckDBPyConnection, query: str, source: str | BranchSchema | None
    ) -> str:
        """Let a cursor find the events of a state; return the query that it can run."""
        if isinstance(source, BranchSchema):
            # Its own tables stand in that schema, as no branch or tag leads to the ref any more.
            cursor.execute(f"SET search_path = '{source.name}'")
            return query
        with self._tables.mutex.hold():
            parsed = Query.of(self._tables.connect().cursor(), query)
            return self.session.binder.prepare(cursor, parsed, source) or query

    def schema(self, name: str, pinned: Pinned, table: str, events: str) -> str | None:
        """Return a schema that holds a view of the state of a ref; see TableProvider."""
        views = self.names(pinned[0])
        if table not in views:
            # A name that another provider knows is not ours to refuse.
            if name.lower() in EXTRA_SCHEMAS:
                return None
            near = (
                did_you_mean(table, [*Query.TABLES, *views]) or f"see `lakelog views --at {name}`"
            )
            raise QueryFailed(f'"{name}" has no table or view {table}: {near}')
        answer = self._table_of(pinned, table, BranchSchema(events), is_present=False)
        schema = self.session.binder.refs.new_schema(name)
        cursor = self._tables.connect().cursor()
        # Copied: a registered table lives as long as its cursor.
        cursor.register("lakelog_answer", answer)
        cursor.execute(f"CREATE TABLE {schema}.{identifier(table)} AS FROM lakelog_answer")
        self.session.binder.refs.drop_old_versions()
        return schema

    def _table_of(
        self, pinned: Pinned, name: str, source: str | BranchSchema | None, *, is_present: bool
    ) -> pa.Table:
        """Return a computed table or a view of a state, which is found again at `source`."""
        # A view that a lake has of such a name stays what it was.
        if name in self.own_views(pinned[0]):
            return self._view_of(pinned, name, None, source)
        if name == origin_table.FILES:
            return origin_table.files_table(self._store, pinned[0], is_present=is_present)
        if name == origin_table.ORIGINS:
            return self._origins(pinned, source)
        if name == pattern_tables.PATTERNS:
            return self._patterns(pinned)
        if name == _EVENT_PATTERNS:
            return self._event_patterns(pinned, source)
        return self._view_of(pinned, name, None, source)

    def _templates(self, pinned: Pinned) -> tuple[pa.Table, pa.Table]:
        """The counted shapes of a state's messages, and the template of each; those of the last
        state are kept, as one query may name both tables that are made of them."""
        state, pending = pinned
        tail = self._tables.tail_rows(pending, state)
        cached = self._mined
        if cached is None or cached[0] != state.key or cached[1] is not tail:
            shapes = self._view_of(pinned, pattern_tables.shapes_view(), None, None)
            ranking = self._view_of(pinned, pattern_tables.ranks_view(), None, None)
            templates = pattern_tables.templates(ranking)
            cached = self._mined = state.key, tail, (shapes, templates)
        return cached[2]

    def _patterns(self, pinned: Pinned) -> pa.Table:
        with self._tables.connect().cursor() as cursor:
            return pattern_tables.patterns_table(cursor, *self._templates(pinned))

    def _event_patterns(self, pinned: Pinned, source: str | BranchSchema | None) -> pa.Table:
        _, templates = self._templates(pinned)
        with self._tables.connect().cursor() as cursor:
            cursor.register(_TEMPLATES, templates)
            query = pattern_tables.event_patterns_sql(_TEMPLATES)
            return cursor.sql(self._over_events(cursor, query, source)).to_arrow_table()

    def _origins(self, pinned: Pinned, source: str | BranchSchema | None) -> pa.Table:
        with self._tables.connect().cursor() as cursor:
            query = self._over_events(cursor, origin_table.PRESENT, source)
            present = cursor.sql(query).to_arrow_table()
            return origin_table.origins_table(cursor, self._store, *pinned, present)

    def type_table(self, pinned: Pinned, name: str) -> TypeTable:
        """Return the events of a type of a state as a table; see TableProvider."""
        fields = self._ledger(pinned)
        types = sorted({type_ for type_, _ in fields if type_ is not None})
        # SQL does not tell COMPLETE from complete: take the only type that is spelled so.
        types_in_case = [type_ for type_ in types if type_.lower() == name.lower()]
        if name in types or len(types_in_case) == 1:
            type_name = name if name in types else types_in_case[0]
            protection = self._store.paths.protection
            protected_fields = protection.fields if protection else ()
            columns = ledger.columns(fields, type_name, protected_fields)
            return queries.TypeTable(type_name, columns)
        near = did_you_mean(name, types) or "`lakelog schema` lists the types"
        raise QueryFailed(f"there are no events of type {name}: {near}")

    def field_kinds(self, pinned: Pinned, path: tuple[str | int, ...]) -> frozenset[str]:
        """Return the kinds of values of a field in events of all types; see TableProvider."""
        return ledger.kinds_of(self._ledger(pinned), path)

    @property
    def has_ledger(self) -> bool:
        """Whether a table of a type was read, so that another one costs little."""
        return self._fields is not None

    def _ledger(self, pinned: Pinned) -> ledger.Ledger:
        """The ledger of a state; that of the last one is kept."""
        state, pending = pinned
        tail = self._tables.tail_rows(pending, state)
        cached = self._fields
        if cached is None or cached[0] != state.key or cached[1] is not tail:
            fields = ledger.Ledger.of_table(self._view_of(pinned, ledger.VIEW, None, None))
            cached = self._fields = state.key, tail, fields
        return cached[2]

    def _look_for_fields(
        self, definition: ViewDefinition, values: params.Values, source: str | BranchSchema | None
    ) -> None:
        """Say so if a view is empty because no event has the field it was asked for."""
        for param in definition.params:
            field = values[param.name] if param.kind == "field" else None
            if field is None:
                continue
            expression = params.field_sql(field)
            # For each field its own cursor: views of the query before would hide `events`.
            cursor = self._tables.connect().cursor()
            query = f"SELECT 1 FROM events WHERE {expression} IS NOT NULL LIMIT 1"
            try:
                # Each makes the tables that it reads: one over typed columns is not `events`.
                if cursor.sql(self._over_events(cursor, query, source)).fetchall():
                    continue
                if not cursor.sql(self._over_events(cursor, _ANY, source)).fetchall():
                    continue
                names = cursor.sql(self._over_events(cursor, _FIELDS, source)).fetchall()
            finally:
                cursor.close()
            # Of a thousand payloads: a hint need not be complete.
            field_names = ", ".join(name for (name,) in names) or "none"
            raise InvalidView(
                f"view {definition.name}: no event has the field {field!r}; data has {field_names}"
            )

    def offer(
        self, cursor: duckdb.DuckDBPyConnection, query: Query, digest: str | None
    ) -> Pinned | None:
        """Make a table of each view that a query names and no table hides, all of one state; see
        TableProvider."""
        names = _names(query)
        if query.lasts:
            self._lasting |= names
        lasting, self._lasting = self._lasting, set()  # what a view itself reads, it names
        try:
            return self._offer(cursor, names | lasting, digest)
        finally:
            self._lasting = lasting

    def _offer(
        self, cursor: duckdb.DuckDBPyConnection, names: set[str], digest: str | None
    ) -> Pinned | None:
        if not names:
            return None
        pinned = self._tables.state(digest)
        own_views = self.own_views(pinned[0])
        # Sorted, so that all threads take the locks in one order.
        for name in sorted(names & {*catalog.built_in(), *own_views, *_COMPUTED}):
            source = f"{_OFFERED}{name}"
            if _is_taken(cursor, name):
                # A user's table of that name was there first.
                continue
            # It reads `events` again, whose tables are made with those of the query: see attach.
            if name == _EVENT_PATTERNS and name not in own_views:
                cursor.register(_TEMPLATES, self._templates(pinned)[1])
                continue
            cursor.register(source, self._table_of(pinned, name, digest, is_present=digest is None))
            cursor.execute(
                f"CREATE OR REPLACE TEMP VIEW {identifier(name)} AS SELECT * FROM {source}"
            )
        return pinned

    def reads_events(self, query: Query) -> bool:
        """Whether a table that a query names is SQL over `events`; see TableProvider."""
        return _EVENT_PATTERNS in _names(query) | self._lasting

    def attach(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Make the tables over `events`; see TableProvider."""
        if not _is_taken(cursor, _EVENT_PATTERNS):
            query = pattern_tables.event_patterns_sql(_TEMPLATES)
            cursor.execute(f"CREATE OR REPLACE TEMP VIEW {_EVENT_PATTERNS} AS {query}")


_ANY = "SELECT 1 FROM events LIMIT 1"
_FIELDS = """SELECT DISTINCT unnest(json_keys(data)) AS name FROM
    (SELECT data FROM events WHERE json_type(data) = 'OBJECT' LIMIT 1000) ORDER BY name LIMIT 12"""


def _is_taken(cursor: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether a user's own table or view has the name."""
    return EngineCatalog(cursor).has_relation(name, "lakelog_", _OFFERED)


def _window(since: object, until: object) -> tuple[int, int] | None:
    if since is None and until is None:
        return None
    low = -_HIGHEST if since is None else _micros("since", since)
    high = _HIGHEST if until is None else _micros("until", until)
    # Microseconds outside of these overflow in the engine.
    return max(low, _FIRST), min(high, _LAST)


_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_800_000_000
"""The years 1 to 9999 in microseconds, which is what events can have."""


def _micros(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return values.to_micros(values.parse_time(value))
    except InvalidEvent:
        raise InvalidView(f"{name} is a time such as 2026-11-20T08:00, not {value!r}") from None


def _names(query: Query) -> set[str]:
    """The names that a query may mean views by."""
    if query.parsed:
        # CTEs hide tables of their names.
        names = {table.lower() for schema, table in query.tables if not schema}
        return names - query.ctes - {*Query.TABLES}
    # What was not parsed is searched for names: one view too many is only computed.
    matches = re.finditer(r"\b(?:from|join)\s+\"?(\w+)", query.sql, re.I)
    return {match[1].lower() for match in matches}
