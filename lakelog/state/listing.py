"""Which saved states a lake has, whose they are, and which one is the latest.

States of one machine are in the order of their saves, whatever the clock said. Those of another
one, which came with a fetch or a copy, are listed, and otherwise left alone unless asked for.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from lakelog import chunks
from lakelog.chunks import StateRecord
from lakelog.errors import Damaged, UnknownRef
from lakelog.lake import Lake
from lakelog.state.origin import OPS, Origins, newest, short
from lakelog.store import machine
from lakelog.store.machine import ANY
from lakelog.store.ref import Tag
from lakelog.store.tracking import is_tracking

BEFORE_RESTORE, BEFORE_ROLLBACK = "restore", "rollback"
"""Before what a state was saved that nobody asked for."""
RESTORE_MESSAGE = "before restore of "
_SAFETY = "before-rollback-"


@dataclass(frozen=True)
class SavedState:
    """A state: its tag and the directories that were captured by its save. `machine` saved it, ""
    before there were ids; `is_own` if that is this one. `before` is "restore" or "rollback" if it
    was saved before one."""

    name: str
    snapshot: str
    time: int
    author: str
    message: str
    directories: tuple[StateRecord, ...]
    machine: str = ""
    is_own: bool = True
    before: str = ""

    @property
    def place(self) -> tuple[int, int, str]:
        """Where it stands among the states of its machine."""
        return *max((record.place for record in self.directories), default=(0, 0)), self.name

    @property
    def bytes(self) -> int:
        """The bytes of all files."""
        return sum(record.bytes for record in self.directories)

    @property
    def files(self) -> int:
        """The number of files."""
        return sum(record.files for record in self.directories)


def list_states(lake: Lake, op: str = "state") -> list[SavedState]:
    """Return the states of the lake, the last save first; those whose manifest is damaged are left
    out, which `verify` names. `op` is one of OPS."""
    states, store, origins = [], lake.store, Origins(lake.store)
    for name in store.refs.tag_names():
        if is_tracking(store, name):
            # What is known of a remote's tags is not this lake's.
            continue
        # One that is pruned meanwhile is none any more.
        with contextlib.suppress(Damaged, UnknownRef):
            tag = store.refs.tag(name)
            manifest = store.manifests.of(tag)
            if manifest.op == op:
                records = chunks.StateRecord.all_of(store.manifests, manifest)
                states.append(saved_state(tag, records, origins, manifest.commit))
    return sorted(states, key=lambda state: state.place, reverse=True)


def saved_state(tag: Tag, records: list[StateRecord], origins: Origins, save: str) -> SavedState:
    """Return the state of a tag, whose manifest has these records and was made by this `save`."""
    # Directories that only an earlier save captured are in the manifest, too, but not of this one.
    own_records = tuple(record for record in records if record.save == save)
    if not own_records:  # of an earlier version
        latest = newest(records)
        own_records = tuple(r for r in records if latest and r.place == latest.place)
    before = max((record.before for record in own_records), default="")
    if not any(record.machine for record in own_records) and tag.message.startswith(
        RESTORE_MESSAGE
    ):
        before = BEFORE_RESTORE
    # A rollback that finds everything saved only gives that one more name.
    if tag.name.startswith(_SAFETY):
        before = BEFORE_ROLLBACK
    return SavedState(
        tag.name,
        tag.snapshot,
        tag.time,
        tag.author,
        tag.message,
        own_records,
        # Of one save all records name the same machine.
        max((record.machine for record in own_records), default=""),
        bool(own_records) and all(map(origins.is_own, own_records)),
        before,
    )


def find_state(lake: Lake, name: str, source: str = "") -> SavedState:
    """Return the state of a name, `latest` being the one of this machine that the branch holds, or
    of the machine `source`, which may be ANY. Raises UnknownRef, Damaged."""
    if name != "latest":
        tag = lake.store.refs.tag(name)
        manifest = lake.store.manifests.of(tag)
        if manifest.op not in OPS:
            raise UnknownRef(f"tag {name!r} names no saved state: see `lakelog state list`")
        records = chunks.StateRecord.all_of(lake.store.manifests, manifest)
        return saved_state(tag, records, Origins(lake.store), manifest.commit)
    states = list_states(lake)
    if not states:
        raise UnknownRef(
            "no state is saved in this lake: `lakelog state save --dir PATH` saves one"
        )
    candidates = states_of(states, source)
    if not candidates:
        sample = states[0]
        raise UnknownRef(
            f"no state was saved by this machine: the last one is {sample.name} of machine"
            f" {short(sample.machine)}; `--from {short(sample.machine)}`, or `--from {ANY}`, takes"
            " states of others, `lakelog machine adopt` makes them this machine's"
        )
    return latest_of(lake, candidates)


def states_of(states: list[SavedState], source: str) -> list[SavedState]:
    """Return the states of this machine, or of the machine `source`, which may be ANY. Raises
    UnknownRef."""
    if not source:
        return [state for state in states if state.is_own]
    id = machine.find(source, {state.machine for state in states})
    # By the beginning of an id, where it is one of a machine that saved something here.
    return [state for state in states if id in (ANY, state.machine)]


def latest_of(lake: Lake, states: list[SavedState]) -> SavedState:
    """Return the state that the branch holds: after a rollback the one that it went back to, and
    never what was saved just before a restore, which somebody wanted to leave."""
    store, origins = lake.store, Origins(lake.store)
    # Of the names of one save the one that it was given, not that of a safety tag.
    by_preference = sorted(states, key=lambda state: not state.before)
    state_by_key = {_key(r): state for state in by_preference for r in state.directories}
    saves = {r.save: state for state in by_preference for r in state.directories if r.save}
    machines = {state.machine for state in states if not state.is_own}
    # Own records count only where own states are asked for.
    with_own = any(state.is_own for state in states)

    def is_meant(record: StateRecord) -> bool:
        return (with_own and origins.is_own(record)) or record.machine in machines

    records = chunks.StateRecord.all_of(store.manifests, store.state(lake.branch_name))
    current = newest(filter(is_meant, records))
    match = state_by_key.get(_key(current)) if current else None
    if current and not match:
        # The save that died had no name yet, that of a backup was pruned: what was held before.
        parent = saves.get(current.parent)
        match = (
            parent if current.before == BEFORE_RESTORE or not (parent and parent.before) else None
        )
    # To what was held when that was saved, and so on: each is an earlier one, or it is forged.
    while match is not None and _is_backup(match):
        parent = saves.get(match.directories[0].parent)
        match = parent if parent is not None and parent.place < match.place else None
    candidates = [state for state in states if not state.before]
    return match or (candidates or states)[0]


def _is_backup(state: SavedState) -> bool:
    """Whether a state was saved before a restore, perhaps named by a safety tag, too."""
    records = [record.before for record in state.directories]
    return BEFORE_RESTORE in (state.before, *records)


def _key(record: StateRecord) -> tuple[str, str, str, str, tuple[int, int]]:
    return record.label, record.index, record.path, record.save, record.place
