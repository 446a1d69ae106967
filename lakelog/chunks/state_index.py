"""The index of a saved state directory: what it holds, as JSON, and how it is read (F21.3-F21.5).

Anybody may have made an index, and a few bytes of JSON can take a hundred times as many of memory.
So it is decompressed, counted and parsed in pieces of about a megabyte. A long one is read twice:
first nothing of it is kept but 40 bytes for each entry, until all of it is known to be well-formed.
"""

from __future__ import annotations

import base64
import contextlib
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import orjson

from lakelog.disk import NotIntact
from lakelog.libraries import np
from lakelog.paths import CHUNK, FileName
from lakelog.values import JsonObject

CHUNK_MAX = 8 << 20
"""Bytes of a chunk before compression, at most: a reader holds one in memory."""
INDEX_MAX = 256 << 20
"""Bytes of an index before compression, at most: some 1.6 million files."""
ENTRIES_MAX = 2_000_000
PIECE_BYTES = 1 << 20
_PIECE_MAX = 8 << 20
_CONTAINERS_MAX, _VALUES_MAX = 250_000, 600_000
"""Of one piece. An entry is in one piece, as long as it may be."""
_LONG = 8 << 20
_FORMAT = 2
_SPECIAL = ("pipe", "socket", "device")
LINKABLE = ("file", "link", "pipe", "socket")
"""Of these kinds is what has several names; in format 1 it was a file."""
_NO_XATTRS: dict[bytes, bytes] = {}
# No text has these bytes in it: its quotes are escaped.
_ENTRY_GAP, _CHUNK_GAP, _CHUNKS_OPEN = b'},{"path":', b'],["', b'],"chunks":['
_KINDS = ("dir", "file", "link", "hard", *_SPECIAL)
_PATH_MAX = 4_096
_SIZE_MAX = 1 << 62
Extent = tuple[int, int]
ChunkRef = tuple[str, int]
Content = Callable[[], Iterator[bytes]]
"""Yields the content of an index in parts of at most PIECE_BYTES, from the start each time. Raises
NotIntact, if need be after the last part."""


@dataclass(frozen=True, slots=True)
class StateEntry:
    """A file, directory, link, pipe, socket or device of a state directory; `path` is relative, ""
    for the directory.

    `extents` are the (offset, length) of a file's data, all else being holes. `target` is that of
    a link, or the path of an earlier entry of which this is a hard link. `mtime` and `ctime` are in
    nanoseconds; `ctime` and `inode` only tell the next save whether the file changed.
    """

    path: bytes
    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    extents: tuple[Extent, ...] = ()
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    ctime: int = 0
    inode: int = 0

    @property
    def stored(self) -> int:
        """The bytes of its content."""
        extents = self.extents
        return extents[0][1] if len(extents) == 1 else sum(length for _, length in extents)

    @property
    def is_linkable(self) -> bool:
        """Whether another entry may be a hard link to it."""
        return self.kind in LINKABLE


@dataclass(frozen=True)
class StateIndex:
    """What one state directory holds; `chunks` are (digest, bytes), in the order of the content."""

    entries: tuple[StateEntry, ...]
    chunks: tuple[tuple[str, int], ...]
    EXTENTS_MAX: ClassVar[int] = 100_000
    """Pieces of data of a file at most: a save fills holes of a file that has more."""

    def encode(self) -> bytes:
        """Return the content of an index's file."""
        entries = [_to_json(entry) for entry in self.entries]
        version = _FORMAT if _is_special(self.entries) else 1
        return orjson.dumps({"format": version, "entries": entries, "chunks": self.chunks})


def _is_special(entries: Iterable[StateEntry]) -> bool:
    """Whether readers of format 1 would refuse entries."""
    kinds = {entry.path: entry.kind for entry in entries if entry.kind not in ("dir", "file")}
    hard = (entry.target for entry in entries if entry.kind == "hard")
    return any(entry_kind in _SPECIAL for entry_kind in kinds.values()) or any(
        t in kinds for t in hard
    )


def load(content: Content, length: int) -> StateIndex:
    """Return an index of this many bytes. Raises NotIntact for one that breaks a rule of F21."""
    if length > _LONG:
        _survey(content)
    entries, chunks = list[StateEntry](), list[ChunkRef]()
    with _malformed():
        for members in _pieces(content()):
            entries += map(_from_json, members.get("entries", ()))
            chunks += _chunks(members)
        _check_tree(entries)
        _check_sums(sum(size for _, size in chunks), sum(entry.stored for entry in entries))
    return StateIndex(tuple(entries), tuple(chunks))


def check(content: Content, length: int) -> None:
    """Raise NotIntact where `load` would."""
    (_survey if length > _LONG else lambda content: load(content, 0))(content)


def chunks(content: Content) -> dict[str, int]:
    """Return the chunks that an index names, and no more of it. Raises NotIntact."""
    lengths = dict[str, int]()
    with _malformed():
        for members in _pieces(content()):
            lengths.update(_chunks(members))
    return lengths


