"""The disk buffer: where events wait that the lake cannot take at once.

    cache/buffer/<16 hex>.jsonl    WAL lines (F3.13), each with an `id` of its own; locked by its
                                   process; in an encrypted lake each line is some of these,
                                   encrypted together
    cache/buffer/<16 hex>.<name>.jsonl    the same of another branch than main

A line that was written here survives the death of the process, synced or not. As it has an id, it
may be stored any number of times and counts once, so nothing on disk notes how far a file was
read: it is stored whole and then emptied. Files of dead processes are stored by the next process
that logs to the branch.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator

import orjson

from lakelog.disk import File, Folder, OpenFile, disk
from lakelog.errors import LakelogError
from lakelog.keys import VAULT
from lakelog.paths import encode_name
from lakelog.protect import PROTECTIONS

# A GiB: a lake that cannot be written for long must not fill its disk.
BYTES_MAX = 1 << 30
"""A buffer grows no larger; then whoever logs waits."""
_MAIN = "main"
_ENCRYPTED = b"lkn1:"
_HEX = 16
_PIECE = 1 << 20
StoreLines = Callable[[list[bytes]], None]


class DiskBuffer:
    """The buffer of one queue, a file that is created when it is first needed."""

    def __init__(self, directory: str, branch: str = _MAIN) -> None:
        self._directory, self._suffix = directory, _suffix_of(branch)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._name, self._fd, self._count = "", -1, 0
        self._file = 0, 0
        self.size = self.added = self._drained = 0
        self._plain = 0  # bytes of its lines before they are encrypted, if they are
        self._first = 0, 0  # of those that were added first: these, and those in the file

    def add(self, lines: list[bytes]) -> list[bytes]:
        """Write lines to the page cache; return them with their ids.

        Raises OSError; then none of them is in the buffer.
        """
        with self._lock:
            # Another lake, or a copy, may be at the path by now.
            if not self._has_file() or not (self.size or File(self._path).is_open_as(self._fd)):
                self.close()
                self._create()
            lines = [self._identified(line) for line in lines]
            if PROTECTIONS:
                # Each needs one before it is written: it may be stored twice after a death.
                lines = self._protected(lines)
            content = b"\n".join(lines) + b"\n"
            plain = self._plain + len(content)
            if keys := VAULT.keys_of(self._path):
                content = keys.encrypt_line(content) + b"\n"
            size, added = self.size + len(content), self.added + len(content)
            try:
                OpenFile(self._fd).write(content)
                self._first = self._first if self.size else (plain, size)
                self.size, self.added, self._plain = size, added, plain
            except BaseException:
                # Whatever interrupted the write: the count tells whether all of it was noted.
                if self.added != added:
                    self._cut(self.size)  # what was written of it may be half a line
                raise
            return lines

    def _protected(self, lines: list[bytes]) -> list[bytes]:
        """Return lines with their protected fields sealed. Raises OSError without the keys."""
        protection = PROTECTIONS.get(os.path.dirname(os.path.dirname(self._directory)))
        if protection is None:
            return lines
        try:
            return protection.seal_lines(b"\n".join(lines)).split(b"\n")
        except LakelogError as error:
            raise OSError(str(error)) from None

    def _identified(self, line: bytes) -> bytes:
        """Give a line an id that no other event has, unless it has one."""
        if b'"id":' in line.partition(b',"data":')[0]:
            # An id of the program stays: it is how it knows the event again.
            return line
        self._count += 1
        return b'{"id":"%s-%d",' % (self._name.encode(), self._count) + line[1:]

    def remove(self, lines: list[bytes]) -> None:
        """Remove the lines that were added first, which were stored, and leave any others."""
        with self._lock:
            plain, size = self._first
            # By their length: other lines are of events that were not stored.
            if plain != sum(map(len, lines)) + len(lines):
                return
            if self.size == size:
                self._empty()
            else:
                self._drained = size  # where those begin that `drain` stores

    def drain(self, store: StoreLines) -> None:
        """Store all lines in their order and empty the file. Raises what `store` raises; then what
        is left stays."""
        # New lines may come while older ones are stored.
        while self.size:
            if not self._has_file():
                self.close()
                return
            for lines, position in _pieces(self._fd, self._drained, self.size):
                store(lines)
                # What was stored is not stored again if the next piece fails.
                self._drained = position
            with self._lock:
                # Lines may have been added meanwhile: those are read in the next round.
                if self._drained >= self.size:
                    self._empty()

    @property
    def is_full(self) -> bool:
        """Whether the buffer is as large as it may become."""
        return self.size >= BYTES_MAX

    def close(self) -> None:
        """Remove the file if nothing is left in it; else it is for the next process."""
        with self._lock:
            is_ours = self._has_file()
            fd, self._fd = self._fd, -1
            if not is_ours:
                self._note_empty()
            else:
                # Only a file that is still there under its name is ours to remove.
                if not self.size and File(self._path).is_open_as(fd):
                    File(self._path).remove()
                OpenFile(fd).close()
                self._note_empty()

    def remove_empty(self) -> None:
        """Remove the file if nothing is left in it; the next line begins another."""
        with self._lock:
            if not self.size:
                self.close()

    def after_fork(self) -> None:
        """In a child: the file is the parent's."""
        # Without unlocking: the lock is the parent's, through the same open file.
        fd = self._fd if self._has_file() else -1
        self._reset()
        if fd >= 0:
            os.close(fd)

    def _has_file(self) -> bool:
        """Whether the descriptor is that of the file, and not one of the program's that got its
        number after the program had closed all. The next process stores what the file has."""
        with contextlib.suppress(OSError):
            return self._fd >= 0 and OpenFile(self._fd).identity() == self._file
        return False

    def _empty(self) -> None:
        self._cut(0)
        self._note_empty()

    def _note_empty(self) -> None:
        self.size = self._drained = self._plain = 0
        self._first = 0, 0

    def _cut(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        # The next write must not leave a hole.
        os.lseek(self._fd, size, os.SEEK_SET)

    @property
    def _path(self) -> str:
        return f"{self._directory}/{self._name}{self._suffix}"

    def _create(self) -> None:
        Folder(self._directory).make()
        self._name, self._count = disk.random_hex(_HEX // 2), 0
        temporary = Folder(self._directory).temporary_path()
        fd = File(temporary).open_new()
        # Locked before it has its name: any other is a dead process's and may be removed.
        OpenFile(fd).lock()
        File(temporary).rename(self._path)
        self._fd, self._file = fd, OpenFile(fd).identity()


def recover(directory: str, store: StoreLines, branch: str = _MAIN) -> int:
    """Store what dead processes left in a lake's buffers of a branch; return the number of
    lines."""
    count, suffix = 0, _suffix_of(branch)
    for name in Folder(directory).names():
        path = f"{directory}/{name}"
        flags = os.O_RDWR | os.O_CLOEXEC
        with contextlib.suppress(FileNotFoundError), OpenFile.closing(os.open(path, flags)) as fd:
            # Whoever waits for the lock finds an empty file of which the name is gone.
            if name[_HEX:] == suffix and OpenFile(fd).lock():
                for lines, _ in _pieces(fd, 0, os.fstat(fd).st_size):
                    store(lines)
                    count += len(lines)
                # Stored, so that it can go; its writer is dead.
                File(path).remove()
    return count


def _suffix_of(branch: str) -> str:
    """How the names of a branch's buffers end: events of one branch are none of another."""
    return ".jsonl" if branch == _MAIN else f".{encode_name(branch)}.jsonl"


def _pieces(fd: int, position: int, end: int) -> Iterator[tuple[list[bytes], int]]:
    """Yield whole lines between two places of a file, about a MiB at a time, and where they end."""
    incomplete = b""
    while position < end:
        data = os.pread(fd, min(_PIECE, end - position), position)
        if not data:
            return
        position += len(data)
        # A piece ends anywhere: its last line goes on in the next one.
        *lines, incomplete = (incomplete + data).split(b"\n")
        # Blocks that a power failure lost are read as zeros.
        plain = itertools.chain.from_iterable(map(_plain_lines, lines))
        yield [line for line in plain if _is_whole(line)], position - len(incomplete)


def _plain_lines(line: bytes) -> list[bytes]:
    """The lines of one that may be encrypted; none of one that was cut. Raises InvalidKey."""
    if not line.startswith(_ENCRYPTED):
        return [line]
    try:
        return VAULT.decrypt_line(line).split(b"\n")
    except ValueError as error:
        # InvalidKey is not what a cut line raises: the lines can be read with the right key.
        if isinstance(error, LakelogError):
            raise
        return []


def _is_whole(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True
