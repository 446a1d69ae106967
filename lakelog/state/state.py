"""Saved states: state directories that are captured together, as one move of the branch and a tag.

A save publishes one manifest with a record of each directory, and tags it, so that tags, rollback,
diff, verify and gc mean what they always mean. A state is a tag whose manifest a save made. Names
that a save chose itself, `state-20250403-123456`, are pruned by their number; others stay.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lakelog.chunks import state_files
from lakelog.chunks.state_files import StateRecord
from lakelog.chunks.state_index import StateEntry, StateIndex
from lakelog.deploy.deployment import running_in
from lakelog.errors import (
    AlreadyExists,
    Damaged,
    DeploymentFailed,
    MissingPackage,
    StateRefused,
    UnknownRef,
)
from lakelog.lake import Lake
from lakelog.state import exchange, rewind
from lakelog.state.capture import Capture, Progress
from lakelog.state.chunk_writer import ChunkWriter
from lakelog.state.contents import Contents
from lakelog.store import disk, history, policy
from lakelog.store.publish import Change, note, publish, with_reason
from lakelog.store.refs import Tag
from lakelog.store.tracking import is_tracking

RETENTION = 24
"""This many states with names of their own making are kept, unless told otherwise."""
_NAMED = 5
OPS = ("state", "container")
BEFORE_RESTORE, BEFORE_ROLLBACK = "before restore of ", "before-rollback-"
"""How the message, and the name, of a state begins that was saved before something else."""
"""What a save may be: of directories, or of containers with theirs."""
_AUTOMATIC = re.compile(r"state-\d{8}-\d{6}(-\d+)?")


@dataclass(frozen=True)
class SavedState:
    """A state: its tag and the directories that were captured by its save."""

    name: str
    snapshot: str
    time: int
    author: str
    message: str
    directories: tuple[StateRecord, ...]

    @property
    def bytes(self) -> int:
        """The bytes of all files."""
        return sum(record.bytes for record in self.directories)

    @property
    def files(self) -> int:
        """The number of files."""
        return sum(record.files for record in self.directories)


@dataclass(frozen=True)
class SaveResult:
    """What a save did: `written` are the bytes that it added to the lake; `skipped` special files
    that were left out, `changed` files that kept changing, `pruned` states that were deleted."""

    state: SavedState
    written: int
    skipped: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()


@dataclass(frozen=True)
class PathChange:
    """A path, as `label/path`, that was added, removed or changed between two states. Sizes are of
    files, in bytes; `what` changed is some of content, kind, target, mode, owner, time and
    attributes."""

    path: str
    change: str
    before: int | None
    after: int | None
    what: tuple[str, ...] = ()


def save_state(
    lake: Lake,
    directories: Mapping[str, str],
    *,
    name: str | None = None,
    message: str = "",
    keep: int | None = RETENTION,
    exclude: tuple[str, ...] = (),
    progress: Progress | None = None,
    deployment: Mapping[str, str] | None = None,
    op: str = "state",
) -> SaveResult:
    """Save directories, given by their labels, as one state. `keep` prunes states that have names
    of their own making; None keeps all. `deployment` is the revision that it belongs to, by default
    that of the pod. `op` is one of OPS; only a `state` is listed as one.

    Raises StateRefused where a file cannot be read or a directory cannot be saved, AlreadyExists
    for a taken name, OSError.
    """
    _check_directories(lake, directories)
    if name is not None and disk.exists(lake.store.paths.tag(name)):
        raise AlreadyExists(f"tag {name!r} exists: choose another name, or delete it first")
    store, began = lake.store, disk.now_us()
    revision = running_in(os.environ) if deployment is None else dict(deployment)
    # Half of a restore is no state to save; one at work is saving what it will overwrite.
    with exchange.alone(store) as is_alone:
        if is_alone:
            # A cluster that does not answer has nothing to do with what is saved here.
            with contextlib.suppress(DeploymentFailed, MissingPackage):
                rewind.recover(store)
    lake.settle()
    previous = {
        r.label: r for r in state_files.records(store.manifests, lake.store.state(lake.branch_name))
    }
    skipped: list[str] = []
    changed: list[str] = []
    records: list[StateRecord] = []
    # Until the move is made: gc must not take a chunk that this save found there.
    disk.make_dirs(store.paths.cache)
    with disk.hold(store.paths.states_lock, shared=True), ChunkWriter(store.paths) as writer:
        for label, given in directories.items():
            path = os.path.realpath(given)
            base, since = _base(lake, previous.get(label), path)
            captured = Capture(path, writer, base, since, exclude, progress).run()
            skipped += [f"{label}/{each}" for each in captured.skipped]
            changed += [f"{label}/{each}" for each in captured.changed]
            records.append(_record(label, path, captured.index, writer, began, revision))
        writer.finish()
        entries = tuple(record.entry() for record in records)
        head = publish(store, lake.branch_name, lambda *_: Change(op, message, entries))
        assert head is not None
        tag = _tag(lake, name, head.move.snapshot, message, began)
    pruned = _prune(lake, keep) if keep is not None else ()
    return SaveResult(
        _saved(tag, records), writer.written, tuple(skipped), tuple(changed), tuple(pruned)
    )


def _check_directories(lake: Lake, directories: Mapping[str, str]) -> None:
    """Raises StateRefused for labels and directories that cannot be."""
    if not directories:
        raise StateRefused("no directory to save: name one with --dir, or in STATE_DIRECTORY")
    root = os.path.realpath(lake.path)
    for label, path in directories.items():
        check_label(label)
        if contains(os.path.realpath(path), root):
            raise StateRefused(f"{path} holds the lake itself: keep the lake outside of its state")


def check_label(label: str) -> None:
    """Raise StateRefused for the label of a directory that is no file name."""
    if label in ("", ".", "..") or "/" in label or not label.isprintable():
        raise StateRefused(f"{label!r} cannot label a directory: choose a name without slashes")


def contains(directory: str, path: str) -> bool:
    """Whether a path is a directory or lies in it; both are real paths."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _base(lake: Lake, record: StateRecord | None, path: str) -> tuple[StateIndex | None, int]:
    """The index of the save before and when that began, to tell what did not change since."""
    if record is None or record.path != path:
        return None, 0
    # A damaged one only costs time: everything is read, and its chunks are written again.
    with contextlib.suppress(Damaged):
        return state_files.read_index(lake.store.paths, record.index), record.captured_at
    return None, 0


