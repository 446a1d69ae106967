"""The tail: events in the WALs of a branch that its head does not have yet (FORMAT.md, section 12).

`collect` lists and reads WAL files first and looks for the head afterwards, so that a frame that is
sealed in between is seen in both, never in neither (F12.2). Of each writer the frames above its
watermark count, each sequence once, contiguous (F12.4). A writer without a watermark counts from
the first sequence of its oldest file: earlier frames were sealed and trimmed, and the watermark
omitted. If a file of such a writer vanished since it was read, the read starts over (F12.3).
What was read of a file stays in memory, so that a follower reads only what is new: finished files
are not opened again, and where nothing changed, the very same PendingFrames comes back. Frames that
were read together share their memory, until all of them are sealed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from lakelog.disk import File, Folder, NotRegular
from lakelog.errors import DamagedRef, DamagedWal, LakelogError, UnknownRef
from lakelog.paths import FileName, Paths
from lakelog.refs import Head, Refs
from lakelog.runtime.lazy import LazyProperty
from lakelog.runtime.locks import OrderedLock, Rank
from lakelog.wal import batching
from lakelog.wal import frames as wal

_PIECE = 1 << 16
_PATIENCE = 3
"""A gap that is there at this many looks at an unchanged head is damage (F12.4)."""


@dataclass
class WalFile:
    """One WAL file as far as it was read; the members are those of `wal.Scan`."""

    path: str
    writer: str
    n: int
    header: wal.Header | None = None
    frames: list[wal.Frame] = field(default_factory=list)
    end: int = 0
    ended: bool = False
    torn: int = 0
    damage: int | None = None
    resumed: tuple[wal.Frame, ...] = ()
    final: int | None = None
    inode: int = 0
    size: int = 0
    """Bytes that were looked at, the space after the frames included."""

    @property
    def last(self) -> int:
        """The highest sequence read, -1 if none."""
        return self.frames[-1].sequence if self.frames else -1

    @property
    def used(self) -> int:
        """Bytes of it that were written, without the space after them."""
        return self.intact + self.torn

    @property
    def intact(self) -> int:
        """Bytes up to the last good frame, or END after it."""
        return self.end + (wal.END_BYTES if self.ended else 0)

    @staticmethod
    def start_time(files: list[WalFile]) -> int:
        """When a writer started, in microseconds: writers are sealed in that order (F12.5)."""
        return min((f.header.started for f in files if f.header), default=0)

    @staticmethod
    def pick(files: list[WalFile], mark: int) -> tuple[list[wal.Frame], bool]:
        """Return one writer's frames above `mark`, and whether nothing is missing among them.

        A sequence that a later file's header calls doubtful may be absent. Without a watermark
        (-1) the count starts where the oldest file does (F12.4).
        """
        frames: dict[int, wal.Frame] = {}
        doubtful: set[int] = set()
        oldest = files[0].header
        if mark < 0 and oldest is not None:
            mark = oldest.first - 1
        highest = mark
        for file in files:
            # Without it nobody knows which sequences may be absent.
            if file.header is None:
                return _contiguous(frames, mark, doubtful)[0], False
            doubtful.update(file.header.doubtful)
            for frame in (*file.frames, *file.resumed):
                # The first file wins: the next one repeats a frame whose sync failed (F9.5).
                if frame.sequence > mark:
                    frames.setdefault(frame.sequence, frame)
            # Also what is not there: the start of a file proves that all before it was synced.
            highest = max(highest, file.header.first - 1)
            if file.damage is not None and not file.resumed:
                unknown = max(mark, file.last, file.header.first - 1) + 1
                highest = max(highest, unknown if file.final is None else file.final)
        chosen_frames, newest = _contiguous(frames, mark, doubtful)
        return chosen_frames, newest >= max([highest, *frames])

    @staticmethod
    def required_watermark(files: list[WalFile]) -> int:
        """Return the last sequence that must be sealed before a writer's oldest file, or -1."""
        header = files[0].header
        watermark = header.first - 1 if header is not None else -1
        # A doubtful frame may never have been written, so no watermark has to reach it.
        while header is not None and watermark in header.doubtful:
            watermark -= 1
        return watermark


