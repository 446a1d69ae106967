"""Names of rotated logs: what logrotate, logging handlers, daemons and shells make of them."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

_PACKED = (".gz", ".zst", ".bz2", ".xz")
_MONTH = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DATE = (
    r"\d{6,14}|\d{4}[-._]\d\d[-._]\d\d|\d\d-\d\d-\d{4}"
    rf"|\d{{1,2}}[-_.]?(?:{_MONTH})[a-z]*[-_.]?\d{{2,4}}"
)
# Two suffixes at most, such as app.log-20240101.1. WebLogic puts five digits right behind `.log`.
_SUFFIX = (
    rf"(?:\.\d{{1,3}}|[._-]{{1,2}}(?:{_DATE})(?:[-_.T]?\d[\d:._-]*)?"
    r"|\.(?:old|bak|prev|save|orig)|-old|(?<=\.log)\d{5}){1,2}"
)
_ROTATED = re.compile(
    rf"(?P<stem>.+?){_SUFFIX}(?P<ending>\.[a-z]\w{{0,9}})?", re.ASCII | re.IGNORECASE
)
# svlogd and multilog rename `current` to the time of the rename (TAI64N).
_CURRENT = re.compile(r"@[0-9a-f]{24}\.[su]")
# Whatever rotation puts behind a name: numbers, dates in words, zones, and what says `earlier`.
_WORD = (
    rf"\d++|(?:{_MONTH})[a-z]{{0,6}}|(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{{0,6}}|[ap]m|utc|gmt|[tz]"
    r"|old(?:er)?|bak|backup|prev(?:ious)?|saved?|orig|archived?|rotated?|copy|last|closed|done"
)
_ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")
# Possessive, as a name may be 255 digits long.
_BEHIND = re.compile(rf"(?:[-._:@+~ ]*+(?:{_WORD}))*+[-._~]*+", re.ASCII | re.IGNORECASE)


@functools.lru_cache(4096)
def base_name(path: str) -> str:
    """The name of a log without its directory and the suffixes of rotation and compression."""
    name = unpacked(os.path.basename(path))
    if _CURRENT.fullmatch(name):
        return "current"
    match = _ROTATED.fullmatch(name)
    return match["stem"] + (match["ending"] or "") if match else name


def relation(old: str, new: str) -> int:
    """How a name follows from another one: 3 as its compressed form, 2 by rotation, 1 as the same
    name or one of the same log, in whatever directory, 0 not at all."""
    old_name, new_name = unpacked(os.path.basename(old)), unpacked(os.path.basename(new))
    base = base_name(new)
    if base_name(old) != base:
        return 0
    if os.path.basename(old) == os.path.basename(new) or new_name == base:
        return 1
    if old_name == new_name:
        return 3
    if old_name == base:
        return 2
    numbers = [re.fullmatch(r"\.(\d+)", name.removeprefix(base)) for name in (old_name, new_name)]
    # Rotation only counts up: app.log.1 becomes app.log.2, never the other way round.
    ordered = all(numbers) and int(numbers[0][1]) <= int(numbers[1][1])  # type: ignore[index]
    return 2 if ordered else 1


def unpacked(name: str) -> str:
    """A name without the ending of a compression."""
    for suffix in _PACKED:
        name = name.removesuffix(suffix)
    return name


def printable(name: str) -> str:
    """A file's name as text that can be written anywhere; bytes that are no text are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class LogName:
    """The name of a log, with or without its directory."""

    path: str

    @property
    def base(self) -> str:
        """See base_name."""
        return base_name(self.path)

    @property
    def is_rotated(self) -> bool:
        """Whether it is that of a rotated or compressed log."""
        return self.base != os.path.basename(self.path)

    @property
    def is_packed(self) -> bool:
        """Whether it has the ending of a compression."""
        return self.path.endswith(_PACKED)

    def is_copy_of(self, original: str) -> bool:
        """Whether it is that of a copy or a compressed form of a file at another path."""
        name, copy_name = os.path.basename(original), os.path.basename(self.path)
        return name != copy_name and name in (unpacked(copy_name), self.base)

    def packs(self, original: str) -> bool:
        """Whether it is that of a compressed form of a file that was at another path, which may
        have been renamed by rotation before."""
        is_rotated = relation(original, self.path) >= 2
        return self.is_packed and (is_rotated or self.is_copy_of(original))

    @property
    def on_disk(self) -> str:
        """The path of a file whose name was made printable, its bytes that are no UTF-8 escaped.
        A path that exists as it is written is that one."""
        if "\\x" not in self.path or os.path.lexists(self.path):
            return self.path
        path = os.fsdecode(_ESCAPED.sub(lambda m: bytes([int(m[1], 16)]), os.fsencode(self.path)))
        return path if os.path.lexists(path) else self.path

    def stems(self) -> Iterator[str]:
        """The name, then without a compression's ending, then every name of which rotation may have
        made it."""
        yield self.path
        plain = unpacked(self.path)
        yield plain
        yield self.base
        # Only where a word of the name ends, and what follows is of the kind that rotation adds.
        for end in range(len(plain) - 1, 0, -1):
            if not plain[end].isalpha() and _BEHIND.fullmatch(plain, end):
                yield plain[:end]
