"""Which states had a branch, what are they called, and how does it go back?

`BranchHistory` lists, tags and moves the states of one branch; `resolve` finds the state that a
user's text names. `kept_moves`, `pack`, `read_condemned` and `lake_time` are for whoever deletes or
checks what history no longer keeps.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.history.branch_history import (
        BranchHistory,
        Diff,
        HistoryEntry,
        Snapshot,
        delete_branch,
        delete_tag,
        remove_tag,
    )
    from lakelog.history.resolving import resolve
    from lakelog.history.thinning import pack
    from lakelog.history.window import kept_moves, lake_time, read_condemned

__all__ = [
    "BranchHistory",
    "Diff",
    "HistoryEntry",
    "Snapshot",
    "delete_branch",
    "delete_tag",
    "kept_moves",
    "lake_time",
    "pack",
    "read_condemned",
    "remove_tag",
    "resolve",
]

__getattr__ = lazy_face(
    __name__,
    branch_history="BranchHistory Diff HistoryEntry Snapshot delete_branch delete_tag remove_tag",
    resolving="resolve",
    thinning="pack",
    window="kept_moves lake_time read_condemned",
)
