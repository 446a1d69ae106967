"""What programs of the OOS log stream call: its views, podcasts and their database, Redis.

`get_views` gives `OOSViews` of a log or a lake; a `SimpleLogProcessor` works on what a
`PodcastProcessor` found, and a `BatchDatabaseSync` copies it. `play` is the demonstration, whose
steps are `DemoCheck`s. `RedisManager` is the older one; `log_system_start` and `measure_operation`
are functions of the older AI logger.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.oos.ai_functions import log_system_start, measure_operation
    from lakelog.oos.database_sync import BatchDatabaseSync
    from lakelog.oos.oos_demo import DemoCheck, play
    from lakelog.oos.oos_views import DEFAULT_LOG, OOSViews, get_views
    from lakelog.oos.podcasts import PodcastProcessor, SimpleLogProcessor
    from lakelog.oos.redis import RedisManager

__all__ = [
    "DEFAULT_LOG",
    "BatchDatabaseSync",
    "DemoCheck",
    "OOSViews",
    "PodcastProcessor",
    "RedisManager",
    "SimpleLogProcessor",
    "get_views",
    "log_system_start",
    "measure_operation",
    "play",
]

__getattr__ = lazy_face(
    __name__,
    ai_functions="log_system_start measure_operation",
    database_sync="BatchDatabaseSync",
    oos_demo="DemoCheck play",
    oos_views="DEFAULT_LOG OOSViews get_views",
    podcasts="PodcastProcessor SimpleLogProcessor",
    redis="RedisManager",
)
