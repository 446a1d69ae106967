"""A directory of backups: what is there, putting a copy there, and taking one away.

Documents are the truth of what is there. Whoever writes holds the lock of the directory's mark, so
that two managers take turns. A step that was cut short leaves temporary names; the next writer
removes them, and with them a copy that has no document yet, which it knows by its second name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from lakelog.backup import copy
from lakelog.backup.copy import DOCUMENT, Backup, Stop
from lakelog.ingest.exclusions import MARK
from lakelog.store import disk, document

_WORDS = b"lakelog keeps backups here; what is below is never taken in as input\n"


@dataclass
class DirectoryListing:
    """What a directory holds: backups in the order they were made; documents that are damaged,
    with the reason; copies without a document, which lakelog did not make, or did not finish."""

    backups: list[Backup] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)


class BackupDirectory:
    """The backups below one directory."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self._read: dict[str, Backup] = {}

    def look(self) -> DirectoryListing:
        """Look through the directory; a document is read once. Raises OSError."""
        found, documents, copies = DirectoryListing(), set[str](), set[str]()
        for folder, _, names in os.walk(self.root, onerror=_refuse):
            for name in names:
                if not name.startswith("."):
                    path = f"{folder}/{name}"
                    (documents if name.endswith(DOCUMENT) else copies).add(path)
        for path in sorted(documents):
            try:
                copied = path.removesuffix(DOCUMENT)
                if copied not in self._read:
                    self._read[copied] = copy.read_document(copied)
                found.backups.append(self._read[copied])
            except FileNotFoundError:  # taken away meanwhile
                continue
            except (document.NotIntact, OSError) as error:
                found.damaged[copied] = f"its document cannot be read: {error}"
        found.strangers = sorted(copies - {path.removesuffix(DOCUMENT) for path in documents})
        found.backups.sort(key=lambda b: (b.number, b.path))
        return found

    @contextlib.contextmanager
    def claim(self) -> Iterator[bool]:
        """Make the directory, mark it, and hold it; yields False if another process does."""
        disk.make_dirs(self.root)
        mark = f"{self.root}/{MARK}"
        if not disk.exists(mark):
            with contextlib.suppress(FileExistsError):
                disk.create_whole(mark, _WORDS)
        with disk.claim(mark) as alone:
            yield alone

    def put(
        self,
        source: str,
        below: str,
        number: int,
        *,
        packed: bool,
        stop: Stop,
        cursor: tuple[str, int] = ("", 0),
    ) -> Backup:
        """Copy a file into the folder `below` the root; return the verified backup.

        The caller holds the claim. Raises Changed, OSError, Stopped; then nothing was added.
        """
        folder = os.path.join(self.root, below) if below else self.root
        disk.make_dirs(folder)
        copied = copy.copy(source, folder, packed, stop)
        made, written = disk.now_us(), ""
        try:
            known = copy.described(copied, "", source, number, made)
            known = dataclasses.replace(known, cursor=cursor[0], covered=cursor[1])
            written = disk.write_temporary(folder, document.encode(known.body()))
            path = self._name(copied, folder, os.path.basename(source), made)
            try:
                disk.link(written, path + DOCUMENT)
            except BaseException:
                disk.unlink(path)
                raise
            disk.sync_dir(folder)
        finally:
            disk.unlink(copied.path)
            if written:
                disk.unlink(written)
        return dataclasses.replace(known, path=path)

    def drop(self, gone: Backup) -> None:
        """Take a backup away: its document, then the copy. The caller holds the claim."""
        folder = os.path.dirname(gone.path)
        second = disk.temporary(folder)
        with contextlib.suppress(FileNotFoundError):
            disk.link(gone.path, second)
        disk.unlink(gone.path + DOCUMENT)
        disk.unlink(gone.path)
        disk.unlink(second)
        disk.sync_dir(folder)
        self._read.pop(gone.path, None)

    def sweep(self) -> None:
        """Remove what a process that died left half-done. The caller holds the claim."""
        for folder, _, names in os.walk(self.root):
            left = [name for name in names if name.startswith(disk.TEMPORARY)]
            for name in left:
                self._forget(f"{folder}/{name}", folder, names)
            if left:
                disk.sync_dir(folder)

    def _forget(self, path: str, folder: str, names: list[str]) -> None:
        """Remove a temporary name, and its other name if that has no document."""
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(path)
            for name in names if status.st_nlink > 1 else ():
                other = f"{folder}/{name}"
                if name.startswith(disk.TEMPORARY) or name.endswith(DOCUMENT):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.stat(other), status) and not disk.exists(
                        other + DOCUMENT
                    ):
                        disk.unlink(other)
            disk.unlink(path)

    def _name(self, copied: copy.VerifiedCopy, folder: str, name: str, made: int) -> str:
        """Give a copy the first name that is free; return the path."""
        ordinal = 0
        while True:
            path = f"{folder}/{copy.name_of(name, made, ordinal, copied.packed)}"
            with contextlib.suppress(FileExistsError):
                if not disk.exists(path + DOCUMENT):
                    disk.link(copied.path, path)
                    return path
            ordinal += 1


def _refuse(error: OSError) -> None:
    """A folder that cannot be listed is an error, one that is not there is empty."""
    if not isinstance(error, FileNotFoundError):
        raise error


def copies_of(shelves: list[BackupDirectory], source: str, keys: set[str]) -> Iterator[str]:
    """Yield the paths of verified copies of a file, the newest first.

    They are known by the path it had, or by the keys of its cursor.
    """
    for shelf in shelves:
        for one in reversed(shelf.look().backups):
            if (one.source == source or one.cursor in keys) and not copy.fault_of(one):
                yield one.path
