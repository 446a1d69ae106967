"""Which file is at a path now? Decided by inode first, then by content, one file to one cursor.

Neither a name, an inode nor content alone tells files apart: names move, inodes are used again,
and files that exist side by side may be equal. The rules, in this order (FORMAT.md 18):

1. A file is the one that its inode's cursor names, as long as it still holds what was consumed;
   inode numbers are reused, so content that is not distinctive needs its name or its times, too.
2. If it does not, it was truncated and rewritten: the cursor is released, and the file is new.
3. A new inode is the file of a cursor whose own inode is gone or was truncated, if it holds all
   that was consumed, or a first part of it that is known for sure; names and times break ties.
   Where that is a banner that any log may begin with, it has to be compressed, with its time kept.
4. A new inode beside an unchanged file is a copy of it only if its name is that of a rotation of
   the other one's and every byte agrees: its rows are those of the original.
5. Every other file is a file of its own, however alike. In doubt rows are stored again, and the
   reader says so: a doubled line can be found, a lost one cannot.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from dataclasses import dataclass, replace

from lakelog.files import file_copies
from lakelog.files.cursor_paths import CursorPaths, Inodes, goes_on, is_as_read
from lakelog.files.cursors import CursorIndex
from lakelog.files.file_copies import FileCopy
from lakelog.files.file_cursor import FileCursor, Start
from lakelog.files.rotation import LogName, base_name, printable, relation, unpacked
from lakelog.lines import Source

_APART_MAX = 8


@dataclass(frozen=True)
class KnownContent:
    """All that the file holds was ingested from another one, which `cursor` names."""

    cursor: FileCursor


@dataclass(frozen=True)
class UndecidedFile:
    """The file is part of another one that exists: it may be about to replace it."""


FileDecision = Start | FileCopy | KnownContent | UndecidedFile
"""What is known of a file: where reading starts, or why it is not read."""


class Resolver:
    """Identifies one file after the other; `follows` for a watcher, which sees files come and go.

    An explicit ingest (`follows` is False) skips content that is in the lake, and says so; a
    watcher is given whole directories, in which equal files are files of their own.
    """

    def __init__(
        self,
        index: CursorIndex,
        label: str | None,
        inodes: Inodes | None = None,
        *,
        follows: bool = False,
    ) -> None:
        self.index = index
        self.label, self.follows = label, follows
        self.paths = CursorPaths(index, label, {} if inodes is None else inodes, follows=follows)

    def resolve(self, source: Source, *, settled: bool = True) -> FileDecision:
        """Identify the file of a source, which then stands where reading continues.

        A part of an existing file is undecided unless it is `settled`. Raises OSError.
        """
        # The inode is that of the spool file that a pipe was copied to.
        if source.piped:
            return self.index.by_content(source, self.label)
        # Another process may have read further than the file was when it was scanned.
        for cursor in self.index.of_inode(source.identity):
            source.reach(max(cursor.bytes, cursor.head_len))
        head = source.read_head()
        released: list[FileCursor] = []
        # Several cursors may name one inode: other labels, copies, files before it was reused.
        for cursor in self.index.of_inode(source.identity):
            if cursor.is_copy:
                copy_again = self._copy_again(source, cursor, head)
                if copy_again is not None:
                    return copy_again
                released.append(cursor)  # it went another way than its original
                continue
            before = cursor.before_place(source, head, self.label)
            if before is not None and self.paths.is_doubtful(source, cursor, head):
                # The inode number may have been reused: distinctive content is better evidence.
                known_content = _UnknownFile(
                    self, source, head, (*released, cursor), settled
                ).identify()
                if _is_certain(known_content, head):
                    return known_content
                if not goes_on(cursor, source):
                    released.append(cursor)
                    continue
                before = cursor.before_place(source, head, self.label)
            if before is not None:
                current = cursor.with_status(source).with_head(head, self.label)
                # Compressed content that is not distinctive is told apart by its times alone:
                # the cursor has to have those that the file has now.
                touched = cursor.mtime != source.mtime
                touched = touched and not FileCursor.is_distinctive(head[: cursor.bytes])
                return Start(current, cursor, head, before, is_touched=touched)
            if cursor.label == self.label:
                released.append(cursor)
        return _UnknownFile(self, source, head, tuple(released), settled).identify()

    def apply(self, start: Start, cursor: FileCursor) -> None:
        """Apply the publish of a file's cursor to the index."""
        for old in start.released:
            if old.is_copy:
                self.index.remove(old.key)
            else:
                self.index.add(old.released())
        if start.replaced is not None and start.replaced.key != cursor.key:
            self.index.remove(start.replaced.key)
        self.index.add(cursor)

    def _copy_again(self, source: Source, copy: FileCursor, head: bytes) -> Start | FileCopy | None:
        """A copy that was seen before: as it was, grown, or in its original's place by now."""
        if copy.before_place(source, head, self.label) is None:
            return None
        if self.follows and not is_as_read(source, copy) and not goes_on(copy, source):
            return None  # the copy went, and its inode number is that of another file
        if (
            not FileCursor.is_distinctive(head)
            and file_copies.is_cut(source, copy.bytes)
            and source.read(1)
        ):
            return None  # it was taken for a copy since it ended within a line: what is it now?
        source.seek(copy.bytes)
        original = next(iter(self.index.of_origin(copy.shares)), None)
        path = self.paths.path_of(original, source) if original else ""
        has_grown = bool(source.read(1)) if not source.compression else source.size != copy.size
        current = copy.with_status(source).with_head(head, self.label)
        # As it was: nothing to read, only its name or inode may be new.
        if not has_grown and (path or original is None or original.bytes > copy.bytes):
            return FileCopy(current, copy, head)
        if path and original:
            with closing(Source(path)) as reopened:
                size = file_copies.prefix_of(source, reopened, copy.bytes)
            if not size:
                return None
            return FileCopy(file_copies.grown(source, current, size), copy, head)
        # Without a cursor of its original the copy is all there is, so its new lines are its own.
        if original is None:
            return Start(current, copy, head, source.before(copy.bytes))
        before = original.holds_all(source, head, self.label)
        if before is not None:
            # It is what its original was, perhaps with lines that were never read from there.
            continued = original.with_status(source).with_head(head, self.label)
            return Start(continued, original, head, before, (copy,))
        size_now = file_copies.length_if_less(source, original.bytes)
        if size_now is None:
            return None
        return FileCopy(file_copies.grown(source, current, size_now), copy, head)


