"""Lines and rows of a chunk as Arrow arrays: valid text, lines that match, order of rows."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from lakelog.formats import LineEncoding
from lakelog.ingest.records import Records
from lakelog.libraries import np, pa, pc
from lakelog.runtime.lazy import Lazy
from lakelog.wal import Frame

if TYPE_CHECKING:
    import zstandard
else:
    zstandard = Lazy("zstandard")

LINES, BYTES = 8192, 4 << 20
"""Lines, and bytes of documents, that one thread of the engine processes at a time."""


def frame(lines: list[bytes], origin: str) -> Frame:
    """Return events as a frame of a WAL: rows are made of frames in one place, for appended and
    for parsed events."""
    body = b"\n".join(lines) + b"\n"
    payload = zstandard.ZstdCompressor(level=1).compress(body)
    return Frame(origin, 0, len(lines), Frame.KEYED, 0, 0, len(body), payload)


def matching(lines: pa.Array, regex: str) -> np.ndarray:
    """The indexes of lines that a regex matches."""
    return np.flatnonzero(np.asarray(pc.match_substring_regex(lines, regex)))


def untimed_positions(table: pa.Table, ingest_time: datetime) -> np.ndarray:
    """The positions of rows without a time of their own, to which the query gave that of ingest."""
    # The query set the very value `ingest_time`, with microseconds; a line with the same time is as
    # good as untimed.
    blank = pc.equal(table["time"], pa.scalar(ingest_time, table["time"].type))
    return np.asarray(table["position"].filter(blank))


def stripe(lines: pa.Table) -> int:
    """The number of lines that one thread of the engine processes at a time."""
    lines_max = int(BYTES * lines.num_rows // max(lines.nbytes, 1))
    return max(1, min(LINES, lines_max))


def in_order(tables: list[pa.Table | None]) -> pa.Table | None:
    """Merge rows that were parsed in different ways, in the order of the file."""
    full = [t for t in tables if t is not None and t.num_rows]
    if len(full) < 2:
        return full[0] if full else None
    return pa.concat_tables(full, promote_options="default").sort_by("position")


def valid_text(
    chunk_records: Records, *, blank: bool, encoding: str = ""
) -> tuple[pa.Array, pa.Array | None, list[int]]:
    """The lines of records and what continues them, as UTF-8, and the indexes of those that are in
    an older encoding; what is no text is blanked, so that the exact rule says so of each.

    With `blank` the older ones are, too. What is said to be in an `encoding` is decoded.
    """
    columns = (
        [chunk_records.lines]
        if chunk_records.more is None
        else [chunk_records.lines, chunk_records.more]
    )
    if encoding and not all(_is_ascii(column) and not _has_escapes(column) for column in columns):
        return *_decoded(columns, encoding), []
    try:
        # Arrow validates at memory speed; Python looks at records only where that fails.
        for column in columns:
            if not _is_ascii(column):
                column.validate(full=True)
    except pa.ArrowInvalid:
        return _recoded(columns, blank)
    return columns[0], columns[1] if len(columns) > 1 else None, []


def _decoded(columns: list[pa.Array], encoding: str) -> tuple[pa.Array, pa.Array | None]:
    """Records of an encoding as UTF-8; each as a whole, as its characters may depend on those
    before."""
    raw = [column.view(pa.large_binary()).to_pylist() for column in columns]
    if len(raw) == 1:
        values = [LineEncoding.decoded(line, encoding) for line in raw[0]]
        return pa.array(values, pa.large_binary()).view(pa.large_string()), None
    split = [_split(LineEncoding.decoded(a + b, encoding)) for a, b in zip(*raw, strict=True)]
    lines, continued = (pa.array(values, pa.large_binary()) for values in zip(*split, strict=True))
    return lines.view(pa.large_string()), continued.view(pa.large_string())


def _split(record: bytes) -> tuple[bytes, bytes]:
    """The first line of a record, and the rest."""
    end = record.find(b"\n") + 1 or len(record)
    return record[:end], record[end:]


def _recoded(columns: list[pa.Array], blank: bool) -> tuple[pa.Array, pa.Array | None, list[int]]:
    """As `valid_text`, where some record is not UTF-8; records are recoded as a whole."""
    older = list[int]()
    raw = [column.view(pa.large_binary()).to_pylist() for column in columns]
    for index, values in enumerate(zip(*raw, strict=True)):
        record = b"".join(values)
        if _is_whole(record):
            continue
        # Blanked, a record gives no row, and so is left to the exact rule.
        recoded = b"" if blank else LineEncoding.recoded(record) or b""
        older += [index] if recoded else []
        if len(raw) > 1:
            raw[0][index], raw[1][index] = _split(recoded)
        else:
            raw[0][index] = recoded
    arrays = [pa.array(values, pa.large_binary()).view(pa.large_string()) for values in raw]
    return arrays[0], arrays[1] if len(arrays) > 1 else None, older


def mark_encoding(table: pa.Table, places: set[int]) -> pa.Table:
    """Rows with the older encoding of their lines in the payload, where that is an object without
    such a member."""
    column = table["data"].to_pylist()
    for row in np.flatnonzero(np.isin(np.asarray(table["position"]), [*places])).tolist():
        data = column[row] or "{}"
        if data.startswith("{") and not ('"encoding"' in data and "encoding" in json.loads(data)):
            comma = "" if data == "{}" else ","
            column[row] = f'{data[:-1]}{comma}"encoding":"{LineEncoding.OLDER}"}}'
    column_index = table.schema.get_field_index("data")
    return table.set_column(column_index, "data", pa.array(column, table["data"].type))


def without_nul_ids(rows: pa.Table) -> pa.Table:
    """Leave out every row of a line that has an id with a NUL, which the exact rule refuses."""
    refused = pc.match_substring(rows["id"], "\0")
    if not pc.any(refused).as_py():
        return rows
    refused = pc.fill_null(refused, False)
    # The whole line goes, not just one of its events: a line is ingested completely or not at all.
    lines = rows["position"].filter(refused)
    return rows.filter(pc.invert(pc.is_in(rows["position"], lines.combine_chunks())))


def _is_ascii(lines: pa.Array) -> bool:
    """Whether all bytes around these lines are ASCII, which is seen in a fifth of the time."""
    data = np.frombuffer(lines.buffers()[2] or b"", np.uint8)
    return bool(data.max(initial=0) < 128)


def _has_escapes(lines: pa.Array) -> bool:
    """Whether ISO-2022 may switch to other characters around these lines."""
    return bool((np.frombuffer(lines.buffers()[2] or b"", np.uint8) == ord("\x1b")).any())


def _is_whole(data: bytes) -> bool:
    """Whether bytes are UTF-8 to the end, which `records.is_text` does not ask: at a character
    cut off the engine fails for good."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
