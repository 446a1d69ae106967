"""Capture: reading a state directory into chunks and an index, without following links.

Files of at least LARGE bytes are cut for themselves; smaller ones are cut together, in groups that
the names of files end, so that a new file changes one group; groups are short, since one is stored
again when a file of it changes. What has the size, times and inode of
the save before is not read again if that can be told from its chunks. Of what is written through
a mapping, the times change only with the first write after the page went to the disk: so the file
system is synced before its names are listed, and where it has no disk, everything is read.

A file that changes while it is read is read again, at most READINGS times; then its last reading
counts, and the file is named. Pipes and sockets are kept as such; of devices only the names, as no
restore makes one.
"""

from __future__ import annotations

import errno
import fnmatch
import itertools
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Protocol

from lakelog.chunks import ChunkRef, Extent, PendingChunk, StateEntry, StateIndex
from lakelog.disk import OpenFile
from lakelog.errors import StateRefused
from lakelog.runtime.progress import ProgressCallback
from lakelog.state import filesystems
from lakelog.state.chunker import cut
from lakelog.state.exchange import STAGING
from lakelog.state.filesystems import shown
from lakelog.state.fingerprint import kind_of

LARGE = 128 << 10
READINGS = 3
_GROUP_MIN, _GROUP_MAX = 16 << 10, 4 << 20
_READ = 1 << 20
_SLACK_NS = 20_000_000
"""File systems stamp times this coarsely: a file may change twice with one time."""
_SHOWN, _SHOWN_CHARACTERS = 5, 80
_PATH_MAX, _RANDOM = 4095, 16
"""Bytes of a path that the system takes, and of what follows STAGING in a name."""


class ChunkSink(Protocol):
    """Where chunks go: to a lake (ChunkWriter), or nowhere, to learn their digests."""

    def has(self, digest: str) -> bool:
        """Whether a chunk is there."""

    def add(self, content: bytes) -> PendingChunk:
        """Take a chunk; the result is its digest and length."""


@dataclass
class Captured:
    """What was read of one directory: its index; relative paths of devices, which are only named
    (`skipped`) and of files that kept changing (`changed`)."""

    index: StateIndex
    skipped: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


# What chmod, chown and writing change: a file with the same of all of it has the same content.
_IDENTITY = attrgetter("size", "mtime", "ctime", "inode", "mode", "uid", "gid")


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
    )


class _Previous:
    """The index of the save before: which files it has, and which chunks hold them."""

    def __init__(self, index: StateIndex | None, began_us: int) -> None:
        # Less the slack: a file written in the tick in which the save began may change again in it.
        self.before = began_us * 1000 - _SLACK_NS
        self.entries: dict[bytes, tuple[StateEntry, int]] = {}
        self.chunks = index.chunks if index else ()
        self.starts = {0: 0}
        offset = 0
        for entry in index.entries if index else ():
            self.entries[entry.path] = (entry, offset)
            offset += entry.stored
        offset = 0
        for number, (_, size) in enumerate(self.chunks, 1):
            offset += size
            self.starts[offset] = number

    def unchanged(self, path: bytes, status: os.stat_result) -> StateEntry | None:
        """Return the entry of the save before if the file did not change since, nor its
        attributes: these change the ctime, too."""
        old = self.entries.get(path, (None, 0))[0]
        if old is None or old.kind != "file" or status.st_ctime_ns >= self.before:
            return None
        return old if _IDENTITY(old) == _identity(status) else None

    def has(self, entry: StateEntry) -> bool:
        """Whether an entry is one that `unchanged` returned."""
        return self.entries.get(entry.path, (None, 0))[0] is entry

    def span(self, files: list[StateEntry]) -> list[ChunkRef] | None:
        """Return the chunks that hold exactly these unchanged files, one after another."""
        start = end = self.entries[files[0].path][1]
        for entry in files:
            if self.entries[entry.path][1] != end:
                return None
            end += entry.stored
        if start not in self.starts or end not in self.starts:
            return None
        return list(self.chunks[self.starts[start] : self.starts[end]])


