"""Which segments a query can need: what its WHERE says of time, type, source, id and subject.

The query is taken apart by the engine's own parser. Only what is certain is used: comparisons of
the bare columns with constants, joined by AND, in a SELECT whose FROM is `events` alone. Everything
else reads every segment. Several mentions of `events` unite.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import re
from collections.abc import Container
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from lakelog.engine import session_settings
from lakelog.engine.syntax import SyntaxFault, parse, sql_of
from lakelog.query.sql import moments, newest
from lakelog.query.sql import tree as trees
from lakelog.query.sql.tree import is_events, is_events_of_ref, is_type
from lakelog.runtime.lazy import Lazy
from lakelog.segments import bloom
from lakelog.segments.bloom import Filters
from lakelog.store.entry import Counts, SegmentEntry

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from lakelog.event import encode
    from lakelog.query.sql import payload
else:
    encode, payload = Lazy("lakelog.event.encode"), Lazy("lakelog.query.sql.payload")
    duckdb = Lazy("duckdb")
    pa = Lazy("pyarrow")

LOWEST, HIGHEST = -(2**62), 2**62
_NAMES_MAX = 1000
"""Lists of more ids or subjects are not looked up in filters."""
_TREES: dict[str, dict[str, Any]] = {}
_REWRITTEN: dict[tuple[Any, ...], payload.Rewriting | None] = {}
_KEPT, _SHORT = 128, 512
"""A tree takes up to 300 times the bytes of its query."""
_EXPLAIN = re.compile(
    r"\s*explain\s+(?:analyze\s+|\((?:analyze|format)[^)]*\)\s*)?(?=(?:from|select|with)\b)", re.I
)
_SLACK = 86_400_000_000
"""now() is later when the query runs than when it is planned."""
_CONSTANT = frozenset(("CONSTANT", "CAST", "FUNCTION", "TYPE", "PARAMETER"))
_CLOCKS = "now current_timestamp get_current_timestamp today current_date current_localtimestamp"
_SAFE = frozenset(
    f"{_CLOCKS} - + to_days to_hours to_minutes to_seconds to_milliseconds to_microseconds to_weeks"
    " to_months to_years to_timestamp trunc date_trunc make_timestamptz make_timestamp make_date"
    " epoch_ms".split()
)
_NO: frozenset[str] = frozenset()
_NOW = frozenset(_CLOCKS.split())
_LOW = ("COMPARE_GREATERTHAN", "COMPARE_GREATERTHANOREQUALTO")
_HIGH = ("COMPARE_LESSTHAN", "COMPARE_LESSTHANOREQUALTO")
_FLIP = dict(zip((*_LOW, *_HIGH), (*_HIGH, *_LOW), strict=True))


@dataclass
class Predicate:
    """What one mention of `events` can match: times in us, and names or None for any."""

    low: int = LOWEST
    high: int = HIGHEST
    types: set[str] | None = None
    sources: set[str] | None = None
    ids: set[str] | None = None
    subjects: set[str] | None = None
    extremes: frozenset[str] = frozenset()
    """It asks for the first or last time of all events, and nothing else."""
    before_newest: int | None = None
    """Its rows are at most so much before the newest event (us)."""

    @property
    def key(self) -> tuple[object, ...]:
        """What is equal for predicates that match the same."""
        names = (self.types, self.sources, self.ids, self.subjects)
        times = self.low, self.high, self.extremes, self.before_newest
        return *times, *(n if n is None else frozenset(n) for n in names)

    def near(self, entries: list[SegmentEntry]) -> list[SegmentEntry]:
        """Return the segments that may hold a matching row by their statistics: of all segments of
        a state, or of those between its times."""
        low, high = self.low, self.high
        if self.before_newest is not None and entries:
            low = max(low, max(e.time[1] for e in entries) - self.before_newest)
        if self.extremes and entries:
            begin, end = min(e.time[0] for e in entries), max(e.time[1] for e in entries)
            has_first, has_last = newest.FIRST in self.extremes, newest.LAST in self.extremes
            return [
                e
                for e in entries
                if (has_first and e.time[0] == begin) or (has_last and e.time[1] == end)
            ]
        if low > LOWEST or high < HIGHEST:
            entries = [e for e in entries if e.time[0] <= high and low <= e.time[1]]
        if self.types is not None:
            entries = [e for e in entries if _may(self.types, e.types)]
        if self.sources is not None:
            entries = [e for e in entries if _may(self.sources, e.sources)]
        if self.subjects:
            first, last = min(self.subjects), max(self.subjects)
            spans = ((e, e.subject) for e in entries)
            entries = [e for e, s in spans if s is None or (s[0] <= last and first <= s[1])]
        return [] if self.subjects == set() or self.ids == set() else entries

    def holding(self, entries: list[SegmentEntry], filters: Filters) -> list[SegmentEntry]:
        """Return those of them that may hold its ids and subjects by their Bloom filters."""
        for column, names in (("id", self.ids), ("subject", self.subjects)):
            if names is not None and len(names) <= _NAMES_MAX:
                keys, hashed = (e.key for e in entries), _hashes(tuple(sorted(names)))
                matches = filters.containing(keys, column, hashed)
                entries = [e for e in entries if e.key in matches]
        return entries


class TypeRef(NamedTuple):
    """A table `types.NAME`, of the state of `ref` if it has one: its part of the query as bytes,
    `start` is -1 where the engine does not say; whether it has an alias; what is asked of it."""

    ref: str
    name: str
    start: int
    stop: int
    has_alias: bool
    need: Predicate


@dataclass
class TableRefs:
    """The tables a query names: needs of the unqualified `events`, other (schema, table) pairs.

    `ctes` are the names that WITH gives, `types` the tables `types.NAME`. `counts_all` is the
    column name when the query is exactly SELECT count(*) FROM events.
    """

    parsed: bool = False
    needs: list[Predicate] = field(default_factory=list)
    tables: set[tuple[str, str]] = field(default_factory=set)
    ctes: set[str] = field(default_factory=set)
    types: list[TypeRef] = field(default_factory=list)
    of_refs: dict[str, list[Predicate]] = field(default_factory=dict)
    """Needs of the `events` of other schemas, by the names of these."""
    counts_all: str | None = None
    has_parameters: bool = False

    @property
    def needles(self) -> bool:
        """Whether any mention asks for certain ids or subjects."""
        return any(need.ids is not None or need.subjects is not None for need in self.needs)

    @property
    def of_newest(self) -> bool:
        """Whether any mention goes by the times of the first or newest event."""
        return any(need.extremes or need.before_newest is not None for need in self.needs)

    @property
    def low(self) -> int:
        """The earliest time any mention can match."""
        return min((n.low for n in self.needs), default=LOWEST)

    @property
    def high(self) -> int:
        """The latest time any mention can match."""
        return max((n.high for n in self.needs), default=HIGHEST)

    def forget_needs(self) -> None:
        """Let every mention match any event."""
        self.needs = [Predicate() for _ in self.needs]
        self.of_refs = {name: [Predicate()] for name in self.of_refs}
        self.types = [ref._replace(need=Predicate()) for ref in self.types]

    def own_tables(self, own: Container[str]) -> set[str] | None:
        """The tables among `own` that a SELECT names, or None if it may read anything else."""
        named = {table for schema, table in self.tables if not schema}
        if not self.parsed or self.has_parameters or len(named) != len(self.tables):
            return None
        tables = {table for table in named if table in own}
        return tables if named - tables <= self.ctes else None

    def near(self, entries: list[SegmentEntry]) -> list[SegmentEntry]:
        """Return the segments of which any mention may match a row by their statistics."""
        return self._united(entries, [need.near(entries) for need in self.needs])

    def holding(self, entries: list[SegmentEntry], filters: Filters) -> list[SegmentEntry]:
        """Return those of them of which any mention may match a row by their Bloom filters."""
        return self._united(entries, [n.holding(n.near(entries), filters) for n in self.needs])

    def _united(
        self, entries: list[SegmentEntry], parts: list[list[SegmentEntry]]
    ) -> list[SegmentEntry]:
        if len(parts) == 1:
            return parts[0]
        keys = {entry.key for part in parts for entry in part}
        return [entry for entry in entries if entry.key in keys]


def analyze(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    params: Any = None,
    session: duckdb.DuckDBPyConnection | None = None,
) -> TableRefs:
    """Take a query apart; one that is no plain SELECT is not `parsed`.

    `connection` is a fresh cursor. `session` is the one that the query will be asked on, where that
    may have other settings: constants are what they are there.
    """
    refs = TableRefs()
    tree = tree_of(connection, query)
    if len(tree.get("statements", ())) != 1:
        return refs
    refs.parsed = True
    tree = moments.called(query, tree)
    node = tree["statements"][0]["node"]
    is_known = session is None or session_settings.adopt_zone(connection, session)
    _walk(node, refs, _Constants(connection, tree, params))
    if not is_known:  # such as a collation, by which 'a' equals 'A'
        refs.forget_needs()
    refs.counts_all = _counts_all(node)
    return refs


def split_explain(query: str) -> tuple[str, str]:
    """Return the EXPLAIN before a SELECT, "" where there is none, and the rest of the query."""
    match = _EXPLAIN.match(query)
    return (match[0], query[match.end() :]) if match else ("", query)


def rewrite(
    connection: duckdb.DuckDBPyConnection, query: str, typed: bool, tables: payload.Tables
) -> payload.Rewriting | None:
    """Return the query with extractions from payloads as columns; see `payload.rewrite`."""
    key = query, typed, *tables.items()
    if key not in _REWRITTEN:
        rewriting = payload.rewrite(connection, tree_of(connection, query), typed, tables)
        if len(query) > _SHORT:
            return rewriting
        if len(_REWRITTEN) >= _KEPT:
            _REWRITTEN.clear()
        _REWRITTEN[key] = rewriting
    return _REWRITTEN[key]


def nodes(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    """The nodes of the tree of a query that is `parsed`."""
    return list(trees.nodes(tree_of(connection, query)["statements"]))


def gives_payload(connection: duckdb.DuckDBPyConnection, query: str) -> bool:
    """Whether a column `data` of the result is the payload of events: of one of the lake's tables,
    and not another text that the query calls so. What is no plain SELECT is taken for it."""
    tree = tree_of(connection, query)
    if len(tree.get("statements", ())) != 1:
        return True
    nodes = list(trees.nodes(tree["statements"][0]["node"]))
    return any(n.get("type") == "BASE_TABLE" for n in nodes) and not any(map(_renames, nodes))


def _renames(node: dict[str, Any]) -> bool:
    """Whether an expression or a list of columns gives the name `data` to something else."""
    if any(str(name).lower() == "data" for name in node.get("column_name_alias") or ()):
        return True
    if "class" not in node or str(node.get("alias")).lower() != "data":
        return False
    return bool(node["class"] != "COLUMN_REF" or node["column_names"][-1].lower() != "data")


def tree_of(connection: duckdb.DuckDBPyConnection, query: str) -> dict[str, Any]:
    """The tree of a query, which nobody changes; those of the last short ones are kept."""
    tree: dict[str, Any] | None = _TREES.get(query)
    if tree is None:
        try:
            tree = parse(connection, query)
        except SyntaxFault:
            return {}
        if len(query) <= _SHORT:
            if len(_TREES) >= _KEPT:
                _TREES.clear()
            _TREES[query] = tree
    return tree


def _walk(node: Any, refs: TableRefs, constants: _Constants) -> None:
    if isinstance(node, list):
        for child in node:
            _walk(child, refs, constants)
        return
    if not isinstance(node, dict):
        return
    table: Any = node.get("from_table")
    refs.has_parameters |= node.get("class") == "PARAMETER"
    refs.ctes.update(cte["key"].lower() for cte in (node.get("cte_map") or {}).get("map", ()))
    if node.get("type") == "SELECT_NODE" and is_events(table):
        refs.tables.add(("", "events"))
        refs.needs.append(constants.need(node))
        node = {k: v for k, v in node.items() if k != "from_table"}
    elif node.get("type") == "SELECT_NODE" and is_type(table):
        refs.types.append(_type_ref(table, constants.need(node)))
        refs.tables.add((table["schema_name"], table["table_name"].lower()))
        node = {k: v for k, v in node.items() if k != "from_table"}
    elif node.get("type") == "SELECT_NODE" and is_events_of_ref(table):
        # The newest event of `events` is not that of the ref.
        need = dataclasses.replace(constants.need(node), before_newest=None)
        refs.of_refs.setdefault(table["schema_name"], []).append(need)
        refs.tables.add((table["schema_name"], "events"))
        node = {k: v for k, v in node.items() if k != "from_table"}
    elif is_type(node):
        refs.types.append(_type_ref(node, Predicate()))
        refs.tables.add((node["schema_name"], node["table_name"].lower()))
    elif node.get("type") == "BASE_TABLE":
        name = (node["schema_name"], node["table_name"].lower())
        refs.tables.add(name)
        if name == ("", "events"):
            refs.needs.append(Predicate())
        elif name[1] == "events":
            refs.of_refs.setdefault(name[0], []).append(Predicate())
    elif node.get("type") == "TABLE_FUNCTION" and _runs_text(node):
        refs.tables |= {("", "events"), ("", "quarantine")}
        refs.needs.append(Predicate())
    for child in node.values():
        _walk(child, refs, constants)


def _runs_text(node: dict[str, Any]) -> bool:
    """Whether a table function may read `events` without naming it in the tree."""
    return (node.get("function") or {}).get("function_name") in ("query", "query_table")


def _type_ref(table: dict[str, Any], need: Predicate) -> TypeRef:
    start, length = table["query_location"], table["query_location_length"]
    start = start if length else -1
    need = Predicate() if table["column_name_alias"] else need
    ref, name = table["catalog_name"], table["table_name"]
    return TypeRef(ref, name, start, start + length, bool(table["alias"]), need)


class _Constants:
    """Evaluates the constant side of comparisons by asking the engine."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, tree: Any, params: Any) -> None:
        self._connection, self._tree, self._params = connection, tree, params

    def need(self, node: dict[str, Any]) -> Predicate:
        need = Predicate(extremes=newest.extremes(node) if is_events(node["from_table"]) else _NO)
        self._conjunct(node.get("where_clause"), need, node["from_table"])
        return need

    def _conjunct(self, clause: Any, need: Predicate, table: dict[str, Any]) -> None:
        if not isinstance(clause, dict):
            return
        kind: str = clause.get("type", "")
        if kind == "CONJUNCTION_AND":
            for child in clause["children"]:
                self._conjunct(child, need, table)
        elif kind == "COMPARE_BETWEEN" and trees.column(clause["input"], table) == "time":
            self._bound(need, _LOW[1], clause["lower"])
            self._bound(need, _HIGH[1], clause["upper"])
        elif kind == "COMPARE_IN":
            column, *values = clause["children"]
            self._names(need, trees.column(column, table), values)
        elif clause.get("class") == "COMPARISON":
            left, right = clause["left"], clause["right"]
            if trees.column(left, table) is None:
                left, right, kind = right, left, _FLIP.get(kind, kind)
            column = trees.column(left, table)
            if column == "time":
                self._bound(need, kind, right)
            elif kind == "COMPARE_EQUAL":
                self._names(need, column, [right])

    def _bound(self, need: Predicate, kind: str, value: Any) -> None:
        if kind not in (*_LOW, *_HIGH, "COMPARE_EQUAL"):
            return
        micros = self._micros(value)
        if micros is None and kind not in _HIGH:
            need.before_newest = self._before_newest(value)
        if micros is None:
            return
        if kind in _LOW or kind == "COMPARE_EQUAL":
            need.low = max(need.low, micros)
        if kind in _HIGH or kind == "COMPARE_EQUAL":
            late = _SLACK if _NOW & set(trees.mentioned(value, "function_name")) else 0
            need.high = min(need.high, micros + late)

    def _before_newest(self, value: Any) -> int | None:
        """How long a time is before that of the newest event (us), None for any other time."""
        select = newest.before_newest(value)
        if select is None or not is_events(select["from_table"]):
            return None
        if newest.extremes(select) != {newest.LAST} or len(select["select_list"]) != 1:
            return None
        (given,) = tree_of(self._connection, newest.REFERENCE)["statements"]
        reference = given["node"]["select_list"][0]
        end = self._micros(reference)
        start = self._micros(newest.before_reference(value, reference))
        return None if end is None or start is None or start > end else newest.margin(end - start)

    def _names(self, need: Predicate, column: str | None, values: list[Any]) -> None:
        names = [self._text(v) for v in values]
        if column not in ("type", "source", "id", "subject") or not all(
            isinstance(n, str) for n in names
        ):
            return
        attribute = f"{column}s"
        held = getattr(need, attribute)
        wanted = {n for n in names if n is not None}
        setattr(need, attribute, wanted if held is None else held & wanted)

    def _text(self, value: Any) -> str | None:
        if isinstance(value, dict) and value.get("class") == "CONSTANT":
            literal = value.get("literal", {})
            return literal.get("text") if literal.get("kind") == "STRING" else None
        given = self._given(value)
        return given if isinstance(given, str) else None

    def _given(self, value: Any) -> Any:
        """The value of a parameter, if it is one."""
        if not isinstance(value, dict) or value.get("class") != "PARAMETER":
            return None
        try:
            return self._parameter(str(value.get("identifier", "")))
        except KeyError:
            return None

    def _parameter(self, name: str) -> Any:
        """The value of the parameter of a name or number. Raises KeyError."""
        if isinstance(self._params, dict):
            return self._params[name]
        if self._params is not None and name.isdigit() and int(name) <= len(self._params):
            return self._params[int(name) - 1]
        raise KeyError(name)

    def _micros(self, value: Any) -> int | None:
        constant = self._given(value)
        # Of a time without a zone the session says which it is.
        if isinstance(constant, datetime.datetime) and constant.tzinfo is not None:
            return encode.to_micros(constant)
        if (known := moments.micros(value)) is not None or not _is_constant(value):
            return known
        statement = {
            **self._tree,
            "statements": [trees.select_one(value, self._tree["statements"][0])],
        }
        try:
            text = sql_of(self._connection, statement)
            names = dict.fromkeys(trees.mentioned(value, "identifier"))
            constant = {name: self._parameter(name) for name in names}
            query = f"SELECT epoch_us(({text})::TIMESTAMPTZ)"
            row = self._connection.execute(query, constant or None).fetchone()
        except (duckdb.Error, SyntaxFault, KeyError):
            return None
        return None if row is None or row[0] is None else int(row[0])


