"""Mappings: the SQL that makes rows of a table from events, one by one or as a whole.

What is new is mapped alone, so a row must depend on its event and nothing else: no
aggregates, windows, limits, nor functions such as now(). The column `seq` identifies the event;
it is added where a query over `events` does not name it. In the mode `replace` rows may depend on
all events, since all are made again; what changes without them is refused there, too.

What the rows of a query depend on: whether each is made from one event alone.

The whole tree is looked at, and only what is known to be made row by row counts: one source of
events, through subqueries and WITH, joined with values that come from no table; no LIMIT, DISTINCT,
GROUP BY, aggregate, window, sample, set operation or subquery over a table at any depth. KEY is
that of the event where it is handed up by its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass, replace

from lakelog import sql
from lakelog.engine.messages import EngineMessage
from lakelog.engine.syntax import Node, SyntaxFault, nodes, parse, sql_of
from lakelog.engine.volatility import FunctionCall, Volatility
from lakelog.errors import QueryFailed
from lakelog.event import EVENT_COLUMNS, BookkeepingEvent
from lakelog.libraries import duckdb
from lakelog.query import Query
from lakelog.search import expanded
from lakelog.sync.column_types import ColumnType, Conversion, TypeNames, read_types
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
_WIDE, _WIDEST = ("HUGEINT", "UHUGEINT"), ColumnType("numeric", (38, 0))
_NESTED = re.compile(r"\]$|^(STRUCT|MAP|UNION|VARIANT)\b")


@dataclass(frozen=True)
class Mapping:
    """A checked query over `events` and the columns that it yields."""

    query: str
    columns: tuple[TargetColumn, ...]
    nested: frozenset[str]
    """Columns of lists and structs, which are stored as JSON text."""
    is_keyed: bool
    """Whether KEY is among the columns, and is that of the event."""
    is_several: bool = False
    """Whether an event may have several rows."""
    conversions: tuple[Conversion, ...] = ()
    """Of the columns that a user gave a type."""

    def typed(self, given: AbstractMapping[str, str], types: TypeNames, place: str) -> Mapping:
        """Return the mapping with types for columns by name. Raises InvalidSetting."""
        names = [column.name for column in self.columns]
        column_types = read_types(given, names, types, place, KEY)
        # Of 39 digits one more than a database is asked to have: a row with such is refused alone.
        has_digits = types.has_arguments and "numeric" in types.names
        wide = {c.name: _WIDEST for c in self.columns if has_digits and c.engine_type in _WIDE}
        return replace(
            self,
            columns=tuple(_typed(column, column_types.get(column.name)) for column in self.columns),
            nested=self.nested - column_types.keys(),
            conversions=tuple(
                Conversion.of(column.name, column.engine_type, converted)
                for column in self.columns
                if (converted := (wide | column_types).get(column.name))
            ),
        )

    @property
    def column_types(self) -> dict[str, str]:
        """The types that a user gave columns, by name."""
        return {c.name: str(c.column_type) for c in self.columns if c.column_type}


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
    # Of rows that are made of many events it is a column like others.
    is_keyed = rows is not None and any(column.name == KEY for column in columns)
    return Mapping(query_text, columns, nested, is_keyed, rows is not None and rows.is_several)


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
    return Query.is_events(node.get("from_table")) and not (node.get("cte_map") or {}).get("map")


def _keyed(cursor: duckdb.DuckDBPyConnection, tree: Node) -> str:
    """Return the query with KEY as its last column."""
    key = {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "query_location": 0}
    # As a syntax tree: text could be changed in a comment or a string.
    tree["statements"][0]["node"]["select_list"].append(key | {"column_names": [KEY]})
    return sql_of(cursor, tree)


TABLE_FUNCTIONS = frozenset(
    "generate_series generate_subscripts json_each json_tree range regexp_split_to_table unnest"
    " repeat".split()
)
"""Tables that are made from arguments alone."""
_SEVERAL = frozenset(("generate_subscripts", "regexp_split_to_table", "unnest"))
_INTEGERS = frozenset(("BIGINT", "HUGEINT", "INTEGER", "UBIGINT"))
_JOINS = frozenset(("REGULAR", "NATURAL", "CROSS", "DEPENDENT"))
_LEFT = frozenset(("INNER", "LEFT", "SEMI", "ANTI"))
"""Joins that keep what depends on the left side's rows one by one."""


