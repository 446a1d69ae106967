"""Protected fields in segments: one ciphertext for all events of a subject, and what opens it.

In a WAL each event has its own ciphertext (`protection`). Whoever writes a segment and has the
keys puts those of one subject together, which compresses them: a block. The payload then names the
block and the number in it. Blocks stand in the file between the last page and the footer, whose
note `lakelog.sealed` has their place; engines skip them.

    u32 count; of each block its id of 9 bytes and u32 length; the blocks: of each a ciphertext
    (u16 generation, nonce, AES-256-GCM) of zstd of the texts of its events, with NUL between them

Without the keys rows stay as they are, and the blocks that they name go with them.
"""

from __future__ import annotations

import os
import re
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import orjson
import zstandard

from lakelog.errors import DamagedSegment, InvalidKey
from lakelog.keys import VAULT
from lakelog.libraries import duckdb, np, pa, pc, pq
from lakelog.protect import sealed_payload
from lakelog.protect.protection import BLOCK, Protection, SubjectCiphers, generation_of

_NOTE, _FUNCTION = "lakelog.sealed", "lakelog_open_"
Blocks = dict[bytes, bytes]
_ID = 9
_COUNT, _ENTRY = struct.Struct("<I"), struct.Struct(f"<{_ID}sI")
_BLOCK_EVENTS, _BLOCK_BYTES = 4_096, 1 << 18
"""A block has no more events and text: one event that is read opens all of it."""
_LEVEL = 12
_KEPT_BYTES = 64 << 20
_TEXT_MAX = 1 << 28
_SEPARATOR = b"\0"
"""No JSON text has it."""
_LINE_COLUMNS = "line", "reason"
"""Columns of a quarantined line that may be sealed."""
_MEMBER = f'"{sealed_payload.MEMBER}":"'
_MENTION = re.escape(_MEMBER)
_LOCK = threading.RLock()


class SegmentPaths(Protocol):
    """The paths of a lake, of which these are needed."""

    root: str

    @property
    def protection(self) -> Protection | None:
        """Which fields of the lake are protected."""

    def object(self, object_type: str, digest: str) -> str:
        """The file of an object."""


def write_blocks(sink: Any, blocks: Mapping[bytes, bytes]) -> dict[str, str]:
    """Write blocks into the file of a segment whose pages are all written; return its note."""
    if not blocks:
        return {}
    note = {_NOTE: orjson.dumps({"at": sink.tell()}).decode()}
    entries = [_ENTRY.pack(name, len(block)) for name, block in blocks.items()]
    sink.write(b"".join((_COUNT.pack(len(blocks)), *entries, *blocks.values())))
    return note


