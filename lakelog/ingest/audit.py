"""Audit: proof that every line of a file that was taken in is in the lake exactly once.

The file is read again up to its cursor, and the place of each line that is not blank is held
against the (origin, position) pairs of the branch's segments:

    stored, quarantined   rows of the lake that name a place of this file
    known                 lines without a row, whose id another row of the lake has
    let go                lines without a row that a retention or a dedupe may have taken
    missing               lines that are nowhere
    doubled               places that more than one row names
    foreign               places in the lake that are no line of the file, or beyond its cursor

A line without a row is put through the exact rule of its format (account.py). A file that is gone
is read from its backup, if there is one that holds all that was taken in; else only the lake's side
can be checked. Memory holds a chunk of the file; the lake's places may
spill to the disk. Nothing is changed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from lakelog.ingest import cursors
from lakelog.ingest.account import Account
from lakelog.ingest.cursors import WINDOW, Cursor, printable
from lakelog.ingest.fileaudit import FileAudit
from lakelog.ingest.formats import known
from lakelog.ingest.ingest import expand
from lakelog.ingest.places import Places
from lakelog.ingest.source import Source
from lakelog.store.manifest import Entry
from lakelog.store.opening import Store

LABELS_MAX = 50
"""Sources of the lake that are tried as the one a file was taken in with."""
_ORIGIN = r"[0-9a-f]{32}-\d+-\d+"
Progress = Callable[[int, int], None]
Backups = Callable[[str, set[str]], Iterable[str]]
"""Gives verified copies of a file, newest first, by the name and the keys of its cursor."""


@dataclass
class Audit:
    """What an audit found, by file."""

    files: list[FileAudit] = field(default_factory=list)

    @property
    def wrong(self) -> list[FileAudit]:
        """Files of which something is missing, doubled or foreign."""
        return [f for f in self.files if f.wrong]

    @property
    def failed(self) -> list[FileAudit]:
        """Files that could not be read to the end, or were never taken in."""
        return [f for f in self.files if f.error]


def audit(
    store: Store, branch: str, connect: Callable[[], Any], paths: list[str], *,
    label: str | None = None, form: str | None = None, progress: Progress | None = None,
    backups: Backups | None = None,
) -> Audit:  # fmt: skip
    """Audit files, directories and patterns; without any, all files that cursors remember.

    `label` is the --source they were taken in with (without it the sources of the lake are
    tried), `form` the format if it was forced, `backups` gives copies of what is gone. Raises
    Damaged, InvalidSetting.
    """
    if form is not None:
        known.named(form)
    work = _Work(store, branch, connect, label, form, backups)
    with closing(work.places):
        return work.run([os.fsdecode(path) for path in paths], progress)


class _Work:
    """One audit of one state of a branch."""

    def __init__(
        self, store: Store, branch: str, connect: Callable[[], Any], label: str | None,
        form: str | None, backups: Backups | None = None,
    ) -> None:  # fmt: skip
        self._backups = backups
        state = store.manifests.load(store.refs.head(branch).move.snapshot)
        self._entries = store.manifests.entries(state, "cursor")
        self._cursors = _by_origin(self._entries)
        self._heads = _by_head(self._entries)
        self._lengths = {e["head_len"] for e in self._entries}
        self._labels = [label] if label is not None else _labels(store.manifests.entries(state))
        self._connect, self._form, self._given = connect, form, label is not None
        self._line = state.retention["before"] if state.retention else None
        self.places = Places(store, state, connect)
        self._accounts: list[Account] = []
        self._seen: set[str] = set()

    def run(self, paths: list[str], progress: Progress | None) -> Audit:
        """Audit each file, then decide which of the lines without a row are known."""
        named = list(dict.fromkeys(expand(paths))) if paths else self._remembered()
        below = self._removed_below(paths)
        wanted = self._wanted(named) | {c.origin for c in below}
        self.places.load(wanted if paths else set(self._cursors))
        left: list[tuple[str, bool, bool, str]] = []
        for number, path in enumerate(named):
            if progress:
                progress(number, len(named))
            found, broken, empty, reason = self._path(path)
            if not found:
                left.append((path, broken, empty, reason))
        for path, broken, empty, reason in left:  # its file may have been met under another name
            self._unmatched(path, broken, empty, reason, bool(paths))
        for cursor in below:
            if cursor.origin not in self._seen:
                self._from_backup(cursor)
        if not paths and not self._given:
            self._rest()
        for file, position in self.places.unanswered():
            self._accounts[file].unknown(position)
        for file, position in self.places.unequalled():
            self._accounts[file].unequalled(position)
        order = {printable(path): number for number, path in enumerate(named)}
        files = [account.file for account in self._accounts]
        return Audit(sorted(files, key=lambda file: order.get(file.source, len(order))))

    def _remembered(self) -> list[str]:
        """The names of cursors; what came through a pipe has none that can be opened."""
        return sorted({c.name for c in self._cursors.values() if c.name != "-"})

    def _removed_below(self, paths: list[str]) -> list[Cursor]:
        """Cursors of files that were in these directories and are gone; none without backups."""
        roots = tuple(f"{os.path.abspath(p)}/" for p in paths if os.path.isdir(p))
        if self._backups is None or not roots:
            return []
        found = [c for c in self._cursors.values() if c.name.startswith(roots)]
        return [c for c in found if not os.path.lexists(c.name)]

    def _wanted(self, paths: list[str]) -> set[str]:
        """The origins that files may have, by how they begin, or how they were called."""
        names = {name for path in paths for name in _names(path)}
        found = {c.origin for c in self._cursors.values() if c.name in names}
        for path in paths:
            try:
                with closing(_opened(path)) as source:
                    head = source.read(WINDOW)
            except OSError:
                continue
            alike = [e for label in self._labels for e in self._alike(head, label)]
            found |= {cursors.of_entry(e).origin for e in alike}
        return found

    def _alike(self, head: bytes, label: str | None) -> list[Entry]:
        """The cursors of files that begin so."""
        lengths = [n for n in self._lengths if 0 < n <= len(head)]
        return [e for n in lengths for e in self._heads.get(cursors.stem(head[:n], label), ())]

    def _path(self, path: str) -> tuple[bool, bool, bool, str]:
        """Audit one file under every label that it was taken in with.

        Returns whether it was, whether it could not be read, whether it is empty, and the reason.
        """
        broken = found = empty = False
        reason = ""
        try:
            for label in self._labels:
                with closing(_opened(path)) as source:
                    head = source.read(WINDOW)
                    empty = not head and not source.broken
                    found |= self._source(source, head, label)
        except (FileNotFoundError, NotADirectoryError):
            found = False
        except OSError as problem:
            reason, broken = problem.strerror or str(problem), True
        return found and not broken, broken, empty, reason

    def _unmatched(self, path: str, broken: bool, empty: bool, reason: str, asked: bool) -> None:
        """Say what became of a file of this name that was taken in, if there was one."""
        name = printable(path)
        there = os.path.exists(path) and not broken
        reason = reason or _reason(path)
        unseen = [c for c in self._cursors.values() if c.origin not in self._seen]
        old = [c for c in unseen if c.name in _names(path)]
        if there and self._given:
            old = []  # they may be of other sources
        for cursor in old:
            self._gone(cursor, reason, reason if asked or broken else "")
        if not old and (asked or broken):
            never = "never taken in under this source" if self._given else "never taken in"
            self._add(FileAudit(name, error="" if empty else never if there else reason))

    def _source(
        self, source: Source, head: bytes, label: str | None, only: str = "", copy: str = ""
    ) -> bool:
        """Audit an open file if it has a cursor under this label; `only` that of one origin, and
        then the file is a `copy`."""
        alike = self._alike(head, label)
        if not alike:
            return False
        source.seek(0)
        start = cursors.find(source, alike, label)
        if start.replaced is None:
            return False
        cursor = start.cursor
        if cursor.origin not in self.places.origins:
            raise OSError("it changed meanwhile: run it again")
        if only and only != cursor.origin:
            return False
        self._seen.add(cursor.origin)
        file = FileAudit(printable(source.name), label, seen=cursor.bytes, backup=printable(copy))
        account = self._add(file, cursor)
        account.read(source, self._connect, self._form and known.named(self._form), start.head)
        return True

    def _rest(self) -> None:
        """Report what no name led to: cursors of files that are gone, rows without a cursor."""
        for cursor in self._cursors.values():
            if cursor.origin not in self._seen:
                self._gone(cursor, _reason(cursor.name), "")
        for origin, stored, bad in self.places.others(_ORIGIN):
            file = FileAudit(origin, gone="no cursor remembers this file")
            file.stored, file.quarantined, file.foreign = stored, bad, stored + bad
            self._add(file)

    def _gone(self, cursor: Cursor, reason: str, error: str) -> None:
        """Read the backup of a file; without one check what the lake alone can tell."""
        if self._from_backup(cursor):
            return
        self._seen.add(cursor.origin)
        file = FileAudit(cursor.name, seen=cursor.bytes, gone=reason, error=error)
        self._add(file, cursor).without_file()

    def _from_backup(self, cursor: Cursor) -> bool:
        """Audit a file that is gone by a copy that holds all that was taken in."""
        if self._backups is None or cursor.name == "-":
            return False
        for path in self._backups(cursor.name, {cursor.key, cursor.origin}):
            for label in self._labels:
                with suppress(OSError), closing(Source(path, cursor.name)) as source:
                    head = source.read(WINDOW)
                    if self._source(source, head, label, cursor.origin, path):
                        return True
        return False

    def _add(self, file: FileAudit, cursor: Cursor | None = None) -> Account:
        account = Account(file, len(self._accounts), self.places, cursor, self._line)
        self._accounts.append(account)
        return account


def _by_origin(entries: list[Entry]) -> dict[str, Cursor]:
    """Cursors by the origin of their rows; of two of one file the one that went further."""
    found: dict[str, Cursor] = {}
    for cursor in map(cursors.of_entry, entries):
        old = found.get(cursor.origin)
        if old is None or old.bytes < cursor.bytes:
            found[cursor.origin] = cursor
    return found


def _by_head(entries: list[Entry]) -> dict[str, list[Entry]]:
    """Cursors by how their files begin."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry["key"].rpartition("-")[0], []).append(entry)
    return found


def _labels(segments: list[Entry]) -> list[str | None]:
    """No label, and the sources that the statistics of segments name."""
    named = [e["sources"] for e in segments if isinstance(e.get("sources"), dict)]
    names = {name: None for counts in named for name in counts if name}
    return [None, *list(names)[:LABELS_MAX]]


def _names(path: str) -> set[str]:
    """The names that the cursor of a file may have it under."""
    return {printable(path), printable(os.path.abspath(path))} if path != "-" else {path}


def _reason(path: str) -> str:
    """Say why the file of a cursor is not the one of this name."""
    if path == "-":
        return "it came through a pipe"
    there = os.path.lexists(path)
    return "another file has its name now" if there else "no such file now"


def _opened(path: str) -> Source:
    """Open a regular file. Raises OSError."""
    if path == "-":
        raise OSError("standard input cannot be read twice: name a file")
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("not a regular file")
    return Source(path)
