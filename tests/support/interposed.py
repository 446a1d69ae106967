"""Another one at work in the middle of what we do at a remote."""

from __future__ import annotations

from threading import Thread
from typing import Any


class Interposed:
    """A remote in which another one is at work before the first file is replaced."""

    def __init__(self, inner: Any, other: Thread) -> None:
        self._inner, self._other = inner, other

    def __getattr__(self, name: str) -> Any:
        if name == "replace":
            interpose(self._other)
        return getattr(self._inner, name)


def interpose(other: Thread) -> None:
    """Let another thread work to its end, or as far as it comes while we hold a lock."""
    if other.ident is None:
        other.start()
        other.join(3)
