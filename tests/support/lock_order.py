"""Locks that are taken against their order: whoever does so fails, and the test that it is of."""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Iterator

from lakelog.runtime import locks

_found: list[tuple[int, str]] = []


def watch() -> None:
    """Look at each lock that is taken from now on."""
    locks.report_breaches(_report)


def _report(breach: str) -> None:
    where = "".join(traceback.format_stack(limit=12)[:-3])
    _found.append((threading.get_ident(), f"{breach}\n{where}"))
    raise AssertionError(breach)


@contextlib.contextmanager
def breaches() -> Iterator[list[str]]:
    """Give the breaches of the block, at its end; nothing after it knows of them.

    Those of threads that an earlier test has left behind are not of this one.
    """
    others = {t.ident for t in threading.enumerate()} - {threading.get_ident()}
    _found.clear()
    given: list[str] = []
    try:
        yield given
    finally:
        given += [text for thread, text in _found if thread not in others]
        _found.clear()
