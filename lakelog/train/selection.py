"""The rows a recipe asks for, at one snapshot, with the event each came from.

A plain `SELECT ... FROM events` gets the hidden columns `__seq` and `__time` added, so that rows
can be traced to events though the recipe names neither; any other query is taken as it is, and is
traced if it gives a column `seq`. `seq` counts the events of a branch and never changes.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lakelog import history, sql
from lakelog import query as queries
from lakelog.engine.messages import EngineMessage
from lakelog.engine.syntax import Node, ParsedStatement, SyntaxFault, nodes, parse, sql_of
from lakelog.engine.volatility import FunctionCall, Volatility
from lakelog.errors import ExportRefused, LakelogError, QueryFailed, UnknownRef
from lakelog.event import BookkeepingEvent
from lakelog.lake import Lake
from lakelog.libraries import duckdb, pa
from lakelog.query import Session
from lakelog.train.recipe import Recipe
from lakelog.train.tables import JsonMap

quoted, text_of = sql.identifier, sql.literal
HIDDEN = ("__seqs", "__time", "__until", "__group", "__stratum", "__at")
"""What every shape adds to its rows: event numbers, times, group, stratum, order."""
_VOLATILE = (Volatility.CLOCK, Volatility.RANDOM)


@dataclass(frozen=True)
class RowQuery:
    """A query over one state. `columns` are those the recipe's query gives, name to type."""

    session: Session
    digest: str
    sql: str
    columns: dict[str, str]
    is_traced: bool

    @property
    def time(self) -> str:
        """The event's time as SQL, or a null."""
        return self._hidden("time", "NULL::TIMESTAMPTZ")

    @property
    def seq(self) -> str:
        """The event's number as SQL, or a null."""
        return self._hidden("seq", "NULL::BIGINT")

    def _hidden(self, name: str, otherwise: str) -> str:
        if self.is_traced:
            return f"__{name}"
        return quoted(name) if name in self.columns else otherwise

    def value(self, name: str, key: str) -> str:
        """Return SQL for a column or a path into a JSON column, as text for a path.

        Raises ExportRefused, naming the recipe's key, for neither.
        """
        if name in self.columns:
            return quoted(name)
        column, _, path = name.partition(".")
        if not path or column not in self.columns:
            listing = ", ".join(self.columns)
            raise ExportRefused(f"{key}: the selection has no column {name!r}; it has {listing}")
        if self.columns[column].startswith("STRUCT"):
            return ".".join(map(quoted, name.split(".")))
        return _extracted(column, "->>", path)

    def json(self, name: str, key: str) -> str:
        """Return SQL for the JSON at a column or path."""
        if name in self.columns:
            return f"{quoted(name)}::JSON"
        self.value(name, key)
        column, _, path = name.partition(".")
        return _extracted(column, "->", path)


@contextlib.contextmanager
def refusing_values(recipe: Recipe) -> Iterator[None]:
    """Raise ExportRefused where rows are read and the recipe's query fails for one of them, such as
    a cast of a text that is no number."""
    try:
        yield
    # Of a stream the engine's errors come as Arrow's, which have no number of the system.
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        message = EngineMessage(error)
        if getattr(error, "errno", None) is None and message.is_of_value():
            raise ExportRefused(f"{recipe.where}: [select] sql: {message.gist()}") from None
        raise


def _extracted(column: str, operator: str, path: str) -> str:
    """SQL of what stands at a path in a column, whichever of its names have dots."""
    members = [f"{quoted(column)}{operator}{place}" for place in sql.member_paths(path)]
    return f"({members[0]})" if len(members) == 1 else f"coalesce({', '.join(members)})"


