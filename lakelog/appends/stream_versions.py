"""Versions of streams: which version a subject has on a branch, and the next ones (F13.6 to F13.8).

A version is known by the identity keys of the state and by the frames above it; `stream_marks` has
those that were given lately, so that an append to a hot stream reads neither. Everything here is
done under the lock of the branch (`stream_lock`), which is held until the frame is durable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping

from lakelog.appends.group_commit import AppendBatch
from lakelog.appends.known_keys import KnownKeys
from lakelog.appends.stream_lock import StreamLock
from lakelog.appends.stream_marks import MarkedState, StreamMarks
from lakelog.appends.versioned import StreamSubject, subject_of
from lakelog.disk import File, Folder, OpenFile
from lakelog.entries import IdRun
from lakelog.errors import InvalidEvent, LakelogError, WrongVersion
from lakelog.event import EncodedBatch
from lakelog.refs import Head
from lakelog.store import Store
from lakelog.wal import Frame, PendingFrames, Tail

BYTES_MAX, EVENTS_MAX, VERSION_MAX = 16 << 20, 65_536, 1 << 62
"""Of one append with expected versions: it is one frame, so that all of it is there or nothing."""
_HARMLESS = frozenset("seal ingest compact maintain subscription snapshot state".split())
"""Moves that give no version and take none away."""
_MOVES_MAX = 64
"""After more moves than these the marks begin anew."""


class VersionedBatch(AppendBatch):
    """Lines of a caller that expects versions of their subjects."""

    __slots__ = ("expect", "lines", "names", "upto", "versions")

    def __init__(self, encoded: EncodedBatch, expect: Mapping[str, int]) -> None:
        """Raises InvalidEvent for a version that cannot be expected, where a subject has no event,
        and where all of it is too large."""
        count = len(encoded.ids)
        if len(encoded.text) > BYTES_MAX or count > EVENTS_MAX:
            raise InvalidEvent(
                f"an append with expected versions is all or nothing, so it has at most"
                f" {EVENTS_MAX:,} events and {BYTES_MAX >> 20} MB: divide it"
            )
        super().__init__(encoded.text, count, Frame.KEYED | Frame.VERSIONED)
        self.lines = encoded.text.split(b"\n") if encoded.text else []
        self.expect = _checked(expect)
        subject, *further = self.expect
        # Without parsing the line where it surely has the one subject that is expected.
        if count == 1 and not further and subject.is_of(encoded.text):
            self.names = [subject.name]
        else:
            self.names = [subject_of(line) for line in self.lines]
        for subject in self.expect:
            if subject.name not in self.names:
                raise InvalidEvent(f"expect names {subject.label}, but no event has that subject")
        # The version of each event, 0 of those whose subject is not in `expect`; the last of each.
        self.versions, self.upto = list[int](), dict[str, int]()

    def number(self, last_version: Callable[[StreamSubject, int], int]) -> bool:
        """Give the events their versions, unless one is not as expected: then there is a `refusal`.
        `last_version` returns that of a subject now, and is told the one that is expected."""
        for subject, expected in self.expect.items():
            actual = last_version(subject, expected)
            if actual != expected:
                self.refusal = WrongVersion(subject.name, expected, actual)
                return False
        # Most appends have one event, and the way of several would make each 3 % longer.
        if len(self.lines) == 1:
            ((subject, expected),) = self.expect.items()
            version = expected + 1
            self.text, self.versions = subject.line(self.lines[0], version), [version]
            self.upto = {subject.name: version}
            return True
        subjects = {subject.name: subject for subject in self.expect}
        upto = {subject.name: version for subject, version in self.expect.items()}
        lines, self.versions = list[bytes](), []
        for name, line in zip(self.names, self.lines, strict=True):
            version = 0
            if name in upto:
                upto[name] = version = upto[name] + 1
                line = subjects[name].line(line, version)
            lines.append(line)
            self.versions.append(version)
        self.text, self.upto = b"\n".join(lines), upto
        return True

    def ids_with(self, ids: list[str | None]) -> list[str | None]:
        """Return ids that were given, and of other versioned events their origin and version."""
        return [
            own_id or (f"{StreamSubject.ORIGIN}{name}:{version}" if version else None)
            for own_id, name, version in zip(ids, self.names, self.versions, strict=True)
        ]


class StreamVersions:
    """The versions of the streams of one branch, for one writer: `with` it, no other gives any."""

    def __init__(self, store: Store, branch: str) -> None:
        self._store, self._branch = store, branch
        paths = store.paths
        self._lock, self._keys = StreamLock(store, branch), KnownKeys(store)
        name = paths.head_dir(branch).rpartition("/")[2]
        self._marks = StreamMarks(paths.stream_marks, f"{paths.stream_marks}/{name}")
        self._pending = _PendingVersions(store, branch)
        self._head: Head | None = None
        self._runs: tuple[Head, tuple[IdRun, ...]] | None = None
        self._has_marks = self._is_whole = False
        self._fresh: dict[bytes, int] = {}

    def __enter__(self) -> None:
        """Take the lock of the branch, with marks that are right. Raises UnknownRef, Damaged."""
        self._fresh = {}
        try:
            self._lock.acquire()
            self._settle()
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def begin(self) -> None:
        """Note that a frame with versions is about to be written."""
        if self._has_marks:
            self._marks.begin()

    def end(self) -> None:
        """Note that it is durable."""
        if self._has_marks:
            for digest, version in self._fresh.items():
                self._is_whole &= self._marks.put(digest, version)
            self._marks.end()

    def number(self, batch: VersionedBatch) -> bool:
        """Give the events of a batch their versions, unless one is not as expected: then the batch
        has a `refusal`. Raises Damaged."""
        if not batch.number(self._version):
            return False
        for subject in batch.expect:
            self._fresh[subject.digest] = batch.upto[subject.name]
        return True

    def close(self) -> None:
        """Close what is open; the lock stays with a parent process that holds it."""
        self._lock.close()
        self._marks.close()

    def _version(self, subject: StreamSubject, expected: int) -> int:
        """Return the version of a stream now; `expected` only makes it fast."""
        digest = subject.digest
        version = self._fresh.get(digest)
        if version is None and self._has_marks:
            version = self._marks.version(digest)
        if version is not None:
            return version
        pending = 0
        if not self._is_whole:
            self._pending.refresh()
            pending = self._pending.versions.get(digest, 0)
        assert self._head is not None
        # What an erasure rewrote has all of its keys.
        if self._runs is None or self._runs[0] is not self._head:
            self._runs = self._head, self._store.manifests.of(self._head.move).ids
        runs = self._runs[1]
        version = max(pending, self._keys.of(runs).last_version(subject, expected))
        if self._has_marks and version != expected:  # else `end` marks the next one
            self._is_whole &= self._marks.put(digest, version)
        return version

    def _settle(self) -> None:
        """Bring the marks to the present state, or begin anew where they do not lead to it."""
        head = self._store.refs.head(self._branch)
        if head is self._head and self._has_marks and self._marks.is_as_left():
            return
        self._head = head
        try:
            marked = self._marks.read()
            self._has_marks = True
        except (OSError, ValueError):  # a cache that cannot be written: the tail tells every time
            marked, self._has_marks = None, False
        if marked is not None and not marked.is_running and self._follows(marked, head):
            self._is_whole = marked.is_whole
            if marked.move != head.move.number:
                self._marks.follow(head.move.number)
            return
        self._begin_anew(is_certain=marked is not None and not marked.is_running)

    def _follows(self, marked: MarkedState, head: Head) -> bool:
        """Whether no version was given or taken away by a move since the marks were right."""
        number = head.move.number
        if marked.move == number and marked.generation == head.move.generation:
            return True
        if marked.generation != head.move.generation or not 0 < number - marked.move <= _MOVES_MAX:
            return False
        try:
            return all(
                self._store.refs.read(self._branch, n).op in _HARMLESS
                for n in range(marked.move + 1, number + 1)
            )
        except LakelogError:  # packed and dropped, or damaged
            return False

    def _begin_anew(self, *, is_certain: bool) -> None:
        """Read the versions in the tail; unless it `is_certain` that all of it is durable, sync it:
        whoever wrote the last frame may have been killed before its sync returned."""
        store = self._store
        pending = Tail(store.paths, store.refs, self._branch).collect()
        self._head = pending.head
        if not is_certain:
            _sync(store, self._branch, pending)
        self._is_whole = self._has_marks
        if self._has_marks:
            move = pending.head.move
            self._marks.begin_epoch(move.generation, move.number)
            for digest, version in _versions_in(_versioned_frames(pending)).items():
                self._is_whole &= self._marks.put(digest, version)
            self._marks.end()


class _PendingVersions:
    """The versions that are in the tail of a branch; each frame is read once."""

    def __init__(self, store: Store, branch: str) -> None:
        self._store, self._branch = store, branch
        self._tail: Tail | None = None
        self._generation = -1
        self._seen: dict[str, int] = {}
        self.versions: dict[bytes, int] = {}
        """By the digest of the subject; of what was sealed since it may be an older one."""

    def refresh(self) -> None:
        """Read what is new. Raises Damaged."""
        store = self._store
        self._tail = self._tail or Tail(store.paths, store.refs, self._branch)
        pending = self._tail.collect()
        if pending.head.move.generation != self._generation:
            self._generation, self._seen = pending.head.move.generation, {}
            self.versions = {}
        fresh = [f for f in _versioned_frames(pending) if f.sequence > self._seen.get(f.writer, -1)]
        for digest, version in _versions_in(fresh).items():
            self.versions[digest] = max(version, self.versions.get(digest, 0))
        self._seen |= {writer: frames[-1].sequence for writer, frames in pending.frames.items()}


def _versioned_frames(pending: PendingFrames) -> list[Frame]:
    return [f for fs in pending.frames.values() for f in fs if f.flags & Frame.VERSIONED]


def _versions_in(frames: Iterable[Frame]) -> dict[bytes, int]:
    """Return the last version of each stream in frames, by the digest of its subject."""
    versions = dict[str, int]()
    for frame in frames:
        for line in frame.lines()[:-1].split(b"\n"):
            origin, version = StreamSubject.place_of(line) or ("", 0)
            versions[origin] = max(version, versions.get(origin, 0))
    versions.pop("", None)
    origin_length = len(StreamSubject.ORIGIN)
    return {StreamSubject(o[origin_length:]).digest: version for o, version in versions.items()}


def _checked(expect: Mapping[str, int]) -> dict[StreamSubject, int]:
    """Return expected versions by subject. Raises InvalidEvent."""
    if not isinstance(expect, Mapping) or not expect:
        raise InvalidEvent("expect is {subject: version}, with a subject at least")
    subjects = dict[StreamSubject, int]()
    for name, version in expect.items():
        subject = StreamSubject.checked(name)
        subjects[subject] = version
        if type(version) is not int:
            raise InvalidEvent(
                f"the expected version of {subject.label} is a number, not {version!r:.40}"
            )
        if not 0 <= version <= VERSION_MAX:
            raise InvalidEvent(
                f"the expected version of {subject.label} is 0 or more, not {version}: 0 is that of"
                " a stream without events"
            )
    return subjects


def _sync(store: Store, branch: str, pending: PendingFrames) -> None:
    """Make the frames with versions durable that a reader sees, with the names of their files."""
    paths = {
        file.path
        for writer, frames in pending.frames.items()
        if any(frame.flags & Frame.VERSIONED for frame in frames)
        for file in pending.files[writer]
    }
    for path in paths:
        # It may be sealed meanwhile.
        with contextlib.suppress(FileNotFoundError), OpenFile.closing(File(path).open()) as fd:
            OpenFile(fd).sync()
    if paths:
        Folder(store.paths.wal_dir(branch)).sync()
