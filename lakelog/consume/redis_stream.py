"""Streams of Redis as a source: entries after an id, read by XRANGE.

A consumer group is kept at the lake's position, so that XINFO GROUPS shows what was consumed and
how much is left. Nothing is read through it: an entry that a group delivered would be pending
until it is acknowledged, and the lake knows better what it has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lakelog.clients import Address, RedisClient, RedisConfig
from lakelog.consume.source import (
    MessageSource,
    StreamState,
    encode_object,
    text_or_base64,
    time_or_none,
)
from lakelog.errors import InvalidSetting, SyncRefused, Unreachable
from lakelog.ingest import Message, StreamCursor
from lakelog.runtime.lazy import Lazy

redis = Lazy("redis")
_EXAMPLE = (
    "a stream of Redis is redis://HOST:PORT/DB/STREAM, or rediss:// with TLS,"
    " unix:///PATH?db=DB&stream=STREAM or redis+sentinel://HOST:PORT/MASTER/DB/STREAM"
)
VALUE_FIELDS = (b"event", b"message", b"data", b"value", b"payload", b"json")
"""Fields that hold the message where an entry has several; the first of these that it has."""
_BYTES, _ENTRIES = 16 << 20, 512
"""Bytes of one reply, about, and entries of the first one, whose size nobody knows yet."""
_BYTES_MAX = 64 << 20
"""Bytes of entries that are returned at once, about."""
_ERA, _IN_MS = 31, 20
"""Bits of an id's milliseconds and number that a row's position has room for."""


class RedisStream(MessageSource):
    """One stream: `redis://HOST:PORT/DB/STREAM`, with TLS `rediss`."""

    may_rewind = True  # after a crash with snapshots alone, a fail-over, or a restore of older data

    def __init__(self, url: str) -> None:
        """Read the URL; raises InvalidSetting, which does not repeat it."""
        parsed = Address.parse(url, _EXAMPLE, (*RedisConfig.OPTIONS, "stream"))
        try:
            config, names = RedisConfig.divide(parsed)
        except InvalidSetting:
            raise InvalidSetting(_EXAMPLE) from None
        self.name = "/".join(names) or parsed.options.get("stream", "")
        if not self.name or (any(names) and "stream" in parsed.options):
            raise InvalidSetting(_EXAMPLE)
        self.address = f"{config.address}{'&stream=' if config.socket else '/'}{self.name}"
        self.absence = f"{self.address}: there is no such stream: its first XADD creates it"
        # With and without TLS, and by whichever Sentinels it is found, it is one stream.
        self._key = f"redis://{config.place}/{config.db}/{self.name}"
        self._config, self._group = config, ""
        self._client: RedisClient | None = None

    def connect(self, group: str) -> None:
        """Connect. Raises Unreachable, MissingPackage, InvalidSetting."""
        self._group = group
        if self._client is None:
            self._client = RedisClient(self._config)

    def find(self, positions: Sequence[str]) -> Sequence[Message]:
        """The entries with these ids."""
        messages = list[Message]()
        for position in positions:
            entries = self._send("XRANGE ", self.name, position, position, "COUNT", 1)
            messages += [self._message(*entry)[0] for entry in entries]
        return messages

    def states(self) -> Sequence[StreamState]:
        """The stream as it is now."""
        try:
            info = self._call("XINFO", lambda client: client.xinfo_stream(self.name))
        except SyncRefused as error:
            if "no such key" in str(error):
                return []
            raise
        return [
            StreamState(
                self._key,
                self.name,
                "0-0",
                info["last-generated-id"],
                info.get("entries-added"),  # from Redis 7 on
                info["length"],
                (info.get("first-entry") or ("",))[0] or "",
                info.get("max-deleted-entry-id"),  # so, too
            )
        ]

    def order(self, position: str) -> int:
        """The number of an id, whose parts have 64 bits each."""
        milliseconds, _, number = position.partition("-")
        return int(milliseconds) << 64 | int(number or 0)

    def read(
        self, positions: Mapping[str, str], ends: Mapping[str, str], limit: int
    ) -> tuple[list[Message], bool]:
        """Return entries after the position, and whether there are no more up to the end."""
        position, end = positions[self._key], ends[self._key]
        messages, size, count = list[Message](), 0, min(limit, _ENTRIES)
        while count > 0:
            entries = self._entries(position, end, count)
            for entry in entries:
                message, length = self._message(*entry)
                messages.append(message)
                size += length
            if len(entries) < count:
                return messages, True
            position = messages[-1].position
            if size > _BYTES_MAX:
                break
            # As many as take about `_BYTES` at the mean size so far: entries may be large.
            estimate = _BYTES * len(messages) // max(size, 1) + 1
            count = min(limit - len(messages), estimate)
        return messages, False

    def acknowledge(self, cursors: Sequence[StreamCursor]) -> None:
        """Move the consumer group, which is created where there is none."""
        for cursor in cursors:
            count = cursor.skipped + cursor.messages + cursor.missing
            place = (self.name, self._group, cursor.position)
            # A hint: whoever reads without the right to write, or from a replica, does without.
            with contextlib.suppress(SyncRefused, Unreachable):
                try:
                    self._send("XGROUP CREATE", *place, repeatable=False)
                except SyncRefused:
                    self._send("XGROUP SETID", *place, repeatable=False)
                self._send("XGROUP SETID", *place, "ENTRIESREAD", count, repeatable=False)

    def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _entries(self, after: str, upto: str, count: int) -> list[Any]:
        """The raw entries: pairs of an id and a list of fields and values."""
        # redis-py makes a dict of each entry, in which a repeated field is lost; a command that it
        # does not know, for the blank, is answered as it comes.
        reply: list[Any] = self._send("XRANGE ", self.name, f"({after}", upto, "COUNT", count)
        return reply

    def _send(self, command: str, *arguments: str | int, repeatable: bool = True) -> Any:
        """Send a command; return its answer, in bytes."""
        return self._call(
            command,
            lambda client: client.execute_command(command, *arguments, NEVER_DECODE=True),
            repeatable=repeatable,
        )

    def _call(self, command: str, run: Callable[[Any], Any], *, repeatable: bool = True) -> Any:
        assert self._client is not None
        try:
            return self._client.call(command, run, repeatable=repeatable)
        except redis.ResponseError as error:
            reason = " ".join(str(error).split())
            if reason.startswith("WRONGTYPE"):
                reason = "that key holds no stream: name another one"
            raise SyncRefused(f"{self.address}: {reason}") from None

    def _message(self, raw_id: bytes, raw: list[bytes]) -> tuple[Message, int]:
        """The message of an entry, and its size in bytes."""
        position = raw_id.decode()
        milliseconds, number = map(int, position.split("-"))
        pairs = list(zip(raw[::2], raw[1::2], strict=True))
        value, extra = _split(pairs)
        details = {"stream": self.name, "id": position, **extra}
        era = f"/{milliseconds >> _ERA}" + (f".{number >> _IN_MS}" if number >> _IN_MS else "")
        place = (milliseconds & (1 << _ERA) - 1) << _IN_MS | number & (1 << _IN_MS) - 1
        message = Message(
            self._key,
            position,
            place,
            value,
            None,
            time_or_none(milliseconds),
            encode_object(details),
            "redis",
            era,
        )
        return message, sum(map(len, raw))


def _split(pairs: list[tuple[bytes, bytes]]) -> tuple[bytes, dict[str, object]]:
    """The value of an entry, and what else it has: `field`, that of the value, and `fields`.

    It is that of the only field, or of one that is named as in VALUE_FIELDS; else all fields as
    JSON, or all of them are in `fields` where JSON cannot have them.
    """
    if len(pairs) == 1:
        return pairs[0][1], {"field": text_or_base64(pairs[0][0])}
    names = [name for name, _ in pairs]
    value_fields = [name for name in VALUE_FIELDS if names.count(name) == 1]
    if value_fields:
        value = next(value for name, value in pairs if name == value_fields[0])
        other_pairs = [pair for pair in pairs if pair[0] != value_fields[0]]
        return value, {"field": value_fields[0].decode(), "fields": _listed(other_pairs)}
    try:
        fields = {name.decode(): value.decode() for name, value in pairs}
    except UnicodeDecodeError:
        fields = {}
    if len(fields) == len(pairs):
        return encode_object(fields), {}
    return b"", {"fields": _listed(pairs)}


def _listed(pairs: list[tuple[bytes, bytes]]) -> object:
    """Fields as an object; as a list of pairs where a name is repeated or no text."""
    decoded = [(text_or_base64(name), text_or_base64(value)) for name, value in pairs]
    names = [name for name, _ in decoded]
    if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
        return dict(decoded)
    return decoded
