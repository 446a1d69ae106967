"""What a query says of the events that it wants: the tables it names, and for each mention of
`events` the times, types, sources, ids and subjects that its WHERE leaves.

The query is taken apart by the engine's own parser. Only what is certain is used: comparisons of
the bare columns with constants, joined by AND, in a SELECT whose FROM is `events` alone. Everything
else reads every segment. Several mentions of `events` unite.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from lakelog import values, word_indexes
from lakelog.engine.syntax import Node, SyntaxFault, nodes, sql_of
from lakelog.libraries import duckdb
from lakelog.query import session_settings
from lakelog.query.sql import show, times
from lakelog.query.sql import tree as trees
from lakelog.query.sql.tree import (
    FIELDS,
    LOWER_BOUNDS,
    UPPER_BOUNDS,
    ColumnTest,
    Mention,
    Mentions,
    TableKind,
    is_events,
    tree_of,
)
from lakelog.runtime.lazy import Lazy
from lakelog.search import SearchShape
from lakelog.tokenization import payload_text

if TYPE_CHECKING:
    from lakelog.search import words as search_words
    from lakelog.word_indexes import WordNeed
else:
    search_words = Lazy("lakelog.search.words")

LOWEST, HIGHEST = -(2**62), 2**62
_SLACK = 86_400_000_000
"""now() is later when the query runs than when it is planned."""
_CONSTANT = frozenset(("CONSTANT", "CAST", "FUNCTION", "TYPE", "PARAMETER"))
_CLOCKS = "now current_timestamp get_current_timestamp today current_date current_localtimestamp"
_SAFE = frozenset(
    f"{_CLOCKS} - + to_days to_hours to_minutes to_seconds to_milliseconds to_microseconds to_weeks"
    " to_months to_years to_timestamp trunc date_trunc make_timestamptz make_timestamp make_date"
    " epoch_ms".split()
)
_NOW = frozenset(_CLOCKS.split())
_NAMED_COLUMNS = frozenset(("type", "source", "id", "subject"))
_NAME_SETS = tuple(f"{column}s" for column in sorted(_NAMED_COLUMNS))
_NAME_TEST = re.compile(r"\b((?:type|source|id|subject)\s*=\s*')([^']*)'(?!')", re.I)
_PLACE = "lakelog.name."
_Check = Callable[["Query"], "Query | None"]
_SHAPES, _SHAPES_MAX, _SHAPE_LENGTH = dict[str, "Query | None"](), 128, 512
_SEARCH_LENGTH = 2_048
HIDES = re.compile(r"\bcreate\b.*\b(?:view|macro|function)\b", re.I | re.S)
"""What may put something in the place of a table that later queries name."""
_LASTS = re.compile(rf"\s*prepare\b|{HIDES.pattern}", re.I | re.S)


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
    words: WordNeed | None = None
    """The words that its rows have, by a search."""

    @property
    def is_bounded(self) -> bool:
        """Whether it leaves out some times."""
        return self.low > LOWEST or self.high < HIGHEST or self.before_newest is not None

    @property
    def key(self) -> tuple[object, ...]:
        """What is equal for predicates that match the same."""
        names = (self.types, self.sources, self.ids, self.subjects)
        spans = self.low, self.high, self.extremes, self.before_newest
        return *spans, self.words, *(n if n is None else frozenset(n) for n in names)

    def renamed(self, names: Mapping[str, str]) -> Predicate:
        """Return what is matched with other names in the place of some."""
        renamed = dataclasses.replace(self)
        for column in _NAME_SETS:
            if (before := getattr(self, column)) is not None:
                setattr(renamed, column, {names.get(name, name) for name in before})
        return renamed


class TypeRef(NamedTuple):
    """A table `types.NAME`, of the state of `ref` if it has one: its part of the query as bytes,
    `start` is -1 where the engine does not say; whether it has an alias; what is asked of it."""

    ref: str
    name: str
    start: int
    stop: int
    has_alias: bool
    need: Predicate


@dataclass(frozen=True)
class Query:
    """A query as it was parsed: its text, and the tables that it names; needs of the unqualified
    `events`, other (schema, table) pairs.

    `ctes` are the names that WITH gives, `types` the tables `types.NAME`. `counts_all` is the
    column name when the query is exactly SELECT count(*) FROM events.
    """

    TABLES: ClassVar = ("events", "quarantine")
    """The tables that every lake has."""
    sql: str = ""
    parsed: bool = False
    """Whether it is one SELECT, of which the rest is known."""
    needs: list[Predicate] = field(default_factory=list)
    tables: frozenset[tuple[str, str]] = frozenset()
    ctes: frozenset[str] = frozenset()
    types: list[TypeRef] = field(default_factory=list)
    of_refs: dict[str, list[Predicate]] = field(default_factory=dict)
    """Needs of the `events` of other schemas, by the names of these."""
    counts_all: str | None = None
    has_parameters: bool = False
    has_limit: bool = False
    """Whether some SELECT of it has a LIMIT."""
    needles: tuple[object, ...] = field(init=False, default=())
    """What is equal for queries that ask for the same ids or subjects; empty if none does."""
    has_words: bool = field(init=False, default=False)
    """Whether any mention asks for words."""
    row_ranges: dict[str, tuple[tuple[int, int], ...] | None] = field(
        default_factory=dict, compare=False
    )
    """The rows that may have the words, by the digests of segments that were looked at already;
    None for all rows."""
    of_newest: bool = field(init=False, default=False)
    """Whether any mention goes by the times of the first or newest event."""
    shape: str = ""
    """Its text without the names that it compares with, where only these are its own."""
    may_extract: bool = field(init=False, default=False)
    """Whether it may take something out of payloads."""

    def __post_init__(self) -> None:
        needs = self.needs
        needles = any(need.ids is not None or need.subjects is not None for need in needs)
        of_newest = any(need.extremes or need.before_newest is not None for need in needs)
        has_words = any(need.words is not None for need in needs)
        object.__setattr__(self, "needles", tuple(need.key for need in needs) if needles else ())
        object.__setattr__(self, "has_words", has_words)
        object.__setattr__(self, "of_newest", of_newest)
        object.__setattr__(self, "may_extract", may_extract(self.sql))

    @classmethod
    def of(
        cls,
        connection: duckdb.DuckDBPyConnection,
        query: str,
        params: object = None,
        session: duckdb.DuckDBPyConnection | None = None,
    ) -> Query:
        """Take a query apart; one that is no plain SELECT is not `parsed`.

        `connection` is a fresh cursor. `session` is the one that the query will be asked on, where
        that may have other settings: constants are what they are there.
        """
        tree = tree_of(connection, query)
        if len(tree.get("statements", ())) != 1:
            return cls(query)
        # Names such as current_date are columns to the parser, until no table can have them.
        mentions = trees.mentions(tree["statements"][0]["node"])
        if mentions.has_clock_names:
            tree = times.with_clock_calls(tree)
            mentions = trees.mentions(tree["statements"][0]["node"])
        is_known = session is None or session_settings.adopt_zone(connection, session)
        # Unknown is what a comparison means under a collation, by which 'a' equals 'A'.
        constants = _Constants(connection, tree, params) if is_known else None
        return _united(query, mentions, constants)

    @classmethod
    def of_shape(
        cls, connection: duckdb.DuckDBPyConnection, query: str, params: object = None
    ) -> Query:
        """The same; a query that comes again with other names, as of a subject, or another word
        that it searches for is not parsed again."""
        search = None if params or len(query) > _SEARCH_LENGTH else SearchShape.of(query)
        if search and (found := cls._kept(connection, search.query, _searching)):
            needs = [Predicate(words=search_words.read(connection, search.constant)[1])]
            return dataclasses.replace(
                found, sql=query, needs=needs, shape=search.query, row_ranges={}
            )
        names = dict[str, str]()

        def without_name(test: re.Match[str]) -> str:
            names[place := f"{_PLACE}{len(names)}"] = test[2]
            return f"{test[1]}{place}'"

        shape = _NAME_TEST.sub(without_name, query)
        if not names or params or len(query) > _SHAPE_LENGTH or _PLACE in query:
            return cls.of(connection, query, params)
        found = cls._kept(connection, shape, lambda query: _shaped(query, names))
        if found is None:
            return cls.of(connection, query)
        needs = [need.renamed(names) for need in found.needs]
        return dataclasses.replace(found, sql=query, needs=needs, shape=shape, row_ranges={})

    @classmethod
    def _kept(
        cls, connection: duckdb.DuckDBPyConnection, shape: str, check: _Check
    ) -> Query | None:
        """The query of a shape, parsed once; None for one that says more than its text."""
        if shape not in _SHAPES:
            if len(_SHAPES) >= _SHAPES_MAX:
                _SHAPES.clear()
            _SHAPES[shape] = check(cls.of(connection, shape))
        return _SHAPES[shape]

    @property
    def lasts(self) -> bool:
        """Whether later statements that do not name its tables may read them."""
        return not self.parsed and bool(_LASTS.search(self.sql))

    def own_tables(self, names: Container[str], *, has_values: bool = False) -> set[str] | None:
        """The tables among `names` that a SELECT names, or None if it may read anything else; also
        if it has parameters without values, or the other way round."""
        tables_of_query = {table for schema, table in self.tables if not schema}
        is_of_lake = self.parsed and len(tables_of_query) == len(self.tables)
        if not is_of_lake or self.has_parameters != has_values:
            return None
        tables = {table for table in tables_of_query if table in names}
        return tables if tables_of_query - tables <= self.ctes else None

    @staticmethod
    def gives_payload(connection: duckdb.DuckDBPyConnection, query: str) -> bool:
        """Whether a column `data` of the result is the payload of events: of one of the lake's
        tables, and not another text that the query calls so. What is no plain SELECT is taken for
        it."""
        tree = tree_of(connection, query)
        if len(tree.get("statements", ())) != 1:
            return True
        all_nodes = list(nodes(tree["statements"][0]["node"]))
        return any(n.get("type") == "BASE_TABLE" for n in all_nodes) and not any(
            map(_renames, all_nodes)
        )

    is_events = staticmethod(is_events)
    parsable = staticmethod(show.parsable)


def _shaped(query: Query, places: Collection[str]) -> Query | None:
    """Return a query with places for names if its rows need to have each: then none is a piece of a
    text or comment, and nothing else depends on which name it is. Times do not come again: they
    depend on the clock and the session's zone."""
    sets = (getattr(need, column) for need in query.needs for column in _NAME_SETS)
    needed = {name for names in sets for name in names or ()}
    is_plain = query.parsed and not (query.types or query.of_refs or query.has_words)
    is_timed = any(need.is_bounded for need in query.needs)
    is_shape = is_plain and not is_timed and all(place in needed for place in places)
    return query if is_shape else None


