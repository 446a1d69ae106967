"""Lives of lakes from which files vanish or are damaged, and what verify, repair and gc may say.

Truth is what was acknowledged and visible. Evidence is what is left of it: group commits in WALs,
segments that were sealed, and what a copy has. A lake with fewer events than the evidence has is
never called intact, gc takes no evidence away, and repair brings all of it back or lists the loss.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import orjson

import lakelog
from lakelog import document
from lakelog.errors import GcRefused, LakelogError, LakeNotFound
from lakelog.maintain.repair import recover
from lakelog.paths import FileName
from lakelog.refs import Refs
from lakelog.segments import segment
from lakelog.store import Store
from lakelog.wal.tail import Tail
from tests.support import damage

Keys = set[str]
_SETTINGS = {"seal": "never", "threads": 1, "gc_grace_hours": 0}


@dataclass
class Life:
    """One lake, what each branch shows, and what a copy that was made on the way has of it."""

    dice: random.Random
    place: Path
    visible: dict[str, Keys] = field(default_factory=dict)
    copied: dict[str, Keys] | None = None
    done: list[str] = field(default_factory=list)
    serial: int = 0

    @property
    def root(self) -> str:
        return str(self.place / "lake")

    @property
    def copy(self) -> str:
        return str(self.place / "copy")

    def play(self) -> Life:
        """Live for a while."""
        lakelog.open(self.root, settings=_SETTINGS).close()
        self.visible["main"] = set()
        moment = self.dice.choice([None, "end", "end", "before"])
        for _ in range(count := self.dice.randint(3, 9)):
            name = self.dice.choice(sorted(self.visible))
            act = self.dice.choice(ACTS)
            self.done.append(f"{act.__name__} {name}")
            with lakelog.open(self.root, create=False, branch=name) as lake:
                act(self, lake)
            if moment == "before" and self.dice.random() < 2 / count:
                self.back_up()
                moment = None
        if moment:
            self.back_up()
        return self

    def back_up(self) -> None:
        """Bring the copy up to date."""
        self.done.append("COPY")
        with lakelog.open(self.root, create=False) as lake:
            lake.backup(self.copy)
        self.copied = {name: set(keys) for name, keys in self.visible.items()}

    def _names(self) -> list[str]:
        first = self.serial
        self.serial += self.dice.randint(1, 5)
        return [f"e{n}" for n in range(first, self.serial)]

    def writes(self, lake: lakelog.Lake) -> None:
        """A writer comes and goes."""
        for _ in range(self.dice.randint(1, 3)):
            names = self._names()
            lake.append([{"type": "T", "subject": name, "id": self._id(name)} for name in names])
            self.visible[lake.branch_name] |= set(names)

    def _id(self, name: str) -> str | None:
        return name if int(name[1:]) % 3 == 0 else None

    def settles(self, lake: lakelog.Lake) -> None:
        """What is pending is published, and the WALs of those who are gone are removed."""
        lake.settle()

    def writes_and_settles(self, lake: lakelog.Lake) -> None:
        """A short process: it appends, publishes and ends; the next one removes its WAL."""
        self.writes(lake)
        lake.settle()
        lake.close()
        with lakelog.open(self.root, create=False, branch=lake.branch_name) as other:
            other.append({"type": "T", "subject": (name := self._names()[0])})
            self.visible[lake.branch_name].add(name)
            other.settle()

    def ingests(self, lake: lakelog.Lake) -> None:
        """Rows come from a file."""
        names, file = self._names(), self.place / f"{self.serial}.jsonl"
        file.write_text("".join(json.dumps({"type": "F", "subject": n}) + "\n" for n in names))
        lake.ingest(str(file))
        self.visible[lake.branch_name] |= set(names)

    def compacts(self, lake: lakelog.Lake) -> None:
        """Small segments become one."""
        lake.compact()

    def tags(self, lake: lakelog.Lake) -> None:
        """A state gets a name."""
        lake.tag(f"t{self.serial}-{len(self.done)}")

    def branches_off(self, lake: lakelog.Lake) -> None:
        """Another branch begins here."""
        if len(self.visible) < 3:
            name = f"b{len(self.done)}"
            lake.branch(name).close()
            self.visible[name] = set(self.visible[lake.branch_name])

    def rolls_back(self, lake: lakelog.Lake) -> None:
        """The branch goes to an earlier state."""
        lake.settle()
        number = self.dice.choice([entry.move.number for entry in lake.log()])
        lake.rollback(f"@{number}")
        self.visible[lake.branch_name] = shown(lake)


ACTS: list[Callable[[Life, lakelog.Lake], None]] = [
    *3 * [Life.writes],
    *2 * [Life.settles],
    *4 * [Life.writes_and_settles],
    Life.ingests,
    Life.compacts,
    Life.tags,
    Life.branches_off,
    Life.rolls_back,
]


def shown(lake: lakelog.Lake) -> Keys:
    """What a reader sees, each event once."""
    found = Counter(k for (k,) in lake.sql("SELECT subject FROM events").fetchall())
    twice = [key for key, times in found.items() if times > 1]
    assert not twice, f"{twice} doubled"
    return set(found)


def read(root: str, branch: str) -> Keys | None:
    """What a new reader sees of a branch; None where an error says that it cannot be read."""
    try:
        with lakelog.open(root, create=False, branch=branch) as lake:
            return shown(lake)
    except LakelogError:
        return None


def evidence(root: str) -> dict[str, Keys]:
    """What is left of each branch: events in good frames of WALs, and in sealed segments, but for
    those that its moves say were taken off."""
    store, _ = damage.open_for_check(root)
    found: dict[str, Keys] = {}
    for text in os.listdir(store.paths.wals) if os.path.isdir(store.paths.wals) else ():
        keys = found.setdefault(FileName(text).ref, set())
        for group in Tail(store.paths, Refs(store.volume), FileName(text).ref).scan().values():
            for file in group:
                for frame in (*file.frames, *file.resumed):
                    with contextlib.suppress(Exception):
                        keys.update(
                            orjson.loads(line)["subject"] for line in frame.lines().splitlines()
                        )
    for path in Path(root, "segments").rglob("*.parquet"):
        digest = FileName(path.name).digest
        if digest and document.digest(path.read_bytes()) == digest:
            notes = segment.Segment(store.paths, digest).metadata()
            if orjson.loads(notes["wal"]):
                rows = segment.Segment(store.paths, digest).read()["subject"].to_pylist()
                found.setdefault(notes["branch"], set()).update(rows)
    return {name: keys - _taken_off(store, name) for name, keys in found.items()}


def _taken_off(store: Store, branch: str) -> Keys:
    """The events of states that moves left over name, and that the newest of these lacks."""
    moves = recover.moves(store, branch)[0]
    states = [_keys(store, moves[number][0].snapshot) for number in sorted(moves)]
    return set().union(*states) - (states[-1] if states else set())


def _keys(store: Store, snapshot: str) -> Keys:
    keys: Keys = set()
    with contextlib.suppress(LakelogError, OSError, ValueError):
        for entry in store.manifests.segments(store.manifests.load(snapshot), "events"):
            keys.update(segment.Segment(store.paths, entry.key).read()["subject"].to_pylist())
    return keys


def harm(life: Life) -> list[str]:
    """Take files away, or damage them; return which."""
    dice, root = life.dice, Path(life.root)
    heads, wals = root / "refs/heads", root / "wal"
    branch = dice.choice(sorted(life.visible))
    moves = sorted((heads / branch).glob("0*.json"))
    newest = [*moves[-dice.randint(1, 4) :], heads / branch / "hint"]
    logs = sorted(wals.rglob("*.zst"))
    logs = dice.sample(logs, dice.randint(1, len(logs))) if logs else []
    every = [f for f in root.rglob("*") if f.is_file()]
    theme = dice.choice(["newest", "newest", "wal", "wal", "both", "branch", "any", "any", "tags"])
    taken = {
        "newest": newest,
        "wal": logs,
        "both": [*newest, *logs],
        "branch": [heads / branch, *([wals / branch] if dice.random() < 0.3 else [])],
        "any": dice.sample(every, min(len(every), dice.randint(1, 6))),
        "tags": [*sorted((root / "refs/tags").glob("*")), *newest],
    }[theme]
    if dice.random() < 0.2:
        taken = [*taken, root / "cache"]
    for path in taken:
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            _spoil(dice, path, always_gone=theme != "any")
    return [theme, *(str(path.relative_to(root)) for path in taken)]


def _spoil(dice: random.Random, path: Path, *, always_gone: bool) -> None:
    data = path.read_bytes()
    way = "gone" if always_gone else dice.choice(["gone", "gone", "flip", "cut"])
    if way == "gone" or not data:
        path.unlink()
    elif way == "flip":
        damage.put(path, damage.flipped(data, dice.randrange(len(data)), dice.randrange(8)))
    else:
        damage.put(path, data[: dice.randrange(len(data))])


def judge(life: Life) -> str:
    """Damage a lake, and hold what verify, gc and repair say and do against the evidence. Return
    what became of it."""
    harmed = harm(life)
    where = f"{life.done} {harmed}"
    with_copy = life.copied is not None and life.dice.random() < 0.7
    try:
        report = damage.checked(life.root)
    except LakeNotFound:
        kept = [*Path(life.root, "wal").glob("*/*"), *Path(life.root, "segments").glob("*/*")]
        assert not kept, f"{where}: no lake, but {kept}"
        return "no lake"
    left = {
        name: keys & life.visible.get(name, set()) for name, keys in evidence(life.root).items()
    }
    for name, keys in left.items() if report.intact else ():
        seen = read(life.root, name) or set()
        assert keys <= seen, f"{where}: intact, but {sorted(keys - seen)} of {name} are not there"
    _collect(life, left, where)
    done = damage.repaired(life.root, life.copy if with_copy else None)
    assert done.after is not None
    assert done.after.intact, f"{where}: {done.after.problems}"
    verdict = "intact" if report.intact else "damaged"
    for name, was in life.visible.items():
        copied = (life.copied or {}).get(name, set()) if with_copy else set()
        wanted = (left.get(name, set()) | copied) & was
        seen = read(life.root, name)
        if seen is None:
            assert not wanted, f"{where}: {sorted(wanted)} of {name} are gone: {done.lost}"
            continue
        gone = wanted - seen
        assert not (gone and with_copy and gone <= copied), (
            f"{where}: {sorted(gone)} are in the copy"
        )
        assert not gone or done.lost, f"{where}: {sorted(gone)} of {name}, and nothing is lost"
        verdict += " with losses" if gone else ""
        life.visible[name] = seen
    again = damage.repaired(life.root, life.copy if with_copy else None)
    told = (again.fetched, again.done, again.lost)
    assert told == ([], [], []), f"{where}: a second repair did {told}"
    name = Store.load(life.root).refs.branches()[0]
    with lakelog.open(life.root, create=False, branch=name) as lake:
        lake.gc()
        lake.gc()
    for name, keys in life.visible.items():
        seen = read(life.root, name)
        assert seen is None or seen == keys, f"{where}: gc changed {name}"
    assert damage.checked(life.root).intact, where
    return verdict + (" with a copy" if with_copy else "")


def _collect(life: Life, left: dict[str, Keys], where: str) -> None:
    """Collect garbage: no evidence may be deleted."""
    with (
        contextlib.suppress(GcRefused, LakelogError),
        lakelog.open(life.root, create=False) as lake,
    ):
        lake.gc()
        lake.gc()
    after = evidence(life.root)
    for name, keys in left.items():
        seen = read(life.root, name) or set()
        gone = keys - after.get(name, set()) - seen
        assert not gone, f"{where}: gc took {sorted(gone)} of {name}"


def play(seed: object, place: Path) -> str:
    """Play one life, determined by its seed."""
    place.mkdir(parents=True)
    try:
        return judge(Life(random.Random(f"vanishing {seed}"), place).play())
    finally:
        shutil.rmtree(place, ignore_errors=True)
