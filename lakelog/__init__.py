"""lakelog, the flight recorder for data and AI systems.

import lakelog
lake = lakelog.open("lake")
lake.append({"type": "COMPLETE", "source": "TechPodcast", "data": {"ms": 12}})
lake.sql("SELECT type, count(*) FROM events GROUP BY 1")
"""

from __future__ import annotations

from lakelog.errors import Damaged, LakelogError
from lakelog.lake import Lake, View, open
from lakelog.settings import Settings
from lakelog.store.history import Diff, Snapshot
from lakelog.store.writer import Receipt

__version__ = "0.1.0"
__all__ = [
    "Damaged",
    "Diff",
    "Lake",
    "LakelogError",
    "Receipt",
    "Settings",
    "Snapshot",
    "View",
    "__version__",
    "open",
]
