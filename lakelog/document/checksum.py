"""The checksum of a document, and what it requires.

A document is one JSON object on one line whose last member is `checksum`: the SHA-256 in hex
of the line's bytes with `,"checksum":"..."` taken out. The line ends with one newline.
"""

from __future__ import annotations

import hashlib

import orjson

from lakelog.disk import NotIntact
from lakelog.errors import FormatTooNew
from lakelog.values import JsonObject

_KNOWN = {"encryption", "erasure", "protect"}
"""What this version can, of all that a lake may require (F15.9)."""
_MARK = b',"checksum":"'
TAIL = len(_MARK) + 64 + len(b'"}\n')


def encode(body: JsonObject) -> bytes:
    """Return the bytes of a document with at least one member."""
    line = orjson.dumps(body)
    return line[:-1] + ending(line)


def ending(line: bytes) -> bytes:
    """Return the last bytes of the document whose body is `line`."""
    return _ending(line[:-1])


def _ending(start: bytes | memoryview) -> bytes:
    """The last bytes of the document whose body is `start` and a brace."""
    checksum = hashlib.sha256(start)
    checksum.update(b"}")
    return _MARK + checksum.hexdigest().encode() + b'"}\n'


def check(data: bytes) -> None:
    """Raise NotIntact unless every byte is as written."""
    # Over the bytes as they are: to serialize the JSON again would need a canonical form (F2.2).
    if len(data) <= TAIL or data[-TAIL:] != _ending(memoryview(data)[:-TAIL]):
        raise NotIntact("its checksum does not match")


def decode(data: bytes) -> JsonObject:
    """Return the body. Raises NotIntact unless every byte is as written."""
    check(data)
    try:
        body: JsonObject = orjson.loads(data[:-TAIL] + b"}")
    except orjson.JSONDecodeError:
        raise NotIntact("it is not a JSON object") from None
    return body  # a JSON value that ends with a brace is an object


def split(data: bytes) -> tuple[bytes, bytes]:
    """Return the line of a document and the bytes after it."""
    end = data.find(b"\n") + 1 or len(data)
    return data[:end], data[end:]


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def require_known(requires: object, subject: str) -> None:
    """Refuse what asks for more than this version can (F15.8). Raises FormatTooNew."""
    unknown = requires
    if isinstance(requires, list):
        unknown = [name for name in requires if name not in _KNOWN]
    if unknown:
        names = ", ".join(map(str, unknown)) if isinstance(unknown, list) else str(unknown)
        raise FormatTooNew(f"{subject} requires {names[:80]}: upgrade lakelog")
