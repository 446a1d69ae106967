"""Sources of messages: what a server of streams has to do to be consumed.

A source has one or more streams (the partitions of a topic), each ordered. `states` says what the
server has of them; `read` returns what follows the positions of the lake's own cursors, so that
the server need not remember anything. `acknowledge` tells it all the same, for others to see.
"""

from __future__ import annotations

import abc
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from lakelog.ingest import Message, StreamCursor
from lakelog.values import JsonObject


@dataclass(frozen=True)
class StreamState:
    """What a server has of one stream.

    Reading begins after `start` and was at its end at `end`, both positions. `added` counts the
    messages that ever were in it up to `end`, `present` those that still are; None where the server
    does not count: there positions are numbers without holes. `oldest` is the position of the first
    that still is there ("" for none), and `deleted` the last one at which a message was taken out
    of the middle, None where the server does not say. `identity` is another one of each stream that
    had this key, "" where the server does not say.
    """

    key: str
    name: str
    start: str
    end: str
    added: int | None = None
    present: int = 0
    oldest: str = ""
    deleted: str | None = None
    identity: str = ""


@dataclass(frozen=True)
class StreamLag:
    """How far the lake is behind one stream; `behind` is None where it cannot be known."""

    stream: str
    position: str
    end: str
    messages: int
    missing: int
    behind: int | None


class MessageSource(abc.ABC):
    """A server whose messages are consumed. One thread uses it.

    Every method raises ConnectionLost when the connection breaks, Unreachable when another attempt
    cannot help, and SyncRefused for what the server does not allow.
    """

    address: str
    """Where it is, for messages: without a password."""
    name: str
    """The topic or stream: the source of events that name none."""
    absence: str
    """What to say where the server has no such topic or stream."""
    may_rewind = False
    """Whether the server may lose the newest messages and give their positions to others before
    it is asked again. A topic of Kafka, which seldom does, is known by being shorter, and a journal
    that begins again has another name."""

    @abc.abstractmethod
    def connect(self, group: str) -> None:
        """Connect, or connect again; others see what was read under the name `group`. Raises
        MissingPackage, ConnectionLost, Unreachable, InvalidSetting."""

    def find(self, positions: Sequence[str]) -> Sequence[Message]:
        """Those messages at these positions that the server has, where it may rewind; of its one
        stream."""
        del positions
        return []

    @abc.abstractmethod
    def states(self) -> Sequence[StreamState]:
        """What the server has now; nothing where there is no such topic or stream."""

    @abc.abstractmethod
    def order(self, position: str) -> int:
        """A number by which positions of a stream are compared."""

    def is_beyond(self, position: str, end: str) -> bool:
        """Whether a stream that ends at `end` never had a position, and so is another one."""
        return self.order(position) > self.order(end)

    @abc.abstractmethod
    def read(
        self, positions: Mapping[str, str], ends: Mapping[str, str], limit: int
    ) -> tuple[list[Message], bool]:
        """Return about `limit` messages after `positions`, by stream, in the order of each, and
        whether nothing is left up to `ends`."""

    def acknowledge(self, cursors: Sequence[StreamCursor]) -> None:  # noqa: B027
        """Tell the server how far these streams were consumed; never raises."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connection; never raises."""


def encode_object(members: JsonObject) -> bytes:
    """An object as JSON, for a message that waits for its batch: but for the newline a copy, as
    what orjson returns keeps the kilobytes that it was written in."""
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)[:-1]


def text_or_base64(data: bytes) -> Any:
    """Bytes as JSON has them: as text, or an object that names their encoding."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def time_or_none(milliseconds: int) -> int | None:
    """A server's time in us, None for what is no time, such as a chosen id of Redis."""
    micros = milliseconds * 1000
    # From 2000 on, and within what an event can have.
    return micros if 946_684_800_000_000 <= micros < 253_402_300_800_000_000 else None
