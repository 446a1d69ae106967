"""What keeps a lake whole and small, in the background and after damage.

`LakeUpkeep` has its verbs as methods of `Lake`. A `Sealer` publishes the tail of a branch,
`BackgroundWork` is what the helper process does; `rewrite` writes rows of segments again, and a
`DedupeNote` removes rows by a `RowRemoval`. A `Marker` tells which files are needed, `lost_names`
which were given up. A `LakeCheck` checks and repairs a lake by its path, with a `Report` and a
`RepairOutcome`; `Stats` counts it.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.maintain.compact import rewrite as rewrite
    from lakelog.maintain.reachability import Marker as Marker
    from lakelog.maintain.reachability import lost_names as lost_names
    from lakelog.maintain.repair.checker import Report as Report
    from lakelog.maintain.repair.outcome import RepairOutcome as RepairOutcome
    from lakelog.maintain.repair.repair import LakeCheck as LakeCheck
    from lakelog.maintain.row_removal import DedupeNote as DedupeNote
    from lakelog.maintain.row_removal import RowRemoval as RowRemoval
    from lakelog.maintain.seal import Sealer as Sealer
    from lakelog.maintain.stats import Stats as Stats
    from lakelog.maintain.upkeep import BackgroundWork as BackgroundWork
    from lakelog.maintain.upkeep import LakeUpkeep as LakeUpkeep

__getattr__, __all__ = lazy_face(__name__)
