"""What followed files became under names that no pattern fits, and beside the watched directories.

A file that is renamed keeps its inode, and what is copied or packed of it keeps its content; its
new name may be anything. Where a followed file is missing or was truncated, what fits no pattern
is looked through: by inode, and then, as far as it changed since, by content that no other
file begins with. So are the directories beside the watched ones, in which archives are kept, and
those into which links lead. What is found is followed like any other file. A file that is found
nowhere although bytes of it were never read is lost, which the watcher says.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace

from lakelog.collect.followed_file import FileIdentity, FollowedFile
from lakelog.files import (
    CursorIndex,
    FileCursor,
    FileScan,
    FileState,
    LogName,
    Selection,
    printable,
)
from lakelog.lines import Source

ENTRIES_MAX = 20_000
"""Names that are looked at beside the watched directories, at most."""
OPENED_MAX = 200
"""Files whose content is looked at in one search, at most; those that changed last."""


@dataclass(frozen=True)
class LostFile:
    """A file that went before it was read to its end: its name, and the bytes that nobody read."""

    path: str
    unread: int
    key: str
    """That of its cursor; empty if nothing of it was read."""


@dataclass(frozen=True)
class _MissingFile:
    """A followed file that was not found: its size when it was last seen, and its cursor's key."""

    path: str
    size: int
    key: str
    scan: int


