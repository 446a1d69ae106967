"""A relation of the engine as a streaming result, whatever its number of rows.

A query is first run for its first thousand rows, which for most is all there is and needs no Arrow.
A longer result is run again and streamed: through Arrow where every column's type converts without
loss, else row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from lakelog.cli.render.tables import ROWS_MAX
from lakelog.libraries import duckdb
from lakelog.query import Relation
from lakelog.render import ColumnBatch, OutputFormat, QueryResult
from lakelog.sql import identifier

PROBE = 1000
BATCH = 1000
_ARROW_BATCH = 16_384
_NANOSECONDS = "TIMESTAMP_NS"
_PLAIN_TYPES = frozenset(
    "boolean tinyint smallint integer bigint utinyint usmallint uinteger ubigint hugeint float"
    " double decimal varchar enum date time timestamp uuid blob null".split()
) | {"timestamp with time zone"}
_NESTED_TYPES = frozenset(("list", "array", "struct"))


def result_of(
    relation: Any,
    format: str,
    rerun: Callable[[], Any] | None = None,
    *,
    payload: bool = True,
    complete: Callable[[], bool] = bool,
) -> QueryResult:
    """Return a relation as a streaming result.

    `rerun` runs its query once more and returns the cursor, which streams every type there is. A
    text column `data` holds JSON if it is the `payload` of events. `complete` gives the relation's
    tables what more than its first rows, or these after an error, need; False if they have it.
    """
    # Without a row: `columns` of a DuckDB relation may run the query.
    names = list(relation.limit(0).columns)
    nested = tuple(
        i
        for i, column_type in enumerate(relation.types)
        if _is_json(payload, names[i], column_type)
    )
    if format in OutputFormat.binary():
        complete()
        # A stream of Arrow has no second try: what the tables lack is fetched before it begins.
        arrow_rows = Relation.for_arrow(relation)
        return QueryResult(names, (), nested, lambda: arrow_rows.to_arrow_reader(131_072))
    has_nanoseconds = any(str(column_type) == _NANOSECONDS for column_type in relation.types)
    # A table keeps its times short.
    if has_nanoseconds and format != "table":
        relation, rerun = _with_nanoseconds(relation), None
    limit = ROWS_MAX if format == "table" else PROBE
    # One more than is shown says whether there are others.
    try:
        head = relation.limit(limit + 1).fetchall()
    except (duckdb.DataError, duckdb.ProgrammingError, duckdb.IOException):
        if not complete():
            raise
        head = relation.limit(limit + 1).fetchall()
    if len(head) <= limit or format == "table":
        return QueryResult(names, [head], nested)
    complete()
    return QueryResult(names, _stream(relation, rerun), nested)


def _with_nanoseconds(relation: Any) -> Any:
    """Return a relation with times of nanoseconds as text: Python's end at microseconds."""
    columns = zip(relation.limit(0).columns, relation.types, strict=True)
    return relation.project(
        ", ".join(
            f"replace(#{place}::VARCHAR, ' ', 'T') AS {identifier(name)}"
            if str(column_type) == _NANOSECONDS
            else f"#{place}"
            for place, (name, column_type) in enumerate(columns, 1)
        )
    )


def _stream(relation: Any, rerun: Callable[[], Any] | None) -> Iterator[Sequence[Sequence[Any]]]:
    if all(map(_is_lossless, relation.types)):
        yield from map(ColumnBatch, relation.to_arrow_reader(_ARROW_BATCH))
    elif rerun is not None:
        cursor = rerun()
        while batch := cursor.fetchmany(BATCH):
            yield batch
    else:
        rows = relation.iter_rows(BATCH)
        while batch := list(islice(rows, BATCH)):
            yield batch


def _is_lossless(column_type: Any) -> bool:
    """Whether Arrow gives the same Python values as the engine itself."""
    if column_type.id in _NESTED_TYPES:
        return all(_is_lossless(child) for _, child in column_type.children if hasattr(child, "id"))
    return column_type.id in _PLAIN_TYPES


def _is_json(payload: bool, name: str, column_type: object) -> bool:
    return str(column_type) == "JSON" or (
        payload and name == "data" and str(column_type) == "VARCHAR"
    )
