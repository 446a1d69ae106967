"""Rows of ids and subjects that are asked for again, on cursors that have them as a table.

A look-up decodes a column of each segment that the Bloom filters leave, which takes longer than all
the rest of it. Segments never change: what one query has found in these, the next ones need not
look for, whatever else they ask of those rows. Rows are kept only from the second look-up on, as
most ids are looked up once.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from lakelog.query.cursor_pool import CursorPool
from lakelog.query.sql import table_sql
from lakelog.query.sql.prune import Predicate, TableRefs
from lakelog.query.sql.table_sql import View
from lakelog.runtime.lazy import Lazy
from lakelog.segments import connection, sql
from lakelog.store.entry import SegmentEntry

if TYPE_CHECKING:
    from lakelog.query.sql import payload
else:
    payload = Lazy("lakelog.query.sql.payload")

_TABLE = "lakelog_needle"
_TAIL = "lakelog_needle_tail"
_ROWS, _BYTES = 4096, 1 << 20
"""More rows, or more of payloads and messages, are not kept; times the cursors of a pool."""
_REMEMBERED = 1024
_LENGTH = "coalesce(strlen(data), 0) + coalesce(strlen(message), 0)"
Lend = Callable[[object], Any]
"""Takes a cursor back when the holder of its answer is freed."""


class NeedleRows:
    """Cursors with the rows of ids or subjects. Its owner calls it under a lock."""

    def __init__(self) -> None:
        self._pool = CursorPool()
        # What was asked for: the loan of a cursor that has its rows, or whether to keep them.
        self._asked: OrderedDict[tuple[Any, ...], bool | weakref.finalize[..., Any]]
        self._asked = OrderedDict()

    def answer(
        self,
        query: str,
        mentions: TableRefs,
        views: Sequence[View],
        rows_of: Callable[[list[SegmentEntry]], str],
        fresh: Callable[[], Any],
    ) -> tuple[Any, str, Lend] | None:
        """Return a cursor, the query as it is asked there, and what lends the cursor to the holder
        of its answer; None for a query whose rows are not kept.

        `rows_of` returns SQL for the rows of segments, `fresh` a cursor.
        """
        needle = self._repeated(query, mentions, views)
        if needle is None:
            return None
        cursor = self._pool.take([needle])
        if cursor is None:
            cursor = fresh()
            if not self._fill(cursor, needle, rows_of(needle.entries)):
                return None
        listed = ", ".join(table_sql.columns("events"))
        rows = f"SELECT {listed} FROM {_TABLE}"
        if (tail := views[0].tail) is not None:
            connection.load_relations()  # which know how the engine reads Arrow tables
            cursor.register(_TAIL, tail.select(table_sql.columns("events")))
            rows += f" UNION ALL SELECT {listed} FROM {_TAIL}"
        return cursor, table_sql.inlined(query, "events", rows), partial(self._lend, needle, cursor)

    def _repeated(self, query: str, mentions: TableRefs, views: Sequence[View]) -> View | None:
        """Return the table of the rows that a query looks for, if it has looked for them before and
        they may be kept."""
        if len(views) != 1 or len(mentions.needs) != 1 or not views[0].entries:
            return None
        condition = _condition(mentions.needs[0])
        if not condition or table_sql.has_names(query) or payload.FIELDS in query.lower():
            return None
        needle = View(f"FROM events WHERE {condition}", views[0].entries, None)
        asked = self._asked.get(needle.key)
        if asked is None:
            self._asked[needle.key] = True
            if len(self._asked) > _REMEMBERED:
                self._asked.popitem(last=False)
        is_lent = isinstance(asked, weakref.finalize) and asked.alive
        return needle if asked and not is_lent else None

    def _fill(self, cursor: Any, needle: View, rows: str) -> bool:
        """Make the table on a fresh cursor, from SQL for the rows of its segments; False for a
        table that is too large."""
        found = f"WITH events AS NOT MATERIALIZED ({rows}) {needle.name}"
        cursor.execute(f"CREATE TEMP TABLE {_TABLE} AS {found} LIMIT {_ROWS + 1}")
        size = f"SELECT count(*), coalesce(sum({_LENGTH}), 0) FROM {_TABLE}"
        [(count, length)] = cursor.execute(size).fetchall()
        self._asked[needle.key] = is_small = count <= _ROWS and length <= _BYTES
        return bool(is_small)

    def _lend(self, needle: View, cursor: Any, holder: object) -> weakref.finalize[..., Any]:
        loan = self._asked[needle.key] = self._pool.lend([needle], cursor, holder)
        return loan


def _condition(need: Predicate) -> str:
    """SQL that the rows of certain ids and subjects meet, "" where any may be meant."""
    named = {"id": need.ids, "subject": need.subjects}
    return " AND ".join(
        f"{column} IN ({', '.join(map(sql.literal, sorted(names)))})"
        for column, names in named.items()
        if names
    )
