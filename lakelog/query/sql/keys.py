"""Keys: by which columns, or fields of `data`, two events are the same; as SQL.

A name is an envelope column, `data.FIELD` (nested: `data.a.b`) or `content`, which stands for all
that an event says: every column but when and how it was taken in. Values are compared as stored;
fields of `data` by their text. An event without one of the key's values has no key: it is nobody's
duplicate. With `nulls` a null equals a null, and only an event that has none of the values has no
key; within `content` it always does, for most events leave some columns empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lakelog.errors import InvalidSetting
from lakelog.event import EVENT_COLUMNS
from lakelog.runtime.closest import did_you_mean
from lakelog.sql import member_paths

CONTENT = ("time", "type", "category", "source", "subject", "level", "message", "data", "id")


@dataclass(frozen=True)
class EventKey:
    """Names of a key and their SQL, in the same order."""

    names: tuple[str, ...]
    parts: tuple[str, ...]
    needed: tuple[str, ...] = ()
    """SQL of the parts without which an event has no key; one of `parts` where it is empty."""

    @property
    def hash(self) -> str:
        """SQL of 64 bits that equal keys share."""
        return f"hash({', '.join(self.parts)})"

    @property
    def given(self) -> str:
        """SQL that says whether an event has a key."""
        mark, columns = ("AND", self.needed) if self.needed else ("OR", self.parts)
        return "(" + f" {mark} ".join(f"{column} IS NOT NULL" for column in columns) + ")"

    @classmethod
    def of(cls, by: str | Sequence[str], nulls: bool = False) -> EventKey:
        """Return the key of these names. Raises InvalidSetting for an unknown or missing name."""
        names: list[str] = []
        needed: list[str] = []
        for name in [by] if isinstance(by, str) else by:
            for key_name in (key_name.strip() for key_name in str(name).split(",")):
                names += CONTENT if key_name == "content" else [key_name] if key_name else []
                # content compares columns of which most may be empty: none of them is needed.
                needed += [key_name] if key_name and key_name != "content" and not nulls else []
        if not names:
            raise InvalidSetting("nothing to dedupe by: name columns, fields of data, or content")
        names = list(dict.fromkeys(names))
        return cls(tuple(names), tuple(map(cls.part, names)), tuple(map(cls.part, needed)))

    @staticmethod
    def part(name: str) -> str:
        """Return the SQL of one name. Raises InvalidSetting."""
        if name in EVENT_COLUMNS:
            return name
        head, _, path = name.partition(".")
        if head != "data" or not all(path.split(".")):
            names = ", ".join(EVENT_COLUMNS)
            hint = did_you_mean(name, [*EVENT_COLUMNS, "content"])
            hint = hint or f"choose from {names}, content or data.FIELD"
            raise InvalidSetting(f"no column {name!r}: {hint}")
        # A payload that is no JSON has no fields, and must not fail the query.
        members = [f"json_extract_string(data, {place})" for place in member_paths(path)]
        value = members[0] if len(members) == 1 else f"coalesce({', '.join(members)})"
        return f"CASE WHEN json_valid(data) THEN {value} END"
