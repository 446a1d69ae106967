"""What several tests use: zeros, cuts, swapped and missing files."""

from __future__ import annotations

import itertools

from lakelog.wal import frames as wal
from tests.support import damage

DOCUMENTS = {"lakelog.json", "move", "tags", "hint", "condemned"}


def frames_of(data: bytes) -> list[tuple[int, int]]:
    """Return (sequence, where it ends) of the frames of a whole WAL."""
    opened = wal.Header.decode(data)
    assert opened is not None
    frames = wal.scan(data[opened[1] :], opened[1], "").frames
    starts = [*(f.offset for f in frames[1:]), 0]
    last = frames[-1].offset + 64 + len(frames[-1].payload)
    return [(f.sequence, start or last) for f, start in zip(frames, starts, strict=True)]


def pairs(path: str) -> list[tuple[str, str]]:
    """Pairs of files of a kind, and of documents of any kind."""
    kinds = {name: damage.kind_of(name) for name in damage.files(path)}
    return [
        (a, b)
        for a, b in itertools.combinations(kinds, 2)
        if kinds[a] == kinds[b] or {kinds[a], kinds[b]} <= DOCUMENTS
    ]
