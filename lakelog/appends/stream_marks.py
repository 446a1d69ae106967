"""Marks of hot streams: the version of each that was appended to lately, in `cache/streams`.

    header   "LKV1", 4 zero bytes, boot 16 bytes, inode u64, epoch u64, generation i64, move u64,
             running u64, whole u64; zeros to byte 128
    sets     of four marks each: 16 bytes of the digest of a subject, version u64, epoch u64

A file is of one branch, changed in place under the lock of its streams, and never synced. It counts
only on the boot and under the inode that it names, so that no copy is believed. `running` is set
while an append is written: whoever finds it set begins a new epoch, whose marks alone count. Where
all marks of an epoch were kept it is `whole`: a stream without a mark got no version since.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass

from lakelog.disk import File, Folder, disk
from lakelog.store import Clock

_MAGIC = b"LKV1\0\0\0\0"
_HEAD = struct.Struct("<8s16sQQqQQQ")
_MARK = struct.Struct("<16sQQ")
_MOVE_AT, _RUNNING_AT, _WHOLE_AT = 48, 56, 64
_START, _WAYS, _SETS = 128, 4, 1 << 16
_SET = _WAYS * _MARK.size
_EPOCH_AT = 24
_SIZE = _START + _SETS * _SET
_FIELD = struct.Struct("<Q")


@dataclass(frozen=True)
class MarkedState:
    """Which state the marks are of: the newest move then, and its generation."""

    epoch: int
    generation: int
    move: int
    is_running: bool
    is_whole: bool


class StreamMarks:
    """The marks of one branch; every method is called under the lock of its streams."""

    def __init__(self, folder: str, path: str) -> None:
        self._folder, self._path = folder, path
        self._map: mmap.mmap | None = None
        self._inode, self._epoch, self._left = 0, 0, b""

    def read(self) -> MarkedState | None:
        """Return what the marks are of, None if they do not count."""
        try:
            inode = os.stat(self._path).st_ino
            if self._map is None or inode != self._inode:
                self._open()
        except OSError:
            self._open()
        assert self._map is not None
        magic, boot, inode, *state = _HEAD.unpack_from(self._map)
        if (magic, boot, inode) != (_MAGIC, Clock.boot_id(), self._inode):
            return None
        epoch, generation, move, running, whole = state
        self._epoch = epoch
        return MarkedState(epoch, generation, move, bool(running), bool(whole))

    def is_as_left(self) -> bool:
        """Whether `end` was called last, on this object, since anybody began anew or followed."""
        try:
            is_there = os.stat(self._path).st_ino == self._inode
        except OSError:
            return False
        return is_there and self._map is not None and self._map[: _HEAD.size] == self._left

    def _open(self) -> None:
        """Map the file, which is created if it is missing. Raises OSError."""
        self.close()
        Folder(self._folder).make_all()
        self._map = File(self._path).map_shared(_SIZE)
        self._inode = os.stat(self._path).st_ino

    def begin_epoch(self, generation: int, move: int) -> None:
        """Drop all marks: from now on those count that are put."""
        assert self._map is not None
        # Running until the caller has put what it knows: it may be killed before.
        self._epoch = max(self._epoch, disk.now_us()) + 1
        head = (_MAGIC, Clock.boot_id(), self._inode, self._epoch, generation, move, 1, 1)
        _HEAD.pack_into(self._map, 0, *head)

    def follow(self, move: int) -> None:
        """The state is that of a newer move, which gave no version."""
        assert self._map is not None
        _FIELD.pack_into(self._map, _MOVE_AT, move)

    def begin(self) -> None:
        """Note that an append is being written."""
        assert self._map is not None
        _FIELD.pack_into(self._map, _RUNNING_AT, 1)

    def end(self) -> None:
        """Note that all that was begun is durable and marked."""
        assert self._map is not None
        _FIELD.pack_into(self._map, _RUNNING_AT, 0)
        self._left = self._map[: _HEAD.size]

    def version(self, digest: bytes) -> int | None:
        """Return the version of a stream, by the digest of its subject; None without a mark."""
        assert self._map is not None
        start = _set_at(digest)
        marks = self._map[start : start + _SET]
        place = marks.find(digest[:16])
        if place < 0 or place % _MARK.size:
            return None
        _, version, epoch = _MARK.unpack_from(marks, place)
        return int(version) if epoch == self._epoch else None

    def put(self, digest: bytes, version: int) -> bool:
        """Mark the version that a stream has now; False if another mark had to give way."""
        assert self._map is not None
        start, name = _set_at(digest), digest[:16]
        place = self._map.find(name, start, start + _SET)
        if place >= 0 and (place - start) % _MARK.size == 0:
            _MARK.pack_into(self._map, place, name, version, self._epoch)
            return True
        for place in range(start, start + _SET, _MARK.size):
            if _FIELD.unpack_from(self._map, place + _EPOCH_AT)[0] != self._epoch:
                _MARK.pack_into(self._map, place, name, version, self._epoch)
                return True
        _FIELD.pack_into(self._map, _WHOLE_AT, 0)
        place = start + version % _WAYS * _MARK.size
        _MARK.pack_into(self._map, place, name, version, self._epoch)
        return False

    def close(self) -> None:
        """Close the file."""
        closing, self._map = self._map, None
        if closing is not None:
            closing.close()


def _set_at(digest: bytes) -> int:
    return _START + int.from_bytes(digest[16:18], "little") * _SET
