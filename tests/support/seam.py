"""The seam of the tests: every function of `lakelog.disk.disk`, to watch, stop or break.

`install` puts a hook before each of them. The hook gets the name, the real function and its
arguments, and returns what the caller gets; it may also raise. Composites (`create_whole`) call
the simple functions through the module, so the hook sees those as well.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lakelog.appends import writer_forks
from lakelog.disk import disk

Hook = Callable[..., Any]
VALUES = {"now_us", "random_hex", "temporary_path"}
"""Functions that touch no disk."""
CHANGES = {
    "write_all",
    "truncate",
    "sync_file",
    "sync_dir",
    "create",
    "link",
    "unlink",
    "rename",
    "make_dir",
    "remove_dir",
    "append_line",
}
"""Simple functions that change something: the steps between which a process may die."""
FUNCTIONS = {
    name: function
    for name, function in vars(disk).items()
    if inspect.isfunction(function) and function.__module__ == disk.__name__
}


class Killed(BaseException):
    """The process ends here: nothing after it reaches the disk."""


def install(monkeypatch: pytest.MonkeyPatch, hook: Hook) -> None:
    """Put the hook before every function of the disk."""
    for name, real in FUNCTIONS.items():
        if name not in VALUES:
            monkeypatch.setattr(disk, name, functools.partial(hook, name, real))


class Fault:
    """A hook: from the `at`-th change on, the disk fails or the process dies.

    `error` is raised instead of the change, once or (`sticky`) always from then on; Killed is
    always sticky, and a write cut short by it leaves its first half.
    """

    def __init__(self, at: int, error: BaseException | None, sticky: bool = False) -> None:
        self.at, self.error = at, error
        self.sticky = sticky or isinstance(error, Killed)
        self.changes = 0
        self.fired = ""
        self._open: set[int] = set()

    def __call__(self, name: str, real: Hook, *args: Any, **kwargs: Any) -> Any:
        """Do what was asked, unless it is time to fail."""
        if name == "close":
            self._open.discard(args[0])
            return real(*args, **kwargs)
        if self.fired and isinstance(self.error, Killed):
            raise self.error
        if name in CHANGES:
            self.changes += 1
            due = self.changes == self.at or (self.sticky and self.changes > self.at)
            if due and self.error is not None:
                self.fired = self.fired or name
                tear(name, args, self.error)
                raise self.error
        result = real(*args, **kwargs)
        if name == "create":
            self._open.add(result)
        return result

    def release(self) -> None:
        """Close what a dead process had open, as its kernel does."""
        bury(self._open)


def bury(fds: set[int]) -> None:
    """Close what a dead process had open. Its writers live on in this process until they are
    collected: by then the numbers may be another's, so they must not be closed once more."""
    for one in list(writer_forks._WRITERS):
        one._fd = -1 if one._fd in fds else one._fd
        one._abandoned = [fd for fd in one._abandoned if fd not in fds]
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
    fds.clear()


def tear(name: str, args: tuple[Any, ...], error: BaseException) -> None:
    """Let half of a write through before the process dies in it, or the disk is full."""
    if name == "write_all" and (isinstance(error, Killed) or getattr(error, "errno", 0) == 28):
        written = args[1].rstrip(b"\0")  # the space after a frame is no part of it
        os.write(args[0], written[: len(written) // 2])


_watchers: list[Callable[[str], None]] = []
_hooked: list[bool] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _watchers and event == "open" and isinstance(args[0], str):
        _watchers[-1](args[0])


@contextlib.contextmanager
def opens_watched(watch: Callable[[str], None]) -> Iterator[None]:
    """Call `watch` with its path before any file is opened: reading goes beside the seam."""
    if not _hooked:
        sys.addaudithook(_audit)  # there is no way to take it away again
        _hooked.append(True)
    _watchers.append(watch)
    try:
        yield
    finally:
        _watchers.remove(watch)
