"""What are moves and tags, and which does a branch have?

A `Ref` is a `Move` or a `Tag`, and the newest move of a branch its `Head`. `Refs` reads them, and
links a `PreparedMove` if it `IsSafe`. `MergeNote` is what a merge says, and `BranchLife` tells a
branch from a later one of its name; `only_grew` tells whether all is there that was read before.
`author` is who makes a move, of any text by `escape_text`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.refs.branch_life import BranchLife as BranchLife
    from lakelog.refs.branch_life import only_grew as only_grew
    from lakelog.refs.ref import Head as Head
    from lakelog.refs.ref import MergeNote as MergeNote
    from lakelog.refs.ref import Move as Move
    from lakelog.refs.ref import Ref as Ref
    from lakelog.refs.ref import Tag as Tag
    from lakelog.refs.ref import author as author
    from lakelog.refs.ref import escape_text as escape_text
    from lakelog.refs.refs import IsSafe as IsSafe
    from lakelog.refs.refs import PreparedMove as PreparedMove
    from lakelog.refs.refs import Refs as Refs

__getattr__, __all__ = lazy_face(__name__)
