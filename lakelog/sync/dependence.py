"""What the rows of a query depend on: whether each is made from one event alone.

The whole tree is looked at, and only what is known to be made row by row counts: one source of
events, through subqueries and WITH, joined with values that come from no table; no LIMIT, DISTINCT,
GROUP BY, aggregate, window, sample, set operation or subquery over a table at any depth. KEY is
that of the event where it is handed up by its name.
"""

from __future__ import annotations

from dataclasses import dataclass

from lakelog.engine.syntax import Node
from lakelog.engine.volatility import FunctionCall
from lakelog.query.sql.tree import is_events, nodes
from lakelog.sync.target import KEY

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
        if child.get("type") == "BASE_TABLE" and not is_events(child):
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
        if child.get("class") == "SUBQUERY" and _reads_tables(child):
            raise Dependent("a subquery over a table")


def _reads_tables(tree: object) -> bool:
    return any(child.get("type") == "BASE_TABLE" for child in nodes(tree))


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
            has_key |= source.has_key and not _is_of_another(item, source)
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


def _is_of_another(item: Node, source: RowSource) -> bool:
    relation = str(item.get("relation_name") or "").lower()
    return bool(relation) and relation != source.name


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
