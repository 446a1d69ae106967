"""What a search means in SQL: a condition over the columns of `events`.

Letters are compared without their case, by Unicode's simple mapping. A word stands whole where no
character of a word is beside it; characters of scripts that are written without spaces are words
of their own. The text of a payload is its JSON, strings without their escapes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from lakelog import formats, sql
from lakelog.errors import InvalidEvent, InvalidSearch, InvalidSetting
from lakelog.event import Severity
from lakelog.search.language import (
    COLUMNS,
    NUMBER,
    Conjunction,
    Disjunction,
    FieldComparison,
    FieldPresence,
    Negation,
    Operator,
    RegexMatch,
    SearchNode,
    TextMatch,
)
from lakelog.search.words import is_of_word, marked
from lakelog.settings import span_us
from lakelog.tokenization import SEARCHED, UNSPACED, payload_text
from lakelog.values import parse_time

_TIMES = frozenset(("time", "ingested_at"))
_NUMBERS = frozenset(("position", "seq"))
_LONG_NUMBER = r"[-+]?[0-9]{16,38}"
_SHARED, _TEXT = 16, "lakelog_text"
"""From so many terms on, all are tested over one text, which has this name."""
# Letters, numbers and marks make words; scripts without spaces have none.
_ASIDE = rf"[^\pL\pN\pM]|[{UNSPACED}]"
_BEFORE, _BEHIND = f"(^|{_ASIDE})", f"($|{_ASIDE})"
EDGES = {_BEFORE: "(^|[^0-9A-Za-z])", _BEHIND: "($|[^0-9A-Za-z])"}
"""Patterns of the edges of words, and the same for words that are all of ASCII: to compile them is
many times faster."""


def search_condition(node: SearchNode, row: str = "") -> str:
    """Return the condition of a search, true or false and never NULL. `row` stands before the names
    of columns, such as `e.`. Raises InvalidSearch."""
    return marked(_Conditions(row).of(node), node, row)


def field_text(field: str) -> str:
    """SQL for the value of a field as text: a column of `events`, or a member of the payload."""
    # No row in front: the SELECT has one table.
    return _Conditions("")._as_text(field)


class _Conditions:
    """Makes conditions over the columns of one table."""

    def __init__(self, row: str, shared: str = "") -> None:
        """`shared` is SQL for the text of all columns, where that is computed already."""
        self._row, self._shared = row, shared

    def of(self, node: SearchNode) -> str:
        match node:
            case Conjunction(nodes):
                return self._combined(nodes, " AND ")
            case Disjunction(nodes):
                return self._combined(nodes, " OR ")
            case Negation(inner):
                return f"NOT {self.of(inner)}"
            case FieldComparison():
                return self._compared(node)
            case FieldPresence(field):
                return f"({self._value(field)} IS NOT NULL)" if field else "true"
            case RegexMatch(field, regex):
                pattern = sql.literal(_checked(regex))
                return self._any(field, lambda column: f"regexp_matches({column}, {pattern})")
            case TextMatch():
                return self._text(node)

    def _combined(self, nodes: Sequence[SearchNode], operator: str) -> str:
        texts = [] if self._shared else [node for node in nodes if _is_of_text(node)]
        if sum(map(_term_count, texts)) < _SHARED:
            return "(" + operator.join(map(self.of, nodes)) + ")"
        conditions = [self.of(node) for node in nodes if not _is_of_text(node)]
        inner = _Conditions(self._row, _TEXT)
        shared = self._over_shared(operator.join(map(inner.of, texts)))
        return "(" + operator.join([*conditions, shared]) + ")"

    def _over_shared(self, condition: str) -> str:
        """A condition over the text of all columns, which is computed once: the engine takes
        seconds to plan one that repeats it hundreds of times."""
        return f"list_transform([{self._joined()}], lambda {_TEXT}: ({condition}))[1]"

    def _text(self, node: TextMatch) -> str:
        # A level has names of its own (`WARNING`, `warn`) and an order.
        if node.field == "level" and not (node.is_open_before or node.is_open_behind):
            return self._compared(FieldComparison("level", Operator.EQUAL, "".join(node.fragments)))
        fragments = node.fragments
        contained = [_in_small_letters(fragment) for fragment in fragments]
        pattern = whole_words(node)

        def holds(lowercase: str) -> str:
            tests = [f"contains({lowercase}, {fragment})" for fragment in contained]
            # A pattern of one fragment that is open at both ends finds what `contains` found.
            if len(fragments) > 1 or pattern != _in_small_letters(re.escape(fragments[0])):
                tests.append(f"regexp_matches({lowercase}, {pattern})")
            return " AND ".join(tests)

        if node.field or any("\n" in fragment for fragment in fragments):
            return self._any(node.field, lambda column: holds(f"lower({column})"))
        # All columns as one text: to compile a regular expression for each takes longer than to
        # read thousands of rows. No fragment has a line break, and no `*` goes beyond a space.
        if len(fragments) >= _SHARED and not self._shared:
            return f"({self._over_shared(holds(_TEXT))})"
        return f"({holds(self._joined())})"

    def _joined(self) -> str:
        return self._shared or f"lower(concat_ws(chr(10), {', '.join(self._searched())}))"

    def _any(self, field: str, test: Callable[[str], str]) -> str:
        """A test of a field, or of all columns that are searched."""
        # NULL is no match: a condition of a search is true or false.
        if field:
            return f"coalesce({test(self._as_text(field))}, false)"
        tests = (f"coalesce({test(column)}, false)" for column in self._searched())
        return "(" + " OR ".join(tests) + ")"

    def _searched(self) -> list[str]:
        """SQL for the texts that a word without a field is looked for in."""
        return [
            payload_text(self._row + name) if name == "data" else self._row + name
            for name in SEARCHED
        ]

    def _compared(self, node: FieldComparison) -> str:
        operator, value = node.comparison.value, self._value(node.field)
        if node.field in _TIMES:
            return f"coalesce({value} {operator} {_moment(node)}, false)"
        if node.field == "level":
            return self._of_level(node)
        if NUMBER.fullmatch(node.value):
            # A text that is no number is no match, and must not fail the query.
            number = f"try_cast({value} AS DOUBLE)"
            test = f"{number} {operator} '{float(node.value)!r}'::DOUBLE"
            if node.comparison in (Operator.MORE, Operator.AT_LEAST):
                # To the engine NaN is above all numbers.
                test = f"({test} AND {number} <= 'Infinity'::DOUBLE)"
            if re.fullmatch(_LONG_NUMBER, node.value):
                # Neighbours of so many digits are one DOUBLE, but not one id.
                test = f"try_cast({value} AS HUGEINT) {operator} {node.value}::HUGEINT, {test}"
            return f"coalesce({test}, false)"
        if node.field in _NUMBERS:
            raise InvalidSearch(f"{node.field!r} is a number, not {node.value!r}")
        return f"coalesce({self._as_text(node.field)} {operator} {sql.literal(node.value)}, false)"

    def _of_level(self, node: FieldComparison) -> str:
        # A level that is not among the known ones can be equal, but has no place.
        level, name = f"{self._row}level", Severity.level_of(node.value) or node.value
        if node.comparison is Operator.EQUAL:
            return f"coalesce({level} = {sql.literal(name)}, false)"
        if name not in Severity.ALL:
            severities = " ".join(Severity.ALL)
            raise InvalidSearch(f"{node.value!r} has no place among the levels {severities}")
        place = Severity.ALL.index(name)
        matches = {
            Operator.AT_LEAST: Severity.ALL[place:],
            Operator.MORE: Severity.ALL[place + 1 :],
            Operator.AT_MOST: Severity.ALL[: place + 1],
            Operator.LESS: Severity.ALL[:place],
        }[node.comparison]
        literals = ", ".join(map(sql.literal, matches))
        return f"coalesce({level} IN ({literals}), false)" if matches else "false"

    def _value(self, field: str) -> str:
        """What a field has: a column, or text out of the payload."""
        if field in COLUMNS:
            return self._row + field
        paths = sql.member_paths(field.removeprefix("data."))
        members = [f"{self._row}data->>{path}" for path in paths]
        return members[0] if len(members) == 1 else f"coalesce({', '.join(members)})"

    def _as_text(self, field: str) -> str:
        if field == "data":
            return payload_text(f"{self._row}data")
        if field in _TIMES:
            # In every session as in one of UTC: a search finds the same events for all.
            return f"(CAST({self._row}{field} AT TIME ZONE 'UTC' AS VARCHAR) || '+00')"
        if field in _NUMBERS:
            return f"CAST({self._row}{field} AS VARCHAR)"
        return f"({self._value(field)})"


def whole_words(term: TextMatch) -> str:
    """SQL for the regular expression that finds a text whole, over letters without their case."""
    before_edge, behind_edge = _BEFORE, _BEHIND
    if term.field in COLUMNS and term.field not in SEARCHED:
        # Of these columns no index tells that they are of ASCII: another spelling of the same.
        before_edge, behind_edge = (
            before_edge.replace("(^", "(?:^"),
            behind_edge.replace("($", "(?:$"),
        )
    initial, final = term.fragments[0][0], term.fragments[-1][-1]
    prefix = before_edge if not term.is_open_before and is_of_word(initial) else ""
    suffix = behind_edge if not term.is_open_behind and is_of_word(final) else ""
    # What a `*` stands for has no spaces.
    return _in_small_letters(r"[^\s]*?".join(map(re.escape, term.fragments)), prefix, suffix)


def _in_small_letters(string: str, prefix: str = "", suffix: str = "") -> str:
    """SQL for a text without the case of its letters, between two others that stay. The engine
    makes it, as of what is searched: each library knows another version of Unicode."""
    if string.isascii():
        return sql.literal(prefix + string.lower() + suffix)
    literals = (sql.literal(prefix), f"lower({sql.literal(string)})", sql.literal(suffix))
    return " || ".join(literal for literal in literals if literal != "''")


def _is_of_text(node: SearchNode) -> bool:
    """Whether a node asks for nothing but texts in any column."""
    match node:
        case TextMatch(field, fragments):
            return not field and not any("\n" in fragment for fragment in fragments)
        case Negation(inner):
            return _is_of_text(inner)
        case Conjunction(nodes) | Disjunction(nodes):
            return all(map(_is_of_text, nodes))
        case _:
            return False


def _term_count(node: SearchNode) -> int:
    match node:
        case TextMatch(_, fragments):
            return len(fragments)
        case Negation(inner):
            return _term_count(inner)
        case Conjunction(nodes) | Disjunction(nodes):
            return sum(map(_term_count, nodes))
        case _:
            return 1


def _checked(regex: str) -> str:
    """A regular expression that RE2 takes. Raises InvalidSearch."""
    try:
        formats.FormatDefinition.check_regex(regex, "the regular expression", regex)
    except InvalidSetting as error:
        raise InvalidSearch(str(error)) from None
    return regex


def _moment(node: FieldComparison) -> str:
    # Relative to the query's own clock, so that a search can be kept.
    try:
        return f"(now() - to_microseconds({span_us(node.value)}))"
    except InvalidSetting:
        pass
    try:
        return sql.literal(parse_time(node.value).isoformat()) + "::TIMESTAMPTZ"
    except InvalidEvent:
        raise InvalidSearch(
            f"{node.field!r} is a time such as 2026-11-20T08:00, or a span such as 2h,"
            f" not {node.value!r}"
        ) from None
