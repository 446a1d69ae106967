"""Saved state directories: an index of what a directory holds, and chunks of its files (F21).

    states/<2 hex>/<digest>.json.zst     an index: entries in path order, then chunks in order
    states/<2 hex>/<digest>.chunk.zst    a piece of the content

The content of a directory is that of its files, back to back in the order of the entries, and is
cut into chunks wherever the writer likes. Either file is one zstd frame that states its length, and
a seal: a zstd skippable frame (magic 0x184D2A5D, size 36, "LKS1") with the SHA-256 of all before
its 32 bytes. The digest in the name is that of the content before compression, so equal content
has one file, however it was compressed. A manifest names an index by an entry `state`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import zstandard

from lakelog.errors import DamagedState
from lakelog.store import disk, document
from lakelog.store.entry import Record
from lakelog.store.manifest import Manifest, Manifests
from lakelog.store.paths import CHUNK, INDEX, Paths, parse_state

CHUNK_MAX = 8 << 20
"""Bytes of a chunk before compression, at most: a reader holds one in memory."""
INDEX_MAX = 256 << 20
"""Bytes of an index before compression, at most: some 1.6 million files."""
LEVEL = 3
_RATIO_MAX = 100
"""An index that claims to be longer than its file by more than this is refused unread."""
_SEAL = struct.pack("<II4s", 0x184D2A5D, 36, b"LKS1")
_SEAL_BYTES = len(_SEAL) + 32
_FORMAT = 1
_NO_XATTRS: dict[bytes, bytes] = {}
_BETWEEN = b'},{"path":'
_PIECE_BYTES = 1 << 20
_KINDS = ("dir", "file", "link", "hard")
_PATH_MAX = 4_096
_SIZE_MAX = 1 << 62
Extent = tuple[int, int]


@dataclass(frozen=True)
class StateRecord:
    """A state directory of a snapshot: `label` names it, `path` is where it was, `bytes` those of
    its files without holes, `captured_at` when the save began (us). `deployment` says in which
    revision of one it was saved: `name`, `namespace`, `hash`, `image`, or nothing."""

    label: str
    index: str
    path: str
    bytes: int
    files: int
    captured_at: int
    deployment: dict[str, str] = field(default_factory=dict)

    def entry(self) -> Record:
        """Return the manifest's entry."""
        names = ("index", "path", "bytes", "files", "captured_at")
        members = {name: getattr(self, name) for name in names}
        if self.deployment:
            members["deployment"] = self.deployment
        return Record("state", self.label, members)


