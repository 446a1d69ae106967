"""The export format of systemd's journal: one field per line, a blank line between entries.

A field is NAME=text, or where its value holds other bytes NAME, then its length in 64 bits,
little end first, then the bytes. Entries mean what they mean in the journal's JSON, as which they
are read: a field that is there several times is a list, one that is no text a list of bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from lakelog.errors import InvalidEvent
from lakelog.formats.dialects import NAMED
from lakelog.formats.format import EventMembers, Format, Traits
from lakelog.values import JsonObject, to_json

_FIELD = "[A-Za-z_][A-Za-z0-9_]*"
_FIRST = re.compile(rb"\s*(__CURSOR|__REALTIME_TIMESTAMP|__SEQNUM)=[^\n]*\n")
_TIMED = re.compile(rb"(?m)^__REALTIME_TIMESTAMP=[0-9]+\r?$")
_NAME_MAX = 1024
"""Bytes of a field's name with the length of its value; systemd allows 64 of a name."""
_LINE = f"^{_FIELD}=[^\\x00-\\x08\\x0b-\\x1f]*$"


def _as_json(lines: str) -> str:
    """SQL for entries of text alone as JSON."""
    # What Python strips: the exact rule has to see the same entry.
    blank = "' ' || chr(9) || chr(10) || chr(11) || chr(12) || chr(13)"
    trimmed = f"trim(line, {blank})"
    fields = f"list_filter(string_split({trimmed}, chr(10)), lambda f: f <> '')"
    pairs = "list_transform(parts, lambda f: [f[:strpos(f, '=') - 1], f[strpos(f, '=') + 1:]])"
    member = "to_json(p[1])::VARCHAR || ':' || to_json(p[2])::VARCHAR"
    members = f"list_transform(pairs, lambda p: {member})"
    return f"""(SELECT '{{' || array_to_string({members}, ',') || '}}' AS line, position
      FROM (SELECT position, {pairs} AS pairs FROM (
        SELECT position, {fields} AS parts FROM {lines})
        WHERE len(list_filter(parts, lambda f: NOT regexp_full_match(f, '{_LINE}'))) = 0))"""


_TRAITS = Traits(begins="^__CURSOR=", whole=True, binary=True)


@dataclass(frozen=True, eq=False)
class JournalExport(Format):
    """The format; `traits.begins` is how the entries of a file begin."""

    about: str
    traits: Traits = _TRAITS
    NAME = "journald-export"

    def _query(self) -> str:
        return NAMED["journald"].query(_as_json("lines"))

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these are entries of the journal."""
        head = b"\n".join(lines)
        return 1.0 if _FIRST.match(head) and _TIMED.search(head) else 0.0

    def specialize(self, head: bytes) -> JournalExport:
        """Return the form for a file by the field with which it begins."""
        entry = _FIRST.match(head)
        if not entry:
            return self
        return replace(self, traits=replace(self.traits, begins=f"^{entry[1].decode()}="))

    def parse(self, record: bytes) -> EventMembers:
        """Return the event of an entry. Raises InvalidEvent."""
        values = self.values_of(record)
        if "__REALTIME_TIMESTAMP" not in values:
            raise InvalidEvent("not a journal entry: it has no __REALTIME_TIMESTAMP")
        return NAMED["journald"].event({k: to_json(v) for k, v in values.items()})

    @staticmethod
    def values_of(entry: bytes) -> JsonObject:
        """Return the fields of an entry as the journal's JSON has them. Raises InvalidEvent."""
        values: JsonObject = {}
        for name, value in _fields(entry):
            if name not in values:
                values[name] = value
            elif isinstance(values[name], _RepeatedValues):
                values[name].append(value)
            else:
                values[name] = _RepeatedValues([values[name], value])
        return values

    @staticmethod
    def split(data: bytes, *, is_end: bool = False) -> tuple[list[bytes], bytes]:
        """Cut what `journalctl -o export` prints into entries; also return the rest, of an entry
        that goes on. At the end of it there is none."""
        entries, begin, position = list[bytes](), 0, 0
        while (end := data.find(b"\n", position)) >= 0:
            line, start, position = data[position:end], position, end + 1
            if not line:
                entries += [data[begin:start]] if start > begin else []
                begin = position
            elif b"=" not in line:
                # A binary value, which may hold blank lines.
                size = int.from_bytes(data[position : position + 8], "little")
                position += 8 + size + 1
                if position > len(data):
                    break
        remainder = data[begin:]
        if is_end and remainder.strip():
            return [*entries, remainder], b""
        return entries, remainder

    @staticmethod
    def stub(beginning: bytes) -> tuple[bytes, int]:
        """Return what can stand for the beginning of an entry that is not kept: `split` finds the
        same end of the entry behind it, once so many more bytes of a value are left out."""
        position = 0
        while (end := beginning.find(b"\n", position)) >= 0:
            if b"=" in beginning[position:end]:
                position = end + 1
            elif end + 9 > len(beginning):
                break
            else:
                size = int.from_bytes(beginning[end + 1 : end + 9], "little")
                position = end + 9 + size + 1
                if position > len(beginning):
                    return b"N=", position - 1 - len(beginning)
        remainder = beginning[position:]
        # Of a field that goes on its name decides how, if that is what is there.
        is_text = b"=" in remainder or len(remainder) > _NAME_MAX
        return (b"N=", 0) if is_text else (b"N=\n" + remainder, 0)


FORM = JournalExport(__doc__)


class _RepeatedValues(list):  # type: ignore[type-arg]
    """The values of a field that is there several times."""


def _fields(entry: bytes) -> list[tuple[str, Any]]:
    """The fields of an entry in their order. Raises InvalidEvent."""
    fields, position = [], 0
    while position < len(entry):
        end = entry.find(b"\n", position)
        end = len(entry) if end < 0 else end
        line, start, position = entry[position:end], position, end + 1
        if not line.strip():
            continue
        name, sign, value = line.partition(b"=")
        if not sign:
            size = int.from_bytes(entry[position : position + 8], "little")
            # white space at an entry's end is not handed on, so its last field may lack some
            value = entry[position + 8 : position + 8 + size]
            missing = size - len(value)
            # More than a few missing bytes is a field that was cut off.
            if missing > 0 and (missing > 64 or position + 8 > len(entry)):
                raise InvalidEvent(f"a field at byte {start} is cut short")
            value, position = value + b"\n" * max(missing, 0), position + 9 + size
        if not re.fullmatch(_FIELD.encode(), name):
            raise InvalidEvent(f"not a journal field at byte {start}")
        fields.append((name.decode(), _value(value)))
    return fields


def _value(value: bytes) -> Any:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return list(value)
