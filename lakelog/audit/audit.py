"""Audit: proof that every line of an ingested file is in the lake exactly once.

The file is read again up to its cursor, and the position of each line that is not blank is compared
with the (origin, position) pairs of the branch's segments:

    stored, quarantined   rows of the lake that name a position in this file
    known                 lines without a row, whose id another row of the lake has
    let go                lines without a row that a retention or a dedupe may have removed, or
                          that were erased
    missing               lines that are nowhere
    doubled               positions that more than one row names, and lines with times of their own
                          that an earlier file of the same name held, too
    foreign               positions in the lake that are no line of the file, or beyond its cursor

A line without a row is parsed by the exact rule of its format (account.py). A file that is gone is
read from its backup, if there is one that holds all that was ingested; else only the lake's side
can be checked. Memory holds a chunk of the file; the lake's positions may spill to disk. Nothing is
changed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace

from lakelog.audit.account import Account
from lakelog.audit.file_audit import FileAudit
from lakelog.audit.stored_rows import StoredRows
from lakelog.database import Connect
from lakelog.entries import SegmentEntry
from lakelog.erased import Refusal
from lakelog.files import CursorIndex, FileCursor, LogName, printable
from lakelog.formats import FORMATS
from lakelog.ingest import Ingester, LakeFormat
from lakelog.libraries import np, pa
from lakelog.lines import Source
from lakelog.runtime.progress import ProgressCallback
from lakelog.store import Store

PIPE = "-"
LABELS_MAX = 50
"""Sources of the lake that are tried as the one a file was ingested with."""
_ORIGIN = r"[0-9a-f]{32}-\d+-\d+"
Backups = Callable[[str, set[str]], Iterable[str]]
"""Gives verified copies of a file, newest first, by the name and the keys of its cursor."""


@dataclass
class Audit:
    """The result of an audit, by file."""

    files: list[FileAudit] = field(default_factory=list)

    @property
    def wrong(self) -> list[FileAudit]:
        """Files of which something is missing, doubled or foreign."""
        return [f for f in self.files if f.wrong]

    @property
    def failed(self) -> list[FileAudit]:
        """Files that could not be read to the end, or were never ingested."""
        return [f for f in self.files if f.error]

    @property
    def gone(self) -> list[FileAudit]:
        """Files that no longer exist, so that only the lake's side was checked. What came through
        a pipe never was one."""
        return [f for f in self.files if f.gone and f.source != PIPE]


def audit(
    store: Store,
    branch: str,
    connect: Connect,
    paths: list[str],
    *,
    label: str | None = None,
    form: str | None = None,
    progress: ProgressCallback | None = None,
    backups: Backups | None = None,
) -> Audit:
    """Audit files, directories and patterns; without any, all files that cursors remember.

    `label` is the --source they were ingested with (without it the sources of the lake are
    tried), `form` the format if it was forced, `backups` gives copies of what is gone. Raises
    Damaged, InvalidSetting.
    """
    if form is not None:
        forced = LakeFormat.resolve(form, LakeFormat.present(store, branch))
        form = FORMATS.name_of(forced) or None
    work = _Work(store, branch, connect, label, form, backups)
    with closing(work.places):
        return work.run([os.fsdecode(path) for path in paths], progress)


class _Work:
    """One audit of one state of a branch."""

    def __init__(
        self,
        store: Store,
        branch: str,
        connect: Connect,
        label: str | None,
        form: str | None,
        backups: Backups | None = None,
    ) -> None:
        self._backups, self._store = backups, store
        state = store.state(branch)
        self._index = CursorIndex(FileCursor.of_state(store, state))
        self._cursors = _by_origin(self._index)
        self._labels = [label] if label is not None else _labels(store.manifests.segments(state))
        self._connect, self._has_label = connect, label is not None
        self._form = FORMATS.by_name(form) if form else None
        self._line = state.retention.before if state.retention else None
        self._refusal = Refusal(store.paths)
        self.places = StoredRows(store, state, connect)
        self._accounts: list[Account] = []
        self._audited: set[str] = set()
        self._claimed: dict[str, str] = {}
        self._paths: list[str] = []

    def run(self, paths: list[str], progress: ProgressCallback | None) -> Audit:
        """Audit each file, then decide which of the lines without a row are known."""
        # What came through a pipe has a cursor, and no name that can be opened.
        remembered = sorted(
            {LogName(c.name).on_disk for c in self._cursors.values() if c.name != PIPE}
        )
        files_to_read = list(dict.fromkeys(Ingester.expand(paths))) if paths else remembered
        self._paths = files_to_read
        # Everything that names an origin is found before the rows are scanned, so that one scan of
        # the segments serves all files.
        nested = self._removed_below(paths)
        self._claim(files_to_read)
        origins = self._wanted(files_to_read) | {c.origin for c in nested}
        self.places.load(origins if paths else set(self._cursors))
        unmatched: list[tuple[str, bool, bool, str]] = []
        for number, path in enumerate(files_to_read):
            if progress:
                progress(number, len(files_to_read))
            is_matched, broken, empty, reason = self._path(path)
            # A path without a match waits until all others were read: its cursor may go to a file
            # that was renamed.
            if not is_matched:
                unmatched.append((path, broken, empty, reason))
        for path, broken, empty, reason in unmatched:
            self._unmatched(path, broken, empty, reason, bool(paths))
        for cursor in nested:
            if cursor.origin not in self._audited:
                self._from_backup(cursor)
        if not paths and not self._has_label:
            self._rest()
        self._stored_twice()
        self._repeated()
        # In this order: the ids without a row are a table that unequalled() reads.
        for file, position in self.places.unanswered():
            self._accounts[file].absent.unknown(position)
        for file, position in self.places.unequalled():
            self._accounts[file].absent.unequalled(position)
        order = {printable(path): number for number, path in enumerate(files_to_read)}
        files = [account.file for account in self._accounts]
        return Audit(sorted(files, key=lambda file: order.get(file.source, len(order))))

    def _removed_below(self, paths: list[str]) -> list[FileCursor]:
        """Cursors of files that were in these directories and are gone; none without backups."""
        roots = tuple(f"{os.path.abspath(p)}/" for p in paths if os.path.isdir(p))
        # A path that no longer exists cannot be expanded, so files below a directory are found by
        # their cursors.
        if self._backups is None or not roots:
            return []
        cursors_below = [c for c in self._cursors.values() if c.name.startswith(roots)]
        return [c for c in cursors_below if not os.path.lexists(LogName(c.name).on_disk)]

    def _wanted(self, paths: list[str]) -> set[str]:
        """The origins that files may have, by how they begin, or how they were called."""
        names = {name for path in paths for name in _names(path)}
        origins = {c.origin for c in self._cursors.values() if c.name in names}
        for path in paths:
            try:
                with closing(_opened(path)) as source:
                    head = source.read(Source.WINDOW)
            # A file that cannot be read has no head to compare; its name may still lead to its
            # cursor.
            except OSError:
                continue
            for label in self._labels:
                origins |= {c.origin for c in self._index.alike_or_named(head, label, path)}
        # A claimed cursor may share its first bytes with an original, whose rows are then needed,
        # too.
        owned = [self._index.get(key) for key in self._claimed]
        origins |= {origin for c in owned if c for origin in (c.origin, c.shares)}
        return origins - {""}

    def _claim(self, paths: list[str]) -> None:
        """Assign each cursor to the file whose inode it names, so that no equal file gets it."""
        for path in paths:
            with suppress(OSError), closing(_opened(path)) as source:
                for label in self._labels:
                    cursor = self._index.by_inode(source, label)
                    if cursor is not None:
                        self._claimed.setdefault(cursor.key, path)

    def _path(self, path: str) -> tuple[bool, bool, bool, str]:
        """Audit one file under every label that it was ingested with.

        Returns whether it was, whether it could not be read, whether it is empty, and the reason.
        """
        broken = is_matched = empty = False
        reason = ""
        try:
            for label in self._labels:
                with closing(_opened(path)) as source:
                    head = source.read(Source.WINDOW)
                    empty = not head and not source.broken
                    is_matched |= self._source(source, head, label)
        # A path that does not exist is no read error: its cursor, if there is one, says what to
        # report.
        except (FileNotFoundError, NotADirectoryError):
            is_matched = False
        except OSError as problem:
            reason, broken = problem.strerror or str(problem), True
        return is_matched and not broken, broken, empty, reason

    def _unmatched(
        self, path: str, broken: bool, empty: bool, reason: str, is_requested: bool
    ) -> None:
        """Report what became of an ingested file of this name, if there was one."""
        name = printable(path)
        exists = os.path.exists(path) and not broken
        reason = reason or _reason(path)
        unseen = [c for c in self._cursors.values() if c.origin not in self._audited]
        old = [c for c in unseen if c.name in _names(path)]
        if exists and self._has_label:
            old = []  # they may be of other sources
        for cursor in old:
            # An empty file was truncated to be rewritten: that is no error.
            wrong = broken or (is_requested and not empty)
            self._report_gone(cursor, reason, reason if wrong else "")
        if not old and (is_requested or broken):
            never = "never ingested under this source" if self._has_label else "never ingested"
            self._add(FileAudit(name, error="" if empty else never if exists else reason))

    def _source(
        self, source: Source, head: bytes, label: str | None, only: str = "", copy: str = ""
    ) -> bool:
        """Audit an open file if it has a cursor under this label; `only` that of one origin, and
        then the file is a `copy`."""
        if not head:
            return False
        cursor = self._cursor_of(source, head, label, only)
        if cursor is None:
            return False
        if cursor.is_copy:
            self._copied(source, cursor, head, label)
            return True
        # The file changed between the scan for origins and now, so its rows were never loaded:
        # every line would count as missing.
        if cursor.origin not in self.places.origins:
            raise OSError("it changed meanwhile: run it again")
        self._audited.add(cursor.origin)
        file = FileAudit(printable(source.name), label, seen=cursor.bytes, backup=printable(copy))
        account = self._add(file, cursor)
        self._refusal.note_earlier(cursor.origin, cursor.earlier_origins(head))
        account.read(source, self._connect, self._form, head)
        return True

    def _cursor_of(
        self, source: Source, head: bytes, label: str | None, only: str
    ) -> FileCursor | None:
        """The cursor of a file: that of its inode, else one of equal content that is no other
        file's. A copy out of a backup has that of one origin `only`."""
        if not only:
            cursors_of_inode = self._index.by_inode(source, label)
            if cursors_of_inode is not None:
                return cursors_of_inode
        # A cursor that some file owns by its inode is never given to another file of equal content.
        free = [
            c
            for c in self._index.alike_or_named(head, label, source.name)
            if (c.origin == only if only else c.key not in self._claimed) and not c.is_copy
        ]
        source.seek(0)
        start = CursorIndex(free).by_content(source, label)
        if start.replaced is None:
            return None
        if not only:
            self._claimed[start.cursor.key] = source.path
        return start.cursor

    def _copied(self, source: Source, copy: FileCursor, head: bytes, label: str | None) -> None:
        """Audit a copy: by the rows of its original, if that is not audited by its own file."""
        original = self._cursors.get(copy.shares)
        file = FileAudit(printable(source.name), label, seen=copy.bytes, copy_of=copy.shares)
        if original is not None:
            file.copy_of = original.name
        if original is None or original.key in self._claimed or original.origin in self._audited:
            self._add(file)
            return
        # Its original is gone: of that one's rows those are checked whose lines the copy has.
        self._audited.add(original.origin)
        checked = replace(original, bytes=copy.bytes)
        account = self._add(file, checked)
        account.read(source, self._connect, self._form, head, beyond=original.bytes)

    def _stored_twice(self) -> None:
        """Report the lines of files that are gone and whose content another file holds, with rows
        of its own: each is in the lake twice."""
        accounts = {
            a.cursor.origin: a for a in self._accounts if a.file.gone and a.cursor is not None
        }
        for path in self._paths if accounts else ():
            with suppress(OSError), closing(_opened(path)) as source:
                head = source.read(Source.WINDOW)
                for label in self._labels:
                    for cursor in self._index.alike_or_named(head, label, path):
                        account = accounts.get(cursor.origin)
                        if account is None or not cursor.bytes or cursor.shares:
                            continue
                        # Equal banners prove nothing: most logs of one program begin alike
                        # (FORMAT.md F18.4).
                        if not FileCursor.is_distinctive(head[: cursor.bytes]):
                            continue
                        cursors_of_inode = self._index.by_inode(source, label)
                        if cursors_of_inode is None or not _may_repeat(cursors_of_inode, cursor):
                            continue
                        # by_inode() limits reading to what the head showed; all of the content is
                        # compared here.
                        source.limit = None
                        if cursor.holds_all(source, head, label) is not None:
                            account.stored_twice(printable(path))
                            # Each file that is gone is reported once, however many files repeat it.
                            accounts.pop(cursor.origin)

    def _repeated(self) -> None:
        """Report lines of files that an earlier file of the same name held, too, each with the
        same time: they are in the lake twice."""
        accounts = {
            account.cursor.origin: account.file
            for account in self._accounts
            if account.cursor is not None and not (account.file.gone or account.file.copy_of)
        }
        files = [self._cursors[origin] for origin in accounts if origin in self._cursors]
        lake = self._connect, self._store, self.places.events, self._index
        for repeat in Ingester.repeats_of(*lake, files):
            file = accounts[repeat.origin]
            file.note("doubled", repeat.positions)
            file.doubled += repeat.timed - len(repeat.positions)

    def _rest(self) -> None:
        """Report what no path led to: cursors of files that are gone, rows without a cursor."""
        for cursor in self._cursors.values():
            if cursor.origin not in self._audited:
                self._report_gone(cursor, _reason(cursor.name), "")
        for origin, rows_stored, bad in self.places.others(_ORIGIN):
            file = FileAudit(origin, gone="no cursor remembers this file")
            file.stored, file.quarantined, file.foreign = rows_stored, bad, rows_stored + bad
            self._add(file)

    def _report_gone(self, cursor: FileCursor, reason: str, error: str) -> None:
        """Read the backup of a file; without one check the lake's side alone."""
        if self._from_backup(cursor):
            return
        self._audited.add(cursor.origin)
        file = FileAudit(cursor.name, seen=cursor.bytes, gone=reason, error=error)
        self._add(file, cursor).without_file()

    def _from_backup(self, cursor: FileCursor) -> bool:
        """Audit a file that is gone by a copy that holds all that was ingested."""
        if self._backups is None or cursor.name == PIPE:
            return False
        for path in self._backups(cursor.name, {cursor.key, cursor.origin}):
            for label in self._labels:
                with suppress(OSError), closing(Source(path, cursor.name)) as source:
                    head = source.read(Source.WINDOW)
                    if self._source(source, head, label, cursor.origin, path):
                        return True
        return False

    def _add(self, file: FileAudit, cursor: FileCursor | None = None) -> Account:
        account = Account(file, len(self._accounts), self.places, cursor, self._line, self._refused)
        self._accounts.append(account)
        return account

    def _refused(self, rows: pa.Table) -> np.ndarray:
        return self._refusal.refused(rows, self._store.paths.protection)