class Capture:
    """Reads one directory into a writer. `exclude` are globs of relative paths or names."""

    def __init__(
        self,
        root: str,
        writer: ChunkSink,
        previous: StateIndex | None = None,
        began_us: int = 0,
        exclude: tuple[str, ...] = (),
        progress: ProgressCallback | None = None,
    ) -> None:
        self._root, self._writer, self._exclude = os.fsencode(root), writer, exclude
        self._previous, self._progress = _Previous(previous, began_us), progress
        # By device and inode: the first name seen is the file, and others are links to it.
        self._first: dict[tuple[int, int], bytes] = {}
        self._unreadable: list[str] = []
        # A restore writes them below a longer name beside the directory.
        name = max(len(os.path.basename(self._root)), len(STAGING) + _RANDOM)
        self._longest = _PATH_MAX - len(os.path.dirname(self._root)) - name - 2
        self._pieces: list[PendingChunk | ChunkRef] = []
        self._result = Captured(StateIndex((), ()))
        self._total = self._read_bytes = 0
        self._devices: set[int] = set()

    def run(self) -> Captured:
        """Read everything. Raises StateRefused where a file cannot be read, OSError."""
        for _ in range(READINGS):
            entries = self._collect()
            files = {entry.path for entry in entries if entry.is_linkable}
            # A name may be removed while its file is read, and another name of it stays.
            whole = [e for e in entries if e.kind != "hard" or e.target in files]
            if len(whole) == len(entries):
                break
        chunks = [p if isinstance(p, tuple) else p.result() for p in self._pieces]
        self._result.index = StateIndex(tuple(whole), tuple(chunks))
        return self._result

    def _collect(self) -> list[StateEntry]:
        """Read all names, then all content; return the entries as they are stored."""
        self._first, self._pieces, self._read_bytes = {}, [], 0
        self._result = Captured(StateIndex((), ()))
        entries = list(self._scan())
        self._refuse_unreadable()
        self._total = sum(entry.size for entry in entries)
        final: list[StateEntry] = []
        group: list[StateEntry] = []
        size = 0
        for entry in entries:
            if entry.kind == "file" and entry.size >= LARGE:
                final += self._group(group)
                final += self._group([entry])
                group, size = [], 0
                continue
            group.append(entry)
            size += entry.size
            if size >= _GROUP_MAX or (size >= _GROUP_MIN and zlib.crc32(entry.path) % 4 == 0):
                final += self._group(group)
                group, size = [], 0
        final += self._group(group)
        self._refuse_unreadable()
        return final

    # --- names ---

    def _scan(self) -> Iterator[StateEntry]:
        """Yield the directory and the entries below it, each directory before what is in it, in the
        order of names."""
        # Without recursion: a thousand levels would be too many.
        waiting = [b""]
        while waiting:
            path = waiting.pop()
            # Found now, and not when somebody needs the restore.
            if len(path) > self._longest:
                raise StateRefused(
                    f"{os.fsdecode(self._root)}: nothing was saved, as paths in it are too long to"
                    f" be restored, such as {shown(path)[:_SHOWN_CHARACTERS]}...: --exclude them"
                )
            try:
                entry, names = self._look(path)
            except PermissionError:
                self._unreadable.append(shown(path or b"."))
                continue
            except FileNotFoundError:
                if not path:
                    raise
                continue  # removed since it was listed
            yield entry
            # Reversed, as the last one is taken first.
            children = (path + b"/" + name if path else name for name in reversed(names))
            waiting += [child for child in children if not self._is_excluded(child)]

    def _look(self, path: bytes) -> tuple[StateEntry, list[bytes]]:
        """Return the entry of a path, and the names in it."""
        status = os.lstat(self._full(path))
        if stat.S_ISDIR(status.st_mode):
            # Once for each file system that the directory reaches into.
            if status.st_dev not in self._devices:
                self._devices.add(status.st_dev)
                self._sync(self._full(path), status.st_dev)
            return self._entry(path, status, "dir"), sorted(os.listdir(self._full(path)))
        if not path:
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", os.fsdecode(self._root))
        file_type = kind_of(status.st_mode)
        if file_type == "device":
            self._result.skipped.append(shown(path))
            return self._entry(path, status, file_type), []
        identity = status.st_dev, status.st_ino
        if status.st_nlink > 1:
            if identity in self._first:
                return StateEntry(path, "hard", target=self._first[identity]), []
            self._first[identity] = path
        if file_type == "file" and (old := self._previous.unchanged(path, status)) is not None:
            return old, []
        entry = self._entry(path, status, file_type)
        return (
            replace(entry, target=os.readlink(self._full(path))) if file_type == "link" else entry
        ), []

    def _sync(self, directory: bytes, device: int) -> None:
        """Let times tell what is written from here on to the files of a file system."""
        if filesystems.is_in_memory(device):
            self._previous = _Previous(None, 0)
            return
        with OpenFile.closing(
            os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        ) as fd:
            filesystems.sync(fd)

    def _entry(self, path: bytes, status: os.stat_result, file_type: str) -> StateEntry:
        is_file = file_type == "file"
        return StateEntry(
            path,
            file_type,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_size if is_file else 0,
            xattrs=_xattrs(self._full(path)),
            # Only files are skipped by their times.
            ctime=status.st_ctime_ns if is_file else 0,
            inode=status.st_ino if is_file else 0,
        )

    def _is_excluded(self, path: bytes) -> bool:
        name = path.rpartition(b"/")[2]
        if name.startswith(STAGING.encode()):
            return True
        if not self._exclude:
            return False
        names = os.fsdecode(path), os.fsdecode(name)
        return any(fnmatch.fnmatchcase(t, glob) for glob in self._exclude for t in names)

    def _full(self, path: bytes) -> bytes:
        return self._root + b"/" + path if path else self._root

    def _refuse_unreadable(self) -> None:
        if self._unreadable:
            # All at once, and nothing saved: a state that lacks files would be restored as if
            # complete.
            count, names = len(self._unreadable), ", ".join(self._unreadable[:_SHOWN])
            suffix = f" and {count - _SHOWN} more" if count > _SHOWN else ""
            raise StateRefused(
                f"{os.fsdecode(self._root)}: nothing was saved, as {count} of its files cannot be"
                f" read: {names}{suffix}; make them readable, or --exclude them"
            )

    # --- content ---

    def _group(self, group: list[StateEntry]) -> list[StateEntry]:
        """Take the content of neighbouring files, from the save before if none of them changed;
        return the entries as they are stored."""
        files = [entry for entry in group if entry.kind == "file" and entry.size]
        if files and all(map(self._previous.has, files)):
            chunks = self._previous.span(files)
            # A chunk that gc took, or that was damaged, is written again.
            if chunks is not None and all(self._writer.has(digest) for digest, _ in chunks):
                self._pieces += chunks
                self._report(sum(entry.size for entry in files))
                return group
        if len(files) == 1 and files[0].size >= LARGE:
            return self._read_large(files[0])
        contents = [self._read_small(entry) for entry in group]
        self._pieces += map(self._writer.add, cut(data for _, data in contents))
        return [entry for entry, _ in contents if entry.kind != "gone"]

    def _read_small(self, entry: StateEntry) -> tuple[StateEntry, bytes]:
        if entry.kind != "file":
            return entry, b""
        contents: list[bytes] = []

        def read(blocks: Iterator[bytes]) -> None:
            contents[:] = blocks

        digests = self._read(entry, read)
        return digests, b"".join(contents) if digests.kind == "file" else b""

    def _read_large(self, entry: StateEntry) -> list[StateEntry]:
        chunks: list[PendingChunk] = []

        def read(blocks: Iterator[bytes]) -> None:
            chunks[:] = map(self._writer.add, cut(blocks))

        digests = self._read(entry, read)
        self._pieces += chunks if digests.kind == "file" else []
        return [digests] if digests.kind == "file" else []

    def _read(self, entry: StateEntry, take: Callable[[Iterator[bytes]], None]) -> StateEntry:
        """Give the data of a file to `take`, again while it changes; return its entry as read, of
        kind `gone` if the file is not there any more."""
        # O_NONBLOCK: a pipe that took the place of the file must not wait for a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            # Permission may be missing only for reading: it was listed nevertheless.
            fd = os.open(self._full(entry.path), flags)
        except (FileNotFoundError, PermissionError) as error:
            if isinstance(error, PermissionError):
                self._unreadable.append(shown(entry.path))
            return replace(entry, kind="gone")
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link or socket since it was listed
                return replace(entry, kind="gone")
            raise
        with OpenFile.closing(fd):
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return replace(entry, kind="gone")
            for reading in range(READINGS):
                status = os.fstat(fd)
                extents = _data_extents(fd, status)
                take(self._blocks(fd, extents))
                # Size and times before and after: what was written in between has changed them.
                if _stamp(os.fstat(fd)) == _stamp(status):
                    break
                if reading == READINGS - 1:
                    self._result.changed.append(shown(entry.path))
            return replace(self._entry(entry.path, status, "file"), extents=extents)

    def _blocks(self, fd: int, extents: tuple[Extent, ...]) -> Iterator[bytes]:
        for start, length in extents:
            offset, end = start, start + length
            while offset < end:
                # Zeros where the file was cut off meanwhile: its entry says how long it is.
                block = os.pread(fd, min(_READ, end - offset), offset) or bytes(
                    min(_READ, end - offset)
                )
                offset += len(block)
                self._report(len(block))
                yield block

    def _report(self, size: int) -> None:
        self._read_bytes += size
        if self._progress:
            self._progress(min(self._read_bytes, self._total), self._total)


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _data_extents(fd: int, status: os.stat_result) -> tuple[Extent, ...]:
    """Return where a file has data; a file without holes is one extent."""
    size, extents, offset = status.st_size, list[Extent](), 0
    # 512-byte blocks, whatever the file system's: fewer than the size means holes.
    if status.st_blocks * 512 >= size:
        return ((0, size),) if size else ()
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                break
            # The file system knows no SEEK_DATA: then all of it is data.
            return ((0, size),)
        # A file that grows meanwhile is read again, and stored as long as it was here.
        offset = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if start < offset:
            extents.append((start, offset - start))
    # Readers take no more; a filled hole compresses to nothing.
    while len(extents) > StateIndex.EXTENTS_MAX:
        pairs = itertools.zip_longest(extents[::2], extents[1::2])
        extents = [(pair[0], sum(following or pair) - pair[0]) for pair, following in pairs]
    return tuple(extents)


def _xattrs(path: bytes) -> dict[bytes, bytes]:
    """Return the extended attributes that can be read; none where there is no support."""
    values: dict[bytes, bytes] = {}
    try:
        for name in os.listxattr(path, follow_symlinks=False):
            # Of the link itself, as its target is no part of the directory.
            values[os.fsencode(name)] = os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return values
    return values
