"""Lines in an encoding that somebody named, such as shift_jis or latin-1.

Lines are cut where their newlines are and decoded one by one, so that positions are those of the
file. That holds for encodings in which ASCII stands for itself, which is nearly all but UTF-16,
UTF-32 and EBCDIC.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import replace

from lakelog.errors import InvalidSetting
from lakelog.formats.format import EventMembers, Format, FormatWrapper

_ASCII = bytes(range(32, 127)) + b"\t\r\n"


def codec_of(name: str) -> str:
    """Return Python's name of an encoding. Raises InvalidSetting for what lines cannot be in."""
    try:
        codec = codecs.lookup(name)
        # Lines are divided by their bytes first: what spells ASCII otherwise, such as UTF-16, has
        # none.
        is_plain = codec.decode(_ASCII)[0].encode("ascii", "replace") == _ASCII
    except (LookupError, UnicodeError, TypeError, AssertionError):
        is_plain = False
    if not is_plain:
        raise InvalidSetting(
            f"{name!r} is no encoding of lines: write latin-1, cp1252, shift_jis or gb18030"
        )
    return codec.name


def decoded(data: bytes, encoding: str) -> bytes:
    """Return text of an encoding as UTF-8; bytes that are none of its characters are escaped."""
    # ISO-2022 switches to other characters by escapes, and has bytes of ASCII for them.
    if data.isascii() and b"\x1b" not in data:
        return data
    return data.decode(encoding, "backslashreplace").encode("utf-8", "replace")


class EncodedFormat(FormatWrapper):
    """A format whose lines are in an encoding; all else is that of `form`."""

    def __init__(self, form: Format, encoding: str, name: str) -> None:
        super().__init__(form, name, replace(form.traits, encoding=codec_of(encoding)))
        self._encoding = self.traits.encoding

    def parse(self, line: bytes) -> EventMembers | list[EventMembers]:
        """Return the events of a record. Raises InvalidEvent."""
        return self._form.parse(decoded(line, self._encoding))

    def parse_own(self, line: bytes) -> EventMembers | list[EventMembers]:
        """Return the events of a record of the format itself. Raises InvalidEvent."""
        return self._form.parse_own(decoded(line, self._encoding))

    def specialize(self, head: bytes) -> EncodedFormat:
        """Return the format as a file's first bytes define it, in the same encoding."""
        return self.over(lambda form: form.specialize(decoded(head, self._encoding)))

    def over(self, change: Callable[[Format], Format]) -> EncodedFormat:
        """Return the format that a change makes of the one below, in the same encoding."""
        return EncodedFormat(change(self._form), self._encoding, self.NAME)

    def _query(self) -> str:
        # Of lines that were decoded before: the engine reads UTF-8 alone.
        return self._form.QUERY

    def cheaper(self, lines: list[bytes]) -> list[str]:
        """Return the queries of the format for lines that look like these, once decoded."""
        return self._form.cheaper([decoded(line, self._encoding) for line in lines])

    def uniform(self, lines: list[bytes]) -> None:
        """None: lines are cut out of the bytes of the file."""