class _UnknownFile:
    """A file whose inode no cursor names, or none any more: it is identified by its file_copies."""

    def __init__(
        self,
        files: Resolver,
        source: Source,
        head: bytes,
        released: tuple[FileCursor, ...],
        is_settled: bool,
    ) -> None:
        self._files, self._source, self._head = files, source, head
        self._released, self._is_settled = released, is_settled
        self._note = ""

    def identify(self) -> FileDecision:
        """Say which file it is."""
        source, head = self._source, self._head
        # Only a watcher sees the original as well, which it reads next.
        if self._files.follows and self._is_copy_of_unread(source, head):
            return UndecidedFile()
        separate_origins = list[str]()
        for cursor in self._ranked(source, head):
            decision = None
            # An existing file keeps its cursor, so this one can only be a copy; a cursor whose file
            # is gone may be taken over.
            alive = self._files.paths.path_of(cursor, source)
            if alive:
                decision = self._beside(cursor, alive)
                separate_origins += [cursor.origin] if self._note else []
            elif not cursor.is_copy:
                decision = self._instead(cursor)
            if decision is not None:
                return decision
        # No cursor is its own: in doubt its lines are stored again (rule 5).
        source.seek(0)
        fresh = replace(self._fresh(), apart=tuple(separate_origins[:_APART_MAX]))
        return Start(fresh, None, head, b"", self._released, self._note)

    def _is_copy_of_unread(self, source: Source, head: bytes) -> bool:
        """Whether a file is a copy or the compressed form of a followed one that is not read yet:
        then that one is read, and this one is identified by its content later."""
        plain, folder = unpacked(source.name), os.path.dirname(source.name)
        if source.compression:  # what it was packed from may have lost its name since it was seen
            originals = [plain, *self._files.paths.nameless()]
        else:
            base = base_name(source.name)
            originals = [os.path.join(folder, base), os.path.join(os.path.dirname(folder), base)]
        for path in originals:
            # A plain copy is recognised by its content, so that has to be distinctive; a compressed
            # one also by its name.
            if path == source.name or not (source.compression or FileCursor.is_distinctive(head)):
                continue
            with suppress(OSError), closing(Source(path)) as candidate:
                # Only of a file that this watcher follows is it certain that it will be read.
                if (
                    candidate.identity == source.identity
                    or candidate.identity not in self._files.paths.inodes
                ):
                    continue
                cursor = self._files.index.by_inode(candidate, self._files.label)
                if (cursor is None or not cursor.bytes) and file_copies.prefix_of(
                    source, candidate, 0
                ):
                    return True
        return False

    def _ranked(self, source: Source, head: bytes) -> list[FileCursor]:
        """The cursors that may be of this file's content, the likeliest first."""
        name = printable(source.name)
        candidates = [
            c
            for c in self._files.index.alike_or_named(head, self._files.label, name)
            if c.bytes
            and c.identity != source.identity
            and (not c.is_copy or relation(c.name, name) == 3)
            and (
                not self._files.follows
                or relation(c.name, name)
                or FileCursor.is_distinctive(head[: c.bytes])
            )
        ]
        # Of two that fit it is the one with more content in common: that of a shorter one may just
        # be how both begin.
        return sorted(
            candidates,
            key=lambda c: (
                -min(relation(c.name, name), 2),
                -c.bytes,
                -relation(c.name, name),
                abs(c.mtime - source.mtime) if c.mtime else 0,
            ),
        )

    def _instead(self, cursor: FileCursor) -> FileDecision | None:
        """Whether a file takes the place of one whose inode is gone or was truncated."""
        source, head = self._source, self._head
        name = printable(source.name)
        related = relation(cursor.name, name)
        common = head[: cursor.bytes]
        unknown = cursor.inode == 0  # ingested before inodes were kept, or through a pipe
        # Compressors keep the time of the last line; a log begun later has another one.
        compressed_source = (
            related >= 2
            and bool(source.compression)
            and file_copies.is_time_kept(source, cursor.mtime)
        )
        sure = compressed_source or FileCursor.is_distinctive(common) or (unknown and related >= 1)
        before = cursor.holds_all(source, head, self._files.label)
        if before is not None:
            # An explicit ingest that finds exactly what was consumed has nothing to lose.
            whole = not self._files.follows and not source.read(1)
            if sure or whole:
                source.seek(cursor.bytes)
                current = cursor.with_status(source).with_head(head, self._files.label)
                # It was a copy of the file whose cursor it takes over: its rows are its own now.
                if current.shares == cursor.origin:
                    current = replace(current, shares="", shared=0)
                return Start(current, cursor, head, before, self._released)
            self._note = f"it begins as {cursor.name} did, which is gone, and is read from 0"
            return None
        size = file_copies.length_if_less(source, cursor.bytes)
        if size is None or not self._files.follows:
            return None
        # Less than was consumed: a copy made before the last lines were written, if its length
        # is that of an earlier place; else what is after the last such place is read again.
        place = file_copies.last_place(source, cursor, size)
        if not place or not FileCursor.is_distinctive(head[:place]):
            return None
        # Equal content under an unrelated name is no evidence of a copy (F18.4, rule 4).
        if related < 2:
            return None
        return file_copies.sharing(source, self._fresh(), cursor, head, place, size, self._released)

    def _beside(self, cursor: FileCursor, path: str) -> FileDecision | None:
        """Whether a file is a copy of one that exists."""
        source, head = self._source, self._head
        if not self._files.follows:
            return self._repeated(cursor, path)
        # A file that lost its name is reached by a descriptor, and known by the name it had.
        is_nameless = path.startswith("/dev/fd/")
        with closing(Source(path)) as original:
            size = file_copies.prefix_of(source, original, 0)
            # Equal words of no distinction are a copy only if this file came to be after the other
            # one was read, and that was not written since: both may just begin alike.
            times = is_as_read(original, cursor) and source.mtime > cursor.looked
            # What is named as one that lost its name may have been begun since then.
            times = times and (not is_nameless or size >= cursor.bytes)
            # What a file was packed from has its words and its time, to the nanosecond; it may be
            # read later, by a descriptor opened before it went, or since it was unpacked again.
            is_unpacked = (
                bool(original.compression)
                and not source.compression
                and relation(source.name, path) > 0
                and original.mtime == source.mtime
                and source.mtime % 10**9 > 0
            )
        # A byte differs: two files that merely begin alike.
        if not size:
            return None
        known_name = cursor.name if is_nameless else path
        name = LogName(source.name)
        is_packing = bool(source.compression) and unpacked(source.name) == known_name
        if is_unpacked and FileCursor.is_distinctive(head):
            is_copy = True
        elif not (name.is_copy_of(known_name) or (is_nameless and name.packs(known_name))):
            if not self._is_settled and FileCursor.is_distinctive(head):
                return UndecidedFile()  # it may be moved here from another file system
            is_copy = False
        else:
            is_copy = (
                is_packing
                or FileCursor.is_distinctive(head)
                or (not source.compression and file_copies.is_cut(source, size))
                or times
            )
            if not is_copy and not self._is_settled:
                return UndecidedFile()  # more of it may tell
        if is_copy:
            copy = file_copies.copy_of(source, self._fresh(), cursor, size)
            return FileCopy(copy, None, head, self._released)
        self._note = f"it is equal to {path} so far, and read as a file of its own"
        return None

    def _repeated(self, cursor: FileCursor, path: str) -> FileDecision | None:
        """The new part of a file that an explicit ingest reads, of which another file is the
        beginning, or the whole."""
        source, head = self._source, self._head
        with closing(Source(path)) as original:
            if file_copies.prefix_of(source, original, 0, cursor.bytes):
                return KnownContent(cursor)
        if not FileCursor.is_distinctive(head[: cursor.bytes]):
            return None
        if cursor.holds_all(source, head, self._files.label) is None:
            return None
        start = file_copies.sharing(
            source, self._fresh(), cursor, head, cursor.bytes, source.size, self._released
        )
        note = f"its first {cursor.bytes:,} bytes are those of {cursor.name} and not stored again"
        return replace(start, note=note) if isinstance(start, Start) else start

    def _fresh(self) -> FileCursor:
        return self._files.index.new_cursor(self._source, self._head, self._files.label)


def _is_certain(decision: FileDecision, head: bytes) -> bool:
    """Whether a file is that of another cursor, or a copy of it, by distinctive file_copies."""
    if not isinstance(decision, Start | FileCopy):
        return False
    is_old = isinstance(decision, FileCopy) or decision.replaced or decision.cursor.shares
    return bool(is_old) and FileCursor.is_distinctive(head[: decision.cursor.bytes])
