"""The trees that the engine's parser makes: kept by the text of the query, and read in one go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from lakelog.engine.syntax import Node, SyntaxFault, parse
from lakelog.libraries import duckdb

LOWER_BOUNDS = ("COMPARE_GREATERTHAN", "COMPARE_GREATERTHANOREQUALTO")
UPPER_BOUNDS = ("COMPARE_LESSTHAN", "COMPARE_LESSTHANOREQUALTO")
CLOCK_NAMES = {
    "current_timestamp": "now",
    "current_date": "today",
    "localtimestamp": "current_localtimestamp",
}
"""Functions that are called by a name alone, which the parser takes for columns, and their like
with an empty list of arguments."""
WORDS = ""
"""Stands for the column in the test by which a search says what words its rows have."""
_MIRRORED = dict(zip((*LOWER_BOUNDS, *UPPER_BOUNDS), (*UPPER_BOUNDS, *LOWER_BOUNDS), strict=True))
_TREES: dict[str, Node] = {}
_TREES_MAX, _SHORT = 128, 512
"""A tree takes up to 300 times the bytes of its query."""

WIDE = "lakelog_events"
"""The table that rewritten queries read in the place of `events`, with extractions as columns."""
FIELDS = "fields"
"""The name under which queries address typed columns: `fields.x.y`."""
TYPES = "types"
"""The schema of tables that have the events of one type."""


class TableKind(Enum):
    """What a table of a query is, by its name."""

    EVENTS = "events"
    OF_REF = "the events of a tag or branch, or of another schema"
    OF_TYPE = "the events of one type"
    OTHER = "any other table"


@dataclass(frozen=True)
class ColumnTest:
    """A condition that every row of a SELECT meets: a column of its table, compared with values."""

    column: str
    operator: str
    values: list[Node]


@dataclass(frozen=True)
class Mention:
    """A table where a query names it; `select` is the SELECT that reads it alone, if one does."""

    table: Node
    kind: TableKind
    select: Node | None = None
    comparisons: list[ColumnTest] = field(default_factory=list)


@dataclass
class Mentions:
    """All that a query names, in the order of its text."""

    tables: list[Mention] = field(default_factory=list)
    ctes: set[str] = field(default_factory=set)
    has_parameters: bool = False
    has_clock_names: bool = False
    has_limit: bool = False
    runs_text: bool = False
    """Whether a table function may read `events` without naming it in the tree."""
    counts_all: str | None = None
    """The result column's name if it is SELECT count(*) FROM events and nothing else."""


def tree_of(connection: duckdb.DuckDBPyConnection, query: str) -> Node:
    """The tree of a query, which nobody changes, empty where it has none; those of the last short
    ones are kept."""
    tree = _TREES.get(query)
    if tree is None:
        try:
            tree = parse(connection, query)
        except SyntaxFault:
            return {}
        if len(query) <= _SHORT:
            if len(_TREES) >= _TREES_MAX:
                _TREES.clear()
            _TREES[query] = tree
    return tree


def mentions(statement: Node) -> Mentions:
    """Return what a statement names."""
    result = Mentions()
    pending: list[Node | list[Node]] = [statement]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            alone = _note(node, result)
            children = [value for value in node.values() if value is not alone]
        else:
            children = node
        pending += [child for child in reversed(children) if isinstance(child, (dict, list))]
    result.counts_all = _counts_all(statement, result)
    return result


def _note(node: Node, result: Mentions) -> Node | None:
    """Note what one node names; return the table that it reads alone, if it is noted with it."""
    node_class, node_type = node.get("class"), node.get("type")
    if node_class == "PARAMETER":
        result.has_parameters = True
    elif node_class == "COLUMN_REF":
        names = node["column_names"]
        result.has_clock_names |= len(names) == 1 and str(names[0]).lower() in CLOCK_NAMES
    if (ctes := node.get("cte_map")) is not None:
        result.ctes.update(cte["key"].lower() for cte in ctes.get("map", ()))
    if node_type == "BASE_TABLE":
        result.tables.append(Mention(node, _kind(node)))
    elif node_type == "TABLE_FUNCTION":
        function = (node.get("function") or {}).get("function_name")
        result.runs_text |= function in ("query", "query_table")
    elif node_type == "LIMIT_MODIFIER":
        result.has_limit = True
    elif node_type == "SELECT_NODE":
        table: Node | None = node.get("from_table")
        table_kind = (
            _kind(table) if table and table.get("type") == "BASE_TABLE" else TableKind.OTHER
        )
        if table is not None and table_kind is not TableKind.OTHER:
            comparisons = [*_comparisons(node.get("where_clause"), table)]
            result.tables.append(Mention(table, table_kind, node, comparisons))
            return table
    return None


def _kind(table: Node) -> TableKind:
    if table["schema_name"].lower() == TYPES:
        return TableKind.OF_TYPE
    has_own_names = table["catalog_name"] or table["column_name_alias"]
    if has_own_names or table["table_name"].lower() != "events":
        return TableKind.OTHER
    return TableKind.OF_REF if table["schema_name"] else TableKind.EVENTS


