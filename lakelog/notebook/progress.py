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
    finished = threading.Event()
    display = threading.Thread(target=_show, args=(share, finished), daemon=True)
    display.start()
    try:
        yield
    finally:
        finished.set()
        display.join(_EVERY * 4)


def _show(share: Callable[[], float | None], finished: threading.Event) -> None:
    started, handle = time.monotonic(), None
    while not finished.wait(_EVERY if handle else _AFTER):
        seconds, fraction = time.monotonic() - started, share()
        note = f"{seconds:.0f} s" + (f", {fraction:.0%}" if fraction is not None else "")
        if handle is None:
            handle = DisplayHandle()
            handle.display({"text/plain": note}, raw=True)
        else:
            handle.update({"text/plain": note}, raw=True)
    if handle is not None:
        handle.update({"text/plain": ""}, raw=True)
