"""The status of a watcher: its totals, and the files in the cache that others read and lock."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakelog.lake import Lake


@dataclass
class Totals:
    """What a watcher did since it started; times are seconds since 1970."""

    pid: int = field(default_factory=os.getpid)
    started: float = field(default_factory=time.time)
    roots: list[str] = field(default_factory=list)
    rounds: int = 0
    files: int = 0
    events: int = 0
    quarantined: int = 0
    nuls: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    last_round: float = 0.0
    last_event: float = 0.0
    slowest_round: float = 0.0
    redis: dict[str, Any] = field(default_factory=dict)
    """Figures of what is kept in Redis beside the lake, if anything is."""


def status_path(lake: Lake) -> str:
    """Return where the watcher of a branch writes its status."""
    return f"{lake.store.paths.cache}/watch-{lake.branch_name.replace('/', '-')}.json"


def lock_path(lake: Lake, roots: list[str]) -> str:
    """Return the lock file of a watcher of these directories: there is only one at a time."""
    # Sorted real paths: the same directories have the same lock, however they are written.
    names = "\0".join(sorted(map(os.path.realpath, roots)))
    digest = hashlib.sha256(os.fsencode(names)).hexdigest()[:16]
    return f"{lake.store.paths.cache}/watch-{digest}.lock"
