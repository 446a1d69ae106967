"""Recent entries in Redis, for programs that read them there.

`RecentFeeder` keeps the newest entries of a lake in Redis, `RecentEntries` reads them there, and
`from_lake` from the lake itself. `KEEP` entries of each list are kept.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.recent.redis_feed import CLOSE_SECONDS, RecentFeeder
    from lakelog.recent.redis_recent import KEEP, RecentEntries, RecentEntry, from_lake

__all__ = ["CLOSE_SECONDS", "KEEP", "RecentEntries", "RecentEntry", "RecentFeeder", "from_lake"]

__getattr__ = lazy_face(
    __name__,
    redis_feed="CLOSE_SECONDS RecentFeeder",
    redis_recent="KEEP RecentEntries RecentEntry from_lake",
)
