"""Present: what directories hold now, captured into a lake while gc leaves its chunks alone, or
only looked at to learn the digests.

Both begin with the state that the branch holds of a directory: what did not change since is not
read again. What is equal to that state as a whole is saved already, under the index that it has.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from lakelog import chunks
from lakelog.chunks import ChunkWriter, PendingChunk, StateIndex, StateRecord
from lakelog.deploy import running_in
from lakelog.disk import Folder, LockFile, disk
from lakelog.errors import AlreadyExists, Damaged, StateRefused
from lakelog.lake import Lake
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.paths import Paths
from lakelog.refs import Head, Tag
from lakelog.runtime.progress import ProgressCallback
from lakelog.state.capture import Capture
from lakelog.state.catalog import StateCatalog
from lakelog.state.changes import Changes, compare
from lakelog.state.origin import OPS, Origins, stamps, suffix
from lakelog.state.saved_state import SavedState
from lakelog.store import Machine

_NUMBER_MAX = 1 << 48
"""Numbers of another machine above this are ignored, so that none can use them up."""


@dataclass
class Present:
    """Directories as they were read, whose chunks are written: their records, their indices by
    label, `unsaved` labels of which the branch has another content or none, and as in
    SaveResult."""

    began: int
    records: list[StateRecord] = field(default_factory=list)
    indices: dict[str, StateIndex] = field(default_factory=dict)
    unsaved: set[str] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    written: int = 0

    @classmethod
    @contextlib.contextmanager
    def capture(
        cls,
        lake: Lake,
        directories: Mapping[str, str],
        exclude: tuple[str, ...] = (),
        progress: ProgressCallback | None = None,
        deployment: Mapping[str, str] | None = None,
    ) -> Iterator[Present]:
        """Read directories, and keep gc from their chunks until the body has published them. Raises
        as save_state."""
        check_directories(lake, directories)
        # Before the first look: what changes from here on is not taken for unchanged the next time.
        store, result = lake.store, cls(disk.now_us())
        revision = running_in(os.environ) if deployment is None else dict(deployment)
        # A writer of this process may have events in hand: they belong to the state that is saved.
        lake.settle()
        Machine.settle(store.paths)
        Folder(store.paths.cache).make_all()
        with (
            LockFile(store.paths.states_lock).hold(shared=True),
            ChunkWriter(store.paths) as writer,
        ):
            # Under the lock: what the branch holds now, no gc deletes before this is published.
            bases = _bases(lake, directories)
            for label, directory in directories.items():
                # Through links: a directory is known by where it is.
                path, base = os.path.realpath(directory), bases[label]
                captured = Capture(path, writer, base.index, base.began, exclude, progress).run()
                result.skipped += [f"{label}/{name}" for name in captured.skipped]
                result.changed += [f"{label}/{name}" for name in captured.changed]
                result.indices[label] = captured.index
                digest = base.digest
                # Equal to what the branch has: the same index, and nothing to write.
                if captured.index != base.index:
                    result.unsaved.add(label)
                    digest = writer.add_index(captured.index)
                size = sum(length for _, length in captured.index.chunks)
                result.records.append(
                    StateRecord(
                        label,
                        digest,
                        path,
                        size,
                        _count_files(captured.index),
                        result.began,
                        revision,
                    )
                )
            writer.finish()
            result.written = writer.written
            yield result

    @staticmethod
    def look(lake: Lake, label: str, path: str) -> Look:
        """Read a directory and write nothing. Raises StateRefused, OSError."""
        base = _bases(lake, {label: path})[label]
        return Look(Capture(path, _Digests(), base.index, base.began).run().index, base.index)

    def publish(
        self, lake: Lake, name: str | None, message: str, op: str = "state", before: str = ""
    ) -> SavedState:
        """Make a state of it, named by its time if no name is given. Raises AlreadyExists."""
        StateCatalog(lake).refuse_taken(name)
        origins = Origins(lake.store)
        plan = _Plan(lake, origins, self.records, op, message, before)
        head = publish(lake.store, lake.branch_name, plan, commit=plan.save)
        assert head is not None
        tag = _tag(lake, origins.machine, name, head.move.snapshot, message, self.began)
        return SavedState.of(tag, plan.records, origins, plan.save)


@dataclass(frozen=True)
class _Base:
    """The state that the branch holds of a directory: the digest of its index, what that says, and
    when its save began, to tell what did not change since."""

    digest: str = ""
    index: StateIndex | None = None
    began: int = 0


@dataclass(frozen=True)
class Look:
    """What a directory holds now, and the `base`: what the branch has of it, None for nothing."""

    index: StateIndex
    base: StateIndex | None

    @property
    def is_saved(self) -> bool:
        """Whether the branch has just that, so that its chunks are there."""
        # By content: the order of entries and chunks is the same for equal directories.
        return self.index == self.base

    @property
    def files(self) -> int:
        """How many names of files it has."""
        return _count_files(self.index)

    def changes(self, paths: Paths, target: StateIndex) -> Changes:
        """Compare it with what it shall hold. Raises DamagedState."""
        # Also those that are saved have to be written back, where they differ.
        return compare(paths, self.index, target, is_stored=self.is_saved)


def _count_files(index: StateIndex) -> int:
    """Return how many names of files an index has."""
    return sum(entry.kind in ("file", "hard") for entry in index.entries)


class _Plan:
    """The move of a save, for each head on which it is tried; `records` are those of the last."""

    def __init__(
        self,
        lake: Lake,
        origins: Origins,
        records: list[StateRecord],
        op: str,
        message: str,
        before: str,
    ) -> None:
        self._manifests, self._origins = lake.store.manifests, origins
        self._op, self._message = op, message
        self.save = disk.random_hex()
        # What the branch holds is looked at again for each head; that of other branches only here.
        catalog = StateCatalog(lake)
        tagged = [r for op in OPS for state in catalog.states(op) for r in state.directories]
        self._last, self._named = self._highest(tagged), {record.save for record in tagged}
        self.records = [replace(r, save=self.save, before=before) for r in records]

    def __call__(self, _: Head, state: Manifest) -> Change:
        records = StateRecord.all_of(self._manifests, state)
        latest = StateRecord.newest(filter(self._origins.is_own, records))
        parent = ""
        if latest is not None:
            # A backup before a restore may be pruned at any time, and a save that died has no name:
            # what the branch was meant to hold lies before it.
            is_meant = latest.save in self._named and latest.before != SavedState.BEFORE_RESTORE
            parent = latest.save if is_meant else latest.parent
        number = max(self._last, self._highest(records)) + 1
        self.records = [
            replace(record, number=number, parent=parent).signed(self._origins.machine)
            for record in self.records
        ]
        return Change(self._op, self._message, tuple(record.entry() for record in self.records))

    def _highest(self, records: Iterable[StateRecord]) -> int:
        """The highest number of one's own, and of others as far as it can be true."""
        is_own = self._origins.is_own
        return max((r.number for r in records if r.number < _NUMBER_MAX or is_own(r)), default=0)


