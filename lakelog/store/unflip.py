"""One flipped bit, put right: whatever sum a file carries also says which bit it was.

Digests and checksums are tried bit by bit, so only small files; a CRC-32 gives the place by
arithmetic. Nothing is put right that the sum does not then prove.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable

import orjson

from lakelog.store import document, wal
from lakelog.store.layout import OBJECTS, Layout, parse_object, parse_packed, parse_wal
from lakelog.store.tail import belongs

TRIED_MAX = 16_384
"""Bytes up to which every bit is tried; twice the bytes take four times as long."""
PAYLOAD_MAX = 65_536
"""A longer WAL frame is left alone: larger damage could look like one flipped bit by chance."""
_POLYNOMIAL = 0xEDB88320


def file(layout: Layout, path: str, data: bytes) -> bytes | None:
    """Return what a damaged file of a lake held before one bit flipped, or None."""
    name = os.path.basename(path)
    if path.startswith(f"{layout.wals}/") and parse_wal(name):
        return wal_file(data, path)
    if os.path.relpath(path, layout.root).split(os.sep)[0] in OBJECTS:
        digest = parse_object(name)
        return tried(data, lambda trial: document.digest(bytes(trial)) == digest)
    if parse_packed(name):
        return tried(data, lambda trial: hashlib.sha256(trial[:-32]).digest() == trial[-32:])
    return tried(data, is_document)


def tried(data: bytes, is_good: Callable[[bytearray], bool]) -> bytes | None:
    """Flip every bit in turn until the sum holds."""
    if len(data) > TRIED_MAX:
        return None
    trial = bytearray(data)
    for at in range(len(trial)):
        for bit in range(8):
            trial[at] ^= 1 << bit
            if is_good(trial):
                return bytes(trial)
            trial[at] ^= 1 << bit
    return None


def summed(data: bytes, crc: int) -> bytes | None:
    """Flip the one bit that makes the CRC-32 right: a bit's change of it depends on its place."""
    wanted = zlib.crc32(data) ^ crc
    change = _POLYNOMIAL
    for place in range(8 * len(data)):
        if change == wanted:
            fixed = bytearray(data)
            fixed[-1 - place // 8] ^= 1 << (7 - place % 8)
            return bytes(fixed)
        change = (change >> 1) ^ (_POLYNOMIAL if change & 1 else 0)
    return None


def wal_file(data: bytes, path: str) -> bytes | None:
    """Return a WAL as it was before one bit flipped in its header, a frame, or its END."""
    opened = wal.decode_header(data)
    if opened is None:
        head = tried(data[:1024], lambda trial: wal.decode_header(bytes(trial)) is not None)
        data = (head or b"") + data[1024:]
        opened = wal.decode_header(data)
    if opened is None or not belongs(opened[0], path):
        return None
    start = opened[1]
    seen = wal.scan(data[start:], start, "")
    if not seen.torn:
        return data
    fixed = _frame(data, seen.end)
    if fixed is None:
        return None
    after = wal.scan(fixed[start:], start, "")
    return fixed if not after.torn and after.damage is None else None


def _frame(data: bytes, at: int) -> bytes | None:
    """Put right the head, payload or END at a byte of a WAL."""
    head = wal.head_at(data, at)
    if head is None:
        rest = data[at : at + 2 * wal.HEAD_BYTES]
        size = wal.END_BYTES if len(rest) == wal.END_BYTES else wal.HEAD_BYTES
        fits = wal.is_end if len(rest) == wal.END_BYTES else wal.head_at
        fixed = tried(rest[:size], lambda trial: bool(fits(bytes(trial) + rest[size:], 0)))
        return data[:at] + fixed + data[at + size :] if fixed else None
    fields, body, stop = head
    if stop > len(data) or stop - body > PAYLOAD_MAX:
        return None
    payload = summed(data[body:stop], fields[10])
    if payload is None:
        return None
    fixed = data[:body] + payload + data[stop:]
    found = wal.frame_at(fixed, at, 0, "")
    return fixed if found and _reads(found[0]) else None


def _reads(frame: wal.Frame) -> bool:
    """Whether a frame decompresses to lines of JSON."""
    try:
        for line in frame.lines().splitlines():
            orjson.loads(line)
    except Exception:
        return False
    return True


def is_document(trial: bytes | bytearray) -> bool:
    """Whether the bytes are a document whose sum holds."""
    text = bytes(trial[: -document.TAIL]) + b"}"
    return trial[-document.TAIL :] == document.ending(text)
