"""Mappings: the SQL that makes rows of a table from events, one by one or as a whole.

What is new is mapped alone, so a row must depend on its event and nothing else (dependence.py):
no aggregates, windows, limits, nor functions such as now(). The column `seq` identifies the event;
it is added where a query over `events` does not name it. In the mode `replace` rows may depend on
all events, since all are made again; what changes without them is refused there, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass, replace

from lakelog.engine.messages import EngineMessage
from lakelog.engine.syntax import Node, SyntaxFault, parse, sql_of
from lakelog.engine.volatility import FunctionCall, Volatility
from lakelog.errors import QueryFailed
from lakelog.event import BookkeepingEvent
from lakelog.libraries import duckdb
from lakelog.query.sql.tree import is_events, nodes
from lakelog.search import expanded
from lakelog.segments import sql
from lakelog.segments.segment import EVENT_COLUMNS
from lakelog.sync.column_types import ColumnType, Conversion, TypeNames, read_types
from lakelog.sync.dependence import Dependent, RowMapping, row_mapping, tables
from lakelog.sync.target import KEY, REPLACE, TargetColumn

ALL_EVENTS = f"SELECT * FROM events WHERE {BookkeepingEvent.IS_DATA}"
"""The mapping of a sync without a query: all events but bookkeeping ones, as `export` has them."""
NO_ROWS = sql.no_rows((*EVENT_COLUMNS, KEY))
_KINDS = {
    "bigint": "TINYINT SMALLINT INTEGER BIGINT UTINYINT USMALLINT UINTEGER",
    "numeric": "UBIGINT HUGEINT UHUGEINT DECIMAL",
    "double": "FLOAT DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "blob": "BLOB",
    "timestamp": "TIMESTAMP TIMESTAMP_S TIMESTAMP_MS TIMESTAMP_NS",
}
_KIND = {name: kind for kind, names in _KINDS.items() for name in names.split()}
_KIND["TIMESTAMP WITH TIME ZONE"] = "timestamptz"
_NESTED = re.compile(r"\]$|^(STRUCT|MAP|UNION|VARIANT)\b")


@dataclass(frozen=True)
class Mapping:
    """A checked query over `events` and the columns that it yields."""

    query: str
    columns: tuple[TargetColumn, ...]
    nested: frozenset[str]
    """Columns of lists and structs, which are stored as JSON text."""
    is_several: bool = False
    """Whether an event may have several rows."""
    conversions: tuple[Conversion, ...] = ()
    """Of the columns that a user gave a type."""

    @property
    def is_keyed(self) -> bool:
        """Whether KEY is among the columns."""
        return any(column.name == KEY for column in self.columns)

    def typed(self, given: AbstractMapping[str, str], types: TypeNames, place: str) -> Mapping:
        """Return the mapping with types for columns by name. Raises InvalidSetting."""
        names = [column.name for column in self.columns]
        column_types = read_types(given, names, types, place, KEY)
        return replace(
            self,
            columns=tuple(_typed(column, column_types.get(column.name)) for column in self.columns),
            nested=self.nested - column_types.keys(),
            conversions=tuple(
                Conversion.of(column.name, column.engine_type, column_types[column.name])
                for column in self.columns
                if column.name in column_types
            ),
        )

    @property
    def column_types(self) -> dict[str, str]:
        """The types that a user gave columns, by name."""
        return {each.column: str(each.column_type) for each in self.conversions}


def read_mapping(
    cursor: duckdb.DuckDBPyConnection, query: str | None, mode: str = "upsert"
) -> Mapping:
    """Check a query, by the engine's own parser. Raises QueryFailed."""
    query_text = ALL_EVENTS if query is None else expanded(query).strip().rstrip(";")
    # Without rows: DESCRIBE wants a table of that name, and must not read the lake.
    set_events(cursor, NO_ROWS)
    try:
        tree = _parsed(cursor, query_text)
        # `replace` computes all rows from all events: a row may depend on many.
        rows = None if mode == REPLACE else _row_mapping(tree)
        query_text = _wrappable(cursor, query_text, tree)
        described = cursor.execute(f"DESCRIBE {query_text}").fetchall()
        has_key = KEY in [row[0] for row in described]
        # The key is added where it is plain where from; else the user has to name it.
        if rows and not has_key and _reads_events_alone(tree):
            query_text = _keyed(cursor, tree)
            described = cursor.execute(f"DESCRIBE {query_text}").fetchall()
        # A column of that name with other values would make rows replace each other.
        elif rows and has_key and not rows.has_key:
            raise QueryFailed(
                f"the mapping has a column {KEY} that is not the one of the event: name it"
                " otherwise with AS"
            )
    except (duckdb.Error, SyntaxFault) as error:
        raise QueryFailed(f"the mapping: {EngineMessage(error).gist()}") from None
    names = [str(row[0]).lower() for row in described]
    if twice := {name for name in names if names.count(name) > 1}:
        raise QueryFailed(f"the mapping has two columns {min(twice)!r}: rename one with AS")
    columns = tuple(_column(str(name), str(sql_type)) for name, sql_type, *_ in described)
    nested = frozenset(
        str(name) for name, sql_type, *_ in described if _NESTED.search(str(sql_type))
    )
    return Mapping(query_text, columns, nested, rows is not None and rows.is_several)