class Dependent(Exception):
    """Raised for a query of which a row may depend on several events; says what makes it so."""


@dataclass(frozen=True)
class RowSource:
    """A part of a query that gives rows of events: its name, and whether it hands up their KEY."""

    name: str
    has_key: bool


@dataclass(frozen=True)
class RowMapping:
    """A query whose rows are made from one event each: whether KEY is the event's, and whether an
    event may have several rows."""

    has_key: bool
    is_several: bool


_RowSources = dict[str, "RowSource | None"]


def row_mapping(tree: Node) -> RowMapping:
    """Return what the rows of a query are. Raises Dependent."""
    node = tree["statements"][0]["node"]
    # At any depth first, so that what follows may take a SELECT for plain.
    _require_plain(node)
    source = _select(node, {})
    if source is None:
        raise Dependent("rows that come from no event")
    names = {call.name for child in nodes(node) if (call := FunctionCall.of(child))}
    # A join with values repeats an event; so do functions that give several rows.
    is_joined = any(child.get("type") == "JOIN" for child in nodes(node))
    return RowMapping(source.has_key, is_joined or bool(names & _SEVERAL))


def tables(tree: Node) -> set[str]:
    """Return what a query reads but `events` and its own subqueries: tables, and functions."""
    all_nodes = list(nodes(tree["statements"][0]["node"]))
    cte_names = {
        entry["key"].lower()
        for child in all_nodes
        for entry in (child.get("cte_map") or {}).get("map", ())
    }
    names = set()
    for child in all_nodes:
        if child.get("type") == "BASE_TABLE" and not Query.is_events(child):
            name = ".".join(filter(None, (child["schema_name"], child["table_name"])))
            names |= (
                {name}
                if child["schema_name"] or name.lower() not in cte_names | {"events"}
                else set()
            )
        if child.get("type") == "TABLE_FUNCTION":
            name = str(child["function"].get("function_name", "")).lower()
            names |= {f"{name}()"} if name not in TABLE_FUNCTIONS else set()
        if child.get("type") == "SHOW_REF":
            names.add("the catalog")
    return names


def _require_plain(node: Node) -> None:
    """Refuse what makes a row of several at any depth. Raises Dependent."""
    for child in nodes(node):
        node_type, call = child.get("type"), FunctionCall.of(child)
        if node_type in ("LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"):
            raise Dependent("LIMIT")
        if node_type == "DISTINCT_MODIFIER":
            raise Dependent("DISTINCT")
        if child.get("class") == "WINDOW":
            raise Dependent("a window")
        if call and call.is_aggregate:
            raise Dependent(f"{call.name}()")
        if node_type == "SELECT_NODE":
            for name in ("group_expressions", "having", "qualify", "sample"):
                if child.get(name) or (name == "group_expressions" and child.get("group_sets")):
                    raise Dependent(name.split("_")[0].upper().replace("GROUP", "GROUP BY"))
            # GROUP BY ALL has no expressions.
            if child.get("aggregate_handling") != "STANDARD_HANDLING":
                raise Dependent("GROUP BY")
        elif node_type in ("SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"):
            raise Dependent("UNION or another operation on sets")
        elif node_type in ("PIVOT", "SHOW_REF", "COLUMN_DATA", "DELIM_GET"):
            raise Dependent(f"{node_type}")
        if child.get("class") == "SUBQUERY" and any(
            inner.get("type") == "BASE_TABLE" for inner in nodes(child)
        ):
            raise Dependent("a subquery over a table")


def _select(node: Node, scope: _RowSources) -> RowSource | None:
    """Return what a SELECT gives, None where it reads no event. Raises Dependent."""
    if node.get("type") != "SELECT_NODE":
        raise Dependent(str(node.get("type")))
    scope = dict(scope)
    # A CTE may name those before it, and none that follows.
    for entry in (node.get("cte_map") or {}).get("map", ()):
        value = entry["value"]
        origin = _select(value.get("query_node") or value["query"]["node"], scope)
        # A list of aliases renames columns by position: KEY may be any of them.
        if origin and value.get("aliases"):
            origin = RowSource(origin.name, False)
        scope[entry["key"].lower()] = origin
    source = _table(node.get("from_table") or {}, scope)
    if source is None:
        return None
    is_joined = node["from_table"]["type"] == "JOIN"
    return RowSource("", _hands_up_key(node["select_list"], source, is_joined=is_joined))


