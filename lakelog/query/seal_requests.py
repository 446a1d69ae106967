"""Asking for a long tail to be sealed: it makes every query slower."""

from __future__ import annotations

import time
from typing import Any

from lakelog.store.bootstrap import Store
from lakelog.store.sealer_process import FILES, start_sealer
from lakelog.store.tail import PendingFrames

SEAL_BYTES = 64_000_000
"""A query that meets a longer tail asks for it to be sealed."""
_PAUSE = 30.0


class SealRequests:
    """What a session asks of the process that seals."""

    def __init__(self, store: Store, branch: str) -> None:
        self._store, self._branch = store, branch
        self._asked = 0.0
        self._sealer: Any = None

    def meet(self, pending: PendingFrames) -> None:
        """Have a long tail, or one of many files, sealed beside us."""
        short = pending.bytes < SEAL_BYTES and pending.finished_files < FILES
        if short or self._store.settings.seal != "auto":
            return
        if time.monotonic() - self._asked > _PAUSE:
            self._asked = time.monotonic()
            self._sealer = start_sealer(self._store, self._branch)
