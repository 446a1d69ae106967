"""Starting the helper: a process that seals, merges, compacts and collects at low priority, beside
a program that would rather not load the Parquet libraries itself."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from lakelog.lazy import Lazy
from lakelog.store import disk
from lakelog.store.bootstrap import Store

if TYPE_CHECKING:
    import subprocess
else:
    subprocess = Lazy("subprocess")


FILES = 64
"""So many WAL files of a branch are worth a helper, whoever wrote them."""
_AGAIN = 16
"""The helper is called for once in so many new files: those of living writers do not go."""


def lock_path(store: Store, branch: str) -> str:
    """The claim that a helper holds while it seals a branch."""
    return f"{store.paths.cache}/seal-{os.path.basename(store.paths.head_dir(branch))}.lock"


def maintenance_path(store: Store) -> str:
    """The claim that a helper holds while it merges, compacts and collects."""
    return f"{store.paths.cache}/maintain.lock"


def is_worth_it(store: Store, branch: str) -> bool:
    """Whether the WAL files of short-lived writers have become many, and nobody is at them."""
    try:
        count = len(disk.listing(store.paths.wal_dir(branch)))
        many = count >= FILES and count % _AGAIN == 0
        return many and not disk.is_locked(lock_path(store, branch))
    except OSError:
        return False  # what was appended is durable all the same


def start_sealer(store: Store, branch: str) -> Any:
    """Start `python -m lakelog seal` detached; return its Popen, or None where there is none.

    It is a matter of thrift, never of correctness: any process may seal.
    """
    if "python" not in os.path.basename(sys.executable or ""):
        return None
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "lakelog", "--lake", store.paths.root, "seal"]
    try:
        return subprocess.Popen(
            [*command, "--branch", branch],
            start_new_session=True,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    except OSError:
        return None
