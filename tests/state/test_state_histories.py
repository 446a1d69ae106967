"""Random histories of several machines whose clocks jump, beside a plain model of each.

Machines save, restore, undo, roll back, clean, push to one remote and fetch from it; clocks go back
by ten years or ahead by 75, and processes die at any step. After each step every machine has the
states, the latest one and the files that its model says, and of others only what it fetched.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

import lakelog
from lakelog.disk import disk
from lakelog.errors import RollbackRefused, StateRefused, UnknownRef
from lakelog.remotes import known
from lakelog.remotes.fetches import clone, fetch
from lakelog.remotes.pushes import push
from lakelog.rollback.rollback import finish, rollback, undo
from lakelog.state import exchange
from lakelog.state.catalog import StateCatalog
from lakelog.state.restore import restore_state, undo_restore
from lakelog.state.retention import Retention
from lakelog.state.state import list_states, save_state
from tests.support import lakes
from tests.support.deaths import dies

HISTORIES = int(os.environ.get("LAKELOG_STATE_HISTORIES", "3"))
FIRST = int(os.environ.get("LAKELOG_STATE_SEED", "0"))
STEPS = int(os.environ.get("LAKELOG_STATE_STEPS", "20"))
MINUTE_US, YEAR_US = 60 * 1_000_000, 365 * 86_400 * 1_000_000
SAFETY = "before-rollback-"


@dataclass
class Saved:
    """A state as the model has it."""

    name: str
    content: str
    is_automatic: bool
    is_backup: bool = False
    parent: Saved | None = None
    """What the branch held when it was saved."""
    number: int = field(default_factory=itertools.count().__next__)


@dataclass
class Machine:
    """A lake with one directory, and what the model says of it: the states that it saved in their
    order, what it fetched, what the directory holds, and which state the branch does."""

    lake: lakelog.Lake
    home: Path
    content: str
    saved: list[Saved] = field(default_factory=list)
    fetched: dict[str, str] = field(default_factory=dict)
    held: Saved | None = None

    def write(self, content: str) -> None:
        self.content = content
        (self.home / "a").write_text(content)

    @property
    def latest(self) -> list[Saved]:
        """What `latest` may be: what the branch holds; if that was pruned, what it held before as
        far as that is known, or the newest."""
        if self.held in self.saved:
            assert self.held is not None
            return [self.held]
        meant = [state for state in self.saved if not state.is_backup] or self.saved
        before = self.held and self.held.parent
        return [*meant[-1:], *(state for state in meant if state is before)]

    def prune(self, keep: int, *, spared: Saved | None = None) -> None:
        """Forget what a save or clean-up deletes."""
        before = list(self.saved)
        for is_backup in (False, True):
            kind = [s for s in before if s.is_automatic and s.is_backup == is_backup]
            for state in kind[: max(len(kind) - keep, 0)]:
                if state is not spared and (not keep or state not in self.latest):
                    before.remove(state)
        self.saved = before


class History:
    """One random history; `at` is where it is, for a failure."""

    def __init__(self, root: Path, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.random, self.root, self.names = random.Random(seed), root, 0
        self.remote, self.offset, real = str(root / "remote"), 0, disk.now_us
        patch.setattr(disk, "now_us", lambda: real() + self.offset)
        self.machines: list[Machine] = []
        self.pushed: list[tuple[Machine, Saved]] = []
        for number in range(self.random.choice([2, 2, 3])):
            path, home = str(root / f"lake{number}"), root / f"app{number}"
            home.mkdir()
            (home / "a").write_text("empty")
            if number:
                clone(self.remote, path)
            lake = lakes.opened(path)
            if not number:
                known.add(lake.store, "origin", self.remote)
                push(lake, "origin")
            self.machines.append(Machine(lake, home, "empty"))

    def run(self, steps: int) -> None:
        """Play the steps, each followed by a look at all machines."""
        acts: list[Callable[[Machine], None]] = [
            *(
                self.save,
                self.save,
                self.save,
                self.restore,
                self.restore,
                self.undo,
                self.rollback,
            ),
            *(self.clean, self.push, self.push, self.fetch, self.fetch, self.foreign, self.die),
        ]
        for at in range(steps):
            machine, act = self.random.choice(self.machines), self.random.choice(acts)
            jump = self.random.choice([0, 0, 0, -10, 75, -1, 3])
            # A name is given once, also if its state was pruned before the second was over.
            self.offset = jump * YEAR_US + at * MINUTE_US
            if self.random.random() < 0.6:
                machine.write(f"{at} of {self.machines.index(machine)}")
            act(machine)
            for each in self.machines:
                check(each, f"step {at}: {act.__name__}, clock {jump} years")

    def save(self, machine: Machine) -> None:
        keep, name = self.random.choice([None, 1, 2, 5]), None
        if self.random.random() < 0.3:
            self.names += 1
            name = f"named-{self.names}"
        done = save_state(machine.lake, {"app": str(machine.home)}, name=name, keep=keep)
        machine.held = Saved(done.state.name, machine.content, name is None, parent=machine.held)
        machine.saved.append(machine.held)
        if keep is not None:
            machine.prune(keep, spared=machine.held)

    def restore(self, machine: Machine) -> None:
        if machine.saved:
            chosen = self.random.choice(machine.saved)
            done = restore_state(machine.lake, chosen.name)
            self._restored(machine, chosen, done.backup)

    def _restored(self, machine: Machine, chosen: Saved, backup: str | None) -> None:
        assert backup is not None
        machine.saved.append(Saved(backup, machine.content, True, is_backup=True))
        machine.content = chosen.content

    def undo(self, machine: Machine) -> None:
        backups = [state for state in machine.saved if state.is_backup]
        if not backups:
            with pytest.raises(UnknownRef):
                undo_restore(machine.lake)
            return
        done = undo_restore(machine.lake)
        assert done.state.name == backups[-1].name
        self._restored(machine, backups[-1], done.backup)

    def rollback(self, machine: Machine) -> None:
        """To a state with its directory, and perhaps back again."""
        meant = [state for state in machine.saved if not state.is_backup]
        if not meant:
            return
        chosen, before = self.random.choice(meant), (machine.content, machine.held)
        done = rollback(machine.lake, chosen.name, ("data", "state"))
        machine.content, machine.held = chosen.content, chosen
        if self.random.random() < 0.5:
            check(machine, "rolled back")
            undo(machine.lake, force=True)
            machine.content, machine.held = before
            # What was in no state, or in that of a save that died without a name, is in that of the
            # safety tag, which the branch holds now.
            if read_of(machine.lake, done.safety) is not None:
                safety = StateCatalog(machine.lake).find(done.safety)
                named = [s for s in list_states(machine.lake) if not s.name.startswith(SAFETY)]
                saves = {record.save for state in named for record in state.directories}
                if not saves.intersection(record.save for record in safety.directories):
                    machine.held = Saved(done.safety, machine.content, is_automatic=False)

    def clean(self, machine: Machine) -> None:
        keep = self.random.choice([0, 1, 2])
        StateCatalog(machine.lake).clean(Retention(keep))
        machine.prune(keep)

    def push(self, machine: Machine) -> None:
        # The branches of the two diverge: tags are what travels.
        for state in self.random.sample(machine.saved, min(2, len(machine.saved))):
            push(machine.lake, "origin", branches=[], tags=[state.name])
            self.pushed.append((machine, state))

    def fetch(self, machine: Machine) -> None:
        fetch(machine.lake, "origin")
        for whose, state in self.pushed:
            if whose is not machine:
                machine.fetched[state.name] = state.content
            elif state not in machine.saved:  # pruned here since, and back in its place
                machine.saved = sorted([*machine.saved, state], key=lambda s: s.number)

    def foreign(self, machine: Machine) -> None:
        """What another machine saved goes where it is told, or nowhere."""
        here = {state.name for state in list_states(machine.lake) if not state.is_own}
        if not here:
            return
        name, to = self.random.choice(sorted(here)), self.root / "look"
        with pytest.raises(StateRefused):
            restore_state(machine.lake, name)
        with pytest.raises(RollbackRefused):
            rollback(machine.lake, name, ("data", "state"))
        with contextlib.suppress(FileNotFoundError):
            (to / "a").unlink()
            to.rmdir()
        restore_state(machine.lake, name, to=str(to))
        assert (to / "a").read_text() == machine.fetched[name]

    def die(self, machine: Machine) -> None:
        """Die in a save, restore, undo or rollback; the next process finishes it or takes it
        back."""
        lake, chosen = machine.lake, None
        act: Callable[[], object] = partial(save_state, lake, {"app": str(machine.home)}, keep=None)
        backups = [state for state in machine.saved if state.is_backup]
        if machine.saved and self.random.random() < 0.8:
            chosen = self.random.choice(machine.saved)
            acts: list[Callable[[], object]] = [partial(restore_state, lake, chosen.name)]
            if chosen is (backups or [None])[-1]:
                acts.append(partial(undo_restore, lake))
            elif not chosen.is_backup:
                acts.append(partial(rollback, lake, chosen.name, ("data", "state")))
            act = self.random.choice(acts)
        before, tags = lake.log(1)[0].move.number, set(lake.store.refs.tag_names())
        dies(act, self.random.randrange(1, 150), str(self.root))
        for each in self.machines:
            each.lake.store.refs.forget()
        finish(lake)
        now = (machine.home / "a").read_text()
        assert now in (machine.content, chosen.content if chosen else None)
        newer = [each.move for each in lake.log() if each.move.number > before]
        if chosen and any(move.op == "rollback" for move in newer):
            assert now == chosen.content
            machine.held = chosen
        elif (latest := latest_of(lake)).startswith(SAFETY) and latest not in tags:
            # It died when what it was to overwrite was saved.
            assert read_of(lake, latest) == machine.content
            machine.held = Saved(latest, machine.content, is_automatic=False)
        # What the dead process saved holds what was there, whatever it was for.
        known_names = {state.name for state in machine.saved}
        for state in list_states(machine.lake):
            if state.is_own and state.name not in known_names and SAFETY not in state.name:
                assert read_of(machine.lake, state.name) == machine.content
                made = Saved(state.name, machine.content, True, bool(state.before), machine.held)
                machine.saved.append(made)
                machine.held = machine.held if made.is_backup else made
        machine.content = now


def latest_of(lake: lakelog.Lake) -> str:
    """The name of the latest state, "" if there is none."""
    try:
        return StateCatalog(lake).find("latest").name
    except UnknownRef:
        return ""


def read_of(lake: lakelog.Lake, name: str) -> str | None:
    """The file of a state, None if the tag names none."""
    try:
        return b"".join(StateCatalog(lake).read_file(name, "app/a")).decode()
    except UnknownRef:
        return None


def check(machine: Machine, what: str) -> None:
    """Compare a machine with its model."""
    assert (machine.home / "a").read_text() == machine.content, what
    listed = [s for s in list_states(machine.lake) if not s.name.startswith(SAFETY)]
    own = [state.name for state in listed if state.is_own]
    assert own == [state.name for state in reversed(machine.saved)], what
    for state in machine.saved:
        assert read_of(machine.lake, state.name) == state.content, what
    others = {state.name for state in listed if not state.is_own}
    assert others == machine.fetched.keys(), what
    left = [n for n in os.listdir(machine.home.parent) if n.startswith(exchange.STAGING)]
    assert not left, what
    if machine.latest:
        found = StateCatalog(machine.lake).find("latest").name
        # What the branch holds may have been cleaned, and still be named by a rollback.
        if found.startswith(SAFETY) and machine.held not in machine.saved:
            candidates = filter(None, [machine.held, machine.held and machine.held.parent])
            contents = [state.content for state in candidates]
            assert read_of(machine.lake, found) in contents, what
        else:
            assert found in [state.name for state in machine.latest], what


@pytest.mark.parametrize("seed", range(FIRST, FIRST + HISTORIES))
def test_machines_follow_their_models(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every restore and undo gives what the model says, and no machine prunes another's states."""
    history = History(tmp_path, seed, monkeypatch)
    try:
        history.run(STEPS)
    finally:
        for machine in history.machines:
            machine.lake.close()