@contextlib.contextmanager
def _malformed() -> Iterator[None]:
    try:
        yield
    except NotIntact:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise NotIntact(f"it is malformed ({str(error) or error!r})") from None


# --- pieces --------------------------------------------------------------------------------------


def _pieces(blocks: Iterator[bytes]) -> Iterator[JsonObject]:
    """Yield an index in objects with some of its entries or chunks each, and check its format."""
    version = None
    for line in _texts(blocks):
        containers, values = line.count(b"[") + line.count(b"{"), line.count(b",")
        if containers > _CONTAINERS_MAX or values > _VALUES_MAX:
            raise ValueError("too many values in one place")
        members = orjson.loads(line)
        version = members.get("format", version)
        yield members
    if type(version) is not int or version < 1:
        raise ValueError("no format")
    if version > _FORMAT:
        raise ValueError(f"format {version} is of a later lakelog: upgrade it")


def _texts(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the JSON of the pieces. An index with members in another order than that of F21.3, or
    with white space, is one piece."""
    waiting, opening, gap = b"", b"", _ENTRY_GAP
    for block in blocks:
        waiting += block
        if gap is _ENTRY_GAP and (end := waiting.find(_CHUNKS_OPEN)) >= 0:
            yield opening + waiting[:end] + b"]}"
            waiting = waiting[end + len(_CHUNKS_OPEN) :]
            opening, gap = b'{"chunks":[', _CHUNK_GAP
        if (end := waiting.rfind(gap) + 1) > 0:
            yield opening + waiting[:end] + b"]}"
            waiting = waiting[end + 1 :]
            opening = opening if gap is _CHUNK_GAP else b'{"entries":['
        if len(waiting) > _PIECE_MAX:
            raise ValueError("an entry is too long")
    yield opening + waiting


def _chunks(members: JsonObject) -> list[ChunkRef]:
    listed_chunks = [(_digest(name), _count(size)) for name, size in members.get("chunks", ())]
    if any(not 0 < size <= CHUNK_MAX for _, size in listed_chunks):
        raise ValueError("a chunk of no possible length")
    return listed_chunks


# --- checks --------------------------------------------------------------------------------------


def _survey(content: Content) -> None:
    """Check an index as `load` does, and keep nothing of it."""
    tree, chunk_bytes, file_bytes = _Tree(), 0, 0
    with _malformed():
        for members in _pieces(content()):
            for body in members.get("entries", ()):
                entry = _from_json(body)
                tree.add(entry)
                file_bytes += entry.stored
            chunk_bytes += sum(size for _, size in _chunks(members))
        tree.check()
        _check_sums(chunk_bytes, file_bytes)


class _Tree:
    """The paths of an index as hashes of 64 bits, whose key is this process's own."""

    def __init__(self) -> None:
        self._paths, self._parents, self._targets = array("q"), array("q"), array("q")
        self._is_dir, self._is_linkable = bytearray(), bytearray()

    def add(self, entry: StateEntry) -> None:
        """Add the next entry. Raises ValueError for one that cannot be, whatever is before it."""
        _check_name(entry, is_first=not self._paths)
        if len(self._paths) >= ENTRIES_MAX:
            raise ValueError(f"more than {ENTRIES_MAX:,} entries")
        self._paths.append(hash(entry.path))
        self._parents.append(hash(entry.path.rpartition(b"/")[0]))
        if entry.kind == "hard":
            self._targets.append(hash(entry.target))
        self._is_dir.append(entry.kind == "dir")
        self._is_linkable.append(entry.is_linkable)

    def check(self) -> None:
        """Raise ValueError unless each entry has a parent before it, and all are different."""
        if not self._paths:
            raise ValueError("it has no entries")
        paths = np.frombuffer(self._paths, dtype=np.int64)
        order = np.argsort(paths, kind="stable").astype(np.uint32)
        ascending = paths[order]
        if (ascending[1:] == ascending[:-1]).any():
            raise ValueError("a path is in it twice")
        is_dir = np.frombuffer(self._is_dir, dtype=np.bool_)
        is_linkable = np.frombuffer(self._is_linkable, dtype=np.bool_)
        parents = np.frombuffer(self._parents, dtype=np.int64)[1:]
        indices = self._find(parents, ascending, order)
        if not (
            is_dir[indices] & (paths[indices] == parents) & (indices <= np.arange(len(indices)))
        ).all():
            raise ValueError("an entry is in no directory of it")
        targets = np.frombuffer(self._targets, dtype=np.int64)
        indices = self._find(targets, ascending, order)
        if not (is_linkable[indices] & (paths[indices] == targets)).all():
            raise ValueError("a hard link to no file of it")

    @staticmethod
    def _find(hashes: np.ndarray, ascending: np.ndarray, order: np.ndarray) -> np.ndarray:
        indices = np.searchsorted(ascending, hashes).astype(np.uint32)
        return order[np.minimum(indices, len(order) - 1)]


def _check_tree(entries: Iterable[StateEntry]) -> None:
    """Refuse names that could lead out of the directory, and entries without their parent."""
    kinds: dict[bytes, str] = {}
    for entry in entries:
        if entry.path in kinds:
            raise ValueError(f"{entry.path!r} is in it twice")
        _check_name(entry, is_first=not kinds)
        if kinds and kinds.get(entry.path.rpartition(b"/")[0]) != "dir":
            raise ValueError(f"{entry.path!r} is in no directory of it")
        if entry.kind == "hard" and kinds.get(entry.target) not in LINKABLE:
            raise ValueError(f"{entry.path!r} is a hard link to no file of it")
        kinds[entry.path] = entry.kind
    if not kinds:
        raise ValueError("it has no entries")


def _check_name(entry: StateEntry, *, is_first: bool) -> None:
    name = entry.path.rpartition(b"/")[2]
    if is_first:
        if entry.path or entry.kind != "dir":
            raise ValueError("its first entry is not the directory itself")
    elif name in (b"", b".", b"..") or b"\0" in name or len(name) > 255:
        raise ValueError(f"{entry.path!r} is no possible name")
    elif len(entry.path) > _PATH_MAX:
        raise ValueError("a path that is too long")
    if entry.kind == "link" and (not entry.target or b"\0" in entry.target):
        raise ValueError(f"{entry.path!r} is a link to nothing")


def _check_sums(chunk_bytes: int, file_bytes: int) -> None:
    if chunk_bytes != file_bytes:
        raise ValueError("its chunks are not as long as its files")


# --- entries -------------------------------------------------------------------------------------


def _to_json(entry: StateEntry) -> JsonObject:
    body: dict[str, object] = {"path": _to_text(entry.path), "kind": entry.kind}
    if entry.kind == "hard":
        return body | {"target": _to_text(entry.target)}
    body |= {"mode": entry.mode, "uid": entry.uid, "gid": entry.gid, "mtime": entry.mtime}
    if entry.kind == "link":
        body["target"] = _to_text(entry.target)
    if entry.kind == "file":
        body |= {"size": entry.size, "ctime": entry.ctime, "inode": entry.inode}
        # Most files have no holes; those of which all is data need no list.
        if entry.extents != (((0, entry.size),) if entry.size else ()):
            body["extents"] = entry.extents
    if entry.xattrs:
        pairs = entry.xattrs.items()
        body["xattrs"] = [[_to_text(k), base64.b64encode(v).decode()] for k, v in pairs]
    return body


def _from_json(body: JsonObject) -> StateEntry:
    path, entry_kind = _to_bytes(body["path"]), body["kind"]
    if entry_kind not in _KINDS:
        raise ValueError(f"an entry of kind {entry_kind!r}")
    entry_kind = sys.intern(entry_kind)  # a million entries are read as well
    if entry_kind == "hard":
        return StateEntry(path, entry_kind, target=_to_bytes(body["target"]))
    mtime = body["mtime"]
    if type(mtime) is not int or abs(mtime) > _SIZE_MAX * 2 or not _count(body["mode"]) <= 0o7777:
        raise ValueError("a mode or time that cannot be")
    size = _count(body["size"]) if entry_kind == "file" else 0
    return StateEntry(
        path,
        entry_kind,
        body["mode"],
        _count(body["uid"]),
        _count(body["gid"]),
        mtime,
        size,
        _extents(body, size) if entry_kind == "file" else (),
        _to_bytes(body["target"]) if entry_kind == "link" else b"",
        _xattrs(body["xattrs"]) if "xattrs" in body else _NO_XATTRS,
        body["ctime"] if entry_kind == "file" else 0,
        _count(body["inode"]) if entry_kind == "file" else 0,
    )


def _xattrs(pairs: list[list[str]]) -> dict[bytes, bytes]:
    return {_to_bytes(name): base64.b64decode(value, validate=True) for name, value in pairs}


def _extents(body: JsonObject, size: int) -> tuple[Extent, ...]:
    if "extents" not in body:
        return ((0, size),) if size else ()
    end = 0
    extents = tuple((_count(offset), _count(length)) for offset, length in body["extents"])
    for offset, length in extents:
        if offset < end or not length or offset + length > size:
            raise ValueError("data of a file that overlaps, or lies outside it")
        end = offset + length
    return extents


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _SIZE_MAX * 4:
        raise ValueError(f"{value!r} is no count")
    return value


def _digest(value: object) -> str:
    if not isinstance(value, str) or FileName(value + CHUNK).state is None:
        raise ValueError(f"{value!r} is no digest")
    return value


def _to_text(name: bytes) -> str | dict[str, str]:
    # Names are bytes to the system; JSON is Unicode.
    try:
        return name.decode()
    except UnicodeDecodeError:
        return {"hex": name.hex()}


def _to_bytes(value: str) -> bytes:
    return value.encode() if isinstance(value, str) else bytes.fromhex(value["hex"])
