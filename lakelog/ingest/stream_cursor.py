"""Stream cursors: how far each stream of messages was consumed (FORMAT.md 19).

A stream is an ordered sequence that a server keeps and numbers: a partition of Kafka, or a stream
of Redis. Its cursor is published with the rows, so that the lake alone says what it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from lakelog.entries import Record
from lakelog.manifest import Manifest
from lakelog.store import Store

WHAT = "stream"


@dataclass(frozen=True, slots=True)
class Mark:
    """A message that was read, by which its stream is known again: its position, a fingerprint of
    its content, and how many messages of the stream had been consumed with it."""

    position: str
    fingerprint: str
    number: int


@dataclass(frozen=True, slots=True)
class StreamCursor:
    """How far one stream was consumed.

    `position` is the server's: the next offset of Kafka, the last id of Redis. `skipped` messages
    came before the first one that was read, `messages` were consumed, and `missing` were removed
    by the server before they were. `incarnation` tells streams apart that had one name: it changes
    when a stream was deleted and created again. `bytes` counts those of values, `form` is the
    format they were last parsed by, and `time` is that of the newest message (us).

    Where a server may lose what it had, `marks` are some of the messages that were read, the oldest
    first, and `seen` is the last position that was ever read, if it lies beyond `position`: what is
    read up to there may be in the lake. `identity` is what the server calls the stream, of which
    another one under the same name has another. `host` is the machine that consumed last; it alone
    is no change.
    """

    key: str
    name: str
    position: str = ""
    incarnation: str = ""
    messages: int = 0
    skipped: int = 0
    missing: int = 0
    bytes: int = 0
    form: str = ""
    time: int = 0
    marks: tuple[Mark, ...] = ()
    seen: str = ""
    identity: str = ""
    host: str = field(default="", compare=False)

    @classmethod
    def from_entry(cls, record: Record) -> StreamCursor:
        """Return the cursor that an entry holds. Raises TypeError, KeyError where it is
        malformed."""
        members = {name: record.members[name] for name in _NAMES if name in record.members}
        marks = tuple(Mark(*mark) for mark in members.pop("marks", ()))
        return cls(key=record.key, marks=marks, **members)

    def entry(self) -> Record:
        """The manifest entry of the cursor."""
        members = {name: getattr(self, name) for name in _NAMES}
        members["marks"] = [[m.position, m.fingerprint, m.number] for m in self.marks]
        # Most streams need neither of the first two, and older ones say neither of the others.
        for name in ("marks", "seen", "identity", "host"):
            if not members[name]:
                del members[name]
        return Record(WHAT, self.key, members)

    @property
    def origin(self) -> str:
        """What its rows carry; no two streams share one."""
        return f"{self.key}#{self.incarnation}" if self.incarnation else self.key

    @classmethod
    def of_state(cls, store: Store, state: Manifest) -> dict[str, StreamCursor]:
        """Return the stream cursors of a state by key. Raises DamagedManifest."""
        records = store.manifests.read_records(state, WHAT, cls.from_entry)
        return {cursor.key: cursor for cursor in records}

    @staticmethod
    def thinned(marks: Sequence[Mark]) -> tuple[Mark, ...]:
        """Return the newest of marks, given from the oldest on, the first, and between them ever
        fewer the older they are: some 20 of a million."""
        newest = dict[int, Mark]()
        for mark in marks:
            newest.setdefault((marks[-1].number - mark.number).bit_length(), mark)
        return tuple(newest.values())


_NAMES = tuple(member.name for member in fields(StreamCursor)[1:])
