"""The function `search('…')` in SQL: its calls, and the conditions that stand for them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lakelog import word_indexes
from lakelog.errors import InvalidSearch, QueryFailed
from lakelog.runtime.lazy import Lazy
from lakelog.search.language import TextMatch, parse

if TYPE_CHECKING:
    from lakelog.search import condition
    from lakelog.word_indexes import WordPiece
else:
    condition = Lazy("lakelog.search.condition")

# A cheap look first: nearly no query has one.
_MAYBE = re.compile(r"\bsearch\s*\(", re.I)
_CALL = re.compile(r"\bsearch\s*\(\s*(?:(?P<row>\w+)\s*,\s*)?(?P<text>'(?:[^']|'')*')\s*\)", re.I)
_COUNT = re.compile(
    r"\s*SELECT\s+count\(\*\)(?:\s+AS\s+(\w+))?\s+FROM\s+events\s+WHERE\s+(\('lakelog\..*)",
    re.I | re.S,
)
_TERM = re.compile(
    r"""\('lakelog\.words: \["",\["([0-9a-z]+)",(true|false),(true|false),false\]\]'"""
)
# Where `search(` means nothing: texts, those of E'' with escapes, names in quotes, comments and
# dollar quotes.
_APART = re.compile(
    r"""\b[eE]'(?:[^'\\]|\\.|'')*'|"""
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$""",
    re.S,
)


def expanded(query: str) -> str:
    """Return a query with a condition in the place of each call of `search`.

    Its argument is one text in quotes, behind the alias of a table where there are several:
    `search(e, 'timeout')`. Raises QueryFailed for another one, or a search that cannot be read.
    """
    if not _MAYBE.search(query):
        return query
    output, place = list[str](), 0
    while match := _MAYBE.search(query, place):
        quoted = _APART.search(query, place)
        if quoted and quoted.start() < match.start():
            output.append(query[place : quoted.end()])
            place = quoted.end()
            continue
        call = _CALL.match(query, match.start())
        if call is None:
            raise QueryFailed(
                "search() takes one text in quotes, and before it the alias of a table where there"
                " are several: search(e, 'timeout -debug')"
            )
        output += query[place : match.start()], _condition_of(call)
        # Behind the condition, or a search for `search('x')` would be expanded again.
        place = call.end()
    return "".join(output) + query[place:]


def _condition_of(call: re.Match[str]) -> str:
    row = f"{call['row']}." if call["row"] else ""
    try:
        return condition.search_condition(parse(call["text"][1:-1].replace("''", "'")), row)
    except InvalidSearch as error:
        raise QueryFailed(f"search({call['text'][:40]}): {error}") from None


def counted_word(query: str) -> tuple[str, str | WordPiece] | None:
    """Return the name of the column and the word, or the piece of one, of a query that counts the
    events which have a word of ASCII, and does nothing else."""
    match = _COUNT.fullmatch(query)
    term = first_term(match[2]) if match else None
    # Its whole text has to be that of the search for this word, but for the semicolon that people
    # type behind a query: nothing else may be asked.
    if match is None or term is None or match[2].rstrip("; \n") != term[1]:
        return None
    return match[1] or "count_star()", term[0]


def first_term(text: str) -> tuple[str | WordPiece, str] | None:
    """Return the word of ASCII, or the piece of one, that the condition of a search begins with,
    and the whole condition of a search for nothing else; None where there is none."""
    match = _TERM.match(text)
    if match is None:
        return None
    word, is_open_before, is_open_behind = match[1], match[2] == "true", match[3] == "true"
    term = TextMatch("", (word,), is_open_before, is_open_behind)
    need = word_indexes.WordPiece(word, begins=not is_open_before, ends=not is_open_behind)
    is_piece = is_open_before or is_open_behind
    return need if is_piece else word, condition.search_condition(term)


@dataclass(frozen=True)
class SearchShape:
    """A query with `PLACE` for the only word that it searches for; `constant` is the one of the
    search's condition, as `words.read` reads it."""

    PLACE: ClassVar = "lakelogplace"
    query: str
    constant: str

    @classmethod
    def of(cls, query: str) -> SearchShape | None:
        """Take a query apart whose only search is for a word of ASCII, or a piece of one; None for
        any other."""
        match = _TERM.search(query)
        if match is None or query.count("'lakelog.words: ") != 1:
            return None
        term = first_term(query[match.start() :])
        if term is None or not query.startswith(term[1], match.start()):
            return None
        is_open_before, is_open_behind = match[2] == "true", match[3] == "true"
        place = TextMatch("", (cls.PLACE,), is_open_before, is_open_behind)
        behind = query[match.start() + len(term[1]) :]
        shape = query[: match.start()] + condition.search_condition(place) + behind
        return cls(shape, match[0][2:-1])


def for_ascii(query: str) -> str:
    """Return a query whose searches are the same for texts without words of other letters than
    those of ASCII."""
    for pattern, short_pattern in condition.EDGES.items():
        # The long patterns are found by their very text, as `condition` made them.
        query = query.replace(pattern, short_pattern)
    return query
