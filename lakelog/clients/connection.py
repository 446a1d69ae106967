"""What all clients of servers share: losing a connection, waiting before the next attempt, and
whether a server is this machine."""

from __future__ import annotations

import contextlib
import ipaddress
import random

from lakelog.errors import LakelogError

_SHORTEST, _LONGEST = 0.05, 2.0


class ConnectionLost(LakelogError):
    """Raised when the connection to a server broke or could not be made: try again."""


def pause(attempt: int) -> float:
    """Return the seconds to wait after the nth attempt in a row that failed, from 1 on.

    They double from 0.05 to 2, each shortened by chance to half of it at most, so that clients that
    lost one server do not come back at once.
    """
    return min(_LONGEST, _SHORTEST * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: what goes to it needs no encryption."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
