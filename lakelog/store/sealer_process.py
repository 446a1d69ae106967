"""Starting the helper: a process that seals, merges, compacts and collects garbage at low priority,
so that a program that only appends need not load the Parquet libraries."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, ClassVar

from lakelog.disk import Folder, LockFile
from lakelog.runtime import interpreter
from lakelog.runtime.lazy import Lazy
from lakelog.store.store import Store

if TYPE_CHECKING:
    import subprocess
else:
    subprocess = Lazy("subprocess")

_AGAIN = 16
"""A helper is started once for this many new files: the files of living writers stay, so the count
alone would start one for every new file."""
_started: list[subprocess.Popen[bytes]] = []


class SealerProcess:
    """The helper of a branch."""

    FILES: ClassVar[int] = 64
    """This many WAL files of a branch are worth a helper, whoever wrote them."""

    def __init__(self, store: Store, branch: str) -> None:
        self.root, self.branch = store.paths.root, branch
        self._wal = Folder(store.paths.wal_dir(branch))
        name = os.path.basename(store.paths.head_dir(branch))
        self.seal_lock = LockFile(f"{store.paths.cache}/seal-{name}.lock")
        """Is held while a helper seals the branch."""
        self.maintenance_lock = LockFile(f"{store.paths.cache}/maintain.lock")
        """Is held while one merges, compacts and collects."""

    def is_worth_it(self) -> bool:
        """Whether the WAL files of short-lived writers have become many, and no helper is at
        work."""
        try:
            count = len(self._wal.names())
            is_many = count >= self.FILES and count % _AGAIN == 0
            return is_many and not self.seal_lock.is_held()
        except OSError:
            return False  # what was appended is durable all the same

    @staticmethod
    def give_way() -> None:
        """Let this process, from its next thread on, use the processors only while no other program
        wants them.

        A program of low priority keeps its processor for milliseconds after an append woke up from
        its sync; one that is SCHED_IDLE loses it at once. It also gets a fifth of the time on a
        machine that is always busy.
        """
        with contextlib.suppress(AttributeError, OSError):  # other systems have nothing like it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    def start(self) -> subprocess.Popen[bytes] | None:
        """Start `python -m lakelog seal` detached; return its Popen, or None if it cannot be
        started.

        It only saves others the work: any process may seal.
        """
        # Kept while they run: Python warns of one that nobody refers to any more.
        _started[:] = [process for process in _started if process.poll() is None]
        command = [sys.executable, "-m", "lakelog", "--lake", self.root, "seal"]
        try:
            process = subprocess.Popen(
                [*command, "--branch", self.branch],
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