def _comparisons(clause: object, table: Node) -> Iterator[ColumnTest]:
    """Yield the conditions of a WHERE that AND joins, with the column on the left."""
    if not isinstance(clause, dict):
        return
    operator: str = clause.get("type", "")
    if operator == "CONJUNCTION_AND":
        for child in clause["children"]:
            yield from _comparisons(child, table)
        return
    compared: list[tuple[object, str, list[Node]]] = []
    if operator == "OPERATOR_IS_NOT_NULL":
        yield ColumnTest(WORDS, operator, clause["children"])
    elif operator == "COMPARE_BETWEEN":
        compared = [
            (clause["input"], LOWER_BOUNDS[1], [clause["lower"]]),
            (clause["input"], UPPER_BOUNDS[1], [clause["upper"]]),
        ]
    elif operator == "COMPARE_IN":
        operand, *values = clause["children"]
        compared = [(operand, operator, values)]
    elif clause.get("class") == "COMPARISON":
        operand, right = clause["left"], clause["right"]
        if column(operand, table) is None:
            operand, right = right, operand
            operator = _MIRRORED.get(operator, operator)
        compared = [(operand, operator, [right])]
    for value, comparison, values in compared:
        if (name := column(value, table)) is not None:
            yield ColumnTest(name, comparison, values)


def is_events(table: object) -> bool:
    """Whether a part of a query is the table `events`, with its own names of columns."""
    return (
        isinstance(table, dict)
        and table.get("type") == "BASE_TABLE"
        and not table["schema_name"]
        and not table["catalog_name"]
        and table["table_name"].lower() == "events"
        and not table["column_name_alias"]
    )


def is_events_of_ref(table: object) -> bool:
    """Whether a part of a query is the same of another schema: of a tag or branch."""
    return (
        isinstance(table, dict)
        and table.get("type") == "BASE_TABLE"
        and bool(table["schema_name"])
        and is_events({**table, "schema_name": ""})
    )


def column(value: object, table: Node) -> str | None:
    """The column of a table that an expression is, or None."""
    if not isinstance(value, dict) or value.get("class") != "COLUMN_REF":
        return None
    *owner, name = value["column_names"]
    alias = table["alias"] or table["table_name"]
    return str(name).lower() if not owner or owner == [alias] else None


def with_events(tree: object, tables: Mapping[str, str]) -> Any:
    """Return a tree that reads these tables in the place of the `events` of schemas."""
    if isinstance(tree, list):
        return [with_events(child, tables) for child in tree]
    if not isinstance(tree, dict):
        return tree
    if is_events_of_ref(tree) and (table := tables.get(tree["schema_name"])):
        replacement = {"table_name": table, "qualified_name": {"path": [table]}}
        return {
            **tree,
            "schema_name": "",
            "alias": tree["alias"] or tree["table_name"],
            **replacement,
        }
    return {key: with_events(child, tables) for key, child in tree.items()}


def mentioned(value: object, key: str) -> Iterator[str]:
    """Yield what stands under a key anywhere in an expression."""
    for child in value if isinstance(value, list) else ():
        yield from mentioned(child, key)
    for name, child in value.items() if isinstance(value, dict) else ():
        if name == key and isinstance(child, str):
            yield child
        yield from mentioned(child, key)


def select_one(item: Node, statement: Node) -> Node:
    """Return a statement that selects one expression, from the tree of any other statement."""
    empty = {"type": "EMPTY", "alias": "", "sample": None, "query_location": 0}
    node: Node = {
        "type": "SELECT_NODE",
        "modifiers": [],
        "cte_map": {"map": []},
        "select_list": [item],
        "from_table": empty,
        "where_clause": None,
        "group_expressions": [],
        "group_sets": [],
        "aggregate_handling": "STANDARD_HANDLING",
        "having": None,
        "sample": None,
        "qualify": None,
    }
    return {**statement, "node": node}


def _counts_all(node: Node, mentions: Mentions) -> str | None:
    """The result column's name if the node is SELECT count(*) FROM events and nothing else."""
    empty = ("where_clause", "having", "sample", "qualify")
    lists = ("modifiers", "group_expressions", "group_sets")
    if node.get("type") != "SELECT_NODE" or len(node["select_list"]) != 1:
        return None
    (item,) = node["select_list"]
    if item.get("function_name") != "count_star" or item.get("arguments"):
        return None
    if item["filter"] is not None or item["distinct"] or len(mentions.tables) != 1:
        return None
    (mention,) = mentions.tables
    if mention.kind is not TableKind.EVENTS or mention.select is not node:
        return None
    if node["from_table"]["sample"] or node["from_table"].get("at_clause"):
        return None
    if any(node[k] is not None for k in empty) or any(node[k] for k in lists):
        return None
    return None if node["cte_map"]["map"] else item["alias"] or "count_star()"
