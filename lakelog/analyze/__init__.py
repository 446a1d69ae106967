"""Analysis of an open lake: exact duplicates and near-duplicate messages.

`dedupe` finds exact duplicates by a key and removes all but one of each; `near_duplicates` finds
messages that are nearly the same.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.analyze import dedupe as dedupe
    from lakelog.analyze.similar import near_duplicates as near_duplicates

__getattr__, __all__ = lazy_face(__name__)
