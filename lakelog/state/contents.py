"""Contents: the files of saved directories, each by the parts of chunks that hold it."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

from lakelog import chunks
from lakelog.chunks import StateEntry, StateIndex
from lakelog.errors import UnknownRef
from lakelog.paths import Paths
from lakelog.state.saved_state import SavedState

ChunkRange = tuple[str, int, int]
"""The digest of a chunk, and the range of bytes in it."""


class Contents:
    """The files of one index, by their paths; a hard link has the content of its target."""

    def __init__(self, paths: Paths, index: StateIndex) -> None:
        self._paths, self._chunks = paths, index.chunks
        self.entries = {entry.path: entry for entry in index.entries}
        starts = itertools.accumulate((entry.stored for entry in index.entries), initial=0)
        self._starts = dict(zip(self.entries, starts, strict=False))
        self._ends = list(itertools.accumulate(size for _, size in index.chunks))
        self._last = ("", b"")

    def file(self, path: bytes) -> StateEntry | None:
        """Return the file of a path, None for another or no entry."""
        entry = self.entries.get(path)
        if entry is not None and entry.kind == "hard":
            # Links lead to files only, never to links.
            entry = self.entries[entry.target]
        return entry if entry is not None and entry.kind == "file" else None

    def parts(self, file: StateEntry) -> list[tuple[int, ChunkRange]]:
        """Return the data of a file: where in the file each part of a chunk belongs."""
        slices, start = [], self._starts[file.path]
        for offset, length in file.extents:
            place, end = start, start + length
            while place < end:
                # The chunk in which this byte lies; ends are sorted.
                number = bisect.bisect_right(self._ends, place)
                digest, size = self._chunks[number]
                chunk_start = self._ends[number] - size
                stop = min(end, self._ends[number])
                chunk_range = digest, place - chunk_start, stop - chunk_start
                slices.append((offset + place - start, chunk_range))
                place = stop
            start = end
        return slices

    def read(self, file: StateEntry) -> Iterator[bytes]:
        """Yield the content of a file, zeros in its holes. Raises DamagedState."""
        position = 0
        for offset, (digest, low, high) in self.parts(file):
            yield from _zeros(offset - position)
            # Many small files are in one chunk.
            if self._last[0] != digest:
                self._last = digest, chunks.StateFiles(self._paths).read_chunk(digest)
            yield self._last[1][low:high]
            position = offset + high - low
        yield from _zeros(file.size - position)

    def digest(self, file: StateEntry) -> bytes:
        """Return the SHA-256 of the content of a file. Raises DamagedState."""
        sha256 = hashlib.sha256()
        for block in self.read(file):
            sha256.update(block)
        return sha256.digest()


def _zeros(count: int) -> Iterator[bytes]:
    for offset in range(0, count, 1 << 20):
        yield bytes(min(1 << 20, count - offset))


@dataclass(frozen=True)
class PathChange:
    """A path, as `label/path`, that was added, removed or changed between two states. Sizes are of
    files, in bytes; `what` changed is some of content, kind, target, mode, owner, time and
    attributes."""

    path: str
    change: str
    before: int | None
    after: int | None
    what: tuple[str, ...] = ()


_Located = tuple[Contents, StateEntry]


class StateContents:
    """The files of all directories of a saved state. Methods raise UnknownRef, Damaged."""

    def __init__(self, paths: Paths, state: SavedState) -> None:
        self._paths, self._state = paths, state
        self._known = dict[str, Contents]()

    def _directories(self) -> Iterator[tuple[str, Contents]]:
        """Yield the contents of each directory by its label: damage of the later ones is no matter
        to whoever has found what he looked for."""
        for record in self._state.directories:
            if record.label not in self._known:
                index = chunks.StateFiles(self._paths).read_index(record.index)
                self._known[record.label] = Contents(self._paths, index)
            yield record.label, self._known[record.label]

    def locate(self, path: str) -> tuple[str, bytes]:
        """Return the label of the directory that holds a path, and the path in it; the path may
        begin with the label."""
        for label, contents in self._directories():
            # A directory may hold a directory of its own label: the path as it is comes first.
            for candidate in (path, path.removeprefix(f"{label}/")):
                encoded = os.fsencode(candidate.strip("/"))
                # No path, as of an unset variable, is not the directory: that has its label.
                if encoded and encoded in contents.entries:
                    return label, encoded
            if path.rstrip("/") == label:
                return label, b""
        name = self._state.name
        raise UnknownRef(f"{name} holds no file {path!r}: see `lakelog state info {name}`")

    def read(self, path: str) -> Iterator[bytes]:
        """Yield the content of a file; the path may begin with the directory's label."""
        label, inner_path = self.locate(path)
        file = self._known[label].file(inner_path)
        if file is None:
            name = self._state.name
            raise UnknownRef(f"{path!r} is no file in {name}: see `lakelog state info {name}`")
        return self._known[label].read(file)

    def diff(self, newer: StateContents) -> list[PathChange]:
        """Return what was added, removed or changed from here to another state, by path."""
        old, new, changes = self._files(), newer._files(), []
        # Bytes that are no UTF-8 sort as they are shown.
        for path in sorted(old.keys() | new.keys()):
            before, after = old.get(path), new.get(path)
            differences = _differences(before, after) if before and after else ()
            if differences or not (before and after):
                change = "changed" if differences else "removed" if before else "added"
                changes.append(PathChange(path, change, _size(before), _size(after), differences))
        return changes

    def _files(self) -> dict[str, _Located]:
        # The directory itself is the label alone.
        return {
            f"{label}/{os.fsdecode(path)}".rstrip("/"): (contents, entry)
            for label, contents in self._directories()
            for path, entry in contents.entries.items()
        }


def _size(located: _Located | None) -> int | None:
    if located is None:
        return None
    contents, entry = located
    file = contents.file(entry.path)
    return None if file is None else file.size


def _differences(old: _Located, new: _Located) -> tuple[str, ...]:
    (_, before), (_, after) = old, new
    if before.kind != after.kind:
        return ("kind",)
    # The time of a directory changes with what is in it, which is listed itself.
    same_time = before.kind == "dir" or before.mtime == after.mtime
    facts = {
        "content": _is_same_content(old, new),
        "target": before.target == after.target,
        "mode": before.mode == after.mode,
        "owner": (before.uid, before.gid) == (after.uid, after.gid),
        "time": same_time,
        "attributes": before.xattrs == after.xattrs,
    }
    return tuple(name for name, is_same in facts.items() if not is_same)


def _is_same_content(old: _Located, new: _Located) -> bool:
    files = [contents.file(entry.path) for contents, entry in (old, new)]
    before, after = files
    if before is None or after is None:
        return before is after
    if before.size != after.size:
        return False
    # Equal parts are equal content; the same content may also have been cut in another way.
    if old[0].parts(before) == new[0].parts(after):
        return True
    return old[0].digest(before) == new[0].digest(after)
