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

import contextlib
import hashlib
import os
import struct
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import zstandard

from lakelog.chunks import state_index
from lakelog.chunks.state_index import CHUNK_MAX, INDEX_MAX, PIECE_BYTES, StateIndex
from lakelog.disk import File, Folder, NotIntact
from lakelog.entries import Record
from lakelog.errors import DamagedState, LakelogError
from lakelog.keys import VAULT
from lakelog.manifest import Manifest, Manifests
from lakelog.paths import CHUNK, INDEX, FileName, FileNames, Paths
from lakelog.store import Machine

INDEX_FILE_MAX = 64 << 20
LEVEL = 3
_RATIO_MAX, _RATIO_FROM = 100, 8 << 20
"""A long index that claims to be longer than its file by more than this is refused unread."""
_WINDOW_MAX = 8 << 20
"""Bytes that zstd keeps in memory; it would keep all of a frame whose header says so."""
_SEAL = struct.pack("<II4s", 0x184D2A5D, 36, b"LKS1")
_SEAL_BYTES = len(_SEAL) + 32
_READ: weakref.WeakValueDictionary[tuple[str, str], StateIndex] = weakref.WeakValueDictionary()
"""A rollback needs the index of a directory several times, and it takes a second to read."""


_LATER = ("deployment", "machine", "number", "save", "parent", "before", "mac")
"""Members that a record may lack."""
# Forged numbers must not use up those that are left.
_NUMBER_MAX = 1 << 62


@dataclass(frozen=True)
class StateRecord:
    """A state directory of a snapshot: `label` names it, `path` is where it was, `bytes` those of
    its files without holes, `captured_at` when the save began (us). `deployment` says in which
    revision of one it was saved: `name`, `namespace`, `hash`, `image`, or nothing.

    `machine` saved it, as `mac` proves to it. `number` orders its saves, whatever the clock said;
    `save` is the same in all directories of one save, and the `commit` of its manifest; `parent` is
    the save that the branch held before, and no backup before a restore; `before` is "restore" or
    "rollback" in a save that was made before one, and overwrites no other. Records of earlier
    versions have none of these.
    """

    label: str
    index: str
    path: str
    bytes: int
    files: int
    captured_at: int
    deployment: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    number: int = 0
    save: str = ""
    parent: str = ""
    before: str = ""
    mac: str = ""

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands among the saves of a machine; the time is for those without a number."""
        return self.number, self.captured_at

    def signed(self, machine: Machine) -> StateRecord:
        """Return it as saved by a machine."""
        record = replace(self, machine=machine.id)
        return replace(record, mac=machine.sign(*record._facts()))

    def is_of(self, machine: Machine) -> bool:
        """Whether a machine saved it, by what the machine alone can know."""
        # With the machine's own secret: ids of machines can be copied.
        return machine.owns(self.machine, self.mac, *self._facts())

    def _facts(self) -> tuple[str | int, ...]:
        # In this very order: the proof is over these bytes.
        facts = (self.machine, self.label, self.index, self.path, self.captured_at)
        return *facts, self.number, self.save, self.parent, self.before

    def entry(self) -> Record:
        """Return the manifest's entry."""
        names = ("index", "path", "bytes", "files", "captured_at")
        members = {name: getattr(self, name) for name in names}
        # Only what is there: records of earlier versions stay as they were.
        for name in _LATER:
            if value := getattr(self, name):
                members[name] = value
        return Record("state", self.label, members)

    @staticmethod
    def of(record: Record) -> StateRecord:
        """Return the state directory of an entry. Raises KeyError, TypeError, ValueError."""
        body = record.members
        index, path = str(body["index"]), str(body["path"])
        # It becomes a path.
        if FileName(index + INDEX).state is None:
            raise ValueError(f"the index of state {record.key!r} is no digest")
        size, files, began = (int(body[name]) for name in ("bytes", "files", "captured_at"))
        deployment = {str(k): str(v) for k, v in body.get("deployment", {}).items()}
        number = int(body.get("number", 0))
        if not 0 <= number <= _NUMBER_MAX:
            raise ValueError(f"state {record.key!r} has the number {number}")
        names = ("save", "parent", "before", "mac")
        save, parent, before, mac = (str(body.get(name, "")) for name in names)
        return StateRecord(
            record.key,
            index,
            path,
            size,
            files,
            began,
            deployment,
            str(body.get("machine", "")),
            number,
            save,
            parent,
            before,
            mac,
        )

    @staticmethod
    def all_of(manifests: Manifests, state: Manifest) -> list[StateRecord]:
        """Return the state directories of a snapshot. Raises DamagedManifest."""
        return manifests.read_records(state, "state", StateRecord.of)

    @staticmethod
    def newest(records: Iterable[StateRecord]) -> StateRecord | None:
        """Return the record of the last save."""
        return max(records, key=lambda record: record.place, default=None)


# --- files ---------------------------------------------------------------------------------------


def seal(content: bytes) -> bytes:
    """Return the bytes of the file of a chunk or index."""
    # After compression, so that a flipped bit is found before zstd sees it.
    data: bytes = zstandard.ZstdCompressor(level=LEVEL).compress(content) + _SEAL
    return data + hashlib.sha256(data).digest()


def unseal(data: bytes, digest: str, longest: int = CHUNK_MAX) -> bytes:
    """Return the content of a chunk, or of an index that is short. Raises NotIntact."""
    data = _decrypted(data)
    return b"".join(_content(data, digest, _length(data, longest)))


