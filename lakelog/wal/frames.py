"""The write-ahead log: a run of standard zstd frames of JSON lines that `zstdcat` can read.

    header   skippable frame 0x184D2A5A: "LKW1", crc32 of the JSON, JSON {format, lake, branch,
             writer, n, first, doubtful, host, pid, started}
    frame*   skippable frame 0x184D2A5B: "LKF1", sequence u64, bytes u32, raw u32, events u32,
             flags u32, position u64, ingested_at i64 (us), crc32 of the zstd frame u32,
             cursor length u32, cursor (JSON), crc32 of all of this header before it u32
             zstd frame of `bytes` bytes: `events` lines, `raw` bytes
    end?     skippable frame 0x184D2A5C: "LKE1", last sequence u64, crc32 of what precedes
    space?   skippable frame 0x184D2A5E of zeros, up to the end of the file

Integers are little-endian; a skippable frame is magic u32, size u32, content. `sequence` counts
the writer's group commits from 0 across its files; `position` counts its events before the frame.
flags: 1 keyed (an event has a given id or a content key), 2 sourced (rows of a followed file;
`cursor` is {key, from, to}; reserved), 4 quarantined (lines that could not be ingested), 8
versioned (a line has a version of its stream), 16 encrypted (the zstd frame is in an envelope).

A file appears whole with its header and first frame. Frame k+1 is written only after the sync
of k returned, so only the very last frame of a file can be torn, and never its first; a bad
frame with anything good after it is damage.

Frames overwrite the space, which is written and synced with one of them: most commits then change
neither the size of the file nor its map of blocks, and their sync writes data alone. What was space
holds zeros until a frame comes, so nothing of an older frame can ever be read there.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import orjson
import zstandard

from lakelog import document
from lakelog.errors import DamagedWal, FormatTooNew, LakelogError
from lakelog.keys import VAULT, LakeKeys
from lakelog.paths import FORMAT, PLAIN_FORMAT, FileName, encode_name

Bytes = bytes | memoryview
_KNOWN_FLAGS = 31

_HEADER_MAGIC, _FRAME_MAGIC, _END_MAGIC = 0x184D2A5A, 0x184D2A5B, 0x184D2A5C
_SPACE_MAGIC = 0x184D2A5E
_SKIP = struct.Struct("<II")
_FRAME = struct.Struct("<II4sQIIIIQqII")
_PLACE = struct.Struct("<5sQIIIQq")
"""Where an encrypted frame belongs, by numbers of its head: it opens in no other place."""
_END = struct.Struct("<II4sQ")
_CRC = struct.Struct("<I")
_FRAME_START, _SPACE_START = _CRC.pack(_FRAME_MAGIC), _CRC.pack(_SPACE_MAGIC)
_MISFIT = "frame does not hold what its header says"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# The disk is written by pages: to compress what hardly fills one takes longer than the disk does.
_COMPRESSED_MIN = 4096
# A damaged length must not make the checksum of a head run over gigabytes.
_CURSOR_MAX = 1 << 20
HEAD_BYTES, END_BYTES, SPACE_BYTES = _FRAME.size + 4, _END.size + 4, _SKIP.size
# As much as a file holds, so that an idle writer holds at most twice its bytes; never so much that
# the commit that writes it is slow. Large frames pay for their own size, and gain little.
_PAGE, _SPACE_MAX, _SPACED_FRAME_MAX = 4096, 1 << 20, 1 << 15


class Header(NamedTuple):
    """The header of a WAL file (F3.3)."""

    lake: str
    branch: str
    writer: str
    n: int
    first: int
    doubtful: tuple[int, ...]
    host: str
    pid: int
    started: int

    def encode(self, *, is_versioned: bool = False, is_encrypted: bool = False) -> bytes:
        """Return its bytes; `is_versioned` and `is_encrypted` if a frame of the file may be."""
        body: dict[str, Any] = {name: getattr(self, name) for name in self._fields}
        if is_encrypted:
            body["requires"] = ["encryption"]
        is_newer = is_versioned or is_encrypted
        body_json = orjson.dumps({"format": FORMAT if is_newer else PLAIN_FORMAT, **body})
        return (
            _SKIP.pack(_HEADER_MAGIC, 8 + len(body_json))
            + b"LKW1"
            + _CRC.pack(zlib.crc32(body_json))
            + body_json
        )

    @classmethod
    def decode(cls, data: bytes) -> tuple[Header, int] | None:
        """Return the header and where it ends, or None if it is not intact. Raises FormatTooNew."""
        if len(data) < 16:
            return None
        magic, size = _SKIP.unpack_from(data)
        body_json = data[16 : 8 + size]
        if (
            magic != _HEADER_MAGIC
            or size < 8
            or size != len(body_json) + 8
            or data[8:12] != b"LKW1"
        ):
            return None
        if zlib.crc32(body_json) != _CRC.unpack_from(data, 12)[0]:
            return None
        body = orjson.loads(body_json)
        if body["format"] > FORMAT:
            raise FormatTooNew(
                f"a WAL of {body['writer']} has format {body['format']}: upgrade lakelog"
            )
        document.require_known(body.get("requires"), f"a WAL of {body['writer']}")
        values = {name: body[name] for name in cls._fields}
        return cls(**{**values, "doubtful": tuple(values["doubtful"])}), 8 + size

    def is_of(self, path: str) -> bool:
        """Whether it is that of the file at `path`: a copy of another file is damage (F3.3)."""
        folder, name = path.split("/")[-2:]
        expected = folder, *(FileName(name).wal or ())
        return (encode_name(self.branch), self.writer, self.n) == expected


@dataclass(frozen=True, slots=True)
class Frame:
    """One group commit: `payload` is its zstd frame, `offset` where its header starts."""

    writer: str
    sequence: int
    events: int
    flags: int
    position: int
    ingested_at: int
    raw: int
    payload: Bytes
    offset: int = 0
    cursor: dict[str, Any] | None = None

    KEYED: ClassVar[int] = 1
    SOURCED: ClassVar[int] = 2
    QUARANTINED: ClassVar[int] = 4
    VERSIONED: ClassVar[int] = 8
    ENCRYPTED: ClassVar[int] = 16
    # Bounds of a group commit: what a power cut can tear, and what a reader decompresses at once.
    RAW_MAX: ClassVar[int] = 1 << 20
    EVENTS_MAX: ClassVar[int] = 4096

    @classmethod
    def unwritten(
        cls, origin: str, lines: bytes, events: int, flags: int, position: int, ingested_at: int
    ) -> Frame:
        """Return a frame that is in no WAL, of lines with newlines between them: what makes rows of
        those that are makes the same rows of it."""
        content = lines + b"\n"
        payload = _payload(content, zstandard.ZstdCompressor())
        return cls(origin, 0, events, flags, position, ingested_at, len(content), payload)

    @property
    def end(self) -> int:
        """The position after its last event; lines that are no events have none of their own."""
        return self.position + self.events

    @property
    def is_versioned(self) -> bool:
        """Whether a line of it may have a version of its stream."""
        return bool(self.flags & self.VERSIONED)

    def alone(self) -> Frame:
        """The same frame, which does not keep in memory what was read with it."""
        shares = isinstance(self.payload, memoryview)
        return replace(self, payload=bytes(self.payload)) if shares else self

    def lines(self) -> bytes:
        """The frame's JSON lines, each ended by a newline. Raises ValueError if they do not fit the
        header."""
        content = self.text()
        if content.count(b"\n") != self.events or content[-1:] not in (b"\n", b""):
            raise ValueError(_MISFIT)
        return content

    def text(self) -> bytes:
        """Like `lines`, for who counts them: their number may not be that of the header."""
        # Bounded by the header, so that a forged frame cannot fill the memory.
        content = zstandard.ZstdDecompressor().decompress(self.payload, max_output_size=self.raw)
        if len(content) != self.raw:
            raise ValueError(_MISFIT)
        return content

    @classmethod
    def split_text(cls, lines: bytes, events: int) -> list[tuple[bytes, int]]:
        """Cut lines, with newlines between them, into texts of frames; count their events."""
        # Nearly every batch is one frame: it is not even taken apart then.
        if events <= cls.EVENTS_MAX and len(lines) < cls.RAW_MAX:
            return [(lines, events)] if events else []
        return [(b"\n".join(batch), len(batch)) for batch in cls.split_lines(lines.split(b"\n"))]

    @classmethod
    def split_lines(cls, lines: list[bytes]) -> list[list[bytes]]:
        """Cut a batch into the lines of frames: at most 4,096 events and 1 MiB each (F3.12)."""
        if len(lines) <= cls.EVENTS_MAX and sum(map(len, lines)) <= cls.RAW_MAX:
            return [lines] if lines else []
        slices: list[list[bytes]] = [[]]
        size = 0
        for line in lines:
            if slices[-1] and (size + len(line) > cls.RAW_MAX or len(slices[-1]) >= cls.EVENTS_MAX):
                slices.append([])
                size = 0
            slices[-1].append(line)
            size += len(line) + 1
        return slices


class Scan(NamedTuple):
    """What a stretch of a WAL file holds.

    `end` is the offset after the last good frame; `ended` whether END was met; `torn` the bytes
    after `end` that are neither a frame nor space (an unfinished write, or a bad last frame), up to
    the last that is not zero; `damage` the offset
    of a bad frame that has good ones after it; `resumed` those good frames; `final` the last
    sequence as END names it, where there is damage.
    """

    frames: tuple[Frame, ...]
    end: int
    ended: bool
    torn: int
    damage: int | None = None
    resumed: tuple[Frame, ...] = ()
    final: int | None = None


def _checksum(payload: bytes) -> int:
    """Return the CRC-32 of what is compressed."""
    if not 5000 < len(payload) <= 1 << 16:
        return zlib.crc32(payload)
    # For more than 5 KB zlib lets other threads have the interpreter, and busy ones keep it for
    # 5 ms, a thousand times what a checksum takes.
    checksum = 0
    for start in range(0, len(payload), 5000):
        checksum = zlib.crc32(payload[start : start + 5000], checksum)
    return checksum


def encode_frame(
    lines: bytes,
    events: int,
    sequence: int,
    flags: int,
    position: int,
    ingested_at: int,
    compressor: zstandard.ZstdCompressor,
    cursor: dict[str, Any] | None = None,
    keys: LakeKeys | None = None,
) -> bytes:
    """Return one frame, its header and its zstd frame, of lines with newlines between them; with
    `keys` the zstd frame is in an envelope."""
    content = lines + b"\n"
    payload = _payload(content, compressor)
    if keys is not None:
        flags |= Frame.ENCRYPTED
        place = _PLACE.pack(b"frame", sequence, len(content), events, flags, position, ingested_at)
        payload = keys.series.encrypt(payload, place)
    position_json = orjson.dumps(cursor) if cursor else b""
    # The head has a checksum of its own: a reader can then tell where a frame with damaged lines
    # ends, and so whether anything comes after it, which makes it damage and not a torn write.
    head = (
        _FRAME.pack(
            _FRAME_MAGIC,
            _FRAME.size
            + len(position_json)
            + 4
            - 8,  # with the CRC, without magic and size themselves
            b"LKF1",
            sequence,
            len(payload),
            len(content),
            events,
            flags,
            position,
            ingested_at,
            _checksum(payload),
            len(position_json),
        )
        + position_json
    )
    return head + _CRC.pack(zlib.crc32(head)) + payload


def _payload(content: bytes, compressor: zstandard.ZstdCompressor) -> bytes:
    return compressor.compress(content) if len(content) >= _COMPRESSED_MIN else _stored(content)


def _stored(content: bytes) -> bytes:
    """Return a zstd frame of one block that is not compressed, of at most 64 KiB (RFC 8878)."""
    size = len(content)
    sizes = bytes((0x20, size)) if size < 256 else b"\x60" + (size - 256).to_bytes(2, "little")
    return _ZSTD_MAGIC + sizes + (size << 3 | 1).to_bytes(3, "little") + content


def encode_end(sequence: int) -> bytes:
    """Return the frame that says a file is finished."""
    head = _END.pack(_END_MAGIC, _END.size + 4 - 8, b"LKE1", sequence)
    return head + _CRC.pack(zlib.crc32(head))


def space_after(stop: int, size: int, frame: int) -> tuple[bytes, int]:
    """Return the space to write after a frame of `frame` bytes, which ends at byte `stop` of a file
    that is `size` bytes long without it: how it begins, and how many zeros follow."""
    room = size - stop
    if room >= SPACE_BYTES:
        return _SKIP.pack(_SPACE_MAGIC, room - SPACE_BYTES), 0  # what follows is zeros already
    if room == 0 or (room < 0 and frame > _SPACED_FRAME_MAX):
        return b"", 0
    space = SPACE_BYTES
    if frame <= _SPACED_FRAME_MAX:
        target = stop + min(max(stop, _PAGE), _SPACE_MAX)
        space = target + -target % _PAGE - stop
    return _SKIP.pack(_SPACE_MAGIC, space - SPACE_BYTES), space - SPACE_BYTES


def is_space(data: bytes) -> bool:
    """Whether space begins here, or nothing was ever written."""
    return data[:4] in (_SPACE_START, bytes(4), b"")


def scan(data: bytes, base: int, writer: str, offset: int = 0) -> Scan:
    """Read frames from byte `offset` of `data`, where one starts; `data` starts at byte `base` of a
    file. The frames share its memory if they are most of it."""
    frames: list[Frame] = []
    view = memoryview(data)
    while offset < len(data):
        match = frame_at(view, offset, base, writer)
        if match is None:
            break
        frame, offset = match
        frames.append(frame)
    if offset * 2 < len(data):  # else what is kept of a few would be the space after them
        frames = [frame.alone() for frame in frames]
    if is_end(data, offset):
        return Scan(tuple(frames), base + offset, True, _written(data, offset + END_BYTES))
    torn = _written(data, offset)
    if not torn:
        return Scan(tuple(frames), base + offset, False, 0)
    # A bad frame at the very end is an append that nobody acknowledged (F14.1). Good frames or END
    # after it, or bytes beyond its known end, prove that it was synced once: then it is damage.
    resumed = resume(data, offset + 1, base, writer)
    final = _final(data)
    followed = resumed or final is not None or _is_followed(data, offset)
    damage = base + offset if followed else None
    return Scan(tuple(frames), base + offset, False, torn, damage, resumed, final)


def _written(data: bytes, offset: int) -> int:
    """Return how many bytes from `offset` on are not space, zeros at the end left out."""
    remainder = data[offset:].rstrip(b"\0")
    return 0 if len(remainder) <= SPACE_BYTES and remainder[:4] == _SPACE_START else len(remainder)


def head_at(data: Bytes, offset: int) -> tuple[tuple[Any, ...], int, int] | None:
    """Return the fields of an intact frame header, where its zstd frame begins, and ends."""
    if len(data) - offset < _FRAME.size + 4:
        return None
    fields = _FRAME.unpack_from(data, offset)
    head_end = offset + _FRAME.size + fields[11]
    if fields[0] != _FRAME_MAGIC or fields[2] != b"LKF1" or fields[11] > _CURSOR_MAX:
        return None
    # Only now may the length of the cursor be believed as far as to compute a checksum over it.
    if fields[1] != head_end + 4 - offset - 8 or head_end + 4 > len(data):
        return None
    if zlib.crc32(data[offset:head_end]) != _CRC.unpack_from(data, head_end)[0]:
        return None
    return fields, head_end + 4, head_end + 4 + fields[4]


def frame_at(data: Bytes, offset: int, base: int, writer: str) -> tuple[Frame, int] | None:
    """Return the frame at `offset` and where it ends, if it is whole and its checksums hold."""
    head = head_at(data, offset)
    if head is None or head[2] > len(data):
        return None
    fields, body, stop = head
    _, _, _, sequence, _, raw, events, flags, position, time, crc, extra = fields
    payload = data[body:stop]
    if zlib.crc32(payload) != crc:
        return None
    if flags & ~_KNOWN_FLAGS:
        raise FormatTooNew(f"a WAL of {writer} has frames with flags {flags}: upgrade lakelog")
    if flags & Frame.ENCRYPTED:
        place = _PLACE.pack(b"frame", sequence, raw, events, flags, position, time)
        payload, flags = _opened(bytes(payload), writer, place), flags ^ Frame.ENCRYPTED
    cursor = orjson.loads(data[offset + _FRAME.size : body - 4]) if extra else None
    frame = Frame(
        writer, sequence, events, flags, position, time, raw, payload, base + offset, cursor
    )
    return frame, stop


def _opened(payload: bytes, writer: str, context: bytes) -> bytes:
    """Return the zstd frame of an encrypted frame. Raises DamagedWal, InvalidKey."""
    try:
        return VAULT.decrypt(payload, context)
    except ValueError as error:
        if isinstance(error, LakelogError):
            raise
        raise DamagedWal(f"a WAL of {writer}", f"an encrypted frame: {error}") from None


def _is_followed(data: bytes, offset: int) -> bool:
    """Whether a bad frame is not the last: its end is known, and something comes after it."""
    head = head_at(data, offset)
    # The head of the space that was written with it may be there, and whole or torn.
    return head is not None and bool(data[head[2] + SPACE_BYTES :].strip(b"\0"))


def is_end(data: bytes, offset: int) -> bool:
    """Whether an intact END stands at a byte."""
    if len(data) - offset < _END.size + 4:
        return False
    magic, size, tag, _ = _END.unpack_from(data, offset)
    whole = magic == _END_MAGIC and tag == b"LKE1" and size == _END.size + 4 - 8
    crc = _CRC.unpack_from(data, offset + _END.size)[0]
    return bool(whole and zlib.crc32(data[offset : offset + _END.size]) == crc)


def _final(data: bytes) -> int | None:
    """Return the last sequence, if the data ends with an intact END, zeros left out."""
    offset = data.rfind(b"LKE1") - _SKIP.size
    if offset < 0 or not is_end(data, offset) or data[offset + END_BYTES :].strip(b"\0"):
        return None
    return int(_END.unpack_from(data, offset)[3])


def resume(data: bytes, offset: int, base: int, writer: str) -> tuple[Frame, ...]:
    """Find good frames from a byte on, wherever they begin."""
    frames = []
    while (offset := data.find(_FRAME_START, offset)) >= 0:
        match = frame_at(data, offset, base, writer)
        if match:
            frames.append(match[0])
        # Compressed bytes may contain the magic by chance: then the search goes on after it.
        offset = match[1] if match else offset + 1
    return tuple(frames)
