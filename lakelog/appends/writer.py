"""The writer: group commit into WAL files, durable when `append` returns (F9.2).

One frame, with one sync, has the lines of all threads that wait (group_commit.py). No other process
is ever waited for. After a failed write or sync the file is poisoned: it is never touched again,
and the same batch goes under the same sequence into the next file (F9.5).
`fork` is safe: the child drops buffers and waiting callers and becomes a writer of its own.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import zstandard

from lakelog.appends import writer_forks
from lakelog.appends.group_commit import AppendBatch, GroupCommit
from lakelog.appends.receipt import Receipt
from lakelog.appends.stream_versions import StreamVersions, VersionedBatch
from lakelog.disk import File, Folder, OpenFile, disk
from lakelog.errors import LakelogError, UnknownRef
from lakelog.event import EncodedBatch
from lakelog.paths import FORMAT, PLAIN_FORMAT, FileNames
from lakelog.refs import BranchLife
from lakelog.store import Clock, Hosts, SealerProcess, Store
from lakelog.wal import END_BYTES, Frame, Header, Tail, encode_end, encode_frame, space_after

# Appending must not cost the program more than writing the bytes; sealing compresses again.
_LEVEL = 1


class Writer(GroupCommit):
    """One process's writer on one branch; safe for threads. Make one per open lake."""

    _ignored = contextlib.suppress(Exception)

    def __init__(self, store: Store, branch: str, life: BranchLife | None = None) -> None:
        super().__init__()
        self._store, self._branch, self._life = store, branch, life
        self._helper: Any = None
        self.seal_due = False  # with seal=inline: whoever appends should seal now
        self._reset()
        writer_forks.register(self)

    def append(self, encoded: EncodedBatch, flags: int = 0, retries: bool = False) -> Receipt:
        """Store lines durably, or raise WriterClosed, ReentrantAppend, LakeReplaced or OSError.

        A caller that `retries` stores lines that failed again before any others: they are there
        once, also where the attempt that failed has left them (F3.10).
        """
        if encoded.keyed:
            flags |= Frame.KEYED
        return self._as_caller(self._append_lines, encoded, flags, retries)

    def _append_lines(self, encoded: EncodedBatch, flags: int, retries: bool) -> Receipt:
        places = []
        # Each frame is durable by itself: of a long batch that fails the beginning may stay.
        for content, events in Frame.split_text(encoded.text, len(encoded.ids)):
            batch = AppendBatch(content, events, flags, retries)
            self._commit(batch)
            places.append(range(batch.position, batch.position + events))
        return Receipt(encoded.ids, self.name, places)

    def append_versions(self, encoded: EncodedBatch, expect: Mapping[str, int]) -> Receipt:
        """Store lines as the next versions of the streams in `expect`, durably and all or nothing.

        Raises WrongVersion, InvalidEvent, and what `append` does.
        """
        if self._store.attachment is not None:
            publish = self._store.attachment.append_versions
            receipt: Receipt = publish(self._store, self._branch, encoded, expect)
            return receipt
        return self._as_caller(self._append_group, VersionedBatch(encoded, expect), encoded.ids)

    def _append_group(self, batch: VersionedBatch, ids: list[str | None]) -> Receipt:
        self._commit(batch)
        place = range(batch.position, batch.position + batch.events)
        return Receipt(batch.ids_with(ids), self.name, [place], batch.upto)

    @property
    def is_opening(self) -> bool:
        """Whether the next frame begins a file, which takes three syncs instead of one."""
        return self._fd < 0 or self._is_due

    def retire(self) -> None:
        """Finish the newest file and go on as another writer, unless an append is running: what is
        sealed of the file can then be trimmed before the next append."""
        with self._mutex.hold():
            if not (self._inside or self._busy or self._doubtful or self._closed):
                self._let_go()
                self._reset()

    def _let_go(self) -> None:
        self._finish()
        self._clock.close()
        self._unlock_abandoned()
        self._versions.close()

    def __del__(self) -> None:
        """Free the descriptors of a lake that nobody closed; its file is then a dead writer's."""
        for fd in (getattr(self, "_fd", -1), *getattr(self, "_abandoned", ())):
            if fd >= 0:
                with self._ignored:  # at the end of a process contextlib may be gone
                    OpenFile(fd).close()

    def _reset(self) -> None:
        self._host = Hosts.own_name()
        self.name = Hosts.new_writer(self._host)
        """The id of this writer: the origin of its events."""
        self._n, self._sequence, self.position, self._last = 0, 0, 0, -1
        self._is_protected = False  # whether a file of ours keeps the branch from being deleted
        self._doubtful: list[int] = []
        self._failed = b""  # the lines of the last of them
        self._is_in_doubt = False  # whether a file with a name may have the frame
        self._fd, self._end, self._size = -1, 0, 0  # of the newest file, its space included
        self._path, self._file = "", (0, 0)
        self._config: tuple[int, int, int] | None = None  # lakelog.json as it was last seen
        self._abandoned: list[int] = []
        self._raw, self._events, self._opened, self._is_due = 0, 0, 0.0, False
        store = self._store  # alone: the clock must not keep the writer alive
        self._clock = Clock(store.paths.clock, lambda: _newest_stamp(store))
        self._versions = StreamVersions(self._store, self._branch)
        self._format, self._file_format = PLAIN_FORMAT, 0
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)

    def _write(self, group: list[AppendBatch]) -> None:
        if group[0].flags & Frame.VERSIONED:
            self._write_versions(group)
        else:
            self._write_group(group)

    def _write_versions(self, group: list[AppendBatch]) -> None:
        """Make a group that expects versions durable, under the lock of streams."""
        versions = self._versions
        with versions:
            with self._mutex.hold():  # those who came while we waited
                self._take_group(group)
            accepted = [b for b in group if isinstance(b, VersionedBatch) and versions.number(b)]
            if accepted:
                if self._file_format < FORMAT:  # the header of its file does not say so
                    self._format, self._is_due = FORMAT, True
                versions.begin()
                self._write_group(accepted)
                versions.end()

    def _write_group(self, group: Sequence[AppendBatch]) -> None:
        """Make the group durable as one frame, then count it."""
        lines = group[0].text if len(group) == 1 else b"\n".join([b.text for b in group])
        events = sum([batch.events for batch in group])
        flags, stamp = group[0].flags, self._clock.stamp()
        is_retry = group[0].retries and lines == self._failed
        if is_retry:  # a sequence that is in two files counts once
            self._sequence, self.position = self._doubtful.pop(), self.position - events
        self._failed = b""
        place = events, self._sequence, flags, self.position, stamp, self._compressor
        frame = encode_frame(lines, *place, keys=self._store.paths.keys)
        raw, position = len(lines) + 1, self.position
        try:
            self._store_frame(frame)
            # After the sync, before a caller returns: who sees the event may append a later one.
            self._clock.advance(stamp)
        except BaseException:
            self._doubt(lines, events, is_retry)
            raise
        # No call in between, where Ctrl-C is seen: nobody would read a second frame of a sequence.
        self._last, self._sequence = self._sequence, self._sequence + 1
        self.position += events
        self._raw += raw
        self._events += events
        for batch in group:
            batch.position = position
            position += batch.events
        if not self._is_due and self._is_full():
            self._rotate()

    def _store_frame(self, frame: bytes) -> None:
        """Write and sync one frame; on failure poison the file and use the next one, once."""
        if not self._is_as_left():
            # What is cut may be read up to the cut alone: the next file has what comes.
            self._is_due = True
            self._fd = self._fd if self._is_ours() else -1
        self._is_in_doubt = self._fd >= 0 and not self._is_due
        if self._is_in_doubt:
            try:
                stop = self._end + len(frame)
                space, zeros = space_after(stop, self._size, len(frame))
                os.lseek(self._fd, self._end, os.SEEK_SET)
                OpenFile(self._fd).write_blocks(frame + space, zeros)
                OpenFile(self._fd).sync()
                self._end, self._size = stop, max(self._size, stop + len(space) + zeros)
                # No name any more: somebody took this writer for dead, where locks do not exclude,
                # and trimmed the file with the frame that was just written. Its path comes first
                # (who reads the times of a file makes the next write set them anew: a slow sync).
                has_name = os.access(self._path, os.F_OK) or os.fstat(self._fd).st_nlink > 0
                # Afterwards, as repair replaces lakelog.json before it puts another file there.
                self._require_lake()
                if has_name:
                    return
            except OSError:
                pass
            # Not synced again: the kernel may have marked the lost pages clean (F9.5).
            self._poison()
        self._open_next(frame)
        self._doubtful = []

    def _is_as_left(self) -> bool:
        """Whether the descriptor is that of the newest file, which has its size."""
        # Without its identity, for whoever reads the times of a file slows the next sync.
        with contextlib.suppress(OSError):
            return self._fd >= 0 and os.lseek(self._fd, 0, os.SEEK_END) == self._size
        return False

    def _is_ours(self) -> bool:
        """Whether the descriptor is that of the newest file, whatever its size: a program that
        becomes a daemon closes all that it has, and what it opens next gets their numbers."""
        with contextlib.suppress(OSError):
            return self._fd >= 0 and OpenFile(self._fd).identity() == self._file
        return False

    def _open_next(self, frame: bytes) -> None:
        """Create the next file whole, with its header and first frame, and lock it (F3.11)."""
        self._require_lake()
        self._store.raise_format(self._format)
        self._store.make_branch_dirs(self._branch)
        paths = self._store.paths
        folder = Folder(paths.wal_dir(self._branch))
        header = Header(
            self._store.lake_id,
            self._branch,
            self.name,
            self._n,
            self._sequence,
            tuple(self._doubtful),
            self._host,  # by which the id ends, whatever the machine is called by now
            os.getpid(),
            disk.now_us(),
        )
        path, name = folder.temporary_path(), paths.wal(self._branch, self.name, self._n)
        fd, linked = File(path).open_new(), False
        try:
            identity = OpenFile(fd).identity()
            # Without space: most writers write one frame and are gone.
            new, keyed = self._format == FORMAT, bool(paths.keys)
            data = header.encode(is_versioned=new, is_encrypted=keyed) + frame
            OpenFile(fd).write(data)
            OpenFile(fd).sync()
            # Locked before it has a name: a file that can be locked counts as a dead writer's.
            OpenFile(fd).lock()
            self._is_in_doubt = True
            File(path).link(name)
            linked = True
            folder.sync()
            # Only now: a deletion that did not see this file has ended the branch by now, and one
            # that comes later sees the lock and refuses.
            if self._life and not self._is_protected:
                self._life.require(self._store.refs, self._branch)
            self._is_protected = True
        # Nothing was acknowledged, and in this branch nobody would ever seal it.
        except UnknownRef:
            File(name).remove()
            OpenFile(fd).close()
            raise
        # Linked but not synced, the frame may be read or vanish: it becomes doubtful, and this
        # file stays locked until the next one is there. It stands for those abandoned before.
        except BaseException:
            if linked:
                self._unlock_abandoned()
                self._abandoned.append(fd)
                self._path = name
            else:
                OpenFile(fd).close()
            raise
        finally:
            with contextlib.suppress(OSError):
                File(path).remove()
        # The old files are ended and unlocked last: a living writer always has a locked file, so
        # nobody omits its watermark (F7.6).
        self._unlock_abandoned()
        self._finish()
        self._clock.reopen()
        self._fd, self._path, self._n, self._is_due = fd, name, self._n + 1, False
        self._file = identity
        self._file_format = self._format
        self._raw, self._events, self._opened = 0, 0, time.monotonic()
        self._end = self._size = len(data)
        if self._n == 1 and self._store.settings.seal != "never":
            self._seal_if(SealerProcess(self._store, self._branch).is_worth_it())

    def require_lake(self) -> None:
        """Refuse to go on where another lake, or a copy of ours, took the place of ours, also
        while another thread appends. Raises LakeReplaced."""
        if File(self._store.paths.config).identity() != self._config:
            self._store.require_same_lake(self._path, (self._fd, *self._abandoned))

    def _require_lake(self) -> None:
        """Refuse the same; let the next frame begin a file where lakelog.json was replaced."""
        # The times of lakelog.json may be read at every commit: no sync waits for them.
        config = File(self._store.paths.config).identity()
        if config != self._config:
            self._store.require_same_lake(self._path, (self._fd, *self._abandoned))
            # An erasure replaces it, so that no writer keeps a file with what was erased (F23.5).
            self._is_due = self._is_due or self._config is not None
            self._config = config

    def _doubt(self, lines: bytes, events: int, is_retry: bool) -> None:
        """Both attempts failed: the frame may be there or not. Name it in the next file (F3.10) and
        use up its numbers, so that no other frame has them."""
        if self._is_in_doubt:
            self._poison()
            self._n += 1
        elif not is_retry:
            return  # nobody can ever read it, and a full disk must not make headers long
        self._doubtful.append(self._sequence)
        self._failed = lines
        self._sequence += 1
        self.position += events

    def _poison(self) -> None:
        """Abandon a file after a failed write or sync; never touch it again.

        It stays locked until the next file is there, which repeats its last frame: until then
        nobody may take this writer for dead and trim what was sealed of it.
        """
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._abandoned.append(fd)

    def _unlock_abandoned(self) -> None:
        """Close abandoned files, which drops their locks."""
        while self._abandoned:  # taken out first: an interrupt must not close a number twice
            with contextlib.suppress(OSError):
                OpenFile(self._abandoned.pop()).close()

    def _is_full(self) -> bool:
        limits, age = self._store.settings, time.monotonic() - self._opened
        is_large = self._raw >= limits.rotate_bytes or self._events >= limits.rotate_events
        return is_large or age >= limits.rotate_seconds

    def _rotate(self) -> None:
        """Let the next group create the next file; start a sealer if files have piled up.

        Until that file is there this one stays locked: a living writer always has a file, so its
        watermark is never left out, and nobody takes what was sealed for unsealed.
        """
        self._is_due = True
        if self._store.settings.seal != "never":
            names = Folder(self._store.paths.wal_dir(self._branch)).names()
            self._seal_if(sum(p[0] == self.name for p in FileNames(names).wals) > 2)

    def _seal_if(self, due: bool) -> None:
        """Ask for a sealer, in this process or in one of its own, of which one runs at a time."""
        if due:
            self.seal_due = self._store.settings.seal == "inline"
            if not self.seal_due and (self._helper is None or self._helper.poll() is not None):
                self._helper = SealerProcess(self._store, self._branch).start()

    def _finish(self) -> None:
        """Append END, give the space back and drop the lock. Nothing is synced: a file is valid
        without END, and with space (F3.7)."""
        is_ours = self._is_ours()
        fd, self._fd = self._fd, -1  # first, as above
        if not is_ours:
            return
        # Also where the file was cut: END behind what is missing tells that it is no torn end.
        with contextlib.suppress(OSError):
            os.lseek(fd, self._end, os.SEEK_SET)
            OpenFile(fd).write(encode_end(self._last))
            if self._size > self._end + END_BYTES:
                OpenFile(fd).truncate(self._end + END_BYTES)
        with contextlib.suppress(OSError):
            OpenFile(fd).close()

    def after_fork_in_child(self) -> None:
        """Close without unlocking, forget the parent's callers, be a new writer."""
        self._forget_callers()
        self._helper = None
        # A flock belongs to the open file that parent and child share: closing our descriptor
        # leaves it with the parent, unlocking would take it from both.
        self._poison()
        self._unlock_abandoned()
        self._versions.close()
        self._reset()


def _newest_stamp(store: Store) -> int:
    """The highest `ingested_at` of the frames that are not sealed yet, on any branch, or 0."""
    highest = 0
    # A branch that cannot be read must not keep others from being appended to.
    for branch in store.refs.all_branches():
        with contextlib.suppress(OSError, LakelogError):
            for frames in Tail(store.paths, store.refs, branch).collect().frames.values():
                highest = max(highest, *(frame.ingested_at for frame in frames))
    return highest
