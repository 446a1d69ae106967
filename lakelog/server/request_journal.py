"""Which requests were stored in the last ten minutes, also by a server that was killed.

Before the events of requests are stored together, a record says whose they are, and at which
positions of the writer they will stand. The next server knows the requests from it, and so does one
whose branch was taken back; the events say how many of them are there: a kill between the two is no
case of its own. A record is one write
without a sync: it outlives the process, not the machine.

    magic "LLRQ", number of requests (4), first position (8), time in us (8), writer (32 bytes)
    for each request: its key (16), its events (4)
    CRC-32 of all this (4)

Numbers are little-endian. A record "LLRX" has the same form, and takes requests back whose events
could not be stored; "LLRS" says that lines of a request are quarantined next. Files are begun by
the minute, and removed when they are old. What a clock that was ahead wrote is of no known age, and
not read: to store a request twice is better than not to store one that is equal to it.
"""

from __future__ import annotations

import bisect
import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from lakelog.disk import File, Folder, disk

_HEAD, _ENTRY = struct.Struct("<4sIQQ40s"), struct.Struct("<16sI")
_STORED, _CANCELED, _QUARANTINED = b"LLRQ", b"LLRX", b"LLRS"
_FILE_US = 60_000_000
_GENERATIONS_MAX, _GENERATION_MAX = 20, 50_000
"""Generations of requests that are remembered, and requests of each."""
_QUARANTINED_MAX = 500_000
_SIZE_MAX = 1 << 28
NO_REQUEST = bytes(16)
"""The key of events that no request brought, and that cannot come again."""
Requests = Iterable[tuple[bytes, int]]
Runs = list[tuple[int, int]]
"""Positions of a writer without a gap, from the first up to that behind the last, in order."""


@dataclass(frozen=True)
class _Record:
    magic: bytes
    start: int
    time: int
    writer: str
    requests: tuple[tuple[bytes, int], ...]

    @property
    def end(self) -> int:
        return self.start + sum(count for _, count in self.requests)


@dataclass(frozen=True)
class _Generation:
    """The events of requests that came within a minute by their keys, and when it began (us)."""

    begun_us: int
    counts: dict[bytes, int] = field(default_factory=dict)


def _uptime() -> int:
    # A clock that nobody sets, and that goes on while the machine sleeps.
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


