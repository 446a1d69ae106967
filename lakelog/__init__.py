"""lakelog, the flight recorder for data and AI systems.

import lakelog
lake = lakelog.open("lake")
lake.append({"type": "COMPLETE", "source": "TechPodcast", "data": {"ms": 12}})
lake.sql("SELECT type, count(*) FROM events GROUP BY 1")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakelog.errors import Damaged, LakelogError
from lakelog.lake import Lake, open
from lakelog.lazy import Lazy
from lakelog.settings import Settings
from lakelog.store.writer import Receipt
from lakelog.view import View

if TYPE_CHECKING:
    from lakelog.collect.dump import LogEntry as LogEntry
    from lakelog.collect.dump import OMEGALogManager as OMEGALogManager
    from lakelog.dbapi import connect
    from lakelog.store.history import Diff, Snapshot

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
    "connect",
    "open",
]

_OLD_NAMES = {
    "LogEntry": "lakelog.collect.dump",
    "OMEGALogManager": "lakelog.collect.dump",
    "get_views": "lakelog.analyze.oosviews",
}
"""Public names of older systems, and where they live now; they load when asked for."""


def __getattr__(name: str) -> Any:
    """Load the names that a program which only appends does not need."""
    if name in _OLD_NAMES:
        return getattr(Lazy(_OLD_NAMES[name]), name)
    if name in ("Diff", "Snapshot"):
        return getattr(Lazy("lakelog.store.history"), name)
    if name == "connect":
        return Lazy("lakelog.dbapi").connect
    if name == "train":
        return Lazy("lakelog.train")
    raise AttributeError(f"module 'lakelog' has no attribute {name!r}")
