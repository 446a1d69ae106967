"""A batch of an append that waits for its turn in a group commit, and what its caller gets."""

from __future__ import annotations

import errno
from typing import Any


class AppendBatch:
    """Lines of a caller that waits for a leader; `lock` is released once it is served or leads."""

    __slots__ = (
        "done",
        "error",
        "events",
        "flags",
        "leads",
        "lock",
        "position",
        "refusal",
        "retries",
        "size",
        "text",
    )

    def __init__(self, payload: bytes, events: int, flags: int, retries: bool = False) -> None:
        self.text, self.events, self.flags = payload, events, flags
        self.retries = retries
        self.size = len(payload) + 1
        self.lock: Any = None
        self.done, self.leads, self.position = False, False, 0
        self.error: BaseException | None = None
        self.refusal: Exception | None = None


def own_error(failed: BaseException, is_leader: bool) -> BaseException:
    """What one caller of a failed group gets: an interrupt is its leader's alone."""
    if isinstance(failed, Exception) or is_leader:
        return failed
    return OSError(errno.EINTR, "the append was interrupted: try it again")
