"""A payload of which some members are sealed: they are taken out of its text, and come back into it
byte for byte.

What is taken out is one text: `c` and the places of the members, such as `c0,2`, then the members
as an object. The payload is then as orjson writes it, and so is every piece. Of any other payload
the text is `=` and the whole payload. The exact text of a payload (F3.13) goes with them. What
stays has one member more, the last one, named `$sealed`: its text is a ciphertext, or the place of
one (F25.3).
"""

from __future__ import annotations

import binascii
import json
from typing import Any

import orjson

MEMBER = "$sealed"
_EXACT = "lakelog_exact"
"""Member with the whole text of a payload, protected members included (F3.13)."""
GONE = ""
"""What stands for a ciphertext whose key was destroyed, once the row was written again."""
_MARK = b'"$sealed":"'
_END = b'"}'
_SCAN = json.JSONDecoder().raw_decode
_SpelledMembers = list[tuple[str, str]]
"""Names and values of an object, the values as they are spelled."""


def split(data: bytes, names: frozenset[str]) -> tuple[bytes, bytes] | None:
    """Return the payload without some members, and the text to be sealed; None where it has none of
    them."""
    try:
        members = orjson.loads(data)
        if not isinstance(members, dict) or names.isdisjoint(members):
            return None
        names |= {_EXACT}
        # Only what orjson writes back to the same bytes may be put together again from its members.
        is_plain = orjson.dumps(members) == data
    except (TypeError, ValueError):
        is_plain = False
    if not is_plain:
        return split_whole(data, names)
    places = [str(place) for place, name in enumerate(members) if name in names]
    secret_members = {name: members.pop(name) for name in list(members) if name in names}
    head = f"c{','.join(places)}".encode()
    return orjson.dumps(members), head + orjson.dumps(secret_members)


def split_whole(data: bytes, names: frozenset[str]) -> tuple[bytes, bytes] | None:
    """The same, with the whole payload as the text: of one that orjson would write otherwise."""
    try:
        members = _members(data.decode())
    except (ValueError, RecursionError):
        # Nobody can tell what is in it.
        return b"{}", b"=" + data
    if members is None or all(name not in names for name, _ in members):
        return None
    names |= {_EXACT}
    stays = (f"{json.dumps(name)}:{value}" for name, value in members if name not in names)
    return f"{{{','.join(stays)}}}".encode(), b"=" + data


def _members(encoded: str) -> _SpelledMembers | None:
    """Return the members of the object that a JSON text is, None of another value. Raises
    ValueError, RecursionError."""
    encoded = encoded.strip()
    if not encoded.startswith("{"):
        return None
    members, index = _SpelledMembers(), _skip(encoded, 1)
    while encoded[index : index + 1] != "}":
        name, index = _SCAN(encoded, index)
        index = _skip(encoded, _skip(encoded, index) + 1)
        start = index
        _, index = _SCAN(encoded, index)
        members.append((name, encoded[start:index]))
        index = _skip(encoded, index)
        if encoded[index : index + 1] == ",":
            index = _skip(encoded, index + 1)
        elif encoded[index : index + 1] != "}":
            raise ValueError(encoded)
    return members


def _skip(encoded: str, index: int) -> int:
    while encoded[index : index + 1] in (" ", "\t", "\r", "\n"):
        index += 1
    return index


def with_token(stays: bytes, token: str) -> bytes:
    """Return a payload without its sealed members, with a token that stands for them."""
    comma = b"," if len(stays) > 2 else b""
    return b"".join((stays[:-1], comma, _MARK, token.encode(), _END))


def without_token(data: bytes) -> tuple[bytes, str] | None:
    """Return what stays of a payload, and its token; None of one without."""
    index = data.rfind(_MARK)
    token = data[index + len(_MARK) : -len(_END)]
    if index < 1 or not data.endswith(_END) or b'"' in token or b"\\" in token:
        return None
    before = data[:index]
    if before[-1:] not in (b"{", b","):
        return None
    return (before if before[-1:] == b"{" else before[:-1]) + b"}", token.decode("ascii", "replace")


def joined(stays: bytes, sealed: bytes) -> bytes:
    """Return the payload of which `split` gave these. Raises ValueError."""
    if sealed[:1] == b"=":
        return sealed[1:]
    places, brace, encoded = sealed[1:].partition(b"{")
    secret_members = iter(orjson.loads(brace + encoded).items())
    # The order of members is that of the writer: proofs are over the bytes.
    indexes, members = set(map(int, places.split(b","))), orjson.loads(stays)
    plain_members = iter(members.items())
    order = range(len(members) + len(indexes))
    whole: dict[str, Any] = dict(
        next(secret_members if index in indexes else plain_members) for index in order
    )
    return orjson.dumps(whole)


def token_of(ciphertext: bytes) -> str:
    """Return the token that is a ciphertext itself."""
    return "v" + binascii.b2a_base64(ciphertext, newline=False).decode()


def ciphertext_of(token: str) -> bytes | None:
    """Return the ciphertext that a token is, None of one that names its place. Raises
    ValueError."""
    return binascii.a2b_base64(token[1:], strict_mode=True) if token[:1] == "v" else None


def place_of(token: str) -> tuple[bytes, int]:
    """Return the id of the block that a token names, and the number in it. Raises ValueError."""
    name, dot, number = token[1:].partition(".")
    if token[:1] != "b" or not dot:
        raise ValueError(token)
    return binascii.a2b_base64(name, strict_mode=True), int(number)


def place_token(block_id: bytes, number: int) -> str:
    """Return the token that names a place in a block."""
    return f"b{binascii.b2a_base64(block_id, newline=False).decode()}.{number}"