def set_events(cursor: duckdb.DuckDBPyConnection, rows: str) -> None:
    """Let `events` be these rows, for one cursor."""
    # Temporary, and of the cursor alone: other threads map other events at the same time.
    cursor.execute(f"CREATE OR REPLACE TEMPORARY VIEW events AS {rows}")


def _column(name: str, sql_type: str) -> TargetColumn:
    plain, _, arguments = sql_type.partition("(")
    scale = arguments.rstrip(")").split(",")[-1].strip() if plain == "DECIMAL" else "0"
    column_kind = _KIND.get(sql_type) or _KIND.get(plain, "text")
    is_json = sql_type == "JSON" or _NESTED.search(sql_type) is not None
    return TargetColumn(
        name,
        "text" if is_json else column_kind,
        int(scale),
        is_json,
        sql_type.endswith("]"),
        engine_type=sql_type,
    )


def _typed(column: TargetColumn, column_type: ColumnType | None) -> TargetColumn:
    if column_type is None:
        return column
    return replace(
        column,
        kind=column_type.kind,
        scale=column_type.scale,
        is_json=column_type.is_json,
        is_list=column_type.is_array,
        column_type=column_type,
    )


def _parsed(cursor: duckdb.DuckDBPyConnection, query_text: str) -> Node:
    """Return the syntax tree of a query that depends on events alone. Raises QueryFailed."""
    try:
        tree = parse(cursor, query_text)
    except SyntaxFault as fault:
        problem = EngineMessage(fault).gist()
        raise QueryFailed(f"the mapping is one SELECT over events: {problem}") from None
    if len(tree["statements"]) != 1:
        raise QueryFailed(f"the mapping is one SELECT over events, not {len(tree['statements'])}")
    if other_tables := tables(tree):
        raise QueryFailed(
            f"the mapping reads {min(other_tables)}, where it may read `events` alone: choose"
            " events with WHERE, such as WHERE type = 'login', and fields with data->>'name'"
        )
    # Functions may be called at any depth.
    calls = [
        call for child in nodes(tree["statements"][0]["node"]) if (call := FunctionCall.of(child))
    ]
    changing = [name for name, volatility in calls if volatility is not Volatility.IMMUTABLE]
    if changing:
        problem = f"the mapping calls {min(changing)}(), which is another value at each sync"
        raise QueryFailed(problem)
    return tree


def _row_mapping(tree: Node) -> RowMapping:
    """Return what the rows of a query are, each of one event. Raises QueryFailed."""
    try:
        return row_mapping(tree)
    except Dependent as what:
        raise QueryFailed(
            f"the mapping makes one row of several events, by {what}: leave it out and ask for it"
            f" in the target, or use the mode {REPLACE}, which computes the whole table again"
            " whenever the lake changed"
        ) from None


def _wrappable(cursor: duckdb.DuckDBPyConnection, query_text: str, tree: Node) -> str:
    """Return the query as it can stand in parentheses: a comment may end it, after a semicolon."""
    try:
        parse(cursor, f"SELECT * FROM ({query_text}\n)")
    except SyntaxFault:
        return sql_of(cursor, tree)
    return query_text


def _reads_events_alone(tree: Node) -> bool:
    node = tree["statements"][0]["node"]
    # WITH may have another table of that name.
    return is_events(node.get("from_table")) and not (node.get("cte_map") or {}).get("map")


def _keyed(cursor: duckdb.DuckDBPyConnection, tree: Node) -> str:
    """Return the query with KEY as its last column."""
    key = {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "query_location": 0}
    # As a syntax tree: text could be changed in a comment or a string.
    tree["statements"][0]["node"]["select_list"].append(key | {"column_names": [KEY]})
    return sql_of(cursor, tree)
