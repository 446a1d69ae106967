"""Statements that share one connection, as those of a shell or a script do.

Tables, views, macros, variables, settings and transactions last as long as the StatementRunner.
The lake's own tables are rebuilt for every statement, so that each sees what was just appended.
The connection is known, so Ctrl-C can interrupt it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lakelog.cli.render.results import result_of
from lakelog.engine import syntax
from lakelog.engine.messages import EngineMessage
from lakelog.errors import QueryFailed, SnapshotGone
from lakelog.libraries import duckdb
from lakelog.query import Query, Session
from lakelog.render import QueryResult
from lakelog.store import Store
from lakelog.views import ViewTables

_TRANSACTION = re.compile(r"\s*(begin|start|commit|end|rollback|abort)\b", re.I)
_PREPARES = re.compile(r"\s*prepare\b", re.I)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.S)
_CHANGES = frozenset(("CREATE", "INSERT", "UPDATE", "DELETE", "ALTER", "DROP", "MERGE_INTO"))
_FETCHED = 2048
_NO_ROWS = (["Count"], ["Success"])


@dataclass(frozen=True)
class ShellStatement:
    """One statement of a text. `params` are the $names in it."""

    text: str
    kind: str
    params: frozenset[str] = frozenset()

    @property
    def changes(self) -> bool:
        """Whether it only makes or changes tables, which last as long as the session."""
        return self.kind in _CHANGES

    def gives_rows(self, relation: Any) -> bool:
        """Whether the relation that it made is an answer, not just a count of rows changed."""
        if relation is None:
            return False
        return self.kind == "SELECT" or list(relation.columns) not in _NO_ROWS


class StatementRunner:
    """Runs statements one after another. A result must be read, or dropped, before the next."""

    def __init__(self, store: Store, branch: str) -> None:
        self.session = Session(store, branch)
        self.views = ViewTables(self.session)
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._query = ""
        self._asked: tuple[str, Any, str | None] = "", None, None
        self._params: Any = None
        self._complete: Callable[[], None] | None = None

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """The one connection."""
        if self._cursor is None:
            self._cursor = self.session.connect().cursor()
        return self._cursor

    def interrupt(self) -> None:
        """Stop the running statement; any thread may ask for it."""
        if self._cursor is not None:
            self._cursor.interrupt()

    def statements(self, script: str) -> list[ShellStatement]:
        """Split a text into statements. Raises QueryFailed where it does not parse."""
        # As typed first: rewriting is only for names of tables that the engine cannot parse. An
        # error is of what was typed.
        fault, parsed = "", list[syntax.ParsedStatement]()
        for spelled in (str, Query.parsable):
            try:
                parsed = syntax.ParsedStatement.list_of(self.cursor(), spelled(script))
                break
            except duckdb.Error as error:
                fault = fault or str(error)
        else:
            raise QueryFailed(fault)
        return [ShellStatement(s.sql, s.kind, s.parameters) for s in parsed]

    def is_whole(self, script: str) -> bool:
        """Whether a text is ready to run: it ends with a semicolon, outside strings and comments.

        A text that cannot be parsed is ready too, for no more words would mend it.
        """
        cursor = self.cursor()
        try:
            count = len(syntax.ParsedStatement.list_of(cursor, script))
        except duckdb.Error as error:
            # What can never parse is run at its semicolon, so that the error appears; an open
            # string is not over at one.
            return script.rstrip().endswith(";") and not EngineMessage(error).is_unfinished()
        if not count:
            return not script.strip() or ";" in _COMMENT.sub("", script)
        try:
            # With a statement behind it: only if that one is counted apart did the text end with a
            # semicolon.
            return len(syntax.ParsedStatement.list_of(cursor, f"{script}\nSELECT 1")) > count
        except duckdb.Error:
            return False

    def sql(self, query: str, params: Any = None, ref: str | None = None) -> Any:
        """Run one statement on the one connection; see Session.sql. Errors keep their caret."""
        cursor, self._complete = self.cursor(), None
        try:
            # These have no rows, and the lake's tables must not be made in the middle of them.
            if _TRANSACTION.match(query):
                return cursor.sql(query)
            self.session.binder.drop_tables(cursor)
            if not params and ref is None and self._has_scan(cursor, query):
                self._query, self._params, self._asked = query, None, (query, None, None)
                return cursor.sql(query)
            try:
                return self._bound(cursor, query, params, ref)
            except duckdb.Error as error:
                if not self.session.binder.has_rewritten(self._query):
                    raise
                original = error
            # An error shows the statement as it was typed.
            try:
                return self._bound(cursor, query, params, ref, is_as_asked=True)
            except duckdb.BinderException as error:
                raise duckdb.BinderException(EngineMessage(original).clearer(str(error))) from None
        except UnicodeEncodeError as error:
            raise QueryFailed(f"the query is not valid Unicode: {error.reason}") from None
        except duckdb.Error as error:
            session = self.session
            message = EngineMessage(error).with_suggestion(session.tables.names, session.store.refs)
            raise QueryFailed(session.binder.refs.as_written(message)) from None

    def _bound(
        self, cursor: Any, query: str, params: Any, ref: str | None, *, is_as_asked: bool = False
    ) -> Any:
        self._query, self._asked = query, (query, params, ref)
        self._query, self._params = self.session.binder.bind(
            cursor, query, params or None, ref, is_as_asked=is_as_asked
        )
        # A prepared statement runs later, and would then miss tables that are cut for another one.
        if _PREPARES.search(query):
            self.session.tables.hides_tables = True
        if self._params:
            return cursor.sql(self._query, params=self._params)
        return cursor.sql(self._query)

    def _has_scan(self, cursor: Any, query: str) -> bool:
        """Make `events` for the first rows of an answer, where the tail need not become rows."""
        session = self.session
        with session.tables.mutex.hold():
            parsed = Query.of(session.connect().cursor(), query, session=cursor)
            is_counted, tables = parsed.counts_all is not None, parsed.own_tables(Query.TABLES)
            if session.tables.hides_tables or is_counted or tables != {"events"}:
                return False
            # The scan has files that are kept as long as it is read. Where gc was faster, who makes
            # the tables looks again.
            with contextlib.suppress(SnapshotGone):
                scan = session.scans.make(cursor, parsed, session.state(None))
                self._complete = scan and (lambda: scan.complete(cursor))
        return self._complete is not None

    def complete(self) -> bool:
        """Give the last statement its tables whole: before, they have what its first rows need, and
        a payload that the engine cannot parse is an error. Return whether they were not whole."""
        complete, self._complete = self._complete, None
        if complete is not None:
            complete()
        return complete is not None

    def result(self, relation: Any, query: str, format: str) -> QueryResult:
        """Return the answer of the last statement as a streaming result."""
        is_payload = Query.gives_payload(self.session.connect().cursor(), query)
        return result_of(relation, format, self.again, payload=is_payload, complete=self.complete)

    def again(self) -> duckdb.DuckDBPyConnection:
        """Run the last query once more; its rows can be fetched in pieces."""
        # What is read in pieces was cut for the first rows: the whole tables come before.
        self.complete()
        return self.cursor().execute(self._query, self._params)

    def as_asked(self, error: BaseException) -> BaseException:
        """Return the error of the last statement as it was typed, where another query ran for it
        and failed by a value."""
        is_rewritten = self.session.binder.has_rewritten(self._query)
        if not is_rewritten or not isinstance(error, duckdb.DataError):
            return error
        cursor, (query, params, ref) = self.cursor(), self._asked
        try:
            self._bound(cursor, query, params, ref, is_as_asked=True)
            self.again()
            while cursor.fetchmany(_FETCHED):
                pass
        except duckdb.DataError as own:
            return own
        except duckdb.Error:  # in a transaction that the first error has ended
            return error
        return error

    def close(self) -> None:
        """Close the database, with everything that statements created in it."""
        # DuckDB closes a connection only after its running query has ended.
        self.interrupt()  # who has read enough of an answer does not wait for the next row
        # What it was answered with goes first: the session still writes what views computed.
        if self._cursor is not None:
            self._cursor.close()
        self._cursor = self._scan = None
        self.session.close()

    def __enter__(self) -> StatementRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
