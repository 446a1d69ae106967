"""Whether a view reads protected fields: then its partials are kept nowhere.

What is kept on disk has no word of such a field, and what a query shows depends on the keys of its
process. So such a view is computed from the events whenever it is asked. Where it is unclear what a
map reads, it is taken for one that does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator

from lakelog.engine.syntax import Node
from lakelog.libraries import duckdb
from lakelog.query.sql import payload, table_sql
from lakelog.query.sql.tree import FIELDS, nodes, tree_of
from lakelog.store.paths import Paths
from lakelog.views.definition import ViewDefinition
from lakelog.views.params import Values

_TABLE, _LEDGER = "segment", "schema"
_PAYLOAD = ("data", FIELDS)
_KNOWN_MAX = 256


class ProtectedMaps:
    """The maps of one lake of which it was found out what they read."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._known: dict[tuple[str, tuple[str, ...]], bool] = {}

    def may_keep(
        self,
        connect: Callable[[], duckdb.DuckDBPyConnection],
        definition: ViewDefinition,
        values: Values,
        opens: bool,
    ) -> bool:
        """Whether what a view computes may be kept, of events whose fields are opened or not."""
        protection = self._paths.protection
        # The ledger, for which queries ask all the time, lists fields as they are stored. What was
        # stored before fields were protected has them in plain.
        if protection is None or not (opens or protection.since) or definition.name == _LEDGER:
            return True
        query, protected_fields = definition.filled("map", values), protection.fields
        known = self._known.get((query, protected_fields))
        if known is None:
            if len(self._known) > _KNOWN_MAX:
                self._known.clear()
            with contextlib.closing(connect()) as cursor:
                known = reads_fields(cursor, query, protected_fields)
            self._known[query, protected_fields] = known
        return not known


def reads_fields(
    cursor: duckdb.DuckDBPyConnection, query: str, protected_fields: Collection[str]
) -> bool:
    """Whether a map may read any of these members of payloads."""
    rewriting = table_sql.rewrite(cursor, query, True, {("", _TABLE): payload.WIDE})
    if rewriting is not None:
        if any(column.path[0] in protected_fields for column in rewriting.columns):
            return True
        query = rewriting.sql
    tree = tree_of(cursor, query)
    tables = {_TABLE, payload.WIDE, *_aliases(tree)}
    return not tree or any(_shows_payload(node, tables) for node in nodes(tree))


def _aliases(tree: Node) -> Iterator[str]:
    """Yield the names that a query has for the rows of segments."""
    for node in nodes(tree):
        if _is_rows(node) and node["alias"]:
            yield node["alias"].lower()


def _is_rows(node: Node) -> bool:
    is_table = node.get("type") == "BASE_TABLE"
    return is_table and node["table_name"].lower() in (_TABLE, payload.WIDE)


def _shows_payload(node: Node, tables: Collection[str]) -> bool:
    """Whether a part of a query is the payload, or a row that has it."""
    if node.get("type") == "SELECT_NODE":
        stars = any(n.get("class") == "STAR" for n in nodes(node["select_list"]))
        return stars and any(map(_is_rows, nodes(node["from_table"])))
    if node.get("class") == "COLUMN_REF":
        first, last = (node["column_names"][n].lower() for n in (0, -1))
        return last in _PAYLOAD or first in _PAYLOAD or (first == last and first in tables)
    return node.get("class") == "POSITIONAL_REFERENCE"
