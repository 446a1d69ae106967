"""Starting a sealer beside a program that would rather not load the Parquet libraries itself."""

from __future__ import annotations

import os
import sys
from typing import Any

from lakelog.store.opening import Store


def start_sealer(store: Store, branch: str) -> Any:
    """Start `python -m lakelog seal` detached; return its Popen, or None where there is none.

    It is a matter of thrift, never of correctness: any process may seal.
    """
    if "python" not in os.path.basename(sys.executable or ""):
        return None
    import subprocess

    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "lakelog", "--lake", store.layout.root, "seal"]
    try:
        return subprocess.Popen(
            [*command, "--branch", branch], start_new_session=True, cwd="/",
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
    except OSError:
        return None
