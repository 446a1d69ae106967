"""Collecting with an open lake: watching directories.

A `Watcher` follows the files of directories, and `run` calls it in rounds until it is stopped.
`WatchTotals` and the journal (`JournalReporter`) say what it did.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.collect.followed_file import raise_descriptor_limit
    from lakelog.collect.loop import RestartRequested, run
    from lakelog.collect.status import (
        JournalReporter,
        Say,
        WatchTotals,
        journal_path,
        lock_path,
        status_path,
    )
    from lakelog.collect.watch import STABLE, Watcher

__all__ = [
    "STABLE",
    "JournalReporter",
    "RestartRequested",
    "Say",
    "WatchTotals",
    "Watcher",
    "journal_path",
    "lock_path",
    "raise_descriptor_limit",
    "run",
    "status_path",
]

__getattr__ = lazy_face(
    __name__,
    followed_file="raise_descriptor_limit",
    loop="RestartRequested run",
    status="JournalReporter Say WatchTotals journal_path lock_path status_path",
    watch="STABLE Watcher",
)
