"""How far a long query is, below its cell."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from IPython.display import DisplayHandle

_AFTER, _EVERY = 1.0, 0.5


@contextlib.contextmanager
def progress(share: Callable[[], float | None]) -> Iterator[None]:
    """Show the seconds and, where the engine knows it, the share that is done, after a second."""
    done = threading.Event()
    shown = threading.Thread(target=_show, args=(share, done), daemon=True)
    shown.start()
    try:
        yield
    finally:
        done.set()
        shown.join(_EVERY * 4)


def _show(share: Callable[[], float | None], done: threading.Event) -> None:
    started, handle = time.monotonic(), None
    while not done.wait(_EVERY if handle else _AFTER):
        seconds, part = time.monotonic() - started, share()
        words = f"{seconds:.0f} s" + (f", {part:.0%}" if part is not None else "")
        if handle is None:
            handle = DisplayHandle()
            handle.display({"text/plain": words}, raw=True)
        else:
            handle.update({"text/plain": words}, raw=True)
    if handle is not None:
        handle.update({"text/plain": ""}, raw=True)
