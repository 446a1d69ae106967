"""What is known of a lake that is damaged, and what a repair may then make of it."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field

from lakelog.errors import UnknownRef
from lakelog.paths import Paths
from lakelog.refs import Move
from lakelog.store import Store

REWINDS = {"rollback", "undo", "branch"}
_PAST = re.compile(r"past damaged move (\d+), on (its own state|an empty state|.*move (\d+))")
_COMMITS = re.compile(r"branch (\S+): group commits (\d+) to (\d+) of writer ([0-9a-f]{12})")
Keys = frozenset[str]


@dataclass(frozen=True)
class State:
    """A move and what it holds: event keys by segment, and the objects it needs."""

    move: Move
    held: dict[str, Keys]
    needs: frozenset[str]

    @property
    def keys(self) -> Keys:
        """All keys of the state."""
        return frozenset().union(*self.held.values())


@dataclass
class Branch:
    """What is known of one branch: its states by number, the tail, and ids that it knows."""

    states: dict[int, State] = field(default_factory=dict)
    tail: dict[str, str] = field(default_factory=dict)
    """Keys that are acknowledged and not yet published, with the name of the event."""
    known: dict[str, Keys] = field(default_factory=dict)
    """Keys of ids by snapshot: those a state refuses."""
    frames: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Where each key was acknowledged: writer and sequence."""

    @property
    def newest(self) -> State:
        """The state of the head."""
        return self.states[max(self.states)]

    @property
    def visible(self) -> Keys:
        """What a reader sees."""
        return self.newest.keys | self.tail.keys()


@dataclass
class Harm:
    """The files damaged at one moment: (relative path, way), and keys by WAL file before."""

    files: dict[str, str]
    wals: dict[str, Keys]
    unseen: Keys
    """Keys of WALs that went in a way that nobody can see (FORMAT.md, F14.4)."""

    def hits(self, digest: str) -> bool:
        """Whether an object was damaged."""
        return any(digest in name for name in self.files)


