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
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lakelog
from lakelog.disk import LockFile, disk
from lakelog.errors import LakelogError, LakeNotFound, LakeReplaced, NothingToUndo, UnknownRef
from lakelog.history import window as history_window
from lakelog.maintain import DedupeNote
from lakelog.maintain.repair.repair import RepairOutcome
from lakelog.manifest import manifests
from lakelog.moves.publication import USER_OPS, Change, publish
from lakelog.paths import Paths
from lakelog.refs import Move, Refs
from lakelog.segments import segment
from lakelog.store import Store
from lakelog.volume import DirectoryVolume
from lakelog.wal.tail import Tail
from tests.support import damage, lakes, seam
from tests.support.world import warm_engine
from tests.torture.case import Case, Row
from tests.torture.losses import REWINDS, Branch, Harm, Judge, Keys, State

ROUNDS, ACTS = 8, 9
"""Damages of one life, and what happens at most before each."""
WAYS = ["bit", "bit", "block", "cut", "emptied", "deleted", "deleted"]
_START = 2_000_000_000_000_000
"""The first moment of every life, in microseconds; files are older by their own time."""


class Life:
    """One lake, its living writer and the model."""

    def __init__(self, case: Case) -> None:
        self.root, self.copy = str(case.place / "lake"), str(case.place / "copy")
        self.dice, self.case = case.dice, case
        settings = {
            "seal": "never",
            "threads": 1,
            "rotate_events": self.dice.choice([1, 3, 100]),
            "gc_grace_hours": self.dice.choice([0, 24]),
            "history_days": self.dice.choice([0, 30]),
        }
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
        branch, store = self.branches.setdefault(name, Branch()), Store.load(self.root)
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

    def state(self, store: Store, move: Move) -> State:
        """Read what a move's state holds."""
        state = store.manifests.load(move.snapshot)
        entries = store.manifests.segments(state)
        held = {e.key: self._keys(store, e.key) for e in entries if e.kind == "events"}
        needs = {move.snapshot, *(page.digest for page in state.pages)}
        return State(move, held, frozenset(needs))

    def _keys(self, store: Store, digest: str) -> Keys:
        if digest not in self._read:
            table = segment.Segment(store.paths, digest).read()
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

    def act(self, verb: Verb | None = None, name: str = "") -> None:
        """Let one thing happen on one branch."""
        verb = verb or self.dice.choice(VERBS)
        name = name or self.dice.choice(sorted(self.branches))
        name = "main" if verb is Life.writes_on else name
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
            note = DedupeNote((), "first", head.number, len(chosen))
            note.apply(lake.store, name, chosen, head.generation, lake._session.connect)

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

    def _is_there(self, store: Store, state: State) -> bool:
        paths = [store.paths.object("segments", key) for key in state.held]
        runs = store.manifests.load
        with contextlib.suppress(LakelogError):
            paths += [store.paths.object("ids", r.digest) for r in runs(state.move.snapshot).ids]
            return all(map(os.path.exists, paths))
        return False

    def undoes(self, name: str) -> None:
        """The last move of a user is undone."""
        states = self.branches[name].states
        last = max((n for n, s in states.items() if s.move.op in USER_OPS), default=0)
        if last - 1 not in states or not self._is_there(Store.load(self.root), states[last - 1]):
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
        theme = THEMES[self.case.number % len(THEMES)] if self.dice.random() < 0.6 else "any"
        for verb in PRELUDES[theme]:
            self.act(verb, "main")
        name = self.dice.choice(sorted(self.branches))
        assert self.sees(name) == self.branches[name].visible, f"{name}: the model is wrong"
        copy = self.copy if os.path.exists(self.copy) and self.dice.random() < 0.6 else None
        is_fresh = self._fresh_copy and copy is not None
        harm = self.harm(self.aimed(theme))
        try:
            report = damage.checked(self.root)
        except LakeNotFound:
            return self._is_no_lake(harm)
        self.done.append(f"DAMAGED {harm.files}")
        for name in [n for n in self.branches if self._is_hidden(n, harm)]:
            if not Refs(DirectoryVolume(self.root)).numbers(name):
                del self.branches[name]  # nothing tells that it was there
        if "main" not in self.branches:
            return False
        if report.intact:
            self._unnoticed(harm)
        done = damage.repaired(self.root, copy)
        assert done.after is not None
        lost = list(done.lost)
        self.living.store.refs.forget()
        self.living.store.manifests.forget()
        if not done.after.intact or self._is_living_harmed(harm):
            lost += self._repaired_again(done, copy)
        self.goes_on(harm, self.verified(harm, lost, is_fresh))
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

    def aimed(self, theme: str) -> list[str]:
        """Files that are damaged in any case."""
        paths, states = Paths(self.root), self.branches["main"].states
        newest, before = max(states), states.get(max(states) - 1)
        files = {}  # of each state its manifest, or the move that it travels in
        for number, state in sorted(states.items(), reverse=True):
            path = paths.object("manifests", state.move.snapshot)
            files[path if os.path.exists(path) else paths.move("main", number)] = None
        first, *others = files
        if theme == "states":
            return [first, *self.dice.sample(others[:6], min(len(others), 4))]
        if theme == "undone":
            return [first]
        if theme == "segments":
            held = sorted(states[newest].held)
            return [
                paths.object("segments", key) for key in self.dice.sample(held, min(len(held), 1))
            ]
        if theme == "sealing" and before is not None:
            fresh = sorted(states[newest].held.keys() - before.held.keys())
            segments = [paths.object("segments", key) for key in fresh[:1]]
            return [self.dice.choice([first, paths.move("main", newest)]), *segments]
        name = self.living.writer().name if theme in ("wal", "copied") else "-"
        folder = paths.wal_dir("main")
        return [f"{folder}/{file}" for file in sorted(os.listdir(folder)) if name in file][-1:]

    def harm(self, aimed: list[str]) -> Harm:
        """Damage one to five files, those that matter most more often."""
        wals = self._wals()
        files = [f for f in damage.files(self.root) if not f.startswith("cache/")]
        kinds: dict[str, list[str]] = {}
        for name in files:
            kinds.setdefault(damage.kind_of(name), []).append(name)
        store = Store.load(self.root)
        for branch in self.branches:
            newest = store.refs.head(branch).move
            kinds.setdefault("newest", []).append(store.paths.move(branch, newest.number))
            for digest in sorted(self.branches[branch].newest.needs):
                kinds.setdefault("head", []).append(store.paths.object("manifests", digest))
        harmed: dict[str, str] = {}
        unseen: set[str] = set()
        count = 0 if aimed else self.dice.choice([1, 1, 2, 2, 3, 4, 5])
        drawn = [self.dice.choice(kinds[self.dice.choice(sorted(kinds))]) for _ in range(count)]
        for path in aimed or drawn:
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
        store, found = Store.load(self.root), {}
        for name, branch in self.branches.items():
            held: dict[tuple[str, int], set[str]] = {}
            for key, frame in branch.frames.items():
                held.setdefault(frame, set()).add(key)
            for group in Tail(store.paths, store.refs, name).scan().values():
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
            "cut": data[:at],
            "emptied": b"",
        }[way]
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
        """Whether the newest move is gone, and the hint that would tell, or there never was one
        (FORMAT.md, F14.4)."""
        paths = Paths(self.root)
        paths = paths.move(name, max(self.branches[name].states)), paths.hint(name)
        move, hint = (os.path.relpath(path, self.root) for path in paths)
        is_silent = hint in harm.files or not os.path.exists(paths[1])
        return harm.files.get(move) == "deleted" and is_silent

    def _is_living_harmed(self, harm: Harm) -> bool:
        """Whether a file of the living writer was damaged, not removed: it cannot know."""
        name = self.living.writer().name
        return any(name in file and way != "deleted" for file, way in harm.files.items())

    def _repaired_again(self, done: RepairOutcome, copy: str | None) -> list[str]:
        """Where the living writer holds a damaged WAL, repair it once it is closed."""
        assert done.after is not None
        for problem in done.after.problems:
            assert LockFile(problem.path).is_held(), f"not repaired: {problem}"
        self.living.close()
        again = damage.repaired(self.root, copy)
        self.living = self.open("main")
        assert again.after is not None
        assert again.after.intact, again.after.problems
        return again.lost

    def verified(self, harm: Harm, lost: list[str], is_fresh: bool) -> dict[str, Keys]:
        """Check every branch and tag after a repair; return what is seen now."""
        report = damage.checked(self.root)
        assert report.problems == (), report.problems
        store = Store.load(self.root)
        seen = {name: self.sees(name) for name in self.branches}
        for name, branch in self.branches.items():
            Judge(self.root, name, branch, harm, lost, self.retired, self.adrift).check(
                seen[name], is_fresh
            )
        for tag, keys in self.tags.items():
            with contextlib.suppress(LakelogError, OSError):
                snapshot = store.refs.tag(tag).snapshot
                state = store.manifests.load(snapshot)
                entries = store.manifests.segments(state, "events")
                found = frozenset().union(*(self._keys(store, e.key) for e in entries))
                assert found == keys, f"tag {tag} names another state"
        return seen

    def goes_on(self, harm: Harm, seen: dict[str, Keys]) -> None:
        """The living writer appends, everybody settles, and a second repair has nothing to do.
        What is sent again with its id changes nothing."""
        again = [{**self.row(), "id": key} for key in sorted(seen["main"]) if key[0] == "i"]
        rows = [*again, self.row()]
        try:
            self.living.append(rows)
        # Neither lakelog.json nor a WAL said which lake it was, or its WAL came from the copy.
        except LakeReplaced:
            name = self.living.writer().name
            gone = any(name in file for file, way in harm.files.items() if way == "deleted")
            assert gone or "lakelog.json" in harm.files, harm.files
            self.living.close()
            self.living = self.open("main")
            self.living.append(rows)
        held = {name for name in harm.wals if self.living.writer().name in name}
        if any(harm.files.get(name) == "deleted" for name in held):
            damage.repaired(self.root)  # that a file is missing shows now
        seen["main"] |= {f"e{self._serial}"}
        store = Store.load(self.root)
        assert self.sees("main") == seen["main"], "the living writer's event is not there"
        for name, keys in seen.items():
            self.settles(name)
            now = self.state(store, store.refs.head(name).move)
            assert sum(map(len, now.held.values())) == len(now.keys), f"{name}: doubled"
            assert now.keys == keys, f"{name}: settling changed what is there"
        again = damage.repaired(self.root)
        assert again.after is not None
        assert again.after.problems == (), f"{again.after.problems}, {harm.files}"
        told = (again.fetched, again.aside, again.lost, again.done)
        assert told == ([], [], [], []), f"a second repair did {told}"

    def _begin_anew(self) -> None:
        """The repaired lake is the truth from now on; ids of no event of it are not used again."""
        store = Store.load(self.root)
        self.done.append("REPAIRED")
        shutil.rmtree(self.copy, ignore_errors=True)
        for name, old in list(self.branches.items()):
            ids = {k for s in old.states.values() for k in s.keys} | old.tail.keys()
            head = store.refs.head(name).move
            fresh = Branch(frames=old.frames)
            fresh.states[head.number] = self.state(store, head)
            fresh.known[head.snapshot] = fresh.newest.keys | ids
            self.retired |= ids - fresh.newest.keys
            # What damage took from a WAL, a seal that lost its race may have in a segment; a
            # repair that looks for segments finds it.
            self.adrift |= old.visible - fresh.newest.keys
            self.branches[name] = fresh
        names = set(store.refs.tag_names())
        self.tags = {tag: keys for tag, keys in self.tags.items() if tag in names}


