"""Extractions from the payload as columns: `data->>'x'` becomes a column that a segment may have.

A query is rewritten as a tree of the engine's own parser. In each SELECT whose FROM names `events`,
every extraction by a constant path becomes a reference to a column of the table WIDE, which is
`events` with one more column for each distinct extraction; what such a column is in a segment says
`extractions`. A cast around an extraction goes into the column where that can make no row fail that
would not fail anyway. Stars leave these columns out, and results keep the names they had. Where
anything is unclear a SELECT stays as it is, which is slower and right as well; and the text that
the engine makes of a tree is used only if it parses to the same tree again.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lakelog.engine.syntax import Node, SyntaxFault, nodes, parse, sql_of
from lakelog.libraries import duckdb
from lakelog.query.sql.extractions import Extraction, PathStep, name, path_of
from lakelog.query.sql.tree import FIELDS, WIDE, select_one

Tables = Mapping[tuple[str, str], str]
"""What rewritten queries read in the place of tables of events, by schema and name."""
EVENTS: Tables = {("", "events"): WIDE}
_FROM = ("BASE_TABLE", "JOIN", "SUBQUERY", "TABLE_FUNCTION", "EMPTY", "EXPRESSION_LIST")
_TYPES = {"INT": "INTEGER", "INT4": "INTEGER", "INT8": "BIGINT", "LONG": "BIGINT"}
_TYPES |= {"FLOAT8": "DOUBLE", "BOOL": "BOOLEAN", "LOGICAL": "BOOLEAN"}
_LAZY = ("CASE", "LAMBDA", "CONJUNCTION")
_LAZY_TYPES = ("OPERATOR_COALESCE", "OPERATOR_TRY")
_EARLY = ("~~", "!~~", "lower", "upper")
"""Functions that fail for no value."""
_LAZY_FUNCTIONS = ("if", "ifnull")


@dataclass(frozen=True)
class Rewriting:
    """A query that reads wider tables, whose columns `name(0)` and on are these."""

    sql: str
    columns: tuple[Extraction, ...]
    reads_events: bool
    """Whether some part of it still reads a table without a schema that has a wider one."""


def rewrite(
    connection: duckdb.DuckDBPyConnection,
    tree: Node,
    has_types: bool = True,
    tables: Tables = EVENTS,
) -> Rewriting | None:
    """Return a rewriting of a parsed query, or None where it has no extraction to replace.

    Only `fields` are replaced without `has_types`. The tree stays as it is.
    """
    if len(tree.get("statements", ())) != 1:
        return None
    # A CTE of that name hides the table.
    if any(("", name) in tables for name in _ctes(tree)):
        return None
    changed = copy.deepcopy(tree)
    rewriter = _Rewriter(has_types, tables)
    rewriter.statement(changed["statements"][0])
    if not rewriter.columns:
        return None
    # What the engine cannot write as SQL stays as it was.
    try:
        rewriter.finish(connection, changed)
    except SyntaxFault:
        return None
    query = text_of(connection, changed)
    return Rewriting(query, tuple(rewriter.columns), _reads(changed, tables)) if query else None


def text_of(connection: duckdb.DuckDBPyConnection, tree: Node) -> str | None:
    """Return the SQL of a statement, None where that does not parse to the same again."""
    try:
        query = sql_of(connection, tree)
        is_same = _without_places(parse(connection, query)) == _without_places(tree)
    except SyntaxFault:
        return None
    return query if is_same else None


@dataclass
class _Table:
    """A table of a FROM: `node` where it is `events`, None for any other."""

    alias: str
    node: Node | None
    wide: str
    is_used: bool = False


@dataclass
class _Scope:
    """What the names of a SELECT mean: its tables, and the only one if that is `events`."""

    tables: list[_Table]
    stars: list[Node]
    is_clear: bool
    is_flat: bool
    """Whether its expressions see each row of `events` that passes WHERE, and no others."""

    def table(self, owner: list[str]) -> _Table | None:
        """The table that a column's qualifiers name; that of a bare column, if there is one."""
        if not owner:
            return self.tables[0] if len(self.tables) == 1 else None
        same = [t for t in self.tables if [t.alias.lower()] == [o.lower() for o in owner]]
        return same[0] if len(same) == 1 else None