class RequestJournal:
    """The requests of one lake, in memory and in `server/requests`."""

    def __init__(self, root: str, seconds: float) -> None:
        # In the server's own folder, which copies of the lake leave out.
        self._directory = os.path.join(root, "server", "requests")
        self._lifetime = int(seconds * 1_000_000)
        self._generations: deque[_Generation] = deque(maxlen=_GENERATIONS_MAX)
        self._absent: set[bytes] = set()
        self._quarantined_since: dict[bytes, int] = {}
        self._path, self._begun = "", 0

    def load(self, runs_of: Callable[[str, int], Runs]) -> None:
        """Read what this server and earlier ones left; `runs_of` says where the events stand that
        a writer stored since a time in us. Raises OSError, LakelogError."""
        moment = disk.now_us()
        oldest = moment - self._lifetime
        self._generations.clear()
        self._absent = set()
        # Oldest first, as their names begin with their times: a cancel comes after what it cancels.
        contents = (File(path).read(_SIZE_MAX) for path in self._files())
        records = [
            record
            for content in contents
            for record in _records(content)
            if abs(moment - record.time) <= self._lifetime
        ]
        runs = {
            writer: runs_of(writer, oldest)
            for writer in {record.writer for record in records if record.end > record.start}
        }
        for record in records:
            position = record.start
            for key, count in record.requests:
                # Its events only move the positions of those that follow in the same record.
                if key == NO_REQUEST:
                    position += count
                    continue
                if record.magic == _QUARANTINED:
                    self._quarantined_since.setdefault(key, record.time)
                    continue
                if record.magic == _CANCELED:
                    for generation in self._generations:
                        generation.counts.pop(key, None)
                    continue
                stored = _reached(runs.get(record.writer, []), position, count)
                position += count
                if stored or not count:
                    # An empty request is remembered, too: it was answered, and may be asked again.
                    self.remember(key, stored, max(moment - record.time, 0))
                else:
                    self._absent.add(key)
        # Of one that was stored again after a rollback, the events of either time may be there.
        self._absent.difference_update(*(generation.counts for generation in self._generations))

    def is_known(self, key: bytes) -> bool:
        """Whether a request was stored, also one whose events a rollback took back by now, which
        another may have brought back since."""
        return key in self._absent or self.stored(key) is not None

    def stored(self, key: bytes) -> int | None:
        """How many events of a request are stored; None for one that is not known."""
        generations = self._generations
        # A minute more than the lifetime: a request is that much younger than its generation.
        oldest = _uptime() - self._lifetime - _FILE_US
        while generations and generations[0].begun_us < oldest:
            generations.popleft()
        counts = (g.counts[key] for g in reversed(generations) if key in g.counts)
        return next(counts, None)

    def remember(self, key: bytes, count: int, age: int = 0) -> None:
        """So many more events of a request are stored, since a time (us)."""
        total, moment = (self.stored(key) or 0) + count, _uptime() - age
        if not self._has_room(moment):
            self._generations.append(_Generation(moment))
        self._generations[-1].counts[key] = total
        self._quarantined_since.pop(key, None)

    def _has_room(self, moment: int) -> bool:
        """Whether the newest generation takes a request that came at a time by `_uptime`."""
        if not self._generations:
            return False
        newest = self._generations[-1]
        return moment - newest.begun_us <= _FILE_US and len(newest.counts) < _GENERATION_MAX

    def announce(self, writer: str, start: int, requests: Requests) -> None:
        """Say which requests are stored next, from a position on. Raises OSError."""
        self._write(_STORED, writer, start, requests)

    def announce_quarantine(self, key: bytes) -> int | None:
        """Say that lines of a request are quarantined next; return since when (us) they may be, if
        that was said before. Raises OSError."""
        since = self._quarantined_since.get(key)
        if since is None:
            if len(self._quarantined_since) >= _QUARANTINED_MAX:
                self._quarantined_since.clear()
            self._quarantined_since[key] = disk.now_us()
            self._write(_QUARANTINED, "", 0, [(key, 0)])
        return since

    def cancel(self, writer: str, keys: Iterable[bytes]) -> None:
        """Say that requests were not stored. Raises OSError."""
        self._write(_CANCELED, writer, 0, [(key, 0) for key in keys])

    def _write(self, magic: bytes, writer: str, start: int, requests: Requests) -> None:
        entries = [_ENTRY.pack(key, count) for key, count in requests]
        moment = disk.now_us()
        head = _HEAD.pack(magic, len(entries), start, moment, writer.encode())
        record = head + b"".join(entries)
        # By the minute, so that old records go by removing files, and no file is ever rewritten.
        if not 0 <= moment - self._begun <= _FILE_US:
            self._begin(moment)
        File(self._path).append(record + struct.pack("<I", zlib.crc32(record)))

    def _begin(self, moment: int) -> None:
        Folder(self._directory).make_all()
        for path in self._files():
            name = os.path.basename(path).partition("-")[0]
            # A minute more than the lifetime: the newest record of a file is that much younger than
            # its name.
            if abs(moment - int(name)) > self._lifetime + _FILE_US:
                File(path).remove()
        name = f"{moment:020d}-{disk.random_hex(4)}"
        self._path, self._begun = os.path.join(self._directory, name), moment

    def _files(self) -> list[str]:
        names = sorted(Folder(self._directory).names()) if os.path.isdir(self._directory) else []
        return [
            os.path.join(self._directory, name)
            for name in names
            if name.partition("-")[0].isdigit()
        ]


def _reached(runs: Runs, start: int, count: int) -> int:
    """How many of the events from a position on are there: a kill, or a rollback, takes the last
    ones. One that is missing before was there by its id already, or has been erased."""
    place = bisect.bisect_left(runs, (start + count, 0)) - 1
    return max(min(runs[place][1], start + count) - start, 0) if place >= 0 else 0


def _records(data: bytes) -> Iterator[_Record]:
    """The records of a file, up to one that was cut off."""
    place = 0
    while place + _HEAD.size <= len(data):
        magic, count, start, moment, writer = _HEAD.unpack_from(data, place)
        end = place + _HEAD.size + count * _ENTRY.size
        if magic not in (_STORED, _CANCELED, _QUARANTINED) or end + 4 > len(data):
            return
        if zlib.crc32(data[place:end]) != struct.unpack_from("<I", data, end)[0]:
            return
        requests = tuple(_ENTRY.iter_unpack(data[place + _HEAD.size : end]))
        yield _Record(magic, start, moment, writer.rstrip(b"\0").decode("latin-1"), requests)
        place = end + 4
