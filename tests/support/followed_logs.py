"""Ends what loggers of a test left running: their queues, and the processes that follow files."""

from __future__ import annotations

from lakelog.loggers import follower, logfile


def close_all() -> None:
    """Close every log file; wait until the lakes have what was written."""
    for queue in logfile._QUEUES.values():
        queue.close()
    logfile._QUEUES.clear()
    for process in follower._STARTED:
        process.wait(240)
    follower._STARTED.clear()
