"""Switches: environment variables with which an operator turns saving or restoring off."""

from __future__ import annotations

import os
from enum import Enum

from lakelog.errors import StateRefused


class StateSwitch(Enum):
    """What may be turned off, by its variable: anything but a word for no leaves it on."""

    SAVE = "SNAPSHOT_ENABLED"
    RESTORE = "RESTORE_ENABLED"

    @property
    def is_on(self) -> bool:
        """Whether it is not turned off."""
        value = os.environ.get(self.value, "").strip().lower()
        return value not in ("0", "false", "no", "off")

    def require(self) -> None:
        """Raise StateRefused where it is turned off."""
        if not self.is_on:
            raise StateRefused(f"nothing was {self.name.lower()}d: {self.value} is off")
