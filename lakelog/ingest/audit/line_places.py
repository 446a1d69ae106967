"""The lines of a chunk and of what it gave, as positions in their file."""

from __future__ import annotations

from collections.abc import Sequence

from lakelog.files.pieces import Chunk
from lakelog.ingest.chunk_result import ChunkResult
from lakelog.ingest.records import BOM
from lakelog.libraries import np

_ODD = (9, 10, 11, 12, 13, 32, 0xEF)
"""Bytes that a blank line may begin with: white space, or a byte order mark."""


def full_lines(chunk: Chunk) -> np.ndarray:
    """A mask of the lines of a chunk that are not blank."""
    starts = chunk.lines[1]
    # One byte of each line decides nearly all of them; only lines that begin with white space or a
    # byte order mark are looked at whole.
    heads = np.frombuffer(chunk.text, np.uint8)[starts[:-1]]
    full = np.ones(len(heads), dtype=bool)
    odd = np.isin(heads, _ODD)
    alone = odd & (np.diff(starts) == 1) & (heads != 0xEF)
    full[alone] = False
    for i in np.flatnonzero(odd & ~alone).tolist():
        line = chunk.text[starts[i] : starts[i + 1]]
        full[i] = bool(line.strip().removeprefix(BOM))
    return full


def line_at(data: bytes, start: int) -> bytes:
    """The line that begins at an offset, with its newline."""
    end = data.find(b"\n", start) + 1
    return data[start : end or len(data)]


def result_places(result: ChunkResult) -> tuple[np.ndarray, np.ndarray]:
    """The positions of events and of bad lines of a chunk."""
    events = np.asarray(result.table["position"]) if result.table else integers([])
    return events, integers([b.position for b in result.bad])


def sorted_places(places: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """The positions of events and of bad lines, in order."""
    return np.sort(np.concatenate([places, bad]))


def integers(values: Sequence[int]) -> np.ndarray:
    """Integers as an array."""
    return np.asarray(values, dtype=np.int64)
