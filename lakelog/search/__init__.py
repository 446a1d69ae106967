"""Searching events by words: the language, what it means in SQL, and the answers.

A `Search` answers with events, counts and `FACETS` of fields; `search_condition` is what it means
in SQL. `expanded` puts such conditions in the place of `search('…')` in a query. `words` are what
segments have indexes of.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.search import words as words
    from lakelog.search.answers import FACETS as FACETS
    from lakelog.search.answers import Search as Search
    from lakelog.search.answers import WordHistogram as WordHistogram
    from lakelog.search.calls import SearchShape as SearchShape
    from lakelog.search.calls import counted_word as counted_word
    from lakelog.search.calls import expanded as expanded
    from lakelog.search.calls import for_ascii as for_ascii
    from lakelog.search.condition import search_condition as search_condition
    from lakelog.search.language import highlighter as highlighter

__getattr__, __all__ = lazy_face(__name__)