class _Rewriter:
    """Changes a tree in place."""

    def __init__(self, has_types: bool, tables: Tables) -> None:
        self._typed, self._tables = has_types, tables
        self.columns: dict[Extraction, int] = {}
        self._selects: list[tuple[Node, _Scope, list[Node | None]]] = []
        self._names: set[str] = set()
        self._joins = 0

    def statement(self, node: Node) -> None:
        """Replace the extractions in a statement."""
        self._names = {parameter.lower() for parameter in _parameters(node)}
        self._expression(node, [], False)

    def finish(self, connection: duckdb.DuckDBPyConnection, tree: Node) -> None:
        """Keep the names of results, and new columns out of stars."""
        hidden = [name(index) for index in range(len(self.columns))]
        unnamed: list[tuple[Node, Node]] = []
        for node, scope, before in self._selects:
            for table in scope.tables:
                if table.node is not None and table.is_used:
                    table.node["alias"] = table.alias
                    table.node["schema_name"], table.node["table_name"] = "", table.wide
                    table.node["qualified_name"] = {"path": [table.wide]}
            for star in scope.stars:
                if any(t.is_used and _covers(star, t) for t in scope.tables):
                    star["exclude_list"] = sorted({*star["exclude_list"], *hidden})
            pairs = zip(node["select_list"], before, strict=True)
            # Results keep the names that the engine would have given their expressions.
            unnamed += [(new, old) for new, old in pairs if old is not None and new != old]
        statement = tree["statements"][0]
        selects = [select_one(old, statement) for _, old in unnamed]
        expressions = [sql_of(connection, {**tree, "statements": [s]}) for s in selects]
        for (item, old), expression in zip(unnamed, expressions, strict=True):
            plain = old.get("class") == "COLUMN_REF"
            item["alias"] = old["column_names"][-1] if plain else expression.removeprefix("SELECT ")

    def _select(self, node: Node, scopes: list[_Scope]) -> None:
        self._expression(node.get("cte_map"), scopes, False)
        scope = self._scope(node)
        inner = [*scopes, scope]
        before = [_unaliased(item) for item in node["select_list"]]
        for key in ("select_list", "group_expressions", "modifiers", "having", "qualify"):
            node[key] = self._expression(node[key], inner, scope.is_flat)
        # A cast in one conjunct may rely on another that comes first: each is looked at alone.
        node["where_clause"] = self._conjuncts(node["where_clause"], inner, scope.is_flat)
        # A query beside another table may be computed for rows that a join leaves out.
        with self._inside_join(len(scope.tables) > 1):
            node["from_table"] = self._expression(node["from_table"], inner, False)
        self._selects.append((node, scope, before))

    def _scope(self, node: Node) -> _Scope:
        """Return what names mean in a SELECT; not clear where some could mean a changed table."""
        tables = list(_tables(node["from_table"], self._tables))
        stars = [i for i in node["select_list"] if i.get("class") == "STAR" and not i["columns"]]
        all_ = list(_orders_by_all(node))
        aliases = [table.alias.lower() for table in tables]
        rows = {a for t, a in zip(tables, aliases, strict=True) if t.node is not None}
        is_clear = (
            bool(rows)
            and rows.isdisjoint(self._names)
            and self._names.isdisjoint(("data", FIELDS))
            and FIELDS not in aliases
            and len(set(aliases)) == len(aliases)
            and not any(_is_unclear(n, rows, [*stars, *all_]) for n in nodes(node))
            and not any(_is_alias_of_payload(item) for item in node["select_list"])
            and _stars(node) == len(stars) + len(all_)
            and all(table_node.get("type") in _FROM for table_node in _froms(node["from_table"]))
        )
        # A semi-join would come after the columns were computed, and so would a join.
        # And so does a condition that may fail itself, which the engine does not move.
        is_first = not any(_comes_last(n) for n in nodes(node["where_clause"]))
        is_flat = not self._joins and len(tables) == 1 and is_first
        return _Scope(tables, stars, is_clear, is_flat)

    @contextlib.contextmanager
    def _inside_join(self, is_join: bool) -> Iterator[None]:
        self._joins += is_join
        yield
        self._joins -= is_join

    def _conjuncts(self, value: Any, scopes: list[_Scope], may_fail: bool) -> Any:
        if isinstance(value, dict) and value.get("type") == "CONJUNCTION_AND":
            value["children"] = [self._conjuncts(c, scopes, may_fail) for c in value["children"]]
            return value
        return self._expression(value, scopes, may_fail)

    def _expression(self, value: Any, scopes: list[_Scope], may_fail: bool) -> Any:
        """Return an expression with its extractions replaced. Casts that fail are part of a column
        only if `may_fail`: where every row that the column is computed for is evaluated."""
        if isinstance(value, list):
            value[:] = [self._expression(child, scopes, may_fail) for child in value]
        if not isinstance(value, dict):
            return value
        # Each SELECT has its own meaning of names.
        if value.get("type") == "SELECT_NODE":
            self._select(value, scopes)
        elif "class" in value and (column := self._column(value, scopes, may_fail)):
            return column
        else:
            lazy = value.get("class") in _LAZY or value.get("type") in _LAZY_TYPES
            lazy = lazy or value.get("function_name") in _LAZY_FUNCTIONS
            filtered = value.get("filter") or value.get("filter_expr")
            # What is evaluated for some rows alone must not fail for the others.
            inside = may_fail and not lazy and not filtered
            with self._inside_join(value.get("class") == "SUBQUERY"):
                for key, child in value.items():
                    value[key] = self._expression(child, scopes, inside)
        return value

    def _column(self, value: Node, scopes: list[_Scope], may_fail: bool) -> Node | None:
        """Return a reference to the column that an expression is; None for any other."""
        cast, is_try, inner = "", False, value
        if value.get("class") == "CAST":
            is_try = value["try_cast"]
            # A failing cast around a field stays where it is, and the column is made not to fail.
            if not is_try and (chain := path_of(value["child"])) and chain[2] == FIELDS:
                field = self._reference(value["child"], scopes, chain, is_guarded=True)
                return field and {**value, "child": field}
            if cast := _simple_type(value["type_expr"]):
                inner = value["child"]
        chain = path_of(inner)
        if chain is None or (cast and not is_try and not may_fail):
            return None
        if chain[2] == FIELDS:
            return None if cast else self._reference(value, scopes, chain)
        return self._reference(value, scopes, chain, cast, is_try) if self._typed else None

    def _reference(
        self,
        value: Node,
        scopes: list[_Scope],
        chain: tuple[list[str], tuple[PathStep, ...], str],
        cast: str = "",
        is_try: bool = False,
        is_guarded: bool = False,
    ) -> Node | None:
        owner, steps, mode = chain
        table = _owner(scopes, owner) if steps else None
        if table is None:
            return None
        table.is_used = True
        extraction = Extraction(steps, mode, cast, cast != "" and is_try, is_guarded)
        index = self.columns.setdefault(extraction, len(self.columns))
        reference = {k: value[k] for k in ("alias", "query_location", "query_location_length")}
        names = [table.alias, name(index)]
        return {"class": "COLUMN_REF", "type": "COLUMN_REF", **reference, "column_names": names}


