"""What FORMAT.md says of bytes, as small independent parsers, and a disk that tells what it did."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from tests.support.tree import ROOT

HEADER, FRAME, END, SEAL, SPACE = 0x184D2A5A, 0x184D2A5B, 0x184D2A5C, 0x184D2A5D, 0x184D2A5E
FRAME_FIELDS = (
    "magic size tag sequence bytes raw events flags position ingested_at crc cursor".split()
)


@dataclass
class Wal:
    """A WAL taken apart: its header, its frames, where they begin, whether END is there, and the
    bytes of space after the frames."""

    header: dict[str, Any]
    frames: list[dict[str, Any]] = field(default_factory=list)
    end: int | None = None
    space: int = 0


def parse_wal(data: bytes) -> Wal:
    """Take a whole and good WAL apart, by the tables of FORMAT.md."""
    magic, size, tag, crc = struct.unpack_from("<II4sI", data)
    text = data[16 : 8 + size]
    assert (magic, tag, crc) == (HEADER, b"LKW1", zlib.crc32(text))
    found, at = Wal(json.loads(text)), 8 + size
    while at < len(data):
        if data[at : at + 4] == struct.pack("<I", END):
            assert not data[at + 24 :].strip(b"\0")
            size, tag, last, crc = struct.unpack_from("<I4sQI", data, at + 4)
            assert (size, tag, crc) == (16, b"LKE1", zlib.crc32(data[at : at + 20]))
            found.end = last
            return found
        if data[at : at + 4] in (struct.pack("<I", SPACE), bytes(4)):
            assert not data[at + 8 :].strip(b"\0")
            found.space = len(data) - at
            return found
        frame, at = parse_frame(data, at)
        found.frames.append(frame)
    return found


def in_bloom(field: bytes, size: int, text: str) -> bool:
    """Whether a Bloom filter's bits allow for a text, by the statement of FORMAT.md."""
    k, whole = 0x9E3779B97F4A7C15, (1 << 64) - 1
    raw = text.encode()
    h = len(raw) * k & whole
    for word in struct.unpack("<6Q", raw[-48:].ljust(48, b"\0")):
        h = (h ^ word) * k & whole
        h ^= h >> 29
    places = ((((h >> 32) + i * (h & 0xFFFFFFFF | 1)) % 2**32) * size >> 32 for i in range(7))
    return all(field[p // 8] >> p % 8 & 1 for p in places)


def word_blocks(
    directory: bytes, frames: bytes
) -> tuple[dict[str, int], dict[str, list[int]], list[tuple[int, int]]]:
    """Return the blocks of words, by the index of a segment of one part; of words that many rows
    have, how many of each block; and the least and the greatest time of each."""
    words, size = struct.unpack_from("<II", directory)
    times = struct.unpack_from("<64q", directory, 8)
    chunks = -(-words // 2048)
    sizes = struct.unpack_from(f"<{2 * chunks + 1}I", directory, 520)
    edges = directory[524 + 8 * chunks :]
    assert (len(edges), sum(sizes)) == (size, len(frames))
    names, blocks, counts = list[str](), dict[str, int](), dict[str, list[int]]()
    for chunk in range(chunks):
        text, content = (
            zstandard.ZstdDecompressor().decompress(frames[sum(sizes[:n]) :][: sizes[n]])
            for n in (2 * chunk, 2 * chunk + 1)
        )
        assert text[:1] == text[-1:] == b"\0"
        named = [name.decode() for name in text.split(b"\0")[1:-1]]
        count, names = len(named), names + named
        assert named[0] == edges.split(b"\0")[chunk].decode()
        for number, name in enumerate(named):
            blocks[name] = sum(content[n * count + number] << 8 * n for n in range(4))
        (frequent,) = struct.unpack_from("<I", content, 4 * count)
        numbers = struct.unpack_from(f"<{frequent}I", content, 4 * count + 4)
        rows = content[4 * count + 4 + 4 * frequent :]
        assert len(rows) == 64 * frequent
        for n, number in enumerate(numbers):
            low, high = rows[32 * n :][:32], rows[32 * (frequent + n) :][:32]
            counts[named[number]] = [a + 256 * b for a, b in zip(low, high, strict=True)]
    assert names == sorted(names, key=str.encode)
    assert (len(names), names[-1:]) == (words, [edges.split(b"\0")[-1].decode()][:words])
    return blocks, counts, list(zip(times[:32], times[32:], strict=True))


def joint_filter(directory: bytes, frames: bytes) -> bytes:
    """Return the filter of joined words of the only part of the index of a segment."""
    (words,) = struct.unpack_from("<I", directory)
    (size,) = struct.unpack_from("<I", directory, 520 + 8 * -(-words // 2048))
    return zstandard.ZstdDecompressor().decompress(frames[-size:])


def bloom(keys: list[int], size: int) -> bytes:
    """Return the bits of a filter of so many bytes."""
    bits = bytearray(size)
    for mixed in keys:
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ mixed >> shift) * factor % 2**64
        mixed ^= mixed >> 31
        for number in range(3):
            place = ((mixed >> 32) + number * (mixed % 2**32 | 1)) % 2**32 * 8 * size >> 32
            bits[place // 8] |= 1 << place % 8
    return bytes(bits)


def parse_frame(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    """Take one frame apart; return it and where it ends."""
    values = struct.unpack_from("<II4sQIIIIQqII", data, at)
    frame = dict(zip(FRAME_FIELDS, values, strict=True))
    head = at + 60 + frame["cursor"]
    assert (frame["magic"], frame["size"], frame["tag"]) == (FRAME, 56 + frame["cursor"], b"LKF1")
    assert zlib.crc32(data[at:head]) == struct.unpack_from("<I", data, head)[0]
    payload = data[head + 4 : head + 4 + frame["bytes"]]
    assert (len(payload), zlib.crc32(payload)) == (frame["bytes"], frame["crc"])
    text = zstandard.ZstdDecompressor().decompress(payload, max_output_size=frame["raw"])
    assert len(text) == frame["raw"]
    return {**frame, "text": text, "at": at}, head + 4 + frame["bytes"]


def parse_document(data: bytes) -> dict[str, Any]:
    """Take a document apart; its sum must hold, and that of the manifest behind it, if any."""
    line, _, behind = data.partition(b"\n")
    text = line[:-79] + b"}"
    assert line[-79:] == b',"checksum":"' + hashlib.sha256(text).hexdigest().encode() + b'"}'
    body = json.loads(line)
    if behind:
        assert behind.endswith(b"\n")
        assert hashlib.sha256(behind[:-1]).hexdigest() == body["snapshot"]
    return body


def carried(lake: Path) -> dict[str, dict[str, Any]]:
    """The manifests that moves and tags of a lake carry, by digest."""
    files = (lake / "refs").rglob("*.json")
    lines = [line for path in files for line in path.read_bytes().splitlines(keepends=True)]
    for path in (lake / "refs").rglob("packed-*"):
        data = path.read_bytes()[:-44]
        lines += zstandard.ZstdDecompressor().decompress(data).splitlines(keepends=True)
    lines = [line[:-1] for line in lines if line.startswith(b'{"format":')]
    return {hashlib.sha256(line).hexdigest(): json.loads(line) for line in lines}


@functools.lru_cache(1000)
def parse_object(path: Path) -> dict[str, Any]:
    """Return the JSON of a manifest or page, which never changes."""
    return json.loads(zstandard.ZstdDecompressor().decompress(path.read_bytes()))


def example(statement: str) -> bytes:
    """Return the bytes of the hex dump that a statement of FORMAT.md shows."""
    return b"".join(bytes.fromhex(line[4:]) for line in shown(statement)[0])


def shown(statement: str) -> list[list[str]]:
    """Return the lines of each code block that a statement of FORMAT.md shows."""
    text = (ROOT / "FORMAT.md").read_text("utf-8").split(f"**{statement}**")[1].split("\n- **F")[0]
    blocks = text.split("```")[1::2]
    return [[line.strip() for line in block.strip().splitlines()] for block in blocks]


def wals(lake: Path, branch: str = "main") -> dict[str, Wal]:
    """The WALs of a branch by name, taken apart."""
    files = sorted((lake / "wal" / branch).iterdir())
    return {file.name: parse_wal(file.read_bytes()) for file in files}


def moves(lake: Path, branch: str = "main") -> list[dict[str, Any]]:
    """The moves of a branch that have files of their own, oldest first."""
    files = sorted((lake / "refs/heads" / branch).glob("0*.json"))
    return [parse_document(file.read_bytes()) for file in files]


def manifest(lake: Path, digest: str) -> dict[str, Any]:
    """A manifest or page of a lake."""
    path = lake / f"manifests/{digest[:2]}/{digest}.json.zst"
    return parse_object(path) if path.exists() else carried(lake)[digest]


def segment_entries(lake: Path) -> list[dict[str, Any]]:
    """The live segment entries of the main branch's head."""
    state = manifest(lake, moves(lake)[-1]["snapshot"])
    parts = [manifest(lake, page["digest"])["entries"] for page in state["pages"]]
    live: dict[str, dict[str, Any]] = {}
    for entry in itertools.chain(*parts, state["tail"]):
        if "segment" in (entry.get("add"), entry.get("del")):
            live.pop(entry["key"], None)
            live |= {entry["key"]: entry} if "add" in entry else {}
    return list(live.values())


class Trace:
    """A hook for seam.install: notes (what, path) of every change and sync, in order."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []
        self._names: dict[int, str] = {}

    def __call__(self, name: str, real: Any, *args: Any, **kwargs: Any) -> Any:
        """Do what was asked and note it; files by the name they have at last."""
        result = real(*args, **kwargs)
        if name == "create":
            self._names[result] = args[0]
        if name in ("write_all", "sync_file"):
            self.steps.append((name, self._names.get(args[0], "")))
        elif name in ("link", "rename"):
            self.steps = [(n, args[1] if p == args[0] else p) for n, p in self.steps]
            self._names = {f: args[1] if p == args[0] else p for f, p in self._names.items()}
            self.steps.append((name, args[1]))
        elif name in ("sync_dir", "unlink"):
            self.steps.append((name, args[0]))
        return result

    def first(self, name: str, part: str) -> int:
        """Where a step on a path with this part comes first."""
        return next(i for i, (n, p) in enumerate(self.steps) if n == name and part in p)

    def paths(self, name: str) -> list[str]:
        """The paths of all steps of a name."""
        return [p for n, p in self.steps if n == name]
