"""Other databases follow a lake: events are copied once, whatever happens in between.

A `Syncer` keeps one table up to date, and a `Runner` those of several `SyncPlan`s; `status` and
`check` say how far they are and whether they agree with the lake. Feeds of other kinds take the
`DeltaStep`s to a state from `delta_between`, and keep a `Watermark`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.sync.comparison import check as check
    from lakelog.sync.delta import DeltaStep as DeltaStep
    from lakelog.sync.delta import delta_between as delta_between
    from lakelog.sync.delta import tip_of as tip_of
    from lakelog.sync.plan import SyncPlan as SyncPlan
    from lakelog.sync.runner import Runner as Runner
    from lakelog.sync.sync import status as status
    from lakelog.sync.syncer import RETRIES as RETRIES
    from lakelog.sync.syncer import Syncer as Syncer
    from lakelog.sync.syncer import SyncResult as SyncResult
    from lakelog.sync.target import Watermark as Watermark
    from lakelog.sync.target import WatermarkMoved as WatermarkMoved

__getattr__, __all__ = lazy_face(__name__)
