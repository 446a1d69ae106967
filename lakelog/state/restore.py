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
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lakelog.chunks import StateRecord
from lakelog.errors import StateRefused, UnknownRef
from lakelog.lake import Lake
from lakelog.moves import note, with_reason
from lakelog.runtime.progress import ProgressCallback
from lakelog.state.catalog import StateCatalog
from lakelog.state.contents import StateContents
from lakelog.state.present import Present
from lakelog.state.restore_plan import RestorePlan
from lakelog.state.rewind import Rollbacks
from lakelog.state.saved_state import RESTORE_MESSAGE, SavedState
from lakelog.state.switch import StateSwitch
from lakelog.store import Policy


@dataclass(frozen=True)
class Restored:
    """What a restore did: the state, its targets by label, the state that was saved before (None
    where nothing was overwritten), and what could not be set."""

    state: SavedState
    targets: dict[str, str]
    backup: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class RestoreRequest:
    """Which directories of a state are put where: all, or those of some `labels`, where they were,
    or to the directory `to` (in directories of their labels where there are several, or each to its
    own); of `paths`, as in StateCatalog.read_file, only these. Those of another machine need `to`.
    `latest` is one of this machine, or of the machine `source`, which may be ANY."""

    lake: Lake
    name: str = "latest"
    to: str | Mapping[str, str] | None = None
    labels: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    source: str = ""

    def check(self) -> tuple[SavedState, dict[str, str]]:
        """Return the state and the targets by label that a restore would have. Raises UnknownRef,
        StateRefused, Damaged."""
        state = StateCatalog(self.lake).find(self.name, self.source)
        return state, RestorePlan(self.lake).targets(self._chosen(state)[0], self.to)

    def run(
        self, why: str = "", *, skip: bool = False, progress: ProgressCallback | None = None
    ) -> Restored:
        """Restore it. `skip` leaves out what cannot be made. The log says so, and `why`. Raises
        UnknownRef, NotAllowed, StateRefused and Damaged before anything is overwritten; OSError."""
        # Switches first, then rights: neither needs the lake to be read.
        StateSwitch.RESTORE.require()
        lake, rollbacks = self.lake, Rollbacks(self.lake.store)
        Policy.require(lake.store.paths, "restore")
        # One restore of a lake at a time, and none beside a rollback: both exchange directories.
        with rollbacks.alone() as is_alone:
            if not is_alone:
                raise StateRefused("another process is restoring a state: wait for it")
            recovery_notes = rollbacks.recover().notes
            state = StateCatalog(lake).find(self.name, self.source)
            records, only = self._chosen(state)
            plan = RestorePlan(lake, skip=skip)
            targets = plan.targets(records, self.to)
            with plan.holding(targets.values()), contextlib.ExitStack() as stack:
                # What is not there yet has nothing to keep, and to save.
                paths = {label: path for label, path in targets.items() if os.path.isdir(path)}
                present = stack.enter_context(Present.capture(lake, paths)) if paths else None
                indices = present.indices if present else {}
                for r in records:
                    label = r.label
                    plan.lay_out(r, targets[label], indices.get(label), only.get(label, ()))
                plan.extract(progress)
                with plan.discarding_on_error():
                    backup = None
                    if present is not None:
                        # Without pruning: the state that is being restored could be the oldest.
                        message, before = RESTORE_MESSAGE + state.name, SavedState.BEFORE_RESTORE
                        backup = present.publish(lake, None, message, before=before).name
                plan.carry_out()
            # After the exchange: a log that says so of a restore that died would be wrong.
            move_message = with_reason(f"{state.name} to {', '.join(targets.values())}", why)
            note(lake.store, lake.branch_name, "restore", move_message)
            return Restored(state, targets, backup, (*recovery_notes, *plan.remnants()))

    def _chosen(self, state: SavedState) -> tuple[list[StateRecord], dict[str, tuple[bytes, ...]]]:
        """Return the directories to restore, and the paths in them by label if only these are."""
        record_by_label = {record.label: record for record in state.directories}
        if missing := [label for label in self.labels if label not in record_by_label]:
            raise UnknownRef(
                f"{state.name} holds no {missing[0]!r}, but {', '.join(sorted(record_by_label))}"
            )
        records = [record_by_label[label] for label in self.labels] or list(state.directories)
        if not self.paths:
            return records, {}
        only: dict[str, tuple[bytes, ...]] = {}
        contents = StateContents(self.lake.store.paths, replace(state, directories=tuple(records)))
        for path in self.paths:
            label, inner_path = contents.locate(path)
            only[label] = (*only.get(label, ()), inner_path)
        return [record for record in records if record.label in only], only


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
    """Put the directories of a state where they were, or elsewhere: see RestoreRequest and its
    `run`."""
    request = RestoreRequest(lake, name, to, labels, paths, source)
    return request.run(why, skip=skip, progress=progress)


def undo_restore(
    lake: Lake, progress: ProgressCallback | None = None, why: str = "", *, skip: bool = False
) -> Restored:
    """Restore what the last restore of this machine overwrote. Raises UnknownRef where there is
    nothing."""
    name = StateCatalog(lake).overwritten().name
    return restore_state(lake, name, why=why, skip=skip, progress=progress)