def _searching(query: Query) -> Query | None:
    """Return a query that asks for nothing but the place for a word, else None."""
    is_plain = query.parsed and not (query.types or query.of_refs)
    return query if is_plain and query.needs == [Predicate(words=SearchShape.PLACE)] else None


def _united(query: str, mentions: Mentions, constants: _Constants | None) -> Query:
    """Unite the mentions of a query; without constants, each may match any event."""
    needs, types, of_refs = [], [], dict[str, list[Predicate]]()
    tables = set[tuple[str, str]]()
    for mention in mentions.tables:
        table, name = mention.table, mention.table["table_name"].lower()
        tables.add((table["schema_name"], name))
        need = Predicate()
        if mention.select is not None and constants is not None:
            need = constants.need(mention)
        if mention.kind is TableKind.OF_TYPE:
            types.append(_type_ref(table, need))
        elif name == "events" and not table["schema_name"]:
            needs.append(need)
        elif name == "events":
            # The newest event of `events` is not that of the ref.
            need = dataclasses.replace(need, before_newest=None)
            of_refs.setdefault(table["schema_name"], []).append(need)
    if mentions.runs_text:
        # query('SELECT …') reads what its text says, which is not in the tree.
        tables |= {("", "events"), ("", "quarantine")}
        needs.append(Predicate())
    return Query(
        query,
        parsed=True,
        needs=needs,
        tables=frozenset(tables),
        ctes=frozenset(mentions.ctes),
        types=types,
        of_refs=of_refs if constants is not None else {ref: [Predicate()] for ref in of_refs},
        counts_all=mentions.counts_all,
        has_parameters=mentions.has_parameters,
        has_limit=mentions.has_limit,
    )


