"""What programs of the OOS log stream call: its views, podcasts and their database, Redis.

`get_views` gives `OOSViews` of a log or a lake; a `SimpleLogProcessor` works on what a
`PodcastProcessor` found, and a `BatchDatabaseSync` copies it. `play` is the demonstration, whose
steps are `DemoCheck`s. `RedisManager` is the older one; `log_system_start` and `measure_operation`
are functions of the older AI logger.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.oos.ai_functions import log_system_start as log_system_start
    from lakelog.oos.ai_functions import measure_operation as measure_operation
    from lakelog.oos.database_sync import BatchDatabaseSync as BatchDatabaseSync
    from lakelog.oos.oos_demo import DemoCheck as DemoCheck
    from lakelog.oos.oos_demo import play as play
    from lakelog.oos.oos_views import DEFAULT_LOG as DEFAULT_LOG
    from lakelog.oos.oos_views import OOSViews as OOSViews
    from lakelog.oos.oos_views import get_views as get_views
    from lakelog.oos.podcasts import PodcastProcessor as PodcastProcessor
    from lakelog.oos.podcasts import SimpleLogProcessor as SimpleLogProcessor
    from lakelog.oos.redis import RedisManager as RedisManager

__getattr__, __all__ = lazy_face(__name__)
