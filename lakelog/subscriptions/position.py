"""How far a subscription came in a branch.

Events are handed out in windows of whole segments, and within one by arrival: a seal numbers its
events writer by writer, so that of one subject a later event may have a lower number. All events
below `seq` were handled; within a window that ends at `upto`, those up to (`time`, `last_seq`),
which are the arrival and the number of the last.

Between which two events a client of a live tail stands, as a text that it sends to go on.

Published events are known by number, as those of a subscription are; those of the tail by writer
and position, as their numbers are not final. So nothing has to be sealed for a position, and an
event that was given from the tail is known again once it is published. The text names the lake and
the branch by a digest, and stands in headers and URLs as it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field, replace

import orjson

from lakelog.errors import InvalidSetting
from lakelog.refs import Move
from lakelog.values import JsonObject

PARTITIONS = 64
"""Events are divided by their subject into so many; this never changes."""
PARTITION_SQL = f"md5_number_lower(coalesce(subject, '')) % {PARTITIONS}"


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two events of a state."""

    seq: int = 0
    upto: int = 0
    time: int = 0
    last_seq: int = -1

    @property
    def reach(self) -> int:
        """How many events were numbered when the place was given, at least."""
        return max(self.seq, self.upto)

    def members(self) -> JsonObject:
        """The position as a manifest has it; what follows `seq` only within a window."""
        # Outside of a window `seq` says all.
        if not self.upto:
            return {"seq": self.seq}
        return {"seq": self.seq, "upto": self.upto, "time": self.time, "last_seq": self.last_seq}

    @classmethod
    def of(cls, members: JsonObject) -> Position:
        """Read the members of a position. Raises KeyError, TypeError."""
        return cls(*(int(members.get(name, default)) for name, default in _DEFAULTS))


_DEFAULTS = (("seq", 0), ("upto", 0), ("time", 0), ("last_seq", -1))


@dataclass(frozen=True)
class BranchPosition:
    """A position for a program's own database: which lake, branch and generation it is of, and
    after which move of it, by its number and commit, which older texts do not have."""

    lake: str
    branch: str
    generation: int
    seq: int
    upto: int = 0
    time: int = 0
    move: int = 0
    last_seq: int = -1
    commit: str = ""

    @property
    def position(self) -> Position:
        """The place between two events."""
        return Position(self.seq, self.upto, self.time, self.last_seq)

    def text(self) -> str:
        """The text that a program stores."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def parse(cls, token: str) -> BranchPosition:
        """Read such a text. Raises InvalidSetting."""
        try:
            # Members of a later version are refused, since their meaning is not known.
            position = cls(**orjson.loads(token))
            # The numbers are compared with those of the lake.
            numbers = astuple(position)[2:-1]
            if any(type(number) is not int for number in numbers) or min(numbers[:-1]) < 0:
                raise TypeError
            if type(position.commit) is not str:
                raise TypeError
            return position
        except (orjson.JSONDecodeError, TypeError):
            raise InvalidSetting(
                f"{token[:80]!r} is not the position of a batch: give what `batch.position` was"
            ) from None


# That of 1,500 writers; headers of common proxies end at eight kilobytes, that of 400.
_LENGTH_MAX = 1 << 15
_MARK_DIGITS, _COMMIT_DIGITS = 12, 8
_TEXT = re.compile(
    (
        r"([0-9a-f]{8})-(N)-(N)-(N)(?:-(N)-(N)-(-?N))?(?:-b(N))?"
        r"(?:-c([0-9a-f]{8}))?((?:~[0-9A-Za-z]+\.N)*)"
    ).replace("N", r"[0-9]{1,18}")
)


@dataclass(frozen=True)
class LivePosition:
    """A place in a branch: after which move, in which generation, behind which published event.
    `commit` begins as that of the move, which no other copy of the lake has that went on by itself.

    `marks` are, for each writer (see `writer_mark`), the position before which events of the tail
    were given, and for streams of the tail (see `stream_mark`) the version.
    `beyond` follows a merge: behind the window of `place`, events come again until this number.
    """

    branch: str
    generation: int
    move: int
    place: Position
    marks: Mapping[str, int] = field(default_factory=dict)
    beyond: int = 0
    commit: str = ""

    def is_before(self, seq: int) -> bool:
        """Whether published events below `seq` may follow."""
        return self.place.upto > 0 or self.place.seq < seq

    def text(self) -> str:
        """What a client sends to go on from here."""
        return self.stem() + marks_text(self.marks)

    def stem(self) -> str:
        """The text without its marks."""
        fields = [self.branch, self.generation, self.move, self.place.seq]
        if self.place.upto:
            fields += [self.place.upto, self.place.time, self.place.last_seq]
        stem = "-".join(map(str, fields)) + (f"-b{self.beyond}" if self.beyond else "")
        return f"{stem}-c{self.commit}" if self.commit else stem

    def after(self, move: Move) -> LivePosition:
        """The same place after another move."""
        return replace(self, move=move.number, commit=move.commit[:_COMMIT_DIGITS])

    @classmethod
    def parse(cls, token: str) -> LivePosition:
        """Read such a text. Raises InvalidSetting."""
        # Before matching, whose time grows with the text.
        match = _TEXT.fullmatch(token) if len(token) <= _LENGTH_MAX else None
        if match is None:
            raise InvalidSetting(
                f"{token[:80]!r} is no position of a live tail: send the id of the last event, or"
                " beginning, end, or the seq of an event"
            )
        branch, generation, move, seq, upto, time, last_seq, beyond, commit, marks = match.groups()
        place = Position(int(seq), int(upto or 0), int(time or 0), int(last_seq or -1))
        pairs = (mark.split(".") for mark in marks.split("~")[1:])
        # Older texts have the whole ids of writers.
        positions = {
            name if is_of_stream(name) else writer_mark(name): int(position)
            for name, position in pairs
        }
        numbers = int(generation), int(move)
        # Older texts have no commit, which every move may have.
        return cls(branch, *numbers, place, positions, int(beyond or 0), commit or "")


def marks_text(marks: Mapping[str, int]) -> str:
    """The marks of writers as they stand behind a position."""
    # Sorted, so that equal places have equal texts.
    return "".join(mark_text(name, marks[name]) for name in sorted(marks))


def mark_text(name: str, number: int) -> str:
    """One of them."""
    return f"~{name}.{number}"


def writer_mark(writer: str) -> str:
    """The name of a mark of a writer: a part of its id that is as random as a digest of it, since
    each event of a tail comes with the marks of all writers."""
    return writer[:_MARK_DIGITS]


def writer_mark_sql(column: str) -> str:
    """SQL for the same of a column of writers."""
    return f"left({column}, {_MARK_DIGITS})"


def stream_mark(origin: str) -> str:
    """The name of a mark of a stream, which no writer has."""
    # Hexadecimal digits have no s, with which names of writers could begin.
    return "s" + hashlib.sha256(origin.encode()).hexdigest()[:_MARK_DIGITS]


def is_of_stream(mark: str) -> bool:
    """Whether a mark is one of a stream."""
    return mark.startswith("s")


def branch_digest(lake_id: str, branch: str) -> str:
    """What the positions of a branch begin with."""
    # Eight digits: it only tells apart what one client mixes up.
    return hashlib.sha256(f"{lake_id}\0{branch}".encode()).hexdigest()[:8]
