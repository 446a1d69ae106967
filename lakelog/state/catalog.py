"""Which saved states a lake has, whose they are, which one is the latest, and which are pruned.

States of one machine are in the order of their saves, whatever the clock said. Those of another
one, which came with a fetch or a copy, are listed, and otherwise left alone unless asked for.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from lakelog import chunks
from lakelog.chunks import StateRecord
from lakelog.disk import File
from lakelog.errors import (
    AlreadyExists,
    Damaged,
    InvalidPolicy,
    NotAllowed,
    StateRefused,
    UnknownRef,
)
from lakelog.history import remove_tag
from lakelog.lake import Lake
from lakelog.moves import note, with_reason
from lakelog.refs import Tag
from lakelog.state.contents import PathChange, StateContents
from lakelog.state.extract import Extractor
from lakelog.state.origin import OPS, Origins
from lakelog.state.retention import Retention, select_expired
from lakelog.state.saved_state import SavedState
from lakelog.store import Machine, Policy

_NAMED = 5
_AUTOMATIC = re.compile(r"state-\d{8}-\d{6}(-[0-9a-f]{6})?(-\d+)?")


class StateCatalog:
    """The saved states of a lake."""

    def __init__(self, lake: Lake) -> None:
        self._lake, self._store = lake, lake.store

    @property
    def origins(self) -> Origins:
        """What tells whose they are, as this machine is known now."""
        return Origins(self._store)

    def states(self, op: str = "state") -> list[SavedState]:
        """Return the states, the last save first; those whose manifest is damaged are left out,
        which `verify` names. `op` is one of OPS."""
        states, store, origins = [], self._store, self.origins
        for name in store.refs.tag_names():
            if store.is_tracking(name):
                # What is known of a remote's tags is not this lake's.
                continue
            # One that is pruned meanwhile is none any more.
            with contextlib.suppress(Damaged, UnknownRef):
                if (state := self._state(store.refs.tag(name), (op,), origins)) is not None:
                    states.append(state)
        return sorted(states, key=lambda state: state.place, reverse=True)

    def _state(self, tag: Tag, ops: tuple[str, ...], origins: Origins) -> SavedState | None:
        """Return the state of a tag, None where its manifest was not made by such a save."""
        manifest = self._store.manifests.of(tag)
        if manifest.op not in ops:
            return None
        records = StateRecord.all_of(self._store.manifests, manifest)
        return SavedState.of(tag, records, origins, manifest.commit)

    def refuse_taken(self, name: str | None) -> None:
        """Raise AlreadyExists for the name of a tag that there is, StateRefused for `latest`."""
        # It means whatever is the newest: a state of that name could not be restored by it.
        if name == "latest":
            raise StateRefused("'latest' means the newest: choose another name")
        if name is not None and File(self._store.paths.tag(name)).exists():
            raise AlreadyExists(f"tag {name!r} exists: choose another name, or delete it first")

    def find(self, name: str, source: str = "") -> SavedState:
        """Return the state of a name, `latest` being the one of this machine that the branch holds,
        or of the machine `source`, which may be Machine.ANY. Raises UnknownRef, Damaged."""
        if name != "latest":
            state = self._state(self._store.refs.tag(name), OPS, self.origins)
            if state is None:
                raise UnknownRef(f"tag {name!r} names no saved state: see `lakelog state list`")
            return state
        states = self.states()
        if not states:
            raise UnknownRef(
                "no state is saved in this lake: `lakelog state save --dir PATH` saves one"
            )
        candidates = _states_of(states, source)
        if not candidates:
            id = Machine.short(states[0].machine)
            raise UnknownRef(
                f"no state was saved by this machine: the last one is {states[0].name} of machine"
                f" {id}; `--from {id}`, or `--from {Machine.ANY}`, takes"
                " states of others, `lakelog machine adopt` makes them this machine's"
            )
        return self._latest_of(candidates)

    def overwritten(self) -> SavedState:
        """Return what the last restore of this machine overwrote. Raises UnknownRef."""
        # The newest comes first.
        for state in self.states():
            if state.is_own and state.before == SavedState.BEFORE_RESTORE:
                return state
        raise UnknownRef("no restore has overwritten anything: there is nothing to undo")

    def diff(self, old: str, new: str) -> list[PathChange]:
        """Return what was added, removed or changed from one state to another, ordered by path.
        Raises UnknownRef, Damaged."""
        return self._contents(old).diff(self._contents(new))

    def read_file(self, name: str, path: str) -> Iterator[bytes]:
        """Yield the content of a file of a state; the path may begin with the directory's label.
        Raises UnknownRef, Damaged."""
        # Found once: `latest` may be another state a moment later.
        return self._contents(name).read(path)

    def _contents(self, name: str) -> StateContents:
        return StateContents(self._store.paths, self.find(name))

    def extract(self, record: StateRecord, target: str) -> None:
        """Create a saved directory at a path where nothing is, durably. Raises DamagedState,
        StateRefused, OSError."""
        index = chunks.StateFiles(self._store.paths).read_index(record.index)
        Extractor(self._store.paths, record.index, index).create(target)

    def clean(
        self, keep: Retention, why: str = "", source: str = "", dry_run: bool = False
    ) -> list[str]:
        """Delete the oldest states of this machine with names of their own making, all but those to
        `keep`; of each machine by itself with the `source` ANY. Return their names. gc then deletes
        what no other state needs. The log says so, and `why`. Raises NotAllowed, UnknownRef."""
        if not dry_run:
            Policy.require(self._store.paths, "clean")
        # Each machine's own states are counted for themselves.
        states_by_machine: dict[str, list[SavedState]] = {}
        for state in _states_of(self.states(), source):
            states_by_machine.setdefault("" if state.is_own else state.machine, []).append(state)
        expired = [s for states in states_by_machine.values() for s in self._expired(states, keep)]
        if dry_run:
            return [state.name for state in expired]
        names = self._delete(expired)
        if names:
            message = f"deleted {len(names):,} states: {', '.join(names[:_NAMED])}"
            message += ", ..." if len(names) > _NAMED else ""
            note(self._store, self._lake.branch_name, "clean", with_reason(message, why))
        return names

    def prune(self, keep: Retention, new_state: SavedState) -> tuple[list[str], tuple[str, ...]]:
        """Delete what a save has made too many, if its user may delete states; else say so."""
        states = [state for state in self.states() if state.is_own]
        # Whatever else: not what was saved just now.
        expired = [s for s in self._expired(states, keep) if s.name != new_state.name]
        if not expired:
            return [], ()
        try:
            Policy.require(self._store.paths, "clean")
        except (InvalidPolicy, NotAllowed) as error:
            return [], (f"no older state was pruned: {error}",)
        return self._delete(expired), ()

    def _expired(self, states: list[SavedState], keep: Retention) -> list[SavedState]:
        """Return which states of one machine to delete. What was saved before restores is counted
        by itself: it takes the place of no state that somebody meant to save."""
        automatic = [state for state in states if _AUTOMATIC.fullmatch(state.name)]
        saves = [state for state in automatic if not state.before]
        backups = [state for state in automatic if state.before]
        expired = select_expired(saves, keep) + select_expired(backups, Retention(keep.last))
        if keep.is_all or not expired:
            # Keeping nothing is what was asked for.
            return expired
        # After a rollback it may be an old one.
        latest = self._latest_of(states).snapshot
        return [state for state in expired if state.snapshot != latest]

    def _delete(self, states: list[SavedState]) -> list[str]:
        deleted = []
        for state in states:
            # Another process may have pruned it.
            with contextlib.suppress(UnknownRef):
                remove_tag(self._store, state.name)
                deleted.append(state.name)
        return deleted

    def _latest_of(self, states: list[SavedState]) -> SavedState:
        """Return the state that the branch holds: after a rollback the one that it went back to,
        and never what was saved just before a restore, which somebody wanted to leave."""
        # Of the names of one save the one that it was given, not that of a safety tag.
        by_preference = sorted(states, key=lambda state: not state.before)
        state_by_key = {_key(r): state for state in by_preference for r in state.directories}
        saves = {r.save: state for state in by_preference for r in state.directories if r.save}
        machines = {state.machine for state in states if not state.is_own}
        # Own records count only where own states are asked for.
        with_own = any(state.is_own for state in states)

        origins = self.origins

        def is_meant(record: StateRecord) -> bool:
            return (with_own and origins.is_own(record)) or record.machine in machines

        records = StateRecord.all_of(
            self._store.manifests, self._store.state(self._lake.branch_name)
        )
        current = StateRecord.newest(filter(is_meant, records))
        match = state_by_key.get(_key(current)) if current else None
        if current and not match:
            # The save that died had no name yet, that of a backup was pruned: what was held before.
            parent = saves.get(current.parent)
            match = (
                parent
                if current.before == SavedState.BEFORE_RESTORE or not (parent and parent.before)
                else None
            )
        # To what was held when that was saved, and so on: each is an earlier one, or it is forged.
        while match is not None and _is_backup(match):
            parent = saves.get(match.directories[0].parent)
            match = parent if parent is not None and parent.place < match.place else None
        candidates = [state for state in states if not state.before]
        return match or (candidates or states)[0]


def _states_of(states: list[SavedState], source: str) -> list[SavedState]:
    """Return the states of this machine, or of the machine `source`, which may be ANY. Raises
    UnknownRef."""
    if not source:
        return [state for state in states if state.is_own]
    id = Machine.find(source, {state.machine for state in states})
    # By the beginning of an id, where it is one of a machine that saved something here.
    return [state for state in states if id in (Machine.ANY, state.machine)]


def _is_backup(state: SavedState) -> bool:
    """Whether a state was saved before a restore, perhaps named by a safety tag, too."""
    records = [record.before for record in state.directories]
    return SavedState.BEFORE_RESTORE in (state.before, *records)


def _key(record: StateRecord) -> tuple[str, str, str, str, tuple[int, int]]:
    return record.label, record.index, record.path, record.save, record.place
