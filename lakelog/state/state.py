"""Saved states: state directories that are captured together, as one move of the branch and a tag.

A save publishes one manifest with a record of each directory, and tags it, so that tags, rollback,
diff, verify and gc mean what they always mean. A state is a tag whose manifest a save made. Names
that a save chose itself, `state-20250403-123456`, are pruned by their number; others stay.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from lakelog import chunks
from lakelog.chunks import StateEntry, StateRecord
from lakelog.disk import File, disk
from lakelog.errors import (
    AlreadyExists,
    DeploymentFailed,
    InvalidPolicy,
    MissingPackage,
    NotAllowed,
    UnknownRef,
)
from lakelog.history import remove_tag
from lakelog.lake import Lake
from lakelog.moves import Change, note, publish, with_reason
from lakelog.runtime.progress import ProgressCallback
from lakelog.state import exchange, filesystems, rewind
from lakelog.state.contents import Contents
from lakelog.state.listing import (
    BEFORE_RESTORE,
    SavedState,
    find_state,
    latest_of,
    list_states,
    saved_state,
    states_of,
)
from lakelog.state.origin import OPS, Origins, newest, stamps, suffix
from lakelog.state.present import Present, capturing, check_directories, contains
from lakelog.state.retention import Retention, select_expired
from lakelog.store import policy
from lakelog.store.machine import Machine
from lakelog.store.manifest import Manifest
from lakelog.store.ref import Head, Tag

__all__ = [
    *("SaveResult", "SavedState", "clean_states", "diff_states", "find_state", "list_states"),
    *("read_file", "save_state"),
]
RETENTION = 24
"""This many states with names of their own making are kept, unless told otherwise."""
_NAMED = 5
_AUTOMATIC = re.compile(r"state-\d{8}-\d{6}(-[0-9a-f]{6})?(-\d+)?")
_NUMBER_MAX = 1 << 48
"""Numbers of another machine above this are ignored, so that none can use them up."""


@dataclass(frozen=True)
class SaveResult:
    """What a save did: `written` are the bytes that it added to the lake; `skipped` devices
    that only are named, `changed` files that kept changing, `pruned` states that were deleted, and
    `notes` what else happened that its user should know."""

    state: SavedState
    written: int
    skipped: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


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
    keep: int | Retention | None = RETENTION,
    exclude: tuple[str, ...] = (),
    progress: ProgressCallback | None = None,
    deployment: Mapping[str, str] | None = None,
    op: str = "state",
) -> SaveResult:
    """Save directories, given by their labels, as one state. `keep` prunes earlier states of this
    machine that have names of their own making, if the policy lets its user `clean`; None keeps
    all. `deployment` is the revision that it belongs to, by default that of the pod. `op` is one of
    OPS; only a `state` is listed as one.

    Raises StateRefused where a file cannot be read or a directory cannot be saved, AlreadyExists
    for a taken name, OSError.
    """
    check_directories(lake, directories)
    # Before the directories are read, which may take minutes.
    _refuse_taken(lake, name)
    with (
        _undisturbed(lake, directories) as notes,
        capturing(lake, directories, exclude, progress, deployment) as present,
    ):
        state = publish_captured(lake, present, name, message, op)
    pruned: list[str] = []
    # After it was published: what fails here has not lost the save.
    if keep is not None:
        pruned, refusal = _prune_if_allowed(lake, _retention(keep), state)
        notes += refusal
    return SaveResult(
        state,
        present.written,
        tuple(present.skipped),
        tuple(present.changed),
        tuple(pruned),
        tuple(notes),
    )


@contextlib.contextmanager
def _undisturbed(lake: Lake, directories: Mapping[str, str]) -> Iterator[list[str]]:
    """Hold directories against those who restore them, and finish what a restore left undone;
    yields what to tell of that."""
    notes = list[str]()
    store, paths = lake.store, [os.path.realpath(path) for path in directories.values()]
    # Twice: whoever held the directories may have died and left something to finish.
    for is_last in (False, True):
        with exchange.alone(store) as is_alone:
            if is_alone:
                # A cluster that does not answer has nothing to do with what is saved here.
                with contextlib.suppress(DeploymentFailed, MissingPackage):
                    notes += rewind.recover(store).notes
        with filesystems.held(paths, shared=True):
            # Half of a restore is no state to save: whoever held these noted that, and died.
            targets = [step.target for step in rewind.pending_steps(store)]
            if is_last or not any(_overlap(path, target) for path in paths for target in targets):
                yield notes
                return


def _overlap(path: str, other_path: str) -> bool:
    return contains(path, other_path) or contains(other_path, path)


def publish_captured(
    lake: Lake,
    captured: Present,
    name: str | None,
    message: str,
    op: str = "state",
    before: str = "",
) -> SavedState:
    """Make a state of what was captured, named by its time if no name is given. Raises
    AlreadyExists."""
    _refuse_taken(lake, name)
    origins = Origins(lake.store)
    plan = _Plan(lake, origins, captured.records, op, message, before)
    head = publish(lake.store, lake.branch_name, plan, commit=plan.save)
    assert head is not None
    tag = _tag(lake, origins.machine, name, head.move.snapshot, message, captured.began)
    return saved_state(tag, plan.records, origins, plan.save)


def _refuse_taken(lake: Lake, name: str | None) -> None:
    if name is not None and File(lake.store.paths.tag(name)).exists():
        raise AlreadyExists(f"tag {name!r} exists: choose another name, or delete it first")


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
        tagged = [r for op in OPS for state in list_states(lake, op) for r in state.directories]
        self._last, self._named = self._highest(tagged), {record.save for record in tagged}
        self.records = [replace(r, save=self.save, before=before) for r in records]

    def __call__(self, _: Head, state: Manifest) -> Change:
        records = chunks.StateRecord.all_of(self._manifests, state)
        latest = newest(filter(self._origins.is_own, records))
        parent = ""
        if latest is not None:
            # A backup before a restore may be pruned at any time, and a save that died has no name:
            # what the branch was meant to hold lies before it.
            is_meant = latest.save in self._named and latest.before != BEFORE_RESTORE
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
    lake: Lake, machine: Machine, name: str | None, snapshot: str, message: str, began: int
) -> Tag:
    if name is not None:
        return lake.tag(name, snapshot, message)
    for stamp in stamps("state", began, suffix(lake.store, machine.id)):
        with contextlib.suppress(AlreadyExists):
            return lake.tag(stamp, snapshot, message)
    raise AssertionError("there is always another name")


def clean_states(
    lake: Lake, keep: int | Retention, why: str = "", source: str = "", dry_run: bool = False
) -> list[str]:
    """Delete the oldest states of this machine with names of their own making, all but those to
    `keep`; of each machine by itself with the `source` ANY. Return their names. gc then deletes
    what no other state needs. The log says so, and `why`. Raises NotAllowed, UnknownRef."""
    if not dry_run:
        policy.require(lake.store.paths, "clean")
    states = states_of(list_states(lake), source)
    # Each machine's own states are counted for themselves.
    machines = dict.fromkeys(("" if s.is_own else s.machine) for s in states)
    expired = [
        state
        for machine_name in machines
        for state in _expired(
            lake,
            [s for s in states if ("" if s.is_own else s.machine) == machine_name],
            _retention(keep),
        )
    ]
    if dry_run:
        return [state.name for state in expired]
    names = _delete(lake, expired)
    if names:
        message = f"deleted {len(names):,} states: {', '.join(names[:_NAMED])}"
        message += ", ..." if len(names) > _NAMED else ""
        note(lake.store, lake.branch_name, "clean", with_reason(message, why))
    return names


def _retention(keep: int | Retention) -> Retention:
    return Retention(keep) if isinstance(keep, int) else keep


def _prune_if_allowed(
    lake: Lake, keep: Retention, new_state: SavedState
) -> tuple[list[str], tuple[str, ...]]:
    """Delete what a save has made too many, if its user may delete states; else say so."""
    states = [state for state in list_states(lake) if state.is_own]
    # Whatever else: not what was saved just now.
    expired = [state for state in _expired(lake, states, keep) if state.name != new_state.name]
    if not expired:
        return [], ()
    try:
        policy.require(lake.store.paths, "clean")
    except (InvalidPolicy, NotAllowed) as error:
        return [], (f"no older state was pruned: {error}",)
    return _delete(lake, expired), ()


def _expired(lake: Lake, states: list[SavedState], keep: Retention) -> list[SavedState]:
    """Return which states of one machine to delete. What was saved before restores is counted by
    itself: it takes the place of no state that somebody meant to save."""
    automatic = [state for state in states if _AUTOMATIC.fullmatch(state.name)]
    saves = [state for state in automatic if not state.before]
    backups = [state for state in automatic if state.before]
    expired = select_expired(saves, keep) + select_expired(backups, Retention(keep.last))
    if keep.is_all or not expired:
        # Keeping nothing is what was asked for.
        return expired
    # After a rollback it may be an old one.
    latest = latest_of(lake, states).snapshot
    return [state for state in expired if state.snapshot != latest]


def _delete(lake: Lake, states: list[SavedState]) -> list[str]:
    deleted = []
    for state in states:
        # Another process may have pruned it.
        with contextlib.suppress(UnknownRef):
            remove_tag(lake.store, state.name)
            deleted.append(state.name)
    return deleted


def diff_states(lake: Lake, a: str, b: str) -> list[PathChange]:
    """Return what was added, removed or changed from one state to another, ordered by path. Raises
    UnknownRef, Damaged."""
    old, new = (_files(lake, find_state(lake, name)) for name in (a, b))
    changes = []
    # Bytes that are no UTF-8 sort as they are shown.
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path), new.get(path)
        differences = _differences(before, after) if before and after else ()
        if differences or not (before and after):
            change = "changed" if differences else "removed" if before else "added"
            changes.append(PathChange(path, change, _size(before), _size(after), differences))
    return changes


_Located = tuple[Contents, StateEntry]


def _files(lake: Lake, state: SavedState) -> dict[str, _Located]:
    files: dict[str, _Located] = {}
    for record in state.directories:
        contents = Contents(
            lake.store.paths, chunks.StateFiles(lake.store.paths).read_index(record.index)
        )
        # The directory itself is the label alone.
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
    # Found once: `latest` may be another state a moment later.
    state = find_state(lake, name)
    label, inner_path = locate(lake, state, path)
    record = next(directory for directory in state.directories if directory.label == label)
    contents = Contents(
        lake.store.paths, chunks.StateFiles(lake.store.paths).read_index(record.index)
    )
    file = contents.file(inner_path)
    if file is None:
        raise UnknownRef(f"{path!r} is no file in {name}: see `lakelog state info {name}`")
    return contents.read(file)


def locate(lake: Lake, state: SavedState, path: str) -> tuple[str, bytes]:
    """Return the label of the directory of a state that holds a path, and the path in it; the path
    may begin with the label. Raises UnknownRef, Damaged."""
    for record in state.directories:
        index = chunks.StateFiles(lake.store.paths).read_index(record.index)
        entry_paths = {entry.path for entry in index.entries}
        # A directory may hold a directory of its own label: the path as it is comes first.
        for candidate in (path, path.removeprefix(f"{record.label}/")):
            if (encoded := os.fsencode(candidate.strip("/"))) in entry_paths:
                return record.label, encoded
        if path == record.label:
            return record.label, b""
    raise UnknownRef(f"{state.name} holds no file {path!r}: see `lakelog state info {state.name}`")