Verb = Callable[[Life, str], None]
VERBS: list[Verb] = [
    *4 * [Life.writes_on],
    *4 * [Life.writes],
    *4 * [Life.settles],
    *3 * [Life.seals],
    Life.loses_a_race,
    *2 * [Life.compacts],
    Life.retains,
    Life.dedupes,
    Life.ingests,
    *2 * [Life.rolls_back],
    Life.undoes,
    Life.tags_it,
    Life.branches_off,
    Life.collects,
    Life.backs_up,
]
PRELUDES: dict[str, list[Verb]] = {
    "any": [],
    "states": [
        Life.writes,
        Life.settles,
        Life.writes,
        Life.settles,
        Life.rolls_back,
        Life.writes,
        Life.settles,
    ],
    "undone": [Life.writes, Life.ingests],
    "segments": [Life.writes, Life.settles],
    "sealing": [Life.writes, Life.settles],
    "wal": [Life.writes_on, Life.writes_on, Life.writes_on, Life.writes_on],
    "copied": [Life.writes_on, Life.backs_up, Life.writes_on, Life.writes_on],
}
"""What happens right before a damage of one theme."""
THEMES = [*PRELUDES]
"""Every other damage of a case is of one theme, so that a short run reaches all."""


def _determined(case: Case) -> None:
    """Let names of writers and attempts, and the time, be the same whenever the case is played."""
    dice, clock = random.Random(case.start), itertools.count(_START, 1000)
    case.patch.setattr(disk, "random_hex", lambda n=16: dice.randbytes(n).hex())
    case.patch.setattr(disk, "now_us", lambda: next(clock))
    case.patch.setattr(history_window, "lake_time", lambda store: next(clock))
    case.patch.setenv("LAKELOG_AUTHOR", "somebody")


def repairs(case: Case) -> None:
    """Live one life."""
    warm_engine(case.patch)
    _determined(case)
    case.patch.setattr(history_window, "KEEP_MOVES", 4)
    if case.number // len(THEMES) % 2:
        # As those of large lakes do, states have files of their own: a move may outlast its state.
        case.patch.setattr(manifests, "CARRIED_MAX", 0)
    life = Life(case)
    try:
        for _ in range(case.some(ROUNDS)):
            if not life.round():
                break
    finally:
        life.living.close()


ROWS = [Row("repair", "damages repaired", 400, 5000, 60, repairs)]
