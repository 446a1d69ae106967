"""Extraction: making fresh trees of an index and its chunks, which anybody may have forged.

Names were checked when the index was parsed. Each directory is opened from the one around the fresh
trees on, name by name and never through a link; files are created exclusively, so nothing that is
there is written to. Every chunk is checked before its bytes are written; a few are in memory.

What the live directory holds as it was saved gets one more name instead of being written again.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from lakelog import chunks
from lakelog.chunks import StateEntry, StateIndex
from lakelog.disk import OpenFile
from lakelog.errors import DamagedState, StateRefused
from lakelog.paths import INDEX, Paths
from lakelog.runtime.progress import ProgressCallback
from lakelog.state import filesystems, fingerprint
from lakelog.state.changes import Placement, is_inside, located
from lakelog.state.filesystems import shown

# O_EXCL and O_NOFOLLOW: nothing that is there is written to, also if somebody puts it there now.
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Set-user-id and set-group-id.
_SPECIAL_BITS = 0o6000
_NODES = {"pipe": stat.S_IFIFO, "socket": stat.S_IFSOCK}
_ACL, _ACL_DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
_ACL_GROUP = 4
_FEW = 64
"""So many files are synced one by one: others may have much to write on the file system."""
# Reading, checking and decompressing run beside the writing; a few chunks are in memory.
_THREADS, _AHEAD = 3, 6
_SHOWN = 5


@dataclass(frozen=True)
class LiveDirectory:
    """What is there now: the directory, its entries, and the paths that are as they were saved."""

    root: str
    entries: Mapping[bytes, StateEntry]
    equal: set[bytes]


class Extractor:
    """Extracts one index, of which the digest is given as well; `notes` says what could not be
    done. With `only`, it is these paths and
    the directories above them; with `skip`, what cannot be made is left out."""

    def __init__(
        self,
        paths: Paths,
        digest: str,
        index: StateIndex,
        progress: ProgressCallback | None = None,
        *,
        live: LiveDirectory | None = None,
        only: tuple[bytes, ...] = (),
        skip: bool = False,
    ) -> None:
        self._paths, self._digest, self._index, self._progress = paths, digest, index, progress
        self._live, self._only, self._skip = live, only, skip
        self._apart = 0
        self._live_root = self._base = -1
        self._open: dict[int, tuple[bytes, int]]
        self._owners = self._xattrs = 0
        self._left: list[str] = []

    def create(self, target: str) -> None:
        """Create the whole directory at a path, durably. Raises as `run`."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        with OpenFile.closing(os.open(os.path.dirname(target), flags)) as folder:
            self.run(folder, {b"": os.fsencode(os.path.basename(target))})

    def run(self, folder: int, names: Mapping[bytes, bytes]) -> None:
        """Create each path of `names` under its new name in an open directory, with all that is
        below it, durably. Raises DamagedState, StateRefused, OSError; then they are there in part.
        """
        self._base, self._names, self._open = folder, names, {}
        self._targets: dict[bytes, tuple[StateEntry, Placement]] = {}
        placed = []
        link_targets = {entry.target for entry in self._index.entries if entry.kind == "hard"}
        for entry, place in located(self._index):
            # Its other names may be extracted where it is not itself.
            if entry.path in link_targets:
                self._targets[entry.path] = entry, place
            if (name := self._placed(entry.path)) is not None:
                placed.append((entry, name, place))
        file_paths = [
            p for entry, _, p in placed if not self._is_live(entry) and entry.kind == "file"
        ]
        count = sum(entry.kind != "dir" and not self._is_live(entry) for entry, _, _ in placed)
        # Many files are synced by one call for the file system: an fsync of each would take far
        # longer.
        self._is_synced = count > _FEW and filesystems.is_synced_whole()
        self._chunks = _Chunks(self._paths, self._index, self._digest, file_paths, self._progress)
        if self._live is not None:
            self._live_root = os.open(self._live.root, filesystems.FOLDER)
        try:
            for entry, name, place in placed:
                self._create(entry, name, place)
            # Children first: whatever is created in a directory changes its time.
            for entry, name, _ in reversed(
                [placement for placement in placed if placement[0].kind == "dir"]
            ):
                # A mode without the right to write would hinder creating what is in it: set at the
                # end.
                with OpenFile.closing(filesystems.open_inside(folder, name)) as fd:
                    self._set_metadata(fd, entry)
                    self._sync(fd)
            if self._is_synced:
                filesystems.sync(folder)
            os.fsync(folder)
        finally:
            self._chunks.close()
            for _, fd in self._open.values():
                os.close(fd)
            if self._live_root >= 0:
                os.close(self._live_root)

    @property
    def notes(self) -> list[str]:
        """A line for each kind of thing that could not be set or made."""
        notes = [f"the owner of {self._owners:,} files could not be set"] if self._owners else []
        if self._xattrs:
            notes.append(f"{self._xattrs:,} extended attributes could not be set")
        if self._apart:
            notes.append(f"{self._apart:,} names of one file became files of their own")
        if self._left:
            notes.append(f"left out: {few(self._left)}")
        return notes

    def _placed(self, path: bytes) -> bytes | None:
        """Return the name that a path gets, None if it is not extracted."""
        top = fingerprint.top_of(path, self._names)
        if top is None or not self._is_chosen(path):
            return None
        relative = path[len(top) :] if top else path and b"/" + path
        return self._names[top] + relative

    def _is_chosen(self, path: bytes) -> bool:
        if not self._only:
            return True
        return any(
            is_inside(path, chosen_path) or is_inside(chosen_path, path)
            for chosen_path in self._only
        )

    def _is_live(self, entry: StateEntry) -> bool:
        return self._live is not None and entry.path in self._live.equal

    def _sync(self, fd: int) -> None:
        if not self._is_synced:
            os.fsync(fd)

    def _create(self, entry: StateEntry, path: bytes, place: Placement) -> None:
        parent, _, name = path.rpartition(b"/")
        folder = self._in(self._base, parent)
        if entry.kind == "dir":
            # Only this user may look in until its mode is set.
            os.mkdir(name, 0o700, dir_fd=folder)
        elif self._is_live(entry) and self._link_live(entry.path, folder, name):
            return
        elif entry.kind == "hard":
            entry = self._link(entry, folder, name)
        elif entry.kind == "file":
            self._write(entry, folder, name, place)
        else:
            self._make_node(entry, folder, name)
        if not parent and entry.kind not in ("link", "hard"):
            self._keep_out(folder, name, entry)

    def _keep_out(self, folder: int, name: bytes, entry: StateEntry) -> None:
        """Nothing must inherit whom the directory around the fresh tree lets in."""
        path = b"/proc/self/fd/%d/%s" % (folder, name)
        for attribute in (_ACL, _ACL_DEFAULT):
            if attribute not in entry.xattrs or entry.kind == "dir":
                # Files inherit the ACL of the directory around them when they are made.
                with contextlib.suppress(OSError):
                    os.removexattr(path, attribute, follow_symlinks=False)

    def _in(self, root: int, path: bytes) -> int:
        """Return the descriptor of a directory below an open one; the last one stays open."""
        descriptor = self._open.get(root)
        if descriptor is None or descriptor[0] != path:
            fd = filesystems.open_inside(root, path)
            # One at a time: entries come directory by directory.
            if descriptor is not None:
                os.close(descriptor[1])
            self._open[root] = path, fd
        return self._open[root][1]

    def _link_live(self, path: bytes, folder: int, name: bytes) -> bool:
        """Give what is live one more name; whether it is what was compared, and could be done."""
        assert self._live is not None
        parent, _, original = path.rpartition(b"/")
        try:
            source = self._in(self._live_root, parent)
            os.link(original, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        except OSError:
            return False  # gone, of another owner, or has too many names: written again
        # It was given the name first and is looked at then: between a look and the link it could
        # change.
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        before = self._live.entries[path]
        if status.st_mtime_ns == before.mtime and before.inode in (0, status.st_ino):
            return True
        os.unlink(name, dir_fd=folder)
        return False

    def _link(self, entry: StateEntry, folder: int, name: bytes) -> StateEntry:
        """Create one more name of a file, or a file of its own; the result is what was created."""
        path, (target, place) = self._placed(entry.target), self._targets[entry.target]
        if path is None:
            # Its other names are where nothing changes, or are not wanted.
            if self._is_live(target) and self._link_live(entry.target, folder, name):
                return entry
            self._apart += 1
            # Written where the name is to be: it has no name in the fresh trees yet.
            if target.kind == "file":
                self._write(target, folder, name, place)
            # A socket or pipe has several names as well.
            else:
                self._make_node(target, folder, name)
            return target
        source, _, original = path.rpartition(b"/")
        # Not the open one: its directory is another.
        source_folder = filesystems.open_inside(self._base, source)
        try:
            os.link(
                original, name, src_dir_fd=source_folder, dst_dir_fd=folder, follow_symlinks=False
            )
        except FileNotFoundError:
            if not self._skip:
                raise
            self._left.append(shown(entry.path))  # as its target was
        finally:
            os.close(source_folder)
        return entry

    def _make_node(self, entry: StateEntry, folder: int, name: bytes) -> None:
        try:
            if entry.kind == "link":
                os.symlink(entry.target, name, dir_fd=folder)
            elif entry.kind in _NODES:
                os.mknod(name, 0o600 | _NODES[entry.kind], dir_fd=folder)
            else:
                raise PermissionError
        except PermissionError:
            if not self._skip:
                raise StateRefused(unmade([f"{shown(entry.path)}, a {entry.kind}"])) from None
            self._left.append(shown(entry.path))
            return
        self._set_metadata_by_name(folder, name, entry)

    def _write(self, entry: StateEntry, folder: int, name: bytes, place: Placement) -> None:
        with OpenFile.closing(os.open(name, _NEW_FILE, 0o600, dir_fd=folder)) as fd:
            chunk_spans, ready = iter(place), memoryview(b"")
            end = 0
            for offset, length in entry.extents:
                end = offset + length
                while offset < end:
                    # The parts of a chunk follow one another, and may cross the end of an extent.
                    if not ready:
                        ready = self._chunks.part(*next(chunk_spans))
                    count = os.pwrite(fd, ready[: end - offset], offset)
                    ready, offset = ready[count:], offset + count
            if end != entry.size:
                # A hole at the end has no data that would make the file so long.
                os.ftruncate(fd, entry.size)
            self._set_metadata(fd, entry)
            self._sync(fd)

    def _set_metadata(self, fd: int, entry: StateEntry) -> None:
        mode = entry.mode
        # The owner first, since that clears what follows.
        try:
            os.fchown(fd, entry.uid, entry.gid)
        except (PermissionError, OverflowError):
            self._owners += 1
            mode &= ~_SPECIAL_BITS  # a program must not run as somebody else than it was meant to
        for name, value in entry.xattrs.items():
            if not self._set_xattr(fd, name, value) and name == _ACL:
                mode = _without_acl(mode, value)
        # After the owner and the ACL, both of which change it.
        os.fchmod(fd, mode)
        # Last: all else sets times.
        os.utime(fd, ns=(entry.mtime, entry.mtime))

    def _set_xattr(self, fd: int, name: bytes, value: bytes) -> bool:
        try:
            os.setxattr(fd, name, value)
        except OSError:
            self._xattrs += 1
            return False
        return True

    def _set_metadata_by_name(self, folder: int, name: bytes, entry: StateEntry) -> None:
        mode = entry.mode
        try:
            os.chown(name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
        except (PermissionError, OverflowError):
            self._owners += 1
            mode &= ~_SPECIAL_BITS
        path = b"/proc/self/fd/%d/%s" % (folder, name)
        for key, value in entry.xattrs.items():
            with contextlib.suppress(OSError):
                os.setxattr(path, key, value, follow_symlinks=False)
                continue
            self._xattrs += 1
        if entry.kind != "link":
            # A link has no mode of its own on Linux.
            os.chmod(path, mode)
        times = (entry.mtime, entry.mtime)
        os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)


def _without_acl(mode: int, acl: bytes) -> int:
    """The mode of what cannot have its ACL: the group's bits are those of all whom the ACL names,
    and become the group's own."""
    # Without the group's entry nobody gets what the mask allowed.
    # The format of Linux: a version of four bytes, then (tag, bits, id) of each entry.
    for tag, bits, _ in struct.iter_unpack("<HHI", acl[4 : len(acl) // 8 * 8 - 4]):
        if tag == _ACL_GROUP:
            return mode & ~0o070 | int(bits & 7) << 3 & mode
    return mode & ~0o070


class _Chunks:
    """Chunks in the order in which files need them, read and checked a little ahead."""

    def __init__(
        self,
        paths: Paths,
        index: StateIndex,
        digest: str,
        places: list[Placement],
        progress: ProgressCallback | None,
    ) -> None:
        self._paths, self._progress = paths, progress
        self._sizes = dict(index.chunks)
        self._index = paths.state_file(digest, INDEX)
        self._wanted = self._in_order(places)
        self._total = sum(self._sizes[name] for name in self._in_order(places))
        self._threads = ThreadPoolExecutor(_THREADS, "extract")
        self._ahead: deque[tuple[str, Future[bytes]]] = deque()
        self._last: tuple[str, bytes] = ("", b"")
        self._done = 0

    @staticmethod
    def _in_order(places: list[Placement]) -> Iterator[str]:
        previous = ""
        # Files beside each other are often in one chunk: it is read once.
        for place in places:
            for digest, _, _ in place:
                if digest != previous:
                    yield digest
                previous = digest

    def part(self, digest: str, low: int, high: int) -> memoryview:
        """Return a range of a chunk. Raises DamagedState."""
        if self._last[0] != digest:
            self._last = digest, self._next(digest)
        return memoryview(self._last[1])[low:high]

    def _next(self, digest: str) -> bytes:
        while len(self._ahead) < _AHEAD and (name := next(self._wanted, None)) is not None:
            self._ahead.append((name, self._threads.submit(self._read, name)))
        # Names of one file were looked at together, so that the order may differ.
        if not self._ahead or self._ahead[0][0] != digest:
            return self._read(digest)  # of a file that could not be linked
        content = self._ahead.popleft()[1].result()
        self._done += len(content)
        if self._progress:
            self._progress(min(self._done, self._total), self._total)
        return content

    def _read(self, digest: str) -> bytes:
        content = chunks.StateFiles(self._paths).read_chunk(digest)
        # Anybody may have written the index: another length would shift all that follows.
        if len(content) != self._sizes[digest]:
            raise DamagedState(self._index, f"chunk {digest[:12]} has another length than it says")
        return content

    def close(self) -> None:
        """Read no more."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def unmade(things: list[str]) -> str:
    """Say why nothing is restored."""
    return f"{few(things)} cannot be restored: `state restore --skip` restores all else"


def few(names: list[str]) -> str:
    """Some of many names."""
    suffix = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + suffix