def _tag(
    lake: Lake, saver: Machine, name: str | None, snapshot: str, message: str, began: int
) -> Tag:
    if name is not None:
        return lake.tag(name, snapshot, message)
    for stamp in stamps("state", began, suffix(lake.store, saver.id)):
        with contextlib.suppress(AlreadyExists):
            return lake.tag(stamp, snapshot, message)
    raise AssertionError("there is always another name")


class _Digests:
    """Takes chunks only to learn their digests."""

    def has(self, digest: str) -> bool:
        """Whether a chunk need not be read: of the save before, no."""
        return bool(digest)

    def add(self, content: bytes) -> PendingChunk:
        """Return the digest and length."""
        future: PendingChunk = Future()
        future.set_result((hashlib.sha256(content).hexdigest(), len(content)))
        return future


def _bases(lake: Lake, directories: Mapping[str, str]) -> dict[str, _Base]:
    """Return what the branch holds of directories, by label."""
    origins, state = Origins(lake.store), lake.store.state(lake.branch_name)
    records = {r.label: r for r in StateRecord.all_of(lake.store.manifests, state)}
    return {
        label: _base(lake, origins, records.get(label), os.path.realpath(path))
        for label, path in directories.items()
    }


def _base(lake: Lake, origins: Origins, record: StateRecord | None, path: str) -> _Base:
    # The times and inodes of another machine say nothing about the files here.
    if record is None or record.path != path or not origins.is_own(record):
        return _Base()
    # A damaged one only costs time: everything is read, and its chunks are written again.
    with contextlib.suppress(Damaged):
        index = chunks.StateFiles(lake.store.paths).read_index(record.index)
        return _Base(record.index, index, record.captured_at)
    return _Base()


# --- what can be captured ------------------------------------------------------------------------


def check_directories(lake: Lake, directories: Mapping[str, str]) -> None:
    """Raise StateRefused for labels and directories that cannot be, UnsupportedStore for a shared
    lake."""
    if lake.store.attachment is not None:
        lake.store.attachment.allow("state")  # before anything is stored
    if not directories:
        raise StateRefused("no directory to save: name one with --dir, or in STATE_DIRECTORY")
    root = os.path.realpath(lake.path)
    for label, path in directories.items():
        check_label(label)
        # A save would store what it is storing.
        if contains(os.path.realpath(path), root):
            raise StateRefused(f"{path} holds the lake itself: keep the lake outside of its state")


def check_label(label: str) -> None:
    """Raise StateRefused for the label of a directory that is no file name."""
    # It becomes the first part of paths, and a directory where several are restored together.
    if label in ("", ".", "..") or "/" in label or not label.isprintable():
        raise StateRefused(f"{label!r} cannot label a directory: choose a name without slashes")


def contains(directory: str, path: str) -> bool:
    """Whether a path is a directory or lies in it; both are real paths."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")
