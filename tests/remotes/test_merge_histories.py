"""Random histories of machines that push to one remote and merge from it, beside a plain model.

Machines append, ingest one file that all of them see and files of their own, of which some lines
are refused, replay or drop those, seal, compact, save snapshots and tags, roll back, remove old
events, push, pull and merge, also killed at any step. After each step a machine has the rows, in
their order, and the refused lines that its model says. A merge is refused if
a side went back or removed events since both had the same, or both read the file on to different
places, and else never.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import Diverged
from lakelog.ingest import Quarantine
from lakelog.remotes import known
from lakelog.remotes.carry import Transfer
from lakelog.remotes.fetches import clone, pull
from lakelog.remotes.pushes import push
from lakelog.store import Store
from tests.support import lakes, seam

HISTORIES = int(os.environ.get("LAKELOG_MERGE_HISTORIES", "4"))
FIRST = int(os.environ.get("LAKELOG_MERGE_SEED", "0"))
STEPS = int(os.environ.get("LAKELOG_MERGE_STEPS", "30"))
ROWS = "SELECT coalesce(message, type) FROM events ORDER BY seq"
REFUSED = {"logfmt": 'level=info msg="{}"', "syslog": "<34>Oct 11 22:14:15 host app: {}"}
"""Lines that a file of JSON lines refuses, by the format that takes them."""
OLD, IDS = "2001-01-01T00:00:00Z", 5


def line(number: int) -> str:
    """A line of the common file, of which the first makes all later beginnings the same one."""
    return f"line {number} of 12345678" + " x" * 2500 * (number == 1)


@dataclass(frozen=True)
class State:
    """What a lake has: its events in order, of each id the event, and lines of the common file."""

    rows: tuple[str, ...] = ()
    ids: dict[str, str] = field(default_factory=dict)
    read: int = 0
    refused: frozenset[str] = frozenset()
    """The lines in quarantine."""
    retention: object = None
    """The last retention."""

    def joined(self, theirs: State, base: State) -> State:
        """Another state that shares a base, and what only this one has."""
        ids = {name: id for id, name in self.ids.items()}
        unknown = [
            name
            for name in self.rows
            if name not in theirs.rows and ids.get(name) not in theirs.ids
        ]
        read = theirs.read if self.read == base.read else self.read
        settled = (base.refused - self.refused) | (base.refused - theirs.refused)
        refused = (self.refused | theirs.refused) - settled
        ids = {**self.ids, **theirs.ids}
        return State((*theirs.rows, *unknown), ids, read, refused, self.retention)


@dataclass(frozen=True)
class Pushed:
    """A state of the remote, and whether it lost or renumbered events of the one before."""

    state: State
    has_lost: bool


@dataclass
class Machine:
    """A lake, what the model says of it, and how much of the remote's log it has.

    `base` is the remote's state at that place, `went_back` whether it was rolled back since."""

    path: Path
    state: State
    lake: lakelog.Lake
    base: State
    at: int = 0
    went_back: bool = False
    tags: dict[str, State] = field(default_factory=dict)


