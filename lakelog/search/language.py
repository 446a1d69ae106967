"""The language of searches: a text into a tree.

    query      = either ("OR" either)*
    either     = term+                      all of them; "AND" may stand between
    term       = ("-" | "NOT") term | "(" query ")" | [FIELD ":"] value | FIELD comparison value
    value      = word | "phrase" | /regex/ | *, and after a field: "(" query ")" | "=" text
    comparison = >= | <= | > | <

A word or phrase is found where it stands whole: no letter or digit beside one of its
own. A `*` at its beginning or end lets more follow there, one inside stands for any characters but
spaces. The language follows that of VictoriaLogs and Lucene where those agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from lakelog.errors import InvalidSearch
from lakelog.event import EVENT_COLUMNS

# Bounds of the time that reading and planning one may take; the engine's planner grows with terms.
LENGTH_MAX, TERMS_MAX, DEPTH_MAX, REGEX_MAX = 65_536, 1_000, 50, 1_000
COLUMNS = frozenset((*EVENT_COLUMNS, "seq"))
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)
"""A value that is compared as a number."""
# A colon before two slashes or a backslash is of an address or a path: `http://`, `C:\\`.
_FIELD = re.compile(r"([A-Za-z_][\w@-]*(?:\.[\w@-]+)*)(:|>=|<=|>|<)(?![/\\]{2}|\\)")
_WORD = re.compile(r'[^\s()"]+')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.S)
_REGEX = re.compile(r"/((?:[^/\\]|\\.)+)/(?=[\s)]|$)", re.S)
# Only these have a meaning of their own in quotes.
_ESCAPED = re.compile(r'\\(["\\])')


class Operator(Enum):
    """How the value of a field is compared."""

    AT_LEAST = ">="
    AT_MOST = "<="
    MORE = ">"
    LESS = "<"
    EQUAL = "="


@dataclass(frozen=True)
class TextMatch:
    """A word or phrase. `fragments` stand one after another, with no spaces between two of them;
    `field` is "" for the message, the names and the payload."""

    field: str
    fragments: tuple[str, ...]
    is_open_before: bool = False
    is_open_behind: bool = False


@dataclass(frozen=True)
class RegexMatch:
    """A regular expression, of RE2."""

    field: str
    regex: str


@dataclass(frozen=True)
class FieldComparison:
    """A field whose value is compared with another."""

    field: str
    comparison: Operator
    value: str


@dataclass(frozen=True)
class FieldPresence:
    """A field that has a value; `field` is "" for any event."""

    field: str


@dataclass(frozen=True)
class Negation:
    """What is not."""

    node: SearchNode


@dataclass(frozen=True)
class Conjunction:
    """What matches all of some nodes."""

    nodes: tuple[SearchNode, ...]


@dataclass(frozen=True)
class Disjunction:
    """What matches one of some nodes."""

    nodes: tuple[SearchNode, ...]


SearchNode = (
    TextMatch | RegexMatch | FieldComparison | FieldPresence | Negation | Conjunction | Disjunction
)


def parse(query: str) -> SearchNode:
    """Return the tree of a search. Raises InvalidSearch, which shows where the mistake is."""
    if len(query) > LENGTH_MAX:
        raise InvalidSearch(f"the search has {len(query):,} characters; at most {LENGTH_MAX:,}")
    # The engine ends texts at a NUL.
    if "\0" in query:
        raise InvalidSearch("the search has a NUL character")
    try:
        query.encode()
    except UnicodeEncodeError:
        raise InvalidSearch(f"the search is not valid Unicode: {query[:60]!r}") from None
    return _Parser(query).parse()


def highlighter(node: SearchNode) -> re.Pattern[str] | None:
    """Return what finds in a message what a search was found by; None if that is no text. Browsers
    know its syntax, too, and no search makes it slow."""
    regexes, groups = list[str](), 0
    for term in text_terms(node):
        regexes.append(_as_regex(term, groups))
        groups += max(len(term.fragments) - 2, 0)
    return re.compile("|".join(regexes), re.IGNORECASE) if regexes else None


def fields_of(node: SearchNode) -> frozenset[str]:
    """Return the fields that a search looks at; "" stands for all of them."""
    # Fields of both sides of an OR are looked at.
    match node:
        case Conjunction(nodes) | Disjunction(nodes):
            return frozenset().union(*map(fields_of, nodes))
        case Negation(inner):
            return fields_of(inner)
        case FieldPresence(field):
            return frozenset([field] if field else [])
        case _:
            return frozenset([node.field])


def text_terms(node: SearchNode) -> list[TextMatch]:
    """Return the words and phrases that a search asks for, without those of negations."""
    match node:
        case TextMatch():
            return [node]
        case Conjunction(nodes) | Disjunction(nodes):
            return [term for inner in nodes for term in text_terms(inner)]
        case _:
            return []


def _as_regex(term: TextMatch, groups: int) -> str:
    """The pattern of a term behind so many groups. A fragment in the middle is the first one that
    there is, and is never looked for again: a group in a lookahead keeps what it has."""
    beginning, *fragments = map(re.escape, term.fragments)
    middle = (rf"(?=(\S*?{fragment}))\{groups + n}" for n, fragment in enumerate(fragments[:-1], 1))
    inner = beginning + "".join(middle) + "".join(rf"\S*{ending}" for ending in fragments[-1:])
    starts, ends = re.match(r"[^\W_]", term.fragments[0]), re.search(r"[^\W_]$", term.fragments[-1])
    prefix = r"(?<![^\W_])" if starts and not term.is_open_before else ""
    suffix = r"(?![^\W_])" if ends and not term.is_open_behind else ""
    return f"{prefix}{inner}{suffix}"


class _Parser:
    """Reads one query from its beginning to its end."""

    def __init__(self, query: str) -> None:
        self._query, self._place = query, 0
        self._terms, self._depth = 0, 0

    def parse(self) -> SearchNode:
        node = self._either("")
        self._skip_spaces()
        if self._place < len(self._query):
            # All that is left over is a closing bracket: everything else begins a term.
            raise self._fault("there is no ( to this )")
        return node

    def _either(self, field: str) -> SearchNode:
        nodes = [self._all(field)]
        while self._takes("OR"):
            nodes.append(self._all(field))
        return nodes[0] if len(nodes) == 1 else Disjunction(tuple(nodes))

    def _all(self, field: str) -> SearchNode:
        nodes = [self._term(field)]
        while True:
            if self._takes("AND"):
                nodes.append(self._term(field))
            elif self._is_at_end() or self._sees("OR"):
                return nodes[0] if len(nodes) == 1 else Conjunction(tuple(nodes))
            else:
                nodes.append(self._term(field))

    def _term(self, field: str) -> SearchNode:
        self._skip_spaces()
        # Counted as they are read, so that the tree never gets larger.
        self._count(1)
        if self._is_at_end() or self._sees("OR") or self._sees("AND"):
            raise self._fault("a word is missing")
        following = self._query[self._place + 1 : self._place + 2]
        # A minus behind a word's beginning is of the word: `a-b`.
        if self._query[self._place] == "-" and following.strip():
            self._place += 1
            return self._nested(lambda: Negation(self._term(field)))
        if self._takes("NOT"):
            return self._nested(lambda: Negation(self._term(field)))
        # Within the brackets of a field there are values only.
        match = None if field else _FIELD.match(self._query, self._place)
        if match:
            self._place = match.end()
            return self._of_field(match[1], match[2])
        return self._value(field)

    def _of_field(self, field: str, operator: str) -> SearchNode:
        # `field: word` would be two terms, which hardly anybody means.
        if self._place == len(self._query) or self._query[self._place].isspace():
            raise self._fault(f"a value of {field!r} is missing")
        if operator != ":":
            return FieldComparison(field, Operator(operator), self._plain())
        # `field:=text` and `field:>5`: the second spelling of comparisons.
        for comparison in Operator:
            if self._query.startswith(comparison.value, self._place):
                self._place += len(comparison.value)
                return FieldComparison(field, comparison, self._plain())
        return self._value(field)

    def _value(self, field: str) -> SearchNode:
        if self._query[self._place] == "(":
            return self._group(field)
        if match := _QUOTED.match(self._query, self._place):
            return self._phrase(field, match)
        if self._query[self._place] == '"':
            raise self._fault('the closing " is missing')
        if match := _REGEX.match(self._query, self._place):
            if len(match[1]) > REGEX_MAX:
                raise self._fault(f"a regular expression has at most {REGEX_MAX:,} characters")
            self._place = match.end()
            # In a regular expression a slash is written with a backslash.
            return RegexMatch(field, match[1].replace(r"\/", "/"))
        word = self._plain()
        # Stars alone: any value.
        if not word.strip("*"):
            return FieldPresence(field)
        fragments = tuple(fragment for fragment in word.split("*") if fragment)
        self._count(len(fragments) - 1)
        return TextMatch(field, fragments, word.startswith("*"), word.endswith("*"))

    def _group(self, field: str) -> SearchNode:
        start = self._place
        self._place += 1
        node = self._nested(lambda: self._either(field))
        self._skip_spaces()
        if not self._query.startswith(")", self._place):
            # Shown at the bracket that was left open.
            self._place = start
            raise self._fault("the closing ) is missing")
        self._place += 1
        return node

    def _phrase(self, field: str, match: re.Match[str]) -> SearchNode:
        phrase = _ESCAPED.sub(r"\1", match[1])
        if not phrase.strip():
            raise self._fault("a phrase has no words")
        self._place = match.end()
        # `"a phrase"*`: more may follow.
        is_open = self._query.startswith("*", self._place)
        self._place += is_open
        return TextMatch(field, (phrase,), is_open_behind=is_open)

    def _plain(self) -> str:
        if match := _QUOTED.match(self._query, self._place):
            self._place = match.end()
            return _ESCAPED.sub(r"\1", match[1])
        match = _WORD.match(self._query, self._place)
        if match is None:
            raise self._fault("a word is missing")
        self._place = match.end()
        return match[0]

    def _count(self, terms: int) -> None:
        self._terms += terms
        if self._terms > TERMS_MAX:
            raise InvalidSearch(f"the search has more than {TERMS_MAX:,} terms")

    def _nested(self, parse_inner: Callable[[], SearchNode]) -> SearchNode:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise InvalidSearch(f"the search is nested more than {DEPTH_MAX} deep")
        node = parse_inner()
        self._depth -= 1
        return node

    def _sees(self, keyword: str) -> bool:
        self._skip_spaces()
        end = self._place + len(keyword)
        is_there = self._query.startswith(keyword, self._place)
        # A keyword ends at a space or bracket: `ORDER` is a word.
        return is_there and (end == len(self._query) or self._query[end] in " \t\r\n(")

    def _takes(self, keyword: str) -> bool:
        is_there = self._sees(keyword)
        self._place += len(keyword) * is_there
        return is_there

    def _is_at_end(self) -> bool:
        self._skip_spaces()
        return self._place == len(self._query) or self._query[self._place] == ")"

    def _skip_spaces(self) -> None:
        while self._place < len(self._query) and self._query[self._place].isspace():
            self._place += 1

    def _fault(self, problem: str) -> InvalidSearch:
        start = max(self._place - 30, 0)
        excerpt = self._query[start : self._place + 30].replace("\n", " ")
        return InvalidSearch(f"{problem}: {excerpt!r}, at character {self._place + 1}")