class Successors:
    """Finds what followed files became, and which of them were lost."""

    def __init__(self, roots: list[str], label: str | None, selection: Selection) -> None:
        self._roots, self._label, self._selection = roots, label, selection
        self._paths: dict[FileIdentity, str] = {}
        self._missing: dict[FileIdentity, _MissingFile] = {}
        self._truncated: set[str] = set()
        self._linked_folders: set[str] = set()
        self._scans = 0

    @property
    def is_unsettled(self) -> bool:
        """Whether a file is missing or was truncated, of which the next scan may find what it, or a
        copy of it, became."""
        return bool(self._missing or self._truncated)

    @property
    def has_links(self) -> bool:
        """Whether a watched file is a link, and may change where nothing is watched; or the way to
        a directory has one, and may lead to another by now."""
        has_linked_root = any(os.path.realpath(root) != root for root in self._roots)
        return has_linked_root or bool(self._linked_folders)

    def truncate(self, path: str) -> None:
        """Remember a file that was truncated: what it held may be in a copy."""
        self._truncated.add(path)

    def update(
        self,
        listing: FileScan,
        followed_files: Mapping[FileIdentity, FollowedFile],
        index: Callable[[], CursorIndex],
    ) -> None:
        """Add to a scan what the `known` files became. In the first one that holds for all files
        that cursors name, as they may have been renamed while no watcher looked."""
        self._scans += 1
        # Those of before too: a link goes, or leads elsewhere, while its file is rotated.
        self._linked_folders |= {os.path.dirname(os.path.realpath(link)) for link in listing.links}
        self._keep(listing)
        missing = [
            followed
            for identity, followed in followed_files.items()
            if identity not in listing.inodes and not followed.is_sought
        ]
        if not (missing or self._truncated or self._scans == 1):
            return
        all_cursors = index()
        old_cursors = [
            c for f in missing for c in all_cursors.of_inode(f.file.identity) if not c.is_copy
        ]
        old_cursors += _released(all_cursors, self._truncated)
        self._truncated.clear()
        earlier = _gone(all_cursors, listing, self._roots, self._label) if self._scans == 1 else []
        self._find(listing, missing, old_cursors + earlier, all_cursors)
        for followed in missing:
            followed.is_sought = followed.file.identity not in listing.inodes
        for cursor in earlier:
            is_left = cursor.size > cursor.bytes and not LogName(cursor.name).is_packed
            if is_left and cursor.identity not in listing.inodes:
                self._miss(cursor.identity, cursor.name, cursor.size, cursor.key)

    def miss(self, followed: FollowedFile, index: CursorIndex) -> None:
        """Remember a file that is nowhere, and that nobody can read any more."""
        identity = followed.file.identity
        # Of what is packed only the size of the file is known.
        size = max(followed.file.size, followed.arrival[0])
        key = next((cursor.key for cursor in index.of_inode(identity)), "")
        if not (followed.is_copy or (key and LogName(followed.file.path).is_packed)):
            self._miss(identity, followed.file.path, size, key)

    def lost(self, index: CursorIndex) -> list[LostFile]:
        """Return the missing files that no later scan found, once each; `index` are the cursors of
        now."""
        losses = []
        for identity, missing in list(self._missing.items()):
            # What it became may have come after the scan that missed it.
            if missing.scan >= self._scans:
                continue
            del self._missing[identity]
            unread = self._unread(identity, missing, index)
            if unread > 0:
                losses.append(LostFile(missing.path, unread, missing.key))
        return losses

    def _keep(self, listing: FileScan) -> None:
        """Add the files that were found before and are still there."""
        for identity, path in list(self._paths.items()):
            state = _state_of(path)
            if state is None or state.identity != identity:
                del self._paths[identity]
            else:
                listing.add(state)
        for identity in self._missing.keys() & listing.inodes:
            del self._missing[identity]

    def _miss(self, identity: FileIdentity, path: str, size: int, key: str) -> None:
        self._missing.setdefault(identity, _MissingFile(path, size, key, self._scans))

    def _find(
        self,
        listing: FileScan,
        missing: list[FollowedFile],
        old_cursors: list[FileCursor],
        index: CursorIndex,
    ) -> None:
        """Find what files became: by inode those that were followed until now, and by their
        content, too, those of the `old_cursors`, which nobody can read any more."""
        by_inode = {cursor.identity: cursor for cursor in old_cursors}
        identities = {*by_inode, *(followed.file.identity for followed in missing)}
        inodes = {inode for _, inode in identities}
        other_files = list(itertools.chain(listing.others.items(), self._beside()))
        for inode, path in other_files:
            state = _state_of(path) if inode in inodes else None
            if state is None or state.identity not in identities:
                continue
            cursor = by_inode.get(state.identity)
            # A number may be used again: then the file holds something else.
            if cursor is None or self._held([cursor], path):
                self._follow(state, listing)
        # What is open is read to its end without looking for copies of it.
        is_open = {followed.file.identity for followed in missing if followed.fd >= 0}
        candidates = [
            c for c in old_cursors if c.bytes and c.identity not in listing.inodes | is_open
        ]
        if candidates:
            new = [f.path for f in listing.files.values() if not index.of_inode(f.identity)]
            self._find_content(listing, new, [path for _, path in other_files], candidates)

    def _unread(self, identity: FileIdentity, missing: _MissingFile, index: CursorIndex) -> int:
        """Return how many bytes of a missing file were seen and never read."""
        if not missing.key:
            # It went before it was read at all; somebody else may have read it meanwhile.
            return 0 if index.of_inode(identity) else missing.size
        cursor = index.get(missing.key)
        # Another file continues it, so that what it lacked is read there.
        if cursor is None or cursor.identity not in (
            identity,
            (cursor.device, FileCursor.RELEASED),
        ):
            return 0
        return missing.size - cursor.bytes - cursor.unfinished

    def _find_content(
        self,
        listing: FileScan,
        new: list[str],
        other_files: list[str],
        old_cursors: list[FileCursor],
    ) -> None:
        """Add files that hold what was consumed of others and more, and changed since."""
        since, unmatched = (
            min(cursor.looked for cursor in old_cursors),
            {cursor.key: cursor for cursor in old_cursors},
        )
        # What is followed anyway comes first: a copy elsewhere holds the same lines.
        for path in _changed(new, since):
            for cursor in self._held(unmatched.values(), path):
                del unmatched[cursor.key]
        for path in _changed(other_files, since) if unmatched else ():
            state = _state_of(path)
            for cursor in self._held(unmatched.values(), path, goes_on=True):
                del unmatched[cursor.key]
                if state:
                    self._follow(state, listing)

    def _held(
        self, some: Iterable[FileCursor], path: str, *, goes_on: bool = False
    ) -> list[FileCursor]:
        """Return the cursors of which a file holds what was consumed, and that is no file's
        beginning but its own; with `goes_on` also more."""
        held_cursors = []
        with suppress(OSError), closing(Source(path)) as source:
            head = source.read_head()
            source.limit = None
            for cursor in CursorIndex(some).alike(head, self._label):
                is_same = source.identity == cursor.identity
                compared = cursor.before_place if is_same else cursor.holds_all
                if not is_same and not FileCursor.is_distinctive(head[: cursor.bytes]):
                    continue
                if compared(source, head, self._label) is not None:
                    source.seek(cursor.bytes)
                    held_cursors += [cursor] if not goes_on or source.read(1) else []
        return held_cursors

    def _follow(self, state: FileState, listing: FileScan) -> None:
        if listing.add(state):
            self._paths[state.identity] = state.path

    def _beside(self) -> Iterator[tuple[int, str]]:
        """The files of directories beside the watched ones, and beside watched files."""
        folders = itertools.chain(
            map(_files_in, sorted(self._linked_folders)), map(_files_beside, self._roots)
        )
        neighbours = itertools.chain.from_iterable(folders)
        for inode, path in itertools.islice(neighbours, ENTRIES_MAX):
            if not self._selection.is_excluded(path):
                yield inode, path

    def without_outside(self, listing: FileScan) -> FileScan:
        """Return a scan without the files that are in none of the watched directories."""
        outside = {
            path
            for path in self._paths.values()
            if not any(_is_below(path, root) for root in self._roots)
        }
        if not outside:
            return listing
        files = {path: file for path, file in listing.files.items() if path not in outside}
        return replace(listing, files=files)