@dataclass(frozen=True)
class PendingFrames:
    """A consistent pair: a head, and each writer's frames above it in order."""

    head: Head
    frames: dict[str, list[wal.Frame]]
    files: dict[str, list[WalFile]]

    @classmethod
    def above(cls, head: Head, files: dict[str, list[WalFile]]) -> PendingFrames:
        """Return what of files that were read is above the watermarks of a head: of each writer
        what follows on its watermark."""
        marks = head.move.wal
        frames = {w: WalFile.pick(group, marks.get(w, -1))[0] for w, group in files.items()}
        return cls(head, frames, files)

    def batches(self, rows_max: int) -> Iterator[dict[str, list[wal.Frame]]]:
        """Yield by writer the frames that each of the next segments would take, of so many rows at
        most, if nothing else arrived."""
        return batching.batches(self.frames, self.starts, rows_max)

    @LazyProperty
    def starts(self) -> dict[str, int]:
        """When each writer began (us)."""
        return {writer: WalFile.start_time(self.files[writer]) for writer in self.frames}

    @LazyProperty
    def events(self) -> int:
        """Events in the tail, before any dedupe; quarantined lines left out."""
        flagged = wal.Frame.QUARANTINED
        return sum(f.events for fs in self.frames.values() for f in fs if not f.flags & flagged)

    @LazyProperty
    def bytes(self) -> int:
        """JSON bytes in the tail."""
        return sum(f.raw for fs in self.frames.values() for f in fs)

    @LazyProperty
    def has_keys(self) -> bool:
        """Whether some event of the tail may have an identity key."""
        return any(f.flags & wal.Frame.KEYED for fs in self.frames.values() for f in fs)

    @LazyProperty
    def has_versions(self) -> bool:
        """Whether some event of the tail may have a version of its stream."""
        return any(f.is_versioned for fs in self.frames.values() for f in fs)

    @LazyProperty
    def finished_files(self) -> int:
        """Files that their writers have ended."""
        return sum(file.ended for files in self.files.values() for file in files)

    def watermark(self, writer: str) -> int:
        """The watermark of a writer: the last sequence that is sealed, -1 for none."""
        return self.head.move.wal.get(writer, -1)

    @staticmethod
    def sealed_ranges(frames: dict[str, list[wal.Frame]]) -> dict[str, list[int]]:
        """Return {writer: [first, last sequence]} of picked frames."""
        return {w: [fs[0].sequence, fs[-1].sequence] for w, fs in frames.items() if fs}


@dataclass(frozen=True)
class _Selection:
    """The frames of a writer above its watermark (`pending`), for which state of its files (`key`),
    and how many `frames` of the newest file were considered (`count`)."""

    key: tuple[int, int, int, int | None]
    frames: list[wal.Frame]
    count: int
    pending: list[wal.Frame]

    def extend(self) -> list[wal.Frame] | None:
        """What is pending now that the newest file grew; None if that does not follow on it."""
        fresh = self.frames[self.count :]
        start = (self.pending[-1].sequence if self.pending else self.key[0]) + 1
        if [f.sequence for f in fresh] != list(range(start, start + len(fresh))):
            return None
        return [*self.pending, *fresh] if fresh else self.pending


