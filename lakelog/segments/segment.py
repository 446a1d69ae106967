"""Segments: immutable zstd Parquet files of events, named by the SHA-256 of their bytes.

Parquet 2.6, zstd, page checksums, dictionary pages for the columns of few values and for messages
that repeat, delta encoding for times and positions; in sorted ones the texts have what compresses
best (`column_encoding`). Columns are those of `EVENT_COLUMNS`; layout `sorted` (compacted, ordered
by type, time and seq, or also by subject) adds `seq`, layout `arrival` does not: there seq is the
entry's first seq plus the row number. A typed one also has `fields`, payloads as structs (`typed`).
A quarantine segment has `QUARANTINE_COLUMNS`. Key-value metadata: lakelog.format, .commit, .kind,
.layout, .wal (JSON {writer: [first, last sequence]} of what was sealed into it), .branch (whose
WALs), .zstd (the level, of a sorted one) and .sealed (where blocks of protected fields are).
Columns have the numbers of `field_ids`.

Neither DuckDB nor pyarrow syncs what it writes, and a flipped bit in Parquet mostly goes
unnoticed; so a segment is encoded in memory, hashed, written and synced here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import orjson

from lakelog import arrays, bloom, column_encodings, document, protect, typed_columns
from lakelog.database import Connect, SegmentBlocks, connect
from lakelog.disk import Begun, File
from lakelog.entries import MANY, Counts, SegmentEntry
from lakelog.errors import DamagedSegment
from lakelog.event import EVENT_COLUMNS
from lakelog.keys import VAULT
from lakelog.libraries import pa, pc, pq
from lakelog.paths import Paths
from lakelog.settings import DEFAULTS

if TYPE_CHECKING:
    from lakelog.settings import Settings
    from lakelog.typed_columns import FieldColumns

QUARANTINE_COLUMNS = ("ingested_at", "origin", "position", "reason", "line")
_DICTIONARY = ("type", "category", "source", "level", "origin", "reason")
_DELTA = ("time", "ingested_at", "position", "seq")
_LENGTHS = ("subject", "data", "id", "line")
"""Texts whose lengths are stored apart in sorted segments, unless another encoding was chosen."""
_TRIED, _TRIED_BYTES = 8_192, 1 << 20
"""Encodings of texts are tried on so many rows, or on more where they are short: a dictionary of
what comes 25 times looks longer than it gets by a few rows."""
TEXTS = ("subject", "message", "id")
"""Columns of texts of any kind, whose encodings are chosen by trial in sorted segments."""
_REPEATS = 4
"""Messages that each come as often, on average, are stored once in a dictionary."""
# Bounds of the statistics of an entry (F6.7), so that a page of entries stays small.
_NAMES_MAX = 32
_TEXT_MAX = 64
_PLAIN = 500
"""A segment of so few rows has no dictionaries: the page of each would hold about as many bytes as
it spares, and a sixth of the time of writing the segment goes into them."""
_PAGE_BYTES = {"arrival": 1 << 20, "sorted": 1 << 22}
"""Matches of zstd end where a page does: a log's lines in pages of 1 MiB are 6 % larger. But a
search for one row decompresses its page, and those of payloads as text are the longest."""
_STATISTICS: dict[str, list[str] | bool] = {"arrival": [*_DELTA], "sorted": True}
"""Columns with statistics. Rows as they arrived are of all types, names and payloads in any part of
them, and a fifth of the time of writing them went into bounds that spared nothing."""
_TEXT_BYTES = "lakelog.text_bytes"
"""Of a typed segment: bytes of the payloads that are structs, as text."""
_ROWS, _SEGMENTS = 65_536, 256


def rows_target(settings: Settings, events: int) -> int:
    """Return how many rows a segment should have in a lake of this many events.

    A large lake always has over two hundred segments, so that a query can skip most of them, until
    they are as large as the settings allow; sizes double, so that a growing lake seldom rewrites
    old ones.
    """
    rows = _ROWS
    while rows * 2 <= settings.segment_rows and rows * 2 * _SEGMENTS <= events:
        rows *= 2
    return min(rows, settings.segment_rows)


@functools.cache
def segment_schema(content: str = "events", layout: str = "arrival") -> pa.Schema:
    """Return the Arrow schema of a segment."""
    stamp = pa.timestamp("us", tz="UTC")
    types = {"time": stamp, "ingested_at": stamp, "position": pa.int64(), "seq": pa.int64()}
    names = EVENT_COLUMNS if content == "events" else QUARANTINE_COLUMNS
    names = (*names, "seq") if layout == "sorted" else names
    columns = [(name, types.get(name, pa.string())) for name in names]
    return pa.schema([typed_columns.numbered_column(*column) for column in columns])


def write_segment(
    paths: Paths,
    table: pa.Table,
    *,
    kind: str,
    layout: str,
    commit: str,
    wal: dict[str, list[int]] | None = None,
    branch: str = "",
    lake: str = "",
    hosts: dict[str, str] | None = None,
    pending_writes: list[Begun] | None = None,
) -> SegmentEntry:
    """Write rows; return their manifest entry, without seq. See `put_segment`."""
    blocks: protect.sealed_blocks.Blocks = {}
    if paths.protection is not None:
        if kind == "events":
            table, blocks = protect.sealed_blocks.packed(paths, table)
        else:
            table = protect.sealed_blocks.sealed_lines(paths, table)
    encoder = SegmentEncoder(kind, layout, commit, is_short=table.num_rows <= _PLAIN)
    encoder.add(table)
    encoder.blocks |= blocks
    data = encoder.finish(wal, branch, lake, hosts)
    return put_segment(paths, data, table, kind, layout, pending_writes)


def put_segment(
    paths: Paths,
    data: bytes,
    table: pa.Table,
    row_kind: str,
    layout: str,
    pending_writes: list[Begun] | None = None,
) -> SegmentEntry:
    """Write an encoded segment of `table`; return its manifest entry, without seq.

    It is durable then, or with `pending_writes` is added to these, for the caller to finish.
    """
    keys = paths.keys
    data = keys.encrypt(data) if keys else data
    digest = document.digest(data)
    path = paths.object("segments", digest)
    if pending_writes is not None:
        pending_writes.append(File(path).begin(data))
    # Before a write that is waited for, while the rows are in the processor's cache.
    entry = describe_rows(digest, len(data), table, row_kind, layout)
    if row_kind == "events" and SegmentBlocks.is_shared(paths):
        root = SegmentBlocks.root_of(SegmentBlocks.hashes_of(data))
        entry = dataclasses.replace(entry, blocks=root)
    if pending_writes is None:
        File(path).put(data)
    # Now, while the rows are in memory: a filter made later has to read the segment again.
    if row_kind == "events" and table.num_rows >= bloom.LEAST:
        bloom.save(paths, digest, table)
    return entry


class SegmentEncoder:
    """Encodes a segment table by table, so that encoding can run in parallel with other work."""

    ROW_GROUP: ClassVar = 65_536
    """Rows of a row group."""

    def __init__(
        self,
        row_kind: str,
        layout: str,
        commit: str,
        level: int = 3,
        fields: FieldColumns | None = None,
        text_encodings: dict[str, str] | None = None,
        *,
        is_short: bool = False,
        page_rows: int | None = None,
    ) -> None:
        """`texts` are encodings of `TEXTS` that were chosen, those of `column_encoding`; `is_short`
        if no more than a few rows will be added; `page_rows` how many a page has at most."""
        self._schema, self._layout = segment_schema(row_kind, layout), layout
        self._text_bytes = 0
        self._notes = {
            "lakelog.format": "1",
            "lakelog.commit": commit,
            "lakelog.kind": row_kind,
            "lakelog.layout": layout,
        }
        self._notes |= {"lakelog.zstd": str(level)} if layout == "sorted" else {}
        self._dictionary = [n for n in _DICTIONARY if n in self._schema.names and not is_short]
        self._column_encodings = _encodings(self._schema.names, layout)
        self._texts = text_encodings
        if fields:
            self._schema = self._schema.append(typed_columns.numbered_structs(fields.schema))
            self._notes[typed_columns.Schema.NOTE] = fields.schema.to_json()
            self._dictionary += fields.dictionary
            self._column_encodings |= fields.encodings
        self._level, self._page_rows = level, page_rows
        self.blocks: protect.sealed_blocks.Blocks = {}
        """Those of the protected fields of the rows."""
        self._sink = pa.BufferOutputStream()
        # Opened by the first rows: whether messages get a dictionary depends on how they repeat.
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table, text_bytes: int = 0) -> None:
        """Encode more rows; other columns than a segment's are left out.

        `text_bytes` is the length of their payloads that are structs.
        """
        self._text_bytes += text_bytes
        rows = table.select(self._schema.names)
        if rows.schema != self._schema:
            rows = rows.cast(self._schema)
        self._writer = self._writer or self._open(rows)
        self._writer.write_table(rows, row_group_size=self.ROW_GROUP)

    def _open(self, rows: pa.Table) -> pq.ParquetWriter:
        """Return a writer whose encodings suit the first rows."""
        text_encodings = self._texts
        if text_encodings is None:
            repeats = "message" in rows.column_names and _is_repetitive(rows["message"])
            text_encodings = {"message": column_encodings.DICTIONARY} if repeats else {}
        dictionary = [name for name, encoding in text_encodings.items() if not encoding]
        encodings = {**self._column_encodings, **text_encodings}
        return pq.ParquetWriter(
            self._sink,
            self._schema,
            compression="zstd",
            compression_level=self._level,
            write_page_checksum=True,
            write_statistics=_STATISTICS[self._layout],
            store_schema=False,  # the Arrow schema would only repeat what F4.1 says
            version="2.6",
            use_dictionary=[*self._dictionary, *dictionary],
            column_encoding={name: encoding for name, encoding in encodings.items() if encoding},
            data_page_size=_PAGE_BYTES[self._layout],
            max_rows_per_page=self._page_rows,
        )

    def finish(
        self,
        wal: dict[str, list[int]] | None = None,
        branch: str = "",
        lake: str = "",
        hosts: dict[str, str] | None = None,
    ) -> bytes:
        """Return the bytes; `wal` are the sequences sealed into them, by writer of `branch` of the
        lake with the id `lake`, and `hosts` those of the writers, by their digests."""
        notes = {**self._notes, "lakelog.wal": orjson.dumps(wal or {}).decode()}
        notes |= {"lakelog.branch": branch} if branch else {}
        notes |= {"lakelog.lake": lake} if lake else {}
        notes |= {"lakelog.hosts": orjson.dumps(hosts).decode()} if hosts else {}
        notes |= {_TEXT_BYTES: str(self._text_bytes)} if typed_columns.Schema.NOTE in notes else {}
        writer = self._writer or self._open(self._schema.empty_table())
        # All pages are written, and the footer is not: readers find their columns by place.
        notes |= protect.sealed_blocks.write_blocks(self._sink, self.blocks) if self.blocks else {}
        writer.add_key_value_metadata(notes)
        writer.close()
        return bytes(self._sink.getvalue())


def text_encodings(table: pa.Table, order: pa.Array) -> dict[str, str]:
    """Return the encodings of `TEXTS` for a segment of the rows of a table in this order, by
    trial on one row group, for each has a dictionary of its own."""
    size = SegmentEncoder.ROW_GROUP
    group = order.slice(len(order) // size // 2 * size, size)
    encodings = {}
    for name in TEXTS:
        row_bytes = table[name].nbytes / max(len(table), 1)
        rows_max = max(_TRIED, int(_TRIED_BYTES / max(row_bytes, 1)))
        # Only these rows: long texts of a whole row group would be copied for a few.
        values = table[name].take(group.take(column_encodings.sample(len(group), rows_max)))
        scale = len(group) / max(len(values), 1)
        values = values.combine_chunks().drop_null()
        if len(values):
            encodings[name] = column_encodings.choose(values, scale)
    return encodings


def _encodings(names: list[str], layout: str) -> dict[str, str]:
    encodings = dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED")
    if layout == "sorted":
        encodings |= dict.fromkeys(_LENGTHS, "DELTA_LENGTH_BYTE_ARRAY")
    return {name: encodings[name] for name in names if name in encodings}


def _is_repetitive(messages: pa.ChunkedArray) -> bool:
    """Whether texts repeat so much that a dictionary of them is smaller than what zstd finds."""
    count = len(messages) - messages.null_count
    if not count:
        return False
    distinct = int(pc.count_distinct(messages).as_py())
    return distinct * _REPEATS <= int(count)


def describe_rows(
    digest: str, size: int, table: pa.Table, row_kind: str, layout: str
) -> SegmentEntry:
    """Return the entry of a segment of these rows, without seq; its statistics are for pruning."""
    times = arrays.numbers(table["time" if row_kind == "events" else "ingested_at"])
    time: Any = (int(times.min()), int(times.max())) if len(times) else (None, None)
    entry = SegmentEntry(digest, size, row_kind, table.num_rows, layout, time)
    if row_kind != "events":
        return entry
    counts = (_counts(table[name]) for name in ("type", "source", "level"))
    low, high = _bounds(table["subject"])
    # Without the longest values the range would be wrong, so it is all or nothing.
    short = low is not None and len(low) <= _TEXT_MAX and len(high) <= _TEXT_MAX
    types, sources, levels = counts
    return dataclasses.replace(
        entry, types=types, sources=sources, levels=levels, subject=(low, high) if short else None
    )


class Segment:
    """A segment that is stored; whoever reads rows of it has verified it. Each method raises
    FileNotFoundError for one that is missing, and InvalidKey for an encrypted one without its key.
    """

    def __init__(self, paths: Paths, digest: str) -> None:
        self._paths, self._path = paths, paths.object("segments", digest)
        self._digest = digest

    def read(
        self, columns: list[str] | None = None, open_engine: Connect | None = None
    ) -> pa.Table:
        """Return the rows, every payload as text. Page checksums are checked too. Raises
        DamagedSegment where the schema of its fields is none.

        `columns` are those wanted. Payloads that are not stored as text need an engine: who reads
        many segments has `open_engine` return the same one each time.
        """
        table, fields = self.read_stored(columns)
        if fields is None:
            return table
        if not table.num_rows:
            return table.drop_columns([typed_columns.COLUMN])
        with (
            contextlib.nullcontext(open_engine()) if open_engine else connect(self._paths, DEFAULTS)
        ) as connection:
            return typed_columns.restored(connection, fields, table)

    def read_stored(
        self, columns: list[str] | None = None
    ) -> tuple[pa.Table, typed_columns.Schema | None]:
        """Return the rows as they are stored, and the schema of their payloads where there is a
        column `fields`; otherwise as `read`."""
        with pq.ParquetFile(self._source(), page_checksum_verification=True) as file:
            is_typed = typed_columns.COLUMN in file.schema_arrow.names
            if columns is not None and "data" in columns and is_typed:
                columns = [*columns, typed_columns.COLUMN]
            table: pa.Table = file.read(columns=columns)
        if typed_columns.COLUMN not in table.column_names:
            return table, None
        try:
            return table, typed_columns.Schema.from_json(self.metadata()["fields"])
        except (KeyError, ValueError) as error:
            raise DamagedSegment(self._path, f"its fields cannot be read: {error}") from None

    def text_bytes(self) -> int:
        """Return the bytes of the payloads that are structs, as text; 0 where none are."""
        return int(self.metadata().get(_TEXT_BYTES.removeprefix("lakelog."), "0"))

    def typed_members(self) -> tuple[str, int, bool]:
        """Return the members `fields`, `texts` and `numbers` of a segment's entry."""
        notes = self.metadata()
        with pq.ParquetFile(self._source()) as file:
            column_notes = file.schema_arrow.field(0).metadata or {}
            has_numbers = (
                notes.get("layout") == "sorted" and typed_columns.NUMBER_NOTE in column_notes
            )
            if "fields" not in notes:
                return "", 0, has_numbers
            payloads = file.read(columns=["data"])["data"]
        return (
            typed_columns.Schema.key_of(notes["fields"]),
            len(payloads) - payloads.null_count,
            has_numbers,
        )

    def describe(self) -> SegmentEntry:
        """Return its entry, without seq, as far as the file itself tells."""
        notes, (fields, texts, has_numbers) = self.metadata(), self.typed_members()
        row_kind, layout = notes.get("kind", "events"), notes.get("layout", "arrival")
        size = os.stat(self._path).st_size
        entry = describe_rows(self._digest, size, self.read(), row_kind, layout)
        return dataclasses.replace(entry, fields=fields, text_rows=texts, has_numbers=has_numbers)

    def uncompressed(self) -> int:
        """Return the bytes of the columns before compression, from the footer; those of a typed
        segment, with its payloads as text."""
        footer = pq.read_metadata(self._source())
        payload_bytes = int((footer.metadata or {}).get(_TEXT_BYTES.encode(), b"0"))
        groups = map(footer.row_group, range(footer.num_row_groups))
        return payload_bytes + sum(int(group.total_byte_size) for group in groups)

    def column_bytes(self) -> Iterator[tuple[str, int]]:
        """Yield the columns of each row group, with their bytes in the file."""
        footer = pq.read_metadata(self._source())
        for group in map(footer.row_group, range(footer.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                yield column.path_in_schema, column.total_compressed_size

    def batches(self, size: int) -> Iterator[pa.Table]:
        """Yield the rows, `size` at a time."""
        with pq.ParquetFile(self._source(), page_checksum_verification=True) as file:
            for batch in file.iter_batches(size, use_threads=False):
                yield pa.Table.from_batches([batch])

    def metadata(self) -> dict[str, str]:
        """Return its lakelog.* notes, keys without the prefix."""
        notes = pq.read_metadata(self._source()).metadata or {}
        return {k.decode()[8:]: v.decode() for k, v in notes.items() if k.startswith(b"lakelog.")}

    def _source(self) -> Any:
        """Return what Arrow reads it from."""
        return VAULT.file(self._path)


def _bounds(column: pa.ChunkedArray) -> tuple[Any, Any]:
    """Return the least and the greatest text, None where there is none."""
    if len(column) > _PLAIN:
        bounds = pc.min_max(column).as_py()
        return bounds["min"], bounds["max"]
    # Arrow takes longer to begin than Python takes for a few values; it orders texts as Python.
    values = [value for value in column.to_pylist() if value is not None]
    return (min(values), max(values)) if values else (None, None)


def _counts(column: pa.ChunkedArray) -> Counts:
    """Return {value: rows}, null as "", or MANY where there are too many or too long names."""
    if len(column) > _PLAIN:
        counted = pc.value_counts(column)
        if len(counted) > _NAMES_MAX:
            return MANY
        counts = dict(zip(*(counted.field(number).to_pylist() for number in range(2)), strict=True))
    elif len(counts := Counter(column.to_pylist())) > _NAMES_MAX:
        return MANY
    pairs: dict[str, int] = {}
    # Null and the empty text are two values until here and one key from here on.
    for name, count in counts.items():
        pairs[name or ""] = pairs.get(name or "", 0) + count
    return MANY if any(len(name) > _TEXT_MAX for name in pairs) else pairs
