"""How far a subscription came in a branch.

Events are handed out in windows of whole segments, and within one by arrival: a seal numbers its
events writer by writer, so that of one subject a later event may have a lower number. All events
below `seq` were handled; within a window that ends at `upto`, those up to (`time`, `last_seq`),
which are the arrival and the number of the last.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import orjson

from lakelog.errors import InvalidSetting
from lakelog.event.types import JsonObject

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

    def members(self) -> JsonObject:
        """The position as a manifest has it; what follows `seq` only within a window."""
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
    """A position for a program's own database: which lake, branch and generation it is of."""

    lake: str
    branch: str
    generation: int
    seq: int
    upto: int = 0
    time: int = 0
    last_seq: int = -1

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
            return cls(**orjson.loads(token))
        except (orjson.JSONDecodeError, TypeError):
            raise InvalidSetting(
                f"{token[:80]!r} is not the position of a batch: give what `batch.position` was"
            ) from None
