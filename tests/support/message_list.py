"""A source of messages that a test keeps in a list."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from lakelog.consume.source import MessageSource, StreamState
from lakelog.ingest import Message


class MessageList(MessageSource):
    """One stream, whose positions count its messages. Its next reads raise `faults`."""

    def __init__(self, name: str, values: list[bytes], may_rewind: bool = False) -> None:
        self.name, self.values, self.may_rewind = name, values, may_rewind
        self.address, self.absence = f"list:{name}", f"there is no {name}"
        self.faults = list[Exception]()

    def connect(self, group: str) -> None:
        """Nothing is to be connected."""

    def states(self) -> Sequence[StreamState]:
        """What the list has now."""
        oldest = "1" if self.values else ""
        return [StreamState(self.address, self.name, "0", str(len(self.values)), oldest=oldest)]

    def order(self, position: str) -> int:
        """How many messages there are up to a position."""
        return int(position)

    def find(self, positions: Sequence[str]) -> Sequence[Message]:
        """Those that are there."""
        counts = [int(position) for position in positions]
        return [self._message(count - 1) for count in counts if 0 < count <= len(self.values)]

    def read(
        self, positions: Mapping[str, str], ends: Mapping[str, str], limit: int
    ) -> tuple[list[Message], bool]:
        """Return what follows."""
        start, end = int(positions[self.address]), int(ends[self.address])
        stop = min(start + limit, end)
        if self.faults:
            raise self.faults.pop()
        return [self._message(number) for number in range(start, stop)], stop >= end

    def close(self) -> None:
        """Nothing is to be closed."""

    def _message(self, number: int) -> Message:
        details = json.dumps({"offset": number}).encode()
        position, value = str(number + 1), self.values[number]
        return Message(self.address, position, number, value, None, None, details, "list")
