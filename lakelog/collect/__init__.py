"""Collecting with an open lake: watching directories.

A `Watcher` follows the files of directories, and `run` calls it in rounds until it is stopped.
`WatchTotals` and the journal (`JournalReporter`) say what it did.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.collect.followed_file import raise_descriptor_limit as raise_descriptor_limit
    from lakelog.collect.loop import RestartRequested as RestartRequested
    from lakelog.collect.loop import run as run
    from lakelog.collect.status import JournalReporter as JournalReporter
    from lakelog.collect.status import Say as Say
    from lakelog.collect.status import WatchTotals as WatchTotals
    from lakelog.collect.status import journal_path as journal_path
    from lakelog.collect.status import lock_path as lock_path
    from lakelog.collect.status import status_path as status_path
    from lakelog.collect.watch import STABLE as STABLE
    from lakelog.collect.watch import Watcher as Watcher

__getattr__, __all__ = lazy_face(__name__)
