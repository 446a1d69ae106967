"""The tags of a registry for the documents of a lake, and back (F8.12)."""

from __future__ import annotations

import re

from lakelog.errors import TransferRefused
from lakelog.store.paths import decode_name

CONFIG, CONFIG_TAG = "lakelog.json", "_lakelog"
_TAG_MAX = 128
TAG = re.compile(
    r"(?P<name>(?:[A-Za-z0-9.-]|__|_[0-9a-f]{2})+)(?:_m(?P<move>\d{1,12})|_s(?P<key>[0-9a-f]{16}))?"
)
PLAIN = re.compile(r"(?:[A-Za-z0-9.-]|__|_[0-9a-f]{2})+")
MOVE = re.compile(r"refs/heads/([^/]+)/(\d{12})\.json")
HINT = re.compile(r"refs/heads/([^/]+)/hint")
SIGNATURE = re.compile(r"refs/signatures/([^/]+)\.([0-9a-f]{16})\.json")
LAKE_TAG = re.compile(r"refs/tags/([^/]+)\.json")


def tag_of(key: str) -> str:
    """Return the tag of a document's key. Raises TransferRefused for a name that is too long."""
    if key == CONFIG:
        return CONFIG_TAG
    if match := MOVE.fullmatch(key):
        return tag_for(decode_name(match[1]), f"_m{int(match[2])}")
    if match := HINT.fullmatch(key) or LAKE_TAG.fullmatch(key):
        return tag_for(decode_name(match[1]))
    match = SIGNATURE.fullmatch(key)
    if match is None:
        raise ValueError(key)
    return tag_for(decode_name(match[1]), f"_s{match[2]}")


def tag_for(name: str, suffix: str = "") -> str:
    """Return the tag of a branch, tag or signature. Raises TransferRefused for one too long."""
    tag = encoded(name) + suffix
    if len(tag) > _TAG_MAX:
        raise TransferRefused(f"{name[:40]!r}… is too long a name for a registry: choose another")
    return tag


def encoded(name: str) -> str:
    """Return a name in the characters that registries take."""
    encoded_name = re.sub(
        r"[^A-Za-z0-9.-]",
        lambda m: "__" if m[0] == "_" else "".join(f"_{byte:02x}" for byte in m[0].encode()),
        name,
    )
    return (
        f"_{ord(encoded_name[0]):02x}{encoded_name[1:]}"
        if encoded_name[0] in ".-"
        else encoded_name
    )


def decoded(encoded_name: str) -> str:
    """Return the name that `encoded` was given. Raises UnicodeDecodeError."""
    raw = re.sub(r"__|_([0-9a-f]{2})", lambda m: chr(int(m[1], 16)) if m[1] else "_", encoded_name)
    return raw.encode("latin-1").decode()