@dataclass(frozen=True, slots=True)
class StateEntry:
    """A file, directory or link of a state directory; `path` is relative, "" for the directory.

    `extents` are the (offset, length) of a file's data, all else being holes. `target` is that of
    a link, or the path of an earlier file of which this is a hard link. `mtime` and `ctime` are in
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
        return sum(length for _, length in self.extents)


@dataclass(frozen=True)
class StateIndex:
    """What one state directory holds; `chunks` are (digest, bytes), in the order of the content."""

    entries: tuple[StateEntry, ...]
    chunks: tuple[tuple[str, int], ...]


def records(manifests: Manifests, state: Manifest) -> list[StateRecord]:
    """Return the state directories of a snapshot. Raises DamagedManifest."""
    return manifests.read_records(state, "state", from_record)


def from_record(record: Record) -> StateRecord:
    """Return the state directory of an entry. Raises KeyError, TypeError, ValueError."""
    body = record.members
    index, path = str(body["index"]), str(body["path"])
    if parse_state(index + INDEX) is None:
        raise ValueError(f"the index of state {record.key!r} is no digest")
    size, files, began = (int(body[name]) for name in ("bytes", "files", "captured_at"))
    deployment = {str(k): str(v) for k, v in body.get("deployment", {}).items()}
    return StateRecord(record.key, index, path, size, files, began, deployment)


# --- files ---------------------------------------------------------------------------------------


def seal(content: bytes) -> bytes:
    """Return the bytes of the file of a chunk or index."""
    data: bytes = zstandard.ZstdCompressor(level=LEVEL).compress(content) + _SEAL
    return data + hashlib.sha256(data).digest()


def unseal(data: bytes, digest: str, longest: int) -> bytes:
    """Return the content of a chunk or index of at most `longest` bytes. Raises NotIntact."""
    # Before decompressing: a flipped bit must not reach zstd, nor a claimed length the memory.
    if len(data) < _SEAL_BYTES or hashlib.sha256(data[:-32]).digest() != data[-32:]:
        raise document.NotIntact("its checksum does not match")
    if data[-_SEAL_BYTES:-32] != _SEAL:
        raise document.NotIntact("it has no seal")
    frame = data[:-_SEAL_BYTES]
    try:
        length = zstandard.frame_content_size(frame)
        if not 0 <= length <= longest:
            raise document.NotIntact(f"it claims to hold {length} bytes")
        content: bytes = zstandard.ZstdDecompressor().decompress(frame)
    except zstandard.ZstdError as error:
        raise document.NotIntact(str(error)) from None
    if document.digest(content) != digest:
        raise document.NotIntact("the content does not match its name")
    return content


def _longest(size: int, ending: str) -> int:
    return CHUNK_MAX if ending == CHUNK else min(size * _RATIO_MAX, INDEX_MAX)


def check(data: bytes, name: str) -> None:
    """Raise NotIntact unless these are the bytes of the chunk or index of this file name."""
    digest, ending = parse_state(name) or ("", "")
    content = unseal(data, digest, _longest(len(data), ending))
    if ending == INDEX:
        parse(content)


def read(paths: Paths, digest: str, ending: str) -> bytes:
    """Return the content of a chunk or index. Raises DamagedState."""
    path = paths.state_file(digest, ending)
    try:
        data = disk.read(path)
        return unseal(data, digest, _longest(len(data), ending))
    except FileNotFoundError:
        raise DamagedState(path, "it is missing") from None
    except document.NotIntact as error:
        raise DamagedState(path, str(error)) from None


def read_index(paths: Paths, digest: str) -> StateIndex:
    """Return an index. Raises DamagedState."""
    content = read(paths, digest, INDEX)
    try:
        return parse(content)
    except document.NotIntact as error:
        raise DamagedState(paths.state_file(digest, INDEX), str(error)) from None


def chunks_of(paths: Paths, digest: str) -> dict[str, int]:
    """Return the digests of the chunks that an index names, with the bytes of each before
    compression. Raises DamagedState."""
    content = read(paths, digest, INDEX)
    try:
        return {str(name): int(size) for name, size in orjson.loads(content)["chunks"]}
    except (KeyError, TypeError, ValueError):
        path = paths.state_file(digest, INDEX)
        raise DamagedState(path, "it is malformed") from None


def names_on_disk(paths: Paths) -> Iterator[str]:
    """Yield the names below states/ as `states/<2 hex>/<name>`, temporary files included."""
    for folder in sorted(disk.listing(paths.states)):
        for name in sorted(disk.listing(f"{paths.states}/{folder}")):
            yield f"states/{folder}/{name}"


def digest_of_name(name: str) -> str | None:
    """Return the digest of `states/<2 hex>/<name>`, None for another path."""
    parsed = parse_state(os.path.basename(name)) if name.startswith("states/") else None
    return parsed and parsed[0]


# --- the JSON of an index ------------------------------------------------------------------------


def encode(index: StateIndex) -> bytes:
    """Return the content of an index's file."""
    entries = [_to_json(entry) for entry in index.entries]
    return orjson.dumps({"format": _FORMAT, "entries": entries, "chunks": index.chunks})


def parse(content: bytes) -> StateIndex:
    """Return the index of a file's content. Raises NotIntact for one that breaks a rule of F21."""
    try:
        rows, body = list[StateEntry](), dict[str, Any]()
        for piece in _pieces(content):
            rows += map(_from_json, piece.pop("entries"))
            body |= piece
        if body["format"] > _FORMAT:
            raise ValueError(f"format {body['format']} is of a later lakelog: upgrade it")
        entries = tuple(rows)
        chunks = tuple((_digest(name), _count(size)) for name, size in body["chunks"])
        _check_tree(entries)
        if any(not 0 < size <= CHUNK_MAX for _, size in chunks):
            raise ValueError("a chunk of no possible length")
        if sum(size for _, size in chunks) != sum(entry.stored for entry in entries):
            raise ValueError("its chunks are not as long as its files")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise document.NotIntact(f"it is malformed ({str(error) or error!r})") from None
    return StateIndex(entries, chunks)


