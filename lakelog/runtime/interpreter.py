"""How a process of this interpreter is started that runs this very lakelog."""

from __future__ import annotations

import os
import sys


def environment() -> dict[str, str]:
    """The environment of this process for a child, whose PYTHONPATH finds the package: it may come
    from a path that only `sys.path` has.

    Raises OSError where there is no interpreter to start: in a frozen program, or where Python is
    embedded, that would be the program itself once more.
    """
    if "python" not in os.path.basename(sys.executable or ""):
        raise OSError(f"{sys.executable or 'this program'} is no Python interpreter to start")
    package = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}