class Tail:
    """Reads the WAL files of one branch, each byte once."""

    ATTEMPTS: ClassVar[int] = 100
    """Looks at files that seals and trims change meanwhile. Each further one needs both at just the
    right moment, so this is never reached by chance."""

    def __init__(self, paths: Paths, refs: Refs, branch: str) -> None:
        self._paths, self._refs, self._branch = paths, refs, branch
        self._files: dict[str, WalFile] = {}
        self._grouped: dict[str, list[WalFile]] = {}
        self._listed: list[str] | None = None
        self._growing: list[WalFile] = []
        """The files that may have changed when they are looked at again."""
        self._changes = self._exchanges = 0
        self._last: tuple[int, PendingFrames] | None = None
        self._selections: dict[str, _Selection] = {}
        self._sealed_starts: set[tuple[str, int]] = set()
        self._mutex = OrderedLock(Rank.TAIL)

    def collect(self) -> PendingFrames:
        """Return head and tail. Raises DamagedWal, DamagedRef, UnknownRef."""
        with self._mutex.hold_once():
            return self._collect()

    def _collect(self) -> PendingFrames:
        gaps: dict[int, int] = {}
        for _ in range(self.ATTEMPTS):
            files = self._scan()
            head = self._refs.head(self._branch)
            if self._refs.exchanges != self._exchanges:
                # In an older copy of the lake files that were read to their end may be shorter.
                self._exchanges = self._refs.exchanges
                self._forget()
                continue
            if self._last and self._last[0] == self._changes and self._last[1].head == head:
                return self._last[1]  # nothing was sealed since its files were seen
            if not self._still_there(files, head):
                continue
            selections = {w: self._pick(w, fs, head.move.wal.get(w, -1)) for w, fs in files.items()}
            # A gap is not damage yet: the frames may have been sealed and trimmed while the files
            # were read one after another. Then the head moves on.
            broken = [
                w
                for w, (_, whole) in selections.items()
                if not whole or not self.start_is_known(files[w], head)
            ]
            if not broken:
                self._drop_sealed(head)
                frames = {w: f for w, (f, _) in selections.items() if f}
                self._last = self._changes, PendingFrames(head, frames, files)
                return self._last[1]
            number = head.move.number
            gaps[number] = gaps.get(number, 0) + 1
            if gaps[number] >= _PATIENCE:
                raise self._damage(files[broken[0]], head.move.wal.get(broken[0], -1))
        raise DamagedWal(self._paths.wal_dir(self._branch), "no stable state after 100 reads")

    def scan(self) -> dict[str, list[WalFile]]:
        """Read what is new in every file; return them by writer, in order."""
        with self._mutex.hold_once():
            return self._scan()

    @contextlib.contextmanager
    def read_ahead(self, *, is_wanted: bool) -> Iterator[None]:
        """Read the files, if `is_wanted`, while this thread does what takes as long in native code.

        What goes wrong meanwhile `collect` meets again.
        """

        def read() -> None:
            with contextlib.suppress(LakelogError, OSError):
                self.scan()

        thread = threading.Thread(target=read, daemon=True)
        with contextlib.suppress(RuntimeError):  # the system has no more threads
            if is_wanted:
                thread.start()
        try:
            yield
        finally:
            if thread.ident is not None:  # whoever forks next must not meet it
                thread.join()

    def forget(self) -> None:
        """Clear the cache of what was read."""
        with self._mutex.hold_once():
            self._forget()

    def _forget(self) -> None:
        self._files.clear()
        self._selections.clear()
        self._listed = self._last = None

    def _scan(self) -> dict[str, list[WalFile]]:
        try:
            return self._read_files()
        except BaseException:
            # Ctrl-C: a file of which only some was noted would lack frames from here on.
            self._forget()
            raise

    def _read_files(self) -> dict[str, list[WalFile]]:
        # A directory that did not change is listed in the same order, so its names, of which there
        # may be thousands, need neither be hashed nor sorted.
        names = Folder(self._paths.wal_dir(self._branch)).names()
        if names != self._listed:
            self._group(names)
        growing = self._growing
        for file in growing:
            state = file.inode, file.end
            if not self._advance(file):
                names.remove(os.path.basename(file.path))
                self._group(names)
                self._listed = None  # it vanished meanwhile: what was listed is no longer true
            self._changes += state != (file.inode, file.end)
        self._growing = [f for f in self._growing if not _is_complete(f)]
        return self._grouped

    def _group(self, names: list[str]) -> None:
        """Group the files of a listing by writer, in order, with what was read of them before."""
        directory = self._paths.wal_dir(self._branch)
        files: dict[str, WalFile] = {}
        grouped: dict[str, list[WalFile]] = {}
        for name in sorted(names):
            file = self._files.get(name)
            if file is None and (parsed := FileName(name).wal):
                file = WalFile(f"{directory}/{name}", *parsed)
            if file is not None:
                files[name] = file
                grouped.setdefault(file.writer, []).append(file)
        self._files, self._grouped, self._listed = files, grouped, names
        self._growing = [file for file in files.values() if not _is_complete(file)]
        self._selections = {
            w: selection for w, selection in self._selections.items() if w in grouped
        }
        self._changes += 1

    def _pick(self, writer: str, files: list[WalFile], mark: int) -> tuple[list[wal.Frame], bool]:
        """Pick a writer's frames as `pick` does, but only consider new ones if nothing happened to
        its files except that the newest grew."""
        previous, newest = self._selections.pop(writer, None), files[-1]
        # `_drop_sealed` and a replaced file make a new list of frames, so the same list has grown.
        key = (mark, len(files), newest.inode, newest.damage)
        longer = None
        if previous is not None and previous.key == key and previous.frames is newest.frames:
            longer = previous.extend()
        pending, whole = WalFile.pick(files, mark) if longer is None else (longer, True)
        if whole and newest.damage is None:
            self._selections[writer] = _Selection(key, newest.frames, len(newest.frames), pending)
        return pending, whole

    def _advance(self, file: WalFile) -> bool:
        """Read on in a file; False if it vanished."""
        try:
            fd = File(file.path).open()
        except FileNotFoundError:
            return False
        except NotRegular as error:
            raise DamagedWal(file.path, str(error)) from None
        try:
            status = os.fstat(fd)
            # Repair and a hot copy put another file in its place: what was read is not of that.
            if status.st_ino != file.inode:
                fresh = WalFile(file.path, file.writer, file.n, inode=status.st_ino)
                file.__dict__.update(fresh.__dict__)
            if not file.ended and status.st_size > file.end:
                _read_on(file, fd, status.st_size)
        finally:
            os.close(fd)
        return True

    def _still_there(self, files: dict[str, list[WalFile]], head: Head) -> bool:
        """Whether every file of a writer without a watermark still exists (F12.3)."""
        for writer, group in files.items():
            if writer not in head.move.wal and not all(File(f.path).exists() for f in group):
                return False
        return True

    def start_is_known(self, files: list[WalFile], head: Head) -> bool:
        """Whether some kept move says that all before a writer's oldest file was sealed (F12.4)."""
        watermark = WalFile.required_watermark(files)
        start = (files[0].writer, watermark)
        if start[0] in head.move.wal or watermark < 0 or start in self._sealed_starts:
            return True
        # Newest first: the watermark was omitted only a few moves ago. A damaged move is skipped,
        # as any other one may say it too.
        for number in reversed(self._refs.numbers(self._branch)):
            with contextlib.suppress(DamagedRef, UnknownRef):
                if self._refs.read(self._branch, number).wal.get(start[0], -1) >= watermark:
                    self._sealed_starts.add(start)
                    return True
        return False

    def _drop_sealed(self, head: Head) -> None:
        """Drop the payload of sealed frames, so that a reader's memory is that of the tail."""
        for file in self._files.values():
            mark = head.move.wal.get(file.writer, -1)
            # The last frame stays, for `last` says up to which sequence the file goes.
            if file.frames and file.frames[0].sequence <= mark:
                pending = [f for f in file.frames if f.sequence > mark]
                file.frames = pending or [file.frames[-1].alone()]
                self._selections.pop(file.writer, None)

    def _damage(self, files: list[WalFile], mark: int) -> DamagedWal:
        for file in files:
            if file.header is None:
                return DamagedWal(file.path, "its header is damaged", 0)
            if file.damage is not None:
                return DamagedWal(file.path, "a frame is damaged", file.damage)
        for file, follows in itertools.pairwise(files):
            if follows.header and follows.header.first > max(file.last, mark) + 1:
                return DamagedWal(file.path, f"frames after {file.last} are missing", file.end)
        return DamagedWal(files[0].path, f"frames above {mark} and before it are missing", 0)


