"""Restore: putting a saved state where it was, or elsewhere, whole or not at all.

    1 read what the targets hold now, and compare: what is equal stays
    2 extract what differs next to its targets, checking each byte
    3 save what the targets hold now as a state, so that this can be undone
    4 note the exchanges in cache/restore.json; exchange each fresh tree with its target
    5 delete what was exchanged out, then the note

Up to 4 nothing of the targets has changed. A run that dies in 4 is finished by the next one, or by
the next save: one exchange is atomic, and the note says which are left. It takes one for each
directory, but for one that cannot be exchanged itself, as a mount or where its parent is another
user's: of that, every name below which something differs is exchanged.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lakelog.chunks import StateRecord
from lakelog.errors import StateRefused, UnknownRef
from lakelog.lake import Lake
from lakelog.moves import note, with_reason
from lakelog.runtime.progress import ProgressCallback
from lakelog.state import exchange, filesystems, rewind
from lakelog.state.exchange import ExchangeStep
from lakelog.state.listing import (
    BEFORE_RESTORE,
    RESTORE_MESSAGE,
    SavedState,
    find_state,
    list_states,
)
from lakelog.state.origin import Origins
from lakelog.state.parts import extract, is_exchangeable, is_writable, lay_out
from lakelog.state.present import capturing, check_label, contains
from lakelog.state.state import locate, publish_captured
from lakelog.store import policy


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
    paths: tuple[str, ...] = (),
    source: str = "",
    why: str = "",
    skip: bool = False,
    progress: ProgressCallback | None = None,
) -> Restored:
    """Put the directories of a state, or those of some `labels`, where they were, or to the
    directory `to` (in directories of their labels where there are several, or each to its own);
    of `paths`, as in read_file, only these. Those of another machine need `to`. `latest` is one of
    this machine, or of the machine `source`, which may be ANY. `skip` leaves out what cannot be
    made.

    The log says so, and `why`. Raises UnknownRef, NotAllowed, StateRefused and Damaged before
    anything is overwritten; OSError.
    """
    # Switches first, then rights: neither needs the lake to be read.
    require_enabled()
    policy.require(lake.store.paths, "restore")
    # One restore of a lake at a time, and none beside a rollback: both exchange directories.
    store = lake.store
    with exchange.alone(store) as is_alone:
        if not is_alone:
            raise StateRefused("another process is restoring a state: wait for it")
        recovery_notes = rewind.recover(store).notes
        state = find_state(lake, name, source)
        records, only = _chosen(lake, state, labels, paths)
        targets = _targets(lake, records, to)
        # Against those who save these directories meanwhile, in whatever lake.
        with filesystems.held(targets.values(), shared=False), contextlib.ExitStack() as stack:
            # What is not there yet has nothing to keep, and to save.
            present_paths = {label: path for label, path in targets.items() if os.path.isdir(path)}
            present = stack.enter_context(capturing(lake, present_paths)) if present_paths else None
            indices = present.indices if present else {}
            parts = [
                lay_out(
                    store,
                    r,
                    targets[r.label],
                    indices.get(r.label),
                    only.get(r.label, ()),
                    skip=skip,
                )
                for r in records
            ]
            notes, steps = extract(store, parts, progress)
            try:
                backup = None
                if present is not None:
                    # Without pruning: the state that is being restored could be the oldest.
                    message = RESTORE_MESSAGE + state.name
                    backup = publish_captured(
                        lake, present, None, message, before=BEFORE_RESTORE
                    ).name
            except BaseException:
                # Nothing was exchanged: the fresh trees go, and all is as it was.
                exchange.discard(store, steps)
                raise
            # From here on a run that dies is finished, not taken back.
            exchange.write_journal(store, steps)
            exchange.recover(store)
        # After the exchange: a log that says so of a restore that died would be wrong.
        move_message = with_reason(f"{state.name} to {', '.join(targets.values())}", why)
        note(store, lake.branch_name, "restore", move_message)
        return Restored(state, targets, backup, (*recovery_notes, *notes, *undeleted(steps)))


def undeleted(steps: Sequence[ExchangeStep]) -> list[str]:
    """Say what of the old directories is left, as this user may not delete it, or as it was written
    to meanwhile."""
    return exchange.kept_notes(steps) + [
        f"what was there before is left at {path}: this user may not delete all of it"
        for path in exchange.leftovers(steps)
    ]


def undo_restore(
    lake: Lake, progress: ProgressCallback | None = None, why: str = "", *, skip: bool = False
) -> Restored:
    """Restore what the last restore of this machine overwrote. Raises UnknownRef where there is
    nothing."""
    return restore_state(lake, overwritten(lake).name, why=why, skip=skip, progress=progress)


def overwritten(lake: Lake) -> SavedState:
    """Return what the last restore of this machine overwrote. Raises UnknownRef."""
    # The newest comes first.
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
    paths: tuple[str, ...] = (),
) -> tuple[SavedState, dict[str, str]]:
    """Return the state and the targets by label that a restore would have. Raises UnknownRef,
    StateRefused, Damaged."""
    state = find_state(lake, name, source)
    return state, _targets(lake, _chosen(lake, state, labels, paths)[0], to)


def _chosen(
    lake: Lake, state: SavedState, labels: tuple[str, ...], paths: tuple[str, ...]
) -> tuple[list[StateRecord], dict[str, tuple[bytes, ...]]]:
    """Return the directories to restore, and the paths in them by label if only these are."""
    record_by_label = {record.label: record for record in state.directories}
    if missing := [label for label in labels if label not in record_by_label]:
        raise UnknownRef(
            f"{state.name} holds no {missing[0]!r}, but {', '.join(sorted(record_by_label))}"
        )
    records = [record_by_label[label] for label in labels] or list(state.directories)
    if not paths:
        return records, {}
    only: dict[str, tuple[bytes, ...]] = {}
    for path in paths:
        label, inner_path = locate(lake, replace(state, directories=tuple(records)), path)
        only[label] = (*only.get(label, ()), inner_path)
    return [record for record in records if record.label in only], only


def _targets(
    lake: Lake, records: list[StateRecord], to: str | Mapping[str, str] | None
) -> dict[str, str]:
    """Return where each directory goes, by label. Raises StateRefused where it cannot go there."""
    targets: dict[str, str] = {}
    origins = Origins(lake.store)
    for record in records:
        check_label(record.label)
        path = record.path
        # The path in a record of another machine may be anything: it is not written to by itself.
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
        other_paths = (
            other_path for other_label, other_path in targets.items() if other_label != label
        )
        if any(contains(path, other_path) for other_path in other_paths):
            raise StateRefused(f"{path} holds another directory of this state: restore one by one")


def check_target(lake: Lake, path: str, label: str) -> None:
    """Raise StateRefused where a directory cannot be put at a path."""
    # normpath: `..` and double slashes would compare as other directories.
    if not os.path.isabs(path) or os.path.normpath(path) != path or path == "/":
        raise StateRefused(f"{path!r} is no place for {label!r}: choose one with --to")
    # A link could be changed between this look and the exchange.
    if os.path.realpath(path) != path:
        raise StateRefused(f"{path} leads through a link: name {os.path.realpath(path)} with --to")
    root = os.path.realpath(lake.path)
    if contains(path, root) or contains(root, path):
        raise StateRefused(f"{path} is where the lake is: choose another directory with --to")
    if os.path.lexists(path) and not os.path.isdir(path):
        raise StateRefused(f"{path} is no directory: move it away, or choose another with --to")
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        raise StateRefused(f"{parent}: no such directory: create it first")
    if not (is_exchangeable(path) or (os.path.isdir(path) and is_writable(path))):
        raise StateRefused(f"{path}: this user may not write there, nor to {parent}")
