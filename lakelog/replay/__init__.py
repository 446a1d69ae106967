"""Giving recorded events out again, in their order and with their pauses.

A `Replay` gives the events of a `ReplaySelection` to a `ReplayTarget` (a command, an HTTP server, a
stream) at a `ReplayPace`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.replay.pace import ReplayPace as ReplayPace
    from lakelog.replay.pace import parse_rate as parse_rate
    from lakelog.replay.pace import parse_speed as parse_speed
    from lakelog.replay.replay import Replay as Replay
    from lakelog.replay.replay import ReplaySelection as ReplaySelection
    from lakelog.replay.replay import asked_us as asked_us
    from lakelog.replay.targets import CommandTarget as CommandTarget
    from lakelog.replay.targets import HttpTarget as HttpTarget
    from lakelog.replay.targets import ReplayTarget as ReplayTarget
    from lakelog.replay.targets import StreamTarget as StreamTarget

__getattr__, __all__ = lazy_face(__name__)
