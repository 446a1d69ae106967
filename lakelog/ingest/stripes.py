"""Lines and rows of a chunk as Arrow has them: which lines are text, which fit, in what order."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from lakelog.ingest.records import Records

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

LINES, BYTES = 8192, 4 << 20
"""Lines in what one thread of the engine takes at a time, and how many bytes of documents."""


def integers(values: np.ndarray) -> pa.Array:
    """Whole numbers as Arrow has them, without a copy."""
    # pa.array would load numpy.ma to ask whether they are masked: slow, where a file is short
    import numpy as np
    import pyarrow as pa

    data = np.ascontiguousarray(values, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(data), [None, pa.py_buffer(data)])


def fitting(lines: pa.Array, regex: str) -> Any:
    """The indexes of lines that a regex fits."""
    import numpy as np
    import pyarrow.compute as pc

    return np.flatnonzero(np.asarray(pc.match_substring_regex(lines, regex)))


def untimed(table: pa.Table, now: datetime) -> Any:
    """The places of rows whose lines told no time, for which the query took that of ingest."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    blank = pc.equal(table["time"], pa.scalar(now, table["time"].type))
    return np.asarray(table["position"].filter(blank))


def stripe(lines: pa.Table) -> int:
    """How many lines one thread of the engine takes at a time."""
    most = int(BYTES * lines.num_rows // max(lines.nbytes, 1))
    return max(1, min(LINES, most))


def in_order(tables: list[pa.Table | None]) -> pa.Table | None:
    """Put rows that were decided in different ways back in the file's order."""
    import pyarrow as pa

    full = [t for t in tables if t is not None and t.num_rows]
    if len(full) < 2:
        return full[0] if full else None
    return pa.concat_tables(full).sort_by("position")


def valid_text(found: Records) -> tuple[pa.Array, pa.Array | None]:
    """Blank the records that are not UTF-8; the exact rule says so of each."""
    import pyarrow as pa

    parts = [found.lines] if found.more is None else [found.lines, found.more]
    try:
        for part in parts:
            part.validate(full=True)
    except pa.ArrowInvalid:
        raw = [part.view(pa.large_binary()).to_pylist() for part in parts]
        good = [all(map(_is_whole, texts)) for texts in zip(*raw, strict=True)]
        parts = [
            pa.array([t if g else b"" for t, g in zip(texts, good, strict=True)], pa.large_binary())
            .view(pa.large_string())
            for texts in raw
        ]  # fmt: skip
    return parts[0], parts[1] if len(parts) > 1 else None


def _is_whole(data: bytes) -> bool:
    """Whether bytes are UTF-8 to the end, which `records.is_text` does not ask: at a character
    cut off the engine fails for good."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
