"""Restore: putting a saved state where it was, or elsewhere, whole or not at all.

    1 extract every directory next to its target, checking each byte
    2 save what the targets hold now as a state, so that this can be undone
    3 note the exchanges in cache/restore.json; exchange each directory with its target
    4 delete what was exchanged out, then the note

Up to 3 nothing of the targets has changed. A run that dies in 3 is finished by the next one, or by
the next save: one exchange is atomic, and the note says which are left.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from lakelog.chunks.state_files import StateRecord
from lakelog.errors import StateRefused, UnknownRef
from lakelog.lake import Lake
from lakelog.state import exchange, rewind
from lakelog.state.capture import Progress
from lakelog.state.exchange import Step
from lakelog.state.extract import Extraction
from lakelog.state.listing import (
    BEFORE_RESTORE,
    RESTORE_MESSAGE,
    SavedState,
    find_state,
    list_states,
)
from lakelog.state.origin import Origins
from lakelog.state.state import check_label, contains, save_state
from lakelog.store import disk, policy
from lakelog.store.bootstrap import Store
from lakelog.store.publish import note, with_reason


@dataclass(frozen=True)
class Restored:
    """What a restore did: the state, its targets by label, the state that was saved before (None
    where nothing was overwritten), and what could not be set."""

    state: SavedState
    targets: dict[str, str]
    backup: str | None
    notes: tuple[str, ...]


def restore_state(
    lake: Lake,
    name: str = "latest",
    *,
    to: str | Mapping[str, str] | None = None,
    labels: tuple[str, ...] = (),
    source: str = "",
    why: str = "",
    progress: Progress | None = None,
) -> Restored:
    """Put the directories of a state, or those of some `labels`, where they were, or to the
    directory `to` (in directories of their labels where there are several, or each to its own).
    Those of another machine need `to`. `latest` is one of this machine, or of the machine `source`,
    which may be ANY.

    The log says so, and `why`. Raises UnknownRef, NotAllowed, StateRefused and Damaged before
    anything is overwritten; OSError.
    """
    require_enabled()
    policy.require(lake.store.paths, "restore")
    with exchange.alone(lake.store) as is_alone:
        if not is_alone:
            raise StateRefused("another process is restoring a state: wait for it")
        told = rewind.recover(lake.store).notes
        state = find_state(lake, name, source)
        records = _chosen(state, labels)
        targets = _targets(lake, records, to)
        steps = [Step(target, exchange.fresh_path(target)) for target in targets.values()]
        exchange.write_journal(lake.store, steps)
        try:
            notes, steps = extract(lake.store, records, steps, progress)
            backup = _save_present(lake, state, targets)
        except BaseException:
            exchange.discard(lake.store, steps)
            raise
        # From here on a run that dies is finished, not taken back.
        exchange.write_journal(lake.store, steps)
        exchange.recover(lake.store)
        words = with_reason(f"{state.name} to {', '.join(targets.values())}", why)
        note(lake.store, lake.branch_name, "restore", words)
        return Restored(state, targets, backup, told + notes)


def undo_restore(lake: Lake, progress: Progress | None = None, why: str = "") -> Restored:
    """Restore what the last restore of this machine overwrote. Raises UnknownRef where there is
    nothing."""
    return restore_state(lake, overwritten(lake).name, why=why, progress=progress)


def overwritten(lake: Lake) -> SavedState:
    """Return what the last restore of this machine overwrote. Raises UnknownRef."""
    for state in list_states(lake):
        if state.is_own and state.before == BEFORE_RESTORE:
            return state
    raise UnknownRef("no restore has overwritten anything: there is nothing to undo")


def require_enabled() -> None:
    """Raise StateRefused where restoring is turned off."""
    if not is_enabled("RESTORE_ENABLED"):
        raise StateRefused("nothing was restored: RESTORE_ENABLED is off")


def is_enabled(variable: str) -> bool:
    """Whether an environment variable does not switch something off."""
    return os.environ.get(variable, "").strip().lower() not in ("0", "false", "no", "off")


def check_restore(
    lake: Lake,
    name: str = "latest",
    to: str | Mapping[str, str] | None = None,
    labels: tuple[str, ...] = (),
    source: str = "",
) -> tuple[SavedState, dict[str, str]]:
    """Return the state and the targets by label that a restore would have. Raises UnknownRef,
    StateRefused, Damaged."""
    state = find_state(lake, name, source)
    return state, _targets(lake, _chosen(state, labels), to)


def _chosen(state: SavedState, labels: tuple[str, ...]) -> list[StateRecord]:
    known = {record.label: record for record in state.directories}
    if missing := [label for label in labels if label not in known]:
        raise UnknownRef(f"{state.name} holds no {missing[0]!r}, but {', '.join(sorted(known))}")
    return [known[label] for label in labels] or list(state.directories)


def _targets(
    lake: Lake, records: list[StateRecord], to: str | Mapping[str, str] | None
) -> dict[str, str]:
    """Return where each directory goes, by label. Raises StateRefused where it cannot go there."""
    targets: dict[str, str] = {}
    origins = Origins(lake.store)
    for record in records:
        check_label(record.label)
        path = record.path
        if to is None or (isinstance(to, Mapping) and record.label not in to):
            origins.require_own(record)
        if isinstance(to, Mapping):
            path = to.get(record.label, path)
        elif to is not None:
            path = (
                os.path.abspath(to)
                if len(records) == 1
                else f"{os.path.abspath(to)}/{record.label}"
            )
        check_target(lake, path, record.label)
        targets[record.label] = path
    check_apart(targets)
    return targets


def check_apart(targets: dict[str, str]) -> None:
    """Raise StateRefused where a directory holds another one."""
    for label, path in targets.items():
        others = (other for each, other in targets.items() if each != label)
        if any(contains(path, other) for other in others):
            raise StateRefused(f"{path} holds another directory of this state: restore one by one")


def check_target(lake: Lake, path: str, label: str) -> None:
    """Raise StateRefused where a directory cannot be put at a path."""
    if not os.path.isabs(path) or os.path.normpath(path) != path or path == "/":
        raise StateRefused(f"{path!r} is no place for {label!r}: choose one with --to")
    if os.path.realpath(path) != path:
        raise StateRefused(f"{path} leads through a link: name {os.path.realpath(path)} with --to")
    root = os.path.realpath(lake.path)
    if contains(path, root) or contains(root, path):
        raise StateRefused(f"{path} is where the lake is: choose another directory with --to")
    if os.path.lexists(path) and not os.path.isdir(path):
        raise StateRefused(f"{path} is no directory: move it away, or choose another with --to")
    if os.path.ismount(path):
        raise StateRefused(
            f"{path} is a mount point, which cannot be exchanged: keep the state in a directory"
            " inside it, or choose another with --to"
        )
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        raise StateRefused(f"{parent}: no such directory: create it first")


def extract(
    store: Store, records: list[StateRecord], steps: list[Step], progress: Progress | None
) -> tuple[tuple[str, ...], list[Step]]:
    """Make the fresh directories of steps durably; return what could not be set, and the steps
    with their inodes. Raises Damaged, OSError."""
    notes, complete = [], []
    for record, step in zip(records, steps, strict=True):
        extraction = Extraction(store.paths, record.index, progress)
        extraction.run(step.fresh)
        disk.sync_dir(os.path.dirname(step.fresh))
        notes += [f"{record.label}: {note}" for note in extraction.notes]
        complete.append(Step(step.target, step.fresh, os.stat(step.fresh).st_ino))
    return tuple(notes), complete


def _save_present(lake: Lake, state: SavedState, targets: dict[str, str]) -> str | None:
    """Save what will be overwritten; return the name of that state."""
    present = {label: path for label, path in targets.items() if os.path.isdir(path)}
    if not present:
        return None
    # Without pruning: the state that is being restored could be the oldest.
    message = RESTORE_MESSAGE + state.name
    saved = save_state(lake, present, message=message, keep=None, before=BEFORE_RESTORE)
    return saved.state.name
