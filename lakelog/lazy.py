"""Modules that load when first used, so that a program which only appends stays light.

A room behind a Lazy name is still imported for the type checker, and so under the import law.
"""

from __future__ import annotations

import importlib
from typing import Any


class Lazy:
    """Stands for a module of ours; the first attribute asked for loads it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
