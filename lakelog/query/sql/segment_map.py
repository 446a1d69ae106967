"""The map of a view over the rows of segments: which members of payloads it takes from columns, and
whether it reads some of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from lakelog.engine.syntax import Node, nodes
from lakelog.libraries import duckdb
from lakelog.query.sql import payload, table_sql
from lakelog.query.sql.extractions import Extraction, WideColumns
from lakelog.query.sql.tree import FIELDS, WIDE, tree_of
from lakelog.segments import SegmentScan

_TABLE = "segment"
_PAYLOAD = ("data", FIELDS)


class SegmentMap(NamedTuple):
    """A map as SQL over a table, which has extractions as columns besides those of events."""

    sql: str
    table: str = _TABLE
    columns: tuple[Extraction, ...] = ()

    def over_columns(self, cursor: duckdb.DuckDBPyConnection) -> SegmentMap:
        """Return the map with its extractions from payloads as columns, where it reads no
        others."""
        rewriting = self._rewriting(cursor)
        if rewriting is None or rewriting.reads_events:
            return self
        return SegmentMap(rewriting.sql, WIDE, rewriting.columns)

    def of_texts(self) -> list[str]:
        """Its columns as SQL over payloads that are text in `data`."""
        return WideColumns(self.columns)(SegmentScan())

    def reads_members(self, cursor: duckdb.DuckDBPyConnection, members: Collection[str]) -> bool:
        """Whether it may read any of these members of payloads; where that is unclear, it does."""
        rewriting, query = self._rewriting(cursor), self.sql
        if rewriting is not None:
            if any(column.path[0] in members for column in rewriting.columns):
                return True
            query = rewriting.sql
        tree = tree_of(cursor, query)
        tables = (self.table, WIDE)
        names = {*tables, *_aliases(tree, tables)}
        return not tree or any(_shows_payload(node, tables, names) for node in nodes(tree))

    def _rewriting(self, cursor: duckdb.DuckDBPyConnection) -> payload.Rewriting | None:
        return table_sql.rewrite(cursor, self.sql, True, {("", self.table): WIDE})


def _aliases(tree: Node, tables: Collection[str]) -> Iterator[str]:
    """Yield the names that a query has for the rows of segments."""
    for node in nodes(tree):
        if _is_rows(node, tables) and node["alias"]:
            yield node["alias"].lower()


def _is_rows(node: Node, tables: Collection[str]) -> bool:
    return node.get("type") == "BASE_TABLE" and node["table_name"].lower() in tables


def _shows_payload(node: Node, tables: Collection[str], names: Collection[str]) -> bool:
    """Whether a part of a query is the payload, or a row that has it."""
    if node.get("type") == "SELECT_NODE":
        stars = any(n.get("class") == "STAR" for n in nodes(node["select_list"]))
        return stars and any(_is_rows(inner, tables) for inner in nodes(node["from_table"]))
    if node.get("class") == "COLUMN_REF":
        first, last = (node["column_names"][n].lower() for n in (0, -1))
        return last in _PAYLOAD or first in _PAYLOAD or (first == last and first in names)
    return node.get("class") == "POSITIONAL_REFERENCE"
