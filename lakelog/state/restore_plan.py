"""Restore plan: where directories go, and how each is replaced, by as few exchanges as can be.

One exchange is atomic, so the path below which everything lies that differs is one part. Of a
directory that cannot be exchanged itself, as a mount or where its parent is another user's, every
name below which something differs is one. What is equal stays, and its old files are linked where
the tree around them is rebuilt.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from lakelog import chunks
from lakelog.chunks import StateEntry, StateIndex, StateRecord
from lakelog.disk import Folder
from lakelog.errors import StateRefused
from lakelog.lake import Lake
from lakelog.runtime.progress import ProgressCallback
from lakelog.state import exchange, filesystems, fingerprint
from lakelog.state.changes import Changes, compare, is_inside
from lakelog.state.exchange import ExchangeStep, Stamp
from lakelog.state.extract import Extractor, LiveDirectory, unmade
from lakelog.state.filesystems import shown
from lakelog.state.origin import Origins
from lakelog.state.present import check_label, contains

_NOTHING = -(1 << 62)
"""The inode of a step that exchanges nothing."""


@dataclass(frozen=True)
class DirectoryRestore:
    """How a directory is restored: a step for each path that is exchanged, of which those that the
    state has are extracted; `stamps` are set at the end. `only` limits it to some paths."""

    record: StateRecord
    index: StateIndex
    steps: dict[bytes, ExchangeStep]
    stamps: tuple[Stamp, ...] = ()
    live: LiveDirectory | None = None
    only: tuple[bytes, ...] = ()
    notes: tuple[str, ...] = ()


class RestorePlan:
    """How directories are put back: where each may go, and which paths of it are exchanged. Once
    their fresh trees are there, `steps` are the exchanges, and `notes` what could not be set. What
    cannot be made is refused, or left out with `skip`."""

    def __init__(self, lake: Lake, *, skip: bool = False) -> None:
        self._lake_path, self._store, self._skip = lake.path, lake.store, skip
        self._origins = Origins(lake.store)
        self.directories: list[DirectoryRestore] = []
        self.steps: tuple[ExchangeStep, ...] = ()
        self.notes: tuple[str, ...] = ()

    def targets(
        self, records: list[StateRecord], to: str | Mapping[str, str] | None
    ) -> dict[str, str]:
        """Return where each directory goes, by label. Raises StateRefused where it cannot go."""
        targets: dict[str, str] = {}
        for record in records:
            check_label(record.label)
            path = record.path
            # The path in a record of another machine may be anything: only --to is written to.
            if to is None or (isinstance(to, Mapping) and record.label not in to):
                self._origins.require_own(record)
            if isinstance(to, Mapping):
                path = to.get(record.label, path)
            elif to is not None:
                folder = os.path.abspath(to)
                path = folder if len(records) == 1 else f"{folder}/{record.label}"
            self.check_target(path, record.label)
            targets[record.label] = path
        self.check_apart(targets)
        return targets

    def check_return(self, record: StateRecord) -> None:
        """Raise StateRefused where a directory cannot go back where it was; Damaged."""
        # Of another machine: its path is anybody's word.
        self._origins.require_own(record)
        self.check_target(record.path, record.label)

    def check_target(self, path: str, label: str) -> None:
        """Raise StateRefused where a directory cannot be put at a path."""
        # normpath: `..` and double slashes would compare as other directories.
        if not os.path.isabs(path) or os.path.normpath(path) != path or path == "/":
            raise StateRefused(f"{path!r} is no place for {label!r}: choose one with --to")
        # A link could be changed between this look and the exchange.
        if os.path.realpath(path) != path:
            raise StateRefused(
                f"{path} leads through a link: name {os.path.realpath(path)} with --to"
            )
        root = os.path.realpath(self._lake_path)
        if contains(path, root) or contains(root, path):
            raise StateRefused(f"{path} is where the lake is: choose another directory with --to")
        if os.path.lexists(path) and not os.path.isdir(path):
            raise StateRefused(f"{path} is no directory: move it away, or choose another with --to")
        parent = os.path.dirname(path)
        if not os.path.isdir(parent):
            raise StateRefused(f"{parent}: no such directory: create it first")
        if not (is_exchangeable(path) or (os.path.isdir(path) and is_writable(path))):
            raise StateRefused(f"{path}: this user may not write there, nor to {parent}")

    def check_apart(self, targets: dict[str, str]) -> None:
        """Raise StateRefused where a directory holds another one."""
        for label, path in targets.items():
            if any(contains(path, targets[other]) for other in targets.keys() - {label}):
                raise StateRefused(
                    f"{path} holds another directory of this state: restore one by one"
                )

    def refuse_devices(self, paths: Iterable[bytes]) -> None:
        """Raise StateRefused where there are any, unless that is skipped."""
        names = [f"{shown(path)}, a device," for path in paths]
        if names and not self._skip:
            raise StateRefused(unmade(names))

    def holding(self, directories: Iterable[str]) -> contextlib.AbstractContextManager[None]:
        """Hold directories against those who save or restore them, in whatever lake. Raises
        StateRefused where another does so for minutes."""
        return filesystems.holding(directories, shared=False)

    def lay_out(
        self,
        record: StateRecord,
        target: str,
        present: StateIndex | None,
        only: tuple[bytes, ...] = (),
    ) -> None:
        """Decide how a directory is restored to one that holds what the index `present` says, or to
        none; `only` limits it to some paths. Raises StateRefused where something cannot be made,
        unless that is skipped; Damaged."""
        directory = self._laid_out(record, target, present, only)
        if directory.steps:
            self.directories.append(directory)

    def _laid_out(
        self, record: StateRecord, target: str, present: StateIndex | None, only: tuple[bytes, ...]
    ) -> DirectoryRestore:
        index = chunks.StateFiles(self._store.paths).read_index(record.index)
        # There is nothing to keep: all of it is one fresh tree.
        if present is None:
            devices = [e.path for e in index.entries if e.kind == "device"]
            self.refuse_devices(p for p in devices if _is_chosen(p, only))
            observed = fingerprint.NOTHING
            steps = {b"": ExchangeStep(target, exchange.fresh_path(target), seen=observed)}
            return DirectoryRestore(record, index, steps, only=only)
        changes = compare(self._store.paths, present, index)
        changes.paths = {path for path in changes.paths if _is_chosen(path, only)}
        changes.stale = {path for path in changes.stale if _is_chosen(path, only)}
        self.refuse_devices(changes.devices)
        entries = {entry.path: entry for entry in present.entries}
        fixed = _fixed(target, changes, entries)
        _refuse_mounted(target, changes, entries, fixed)
        if only:
            tops = _chosen_tops(target, changes, entries, only, fixed)
        else:
            tops = _tops(target, changes, fixed)
        stamps, notes = _stamps(tops, changes, entries, fixed, only)
        steps = {}
        is_layered = filesystems.is_layered(target)
        observations = fingerprint.of_entries(entries, tops, is_layered=is_layered)
        for top, observed in observations.items():
            path = _joined(target, top)
            steps[top] = ExchangeStep(path, exchange.fresh_path(path), seen=observed)
            if top:
                # Until the step is complete: what gives the directory back its time.
                outer = entries[os.path.dirname(top)]
                before = (outer.path.hex(), outer.mtime, -1)
                steps[top] = replace(steps[top], root=target, stamps=(before,))
        if stamps and not steps:
            # Only times differ: a step without a tree, so that they are set as the others are.
            steps[b""] = ExchangeStep(target, exchange.fresh_path(target), 0, target)
        live = LiveDirectory(target, entries, changes.equal)
        return DirectoryRestore(record, index, steps, stamps, live, only, notes)

    def extract(self, progress: ProgressCallback | None) -> None:
        """Make the fresh trees durably; their steps are not noted yet. An error leaves nothing.
        Raises Damaged, StateRefused, OSError."""
        steps = [step for restore in self.directories for step in restore.steps.values()]
        # First, so that whoever comes after a crash knows what to delete.
        exchange.write_journal(self._store, steps)
        notes, complete = list[str](), list[ExchangeStep]()
        # Filled before all are complete: an error may come after the first.
        try:
            for restore in self.directories:
                extraction, step_paths = self._extract(restore, progress)
                notes += [f"{restore.record.label}: {note}" for note in extraction]
                complete += step_paths
        except BaseException:
            exchange.discard(self._store, steps)
            raise
        self.notes, self.steps = tuple(notes), tuple(complete)

    def _extract(
        self, restore: DirectoryRestore, progress: ProgressCallback | None
    ) -> tuple[tuple[str, ...], list[ExchangeStep]]:
        extraction = Extractor(
            self._store.paths,
            restore.record.index,
            restore.index,
            progress,
            live=restore.live,
            only=restore.only,
            skip=self._skip,
        )
        saved_paths = {entry.path for entry in restore.index.entries}
        is_time_alone = list(restore.steps) == [b""] and bool(restore.steps[b""].root)
        folders: dict[str, dict[bytes, ExchangeStep]] = {}
        for top, step in restore.steps.items():
            # Each directory is opened once, and its fresh trees are extracted together.
            folders.setdefault(os.path.dirname(step.target), {})[top] = step
        step_paths = []
        for steps in folders.values():
            neighbour = next(iter(steps.values()))
            with exchange.open_parent(neighbour) as folder:
                names = {
                    top: os.fsencode(os.path.basename(step.fresh))
                    for top, step in steps.items()
                    if top in saved_paths and not is_time_alone
                }
                if names:
                    with Folder(os.path.dirname(neighbour.target)).naming_full():
                        extraction.run(folder, names)
                for top, step in steps.items():
                    name = names.get(top, os.fsencode(os.path.basename(step.target)))
                    inode = 0 if is_time_alone else exchange.inode_of(name, folder)
                    # What is not there was skipped, or has gone by itself.
                    inode = (inode if top in names else -inode) or _NOTHING
                    step_paths.append(replace(step, inode=inode, stamps=()))
        if step_paths and restore.stamps:
            step_paths[0] = replace(step_paths[0], stamps=restore.stamps)
        return (*restore.notes, *extraction.notes), step_paths

    @contextlib.contextmanager
    def discarding_on_error(self) -> Iterator[None]:
        """Delete the fresh trees if the body fails: nothing was exchanged, and all is as it was."""
        try:
            yield
        except BaseException:
            exchange.discard(self._store, self.steps)
            raise

    def carry_out(self) -> None:
        """Exchange what was extracted: from here on a run that dies is finished, not taken back."""
        exchange.write_journal(self._store, self.steps)
        exchange.recover(self._store)

    def remnants(self) -> tuple[str, ...]:
        """Say what could not be set, and what of the old directories is left, as this user may not
        delete it, or as it was written to meanwhile."""
        leftovers = (
            f"what was there before is left at {path}: this user may not delete all of it"
            for path in exchange.leftovers(self.steps)
        )
        return (*self.notes, *exchange.kept_notes(self.steps), *leftovers)


def _is_chosen(path: bytes, only: tuple[bytes, ...]) -> bool:
    return not only or any(is_inside(path, chosen_path) for chosen_path in only)


def _fixed(target: str, changes: Changes, entries: dict[bytes, StateEntry]) -> set[bytes]:
    """Return what is not exchanged itself, as it is a mount point or around one, or the directory
    itself where it has no other place; all above it, too."""
    paths = filesystems.mounts_in(target)
    if not is_exchangeable(target):
        paths.add(b"")
    # Of a lower layer no directory can be, and nobody says which are: what stays is not exchanged.
    if filesystems.is_layered(target):
        for path in changes.paths:
            while path and not _stays_folder(path, changes, entries):
                path = os.path.dirname(path)
            paths.add(path)
    fixed = set[bytes]()
    for path in paths:
        while path not in fixed:
            fixed.add(path)
            path = os.path.dirname(path)
    return fixed


def _stays_folder(path: bytes, changes: Changes, entries: dict[bytes, StateEntry]) -> bool:
    before, after = entries.get(path), changes.targets.get(path)
    return before is not None and after is not None and before.kind == after.kind == "dir"


def _tops(target: str, changes: Changes, fixed: set[bytes]) -> list[bytes]:
    top = changes.top()
    if top is None:
        return []
    while top and top not in fixed and not is_exchangeable(_joined(target, top)):
        top = os.path.dirname(top)
    return [top] if top not in fixed else sorted(_tops_around(target, changes.paths, fixed))


def _refuse_mounted(
    target: str, changes: Changes, entries: dict[bytes, StateEntry], fixed: set[bytes]
) -> None:
    """Raise StateRefused where a mount point has to become something else than a directory."""
    for path in sorted(fixed & changes.paths):
        if not _stays_folder(path, changes, entries):
            raise StateRefused(
                f"{_joined(target, path)} is a mount point, or holds one, and cannot be replaced:"
                " unmount it first"
            )


def _tops_around(target: str, paths: Iterable[bytes], fixed: set[bytes]) -> set[bytes]:
    """Return what is exchanged for some paths where what holds them stays in its place. Raises
    StateRefused where it cannot be."""
    tops = set()
    for path in paths:
        top = path
        while top not in fixed and (outer := os.path.dirname(top)) not in fixed:
            top = outer
        if top not in fixed:
            tops.add(top)
    for top in sorted(tops):
        _require_exchangeable(target, top)
    return tops


def _require_exchangeable(target: str, top: bytes) -> None:
    if not is_exchangeable(path := _joined(target, top)):
        raise StateRefused(f"{path}: this user may not replace it")


def _joined(target: str, path: bytes) -> str:
    return f"{target}/{os.fsdecode(path)}" if path else target


def _chosen_tops(
    target: str,
    changes: Changes,
    entries: dict[bytes, StateEntry],
    only: tuple[bytes, ...],
    fixed: set[bytes],
) -> list[bytes]:
    """Return what is exchanged for some paths alone: each, or the directory of it that is missing.
    Raises StateRefused where it has no place."""
    tops = set()
    for top in only:
        inner = [path for path in changes.paths if is_inside(path, top)]
        if not inner:
            continue
        # A path below a directory that is gone comes with it.
        while (outer := os.path.dirname(top)) not in entries:
            top = outer
        if entries[outer].kind != "dir":
            raise StateRefused(f"{_joined(target, outer)} is no directory now: move it away first")
        if top in fixed:
            tops |= _tops_around(target, inner, fixed)
        else:
            _require_exchangeable(target, top)
            tops.add(top)
    return sorted(
        # A path within another one comes along with that.
        t
        for t in tops
        if not any(t != candidate and is_inside(t, candidate) for candidate in tops)
    )


def _stamps(
    tops: list[bytes],
    changes: Changes,
    entries: dict[bytes, StateEntry],
    fixed: set[bytes],
    only: tuple[bytes, ...],
) -> tuple[tuple[Stamp, ...], tuple[str, ...]]:
    """Return what is set once everything is in its place, the innermost first, and what cannot."""
    # What lies within a fresh tree has its times already.
    fresh = set(tops)
    folders = {path for path in changes.stale if fingerprint.top_of(path, fresh) is None}
    outer = {os.path.dirname(top) for top in tops if top}
    folders.update(path for path in outer if _is_chosen(path, only))
    modes, notes, target = {}, [], changes.targets
    # It cannot be exchanged, so that its own mode is set where it stands.
    for path in sorted(fixed & changes.paths):
        folders.add(path)
        old, new = entries[path], target[path]
        modes[path] = new.mode
        if (old.uid, old.gid, old.xattrs) != (new.uid, new.gid, new.xattrs):
            name = shown(path) or "the directory itself"
            notes.append(f"the owner and attributes of {name} stay as they are")
    ordered = sorted((path for path in folders if path in target), reverse=True)
    # Sorted backwards, the innermost come first.
    stamps = [(path.hex(), target[path].mtime, modes.get(path, -1)) for path in ordered]
    return tuple(stamps), tuple(notes)


def is_writable(directory: str) -> bool:
    """Whether this user may change the names in a directory."""
    return os.access(directory, os.W_OK | os.X_OK, effective_ids=True)


def is_exchangeable(path: str) -> bool:
    """Whether a file or directory itself can be exchanged, or made, and not only what is in it."""
    parent = os.path.dirname(path)
    if b"" in filesystems.mounts_in(path) or not is_writable(parent):
        return False
    if filesystems.is_fixed(path) or filesystems.is_fixed(parent):
        return False
    # With the sticky bit only owners may rename a name, or the owner of the directory.
    around, user = os.stat(parent), os.geteuid()
    if not around.st_mode & stat.S_ISVTX or user in (0, around.st_uid):
        return True
    return not os.path.lexists(path) or os.lstat(path).st_uid == user