def _length(data: bytes, longest: int) -> int:
    """Return how long the content claims to be, of a file whose bytes are those written."""
    # Before decompressing: a flipped bit must not reach zstd, nor a claimed length the memory.
    view = memoryview(data)
    if len(data) < _SEAL_BYTES or hashlib.sha256(view[:-32]).digest() != data[-32:]:
        raise NotIntact("its checksum does not match")
    if data[-_SEAL_BYTES:-32] != _SEAL:
        raise NotIntact("it has no seal")
    try:
        length = int(zstandard.frame_content_size(view[:-_SEAL_BYTES][:32]))
    except zstandard.ZstdError as error:
        raise NotIntact(str(error)) from None
    if not 0 <= length <= longest:
        raise NotIntact(f"it claims to hold {length} bytes")
    return length


def _content(data: bytes, digest: str, length: int) -> Iterator[bytes]:
    """Yield the content in parts; it is known to be that of the digest after the last one."""
    hasher, remaining = hashlib.sha256(), length
    # Headers of forged frames may ask for gigabytes.
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX)
    try:
        with decompressor.stream_reader(memoryview(data)[:-_SEAL_BYTES]) as reader:
            while block := reader.read(PIECE_BYTES):
                hasher.update(block)
                remaining -= len(block)
                # Longer than it says: the rest is not even read.
                if remaining < 0:
                    break
                yield block
    except zstandard.ZstdError as error:
        raise NotIntact(str(error)) from None
    if remaining or hasher.hexdigest() != digest:
        raise NotIntact("the content does not match its name")


def check(data: bytes, name: str) -> None:
    """Raise NotIntact unless these are the bytes of the chunk or index of this file name."""
    data, (digest, ending) = _decrypted(data), FileName(name).state or ("", "")
    if ending == CHUNK:
        unseal(data, digest)
    else:
        length = _length(data, _index_max(data))
        state_index.check(lambda: _content(data, digest, length), length)


def check_content(data: bytes, name: str) -> None:
    """The same for one whose content is known, and of which only these bytes are in doubt."""
    data, (digest, ending) = _decrypted(data), FileName(name).state or ("", "")
    # Reading it to the end checks it.
    for _ in _content(data, digest, _length(data, CHUNK_MAX if ending == CHUNK else INDEX_MAX)):
        pass


def read_file(path: str) -> bytes:
    """Return the bytes of a chunk's or index's file. Raises FileNotFoundError, and NotIntact for
    one that is longer than any can be."""
    size = os.path.getsize(path)
    # What does not compress gets a little longer, and there is the seal.
    if size > (INDEX_FILE_MAX if path.endswith(INDEX) else CHUNK_MAX + (CHUNK_MAX >> 7) + 1024):
        raise NotIntact(f"it is {size} bytes long")
    return File(path).read()


def _decrypted(data: bytes) -> bytes:
    """Return the bytes of a file of a plain lake. Raises NotIntact for an envelope that does not
    open, InvalidKey."""
    try:
        return VAULT.decrypt(data)
    except ValueError as error:
        if isinstance(error, LakelogError):
            raise
        raise NotIntact(str(error)) from None


def _index_max(data: bytes) -> int:
    return min(max(len(data) * _RATIO_MAX, _RATIO_FROM), INDEX_MAX)


@contextlib.contextmanager
def _damage(path: str) -> Iterator[str]:
    """Name the file of what is not intact."""
    try:
        yield path
    except FileNotFoundError:
        raise DamagedState(path, "it is missing") from None
    except NotIntact as error:
        raise DamagedState(path, str(error)) from None


def digest_of_name(name: str) -> str | None:
    """Return the digest of `states/<2 hex>/<name>`, None for another path."""
    parsed = FileName.of(name).state if name.startswith("states/") else None
    return parsed and parsed[0]


class StateFiles:
    """Reads the chunks and indices of a lake."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def read_chunk(self, digest: str) -> bytes:
        """Return the content of a chunk. Raises DamagedState."""
        with _damage(self._paths.state_file(digest, CHUNK)) as path:
            return unseal(read_file(path), digest)

    def read_index(self, digest: str) -> StateIndex:
        """Return an index, which is the same object while somebody has it. Raises DamagedState."""
        # Weakly: it is let go with the last one who uses it.
        cached = _READ.get((self._paths.root, digest))
        if cached is not None:
            return cached
        with _damage(self._paths.state_file(digest, INDEX)) as path:
            data = _decrypted(read_file(path))
            length = _length(data, _index_max(data))
            index = state_index.load(lambda: _content(data, digest, length), length)
        _READ[self._paths.root, digest] = index
        return index

    def chunks_of(self, digest: str) -> dict[str, int]:
        """Return the digests of the chunks that an index names, with the bytes of each before
        compression. Raises DamagedState."""
        with _damage(self._paths.state_file(digest, INDEX)) as path:
            data = _decrypted(read_file(path))
            length = _length(data, _index_max(data))
            return state_index.chunks(lambda: _content(data, digest, length))

    def names(self) -> Iterator[str]:
        """Yield the names below states/ as `states/<2 hex>/<name>`, temporary files included."""
        for folder in FileNames(Folder(self._paths.states).names()).hex_dirs:
            for name in sorted(Folder(f"{self._paths.states}/{folder}").names()):
                yield f"states/{folder}/{name}"
