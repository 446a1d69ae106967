"""The words of a search: where one begins and ends, and which of them rows must have.

A condition of a search begins with a constant, `'lakelog.words: ...' IS NOT NULL`, which is true.
It has, as JSON, the fragments of text that are in every row which the search finds. Whoever plans a
query looks for their words in the word indexes of segments (word_indexes).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson

from lakelog import arrays, sql, tokenization
from lakelog.libraries import duckdb, pc
from lakelog.search.language import (
    COLUMNS,
    NUMBER,
    Conjunction,
    Disjunction,
    FieldComparison,
    Operator,
    SearchNode,
    TextMatch,
    text_terms,
)
from lakelog.tokenization import SEARCHED
from lakelog.word_indexes import AllOf, AnyOf, JoinedWords, WordNeed, WordPiece

# Whoever plans the query knows it by this beginning; as a text it is never NULL.
PREFIX = "lakelog.words: "
_LETTERS = 2
"""Numbers have at most one letter beside another."""
Fragment = tuple[str, bool, bool, bool]
"""A text; whether it may be in the middle of a word, before and behind; and whether it is in the
value of a member of the payload."""
Requirement = Fragment | dict[str, "list[Requirement]"]
"""A fragment that rows have, or `all` or `any` of several."""


def marked(condition: str, node: SearchNode, row: str) -> str:
    """Return a condition of a search with the words that rows must have; `row` as there."""
    requirement = _required(node)
    if requirement is None:
        # It may find rows without any of its words, as with NOT.
        return condition
    constant = PREFIX + orjson.dumps([row.rstrip("."), requirement]).decode()
    return f"({sql.literal(constant)} IS NOT NULL AND {condition})"


def mentioning(condition: str, values: Sequence[str]) -> str:
    """Return a condition, which holds only for rows that have one of some values in whole words,
    with the words that these rows must have."""
    return marked(condition, Disjunction(tuple(TextMatch("", (value,)) for value in values)), "")


def read(connection: duckdb.DuckDBPyConnection, constant: str) -> tuple[str, WordNeed | None]:
    """Return the alias of the table that such a constant is of, "" for any, and what its rows need
    to have. Raises ValueError, TypeError or LookupError for a text that is none."""
    if not constant.startswith(PREFIX):
        raise ValueError("it is not of a search")
    row, requirement = orjson.loads(constant.removeprefix(PREFIX))
    return row, _need(connection, requirement)


def ranking(
    connection: duckdb.DuckDBPyConnection, node: SearchNode
) -> tuple[WordNeed | None, list[str], bool]:
    """Return what the rows have that a search finds, None where that is nothing certain; the whole
    words that it asks for, each once, without those of negations; and whether it finds all rows
    that have what is needed."""
    requirement = _required(node)
    need = None if requirement is None else _need(connection, requirement)
    distinct = dict.fromkeys(
        word
        for term in text_terms(node)
        if _is_indexed(term.field)
        for fragment, is_open_before, is_open_behind, _ in _fragments(term)
        for run in tokenization.of_fragment(
            connection, fragment, is_open_before=is_open_before, is_open_behind=is_open_behind
        )[0]
        for word in run
    )
    return need, [*distinct], _is_of_words(node)


def is_of_word(character: str) -> bool:
    """Whether a character of a word beside it would make it part of another word."""
    if character.isascii():  # to compile a regular expression takes longer than a query
        return character.isalnum()
    scalar = arrays.texts((character,))[0]  # a text of Python would load pandas
    if pc.match_substring_regex(scalar, f"[{tokenization.UNSPACED}]").as_py():
        return False
    return bool(pc.match_substring_regex(scalar, r"[\pL\pN\pM]").as_py())


def _required(node: SearchNode) -> Requirement | None:
    """Return what all rows that a search finds have; None where that is nothing certain."""
    match node:
        case Conjunction(nodes):
            return _several("all", [r for inner in nodes if (r := _required(inner)) is not None])
        case Disjunction(nodes):
            requirements = [r for inner in nodes if (r := _required(inner)) is not None]
            # Where one of them needs nothing certain, a row may have come by that.
            return _several("any", requirements) if len(requirements) == len(nodes) else None
        case TextMatch(field):
            return _several("all", [*_fragments(node)]) if _is_indexed(field) else None
        case FieldComparison(field, Operator.EQUAL, value):
            # Numbers are compared as such, however they are spelled.
            if NUMBER.fullmatch(value) or not _is_indexed(field):
                return None
            return value, False, False, field not in SEARCHED
        case _:
            return None


def _is_of_words(node: SearchNode) -> bool:
    """Whether a search asks for words in any column, and nothing else."""
    match node:
        case Conjunction(nodes) | Disjunction(nodes):
            return all(map(_is_of_words, nodes))
        case TextMatch("", (fragment,), False, False):
            return fragment.isascii() and fragment.isalnum()
        case _:
            return False


def _several(name: str, requirements: list[Requirement]) -> Requirement | None:
    if len(requirements) > 1:
        return {name: requirements}
    return requirements[0] if requirements else None


def _is_indexed(field: str) -> bool:
    """Whether the values of a field are among the texts whose words are indexed."""
    return not field or field in SEARCHED or field not in COLUMNS


def _fragments(node: TextMatch) -> list[Fragment]:
    # Of other letters than those of ASCII, whoever reads it makes small ones.
    fragments = [f.lower() if f.isascii() else f for f in node.fragments]
    in_payload = bool(node.field not in ("", *SEARCHED))
    end = len(fragments) - 1
    return [
        (
            fragment,
            bool(number) or node.is_open_before or not is_of_word(fragment[0]),
            number < end or node.is_open_behind or not is_of_word(fragment[-1]),
            in_payload,
        )
        for number, fragment in enumerate(fragments)
    ]


def _need(connection: duckdb.DuckDBPyConnection, requirement: Any) -> WordNeed | None:
    if not isinstance(requirement, dict):
        return _words(connection, *requirement)
    if "any" in requirement:
        needs = [_need(connection, inner) for inner in requirement["any"]]
        # One that is not certain may be all that a row has.
        certain = [need for need in needs if need is not None]
        return AnyOf(tuple(certain)) if len(certain) == len(needs) else None
    return _all_of(_need(connection, inner) for inner in requirement["all"])


def _words(
    connection: duckdb.DuckDBPyConnection,
    fragment: str,
    is_open_before: bool,
    is_open_behind: bool,
    in_payload: bool,
) -> WordNeed | None:
    runs, ending, beginning = tokenization.of_fragment(
        connection, fragment, is_open_before=is_open_before, is_open_behind=is_open_behind
    )
    # Open at both ends and no word of its own: it may be anywhere within a word.
    is_inner = is_open_before and is_open_behind and len(ending) == len(fragment)
    edges = _pieces(ending, beginning, is_inner=is_inner)
    if not in_payload:
        return _all_of([*map(_joined, runs), *edges])
    # Of a member, the engine spells numbers and escapes in its own way.
    certain = (
        _joined(tuple(group))
        for run in runs
        for is_number, group in itertools.groupby(run, lambda word: "0" <= word[0] <= "9")
        if not is_number
    )
    needs = [*certain, *(piece for piece in edges if not _is_of_number(piece))]
    return _all_of(AnyOf((need, tokenization.ESCAPE)) for need in needs)


def _joined(run: tuple[str, ...]) -> WordNeed:
    return JoinedWords(run) if len(run) > 1 else run[0]


def _pieces(ending: str, beginning: str, *, is_inner: bool) -> Iterator[WordPiece]:
    """Yield what words have that end or begin with a fragment, or that have it inside."""
    if is_inner:
        yield WordPiece(ending, begins=False, ends=False)
        return
    if ending:
        yield WordPiece(ending, begins=False, ends=True)
    if beginning:
        yield WordPiece(beginning, begins=True, ends=False)


def _is_of_number(piece: WordPiece) -> bool:
    """Whether a piece of a word may be of a number, as other spellings may not have it."""
    # Digits: 1e3 and 1000 are one number.
    return len(piece.characters) < _LETTERS or any(map(str.isdigit, piece.characters))


def _all_of(needs: Iterable[WordNeed | None]) -> WordNeed | None:
    certain = tuple(need for need in needs if need is not None)
    if len(certain) > 1:
        return AllOf(certain)
    return certain[0] if certain else None