class _BlockDirectory:
    """Where the blocks of one segment are in its file."""

    def __init__(self, paths: SegmentPaths, digest: str) -> None:
        self.path = paths.object("segments", digest)
        notes = pq.read_metadata(VAULT.file(self.path)).metadata or {}
        note = notes.get(_NOTE.encode())
        self.spans: dict[bytes, tuple[int, int]] = {}
        if note is None:
            return
        try:
            offset = int(orjson.loads(note)["at"])
            (count,) = _COUNT.unpack(self.read(offset, _COUNT.size))
            entries = self.read(offset + _COUNT.size, count * _ENTRY.size)
            offset += _COUNT.size + len(entries)
            for name, size in _ENTRY.iter_unpack(entries):
                self.spans[name] = offset, size
                offset += size
        except (KeyError, TypeError, ValueError, struct.error):
            raise self.damaged() from None

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the file. Raises DamagedSegment, OSError."""
        with VAULT.open_file(self.path) as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise self.damaged()
        return data

    def damaged(self) -> DamagedSegment:
        """Return the error for blocks that cannot be read."""
        return DamagedSegment(self.path, "its protected fields cannot be read")


class _BlockTexts(NamedTuple):
    """The texts in a block, None where its key was destroyed; which key of its subject that is; and
    how many bytes it takes."""

    events: list[bytes] | None
    generation: int
    size: int


_UNOPENED = (ValueError, IndexError, zstandard.ZstdError)
"""Raised for what is damaged, or no token of this lake."""


class SealedFields:
    """The protected fields of one lake in this process. Safe for threads."""

    def __init__(self, paths: SegmentPaths, protection: Protection) -> None:
        self._paths, self.protection = paths, protection
        self._expected: OrderedDict[str, SegmentPaths] = OrderedDict()
        self._directories: dict[str, _BlockDirectory] = {}
        self._places: dict[bytes, str] = {}
        self._texts: OrderedDict[bytes, _BlockTexts] = OrderedDict()
        self._text_bytes = 0
        self._ciphers: SubjectCiphers | None = None

    def expect(self, digests: Iterable[str], paths: SegmentPaths | None = None) -> None:
        """Note in which segments, of this lake or of a copy, blocks are looked for that rows
        name."""
        with _LOCK:
            for digest in digests:
                if digest not in self._directories:
                    self._expected[digest] = paths or self._paths
                    self._expected.move_to_end(digest)

    def block(self, name: bytes) -> bytes | None:
        """Return a block of an expected segment, None where there is none. Raises DamagedSegment,
        OSError, InvalidKey."""
        with _LOCK:
            while name not in self._places and self._expected:
                digest, paths = self._expected.popitem()
                try:
                    directory = self._directories[digest] = _BlockDirectory(paths, digest)
                except FileNotFoundError:
                    continue
                self._places.update(dict.fromkeys(directory.spans, digest))
            if name not in self._places:
                return None
            directory = self._directories[self._places[name]]
            try:
                return directory.read(*directory.spans[name])
            except FileNotFoundError:  # it was collected; another segment has the rows now
                for lost_name in directory.spans:
                    self._places.pop(lost_name, None)
            return self.block(name)

    def refresh(self) -> SubjectCiphers | None:
        """Look at the file of keys, and forget what was opened with other ones. Raises
        InvalidKey."""
        ciphers = self.protection.ciphers()
        self._open_with(ciphers)
        return ciphers

    def _open_with(self, ciphers: SubjectCiphers | None) -> None:
        with _LOCK:
            if ciphers is not self._ciphers:
                self._ciphers, self._texts, self._text_bytes = ciphers, OrderedDict(), 0

    def _texts_of(self, ciphers: SubjectCiphers, subject: str, name: bytes) -> _BlockTexts:
        with _LOCK:
            # Who began before a key was destroyed may open with it: nobody else may see that.
            self._open_with(ciphers)
            texts = self._texts.get(name)
            if texts is not None:
                self._texts.move_to_end(name)
                return texts
            sealed = self.block(name)
            if sealed is None:
                raise ValueError(name) if self._may_be_plain else self._unreadable()
            compressed = ciphers.open(subject, sealed, BLOCK)
            events, size = None, 64
            if compressed is not None:
                joined = zstandard.ZstdDecompressor().decompress(compressed, _TEXT_MAX)
                events, size = joined.split(_SEPARATOR), len(joined) + 64
            texts = self._texts[name] = _BlockTexts(events, generation_of(sealed), size)
            self._text_bytes += size
            while self._text_bytes > _KEPT_BYTES and len(self._texts) > 1:
                self._text_bytes -= self._texts.popitem(last=False)[1].size
            return texts

    def members(
        self, ciphers: SubjectCiphers, subject: str, token: str
    ) -> tuple[bytes, int] | None:
        """Return the sealed members that a token stands for, and the generation of their key; None
        where it was destroyed. Raises InvalidKey, DamagedSegment; ValueError, IndexError, ZstdError
        for what is damaged or no token of this lake."""
        if token == sealed_payload.GONE:
            return None
        ciphertext = sealed_payload.ciphertext_of(token)
        if ciphertext is not None:
            members = ciphers.open(subject, ciphertext)
            return None if members is None else (members, generation_of(ciphertext))
        name, number = sealed_payload.place_of(token)
        events, generation, _ = self._texts_of(ciphers, subject, name)
        return None if events is None else (events[number], generation)

    def _payload(self, ciphers: SubjectCiphers, subject: str | None, data: bytes) -> bytes:
        """Return a payload with its protected fields, or without their token where the key is not
        there any more. Raises InvalidKey, DamagedSegment."""
        halves = sealed_payload.without_token(data)
        if halves is None:
            return data
        stays, token = halves
        try:
            content = self.members(ciphers, self.protection.owner(subject, stays), token)
            return stays if content is None else sealed_payload.joined(stays, content[0])
        except _UNOPENED:
            if self._may_be_plain:
                return data
            raise self._unreadable() from None

    @property
    def _may_be_plain(self) -> bool:
        """Whether events from before the fields were protected may have a member of the name of
        tokens, which nobody sealed."""
        return self.protection.since > 0

    def carried(self, payloads: Iterable[bytes]) -> Blocks:
        """Return the blocks that payloads name. Raises DamagedSegment, OSError, InvalidKey."""
        blocks: Blocks = {}
        for data in payloads:
            halves = sealed_payload.without_token(data)
            if halves is None or halves[1][:1] != "b":
                continue
            try:
                name, _ = sealed_payload.place_of(halves[1])
                block = blocks.get(name) or self.block(name)
            except ValueError:
                block = None
            if block is not None:
                blocks[name] = block
            elif not self._may_be_plain:
                raise self._unreadable()
        return blocks

    def _unreadable(self) -> DamagedSegment:
        place = f"{self._paths.root}/segments"
        return DamagedSegment(place, "the protected fields of an event cannot be read")

    def open_column(self, subjects: pa.Array, payloads: pa.Array) -> pa.Array:
        """Return payloads with their protected fields. Raises InvalidKey, DamagedSegment."""
        numbers = _matching(payloads, _MENTION)
        ciphers = self.refresh() if len(numbers) else None
        if ciphers is None:
            return payloads.cast(pa.string())
        values, names = payloads.to_pylist(), subjects.to_pylist()
        for row in numbers.tolist():
            values[row] = self._payload(ciphers, names[row], values[row].encode()).decode()
        return pa.array(values, pa.string())

    def events(self, rows: pa.Table) -> pa.Table:
        """Return rows of events with their protected fields, where this process has the keys.
        Raises InvalidKey, DamagedSegment."""
        subjects, payloads = (rows[name].combine_chunks() for name in ("subject", "data"))
        return _with_column(rows, "data", self.open_column(subjects, payloads))

    def quarantined(self, lines: pa.Table) -> pa.Table:
        """Return quarantined lines as they were, where this process has the keys. Raises
        InvalidKey."""
        nobody = pa.nulls(len(lines), pa.string())
        for name in _LINE_COLUMNS:
            texts = self.open_column(nobody, lines[name].combine_chunks())
            lines = _with_column(lines, name, texts)
        return lines


def _matching(column: pa.Array | pa.ChunkedArray, pattern: str) -> np.ndarray:
    """Return the numbers of the rows whose texts match."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    matches = pc.match_substring_regex(column, pattern).fill_null(False)
    return np.flatnonzero(np.asarray(matches.to_numpy(zero_copy_only=False), bool))


