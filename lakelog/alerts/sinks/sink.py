"""What a receiver of notifications is, and what all share: options, and secrets by their place.

A sink is a text that the rule keeps, so it names where a secret is and never the secret itself:
`token_env=VARIABLE` or `token_file=FILE`. They stand behind `#`, which no address sends.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import parse_qsl

from lakelog.alerts.notices import Notice
from lakelog.disk import File
from lakelog.errors import InvalidSetting, LakelogError

SECONDS = 10.0
"""In which a receiver has to take a notification."""
_SECRET_MAX = 65_536


class DeliveryFailed(LakelogError):
    """Raised where a receiver did not take a notification. `is_final` if it never will;
    `retry_after` are the seconds that it asks to be left alone."""

    def __init__(self, reason: str, *, is_final: bool = False, retry_after: float = 0) -> None:
        super().__init__(reason)
        self.is_final, self.retry_after = is_final, retry_after


class AlertSink(Protocol):
    """A receiver. `address` names it without secrets."""

    address: str

    def deliver(self, notice: Notice) -> None:
        """Hand over a notification, within SECONDS. Raises DeliveryFailed."""


def divided(spelled: str, allowed: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """Return a sink's text without its options, and these. Raises InvalidSetting."""
    address, _, fragment = spelled.partition("#")
    # Blank values are kept, so that a missing one is refused where it is read.
    options = dict(parse_qsl(fragment, keep_blank_values=True))
    if options.keys() - set(allowed):
        # Not which: it may be what follows a # in a secret.
        raise InvalidSetting(f"behind # a sink of this kind has {', '.join(allowed) or 'nothing'}")
    return address, options


def secret(options: Mapping[str, str], name: str) -> str:
    """Return what `NAME_env` or `NAME_file` names, read anew each time; "" without either. Raises
    DeliveryFailed, which names the place and not the secret."""
    variable, path = options.get(f"{name}_env"), options.get(f"{name}_file")
    if variable:
        # A variable that is empty is a mistake, and no secret.
        value = os.environ.get(variable, "")
        if not value:
            raise DeliveryFailed(f"the variable {variable} is not set")
        return value
    if not path:
        return ""
    try:
        value = File(path).read(_SECRET_MAX).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DeliveryFailed(f"{path}: {getattr(error, 'strerror', None) or 'no text'}") from None
    if not value:
        raise DeliveryFailed(f"{path} is empty")
    return value
