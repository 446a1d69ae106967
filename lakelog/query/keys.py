"""Keys: by which columns, or fields of `data`, two events are the same; as SQL.

A name is an envelope column, `data.FIELD` (nested: `data.a.b`) or `content`, which stands for all
that an event says: every column but when and how it was taken in. Values are compared as stored;
fields of `data` by their text. A null equals a null, but an event that has none of the key's
values has no key: it is nobody's duplicate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lakelog.errors import InvalidSetting
from lakelog.store.segment import EVENT_COLUMNS

CONTENT = ("time", "type", "category", "source", "subject", "level", "message", "data", "id")


@dataclass(frozen=True)
class Key:
    """Names of a key and their SQL, in the same order."""

    names: tuple[str, ...]
    parts: tuple[str, ...]

    @property
    def hash(self) -> str:
        """SQL of 64 bits that equal keys share."""
        return f"hash({', '.join(self.parts)})"

    @property
    def given(self) -> str:
        """SQL that says whether an event has a key."""
        return "(" + " OR ".join(f"{part} IS NOT NULL" for part in self.parts) + ")"


def key_of(by: str | Sequence[str]) -> Key:
    """Return the key of these names. Raises InvalidSetting for an unknown or missing name."""
    names: list[str] = []
    for name in [by] if isinstance(by, str) else by:
        for part in (part.strip() for part in str(name).split(",")):
            names += CONTENT if part == "content" else [part] if part else []
    if not names:
        raise InvalidSetting("nothing to dedupe by: name columns, fields of data, or content")
    names = list(dict.fromkeys(names))
    return Key(tuple(names), tuple(map(part_of, names)))


def part_of(name: str) -> str:
    """Return the SQL of one name. Raises InvalidSetting."""
    if name in EVENT_COLUMNS:
        return name
    head, _, path = name.partition(".")
    fields = path.split(".")
    if head != "data" or not all(fields) or '"' in path or "\\" in path:
        names = ", ".join(EVENT_COLUMNS)
        raise InvalidSetting(f"no column {name!r}: choose from {names}, content or data.FIELD")
    steps = "".join(f'."{field}"' for field in fields).replace("'", "''")
    return f"CASE WHEN json_valid(data) THEN json_extract_string(data, '${steps}') END"
