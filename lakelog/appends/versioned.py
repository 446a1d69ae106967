"""Versioned events: those of a stream, numbered from 1 (FORMAT.md F13.6).

A stream is the events of one subject that were appended with an expected version. The line of one
begins with its version and the identity key that this gives it; its `origin` is `stream:` and the
subject, and its `position` the version.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any, ClassVar

import orjson

from lakelog.errors import InvalidEvent

_SUBJECT_MAX = 1_024
"""Bytes of the longest subject that a stream may have."""
_DATA = b',"data":'


class StreamSubject:
    """The subject of a stream, with what identifies its versions."""

    __slots__ = ("_key_start", "_member", "digest", "name")
    ORIGIN: ClassVar[str] = "stream:"
    """What the origin of a versioned event begins with; its subject follows."""

    def __init__(self, name: str) -> None:
        self.name, self.digest = name, hashlib.sha256(name.encode()).digest()
        self._key_start = b"stream:%s:" % self.digest.hex().encode()
        self._member = b'"subject":' + orjson.dumps(name)

    @classmethod
    def checked(cls, name: object) -> StreamSubject:
        """Return the subject of this name. Raises InvalidEvent if no stream can have it."""
        if not isinstance(name, str) or not name:
            raise InvalidEvent(f"the subject of a stream is a text, not {name!r:.40}")
        return _usual(name)

    @property
    def origin(self) -> str:
        """The origin of the events of the stream."""
        return self.ORIGIN + self.name

    @property
    def label(self) -> str:
        """The name as messages show it: in one line, shortened."""
        return label_of(self.name)

    def key(self, version: int) -> bytes:
        """Return the identity key of a version."""
        # No NUL and no brace: so no given id and no content has the same text.
        return hashlib.sha256(b"%s%d" % (self._key_start, version)).digest()[:12]

    def line(self, line: bytes, version: int) -> bytes:
        """Return the line of an event with the version that it has."""
        key = self.key(version).hex().encode()
        return b'{"version":"%d","key":"%s",' % (version, key) + line[1:]

    def is_of(self, line: bytes) -> bool:
        """Whether a line is surely of this subject: it may spell it in another way."""
        # Quotes within texts are escaped, so what stands before the payload is the member itself.
        place = line.find(self._member)
        return place > 0 and line.find(_DATA, 0, place) < 0

    @classmethod
    def place_of(cls, line: bytes) -> tuple[str, int] | None:
        """Return the origin and the version of a line, None if it has no version."""
        members = _members(line)
        version = members.get("version")
        return None if version is None else (cls.ORIGIN + _subject(members), int(version))


def label_of(name: str) -> str:
    """Return a subject as messages show it: in one line, shortened."""
    return repr(name[:60]) if name.isprintable() else ascii(name)[:60]


def subject_of(line: bytes) -> str:
    """Return the subject in a line, "" if it has none."""
    return _subject(_members(line))


def _members(line: bytes) -> dict[str, Any]:
    head, separator, _ = line.partition(_DATA)
    members: dict[str, Any] = orjson.loads(head + b"}" if separator else head)
    return members


def _subject(members: dict[str, Any]) -> str:
    subject = members.get("subject")
    return (members.get("item_id") if subject is None else subject) or ""


@functools.lru_cache(1024)
def _usual(name: str) -> StreamSubject:
    if len(name) > _SUBJECT_MAX or "\0" in name or not name.isascii():
        _require_usual(name)
    return StreamSubject(name)


def _require_usual(name: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidEvent(f"the subject {label_of(name)} is not valid Unicode") from None
    if size > _SUBJECT_MAX:
        raise InvalidEvent(
            f"the subject {label_of(name)} has {size:,} bytes: that of a stream has at most"
            f" {_SUBJECT_MAX:,}"
        )
    if "\0" in name:
        raise InvalidEvent(f"the subject {label_of(name)} has a NUL character: write it without")
