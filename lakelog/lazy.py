"""Modules that load when first used, so that a program which only appends stays light.

A room behind a Lazy name is still imported for the type checker, and so under the import law.
"""

from __future__ import annotations

import importlib
import threading
import time
from typing import Any

_PATIENCE = 10.0


class Lazy:
    """Stands for a module of ours; the first attribute asked for loads it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


def wait_for_imports() -> None:
    """Wait until no other thread imports anything, or _PATIENCE seconds: before a fork.

    CPython (3.11 to 3.13) frees the locks of modules in a child only for the thread that forked.
    What another thread was importing could never be imported there: the child would wait for ever.
    """
    bootstrap = getattr(importlib, "_bootstrap", None)
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        held = [made() for made in list(getattr(bootstrap, "_module_locks", {}).values())]
        owners = {getattr(lock, "owner", None) for lock in held}
        if not owners - {None, threading.get_ident()}:
            return
        time.sleep(0.001)