def choose(lake: Lake, recipe: Recipe, session: Session) -> RowQuery:
    """Fix the state and look at the query. Raises UnknownRef, QueryFailed, ExportRefused."""
    state = recipe.select["at"]
    if state is None:
        digest = lake.settle().move.snapshot
    else:
        try:
            # A branch means its newest events; a tag or snapshot is already fixed.
            if state in lake.store.refs.branches():
                with Lake(lake.store, state) as branch:
                    branch.settle()
            digest = history.resolve(lake.store, lake.branch_name, state)
        except UnknownRef as error:
            raise ExportRefused(f"[select] at = {state!r}: {error}") from None
    return at_state(session, recipe, digest)


def at_state(session: Session, recipe: Recipe, digest: str) -> RowQuery:
    """Look at a recipe's query over one state."""
    query = recipe.select["sql"].strip().rstrip(";").strip()
    try:
        # Before anything is run: the text is put into brackets below.
        _require_select(session, query, recipe.where)
        relation = session.sql(f"SELECT * FROM ({query}) LIMIT 0", digest=digest)
        columns = dict(zip(relation.columns, map(str, relation.types), strict=True))
    except QueryFailed as error:
        raise ExportRefused(f"{recipe.where}: [select] sql: {error}") from None
    # Names with two underscores carry sequence numbers, groups and times through the export and are
    # left out of the files; a user's column would silently disappear.
    hidden = [name for name in columns if name.startswith("__")]
    if hidden:
        raise ExportRefused(f"[select] sql: the name {hidden[0]!r} is reserved; rename the column")
    _prepare_repeatable(session, query, recipe.where)
    traced = with_trace_columns(session, query)
    try:
        session.sql(f"SELECT * FROM ({traced}) LIMIT 0", digest=digest) if traced else None
    except LakelogError:
        traced = None
    # Rebuilds must see the same rows in the same order; a query without ORDER BY has none that
    # DuckDB would guarantee.
    if traced is None and not re.search(r"\border\s+by\b(?!.*\)\s*$)", query, re.I | re.S):
        query = f"SELECT * FROM ({query}) ORDER BY ALL"
    return RowQuery(session, digest, traced or query, columns, traced is not None)


def _require_select(session: Session, query: str, origin: str) -> None:
    """Raise ExportRefused for anything but one SELECT.

    The query is put into brackets, and `SELECT 1); DROP ...; (SELECT 1` would close them.
    """
    try:
        # DuckDB's own parser: a hand-written check would disagree with it about comments and
        # quotes.
        kinds = [s.kind for s in ParsedStatement.list_of(session.connect().cursor(), query)]
    except duckdb.Error as error:
        raise ExportRefused(f"{origin}: [select] sql: {EngineMessage(error).gist()}") from None
    if kinds != ["SELECT"]:
        raise ExportRefused(f"{origin}: [select] sql is one SELECT and nothing else")


def _prepare_repeatable(session: Session, query: str, origin: str) -> None:
    """Have the engine give the same rows each time. Raises ExportRefused where it cannot."""
    cursor = session.connect().cursor()
    try:
        syntax_nodes = list(nodes(parse(cursor, query)))
    except SyntaxFault:  # PIVOT is several statements
        syntax_nodes = []
    calls = [call for node in syntax_nodes if (call := FunctionCall.of(node))]
    volatile = [f"{c.name}()" for c in calls if c.volatility in _VOLATILE]
    samples = [sample for node in syntax_nodes if (sample := node.get("sample"))]
    volatile += ["a sample without REPEATABLE" for s in samples if not s["repeatable"]]
    if volatile:
        raise ExportRefused(
            f"{origin}: [select] sql: {volatile[0]} gives other rows each time, so the set could"
            " not be rebuilt: write the time itself, or choose rows by a hash of their columns"
        )
    # Which row is first, what `list` or a sum of fractions make of rows, and in what order a join
    # with a subquery gives them hangs on how many threads there are.
    has_windows = any(node.get("class") == "WINDOW" for node in syntax_nodes)
    is_nested = sum(node.get("type") == "SELECT_NODE" for node in syntax_nodes) > 1
    if is_traceable(cursor, query):
        is_steady = not (has_windows or is_nested)
    else:
        is_steady = bool(syntax_nodes) and not (
            has_windows
            or samples
            or any(call.is_aggregate for call in calls)
            or any(node.get("modifiers") for node in syntax_nodes)
        )
    if not is_steady:
        cursor.execute("SET threads = 1")


