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
    from lakelog.maintain.compact import rewrite
    from lakelog.maintain.reachability import Marker, lost_names
    from lakelog.maintain.repair.checker import Report
    from lakelog.maintain.repair.outcome import RepairOutcome
    from lakelog.maintain.repair.repair import LakeCheck
    from lakelog.maintain.row_removal import DedupeNote, RowRemoval
    from lakelog.maintain.seal import Sealer
    from lakelog.maintain.stats import Stats
    from lakelog.maintain.upkeep import BackgroundWork, LakeUpkeep

__all__ = [
    "BackgroundWork",
    "DedupeNote",
    "LakeCheck",
    "LakeUpkeep",
    "Marker",
    "RepairOutcome",
    "Report",
    "RowRemoval",
    "Sealer",
    "Stats",
    "lost_names",
    "rewrite",
]

_REPAIR = {
    "repair.checker": "Report",
    "repair.outcome": "RepairOutcome",
    "repair.repair": "LakeCheck",
}

__getattr__ = lazy_face(
    __name__,
    compact="rewrite",
    reachability="Marker lost_names",
    row_removal="DedupeNote RowRemoval",
    seal="Sealer",
    stats="Stats",
    upkeep="BackgroundWork LakeUpkeep",
    **_REPAIR,
)
