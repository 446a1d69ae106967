"""Which rows may have a word? Indexes of the words of each segment, by blocks of its rows.

`WordIndexes` are those of a lake. A `WordNeed` is what they are asked for: a word, a `WordPiece`,
`AllOf` some or `AnyOf` them; a `BlockCount` says how many rows of a block have it. `build` makes
the index of a segment that is there and a `WordIndexer` that of one being written, where it
`is_missing`; `is_whole` checks one. `row_words` are the words of the rows of a segment, as texts.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.word_indexes.word_dictionary import WordPiece as WordPiece
    from lakelog.word_indexes.word_index import AllOf as AllOf
    from lakelog.word_indexes.word_index import AnyOf as AnyOf
    from lakelog.word_indexes.word_index import BlockCount as BlockCount
    from lakelog.word_indexes.word_index import JoinedWords as JoinedWords
    from lakelog.word_indexes.word_index import WordIndexes as WordIndexes
    from lakelog.word_indexes.word_index import WordNeed as WordNeed
    from lakelog.word_indexes.word_index import is_missing as is_missing
    from lakelog.word_indexes.word_index import is_whole as is_whole
    from lakelog.word_indexes.word_indexing import WordIndexer as WordIndexer
    from lakelog.word_indexes.word_indexing import build as build
    from lakelog.word_indexes.word_indexing import row_words as row_words

__getattr__, __all__ = lazy_face(__name__)
