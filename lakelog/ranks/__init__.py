"""Ranked searches: which events have most of some words, above all of rare ones.

A `RankIndex` is asked for the best rows of a state; `build` makes what it needs of one segment.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.ranks.rank_index import (
        SEGMENTS_MAX,
        RankedRow,
        RankIndex,
        build,
        drop,
        is_installed,
        is_missing,
        is_whole,
        number_of,
        require_package,
    )

__all__ = [
    "SEGMENTS_MAX",
    "RankIndex",
    "RankedRow",
    "build",
    "drop",
    "is_installed",
    "is_missing",
    "is_whole",
    "number_of",
    "require_package",
]

__getattr__ = lazy_face(__name__, rank_index=" ".join(__all__))
