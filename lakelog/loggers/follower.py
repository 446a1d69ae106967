"""The process that brings a log file into a lake while programs write it.

It is `lakelog follow-log FILE`, started by the first program that logs to the file and ended by the
end of its standard input, which every process of that program holds open, forked ones too. By then
it has ingested all that was written. One follows a file at a time: a lock in the lake's cache says
which. It runs apart from the program, so that a logger loads no database.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from lakelog.disk import Folder, LockFile
from lakelog.files import LogName
from lakelog.runtime import interpreter
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import subprocess
else:
    subprocess = Lazy("subprocess")

_STARTED: list[subprocess.Popen[bytes]] = []
"""Processes that may still run, to be waited for one day."""
_EVERY = 1.0
"""So often it is looked whether somebody follows the file (s)."""


class FileFollower:
    """Sees to it that a file is followed, from the process that writes it."""

    def __init__(self, lake: str, branch: str, file: str) -> None:
        self.lake, self.branch, self.file = os.path.abspath(lake), branch, file
        self._process: Any = None
        self._looked = 0.0

    def ensure(self) -> None:
        """Start a follower if there is none; looks once a second."""
        clock = time.monotonic()
        # A look costs a system call, and logging is called thousands of times a second.
        if clock - self._looked >= _EVERY:
            self._looked = clock
            if not self._is_followed():
                self._start()

    def finish(self) -> None:
        """Let the follower end, once it has all that was written."""
        # That of another program may have looked for the last time: then one of ours waits for it.
        if not self._is_running() and (self._process is None or not self._is_followed()):
            self._start()
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._process = None
        self._looked = 0.0

    def leave(self) -> None:
        """Start a follower unless one of ours or of another program will still read what was
        written: `ensure` may have looked before that one ended."""
        if not self._is_running() and not self._is_followed():
            self._start()

    def sync(self) -> bool:
        """Ingest what the file has now, and wait for it; whether that was possible."""
        files = _files_of(self.file)
        if not files:  # removed, or renamed and removed
            return True
        # A process of its own: loading the engine here would take the program's memory.
        completed = subprocess.run(
            [*self._command(), "--quiet", "ingest", *files],
            env=interpreter.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        return bool(completed.returncode == 0)

    def _is_running(self) -> bool:
        """Whether one of ours runs, which may not hold the lock yet."""
        return self._process is not None and self._process.poll() is None

    def _is_followed(self) -> bool:
        with contextlib.suppress(OSError):
            return LockFile(lock_path(self.lake, self.branch, self.file)).is_held()
        return False

    def _start(self) -> None:
        # Those that ended are waited for, or they would stay as zombies.
        _STARTED[:] = [process for process in _STARTED if process.poll() is None]
        # Within a frozen program there is no interpreter to start.
        lock = lock_path(self.lake, self.branch, self.file)
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                [*self._command(), "follow-log", self.file, lock],
                start_new_session=True,  # a Ctrl-C in the terminal is not meant for it
                # A directory that may be unmounted must not be kept busy.
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=interpreter.environment(),
            )
            _STARTED.append(self._process)

    def _command(self) -> list[str]:
        place = ["--lake", self.lake, "--branch", self.branch]
        return [sys.executable, "-m", "lakelog", *place]


def _files_of(file: str) -> list[str]:
    """Return the backups of a file, the oldest first, and the file, if it is there."""
    folder, name = os.path.split(file)
    # By what rotation adds: other files, such as notes and offsets, begin with the name as well.
    names = (n for n in Folder(folder).names() if name in LogName(n).stems())
    # Sorted by name, as rotated logs have their time in it.
    return [f"{folder}/{n}" for n in sorted(names, key=lambda n: (n == name, n))]


def lock_path(lake: str, branch: str, file: str) -> str:
    """The lock of who follows a file for a branch."""
    # Names of files are longer than a name in the cache may be.
    digest = hashlib.sha256(f"{branch}\0".encode() + os.fsencode(file)).hexdigest()[:16]
    return f"{os.path.abspath(lake)}/cache/follow-{digest}.lock"
