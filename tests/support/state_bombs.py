"""Indices of saved states that would take far more memory than their files are long.

`python -m tests.support.state_bombs LAKE` restores each of them and verifies the lake, in one
process, and prints what came of it and the memory that it took, as JSON.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import zstandard

import lakelog
from lakelog.chunks import state_files
from lakelog.chunks.state_files import StateRecord
from lakelog.disk import disk
from lakelog.errors import LakelogError
from lakelog.moves.publication import Change, publish
from lakelog.state.restore import restore_state
from tests.support.effort import IS_WHOLE
from tests.support.peak_memory import peak

_START = b'{"format":1,"entries":[{"path":"","kind":"dir","mode":493,"uid":0,"gid":0,"mtime":0}'
_HEX = "".join(random.Random(1).choices("0123456789abcdef", k=1 << 16))
_MB = 1 << 20
_SIZE = int(os.environ.get("LAKELOG_STATE_BOMB", "12")) * _MB
"""Of one index: as many megabytes as one may have are 253."""
_COUNT = 80_000 * _SIZE // (12 * _MB)


def _filled(start: bytes, piece: bytes, size: int, end: bytes) -> Iterator[bytes]:
    """Yield the same piece again and again; what does not compress, as the ratio is checked."""
    yield start
    block = piece * (_MB // len(piece))
    yield from itertools.repeat(block, size // len(block))
    yield end


def _entries(count: int, last: str = "") -> Iterator[bytes]:
    """Yield an index of entries that are as they should be, all but the last one."""
    yield _START
    form = (
        ',{"path":"%s%07d","kind":"file","mode":420,"uid":0,"gid":0,"mtime":0,"size":0,"ctime":0'
        ',"inode":%d}'
    )
    for start in range(0, count, 10_000):
        lines = (form % (_HEX[n % 60_000 :][:9], n, n) for n in range(start, start + 10_000))
        yield "".join(lines).encode()
    yield f"{last}".encode() + b'],"chunks":[]}'


def _chunks(count: int, size: int) -> Iterator[bytes]:
    yield _START + b'],"chunks":[["' + _HEX[:64].encode() + b'",1]'
    for start in range(0, count, 10_000):
        pairs = (f',["{_HEX[n % 65_000 :][:64]}",{size}]' for n in range(start, start + 10_000))
        yield "".join(pairs).encode()
    yield b"]}"


def _hard(count: int) -> Iterator[bytes]:
    yield _START
    for start in range(0, count, 10_000):
        lines = (
            f',{{"path":"{n:x}","kind":"hard","target":"{_HEX[n % 65_000 :][:8]}"}}'
            for n in range(start, start + 10_000)
        )
        yield "".join(lines).encode()
    yield b'],"chunks":[]}'


NOISE = _HEX.encode()
CASES: dict[str, Callable[[], Iterable[bytes]]] = {
    "lists": lambda: _filled(_START, b",[]", _SIZE, b"]}"),
    "objects": lambda: _filled(_START, b",{}", _SIZE, b"]}"),
    "lists in entries": lambda: _filled(
        _START, b',{"path":[' + b"[]," * 9_000 + b"[]]}", _SIZE, b"]}"
    ),
    "deep": lambda: _filled(_START + b",", b"[", _SIZE, b""),
    "one text": lambda: _filled(_START + b',{"path":"', NOISE, _SIZE, b'"}]}'),
    "texts": lambda: _filled(_START, b',"' + NOISE + b'"', _SIZE, b"]}"),
    "junk beside": lambda: _filled(_START + b'],"junk":"', NOISE, _SIZE, b'","chunks":[]}'),
    "numbers": lambda: _filled(b'{"format":1,"chunks":[', b"1,", _SIZE, b"1]}"),
    "another member": lambda: _filled(b'{"a":[', b'{"b":{}},', _SIZE, b"{}]}"),
    "attributes": lambda: _filled(
        _START + b',{"path":"a","kind":"dir","xattrs":[', b'["a",""],', _SIZE, b"]}]}"
    ),
    "a bad end": lambda: _entries(_COUNT, ',{"path":"a/b","kind":"hard"}'),
    "a path twice": lambda: _entries(
        _COUNT, f',{{"path":"{_HEX[:9]}0000000","kind":"hard","target":"{_HEX[:9]}0000000"}}'
    ),
    "a hard link to a directory": lambda: _entries(
        _COUNT, ',{"path":"a","kind":"hard","target":""}'
    ),
    "in no directory": lambda: _entries(
        _COUNT, ',{"path":"a/b","kind":"dir","mode":0,"uid":0,"gid":0,"mtime":0}'
    ),
    "chunks of a petabyte": lambda: _chunks(2 * _COUNT, 8 << 20),
    "chunks beyond all": lambda: _chunks(2 * _COUNT, 10**18),
    "hard links to nothing": lambda: _hard(3 * _COUNT),
}


PLAYED = [*CASES] if IS_WHOLE else [*CASES][::4]


def plant(lake: lakelog.Lake, name: str, content: Callable[[], Iterable[bytes]]) -> None:
    """Make a state whose index has this content, in a file with junk, as the ratio is checked."""
    sha256, size = hashlib.sha256(), 0
    for part in content():
        sha256.update(part)
        size += len(part)
    compressor = zstandard.ZstdCompressor(level=1).compressobj(size=size)
    frame = b"".join([*map(compressor.compress, content()), compressor.flush()])
    write(lake, name, sha256.hexdigest(), frame + os.urandom(max(0, size // 99 - len(frame))))


def write(lake: lakelog.Lake, name: str, digest: str, frame: bytes) -> None:
    """Make a state whose index is this frame."""
    sealed = frame + state_files.seal(b"")[-44:-32]
    path = lake.store.paths.state_file(digest, ".json.zst")
    disk.put_object(path, sealed + hashlib.sha256(sealed).digest())
    record = StateRecord("app", digest, f"{os.path.dirname(lake.path)}/app", 0, 0, 1)
    publish(lake.store, "main", lambda *_: Change("state", entries=(record.entry(),)))
    lake.tag(name)


def plant_all(lake: lakelog.Lake) -> None:
    """Make a state `bomb-<number>` of each case, and of files that are long themselves."""
    for number, case in enumerate(PLAYED):
        plant(lake, f"bomb-{number}", CASES[case])
    # A frame whose window is all of it, a file of nothing but junk, and one that has no end.
    whole = zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=whole).compressobj(size=32 * _MB)
    frame = compressor.compress(bytes(32 * _MB)) + compressor.flush() + os.urandom(2 * _MB)
    write(lake, "bomb-window", "1" * 64, frame)
    write(lake, "bomb-junk", "2" * 64, b"junk")
    os.truncate(lake.store.paths.state_file("2" * 64, ".json.zst"), 1 << 40)
    liar = b"\x28\xb5\x2f\xfd\xa0" + (1 << 28).to_bytes(4, "little") + os.urandom(3 * _MB)
    write(lake, "bomb-liar", "3" * 64, liar)


def main(path: Path) -> None:
    """Restore each state and verify the lake."""
    said = {}
    with lakelog.open(str(path)) as lake:
        for name in [name for name in lake.store.refs.tag_names() if name.startswith("bomb-")]:
            try:
                restore_state(lake, name)
                said[name] = "restored"
            except LakelogError as error:
                said[name] = str(error)
        after_restore = peak()
        problems = [problem.path for problem in lake.verify().problems]
    print(json.dumps({"said": said, "problems": problems, "memory": [after_restore, peak()]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
