"""Failures of a connection."""

from __future__ import annotations

from lakelog.errors import LakelogError


class ConnectionLost(LakelogError):
    """Raised by a target when the connection broke or could not be made: try again."""
