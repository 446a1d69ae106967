"""Saved states: state directories that are captured together, as one move of the branch and a tag.

A save publishes one manifest with a record of each directory, and tags it, so that tags, rollback,
diff, verify and gc mean what they always mean. A state is a tag whose manifest a save made. Names
that a save chose itself, `state-20250403-123456`, are pruned by their number; others stay.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lakelog.errors import DeploymentFailed, MissingPackage
from lakelog.lake import Lake
from lakelog.runtime.progress import ProgressCallback
from lakelog.state import filesystems
from lakelog.state.catalog import StateCatalog
from lakelog.state.present import Present, check_directories, contains
from lakelog.state.retention import Retention
from lakelog.state.rewind import Rollbacks
from lakelog.state.saved_state import SavedState


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


def save_state(
    lake: Lake,
    directories: Mapping[str, str],
    *,
    name: str | None = None,
    message: str = "",
    keep: int | Retention | None = Retention.LAST,
    exclude: tuple[str, ...] = (),
    progress: ProgressCallback | None = None,
    deployment: Mapping[str, str] | None = None,
    op: str = "state",
) -> SaveResult:
    """Save directories, given by their labels, as one state. `keep` prunes earlier states of this
    machine that have names of their own making, if the policy lets its user `clean`; None keeps
    all. `deployment` is the revision that it belongs to, by default that of the pod. `op` is one of
    OPS; only a `state` is listed as one.

    Raises StateRefused where a file cannot be read or a directory cannot be saved, and for the name
    `latest`; AlreadyExists for a taken name, OSError.
    """
    check_directories(lake, directories)
    # Before the directories are read, which may take minutes.
    StateCatalog(lake).refuse_taken(name)
    with (
        _undisturbed(lake, directories) as notes,
        Present.capture(lake, directories, exclude, progress, deployment) as present,
    ):
        state = present.publish(lake, name, message, op)
    pruned: list[str] = []
    # After it was published: what fails here has not lost the save.
    if keep is not None:
        keep = Retention(keep) if isinstance(keep, int) else keep
        pruned, refusal = StateCatalog(lake).prune(keep, state)
        notes += refusal
    return SaveResult(
        state,
        present.written,
        tuple(present.skipped),
        tuple(present.changed),
        tuple(pruned),
        tuple(notes),
    )


def list_states(lake: Lake, op: str = "state") -> list[SavedState]:
    """Return the states of a lake, the last save first: see StateCatalog.states."""
    return StateCatalog(lake).states(op)


@contextlib.contextmanager
def _undisturbed(lake: Lake, directories: Mapping[str, str]) -> Iterator[list[str]]:
    """Hold directories against those who restore them, and finish what a restore left undone;
    yields what to tell of that."""
    notes = list[str]()
    rollbacks, paths = Rollbacks(lake.store), list(map(os.path.realpath, directories.values()))
    # Twice: whoever held the directories may have died and left something to finish.
    for is_last in (False, True):
        with rollbacks.alone() as is_alone:
            if is_alone:
                # A cluster that does not answer has nothing to do with what is saved here.
                with contextlib.suppress(DeploymentFailed, MissingPackage):
                    notes += rollbacks.recover().notes
        with filesystems.holding(paths, shared=True):
            # Half of a restore is no state to save: whoever held these noted that, and died.
            targets = [step.target for step in rollbacks.pending_steps()]
            pairs = [(path, target) for path in paths for target in targets]
            if is_last or not any(contains(a, b) or contains(b, a) for a, b in pairs):
                yield notes
                return
