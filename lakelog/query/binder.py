"""Binding any query: the tables that it names are made on its cursor, and its text is put into the
form that reads them.

These are `events` and `quarantine`, those of tags and branches (`"v1".events`) and of types, the
views of the lake, and the schemas of older systems. What a statement makes of them may be read by
later ones that do not name them: from then on every query gets all segments.
"""

from __future__ import annotations

from lakelog.errors import SnapshotGone
from lakelog.libraries import duckdb
from lakelog.query import providers, session_settings
from lakelog.query.lake_tables import LakeTables
from lakelog.query.schemas import RefSchemas, TypeTables
from lakelog.query.sql import show
from lakelog.query.sql.analysis import HIDES, Query
from lakelog.query.sql.tree import WIDE
from lakelog.query.stream import QueryCursors
from lakelog.query.top_scans import TopScans
from lakelog.search import expanded


class Binder:
    """Binds queries of a session."""

    def __init__(self, tables: LakeTables) -> None:
        self._tables, self._attached = tables, set[str]()
        self.refs = RefSchemas(tables)
        self.types = TypeTables(tables, self.refs)
        self.renew_cursors()

    def renew_cursors(self) -> None:
        """Let go of all cursors."""
        self.cursors = QueryCursors(self._tables)
        self.tops = TopScans(self._tables, self.refs)

    def clear(self) -> None:
        """Forget the schemas of a database that is let go."""
        self.refs.clear()
        self._attached.clear()

    @staticmethod
    def has_rewritten(query: str) -> bool:
        """Whether a query that was bound reads extractions from payloads as columns."""
        return WIDE in query

    @staticmethod
    def drop_tables(cursor: duckdb.DuckDBPyConnection) -> None:
        """Let go of the tables that an earlier query has on a cursor, cut to what it needed."""
        for name in (*Query.TABLES, WIDE):
            cursor.execute(f"DROP VIEW IF EXISTS temp.{name}")

    def bind(
        self,
        cursor: duckdb.DuckDBPyConnection,
        sql: str,
        params: object,
        digest: str | None,
        *,
        is_as_asked: bool = False,
    ) -> tuple[str, object]:
        """Make the tables that a query needs on a cursor; return the query and parameters that give
        its rows there, `is_as_asked` without rewriting it. Raises SnapshotGone, Damaged, LakeClosed
        and the engine's own errors."""
        self._tables.require_open()
        try:
            return self.bind_once(cursor, sql, params, digest, is_as_asked=is_as_asked)
        except SnapshotGone:  # gc was faster: look again, once
            return self.bind_once(cursor, sql, params, digest, is_as_asked=is_as_asked)

    def bind_once(
        self,
        cursor: duckdb.DuckDBPyConnection,
        sql: str,
        params: object,
        digest: str | None,
        *,
        is_as_asked: bool = False,
    ) -> tuple[str, object]:
        """The same for whoever looks again himself."""
        explain, sql = show.without_explain(expanded(sql), self._tables.names)
        if explain:
            # EXPLAIN itself is no SELECT: what it explains is bound, and gets it back in front.
            sql, params = self.bind_once(cursor, sql, params, digest, is_as_asked=is_as_asked)
            return explain + sql, params
        # Under the lock of the session: views of one state must not mix with those of another.
        with self._tables.mutex.hold():
            query = Query.of(self._tables.connect().cursor(), sql, params, cursor)
            if not query.parsed:
                # The engine may parse what has no tree, such as SET: it is told what holds for the
                # session.
                query = Query(session_settings.for_session(cursor, sql))
            query = self.refs.requalified(self.types.replaced(cursor, query))
            answer = self.prepare(cursor, query, digest, params, is_as_asked=is_as_asked)
            if not query.parsed:
                # A view made here is read by later queries that do not name `events`, and may
                # replace what other queries were bound to.
                self._tables.hides_tables |= bool(HIDES.search(query.sql))
                self.cursors.forget_prepared()
        # Only the answer to a count has no parameters any more.
        is_count = answer is not None and query.counts_all is not None
        return answer or query.sql, None if is_count else params

    def prepare(
        self,
        cursor: duckdb.DuckDBPyConnection,
        query: Query,
        digest: str | None,
        params: object = None,
        *,
        is_as_asked: bool = False,
    ) -> str | None:
        """Make the views a query needs; return other SQL that gives its answer, if there is such:
        a count, or unless `is_as_asked` a query over typed columns."""
        tables, sql = self._tables, query.sql
        names = {table for schema, table in query.tables if not schema}
        if not query.parsed:
            names = {name for name in Query.TABLES if name in sql.lower()}
        if tables.hides_tables:
            names.update(Query.TABLES)
        extra, provider = providers.named_in(query), tables.provider
        is_over_events = provider is not None and provider.reads_events(query)
        # Tables of a provider are SQL over `events`, which the query itself need not name.
        if extra or is_over_events:
            names.add("events")
        pinned = provider.offer(cursor, query, digest) if provider else None
        is_of_type = self.types.is_named(query)
        of_refs, views = self.refs.events(query), []
        if names.intersection(Query.TABLES) or is_of_type:
            pinned = pinned or tables.state(digest)
            if not is_over_events and (count := tables.count_sql(query, pinned)):
                return count
            # What tables over events ask of them is not in the query: take them all.
            views = tables.views(names, Query() if extra or is_over_events else query, pinned)
            views += self.types.views(query, pinned) if is_of_type else []
        elif not of_refs:
            return None
        if not is_as_asked and query.parsed and not extra and not is_over_events:
            if not tables.hides_tables:
                views = self.tops.bounded(query, pinned, views, cursor, params)
                of_refs = self.tops.of_ref(query, of_refs, cursor, params)
            sql, views = tables.over_columns(sql, pinned, views, of_refs, self.refs.states)
        tables.make(cursor, views)
        if provider is not None and is_over_events:
            provider.attach(cursor)
        # In one order for all, so that two threads never wait for each other.
        for name in sorted(extra - self._attached):
            providers.EXTRA_SCHEMAS[name].attach(cursor)
            self._attached.add(name)
        return None if sql is query.sql else sql
