"""Work that is done item by item, each outcome an event: see docs/processing.md.

A `WorkQueue` works `Item`s off, each once, and `DeadLetter`s are those that failed too often. What
happened to an item is a `Fact` in a log (`open_log`); `parse_feed` finds items in feeds.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.pipeline.fact_log import FETCH as FETCH
    from lakelog.pipeline.fact_log import Fact as Fact
    from lakelog.pipeline.fact_log import locked as locked
    from lakelog.pipeline.fact_log import open_log as open_log
    from lakelog.pipeline.feeds import FeedEntry as FeedEntry
    from lakelog.pipeline.feeds import parse_feed as parse_feed
    from lakelog.pipeline.standing import DeadLetter as DeadLetter
    from lakelog.pipeline.standing import Item as Item
    from lakelog.pipeline.work_queue import RunReport as RunReport
    from lakelog.pipeline.work_queue import WorkQueue as WorkQueue

__getattr__, __all__ = lazy_face(__name__)