def may_extract(query: str) -> bool:
    """Whether the text of a query may have an extraction. That of a search for words has none, and
    a tree so long that to look through it takes longer than to find a word."""
    # A search's own expression has the payload's text in it, and extracts nothing.
    others = query.replace(payload_text("data"), "").lower()
    return any(sign in others for sign in ("->", "json_", FIELDS))


def _renames(node: Node) -> bool:
    """Whether an expression or a list of columns gives the name `data` to something else."""
    if any(str(name).lower() == "data" for name in node.get("column_name_alias") or ()):
        return True
    if "class" not in node or str(node.get("alias")).lower() != "data":
        return False
    return bool(node["class"] != "COLUMN_REF" or node["column_names"][-1].lower() != "data")


def _type_ref(table: Node, need: Predicate) -> TypeRef:
    start, length = table["query_location"], table["query_location_length"]
    start = start if length else -1
    need = Predicate() if table["column_name_alias"] else need
    ref, name = table["catalog_name"], table["table_name"]
    return TypeRef(ref, name, start, start + length, bool(table["alias"]), need)


class _Constants:
    """Evaluates the constant side of comparisons by asking the engine."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, tree: Node, params: Any) -> None:
        self._connection, self._tree, self._params = connection, tree, params

    def need(self, mention: Mention) -> Predicate:
        """What the rows of a SELECT can match."""
        need, select = Predicate(), mention.select or {}
        is_whole = mention.kind is TableKind.EVENTS and select["where_clause"] is None
        if is_whole and select["select_list"][0].get("function_name") in (times.FIRST, times.LAST):
            need.extremes = times.extremes(select)
        for comparison in mention.comparisons:
            if comparison.column == "time":
                # NOT IN and the like leave no bound.
                for value in comparison.values if comparison.operator != "COMPARE_IN" else ():
                    self._bound(need, comparison.operator, value)
            elif comparison.column in _NAMED_COLUMNS:
                self._names(need, comparison)
            elif comparison.column == trees.WORDS:
                self._words(need, comparison, mention.table)
        return need

    def _words(self, need: Predicate, test: ColumnTest, table: Node) -> None:
        constant = self._text(test.values[0])
        if constant is None:
            return
        try:
            row, needed = search_words.read(self._connection, constant)
        except (ValueError, TypeError, LookupError):
            return  # any other text, which may begin so by chance
        # In a query inside of another, it may be of a row of the outer one.
        if row and str(row).lower() != str(table["alias"] or table["table_name"]).lower():
            return
        both = tuple(n for n in (need.words, needed) if n is not None)
        need.words = word_indexes.AllOf(both) if len(both) > 1 else both[0] if both else None

    def _bound(self, need: Predicate, operator: str, value: Node) -> None:
        if operator not in (*LOWER_BOUNDS, *UPPER_BOUNDS, "COMPARE_EQUAL"):
            return
        micros = self._micros(value)
        if micros is None and operator not in UPPER_BOUNDS:
            need.before_newest = self._before_newest(value)
        if micros is None:
            return
        if operator in LOWER_BOUNDS or operator == "COMPARE_EQUAL":
            need.low = max(need.low, micros)
        if operator in UPPER_BOUNDS or operator == "COMPARE_EQUAL":
            # now() runs on until the query does: a bound above would miss the newest events.
            late = _SLACK if _NOW & set(trees.mentioned(value, "function_name")) else 0
            need.high = min(need.high, micros + late)

    def _before_newest(self, value: Node) -> int | None:
        """How long a time is before that of the newest event (us), None for any other time."""
        select = times.before_newest(value)
        if select is None or not is_events(select["from_table"]):
            return None
        if times.extremes(select) != {times.LAST} or len(select["select_list"]) != 1:
            return None
        # The span before the newest is measured from a fixed time: months differ, by at most the
        # margin.
        (statement,) = tree_of(self._connection, times.REFERENCE)["statements"]
        reference = statement["node"]["select_list"][0]
        end = self._micros(reference)
        start = self._micros(times.before_reference(value, reference))
        return None if end is None or start is None or start > end else times.margin(end - start)

    def _names(self, need: Predicate, comparison: ColumnTest) -> None:
        if comparison.operator not in ("COMPARE_IN", "COMPARE_EQUAL"):
            return
        names = [self._text(value) for value in comparison.values]
        if not all(isinstance(name, str) for name in names):
            return
        attribute = f"{comparison.column}s"
        before: set[str] | None = getattr(need, attribute)
        texts = {name for name in names if name is not None}
        # Both conditions hold, so the names of both remain.
        setattr(need, attribute, texts if before is None else before & texts)

    def _text(self, value: Node) -> str | None:
        if isinstance(value, dict) and value.get("class") == "CONSTANT":
            literal = value.get("literal", {})
            return literal.get("text") if literal.get("kind") == "STRING" else None
        parameter = self._parameter_value(value)
        return parameter if isinstance(parameter, str) else None

    def _parameter_value(self, value: Node) -> object:
        """The value of a parameter, if it is one."""
        if not isinstance(value, dict) or value.get("class") != "PARAMETER":
            return None
        try:
            return self._parameter(str(value.get("identifier", "")))
        except KeyError:
            return None

    def _parameter(self, name: str) -> object:
        """The value of the parameter of a name or number. Raises KeyError."""
        if isinstance(self._params, dict):
            return self._params[name]
        if self._params is not None and name.isdigit() and int(name) <= len(self._params):
            return self._params[int(name) - 1]
        raise KeyError(name)

    def _micros(self, value: Node) -> int | None:
        constant = self._parameter_value(value)
        # Of a time without a zone the session says which it is.
        if isinstance(constant, datetime.datetime) and constant.tzinfo is not None:
            return values.to_micros(constant)
        if (literal := times.micros(value)) is not None or not _is_constant(value):
            return literal
        # The engine folds constants as the query itself will: no rule is written twice.
        statement = {
            **self._tree,
            "statements": [trees.select_one(value, self._tree["statements"][0])],
        }
        try:
            expression = sql_of(self._connection, statement)
            names = dict.fromkeys(trees.mentioned(value, "identifier"))
            constant = {name: self._parameter(name) for name in names}
            query = f"SELECT epoch_us(({expression})::TIMESTAMPTZ)"
            row = self._connection.execute(query, constant or None).fetchone()
        except (duckdb.Error, SyntaxFault, KeyError):
            return None
        return None if row is None or row[0] is None else int(row[0])


def _is_constant(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_constant, value))
    if not isinstance(value, dict):
        return True
    node_class = value.get("class")
    if node_class is not None and node_class not in _CONSTANT:
        return False
    if node_class == "FUNCTION" and value.get("function_name") not in _SAFE:
        return False
    return all(map(_is_constant, value.values()))
