"""Upcasters: what brings the payload of an old event to the present version of its type.

The version of a payload is its member `schema_version`, 1 without one. An upcaster of a type and
version returns the payload of the next version; they are applied one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lakelog.errors import InvalidSetting, QueryFailed

VERSION_MEMBER = "schema_version"
Json = Any
"""A value that JSON holds, or stands for one."""
EventPayload = dict[str, Json]


@dataclass(frozen=True)
class Upcaster:
    """Brings payloads of a type from one version to the next."""

    type: str
    version: int
    upcast: Callable[[EventPayload], EventPayload]


@dataclass(frozen=True)
class FoldEvent:
    """An event as a fold sees it, its payload in the present version."""

    seq: int
    id: str | None
    time: datetime
    type: str
    subject: str
    data: EventPayload

    @property
    def label(self) -> str:
        """Which event this is, for an error."""
        return f"event {self.id or f'seq {self.seq}'} ({self.type} of {self.subject})"


class Upcasting:
    """The upcasters of a fold."""

    def __init__(self, upcasters: Iterable[Upcaster]) -> None:
        self._functions: dict[tuple[str, int], Callable[[EventPayload], EventPayload]] = {}
        for upcaster in upcasters:
            key = upcaster.type, upcaster.version
            if upcaster.version < 1:
                raise InvalidSetting(f"the first version of a payload is 1, not {key[1]}")
            if key in self._functions:
                raise InvalidSetting(f"two upcasters are of {key[0]}, version {key[1]}")
            self._functions[key] = upcaster.upcast

    def apply(self, event: FoldEvent) -> FoldEvent:
        """Return an event in the present version. Raises QueryFailed, which names the event."""
        version, payload = event.data.get(VERSION_MEMBER, 1), event.data
        if not isinstance(version, int):
            raise QueryFailed(f"{event.label}: {VERSION_MEMBER} is {version!r}, not a number")
        # One version after the other, so that each upcaster knows one step only.
        while function := self._functions.get((event.type, version)):
            try:
                # A copy: the event's own payload stays what was stored.
                payload = function(dict(payload))
            except Exception as error:
                raise QueryFailed(
                    f"{event.label}: its upcaster from version {version} failed:"
                    f" {type(error).__name__}: {error}"
                ) from error
            if not isinstance(payload, dict):
                raise QueryFailed(
                    f"{event.label}: its upcaster from version {version} returned"
                    f" {type(payload).__name__}, not a dict"
                )
            version += 1
            # Set here, so that no upcaster has to think of it.
            payload[VERSION_MEMBER] = version
        return FoldEvent(event.seq, event.id, event.time, event.type, event.subject, payload)