def _with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    index = table.column_names.index(name)
    return table.set_column(index, name, pa.array(values, table.schema.field(name).type))


_FIELDS: dict[str, SealedFields] = {}


def of_lake(paths: SegmentPaths) -> SealedFields | None:
    """Return what opens the protected fields of a lake, None of a lake without them. Raises
    InvalidKey."""
    protection = paths.protection
    if protection is None:
        return None
    with _LOCK:
        fields = _FIELDS.get(paths.root)
        if fields is None:
            fields = _FIELDS[paths.root] = SealedFields(paths, protection)
        # Another one may say so now; which segments rows were read of stays known.
        fields.protection = protection
        return fields


def opened_sql(paths: SegmentPaths, rows: str, digests: Iterable[str]) -> str:
    """Return SQL for rows of events, of segments with these digests or of none, with the protected
    fields of which this process has the keys: for a database of this lake. Raises InvalidKey."""
    fields = of_lake(paths)
    if fields is not None:
        fields.expect(digests)
    return _opened_sql(fields, rows, "subject", ("data",))


def opened_lines_sql(paths: SegmentPaths, rows: str) -> str:
    """Return SQL for quarantined lines as they were, where this process has the keys. Raises
    InvalidKey."""
    return _opened_sql(of_lake(paths), rows, "NULL", _LINE_COLUMNS)


def _opened_sql(
    fields: SealedFields | None, rows: str, subject: str, columns: tuple[str, ...]
) -> str:
    if fields is None or fields.refresh() is None:
        return rows
    function = f"{_FUNCTION}{fields.protection.id}"
    calls = (f"{function}({subject}, {column}) AS {column}" for column in columns)
    return f"SELECT * REPLACE ({', '.join(calls)}) FROM ({rows})"


def install(paths: SegmentPaths, connection: duckdb.DuckDBPyConnection) -> None:
    """Give the database of a protected lake the function that `opened_sql` calls."""
    assert paths.protection is not None

    def open_rows(subjects: pa.ChunkedArray, payloads: pa.ChunkedArray) -> pa.Array:
        fields, column = of_lake(paths), payloads.combine_chunks()
        return fields.open_column(subjects.combine_chunks(), column) if fields else column

    create: Any = connection.create_function
    name, varchar = f"{_FUNCTION}{paths.protection.id}", "VARCHAR"
    create(name, open_rows, [varchar, varchar], varchar, type="arrow", null_handling="special")


def sealed_lines(paths: SegmentPaths, lines: pa.Table) -> pa.Table:
    """Return quarantined lines as a segment stores them. Raises InvalidKey without the keys."""
    if paths.protection is None:
        return lines
    seals = paths.protection.seal_line, paths.protection.seal_reason
    for name, seal in zip(_LINE_COLUMNS, seals, strict=True):
        lines = _with_column(lines, name, [x and seal(x) for x in lines[name].to_pylist()])
    return lines