def _table(table: Node, scope: _RowSources) -> RowSource | None:
    """Return what a part of FROM gives. Raises Dependent."""
    table_type, name = table.get("type"), str(table.get("alias") or "").lower()
    if table.get("sample"):
        raise Dependent("a sample")
    # As with a CTE's aliases: AS e(a, b) may call another column by the name of KEY.
    renames = bool(table.get("column_name_alias"))
    if table_type == "BASE_TABLE":
        plain = table["table_name"].lower()
        if table["schema_name"] or table["catalog_name"] or table.get("at_clause"):
            raise Dependent(f"the table {table['schema_name']}.{table['table_name']}")
        if plain in scope:
            source = scope[plain]
            return source and RowSource(name or plain, source.has_key and not renames)
        if plain != "events":
            raise Dependent(f"the table {table['table_name']}")
        return RowSource(name or plain, not renames)
    if table_type == "SUBQUERY":
        origin = _select(table["subquery"]["node"], scope)
        return origin and RowSource(name, origin.has_key and not renames)
    if table_type == "TABLE_FUNCTION":
        called_name = str(table["function"].get("function_name", "")).lower()
        if called_name not in TABLE_FUNCTIONS:
            raise Dependent(f"{called_name}()")
        return None
    if table_type == "JOIN":
        return _join(table, scope)
    if table_type in ("EMPTY", "EXPRESSION_LIST"):
        return None
    raise Dependent(f"{table_type}")


def _join(table: Node, scope: _RowSources) -> RowSource | None:
    left_source, right = _table(table["left"], scope), _table(table["right"], scope)
    if left_source and right:
        raise Dependent("a join of events with others")
    if not left_source and not right:
        return None
    how = table["join_type"]
    keeps = how in _LEFT if left_source else how in ("INNER", "RIGHT")
    if table["ref_type"] not in _JOINS or not keeps:
        # A RIGHT or FULL join also gives rows of the other side, which belong to no event.
        raise Dependent(f"a {table['ref_type']} {how} JOIN")
    return left_source or right


def _hands_up_key(items: list[Node], source: RowSource, *, is_joined: bool) -> bool:
    """Whether the column KEY of a SELECT is that of its source, as far as it has one."""
    has_key = False
    for item in items:
        expression_class, alias = item.get("class"), str(item.get("alias") or "").lower()
        if expression_class == "STAR":
            # COLUMNS(...) may choose one of the other side.
            if not _is_plain_star(item, alias) or (is_joined and item.get("columns")):
                return False
            relation = str(item.get("relation_name") or "").lower()
            has_key |= source.has_key and relation in ("", source.name)
        elif alias == KEY or (not alias and _name(item) == KEY):
            if not (source.has_key and _is_key(item, source)):
                return False
            has_key = True
        # An expression of COLUMNS(...) has the names of the columns, and other values.
        elif any(child.get("class") == "STAR" for child in nodes(item)):
            return False
    return has_key


def _is_plain_star(item: Node, alias: str) -> bool:
    """Whether `*` or COLUMNS(...) gives KEY as it is."""
    changes = ("replace_list", "rename_list", "exclude_list", "qualified_exclude_list")
    return not alias and not any(KEY in str(item.get(name) or "").lower() for name in changes)


def _name(item: Node) -> str:
    return str(item["column_names"][-1]).lower() if item.get("class") == "COLUMN_REF" else ""


def _is_key(item: Node, source: RowSource) -> bool:
    """Whether an expression is KEY of a source, perhaps cast to another integer."""
    if item.get("class") == "CAST":
        # As DuckDB 2.0 names the type, and as earlier ones did.
        sql_type = item.get("type_expr") or item.get("cast_type") or {}
        if (sql_type.get("type_name") or sql_type.get("id")) not in _INTEGERS:
            return False
        item = item["child"]
    if item.get("class") != "COLUMN_REF":
        return False
    *owner, name = (str(level).lower() for level in item["column_names"])
    return name == KEY and owner in ([], [source.name])
