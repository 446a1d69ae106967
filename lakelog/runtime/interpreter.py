"""How a process of this interpreter is started that runs this very lakelog."""

from __future__ import annotations

import os
import sys


def is_startable() -> bool:
    """Whether there is an interpreter to start: in a frozen program, or where Python is embedded,
    it would be the program itself once more."""
    return "python" in os.path.basename(sys.executable or "")


def search_path() -> str:
    """The PYTHONPATH by which a child finds the package, which may come from a path that only
    `sys.path` has."""
    package = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
    return os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))


def environment() -> dict[str, str]:
    """The environment of this process for a child, which finds the package."""
    return {**os.environ, "PYTHONPATH": search_path()}
