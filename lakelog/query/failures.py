"""Failures of queries, told in the words of what was asked."""

from __future__ import annotations

from lakelog.engine.messages import EngineMessage
from lakelog.errors import LakelogError, QueryFailed
from lakelog.libraries import duckdb
from lakelog.query import schemas
from lakelog.query.binder import Binder
from lakelog.query.lake_tables import LakeTables

_FETCH_ROWS = 2048


class Failures:
    """What the engine says of the queries of a session, as errors of ours."""

    def __init__(self, tables: LakeTables, binder: Binder) -> None:
        self._tables, self._binder = tables, binder

    def in_one_line(self, message: str) -> str:
        """What the engine says, without its picture of the query, refs by their own names."""
        message, refs = schemas.as_written(message), self._tables.store.refs
        line = EngineMessage(message).with_suggestion(self._tables.names, refs).explained()
        return self._binder.refs.named(line)

    def error(self, message: str) -> QueryFailed:
        """Return the error of a query that cannot run."""
        return QueryFailed(self.in_one_line(message), schemas.as_written(message))

    def of(
        self, rewritten: str, source: tuple[str, object, str | None], message: str
    ) -> QueryFailed:
        """Return the error of a query that fails while it runs; `source` is what was asked: query,
        parameters and the digest of a manifest."""
        query, params, digest = source
        # The query itself fails so, and can show where.
        if rewritten != query and EngineMessage(message).is_of_value():
            try:
                # Run as it was written, so that the caret points into what the user typed.
                cursor = self._tables.connect().cursor()
                query, params = self._binder.bind_once(
                    cursor, query, params, digest, is_as_asked=True
                )
                cursor.execute(query, params or None)
                while cursor.fetchmany(_FETCH_ROWS):
                    pass
            except (duckdb.Error, LakelogError) as error:
                message = EngineMessage(message).clearer(str(error))
        return self.error(message)