def _record(
    label: str,
    path: str,
    index: StateIndex,
    writer: ChunkWriter,
    began: int,
    revision: dict[str, str],
) -> StateRecord:
    size = sum(length for _, length in index.chunks)
    files = sum(entry.kind in ("file", "hard") for entry in index.entries)
    digest = writer.add_index(index)
    return StateRecord(label, digest, path, size, files, began, revision)


def _tag(lake: Lake, name: str | None, snapshot: str, message: str, began: int) -> Tag:
    if name is not None:
        return lake.tag(name, snapshot, message)
    time = datetime.datetime.fromtimestamp(began // 1_000_000, datetime.UTC)
    stamp = f"state-{time:%Y%m%d-%H%M%S}"
    number = 1
    while True:
        try:
            return lake.tag(stamp if number == 1 else f"{stamp}-{number}", snapshot, message)
        except AlreadyExists:
            number += 1


def list_states(lake: Lake, op: str = "state") -> list[SavedState]:
    """Return the states of the lake, newest first; those whose manifest is damaged are left out,
    which `verify` names. `op` is one of OPS."""
    states = []
    for tag in lake.store.refs.tags():
        if is_tracking(lake.store, tag.name):
            continue
        with contextlib.suppress(Damaged):
            manifest = lake.store.manifests.load(tag.snapshot)
            if manifest.op == op:
                states.append(_saved(tag, state_files.records(lake.store.manifests, manifest)))
    return sorted(states, key=lambda state: (state.time, state.name), reverse=True)


def _saved(tag: Tag, records: list[StateRecord]) -> SavedState:
    # Directories that only an earlier save captured are in the manifest, too, but not of this one.
    newest = max((record.captured_at for record in records), default=0)
    own = tuple(record for record in records if record.captured_at == newest)
    return SavedState(tag.name, tag.snapshot, tag.time, tag.author, tag.message, own)


def find_state(lake: Lake, name: str) -> SavedState:
    """Return the state of a name, `latest` being the one that the branch holds. Raises UnknownRef,
    Damaged."""
    if name != "latest":
        tag = lake.store.refs.tag(name)
        manifest = lake.store.manifests.load(tag.snapshot)
        if manifest.op not in OPS:
            raise UnknownRef(f"tag {name!r} names no saved state: see `lakelog state list`")
        return _saved(tag, state_files.records(lake.store.manifests, manifest))
    states = list_states(lake)
    if not states:
        raise UnknownRef(
            "no state is saved in this lake: `lakelog state save --dir PATH` saves one"
        )
    return _latest(lake, states)


def _latest(lake: Lake, states: list[SavedState]) -> SavedState:
    """Return the state that the branch holds: after a rollback the one that it went back to, and
    never what was saved just before a restore, which somebody wanted to leave."""
    manifests = lake.store.manifests
    held = state_files.records(manifests, lake.store.state(lake.branch_name))
    newest = max(held, key=lambda record: record.captured_at, default=None)
    for state in states:
        if newest in state.directories and not state.message.startswith(BEFORE_RESTORE):
            return state
    made = (BEFORE_RESTORE, BEFORE_ROLLBACK)
    meant = [s for s in states if not s.message.startswith(made[0]) and made[1] not in s.name]
    return (meant or states)[0]


def clean_states(lake: Lake, keep: int, why: str = "") -> list[str]:
    """Delete the oldest states with names of their own making, all but `keep`; return their names.
    gc then deletes what no other state needs. The log says so, and `why`. Raises NotAllowed."""
    policy.require(lake.store.paths, "clean")
    names = _prune(lake, keep)
    if names:
        words = f"deleted {len(names):,} states: {', '.join(names[:_NAMED])}"
        words += ", ..." if len(names) > _NAMED else ""
        note(lake.store, lake.branch_name, "clean", with_reason(words, why))
    return names


def _prune(lake: Lake, keep: int) -> list[str]:
    states = [state for state in list_states(lake) if _AUTOMATIC.fullmatch(state.name)]
    deleted = []
    for state in states[keep:]:
        # Another process may have pruned it.
        with contextlib.suppress(UnknownRef):
            history.remove_tag(lake.store, state.name)
            deleted.append(state.name)
    return deleted


def diff_states(lake: Lake, a: str, b: str) -> list[PathChange]:
    """Return what was added, removed or changed from one state to another, ordered by path. Raises
    UnknownRef, Damaged."""
    old, new = (_files(lake, find_state(lake, name)) for name in (a, b))
    changes = []
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path), new.get(path)
        what = _differences(before, after) if before and after else ()
        if what or not (before and after):
            change = "changed" if what else "removed" if before else "added"
            changes.append(PathChange(path, change, _size(before), _size(after), what))
    return changes