def _gone(
    index: CursorIndex, listing: FileScan, roots: list[str], label: str | None
) -> list[FileCursor]:
    """Return the cursors of files of these directories that are not in a scan."""
    return [
        cursor
        for cursor in index
        if cursor.inode > 0
        and cursor.label == label
        and cursor.identity not in listing.inodes
        and not cursor.is_copy
        and any(_is_below(cursor.name, root) for root in roots)
    ]


def _changed(paths: list[str], since: int) -> list[str]:
    """Return the files that changed since then (ns), the latest first, OPENED_MAX at most."""
    states = [state for state in map(_state_of, paths) if state and state.ctime_ns >= since]
    return [s.path for s in sorted(states, key=lambda s: -s.ctime_ns)[:OPENED_MAX]]


def _released(index: CursorIndex, paths: set[str]) -> list[FileCursor]:
    """Return the last cursor of what each of these paths held before it was truncated."""
    newest: dict[str, FileCursor] = {}
    for cursor in index if paths else ():
        if cursor.inode == FileCursor.RELEASED and cursor.name in paths:
            newest[cursor.name] = max(
                cursor, newest.get(cursor.name, cursor), key=lambda c: c.looked
            )
    return list(newest.values())


def _is_below(path: str, root: str) -> bool:
    """Whether a path is that of a root, or of something in it."""
    name = printable(root)
    return path == name or path.startswith(f"{name.rstrip('/')}/")


def _files_beside(root: str) -> Iterator[tuple[int, str]]:
    """The files of a watched file's directory, or of the directories beside a watched one."""
    parent = os.path.dirname(root.rstrip("/")) or "/"
    if not os.path.isdir(root):
        yield from _files_in(parent)
        return
    with suppress(OSError), os.scandir(parent) as entries:
        folders = sorted(
            entry.path
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        )
        for folder in folders:
            if folder != root.rstrip("/") and not Selection.is_apart(folder):
                yield from _files_in(folder)


def _files_in(folder: str) -> Iterator[tuple[int, str]]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                yield entry.inode(), entry.path


def _state_of(path: str) -> FileState | None:
    """The state of a regular file; None where there is none."""
    with suppress(OSError):
        status = os.stat(path)
        return FileState.of(path, status) if stat.S_ISREG(status.st_mode) else None
    return None
