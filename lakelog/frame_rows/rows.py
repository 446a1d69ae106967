"""Frames to rows: WAL lines become Arrow columns, by the SQL engine, with no per-event Python.

Each line is cut at its first `,"data":` (encode.py): the head is a flat object of strings, the
rest is the payload's own text, which is never parsed. Besides the event columns a table has
`writer`, `sequence` and, for frames flagged keyed, `key` (24 hex digits or null). A few lines are
read sooner one by one than a query is planned; those of an unusual shape are left to the query.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

from lakelog import arrays, identities
from lakelog.appends import StreamSubject
from lakelog.database import Connect
from lakelog.errors import DamagedWal
from lakelog.event import identity_key
from lakelog.frame_rows.frame_sql import COLUMNS, TIMES
from lakelog.libraries import duckdb, np, pa
from lakelog.wal import Frame

_TEXT = (
    "time timestamp ts @timestamp type event_type category content_type source subject item_id"
    " level message id key"
).split()
_HEAD_TYPES = "{" + ",".join(f'"{name}":"VARCHAR"' for name in _TEXT) + "}"
_KEY = f"""CASE WHEN keyed THEN coalesce(j.key, CASE WHEN j.id <> ''
    THEN {identities.id_key("j.")} END) END"""
# Up to here Python is done before the query would be planned.
_FEW = 1_500
_SHAPES = 256
"""So many sets of members are remembered with what reads them."""
_DECOMPRESSED = 1 << 23
"""Bytes of lines that the engine is given at a time."""
_EVENTS = f"""
WITH cut AS (SELECT *, strpos(line, ',"data":') AS at_data FROM lines),
     split AS (SELECT * EXCLUDE (line),
         CASE WHEN at_data > 0 THEN substr(line, 1, at_data - 1) || '}}' ELSE line END AS head,
         CASE WHEN at_data > 0
              THEN substr(line, at_data + 8, length(line) - at_data - 9) END AS data
         FROM cut),
     parsed AS MATERIALIZED (SELECT *, from_json(head, '{_HEAD_TYPES}') AS j FROM split)
SELECT coalesce(j.time, j.timestamp, j.ts, j."@timestamp")::TIMESTAMPTZ AS time,
       coalesce(j.type, j.event_type) AS type, coalesce(j.category, j.content_type) AS category,
       j.source AS source, coalesce(j.subject, j.item_id) AS subject, j.level AS level,
       j.message AS message, nullif(data, 'null') AS data, j.id AS id,
       make_timestamptz(ingested_at) AS ingested_at, writer AS origin, position, writer, sequence,
       {_KEY} AS key
FROM parsed"""
# Of an event of a stream, as its line has a version.
_VERSIONED_EVENTS = _EVENTS.replace("VARCHAR\"}'", 'VARCHAR","version":"VARCHAR"}\'').replace(
    "writer AS origin, position,",
    f"""
    CASE WHEN versioned AND j.version IS NOT NULL
        THEN '{StreamSubject.ORIGIN}' || coalesce(j.subject, j.item_id) ELSE writer END AS origin,
    CASE WHEN versioned AND j.version IS NOT NULL
        THEN j.version::BIGINT ELSE position END AS position,""",
)
_QUARANTINE = """
SELECT make_timestamptz(ingested_at) AS ingested_at, coalesce(j.origin, writer) AS origin,
       coalesce(j.position, position) AS position, j.reason AS reason, j.line AS line,
       writer, sequence
