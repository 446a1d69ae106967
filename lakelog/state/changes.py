"""Changes: what of a directory differs from a saved state, and which parts of it to exchange.

What is equal stays. As one exchange is atomic, the part is one: the path below which everything
lies that differs. The times of directories around it are set afterwards.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from lakelog.chunks import StateEntry, StateIndex
from lakelog.paths import Paths
from lakelog.state.contents import Contents

Placement = tuple[tuple[str, int, int], ...]
"""The chunks that hold the content of a file, each with the range in it."""


@dataclass
class Changes:
    """What differs: `paths` that one side lacks or has otherwise, `stale` directories with another
    time alone, of which `targets` has the entries. Whatever else has a content or
    target of its own is `equal`."""

    index: StateIndex
    targets: dict[bytes, StateEntry]
    paths: set[bytes] = field(default_factory=set)
    stale: set[bytes] = field(default_factory=set)
    equal: set[bytes] = field(default_factory=set)

    @property
    def chunks(self) -> set[str]:
        """The digests of the chunks that hold the content of what differs."""
        if not self.paths:
            return set()
        places = (place for entry, place in located(self.index) if entry.path in self.paths)
        return {digest for place in places for digest, _, _ in place}

    @property
    def devices(self) -> list[bytes]:
        """The devices that a restore would have to make."""
        entries = (self.targets.get(path) for path in sorted(self.paths))
        return [entry.path for entry in entries if entry and entry.kind == "device"]

    def top(self) -> bytes | None:
        """The path below which everything lies that differs, None if nothing does."""
        return os.path.commonpath(self.paths) if self.paths else None


def compare(
    paths: Paths, present: StateIndex, saved_index: StateIndex, *, is_stored: bool = True
) -> Changes:
    """Compare what a directory holds with what it shall hold. Unless the chunks of the first are
    stored, a file counts as another if it is in other chunks. Raises DamagedState."""
    # By path: an index has each once.
    old = {entry.path: entry for entry in present.entries}
    target = {entry.path: entry for entry in saved_index.entries}
    changes = Changes(saved_index, target)
    places, contents = _Places(present, saved_index), _Both(paths, present, saved_index)
    for entry, offset in zip(saved_index.entries, _starts(saved_index), strict=False):
        path = entry.path
        before = old.get(path)
        if before is None or not (before is entry or _is_alike(before, entry)):
            changes.paths.add(path)
        elif entry.kind == "dir":
            if before.mtime != entry.mtime:
                changes.stale.add(path)
        elif places.are_equal(before, entry, offset) or (
            is_stored and contents.are_equal(before, entry)
        ):
            if entry.kind != "hard":
                changes.equal.add(path)
        else:
            changes.paths.add(path)
    # What the state lacks goes.
    changes.paths.update(path for path in old if path not in target)
    for index in (present, saved_index):
        # Only one side may know them as names of one file.
        _take_names_together(index, changes)
    return changes


def located(index: StateIndex) -> Iterator[tuple[StateEntry, Placement]]:
    """Yield each entry with the place of its content."""
    number, end, offset = -1, 0, 0
    for entry in index.entries:
        stop, place = (
            offset + entry.stored if entry.extents else offset,
            list[tuple[str, int, int]](),
        )
        while offset < stop:
            if offset == end:
                number += 1
                end += index.chunks[number][1]
            digest, size = index.chunks[number]
            limit = min(end, stop)
            place.append((digest, offset - end + size, limit - end + size))
            offset = limit
        yield entry, tuple(place)


def _starts(index: StateIndex) -> Iterator[int]:
    """Yield where the content of each entry starts in that of the directory."""
    return itertools.accumulate((entry.stored for entry in index.entries), initial=0)


class _Places:
    """Where two indices have the content of a file. Nearly all files are in one chunk each: it is
    told by where that starts, without listing the places of all."""

    def __init__(self, present: StateIndex, saved_index: StateIndex) -> None:
        self._indices = present, saved_index
        self._old = dict(zip((e.path for e in present.entries), _starts(present), strict=False))
        # Where chunks start: a place in one index is compared with the same place in the other.
        self._chunks: dict[int, tuple[str, int]] = {}
        offset = 0
        for chunk in present.chunks:
            self._chunks[offset] = chunk
            offset += chunk[1]
        self._saved, self._begin, self._end = iter(saved_index.chunks), 0, 0
        self._chunk = ("", 0)
        self._all: list[dict[bytes, Placement]] = []

    def are_equal(self, before: StateEntry, entry: StateEntry, offset: int) -> bool:
        """Whether a file is in the same chunks in both; those of the second index are asked for in
        their order, with the `offset` of each."""
        if before.extents != entry.extents:
            return False
        if not entry.extents:
            return True
        # Entries come in order, so that chunks are only ever passed forwards.
        while self._end <= offset:
            self._chunk = next(self._saved)
            self._begin, self._end = self._end, self._end + self._chunk[1]
        # A file of several chunks is rare: then all places are made, once.
        if offset + entry.stored > self._end:
            return self._are_all_equal(entry.path)
        old_offset = self._old[before.path] - (offset - self._begin)
        return self._chunks.get(old_offset) == self._chunk

    def _are_all_equal(self, path: bytes) -> bool:
        if not self._all:
            self._all = [{e.path: place for e, place in located(i)} for i in self._indices]
        old, target = self._all
        return old[path] == target[path]


def _is_alike(before: StateEntry, after: StateEntry) -> bool:
    """Whether two entries differ in nothing that a restore brings back, but for content, and the
    time of a directory, which changes with what is in it."""
    return (
        before.kind == after.kind
        and before.mode == after.mode
        and (before.mtime == after.mtime or before.kind == "dir")
        and before.size == after.size
        and before.target == after.target
        and (before.uid, before.gid) == (after.uid, after.gid)
        and before.xattrs == after.xattrs
    )


class _Both:
    """The contents of two indices, which are read only if a file is in other chunks in each."""

    def __init__(self, paths: Paths, *indices: StateIndex) -> None:
        self._paths, self._indices = paths, indices
        self._contents: list[Contents] = []

    def are_equal(self, before: StateEntry, after: StateEntry) -> bool:
        """Whether two files of one size have the same content."""
        if not self._contents:
            self._contents = [Contents(self._paths, index) for index in self._indices]
        old_contents, new_contents = self._contents
        return old_contents.digest(before) == new_contents.digest(after)


def _take_names_together(index: StateIndex, changes: Changes) -> None:
    """All names of a file go if one does, so that they stay names of one file."""
    names: dict[bytes, list[bytes]] = {}
    for entry in index.entries:
        if entry.kind == "hard":
            names.setdefault(entry.target, [entry.target]).append(entry.path)
    for group in names.values():
        if not changes.paths.isdisjoint(group):
            changes.paths.update(group)


def is_inside(path: bytes, top: bytes) -> bool:
    """Whether a relative path is another one or below it."""
    return not top or path == top or path.startswith(top + b"/")
