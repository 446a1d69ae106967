"""A directory of backups: list them, add a copy, delete one.

The documents decide which backups there are. A writer holds the lock of the directory's mark, so
that two schedulers take turns. An interrupted step leaves temporary names; the next writer removes
them, and with them a copy that has no document yet, which it recognizes by its second name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from lakelog import document
from lakelog.backup import copy
from lakelog.backup.copy import DOCUMENT, Backup, Stop
from lakelog.disk import File, Folder, LockFile, NotIntact, disk
from lakelog.files import Selection

_WORDS = b"lakelog keeps backups here; nothing below is ingested\n"


@dataclass
class DirectoryListing:
    """What a directory holds: backups in the order they were made; documents that are damaged,
    with the reason; copies without a document, which lakelog did not make, or did not finish."""

    backups: list[Backup] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    undocumented: list[str] = field(default_factory=list)


class BackupDirectory:
    """The backups below one directory."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self._documents: dict[str, Backup] = {}

    def scan(self) -> DirectoryListing:
        """List the directory; each document is read once. Raises OSError."""
        listing, documents, copies = DirectoryListing(), set[str](), set[str]()
        for folder, _, names in Folder(self.root).walk(_refuse):
            for name in names:
                # The mark and temporary names: a copy on its way is none yet.
                if not name.startswith("."):
                    path = f"{folder}/{name}"
                    (documents if name.endswith(DOCUMENT) else copies).add(path)
        for path in sorted(documents):
            try:
                path_of_copy = path.removesuffix(DOCUMENT)
                # A document never changes once it has its name, so each is read from the disk only
                # once.
                if path_of_copy not in self._documents:
                    self._documents[path_of_copy] = copy.read_document(path_of_copy)
                listing.backups.append(self._documents[path_of_copy])
            except FileNotFoundError:  # taken away meanwhile
                continue
            except (NotIntact, OSError) as error:
                listing.damaged[path_of_copy] = f"its document cannot be read: {error}"
        listing.undocumented = sorted(copies - {path.removesuffix(DOCUMENT) for path in documents})
        listing.backups.sort(key=lambda b: (b.number, b.path))
        return listing

    @contextlib.contextmanager
    def claim(self) -> Iterator[bool]:
        """Create and mark the directory, and lock it; yields False if another process has the
        lock."""
        Folder(self.root).make_all()
        # The mark also keeps scans for input out of this directory: copies must not be ingested.
        mark = f"{self.root}/{Selection.MARK}"
        if not File(mark).exists():
            with contextlib.suppress(FileExistsError):
                File(mark).create(_WORDS)
        with LockFile(mark).claim() as alone:
            yield bool(alone)

    def put(
        self,
        source: str,
        subfolder: str,
        number: int,
        *,
        is_packed: bool,
        stop: Stop,
        cursor: tuple[str, int] = ("", 0),
    ) -> Backup:
        """Copy a file into the folder `subfolder` of the root; return the verified backup.

        The caller holds the lock. Raises FileChanged, OSError, CopyStopped; then nothing was added.
        """
        folder = os.path.join(self.root, subfolder) if subfolder else self.root
        Folder(folder).make_all()
        # A file is copied before anything else is written: most of what fails, fails here.
        verified = copy.copy(source, folder, is_packed, stop)
        created, document_path = disk.now_us(), ""
        try:
            # Both are whole and on the disk before one of them gets a name. The document is named
            # last, because it is what makes the copy a backup.
            backup = copy.describe(verified, "", source, number, created)
            backup = dataclasses.replace(backup, cursor=cursor[0], covered=cursor[1])
            document_path = Folder(folder).write(document.encode(backup.body()))
            path = self._name(verified, folder, os.path.basename(source), created)
            try:
                # A copy without a document is reported as a stranger's file, and the sweep would
                # not know it: its second name goes below.
                File(document_path).link(path + DOCUMENT)
            except BaseException:
                File(path).remove()
                raise
            Folder(folder).sync()
        finally:
            File(verified.path).remove()
            if document_path:
                File(document_path).remove()
        return dataclasses.replace(backup, path=path)

    def drop(self, backup: Backup) -> None:
        """Delete a backup: its document, then the copy. The caller holds the lock."""
        folder = os.path.dirname(backup.path)
        # A second, temporary name: if this process dies once the document is gone, the sweep finds
        # the copy by it.
        new_name = Folder(folder).temporary_path()
        with contextlib.suppress(FileNotFoundError):
            File(backup.path).link(new_name)
        # The document first: without it the copy is no backup any more, while a document without a
        # copy would be reported as damage.
        File(backup.path + DOCUMENT).remove()
        File(backup.path).remove()
        File(new_name).remove()
        Folder(folder).sync()
        self._documents.pop(backup.path, None)

    def sweep(self) -> None:
        """Remove what a process left when it died. The caller holds the lock."""
        for folder, _, names in Folder(self.root).walk():
            temporaries = [name for name in names if name.startswith(disk.TEMPORARY)]
            for name in temporaries:
                self._forget(f"{folder}/{name}", folder, names)
            if temporaries:
                Folder(folder).sync()

    def _forget(self, path: str, folder: str, names: list[str]) -> None:
        """Remove a temporary name, and its other name if that has no document."""
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(path)
            # Only a copy between its two steps has another name (`put` and `drop`).
            for name in names if status.st_nlink > 1 else ():
                entry_path = f"{folder}/{name}"
                if name.startswith(disk.TEMPORARY) or name.endswith(DOCUMENT):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    is_same = os.path.samestat(os.stat(entry_path), status)
                    if is_same and not File(entry_path + DOCUMENT).exists():
                        File(entry_path).remove()
            File(path).remove()

    def _name(self, verified: copy.VerifiedCopy, folder: str, name: str, created: int) -> str:
        """Give a copy the first free name; return the path."""
        ordinal = 0
        while True:
            path = f"{folder}/{copy.name_of(name, created, ordinal, verified.is_packed)}"
            with contextlib.suppress(FileExistsError):
                # The copy may have been deleted by hand and its document left: that document must
                # not describe another file.
                if not File(path + DOCUMENT).exists():
                    File(verified.path).link(path)
                    return path
            ordinal += 1


def _refuse(error: OSError) -> None:
    """Raise for a folder that cannot be listed; a missing one is empty."""
    if not isinstance(error, FileNotFoundError):
        raise error


def copies_of(directories: list[BackupDirectory], source: str, keys: set[str]) -> Iterator[str]:
    """Yield the paths of verified copies of a file, the newest first.

    They are known by the path it had, or by the keys of its cursor.
    """
    for directory in directories:
        for backup in reversed(directory.scan().backups):
            # The cheap tests first: the last one reads the whole copy.
            if (backup.source == source or backup.cursor in keys) and not copy.fault_of(backup):
                yield backup.path
