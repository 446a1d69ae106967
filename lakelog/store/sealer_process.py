"""Starting the helper: a process that seals, merges, compacts and collects garbage at low priority,
so that a program that only appends need not load the Parquet libraries."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from lakelog.disk import Folder, LockFile
from lakelog.runtime import interpreter
from lakelog.runtime.lazy import Lazy
from lakelog.store.bootstrap import Store

if TYPE_CHECKING:
    import subprocess
else:
    subprocess = Lazy("subprocess")


FILES = 64
"""This many WAL files of a branch are worth a helper, whoever wrote them."""
_AGAIN = 16
"""A helper is started once for this many new files: the files of living writers stay, so the count
alone would start one for every new file."""
_started: list[subprocess.Popen[bytes]] = []


def lock_path(store: Store, branch: str) -> str:
    """The lock file that a helper holds while it seals a branch."""
    return f"{store.paths.cache}/seal-{os.path.basename(store.paths.head_dir(branch))}.lock"


def maintenance_path(store: Store) -> str:
    """The lock file that a helper holds while it merges, compacts and collects."""
    return f"{store.paths.cache}/maintain.lock"


def is_worth_it(store: Store, branch: str) -> bool:
    """Whether the WAL files of short-lived writers have become many, and no helper is at work."""
    try:
        count = len(Folder(store.paths.wal_dir(branch)).names())
        is_many = count >= FILES and count % _AGAIN == 0
        return is_many and not LockFile(lock_path(store, branch)).is_held()
    except OSError:
        return False  # what was appended is durable all the same


def give_way() -> None:
    """Let this process, from its next thread on, use the processors only while no other program
    wants them.

    A program of low priority keeps its processor for milliseconds after an append woke up from its
    sync; one that is SCHED_IDLE loses it at once. It also gets a fifth of the time on a machine
    that is always busy.
    """
    with contextlib.suppress(AttributeError, OSError):  # other systems have nothing like it
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def start_sealer(store: Store, branch: str) -> subprocess.Popen[bytes] | None:
    """Start `python -m lakelog seal` detached; return its Popen, or None if it cannot be started.

    It only saves others the work: any process may seal.
    """
    # Kept while they run: Python warns of one that nobody refers to any more.
    _started[:] = [process for process in _started if process.poll() is None]
    command = [sys.executable, "-m", "lakelog", "--lake", store.paths.root, "seal"]
    try:
        process = subprocess.Popen(
            [*command, "--branch", branch],
            start_new_session=True,  # a Ctrl-C in the terminal is not meant for it
            cwd="/",  # else it would keep a directory busy that is to be unmounted
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=interpreter.environment(),
        )
    except OSError:
        return None
    _started.append(process)
    return process