FROM (SELECT *, from_json(line, '{"origin":"VARCHAR","position":"BIGINT","reason":"VARCHAR",
      "line":"VARCHAR"}') AS j FROM lines)"""


def events(connect: Connect, frames: list[Frame]) -> pa.Table:
    """Return the rows of event frames, in frame order. A few of usual shapes need no engine. Raises
    DamagedWal."""
    frames = [f for f in frames if not f.flags & Frame.QUARANTINED]
    rows = _rows_of_few(frames) if sum(f.events for f in frames) <= _FEW else None
    if rows is not None:
        return rows
    query = _VERSIONED_EVENTS if any(f.is_versioned for f in frames) else _EVENTS
    return _run(connect, frames, query).cast(_schema())


def quarantined(connect: Connect, frames: list[Frame]) -> pa.Table:
    """Return the rows of quarantine frames. Raises DamagedWal."""
    return _run(connect, [f for f in frames if f.flags & Frame.QUARANTINED], _QUARANTINE)


def _run(connect: Connect, frames: list[Frame], query: str) -> pa.Table:
    """Return what a query makes of all lines, parsing some while the next are decompressed."""
    failed: list[DamagedWal] = []
    try:
        return _answer(connect(), _stream(frames, failed), query)
    except Exception:
        if failed:  # the engine has made an error of its own of it
            raise failed[0] from None
        raise


def _answer(connection: duckdb.DuckDBPyConnection, lines: pa.Table, query: str) -> pa.Table:
    with connection.cursor() as cursor:
        cursor.register("lines", lines)
        table: pa.Table = cursor.sql(query).to_arrow_table()
        return table


def _rows_of_few(frames: list[Frame]) -> pa.Table | None:
    """Return the rows that the query would give, or None if a line is of an unusual shape."""
    try:
        columns = _columns_of_few(frames)
        if not _are_usual_times(columns[0]):
            return None
        # All texts as one array: that of each column by itself would take as long as parsing. What
        # is no text raises an error here.
        full = [not c or c[0] is not None or c.count(None) < len(c) for c in columns]
        flat = arrays.texts(list(itertools.chain.from_iterable(itertools.compress(columns, full))))
        count = len(columns[0])
        starts, empty = itertools.count(0, count), pa.nulls(count, pa.string())
        time, *strings = (flat.slice(next(starts), count) if some else empty for some in full)
        times = time.cast(pa.timestamp("us", "UTC"))
    # The query is the rule; this path may only answer where both give the same.
    except (ValueError, AttributeError, TypeError):
        return None
    *envelope, key, data = strings
    counts = [f.events for f in frames]
    ingested_at, sequence = (
        np.repeat(np.array([getattr(f, name) for f in frames], np.int64), counts)
        for name in ("ingested_at", "sequence")
    )
    writer = arrays.spread([f.writer for f in frames], counts)
    origin, places = writer, [f.position + nth for f in frames for nth in range(f.events)]
    if any(f.is_versioned for f in frames):
        origins = writer.to_pylist()
        for row, (own_origin, version) in _versions(frames):
            origins[row], places[row] = own_origin, version
        origin = arrays.texts(origins)
    position = arrays.integers(np.array(places, np.int64))
    *before_data, event_id = envelope
    columns_in_order = [
        *before_data,
        data,
        event_id,
        arrays.times(ingested_at),
        origin,
        position,
        writer,
    ]
    return pa.Table.from_arrays(
        [times, *columns_in_order, arrays.integers(sequence), key], schema=_schema()
    )


def _versions(frames: list[Frame]) -> Iterator[tuple[int, tuple[str, int]]]:
    """Yield the rows that have versions, with what these make of their origin and position."""
    row = 0
    for frame in frames:
        if frame.is_versioned:
            for nth, line in enumerate(frame.lines()[:-1].split(b"\n"), row):
                if place := StreamSubject.place_of(line):
                    yield nth, place
        row += frame.events


def _columns_of_few(frames: list[Frame]) -> list[Sequence[str | None]]:
    """Time, text columns, key and data of all lines. Raises as `_row` does."""
    payloads = zip(frames, _texts(frames, Frame.lines), strict=True)
    rows = [
        _row(line, bool(frame.flags & Frame.KEYED))
        for frame, payload in payloads
        for line in (payload[:-1].split(b"\n") if payload else ())
    ]
    # One tuple a column; `zip` of no rows would give none at all.
    return list(zip(*rows, strict=True)) if rows else [()] * (len(COLUMNS) + 2)


def _are_usual_times(times: Sequence[Any]) -> bool:
    """Whether times have the form that Arrow reads as the engine does."""
    return {*map(len, times)} <= {20, 24, 27} and {time[19] for time in times} <= {".", "Z"}


def _row(line: bytes, keyed: bool) -> tuple[str | None, ...]:
    """Time, text columns, key and data of a line. Raises ValueError, TypeError or AttributeError
    if it is not of the usual shape."""
    head, separator, tail = line.partition(b',"data":')
    data = None
    if separator:
        head, data = head + b"}", tail[:-1].decode()
    members = orjson.loads(head)
    # A key is there twice, or a text looks like a key.
    if line[-1:] != b"}" or head.count(b'":') != len(members):
        raise ValueError
    read_members = _reader(tuple(members))
    members[None] = None  # what the reader takes for a column that the line does not name
    *envelope, event_id, key = read_members(members)
    if not keyed:
        key = None
    elif key is None and event_id:
        key = identity_key(envelope[3], event_id)
    return (*envelope, event_id, key, None if data == "null" else data)


@functools.lru_cache(_SHAPES)
def _reader(
    names: tuple[str, ...],
) -> Callable[[dict[str | None, str | None]], tuple[str | None, ...]]:
    """Return what reads time and text columns of a line that has these members: most lines have
    the same."""
    present = [[name for name in column if name in names] for column in (TIMES, *COLUMNS)]
    if any(len(column) > 1 for column in present):
        return lambda members: tuple(_first(members, column) for column in (TIMES, *COLUMNS))
    return operator.itemgetter(*(column[0] if column else None for column in present))


def _first(members: dict[str | None, str | None], names: tuple[str, ...]) -> str | None:
    return next((members[name] for name in names if members.get(name) is not None), None)


@functools.cache
def _schema() -> pa.Schema:
    """The columns of events; the engine's tables are cast to it, as it may name UTC otherwise."""
    micros, string, number = pa.timestamp("us", "UTC"), pa.string(), pa.int64()
    kinds = {"time": micros, "ingested_at": micros, "position": number, "sequence": number}
    names = (
        "time type category source subject level message data id ingested_at origin position"
        " writer sequence key"
    )
    return pa.schema([(name, kinds.get(name, string)) for name in names.split()])


def _texts(frames: list[Frame], read_frame: Callable[[Frame], bytes]) -> list[bytes]:
    """What is read of each frame. Raises DamagedWal."""
    contents: list[bytes] = []
    for frame in frames:
        try:
            contents.append(read_frame(frame))
        except ValueError as error:
            raise DamagedWal(f"WAL of {frame.writer}", str(error), frame.offset) from None
    return contents


def _stream(frames: list[Frame], failed: list[DamagedWal]) -> pa.RecordBatchReader:
    """Return the rows of `_lines`, some frames at a time, so that the engine parses while the next
    are decompressed. An error is added to `failed` before it is raised."""
    writers = sorted({f.writer for f in frames})

    def batches() -> Iterator[pa.RecordBatch]:
        for some in _pieces(frames):
            try:
                yield from _lines(some, writers).to_batches()
            except DamagedWal as error:
                failed.append(error)
                raise

    return pa.RecordBatchReader.from_batches(_lines([], writers).schema, batches())


def _pieces(frames: list[Frame]) -> Iterator[list[Frame]]:
    """Yield frames, some at a time."""
    start = size = 0
    for stop, frame in enumerate(frames, 1):
        size += frame.raw
        if size >= _DECOMPRESSED or stop == len(frames):
            yield frames[start:stop]
            start, size = stop, 0


def _lines(frames: list[Frame], writers: list[str]) -> pa.Table:
    """Return a row per line with what its frame says of it; `writers` are at least theirs."""
    joined = b"".join(_texts(frames, Frame.text))
    lines, line_starts = arrays.split_lines(joined)
    counts = np.array([f.events for f in frames], dtype=np.int64)
    # The newlines of all frames are found here anyway: that each has as many as it says takes a
    # third as long as to count them frame by frame, which finds the one at fault.
    upto, ends = np.cumsum(counts), np.cumsum([f.raw for f in frames])
    counted = counts.sum() == len(lines) and (line_starts[upto] == ends).all()
    if not counted or joined[-1:] not in (b"\n", b""):
        _texts(frames, Frame.lines)
    # A line's position is that of its frame plus its place in the frame (F3.8).
    positions = np.array([f.position for f in frames], dtype=np.int64) - (upto - counts)
    within = np.arange(len(lines), dtype=np.int64)

    def spread(values: list[int]) -> pa.Array:
        return arrays.integers(np.repeat(np.array(values, np.int64), counts))

    def flags_of(of_frames: list[bool]) -> pa.Array:
        return arrays.mask(np.repeat(of_frames, counts))

    # Few writers and many lines: a dictionary saves 32 bytes a line.
    place = {writer: index for index, writer in enumerate(writers)}
    index = np.repeat(np.array([place[f.writer] for f in frames], np.int32), counts)
    codes = pa.Array.from_buffers(pa.int32(), len(index), [None, pa.py_buffer(index)])
    return pa.table(
        {
            "line": lines,
            "ingested_at": spread([f.ingested_at for f in frames]),
            "position": arrays.integers(within + np.repeat(positions, counts)),
            "writer": pa.DictionaryArray.from_arrays(codes, arrays.texts(writers)),
            "sequence": spread([f.sequence for f in frames]),
            "keyed": flags_of([bool(f.flags & Frame.KEYED) for f in frames]),
            "versioned": flags_of([f.is_versioned for f in frames]),
        }
    )
