"""Which states had a branch, what are they called, and how does it go back?

`BranchHistory` lists, tags and moves the states of one branch; `resolve` finds the state that a
user's text names. `kept_moves`, `pack`, `read_condemned` and `lake_time` are for whoever deletes or
checks what history no longer keeps.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.history.branch_history import BranchHistory as BranchHistory
    from lakelog.history.deletion import delete_branch as delete_branch
    from lakelog.history.deletion import delete_tag as delete_tag
    from lakelog.history.deletion import remove_tag as remove_tag
    from lakelog.history.resolving import resolve as resolve
    from lakelog.history.snapshot import Diff as Diff
    from lakelog.history.snapshot import HistoryEntry as HistoryEntry
    from lakelog.history.snapshot import Snapshot as Snapshot
    from lakelog.history.window import kept_moves as kept_moves
    from lakelog.history.window import lake_time as lake_time
    from lakelog.history.window import pack as pack
    from lakelog.history.window import read_condemned as read_condemned

__getattr__, __all__ = lazy_face(__name__)
