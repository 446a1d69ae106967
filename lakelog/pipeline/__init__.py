"""Work that is done item by item, each outcome an event: see docs/processing.md.

A `WorkQueue` works `Item`s off, each once, and `DeadLetter`s are those that failed too often. What
happened to an item is a `Fact` in a log (`open_log`); `parse_feed` finds items in feeds.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.pipeline.fact_log import FETCH, Fact, locked, open_log
    from lakelog.pipeline.feeds import FeedEntry, parse_feed
    from lakelog.pipeline.standing import DeadLetter, Item
    from lakelog.pipeline.work_queue import RunReport, WorkQueue

__all__ = [
    "FETCH",
    "DeadLetter",
    "Fact",
    "FeedEntry",
    "Item",
    "RunReport",
    "WorkQueue",
    "locked",
    "open_log",
    "parse_feed",
]

__getattr__ = lazy_face(
    __name__,
    fact_log="FETCH Fact locked open_log",
    feeds="FeedEntry parse_feed",
    standing="DeadLetter Item",
    work_queue="RunReport WorkQueue",
)
