"""Recent entries in Redis, for programs that read them there.

`RecentFeeder` keeps the newest entries of a lake in Redis, `RecentEntries` reads them there, and
`from_lake` from the lake itself. `KEEP` entries of each list are kept.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.recent.redis_feed import CLOSE_SECONDS as CLOSE_SECONDS
    from lakelog.recent.redis_feed import RecentFeeder as RecentFeeder
    from lakelog.recent.redis_recent import KEEP as KEEP
    from lakelog.recent.redis_recent import RecentEntries as RecentEntries
    from lakelog.recent.redis_recent import RecentEntry as RecentEntry
    from lakelog.recent.redis_recent import from_lake as from_lake

__getattr__, __all__ = lazy_face(__name__)
