"""follow-log: the process that a logger starts to bring its file into a lake (loggers/follower)."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading

import click

from lakelog import collect
from lakelog.cli.app import App, verb
from lakelog.cli.options import argument
from lakelog.cli.rounds import SIGNALS, StopEvent
from lakelog.collect import Watcher
from lakelog.disk import Folder, OpenFile
from lakelog.files import LogName
from lakelog.lake import Lake

_INTERVAL = 1.0


@verb(hidden=True)
def follow_log(
    app: App, file: str = argument(type=click.Path()), lock: str = argument(type=click.Path())
) -> None:
    """Follow one file and its backups until standard input ends and all is ingested.

    Waits while another process follows the file, which is then left to this one: who does has the
    lock.
    """
    stop = StopEvent()
    # SIGTERM is how the logger's process ends it, and its file must be read to the end first.
    for number in SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    # The logger holds our standard input open: it ends when that process does, even if killed.
    threading.Thread(target=_stop_at_end, args=(stop,), daemon=True).start()
    with app.open_or_create() as lake:
        try:
            is_complete = _follow(lake, file, lock, stop, wait=True)
            # Who wrote meanwhile, and ended, relied on us; or somebody else follows by now.
            while not is_complete:
                is_complete = _follow(lake, file, lock, stop, wait=False)
        except collect.RestartRequested:
            # Nothing was written for a while: a new process needs a fifth of the memory.
            # exec and not a new process: the logger knows this one by its id, and holds its pipe.
            os.execv(sys.executable, [sys.executable, "-m", "lakelog", *sys.argv[1:]])


def _follow(lake: Lake, file: str, lock: str, stop: threading.Event, *, wait: bool) -> bool:
    """Follow the file until the stop, as the only one; whether nothing was written since the last
    look at it began, or another process follows it."""
    fd = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    # One that waits is the next to follow, without a gap.
    if not OpenFile(fd).lock(wait=wait):
        os.close(fd)
        return True
    sizes = _sizes_of(file)
    with OpenFile.closing(fd):
        watcher = Watcher(
            lake, [os.path.dirname(file)], patterns=(os.path.basename(file),), form=None
        )
        collect.run(
            watcher,
            stop,
            interval=_INTERVAL,
            poll=False,
            say=lambda text: None,
            # What DuckDB and Arrow have allocated is never returned.
            renew=True,
        )
    # Looked at without the lock: who writes from now on finds nobody that follows.
    return _sizes_of(file) == sizes


def _sizes_of(file: str) -> set[tuple[int, int]]:
    """The inode and the size of a file and of each of its backups."""
    sizes, (folder, name) = set[tuple[int, int]](), os.path.split(file)
    for member in Folder(folder).names():
        if name not in LogName(member).stems():
            continue
        with contextlib.suppress(OSError):  # renamed at this moment: it is there under another name
            status = os.stat(f"{folder}/{member}")
            sizes.add((status.st_ino, status.st_size))
    return sizes


def _stop_at_end(stop: threading.Event) -> None:
    while os.read(0, 1):
        pass
    stop.set()
