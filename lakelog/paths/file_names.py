"""The name of a file in a lake, and what it says.

Branch and tag names are percent-encoded to [a-z0-9._-], upper case too, so that case-blind disks
keep them apart.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from lakelog.errors import InvalidName

# Directories of 1/256 of the objects each, made when the first object comes.
_HEX_DIRS = frozenset(f"{i:02x}" for i in range(256))
_WAL = re.compile(r"([0-9a-f]{32})-(\d{6})\.jsonl\.zst")
_MOVE = re.compile(r"(\d{12})\.json")
_PACKED = re.compile(r"packed-(\d{12})-(\d{12})\.jsonl\.zst")
_STATE = re.compile(r"([0-9a-f]{64})(\.chunk\.zst|\.json\.zst)")
_DIGEST = re.compile(r"([0-9a-f]{64})\.(parquet|ids|json\.zst)")


@functools.lru_cache(1024)
def encode_name(name: str) -> str:
    """Return the file name of a branch or tag. Raises InvalidName for one that cannot be used."""
    if not name or name != name.strip() or name.startswith(("-", "@")):
        raise InvalidName(
            f"{name!r} cannot be a name: it is empty, or starts with - or @, or a space"
        )
    if re.search(r"[\x00-\x1f\x7f\"]", name) or "~" in name:
        raise InvalidName(f"{name!r} cannot be a name: no quotes, tildes or control characters")
    # `resolve` tries names first, so such a name would hide a time or a snapshot id for ever.
    if re.match(r"\d{4}-\d{2}-\d{2}", name) or re.fullmatch(r"[0-9a-f]{8,64}", name):
        raise InvalidName(f"{name!r} cannot be a name: it reads like a time or a snapshot id")
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        raise InvalidName(f"{name!r} cannot be a name: not valid Unicode") from None
    encoded = _escaped(raw)
    # File names may have 255 bytes, and a suffix has to fit.
    if len(encoded) > 200:
        raise InvalidName(f"{name[:30]!r}... cannot be a name: too long")
    return encoded


def _escaped(raw: bytes) -> str:
    # Upper case is escaped too: on a file system that ignores case `Main` and `main` stay apart.
    safe = b"abcdefghijklmnopqrstuvwxyz0123456789._-"
    escaped = "".join(chr(c) if c in safe else f"%{c:02x}" for c in raw)
    # A leading dot would look like a temporary file, or be `..`.
    return "%2e" + escaped[1:] if escaped.startswith(".") else escaped


class FileName(str):
    """The last part of a path; what it is not the name of is None."""

    __slots__ = ()

    @classmethod
    def of(cls, path: str) -> FileName:
        """Return the name at the end of a path or of a key."""
        return cls(path.rpartition("/")[2])

    @property
    def wal(self) -> tuple[str, int] | None:
        """The (writer, n) of a WAL file."""
        match = _WAL.fullmatch(self)
        return (match[1], int(match[2])) if match else None

    @property
    def move(self) -> int | None:
        """The number of a move."""
        match = _MOVE.fullmatch(self)
        return int(match[1]) if match else None

    @property
    def packed(self) -> tuple[int, int] | None:
        """The (first, last) of packed moves."""
        match = _PACKED.fullmatch(self)
        return (int(match[1]), int(match[2])) if match else None

    @property
    def digest(self) -> str | None:
        """The digest of an object."""
        match = _DIGEST.fullmatch(self)
        return match[1] if match else None

    @property
    def state(self) -> tuple[str, str] | None:
        """The (digest, ending) of a chunk or index of state directories."""
        match = _STATE.fullmatch(self)
        return (match[1], match[2]) if match else None

    @property
    def ref(self) -> str:
        """The branch or tag that is encoded so."""
        # Latin-1 maps each byte to the character of its number, so the UTF-8 can be put together
        # again.
        raw = re.sub(r"%([0-9a-f]{2})", lambda m: chr(int(m[1], 16)), self)
        return raw.encode("latin-1", "replace").decode("utf-8", "replace")

    @property
    def is_ref(self) -> bool:
        """Whether it can be that of a branch or tag; `lost+found` cannot, nor `.DS_Store`."""
        try:
            return encode_name(self.ref) == self
        except InvalidName:
            return False


class FileNames:
    """The names in a folder: what those of each kind say."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(map(FileName, names))

    @property
    def wals(self) -> list[tuple[str, int]]:
        """The (writer, n) of the WAL files."""
        return [wal for name in self._names if (wal := name.wal)]

    @property
    def moves(self) -> list[int]:
        """The numbers of the moves, which count from 1."""
        return [number for name in self._names if (number := name.move)]

    @property
    def packs(self) -> list[tuple[int, int]]:
        """The (first, last) of the files of packed moves."""
        return [span for name in self._names if (span := name.packed)]

    @property
    def digests(self) -> list[str]:
        """The digests of the objects."""
        return [digest for name in self._names if (digest := name.digest)]

    @property
    def refs(self) -> list[str]:
        """The branches that are encoded so."""
        return [name.ref for name in self._names if name.is_ref]

    @property
    def tags(self) -> list[str]:
        """The tags, or remotes, whose files these are."""
        return FileNames(n[:-5] for n in self._names if n.endswith(".json")).refs

    @property
    def hex_dirs(self) -> list[str]:
        """Those of the names that directories of objects have, sorted."""
        return sorted(_HEX_DIRS.intersection(self._names))