def _owner(scopes: list[_Scope], owner: list[str]) -> _Table | None:
    """The table `events` whose column an expression is made of, if that is certain."""
    for scope in reversed(scopes):
        table = scope.table(owner)
        if table is not None:
            return table if scope.is_clear and table.node is not None else None
        # A bare name belongs to the innermost query that could mean it.
        if not owner:
            return None
    return None


def _simple_type(value: Node) -> str:
    """Return the name of a type of one word without parameters, else ""."""
    plain = not value["children"] and not value["schema"] and not value["catalog"]
    name = str(value["type_name"]).upper()
    return _TYPES.get(name, name) if plain and re.fullmatch(r"[A-Z]\w*", name) else ""


def _tables(node: Node, tables: Tables) -> Iterator[_Table]:
    """Yield the tables of a FROM, with their node those that are the events."""
    for table_node in _froms(node):
        if table_node["type"] not in ("JOIN", "EMPTY"):
            wide = _wide(table_node, tables)
            alias = table_node["alias"] or table_node.get("table_name", "")
            yield _Table(alias, table_node if wide else None, wide)


def _froms(node: Node) -> Iterator[Node]:
    yield node
    if node.get("type") == "JOIN":
        yield from _froms(node["left"])
        yield from _froms(node["right"])


def _wide(node: Node, tables: Tables) -> str:
    """Return what may be read for a table of a FROM: for one as it is, and not for a sample."""
    is_plain = (
        node.get("type") == "BASE_TABLE"
        and not node["catalog_name"]
        and not node["column_name_alias"]
        and not node["sample"]
        and not node.get("at_clause")
    )
    return tables.get((node["schema_name"], node["table_name"].lower()), "") if is_plain else ""


