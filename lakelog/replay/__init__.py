"""Giving recorded events out again, in their order and with their pauses.

A `Replay` gives the events of a `ReplaySelection` to a `ReplayTarget` (a command, an HTTP server, a
stream) at a `ReplayPace`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.replay.pace import ReplayPace, parse_rate, parse_speed
    from lakelog.replay.replay import Replay, ReplaySelection
    from lakelog.replay.targets import CommandTarget, HttpTarget, ReplayTarget, StreamTarget

__all__ = [
    "CommandTarget",
    "HttpTarget",
    "Replay",
    "ReplayPace",
    "ReplaySelection",
    "ReplayTarget",
    "StreamTarget",
    "parse_rate",
    "parse_speed",
]

__getattr__ = lazy_face(
    __name__,
    pace="ReplayPace parse_rate parse_speed",
    replay="Replay ReplaySelection",
    targets="CommandTarget HttpTarget ReplayTarget StreamTarget",
)