class History:
    """One random history."""

    def __init__(self, root: Path, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.random, self.root, self.patch, self.number = random.Random(seed), root, patch, 0
        self.file, self.lines = root / "common.log", 0
        self.merges = self.refusals = self.kills = 0
        hub, first = str(root / "hub"), lakes.opened(str(root / "lake0"))
        known.add(first.store, "origin", hub)
        self.machines = [Machine(root / "lake0", State(), first, State())]
        self.append(self.machines[0])
        push(first, "origin", branches=["main"])
        self.log = [Pushed(self.machines[0].state, False)]
        self.synced(self.machines[0])
        for number in range(1, self.random.choice([2, 2, 3])):
            path = root / f"lake{number}"
            clone(hub, str(path))
            state = self.log[0].state
            self.machines.append(Machine(path, state, lakes.opened(str(path)), state))

    def run(self, steps: int) -> None:
        """Play the steps, each followed by a look at the machine; at the end read every byte."""
        acts: list[Callable[[Machine], object]] = [
            *[self.append] * 6,
            *[self.ingest_common] * 2,
            *[self.ingest_own] * 2,
            *[self.replay] * 5,
            *[self.seal, self.compact, self.snapshot, self.tag] * 2,
            *[self.push] * 5,
            *[self.merge] * 8,
            *[self.killed_merge] * 3,
            self.drop,
            self.rollback,
            self.retention,
            self.pull,
        ]
        for _ in range(steps):
            machine = self.random.choice(self.machines)
            self.random.choice(acts)(machine)
            self.check(machine)
        for machine in self.machines:
            assert machine.lake.verify().problems == ()
            machine.lake.close()
        with lakelog.open(str(self.root / "hub"), create=False) as hub:
            assert tuple(name for (name,) in hub.sql(ROWS).fetchall()) == self.log[-1].state.rows
            assert hub.verify().problems == ()

    def check(self, machine: Machine) -> None:
        """Compare a lake with its model."""
        assert self.look(machine) == (machine.state.rows, machine.state.refused)

    def look(self, machine: Machine) -> tuple[tuple[str, ...], frozenset[str]]:
        """The rows and the refused lines of a lake; each line is there once."""
        rows = tuple(name for (name,) in machine.lake.sql(ROWS).fetchall())
        refused = [line for (line,) in machine.lake.sql("SELECT line FROM quarantine").fetchall()]
        assert len(refused) == len(set(refused))
        return rows, frozenset(refused)

    def name(self) -> str:
        self.number += 1
        return f"E{self.number}"

    def append(self, machine: Machine) -> None:
        """Append events, some old, some with an id that others may give as well."""
        rows, ids = list(machine.state.rows), dict(machine.state.ids)
        for _ in range(self.random.choice([1, 2, 5])):
            event, name = {"type": self.name()}, f"E{self.number}"
            if self.random.random() < 0.3:
                event["id"] = f"id{self.random.randrange(IDS)}-{self.number // 20}"
            if self.random.random() < 0.2:
                event["time"] = OLD
            machine.lake.append(event)
            if event.get("id") not in ids:
                rows.append(name)
                ids |= {event["id"]: name} if "id" in event else {}
        machine.state = replace(machine.state, rows=tuple(rows), ids=ids)

    def ingest_common(self, machine: Machine) -> None:
        """Read on in a file that all machines see, which others may have written to."""
        if self.random.random() < 0.6:
            with open(self.file, "a") as file:
                for _ in range(3):
                    self.lines += 1
                    file.write(f"2026-01-01T00:00:00Z INFO {line(self.lines)}\n")
        if self.lines > machine.state.read:
            machine.lake.ingest(str(self.file))
            # What waits in the WAL is sealed later, and so comes after.
            machine.lake.settle()
            fresh = range(machine.state.read + 1, self.lines + 1)
            rows = tuple(name for (name,) in machine.lake.sql(ROWS).fetchall())
            assert sorted(rows) == sorted((*machine.state.rows, *map(line, fresh)))
            machine.state = replace(machine.state, rows=rows, read=self.lines)

    def ingest_own(self, machine: Machine) -> None:
        """Ingest a file that no other machine sees, of which most lines are refused."""
        machine.lake.settle()
        path, name = self.root / f"{self.name()}.jsonl", f"own line of {self.number}"
        refused = [line.format(f"{name} as {form}") for form, line in REFUSED.items()]
        refused.append(f"never a line {self.number}")
        path.write_text("\n".join([f'{{"type": "own", "message": "{name}"}}', *refused, ""]))
        machine.lake.ingest(str(path))
        state = machine.state
        machine.state = replace(
            state, rows=(*state.rows, name), refused=state.refused.union(refused)
        )

    def replay(self, machine: Machine) -> None:
        """Read refused lines again in a format that takes some of them."""
        machine.lake.settle()
        form = self.random.choice(sorted(REFUSED))
        prefix = REFUSED[form].split("{", 1)[0]
        taken = {line for line in machine.state.refused if line.startswith(prefix)}
        names = [line.removeprefix(prefix).rstrip('"') for line in taken]
        Quarantine(machine.lake.store, "main").replay(machine.lake.engine, form=form)
        rows, _ = self.look(machine)
        assert sorted(rows) == sorted((*machine.state.rows, *names))
        machine.state = replace(machine.state, rows=rows, refused=machine.state.refused - taken)

    def drop(self, machine: Machine) -> None:
        """Remove the refused lines."""
        machine.lake.settle()
        Quarantine(machine.lake.store, "main").drop()
        machine.state = replace(machine.state, refused=frozenset())

    def seal(self, machine: Machine) -> None:
        machine.lake.settle()

    def compact(self, machine: Machine) -> None:
        machine.lake.compact()

    def snapshot(self, machine: Machine) -> None:
        machine.lake.snapshot("a snapshot")

    def tag(self, machine: Machine) -> None:
        name = f"{machine.path.name}-{self.name()}"
        machine.lake.tag(name)
        machine.tags[name] = machine.state

    def rollback(self, machine: Machine) -> None:
        """Go back to a tag."""
        if machine.tags:
            name = self.random.choice(sorted(machine.tags))
            machine.lake.rollback(name)
            machine.state, machine.went_back = machine.tags[name], True

    def retention(self, machine: Machine) -> None:
        """Remove the old events."""
        machine.lake.retention("1000d", apply=True)
        rows = tuple(name for (name,) in machine.lake.sql(ROWS).fetchall())
        assert set(rows) <= set(machine.state.rows)
        retention = machine.lake.store.state("main").retention
        machine.state = replace(machine.state, rows=rows, retention=retention)

    def push(self, machine: Machine) -> None:
        """Push; by force if that is needed and one side went back."""
        is_behind, before = machine.at < len(self.log) - 1, self.generation()
        try:
            label = push(machine.lake, "origin", branches=["main"]).refs["main"]
        except Diverged:
            if not is_behind and not machine.went_back:
                raise
            if not machine.went_back:
                return
            label = push(machine.lake, "origin", branches=["main"], force=True).refs["main"]
        else:
            # Where it went back, the remote's state may be one that its log names.
            known = machine.went_back or self.log[-1].has_lost
            assert label == "up to date" or not is_behind or known
        has_lost = not set(self.log[-1].state.rows) <= set(machine.state.rows)
        if label != "up to date":
            # Also where events got other numbers: the remote was taken back to before a merge.
            was_rewound = self.generation() != before
            assert was_rewound or label != "forced"
            self.log.append(Pushed(machine.state, has_lost or was_rewound))
        self.synced(machine)

    def generation(self) -> int:
        """That of the remote's branch."""
        return Store.load(str(self.root / "hub")).refs.head("main").move.generation

    def synced(self, machine: Machine) -> None:
        """Both have the same events."""
        machine.at, machine.base = len(self.log) - 1, self.log[-1].state
        machine.went_back = False
        assert set(machine.state.rows) == set(self.log[-1].state.rows)

    def pull(self, machine: Machine) -> None:
        """Pull, by force if that is needed."""
        try:
            answer = pull(machine.lake, "origin", tags=False)
        except Diverged:
            answer = pull(machine.lake, "origin", tags=False, force=True)
        self.pulled(machine, answer)

    def pulled(self, machine: Machine, answer: Transfer) -> None:
        """Bring the model to what a pull did that was no merge."""
        there = self.log[-1].state
        if answer.refs["main"] != "up to date":
            machine.state = there
        if machine.state.rows == there.rows:
            self.synced(machine)

    def is_refused(self, machine: Machine) -> bool:
        """Whether a merge has to be refused."""
        base, here, there = machine.base, machine.state, self.log[-1].state
        has_lost = any(pushed.has_lost for pushed in self.log[machine.at + 1 :])
        has_removed = not here.retention == there.retention == base.retention
        is_read_apart = base.read not in (here.read, there.read) and here.read != there.read
        return machine.went_back or has_lost or has_removed or is_read_apart

    def merge(self, machine: Machine) -> None:
        """Merge; where that is refused, take one side or go on."""
        try:
            answer = pull(machine.lake, "origin", tags=False, merge=True)
        except Diverged:
            if not self.is_refused(machine):
                raise
            self.refusals += 1
            if self.random.random() < 0.5:
                self.pull(machine)
            return
        if answer.merged is None:
            self.pulled(machine, answer)
            return
        assert not self.is_refused(machine)
        self.merged(machine, answer.merged.events)

    def merged(self, machine: Machine, count: int) -> None:
        there = self.log[-1].state
        before, self.merges = machine.state, self.merges + 1
        machine.state = before.joined(there, machine.base)
        assert len(machine.state.rows) - len(before.rows) == count
        machine.at, machine.base = len(self.log) - 1, there

    def taken(self, machine: Machine) -> int:
        """How many states of the remote a machine took."""
        moves = machine.lake.store.refs.newest_first("main")
        return sum(move.op in ("merge", "pull") for move in moves)

    def killed_merge(self, machine: Machine) -> None:
        """Merge in a process that dies at some step: the lake is as before, or merged."""
        if self.is_refused(machine) or machine.at == len(self.log) - 1:
            return
        fault, taken = seam.Fault(self.random.randrange(1, 60), seam.Killed()), self.taken(machine)
        with self.patch.context() as patch:
            seam.install(patch, fault)
            try:
                with lakes.opened(str(machine.path)) as lake:
                    pull(lake, "origin", tags=False, merge=True)
            except seam.Killed:
                self.kills += 1
        machine.lake.close()
        machine.lake = lakes.opened(str(machine.path))
        seen, theirs = self.look(machine), self.log[-1].state
        # By its move, for it may have brought a snapshot alone.
        if self.taken(machine) == taken:
            assert seen == (machine.state.rows, machine.state.refused)
        else:
            after = machine.state.joined(theirs, machine.base)
            assert seen in ((after.rows, after.refused), (theirs.rows, theirs.refused))
            self.merged(machine, len(after.rows) - len(machine.state.rows))
            if seen == (theirs.rows, theirs.refused):
                machine.state = theirs
        self.merge(machine)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + HISTORIES))
def test_machines_that_merge(home: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Each machine has what its model says after each step, and all files are intact."""
    history = History(home, seed, monkeypatch)
    history.run(STEPS)
