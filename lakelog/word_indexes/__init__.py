"""Which rows may have a word? Indexes of the words of each segment, by blocks of its rows.

`WordIndexes` are those of a lake. A `WordNeed` is what they are asked for: a word, a `WordPiece`,
`AllOf` some or `AnyOf` them; a `BlockCount` says how many rows of a block have it. `build` makes
the index of a segment that is there and a `WordIndexer` that of one being written, where it
`is_missing`; `is_whole` checks one. `row_words` are the words of the rows of a segment, as texts.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.word_indexes.word_dictionary import WordPiece
    from lakelog.word_indexes.word_index import (
        AllOf,
        AnyOf,
        BlockCount,
        WordIndexes,
        WordNeed,
        is_missing,
        is_whole,
    )
    from lakelog.word_indexes.word_indexing import WordIndexer, build, row_words

__all__ = [
    "AllOf",
    "AnyOf",
    "BlockCount",
    "WordIndexer",
    "WordIndexes",
    "WordNeed",
    "WordPiece",
    "build",
    "is_missing",
    "is_whole",
    "row_words",
]

__getattr__ = lazy_face(
    __name__,
    word_dictionary="WordPiece",
    word_index="AllOf AnyOf BlockCount WordIndexes WordNeed is_missing is_whole",
    word_indexing="WordIndexer build row_words",
)
