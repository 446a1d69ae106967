"""Other databases follow a lake: events are copied once, whatever happens in between.

A `Syncer` keeps one table up to date, and a `Runner` those of several `SyncPlan`s; `status` and
`check` say how far they are and whether they agree with the lake. Feeds of other kinds take the
`DeltaStep`s to a state from `delta_between`, and keep a `Watermark`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.sync.comparison import check
    from lakelog.sync.delta import DeltaStep, delta_between, tip_of
    from lakelog.sync.plan import SyncPlan
    from lakelog.sync.runner import Runner
    from lakelog.sync.sync import status
    from lakelog.sync.syncer import RETRIES, Syncer, SyncResult
    from lakelog.sync.target import Watermark, WatermarkMoved

__all__ = [
    "RETRIES",
    "DeltaStep",
    "Runner",
    "SyncPlan",
    "SyncResult",
    "Syncer",
    "Watermark",
    "WatermarkMoved",
    "check",
    "delta_between",
    "status",
    "tip_of",
]

__getattr__ = lazy_face(
    __name__,
    comparison="check",
    delta="DeltaStep delta_between tip_of",
    plan="SyncPlan",
    runner="Runner",
    sync="status",
    syncer="RETRIES SyncResult Syncer",
    target="Watermark WatermarkMoved",
)