def _is_constant(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_constant, value))
    if not isinstance(value, dict):
        return True
    kind = value.get("class")
    if kind is not None and kind not in _CONSTANT:
        return False
    if kind == "FUNCTION" and value.get("function_name") not in _SAFE:
        return False
    return all(map(_is_constant, value.values()))


@functools.lru_cache(64)
def _hashes(names: tuple[str, ...]) -> list[int]:
    hashed: list[int] = bloom.hashes(pa.array(names, pa.string())).tolist()
    return hashed


def _may(values: set[str] | None, counts: Counts) -> bool:
    return values is None or isinstance(counts, str) or not values.isdisjoint(counts)


def _counts_all(node: dict[str, Any]) -> str | None:
    """The result column's name if the node is SELECT count(*) FROM events and nothing else."""
    empty = ("where_clause", "having", "sample", "qualify")
    lists = ("modifiers", "group_expressions", "group_sets")
    plain = node.get("type") == "SELECT_NODE" and is_events(node.get("from_table"))
    if not plain or node["from_table"]["sample"] or node["from_table"].get("at_clause"):
        return None
    if any(node[k] is not None for k in empty) or any(node[k] for k in lists):
        return None
    if node["cte_map"]["map"] or len(node["select_list"]) != 1:
        return None
    item = node["select_list"][0]
    counts = item.get("function_name") == "count_star" and not item.get("arguments")
    if not counts or item["filter"] is not None or item["distinct"]:
        return None
    return item["alias"] or "count_star()"