_Located = tuple[Contents, StateEntry]


def _files(lake: Lake, state: SavedState) -> dict[str, _Located]:
    files: dict[str, _Located] = {}
    for record in state.directories:
        contents = Contents(
            lake.store.paths, state_files.read_index(lake.store.paths, record.index)
        )
        for path, entry in contents.entries.items():
            files[f"{record.label}/{os.fsdecode(path)}".rstrip("/")] = contents, entry
    return files


def _size(located: _Located | None) -> int | None:
    if located is None:
        return None
    contents, entry = located
    file = contents.file(entry.path)
    return None if file is None else file.size


def _differences(old: _Located, new: _Located) -> tuple[str, ...]:
    (_, before), (_, after) = old, new
    if before.kind != after.kind:
        return ("kind",)
    # The time of a directory changes with what is in it, which is listed itself.
    same_time = before.kind == "dir" or before.mtime == after.mtime
    facts = {
        "content": _is_same_content(old, new),
        "target": before.target == after.target,
        "mode": before.mode == after.mode,
        "owner": (before.uid, before.gid) == (after.uid, after.gid),
        "time": same_time,
        "attributes": before.xattrs == after.xattrs,
    }
    return tuple(name for name, is_same in facts.items() if not is_same)


def _is_same_content(old: _Located, new: _Located) -> bool:
    files = [contents.file(entry.path) for contents, entry in (old, new)]
    before, after = files
    if before is None or after is None:
        return before is after
    if before.size != after.size:
        return False
    # Equal parts are equal content; the same content may also have been cut in another way.
    if old[0].parts(before) == new[0].parts(after):
        return True
    return old[0].digest(before) == new[0].digest(after)


def read_file(lake: Lake, name: str, path: str) -> Iterator[bytes]:
    """Yield the content of a file of a state; the path may begin with the directory's label.
    Raises UnknownRef, Damaged."""
    state = find_state(lake, name)
    for record in state.directories:
        index = state_files.read_index(lake.store.paths, record.index)
        contents = Contents(lake.store.paths, index)
        for given in (path, path.removeprefix(f"{record.label}/")):
            file = contents.file(os.fsencode(given))
            if file is not None:
                return contents.read(file)
    raise UnknownRef(f"{state.name} holds no file {path!r}: see `lakelog state info {state.name}`")
