"""Files for the tests of ingest: lines of every kind, packed in every way; what came of them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import zstandard

import lakelog

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gz": lambda data: gzip.compress(data, mtime=0),
    "zst": zstandard.ZstdCompressor(write_content_size=False).compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "gz of many members": lambda data: b"".join(
        gzip.compress(data[i : i + 1000], mtime=0) for i in range(0, len(data), 1000)
    ),
    "zst of many frames": lambda data: b"\x50\x2a\x4d\x18\x03\0\0\0abc".join(
        zstandard.ZstdCompressor(write_checksum=True).compress(data[i : i + 1000])
        for i in range(0, len(data), 1000)
    ),
    "xz of many streams": lambda data: b"\0\0\0\0".join(
        lzma.compress(data[i : i + 40_000], preset=0) for i in range(0, len(data), 40_000)
    ),
    "bz2 of many streams": lambda data: b"".join(
        bz2.compress(data[i : i + 4000], 1) for i in range(0, len(data), 4000)
    ),
}


def event(n: int, **more: Any) -> dict[str, Any]:
    """The n-th event of a feed: one a second."""
    return {"time": 1_770_000_000 + n, "type": f"T{n % 3}", "source": "s", "data": {"n": n}} | more


def text(events: Iterable[dict[str, Any] | str], compact: bool = True) -> bytes:
    """JSON lines; what is text already stays as it is."""
    marks = (",", ":") if compact else (", ", ": ")
    lines = (e if isinstance(e, str) else json.dumps(e, separators=marks) for e in events)
    return "".join(f"{line}\n" for line in lines).encode()


def feed(count: int, start: int = 0, **more: Any) -> bytes:
    """Events from `start` on as JSON lines."""
    return text(event(n, **more) for n in range(start, start + count))


def keyed(numbers: Iterable[int]) -> bytes:
    """Events with ids as JSON lines."""
    return text(event(n, id=f"id-{n}") for n in numbers)


def numbers(lake: lakelog.Lake) -> list[int]:
    """The `n` of every event, in the order of their places in their files."""
    found = lake.sql("SELECT (data->>'n')::INT AS n FROM events ORDER BY origin, position")
    return [n for (n,) in found.fetchall()]


def assert_each_once(lake: lakelog.Lake, count: int) -> None:
    """Check that the events 0 to count - 1 are there, each once and each at a place of its own."""
    assert sorted(numbers(lake)) == list(range(count))
    places = lake.sql("SELECT count(DISTINCT (origin, position)) AS n FROM events").fetchall()
    assert places == [(count,)]


def bad_lines(lake: lakelog.Lake) -> list[tuple[int, str, str]]:
    """(position, reason, line) of every quarantined line."""
    query = "SELECT position, reason, line FROM quarantine ORDER BY origin, position, reason"
    return [(at, reason, line) for at, reason, line in lake.sql(query).fetchall()]


def put(path: Path, data: bytes) -> str:
    """Write a file and return its path as text."""
    path.write_bytes(data)
    return str(path)
