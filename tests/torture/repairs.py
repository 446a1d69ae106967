"""Random damage at random moments of random lives, and repair, against an exact model.

A lake lives: writers that come and go and one that lives on, ids sent again, branches, tags,
compaction, rollback, undo, retention, dedupe, ingests, gc that thins history, sealings that lose
their race. Every state that a move publishes is noted. Now and then one to five files are damaged;
then repair has to reach a kept state plus events that were sealed after it or are in a WAL. None is
doubled, none that was taken off comes back, and what is lost was listed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lakelog
from lakelog.errors import LakelogError, LakeNotFound, NothingToUndo, UnknownRef
from lakelog.store import disk, gc, opening, removal, segment
from lakelog.store.layout import Layout
from lakelog.store.publish import USER_OPS, Change, publish
from lakelog.store.refs import Move, Refs
from lakelog.store.repair import Repaired
from lakelog.store.tail import Tail
from tests.support import damage, lakes, seam
from tests.support.world import warm_engine
from tests.torture.case import Case, Row

ROUNDS, ACTS = 8, 9
"""Damages of one life, and what happens at most before each."""
WAYS = ["bit", "bit", "block", "cut", "emptied", "deleted", "deleted"]
_START = 2_000_000_000_000_000
"""The first moment of every life, in microseconds; files are older by their own time."""
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


class Life:
    """One lake, its living writer and the model."""

    def __init__(self, case: Case) -> None:
        self.root, self.copy = str(case.place / "lake"), str(case.place / "copy")
        self.dice, self.case = case.dice, case
        settings = {
            "seal": "never", "threads": 1, "rotate_events": self.dice.choice([1, 3, 100]),
            "gc_grace_hours": self.dice.choice([0, 24]),
            "history_days": self.dice.choice([0, 30]),
        }  # fmt: skip
        lakelog.open(self.root, settings=settings).close()
        for leaf in Path(self.root).glob("[sim]*/??"):
            with contextlib.suppress(OSError):
                leaf.rmdir()  # hundreds of empty folders only cost time
        self.branches: dict[str, Branch] = {}
        self.tags: dict[str, Keys] = {}
        self.done: list[str] = []
        self.retired: set[str] = set()
        self.adrift: set[str] = set()
        """Keys of moves that went without a trace: their segments may be found again."""
        self._serial = 0
        self._read: dict[str, Keys] = {}
        self._fresh_copy = False
        self.living = self.open("main")
        self.observe("main")

    def open(self, branch: str) -> lakelog.Lake:
        """A handle of its own, as another process has."""
        return lakelog.open(self.root, create=False, branch=branch)

    # --- the model ---

    def observe(self, name: str) -> None:
        """Note the states that a branch got since the last look, and what left the tail."""
        branch, store = self.branches.setdefault(name, Branch()), opening.load(self.root)
        seen = max(branch.states, default=0)
        for number in range(seen + 1, store.refs.head_number(name) + 1):
            branch.states[number] = self.state(store, store.refs.read(name, number))
            self._expect(branch, number)

    def _expect(self, branch: Branch, number: int) -> None:
        """What a move holds is what the model expects of its kind."""
        now, before = branch.states[number], branch.states.get(number - 1)
        if before is None:
            branch.known.setdefault(now.move.snapshot, now.keys)
            return
        known, op = branch.known[before.move.snapshot], now.move.op
        new = now.keys - before.keys
        if op == "seal":
            assert new <= branch.tail.keys(), f"sealed {new - branch.tail.keys()} from nowhere"
            branch.tail = {k: n for k, n in branch.tail.items() if k not in new}
        elif op not in ("ingest", *REWINDS):
            assert not new, f"{op} brought {sorted(new)}"
        if op not in ("retention", "dedupe", *REWINDS):
            assert before.keys <= now.keys, f"{op} lost {sorted(before.keys - now.keys)}"
        if op not in REWINDS:
            branch.known[now.move.snapshot] = known | new
        assert now.move.snapshot in branch.known, f"{op} went to a state that never was"

    def state(self, store: opening.Store, move: Move) -> State:
        """Read what a move's state holds."""
        state = store.manifests.load(move.snapshot)
        entries = store.manifests.entries(state)
        held = {e["key"]: self._keys(store, e["key"]) for e in entries if e["kind"] == "events"}
        needs = {move.snapshot, *(page.digest for page in state.pages)}
        return State(move, held, frozenset(needs))

    def _keys(self, store: opening.Store, digest: str) -> Keys:
        if digest not in self._read:
            table = segment.read(store.layout, digest)
            columns = (table[name].to_pylist() for name in ("id", "subject", "type"))
            keys = [given or name or kind for given, name, kind in zip(*columns, strict=True)]
            assert len(set(keys)) == len(keys), f"doubled in segment {digest}"
            self._read[digest] = frozenset(keys)
        return self._read[digest]

    def sees(self, name: str) -> Keys:
        """What a new reader sees of a branch; each key once."""
        with self.open(name) as lake:
            rows = lake.sql("SELECT coalesce(id, subject, type) FROM events").fetchall()
            keys = Counter(key for (key,) in rows)
            twice = sorted(key for key, count in keys.items() if count > 1)
            assert not twice, f"{name}: {twice} doubled"
            assert lake.count() == len(rows), f"{name}: {lake.count()} counted, {len(rows)} there"
        return frozenset(keys)

    # --- what happens ---

    def act(self) -> None:
        """Let one thing happen on one branch."""
        verb = self.dice.choice(VERBS)
        name = "main" if verb is Life.writes_on else self.dice.choice(sorted(self.branches))
        self.done.append(f"{verb.__name__} {name}")
        with contextlib.suppress(NothingToUndo):
            verb(self, name)
        for other in self.branches:
            self.observe(other)
        self._fresh_copy &= verb is Life.backs_up

    def events(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        """New events and old ids; (key, row) each."""
        made = []
        for _ in range(self.dice.randint(1, 3)):
            row = self.row()
            if self.dice.random() < 0.3:
                row["time"] = "2001-01-01T00:00:00Z"
            if self.dice.random() < 0.4:
                row["id"] = f"i{self._serial if self.dice.random() < 0.6 else self._serial // 4}"
                if row["id"] in self.retired:
                    del row["id"]
            made.append((row.get("id") or row["subject"], row))
        return made

    def row(self) -> dict[str, Any]:
        """An event of its own."""
        self._serial += 1
        time = "2033-01-01T00:00:00Z"
        return {"time": time, "type": "T", "source": "s", "subject": f"e{self._serial}"}

    def append(self, lake: lakelog.Lake) -> None:
        """Append, and note what is acknowledged."""
        branch, events = self.branches[lake.branch_name], self.events(lake.branch_name)
        lake.append([row for _, row in events])
        for key, row in events:
            if key not in branch.known[branch.newest.move.snapshot] | branch.tail.keys():
                branch.tail[key] = row["subject"]
                branch.frames[key] = lake.writer().name, lake.writer()._last

    def writes_on(self, _: str) -> None:
        """The living writer appends."""
        self.append(self.living)

    def writes(self, name: str) -> None:
        """A writer comes, appends and goes, perhaps killed."""
        lake = self.open(name)
        for _ in range(self.dice.randint(1, 2)):
            self.append(lake)
        if self.dice.random() < 0.7:
            lake.close()
        else:
            lake.writer().__del__()

    def settles(self, name: str) -> None:
        """Everything pending is published."""
        with self.open(name) as lake:
            lake.settle()

    def seals(self, name: str) -> None:
        """The tail is sealed, and its files stay."""
        with self.open(name) as lake:
            lake.sealer().seal()

    def loses_a_race(self, name: str) -> None:
        """A sealer dies before it links its move: its segment is nobody's."""

        def hook(call: str, real: Any, *args: Any, **kwargs: Any) -> Any:
            if call == "link" and "/refs/heads/" in args[1]:
                raise seam.Killed
            return real(*args, **kwargs)

        with self.case.patch.context() as patch, contextlib.suppress(seam.Killed):
            seam.install(patch, hook)
            self.open(name).sealer().seal()

    def compacts(self, name: str) -> None:
        """Small segments become one."""
        with self.open(name) as lake:
            lake.compact()

    def retains(self, name: str) -> None:
        """Old events leave the branch."""
        with self.open(name) as lake:
            lake.retention("3650d", apply=True)

    def dedupes(self, name: str) -> None:
        """Some published rows are taken off as duplicates."""
        with self.open(name) as lake:
            head = lake.settle().move
            seqs = sorted(s for (s,) in lake.sql("SELECT seq FROM events").fetchall())
            if not seqs:
                return
            import numpy as np

            chosen = np.array(sorted(self.dice.sample(seqs, min(2, len(seqs)))), dtype=np.int64)
            note = {"add": "artifact", "key": f"dedupe/{head.number}", "by": [], "events": 1}
            removal.apply(
                lake.store, name, chosen, head.generation, note, "", lake._session.connect
            )

    def ingests(self, name: str) -> None:
        """Rows come that no WAL ever held."""
        with self.open(name) as lake:
            self._serial += 1
            entry = lakes.tiny_segment(lake, f"f{self._serial}")
            publish(lake.store, name, lambda *_: Change("ingest", "f", entries=(entry,)))

    def rolls_back(self, name: str) -> None:
        """The branch goes back to a state that is kept."""
        with self.open(name) as lake:
            states = self.branches[name].states
            kept = [n for n in states if self._is_there(lake.store, states[n])]
            with contextlib.suppress(UnknownRef):
                lake.rollback(f"@{self.dice.choice(kept)}")

    def _is_there(self, store: opening.Store, state: State) -> bool:
        paths = [store.layout.object("segments", key) for key in state.held]
        runs = store.manifests.load
        with contextlib.suppress(LakelogError):
            paths += [
                store.layout.object("ids", r["digest"]) for r in runs(state.move.snapshot).ids
            ]
            return all(map(os.path.exists, paths))
        return False

    def undoes(self, name: str) -> None:
        """The last move of a user is undone."""
        states = self.branches[name].states
        last = max((n for n, s in states.items() if s.move.op in USER_OPS), default=0)
        if last - 1 not in states or not self._is_there(opening.load(self.root), states[last - 1]):
            return
        with self.open(name) as lake, contextlib.suppress(UnknownRef):
            lake.undo(force=True)

    def tags_it(self, name: str) -> None:
        """The state gets a name."""
        with self.open(name) as lake:
            tag = lake.tag(f"t{len(self.done)}")
        self.observe(name)
        self.tags[tag.name] = self.branches[name].newest.keys

    def branches_off(self, name: str) -> None:
        """Another branch starts here."""
        if len(self.branches) < 3:
            with self.open(name) as lake:
                other = f"b{len(self.done)}"
                lake.branch(other).close()
            self.observe(name)
            old = self.branches[name]
            self.branches[other] = Branch(known=dict(old.known))
            self.observe(other)

    def collects(self, _: str) -> None:
        """gc packs moves, thins history, and deletes what nothing reaches."""
        with self.open("main") as lake:
            lake.gc()

    def backs_up(self, _: str) -> None:
        """A copy is made, or brought up to date."""
        self.living.backup(self.copy)
        self._fresh_copy = True

    # --- damage and repair ---

    def round(self) -> bool:
        """Live for a while, be damaged, be repaired, and go on; False if there is no lake left."""
        for _ in range(self.dice.randint(1, ACTS)):
            self.act()
        for name, branch in self.branches.items():
            assert self.sees(name) == branch.visible, f"{name}: the model is wrong"
        copy = self.copy if os.path.exists(self.copy) and self.dice.random() < 0.6 else None
        is_fresh = self._fresh_copy and copy is not None
        harm = self.harm()
        try:
            report = damage.checked(self.root)
        except LakeNotFound:
            return self._is_no_lake(harm)
        self.done.append(f"DAMAGED {harm.files}")
        for name in [n for n in self.branches if self._is_hidden(n, harm)]:
            if not Refs(Layout(self.root)).numbers(name) and name != "main":
                del self.branches[name]  # nothing tells that it was there
        if report.intact:
            self._unnoticed(harm)
        done = damage.repaired(self.root, copy)
        assert done.after is not None
        lost = list(done.lost)
        self.living.store.refs.forget()
        self.living.store.manifests.forget()
        if not done.after.intact or self._is_living_harmed(harm):
            lost += self._repaired_again(done, copy)
        self.verified(harm, lost, is_fresh)
        self.goes_on(harm)
        self.case.tally.notes["with a copy" if copy else "without a copy"] += 1
        self.case.tally.notes["with losses"] += bool(lost)
        self.case.verified(len(harm.files), int(not report.intact))
        self._begin_anew()
        return True

    def _is_no_lake(self, harm: Harm) -> bool:
        """What looks like nothing but the beginning of a lake is not called a damaged one."""
        left = os.listdir(f"{self.root}/refs/heads/main")
        assert "lakelog.json" in harm.files, "a lake is not found"
        assert set(left) <= {"000000000001.json"}, f"a lake with {left} is not found"
        return False

    def harm(self) -> Harm:
        """Damage one to five files, those that matter most more often."""
        wals = self._wals()
        files = [f for f in damage.files(self.root) if not f.startswith("cache/")]
        kinds: dict[str, list[str]] = {}
        for name in files:
            kinds.setdefault(damage.kind_of(name), []).append(name)
        store = opening.load(self.root)
        for branch in self.branches:
            newest = store.refs.head(branch).move
            kinds.setdefault("newest", []).append(store.layout.move(branch, newest.number))
            for digest in sorted(self.branches[branch].newest.needs):
                kinds.setdefault("head", []).append(store.layout.object("manifests", digest))
        harmed: dict[str, str] = {}
        unseen: set[str] = set()
        for _ in range(self.dice.choice([1, 1, 2, 2, 3, 4, 5])):
            path = self.dice.choice(kinds[self.dice.choice(sorted(kinds))])
            name = os.path.relpath(os.path.join(self.root, path), self.root)
            way = self.dice.choice(WAYS)
            if name not in harmed and os.path.exists(f"{self.root}/{name}"):
                harmed[name] = way
                self._spoil(name, way)
                unseen |= self._unseen(name, way, wals)
        return Harm(harmed, {name: keys for name, (keys, _) in wals.items()}, frozenset(unseen))

    def _unseen(self, name: str, way: str, wals: dict[str, Any]) -> set[str]:
        """Keys of a WAL that is gone, or was cut between two frames."""
        if name not in wals:
            return set()
        keys, ends = wals[name]
        if way == "deleted":
            return set(keys)
        size = os.path.getsize(f"{self.root}/{name}") if way == "cut" else -1
        return (
            {k for end, part in ends if end > size for k in part} if size in dict(ends) else set()
        )

    def _wals(self) -> dict[str, tuple[Keys, list[tuple[int, Keys]]]]:
        """Of each WAL file the keys in it, and those of each frame with the byte where it ends."""
        store, found = opening.load(self.root), {}
        for name, branch in self.branches.items():
            held: dict[tuple[str, int], set[str]] = {}
            for key, frame in branch.frames.items():
                held.setdefault(frame, set()).add(key)
            for group in Tail(store.layout, store.refs, name).scan().values():
                for file in group:
                    ends = [*(f.offset for f in file.frames[1:]), file.end]
                    keys = [frozenset(held.get((file.writer, f.sequence), ())) for f in file.frames]
                    parts = list(zip(ends, keys, strict=True))
                    found[os.path.relpath(file.path, self.root)] = frozenset().union(*keys), parts
        return found

    def _spoil(self, name: str, way: str) -> None:
        """Change one file."""
        path = Path(self.root, name)
        data, dice = path.read_bytes(), self.dice
        at = dice.randrange(len(data)) if data else 0
        if way == "deleted":
            path.unlink()
            return
        spoilt = {
            "bit": damage.flipped(data, at, dice.randrange(8)) if data else data,
            "block": data[:at] + bytes(len(data[at : at + 300])) + data[at + 300 :],
            "cut": data[:at], "emptied": b"",
        }[way]  # fmt: skip
        damage.put(path, spoilt)

    def _unnoticed(self, harm: Harm) -> None:
        """What verify does not see costs no event that is published, and none of a WAL but those
        of a file that went as a whole."""
        for name, branch in self.branches.items():
            seen = self.sees(name)
            gone, new = branch.visible - seen - harm.unseen, seen - branch.visible
            if self._is_hidden(name, harm):
                self.adrift |= gone | new
                gone, new = gone - branch.newest.keys, frozenset()
            assert not new, f"{name}: {sorted(new)} out of nowhere"
            assert not gone, f"{name}: {sorted(gone)} gone, none sees it: {harm.files}"

    def _is_hidden(self, name: str, harm: Harm) -> bool:
        """Whether the newest move is gone, and the hint that would tell (FORMAT.md, F14.4)."""
        layout = Layout(self.root)
        paths = layout.move(name, max(self.branches[name].states)), layout.hint(name)
        move, hint = (os.path.relpath(path, self.root) for path in paths)
        return harm.files.get(move) == "deleted" and hint in harm.files

    def _is_living_harmed(self, harm: Harm) -> bool:
        """Whether a file of the living writer was damaged, not removed: it cannot know."""
        name = self.living.writer().name
        return any(name in file and way != "deleted" for file, way in harm.files.items())

    def _repaired_again(self, done: Repaired, copy: str | None) -> list[str]:
        """Where the living writer holds a damaged WAL, repair it once it is closed."""
        assert done.after is not None
        for problem in done.after.problems:
            assert disk.is_locked(problem.path), f"not repaired: {problem}"
        self.living.close()
        again = damage.repaired(self.root, copy)
        self.living = self.open("main")
        assert again.after is not None
        assert again.after.intact, again.after.problems
        return again.lost

    def verified(self, harm: Harm, lost: list[str], is_fresh: bool) -> None:
        """Check every branch and tag after a repair."""
        report = damage.checked(self.root)
        assert report.problems == (), report.problems
        store = opening.load(self.root)
        for name, branch in self.branches.items():
            Judge(self, name, branch, harm, lost).check(self.sees(name), is_fresh)
        for tag, keys in self.tags.items():
            with contextlib.suppress(LakelogError, OSError):
                snapshot = store.refs.tag(tag).snapshot
                state = store.manifests.load(snapshot)
                entries = [e for e in store.manifests.entries(state) if e["kind"] == "events"]
                found = frozenset().union(*(self._keys(store, e["key"]) for e in entries))
                assert found == keys, f"tag {tag} names another state"

    def goes_on(self, harm: Harm) -> None:
        """The living writer appends, everybody settles, and a second repair has nothing to do."""
        seen = {name: self.sees(name) for name in self.branches}
        self.living.append(self.row())
        held = {name for name in harm.wals if self.living.writer().name in name}
        if any(harm.files.get(name) == "deleted" for name in held):
            damage.repaired(self.root)  # that a file is missing shows now
        seen["main"] |= {f"e{self._serial}"}
        assert self.sees("main") == seen["main"], "the living writer's event is not there"
        for name, keys in seen.items():
            self.settles(name)
            assert self.sees(name) == keys, f"{name}: settling changed what is there"
        again = damage.repaired(self.root)
        assert again.after is not None
        assert again.after.problems == (), f"{again.after.problems}, {harm.files}"
        told = (again.fetched, again.aside, again.lost, again.done)
        assert told == ([], [], [], []), f"a second repair did {told}"

    def _begin_anew(self) -> None:
        """The repaired lake is the truth from now on; ids of no event of it are not used again."""
        store = opening.load(self.root)
        self.done.append("REPAIRED")
        shutil.rmtree(self.copy, ignore_errors=True)
        for name, old in list(self.branches.items()):
            ids = {k for s in old.states.values() for k in s.keys} | old.tail.keys()
            head = store.refs.head(name).move
            fresh = Branch(frames=old.frames)
            fresh.states[head.number] = self.state(store, head)
            fresh.known[head.snapshot] = fresh.newest.keys | ids
            self.retired |= ids - fresh.newest.keys
            self.branches[name] = fresh
        names = set(store.refs.tag_names())
        self.tags = {tag: keys for tag, keys in self.tags.items() if tag in names}


class Judge:
    """What a repair made of one branch, held against what there was."""

    def __init__(
        self, life: Life, name: str, branch: Branch, harm: Harm, lost: list[str]
    ) -> None:  # fmt: skip
        self.life, self.name, self.branch, self.harm, self.lost = life, name, branch, harm, lost
        self.is_hidden = False
        self.number = self._base()

    def _base(self) -> int:
        """The number of the state that repair went to."""
        store, last = opening.load(self.life.root), max(self.branch.states)
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
            after |= self.life.retired
        risen = seen - base - after - self.life.adrift
        assert not risen, f"{where}: {sorted(risen)} came from nowhere, or back"
        for key in seen - branch.visible if not self.is_hidden else ():
            self._may_come_back(key, key in base, where)
        gone = branch.visible - seen
        if self.is_hidden:
            assert gone <= branch.newest.keys, f"{where}: {sorted(gone)} were in WALs"
            self.life.adrift |= branch.newest.keys | base
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
        if self.number in self.branch.states:
            held = self.branch.states[self.number].held
            kept = [keys for digest, keys in held.items() if not harm.hits(digest)]
            gone = frozenset().union(*kept) - seen
            assert not gone, f"{where}: {sorted(gone)} were in sound segments"
        files = {k for f, keys in harm.wals.items() if f not in harm.files for k in keys}
        gone = (self.branch.tail.keys() & files) - seen
        assert not gone, f"{where}: {sorted(gone)} were in sound WALs"
        if is_fresh:
            gone = self.branch.visible - seen - harm.unseen
            assert not gone, f"{where}: {sorted(gone)} are in the copy"

    def _is_harmed(self, number: int) -> bool:
        """Whether the file of a move was damaged."""
        layout = Layout(self.life.root)
        return os.path.relpath(layout.move(self.name, number), self.life.root) in self.harm.files

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


VERBS: list[Callable[[Life, str], None]] = [
    *4 * [Life.writes_on], *4 * [Life.writes], *4 * [Life.settles], *3 * [Life.seals],
    Life.loses_a_race, *2 * [Life.compacts], Life.retains, Life.dedupes, Life.ingests,
    *2 * [Life.rolls_back], Life.undoes, Life.tags_it, Life.branches_off, Life.collects,
    *2 * [Life.backs_up],
]  # fmt: skip


def _determined(case: Case) -> None:
    """Let names of writers and attempts, and the time, be the same whenever the case is played."""
    dice, clock = random.Random(case.start), itertools.count(_START, 1000)
    case.patch.setattr(disk, "random_hex", lambda n=16: dice.randbytes(n).hex())
    case.patch.setattr(disk, "now_us", lambda: next(clock))
    case.patch.setattr(gc, "_lake_time", lambda store: next(clock))
    case.patch.setenv("LAKELOG_AUTHOR", "somebody")


def repairs(case: Case) -> None:
    """Live one life."""
    warm_engine(case.patch)
    _determined(case)
    case.patch.setattr(gc, "KEEP_MOVES", 4)
    life = Life(case)
    try:
        for _ in range(case.some(ROUNDS)):
            if not life.round():
                break
    finally:
        life.living.close()


ROWS = [Row("repair", "damages repaired", 400, 5000, 60, repairs)]
