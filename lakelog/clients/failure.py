"""What the connection to a server raises when it fails."""

from __future__ import annotations

from lakelog.errors import LakelogError


class ConnectionLost(LakelogError):
    """Raised when the connection to a server broke or could not be made: try again."""