def with_trace_columns(session: Session, query: str) -> str | None:
    """Return the query with `__seq` and `__time` added, if its rows are events one by one."""
    cursor = session.connect().cursor()
    tree = _plain_tree(cursor, query)
    if tree is None:
        return None
    node = tree["statements"][0]["node"]
    # Edited as a syntax tree and serialized by DuckDB, so that no user query is changed by text
    # replacement.
    node["select_list"] += [_column("seq", "__seq"), _column("time", "__time")]
    for modifier in node["modifiers"]:
        # Rows that are alike in order get one, or each number of threads would have its own.
        orders = modifier.get("orders") or ()
        if orders and orders[0]["expression"]["class"] != "STAR":
            orders.append({**orders[0], "expression": _column("seq", "")})
    return sql_of(cursor, tree)


def is_traceable(cursor: duckdb.DuckDBPyConnection, query: str) -> bool:
    """Whether the rows of a query are events one by one; it is parsed and not run."""
    return _plain_tree(cursor, query) is not None


def _plain_tree(cursor: duckdb.DuckDBPyConnection, query: str) -> Node | None:
    """The syntax tree of a query over events alone, or None."""
    try:
        tree = parse(cursor, query)
    except SyntaxFault:
        return None
    is_one = len(tree["statements"]) == 1
    return tree if is_one and _is_plain(tree["statements"][0]["node"]) else None


def _is_plain(node: Node) -> bool:
    """Whether a query reads events alone and neither groups, unites nor aggregates them."""
    table = node.get("from_table") or {}
    below_select = list(nodes(node.get("select_list", [])))
    calls = {call for inner in below_select if (call := FunctionCall.of(inner))}
    kinds = {m.get("type") for m in node.get("modifiers", [])}
    return (
        node.get("type") == "SELECT_NODE"
        and table.get("type") == "BASE_TABLE"
        and table.get("table_name", "").lower() == "events"
        and not node.get("group_expressions")
        and not node.get("having")
        and not kinds & {"DISTINCT_MODIFIER"}
        # Subqueries and windows in the select list may return one row for several events, so one
        # `seq` would not describe it.
        and not any(inner.get("class") in ("SUBQUERY", "WINDOW") for inner in below_select)
        and not any(call.is_aggregate or call.name == "unnest" for call in calls)
    )


def _column(name: str, alias: str) -> JsonMap:
    return {
        "class": "COLUMN_REF",
        "type": "COLUMN_REF",
        "alias": alias,
        "query_location": 0,
        "column_names": [name],
    }


def column_of(name: str) -> str:
    """Return the name of the column that a path such as data.user.id makes."""
    return name.rpartition(".")[2]


def content_hashes(columns: Iterable[str]) -> str:
    """SQL of the hashes `h1` and `h2` of a row's content, which equal rows of any set share."""
    # Two independent 64-bit hashes: with one, a set of 100 million rows would have a false
    # duplicate with a probability of about 1 in 4,000.
    content = ", ".join(map(quoted, columns))
    return f"hash({content}) AS h1, hash({content}, 'lakelog') AS h2"


def session_of(
    lake: Lake, recipe: Recipe, memory_bytes: int, *, keeps_sealed: bool = False
) -> Session:
    """Return a session of an export's own, with bounded memory; its `events` leave bookkeeping
    events out, unless the recipe asks for them: a set would hold the note on the set before it.
    With `keeps_sealed` it never opens protected fields."""
    only = None if recipe.select["bookkeeping"] else BookkeepingEvent.IS_DATA
    store = lake.store.bounded(memory_bytes)
    return queries.Session(store, lake.branch_name, only=only, keeps_sealed=keeps_sealed)