def _may_repeat(cursor: FileCursor, old: FileCursor) -> bool:
    """Whether a file may have repeated the lines of one that is gone: not if it shares them, and
    not if the two existed side by side, each with lines of its own."""
    related = {cursor.origin, cursor.shares, *cursor.apart}
    return old.origin not in related and old.looked < cursor.begun


def _by_origin(index: CursorIndex) -> dict[str, FileCursor]:
    """Cursors by the origin of their rows; of two of one file the one that went further. A file
    that was seen empty has nothing to prove."""
    furthest: dict[str, FileCursor] = {}
    for cursor in index:
        old = furthest.get(cursor.origin)
        is_empty = not (cursor.bytes or cursor.size)
        if not (cursor.is_copy or is_empty) and (old is None or old.bytes < cursor.bytes):
            furthest[cursor.origin] = cursor
    return furthest


def _labels(segments: list[SegmentEntry]) -> list[str | None]:
    """No label, and the sources that the statistics of segments name."""
    counts_of = [e.sources for e in segments if isinstance(e.sources, dict)]
    names = {name: None for counts in counts_of for name in counts if name}
    return [None, *list(names)[:LABELS_MAX]]


def _names(path: str) -> set[str]:
    """The names that the cursor of a file may have it under."""
    return {printable(path), printable(os.path.abspath(path))} if path != PIPE else {path}


def _reason(path: str) -> str:
    """Return why the file of a cursor is not the one of this name."""
    if path == PIPE:
        return "it came through a pipe"
    exists = os.path.lexists(LogName(path).on_disk)
    return "another file has its name now" if exists else "no such file now"


def _opened(path: str) -> Source:
    """Open a regular file. Raises OSError."""
    if path == PIPE:
        raise OSError("standard input cannot be read twice: name a file")
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("not a regular file")
    return Source(path)