def _is_unclear(node: Node, rows: set[str], stars: list[Node]) -> bool:
    """Whether a part of a SELECT other than its stars could show columns that `events` does not
    have: of the tables `rows`, or of a join."""
    if node.get("class") == "COLUMN_REF":
        return len(node["column_names"]) == 1 and node["column_names"][0].lower() in rows
    if node.get("class") == "STAR":
        is_own = any(node is star for star in stars)
        of_rows = node["relation_name"].lower() in rows or node["columns"]
        return bool((of_rows and not is_own) or node["expr"] is not None)
    if node.get("type") == "JOIN":
        using = {str(column).lower() for column in node["using_columns"]}
        return node["ref_type"] == "NATURAL" or "data" in using
    return False


def _comes_last(node: Node) -> bool:
    """Whether a part of a condition may keep the engine from testing it while it reads."""
    if node.get("class") == "CAST":
        type_name, chain = _simple_type(node["type_expr"]), path_of(node["child"])
        is_column = bool(type_name and chain and chain[1] and chain[2] != FIELDS)
        return not (node["try_cast"] or is_column or type_name == "VARCHAR" or _is_constant(node))
    # A number that JSON is compared with makes a number of the JSON, which may fail.
    if str(node.get("type")).startswith("COMPARE_"):
        values = (v for value in node.values() for v in (value if type(value) is list else [value]))
        return any(chain[1] and chain[2] == "json" for chain in map(path_of, values) if chain)
    if node.get("class") == "FUNCTION":
        return not (path_of(node) or node["function_name"] in _EARLY or _is_constant(node))
    return node.get("class") in ("SUBQUERY", "CASE") or (
        node.get("class") == "LAMBDA" and path_of(node) is None
    )


def _is_constant(node: Node) -> bool:
    return not any(n.get("class") == "COLUMN_REF" for n in nodes(node))


def _orders_by_all(node: Node) -> Iterator[Node]:
    """Yield the star that ORDER BY ALL is; it means the items of the SELECT."""
    for modifier in node["modifiers"]:
        for order in modifier.get("orders", ()):
            if order["expression"].get("class") == "STAR":
                yield order["expression"]


def _stars(value: object, depth: int = 0) -> int:
    """Count the stars of a SELECT itself, not those of queries in it."""
    if isinstance(value, dict) and (not depth or value.get("type") != "SELECT_NODE"):
        is_star = value.get("class") == "STAR"
        return is_star + sum(_stars(child, depth + 1) for child in value.values())
    return sum(_stars(child, depth) for child in value) if isinstance(value, list) else 0


def _is_alias_of_payload(item: Node) -> bool:
    """Whether an item of a SELECT calls something else `data` or `fields`."""
    return str(item.get("alias", "")).lower() in ("data", FIELDS)


def _covers(star: Node, table: _Table) -> bool:
    return star["relation_name"].lower() in ("", table.alias.lower())


def _unaliased(item: Node) -> Node | None:
    """A copy of what may need a name: an item of a SELECT that has none and is no star."""
    return None if item.get("alias") or item.get("class") == "STAR" else copy.deepcopy(item)


def _parameters(tree: Node) -> Iterator[str]:
    """Yield the names of the parameters of lambdas."""
    for node in nodes(tree):
        if node.get("class") == "LAMBDA" and path_of(node) is None:
            for node_below in nodes(node["lhs"]):
                if node_below.get("class") == "COLUMN_REF":
                    yield node_below["column_names"][0]


def _ctes(tree: Node) -> Iterator[str]:
    """Yield the names that WITH gives, in small letters."""
    for node in nodes(tree):
        maps = node.get("cte_map") or {}
        yield from (str(entry["key"]).lower() for entry in maps.get("map", ()))


def _reads(tree: Node, tables: Tables) -> bool:
    table_nodes = (n for n in nodes(tree) if n.get("type") == "BASE_TABLE" and not n["schema_name"])
    return any(("", n["table_name"].lower()) in tables for n in table_nodes)


def _without_places(tree: object) -> Any:
    """Return a tree without the places of its parts in the query."""
    if isinstance(tree, dict):
        names = (k for k in tree if not k.startswith("query_location"))
        return {k: _without_places(tree[k]) for k in names}
    return [_without_places(child) for child in tree] if isinstance(tree, list) else tree
