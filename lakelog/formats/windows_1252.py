"""Text of an older encoding: bytes that are no UTF-8 are read as Windows-1252, and none is lost."""

from __future__ import annotations

import codecs
import re

MARK = "windows-1252"
"""The value of `data.encoding` for lines that are not UTF-8."""
_HANDLER = "lakelog-windows-1252"
# All 256 characters, so that every byte sequence decodes, and encodes back to the same bytes.
_OLDER = "".join(
    bytes([b]).decode("cp1252") if b not in b"\x81\x8d\x8f\x90\x9d" else chr(b) for b in range(256)
)
_BYTES = {char: bytes([byte]) for byte, char in enumerate(_OLDER)}
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
"""Controls that no text holds."""


def recoded(data: bytes) -> bytes | None:
    """Return text of an older encoding as UTF-8, None where it is UTF-8 already or no text.

    Bytes that are no UTF-8 are read as Windows-1252, the five it leaves undefined as the controls
    of their numbers. No byte is lost: a character of Windows-1252 stands for its byte there, any
    other for its UTF-8. Where that would not hold, all bytes are Windows-1252.
    """
    try:
        data.decode()
    except UnicodeDecodeError:
        if _NO_TEXT.search(data):
            return None
        decoded = data.decode("utf-8", _HANDLER)
        # Mixed text: a real character of Windows-1252 in UTF-8 would come back as one byte.
        if len(decoded) != len(data) and original(decoded) != data:
            decoded = codecs.charmap_decode(data, "strict", _OLDER)[0]
        return decoded.encode()
    return None


def as_utf8(data: bytes) -> bytes:
    """Return text of an older encoding as UTF-8, all else as it is."""
    return recoded(data) or data


def original(decoded: str) -> bytes:
    """Return the bytes of text that was marked as Windows-1252."""
    return b"".join(_BYTES.get(char) or char.encode() for char in decoded)


def _older(error: UnicodeError) -> tuple[str, int]:
    """Decode bytes that are not UTF-8 as Windows-1252."""
    assert isinstance(error, UnicodeDecodeError)
    bad = error.object[error.start : error.end]
    return "".join(_OLDER[byte] for byte in bad), error.end


codecs.register_error(_HANDLER, _older)
