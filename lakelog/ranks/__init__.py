"""Ranked searches: which events have most of some words, above all of rare ones.

A `RankIndex` is asked for the best rows of a state; `build` makes what it needs of one segment.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.ranks.rank_index import SEGMENTS_MAX as SEGMENTS_MAX
    from lakelog.ranks.rank_index import RankedRow as RankedRow
    from lakelog.ranks.rank_index import RankIndex as RankIndex
    from lakelog.ranks.rank_index import build as build
    from lakelog.ranks.rank_index import drop as drop
    from lakelog.ranks.rank_index import is_foreign as is_foreign
    from lakelog.ranks.rank_index import is_installed as is_installed
    from lakelog.ranks.rank_index import is_missing as is_missing
    from lakelog.ranks.rank_index import is_whole as is_whole
    from lakelog.ranks.rank_index import number_of as number_of
    from lakelog.ranks.rank_index import require_package as require_package

__getattr__, __all__ = lazy_face(__name__)
