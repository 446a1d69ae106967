"""What are moves and tags, and which does a branch have?

A `Ref` is a `Move` or a `Tag`, and the newest move of a branch its `Head`. `Refs` reads them, and
links a `PreparedMove` if it `IsSafe`. `MergeNote` is what a merge says, and `BranchLife` tells a
branch from a later one of its name. `author` is who makes a move, of any text by `escape_text`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.refs.branch_life import BranchLife
    from lakelog.refs.merge_note import MergeNote
    from lakelog.refs.ref import Head, Move, Ref, Tag, author, escape_text
    from lakelog.refs.refs import IsSafe, PreparedMove, Refs

__all__ = [
    "BranchLife",
    "Head",
    "IsSafe",
    "MergeNote",
    "Move",
    "PreparedMove",
    "Ref",
    "Refs",
    "Tag",
    "author",
    "escape_text",
]

__getattr__ = lazy_face(
    __name__,
    branch_life="BranchLife",
    merge_note="MergeNote",
    ref="Head Move Ref Tag author escape_text",
    refs="IsSafe PreparedMove Refs",
)