def _pieces(content: bytes) -> Iterator[dict[str, Any]]:
    """Yield an index in parts of some of its entries, as all at once take eight times its size."""
    start, opening = 0, b""
    while True:
        # No text has these bytes in it: its quotes are escaped.
        at = content.find(_BETWEEN, start + _PIECE_BYTES)
        if at < 0:
            yield orjson.loads(opening + content[start:])
            return
        yield orjson.loads(opening + content[start : at + 1] + b"]}")
        start, opening = at + 2, b'{"entries":['


def _to_json(entry: StateEntry) -> dict[str, Any]:
    body: dict[str, Any] = {"path": _to_text(entry.path), "kind": entry.kind}
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


def _from_json(body: dict[str, Any]) -> StateEntry:
    path, kind = _to_bytes(body["path"]), body["kind"]
    if kind not in _KINDS:
        raise ValueError(f"an entry of kind {kind!r}")
    kind = sys.intern(kind)  # a million entries are read as well
    if kind == "hard":
        return StateEntry(path, kind, target=_to_bytes(body["target"]))
    mtime = body["mtime"]
    if type(mtime) is not int or abs(mtime) > _SIZE_MAX * 2 or not _count(body["mode"]) <= 0o7777:
        raise ValueError("a mode or time that cannot be")
    size = _count(body["size"]) if kind == "file" else 0
    extents = body.get("extents", [[0, size]] if size else []) if kind == "file" else []
    return StateEntry(
        path,
        kind,
        body["mode"],
        _count(body["uid"]),
        _count(body["gid"]),
        mtime,
        size,
        _extents(extents, size),
        _to_bytes(body["target"]) if kind == "link" else b"",
        _xattrs(body["xattrs"]) if "xattrs" in body else _NO_XATTRS,
        body["ctime"] if kind == "file" else 0,
        _count(body["inode"]) if kind == "file" else 0,
    )


def _xattrs(pairs: list[Any]) -> dict[bytes, bytes]:
    return {_to_bytes(name): base64.b64decode(value, validate=True) for name, value in pairs}


def _extents(pairs: list[Any], size: int) -> tuple[Extent, ...]:
    end = 0
    extents = tuple((_count(at), _count(length)) for at, length in pairs)
    for at, length in extents:
        if at < end or not length or at + length > size:
            raise ValueError("data of a file that overlaps, or lies outside it")
        end = at + length
    return extents


def _check_tree(entries: tuple[StateEntry, ...]) -> None:
    """Refuse names that could lead out of the directory, and entries without their parent."""
    kinds: dict[bytes, str] = {}
    for entry in entries:
        parent, _, name = entry.path.rpartition(b"/")
        if entry.path in kinds:
            raise ValueError(f"{entry.path!r} is in it twice")
        if not kinds:
            if entry.path or entry.kind != "dir":
                raise ValueError("its first entry is not the directory itself")
        elif name in (b"", b".", b"..") or b"\0" in name or len(name) > 255:
            raise ValueError(f"{entry.path!r} is no possible name")
        elif len(entry.path) > _PATH_MAX or kinds.get(parent) != "dir":
            raise ValueError(f"{entry.path!r} is in no directory of it")
        if entry.kind == "hard" and kinds.get(entry.target) != "file":
            raise ValueError(f"{entry.path!r} is a hard link to no file of it")
        if entry.kind == "link" and (not entry.target or b"\0" in entry.target):
            raise ValueError(f"{entry.path!r} is a link to nothing")
        kinds[entry.path] = entry.kind
    if not kinds:
        raise ValueError("it has no entries")


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _SIZE_MAX * 4:
        raise ValueError(f"{value!r} is no count")
    return value


def _digest(value: Any) -> str:
    if not isinstance(value, str) or parse_state(value + CHUNK) is None:
        raise ValueError(f"{value!r} is no digest")
    return value


def _to_text(name: bytes) -> str | dict[str, str]:
    # Names are bytes to the system; JSON is Unicode.
    try:
        return name.decode()
    except UnicodeDecodeError:
        return {"hex": name.hex()}


def _to_bytes(text: Any) -> bytes:
    return text.encode() if isinstance(text, str) else bytes.fromhex(text["hex"])