def without_tokens(paths: SegmentPaths, rows: pa.Table) -> pa.Table:
    """Return rows of events without what stands for sealed fields: that changes when blocks are
    made, and a signature has to hold all the same."""
    numbers = _matching(rows["data"], _MENTION) if paths.protection is not None else ()
    if not len(numbers):
        return rows
    values = rows["data"].to_pylist()
    for row in numbers:
        halves = sealed_payload.without_token(values[row].encode())
        values[row] = values[row] if halves is None else halves[0].decode()
    return _with_column(rows, "data", values)


def packed(
    paths: SegmentPaths, table: pa.Table, sources: Iterable[str] = (), *, is_new: bool = False
) -> tuple[pa.Table, Blocks]:
    """Return rows of events, their payloads as text, as a segment stores them, and its blocks.

    Fields that are protected and plain are sealed; without the keys only rows with `is_new` have to
    be, others stay as they are. `sources` are the digests of segments that may have the blocks
    which the rows name. Raises InvalidKey, DamagedSegment.
    """
    fields = of_lake(paths)
    if fields is None or not table.num_rows:
        return table, {}
    fields.expect(sources)
    protection = fields.protection
    numbers = _matching(table["data"], protection.mention.pattern.decode())
    if not len(numbers):
        return table, {}
    values: list[Any] = table["data"].to_pylist()
    subjects, types = table["subject"].to_pylist(), table["type"].to_pylist()
    # Who merges segments without the keys carries blocks on as they are.
    ciphers = protection.require_ciphers() if is_new else _ciphers(fields)
    if ciphers is None:
        return table, fields.carried(values[row].encode() for row in numbers.tolist())
    packing = _Packing(fields, ciphers, is_new=is_new)
    for row in numbers.tolist():
        if not protection.types or types[row] in protection.types or _MEMBER in values[row]:
            values[row] = packing.add(row, subjects[row], values[row].encode())
    packing.finish(values)
    values = [v.decode() if isinstance(v, bytes) else v for v in values]
    return _with_column(table, "data", values), packing.blocks


def _ciphers(fields: SealedFields) -> SubjectCiphers | None:
    """Return what opens fields, None also where that cannot be found out: rows are moved all the
    same."""
    try:
        return fields.refresh()
    except InvalidKey:
        return None


class _Packing:
    """Puts the protected fields of the rows of one segment into blocks."""

    def __init__(self, fields: SealedFields, ciphers: SubjectCiphers, *, is_new: bool) -> None:
        self._fields, self._ciphers, self._is_new = fields, ciphers, is_new
        self._names = frozenset(fields.protection.fields)
        self._groups: dict[tuple[str, int], list[tuple[int, bytes, bytes]]] = {}
        self.blocks: Blocks = {}

    def add(self, row: int, subject: str | None, data: bytes) -> bytes:
        """Take a payload; return it as it is stored, which `finish` may change once more."""
        protection, generation = self._fields.protection, None
        halves = sealed_payload.without_token(data)
        if halves is None:
            split = sealed_payload.split(data, self._names)
        elif self._is_new and not protection.is_sealed(subject, *halves):
            split = sealed_payload.split_whole(data, self._names | {sealed_payload.MEMBER})
        else:
            stays, token = halves
            try:
                owner = protection.owner(subject, stays)
                content = self._fields.members(self._ciphers, owner, token)
            except _UNOPENED:
                return data  # stored rows stay, as theirs may be damaged
            if content is None:
                return sealed_payload.with_token(stays, sealed_payload.GONE)
            split, generation = (stays, content[0]), content[1]
        if split is None:
            return data
        stays, members = split
        owner = protection.owner(subject, stays)
        if generation is None:
            generation = self._ciphers.newest(owner)
        self._groups.setdefault((owner, generation), []).append((row, stays, members))
        return data

    def finish(self, values: list[bytes | str | None]) -> None:
        """Seal the blocks, and put the places in them into the payloads."""
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
        for (owner, generation), events in self._groups.items():
            for start, stop in _spans([len(members) for _, _, members in events]):
                # Random, so that segments of several machines may be merged.
                name = os.urandom(_ID)
                joined = _SEPARATOR.join([members for _, _, members in events[start:stop]])
                compressed = compressor.compress(joined)
                self.blocks[name] = self._ciphers.seal_as(owner, generation, compressed, BLOCK)
                for number, (row, stays, _) in enumerate(events[start:stop]):
                    token = sealed_payload.place_token(name, number)
                    values[row] = sealed_payload.with_token(stays, token)


def _spans(sizes: list[int]) -> Iterable[tuple[int, int]]:
    """Yield from where to where the texts of each block are."""
    start = total = 0
    for number, size in enumerate(sizes):
        # One event is read by opening its block, so that blocks are small.
        if number > start and (total + size > _BLOCK_BYTES or number - start >= _BLOCK_EVENTS):
            yield start, number
            start, total = number, 0
        total += size
    if sizes:
        yield start, len(sizes)
