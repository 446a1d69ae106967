"""Tasks for other processes: those of this machine, or of a Ray cluster."""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.workers.pool import WorkerPool as WorkerPool

__getattr__, __all__ = lazy_face(__name__)