def _contiguous(
    frames: dict[int, wal.Frame], mark: int, doubtful: set[int]
) -> tuple[list[wal.Frame], int]:
    run, sequence = [], mark + 1
    while sequence in frames or sequence in doubtful:
        if sequence in frames:
            run.append(frames[sequence])
        sequence += 1
    return run, sequence - 1


def _is_complete(file: WalFile) -> bool:
    """Whether a file stays as it was read: nothing follows END, and no name is used again."""
    return file.ended and file.damage is None


def _read_on(file: WalFile, fd: int, size: int) -> None:
    """Read what was written after what was read before, up to byte `size`."""
    # The space of a file that did not grow was looked at before: it is not read as far as it goes.
    is_known = file.header is not None and file.size == size and file.damage is None
    length = _PIECE if is_known else size
    while file.end < size and not file.ended:
        # But what was torn is looked at again: it may stand behind the beginning of the space.
        if is_known and not file.torn and wal.is_space(os.pread(fd, wal.SPACE_BYTES, file.end)):
            break
        start = file.end
        _take(file, os.pread(fd, min(length, size - start), start))
        if start + length >= size:
            break
        if file.end == start:
            length *= 8
    # Frames that were written while a reader passed over them look as if one before were damaged.
    # All of them are there at the next look, which begins after the last of them was seen.
    suspected = -1
    while file.damage is not None and file.damage != suspected:
        suspected = file.damage
        _take(file, os.pread(fd, size - file.end, file.end))
    file.size = size


def _take(file: WalFile, data: bytes) -> None:
    """Add newly read bytes to what was read of a file before."""
    if file.header is None:
        decoded = wal.Header.decode(data)
        # Damage, which `pick` reports: a file appears with its header (F3.11).
        if decoded is None or not decoded[0].is_of(file.path):
            return
        file.header, file.end = decoded
        scan = wal.scan(data, 0, file.writer, file.end)
    else:
        scan = wal.scan(data, file.end, file.writer)
    file.frames.extend(scan.frames)
    file.end, file.ended, file.torn = scan.end, scan.ended, scan.torn
    file.damage, file.resumed, file.final = scan.damage, scan.resumed, scan.final
    if not file.frames and file.damage is None:
        file.damage = file.end  # a file appears with its first frame, so that is never torn (F3.11)
