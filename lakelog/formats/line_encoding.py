"""Encodings of lines: one that somebody named, such as shift_jis or latin-1; else bytes that are no
UTF-8 are read as Windows-1252, and none is lost.

Lines are cut where their newlines are and decoded one by one, so that positions are those of the
file. That holds for encodings in which ASCII stands for itself, which is nearly all but UTF-16,
UTF-32 and EBCDIC.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import replace

from lakelog.errors import InvalidSetting
from lakelog.formats.format import EventMembers, Format, FormatWrapper
from lakelog.libraries import pa, pc

COLOUR = r"\x1b\[[\d;]*[A-Za-z]"
"""An ANSI code for colours of a terminal."""
_HANDLER = "lakelog-windows-1252"
# All 256 characters, so that every byte sequence decodes, and encodes back to the same bytes.
_OLDER = "".join(
    bytes([b]).decode("cp1252") if b not in b"\x81\x8d\x8f\x90\x9d" else chr(b) for b in range(256)
)
_BYTES = {char: bytes([byte]) for byte, char in enumerate(_OLDER)}
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
"""Controls that no text holds."""
_ASCII = bytes(range(32, 127)) + b"\t\r\n"


class LineEncoding:
    """What the bytes of lines are as UTF-8."""

    OLDER = "windows-1252"
    """The value of `data.encoding` for lines that are not UTF-8."""

    @staticmethod
    def recoded(data: bytes) -> bytes | None:
        """Return text of an older encoding as UTF-8, None where it is UTF-8 already or no text.

        Bytes that are no UTF-8 are read as Windows-1252, the five it leaves undefined as the
        controls of their numbers. No byte is lost: a character of Windows-1252 stands for its byte
        there, any other for its UTF-8. Where that would not hold, all bytes are Windows-1252.
        """
        try:
            data.decode()
        except UnicodeDecodeError:
            if _NO_TEXT.search(data):
                return None
            decoded = data.decode("utf-8", _HANDLER)
            # Mixed text: a real character of Windows-1252 in UTF-8 would come back as one byte.
            if len(decoded) != len(data) and LineEncoding.original(decoded) != data:
                decoded = codecs.charmap_decode(data, "strict", _OLDER)[0]
            return decoded.encode()
        return None

    @staticmethod
    def as_utf8(data: bytes) -> bytes:
        """Return text of an older encoding as UTF-8, all else as it is."""
        return LineEncoding.recoded(data) or data

    @staticmethod
    def uncoloured(lines: pa.Array) -> pa.Array:
        """Return lines without the codes for colours."""
        return pc.replace_substring_regex(lines, COLOUR, "")

    @staticmethod
    def original(decoded: str) -> bytes:
        """Return the bytes of text that was marked as Windows-1252."""
        return b"".join(_BYTES.get(char) or char.encode() for char in decoded)

    @staticmethod
    def codec_of(name: str) -> str:
        """Return Python's name of an encoding. Raises InvalidSetting for what lines cannot be
        in."""
        try:
            codec = codecs.lookup(name)
            # Lines are divided by their bytes first: what spells ASCII otherwise, such as UTF-16,
            # has none.
            is_plain = codec.decode(_ASCII)[0].encode("ascii", "replace") == _ASCII
        except (LookupError, UnicodeError, TypeError, AssertionError):
            is_plain = False
        if not is_plain:
            raise InvalidSetting(
                f"{name!r} is no encoding of lines: write latin-1, cp1252, shift_jis or gb18030"
            )
        return codec.name

    @staticmethod
    def decoded(data: bytes, encoding: str) -> bytes:
        """Return text of an encoding as UTF-8; bytes that are none of its characters are
        escaped. Without an encoding it is what it is."""
        # ISO-2022 switches to other characters by escapes, and has bytes of ASCII for them.
        if not encoding or (data.isascii() and b"\x1b" not in data):
            return data
        return data.decode(encoding, "backslashreplace").encode("utf-8", "replace")


def _older(error: UnicodeError) -> tuple[str, int]:
    """Decode bytes that are not UTF-8 as Windows-1252."""
    assert isinstance(error, UnicodeDecodeError)
    bad = error.object[error.start : error.end]
    return "".join(_OLDER[byte] for byte in bad), error.end


codecs.register_error(_HANDLER, _older)


class EncodedFormat(FormatWrapper):
    """A format whose lines are in an encoding; all else is that of `form`, also its query: it is of
    lines that were decoded before, as the engine reads UTF-8 alone."""

    def __init__(self, form: Format, encoding: str, name: str) -> None:
        super().__init__(form, name, replace(form.traits, encoding=LineEncoding.codec_of(encoding)))
        self._encoding = self.traits.encoding

    def parse(self, line: bytes) -> EventMembers | list[EventMembers]:
        """Return the events of a record. Raises InvalidEvent."""
        return self._form.parse(LineEncoding.decoded(line, self._encoding))

    def parse_own(self, line: bytes) -> EventMembers | list[EventMembers]:
        """Return the events of a record of the format itself. Raises InvalidEvent."""
        return self._form.parse_own(LineEncoding.decoded(line, self._encoding))

    def specialize(self, head: bytes) -> EncodedFormat:
        """Return the format as a file's first bytes define it, in the same encoding."""
        return self.over(lambda form: form.specialize(LineEncoding.decoded(head, self._encoding)))

    def over(self, change: Callable[[Format], Format]) -> EncodedFormat:
        """Return the format that a change makes of the one below, in the same encoding."""
        return EncodedFormat(change(self._form), self._encoding, self.NAME)

    def cheaper(self, lines: list[bytes]) -> list[str]:
        """Return the queries of the format for lines that look like these, once decoded."""
        return self._form.cheaper([LineEncoding.decoded(line, self._encoding) for line in lines])

    def uniform(self, lines: list[bytes]) -> None:
        """None: lines are cut out of the bytes of the file."""