class Judge:
    """What a repair made of one branch, held against what there was."""

    def __init__(
        self,
        root: str,
        name: str,
        branch: Branch,
        harm: Harm,
        lost: list[str],
        retired: set[str],
        adrift: set[str],
    ) -> None:
        self.root, self.name, self.branch, self.harm, self.lost = root, name, branch, harm, lost
        self.retired, self.adrift = retired, adrift
        self.is_hidden = False
        self.number = self._base()

    def _base(self) -> int:
        """The number of the state that repair went to."""
        store, last = Store.load(self.root), max(self.branch.states)
        old, move = self.branch.newest.move, None
        with contextlib.suppress(UnknownRef):
            move = store.refs.read(self.name, last)
        if move is None or (move.commit != old.commit and move.op != "lost"):
            self.is_hidden = True  # nothing tells that there was a newer move
            return last - 1
        for number in range(last + 1, store.refs.head_number(self.name) + 1):
            found = _PAST.match(store.refs.read(self.name, number).message)
            if found:
                own = found[2] == "its own state"
                return int(found[1]) if own else int(found[3] or 0)
        return last

    def check(self, seen: Keys, is_fresh: bool) -> None:
        """Nothing invented or resurrected, everything lost is listed."""
        branch, states, name = self.branch, self.branch.states, self.name
        later = {n: s for n, s in states.items() if n > self.number}
        base = states[self.number].keys if self.number in states else frozenset()
        after = frozenset().union(branch.tail, *(s.keys for s in later.values()))
        where = f"{name} on move {self.number} of {max(states)}, {self.harm.files}"
        if self.number not in states:
            # Older than what the model remembers: only that nothing is new can be said.
            after |= self.retired
        risen = seen - base - after - self.adrift
        assert not risen, f"{where}: {sorted(risen)} came from nowhere, or back"
        for key in seen - branch.visible if not self.is_hidden else ():
            self._may_come_back(key, key in base, where)
        gone = branch.visible - seen
        if self.is_hidden:
            assert gone <= branch.newest.keys, f"{where}: {sorted(gone)} were in WALs"
            self.adrift |= branch.newest.keys | base
            return
        for key in gone:
            assert key in self.harm.unseen or self._is_listed(key), (
                f"{where}: {key} {branch.frames.get(key)} is lost, and not listed in {self.lost}"
            )
        self._is_near(seen, is_fresh, where)

    def _may_come_back(self, key: str, was_there: bool, where: str) -> None:
        """An event that was taken off after the state comes back only where that is said."""
        pairs = [(n, s) for n, s in self.branch.states.items() if n > self.number]
        for number, state in pairs:
            before = self.branch.states.get(number - 1)
            if before and key in before.keys and key not in state.keys:
                assert self._says_move(number), f"{where}: {key}, off since {number}, is back"
                rewound = state.move.op in REWINDS
                assert was_there or not rewound or self._is_harmed(number), (
                    f"{where}: {key}, rolled back by {number}, is no part of the state"
                )

    def _is_near(self, seen: Keys, is_fresh: bool, where: str) -> None:
        """Nothing is given up that was not damaged."""
        harm, newest = self.harm, self.branch.newest
        sound = not self._is_harmed(newest.move.number) and not any(map(harm.hits, newest.needs))
        assert not sound or self.number == newest.move.number, f"{where}: its head was sound"
        for number in (n for n in self.branch.states if n > self.number):
            assert not self._opened(number), f"{where}: the state of {number} was sound"
        if self.number in self.branch.states:
            held = self.branch.states[self.number].held
            kept = [keys for digest, keys in held.items() if not harm.hits(digest)]
            gone = frozenset().union(*kept) - seen
            assert not gone, f"{where}: {sorted(gone)} were in sound segments"
        folder = os.path.relpath(Paths(self.root).wal_dir(self.name), self.root)
        whole = (f for f in harm.wals.keys() - harm.files.keys() if os.path.dirname(f) == folder)
        files = {key for file in whole for key in harm.wals[file]}
        gone = (self.branch.tail.keys() & files) - seen
        assert not gone, f"{where}: {sorted(gone)} were in sound WALs"
        if is_fresh:
            gone = self.branch.visible - seen - harm.unseen
            assert not gone, f"{where}: {sorted(gone)} are in the copy"

    def _is_harmed(self, number: int) -> bool:
        """Whether the file of a move was damaged."""
        paths = Paths(self.root)
        return os.path.relpath(paths.move(self.name, number), self.root) in self.harm.files

    def _opened(self, number: int) -> bool:
        """Whether a state was there as a whole, and the move that named it."""
        needs, paths = self.branch.states[number].needs, Paths(self.root)
        present = all(os.path.exists(paths.object("manifests", digest)) for digest in needs)
        return present and not self._is_harmed(number) and not any(map(self.harm.hits, needs))

    def _says_move(self, number: int) -> bool:
        """Whether a move is named among the losses of this branch."""
        mine = [line for line in self.lost if line.startswith(f"branch {self.name}:")]
        pattern = rf"moves? .*\b{number}\b|moves? .* and more|every state"
        return any(re.search(pattern, line) for line in mine)

    def _is_listed(self, key: str) -> bool:
        """Whether some line tells of the loss: by segment, group commits, WAL file or move."""
        states = self.branch.states
        digests = {d for s in states.values() for d, keys in s.held.items() if key in keys}
        if any(d[:12] in line for d in digests for line in self.lost):
            return True
        writer, sequence = self.branch.frames.get(key, ("-", -1))
        for found in filter(None, map(_COMMITS.match, self.lost)):
            name, first, last, who = found.groups()
            mine = name == self.name and writer.startswith(who)
            if mine and int(first) <= sequence <= int(last):
                return True
        files = [os.path.basename(f) for f, keys in self.harm.wals.items() if key in keys]
        if any(file in line for file in files for line in self.lost):
            return True
        return any(
            self._says_move(n) for n, s in states.items() if n > self.number and key in s.keys
        )
