"""Searching events by words: the language, what it means in SQL, and the answers.

A `Search` answers with events, counts and `FACETS` of fields; `search_condition` is what it means
in SQL. `expanded` puts such conditions in the place of `search('…')` in a query. `words` are what
segments have indexes of.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.search import words
    from lakelog.search.answers import FACETS, Search, WordHistogram
    from lakelog.search.calls import counted_word, expanded, for_ascii
    from lakelog.search.condition import search_condition
    from lakelog.search.language import highlighter

__all__ = [
    "FACETS",
    "Search",
    "WordHistogram",
    "counted_word",
    "expanded",
    "for_ascii",
    "highlighter",
    "search_condition",
    "words",
]

__getattr__ = lazy_face(
    __name__,
    answers="FACETS Search WordHistogram",
    calls="counted_word expanded for_ascii",
    condition="search_condition",
    language="highlighter",
    words="",
)
