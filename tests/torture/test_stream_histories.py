"""Random histories of event streams, compared with a plain model after every step.

A history has several open lakes on one directory, as processes have, that append with and without
expected versions, seal, compact, roll back, undo, branch, tag, remove old events and duplicates,
erase subjects, repair, and die within an append. A subscription reacts to each event of a branch
once, whichever state that is in, and a search finds what a scan does. LAKELOG_STREAM_HISTORIES sets
how many, LAKELOG_STREAM_SEED the first.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.analyze import dedupe
from lakelog.errors import NothingToUndo, WouldDropEvents, WrongVersion
from tests.support import seam
from tests.support.lakes import opened

HISTORIES = int(os.environ.get("LAKELOG_STREAM_HISTORIES", "2"))
SEED = int(os.environ.get("LAKELOG_STREAM_SEED", "0"))
STEPS = 25
SUBJECTS = ["a", "b", "ž"]
WORDS = ["alpha", "beta", "Řeka", "10.0.0.7", "a/b-c"]
OLD = "2001-02-03T04:05:06Z"
Streams = dict[str, list[int]]
"""Of each subject the number of the event that has each version, 0 where retention removed it."""


class History:
    """One history: the lake, and what its branches and tags should hold."""

    def __init__(self, path: str, seed: int) -> None:
        self.path, self.dice = path, random.Random(seed)
        self.count, self.log = 0, list[str]()
        self.branches: dict[str, Streams] = {"main": {}}
        self.tags: dict[str, Streams] = {}
        self.old, self.gone, self.erased = set[int](), set[int](), set[str]()
        self.open = [opened(path, rotate_events=7) for _ in range(2)]

    def run(self) -> None:
        """Take random steps; compare the streams of a branch after each."""
        steps = (
            [self.expect] * 8
            + [self.append, self.settle, self.compact, self.restart]
            + [
                *(self.tag, self.rollback, self.branch, self.undo, self.repair, self.retention),
                *(self.kill, self.kill, self.forget),
                *(self.react, self.react, self.react, self.search, self.dedupe, self.erase),
            ]
        )
        for _ in range(STEPS):
            step = self.dice.choice(steps)
            self.log.append(step.__name__)
            step()
            self.compare(self.dice.choice(self.open))
        for lake in self.open:
            self.compare(lake)
            lake.close()
        with lakelog.open(self.path, create=False) as lake:
            # What a process that died had begun to write is torn, and named (F14.1).
            problems = [p for p in lake.verify().problems if "after the last good" not in p.reason]
            assert problems == []
            for name, streams in self.tags.items():
                for subject in SUBJECTS:
                    self.same(lake.at(name).stream(subject), streams.get(subject, []))

    def same(self, stream: Any, numbers: list[int]) -> None:
        found = [(e["version"], int(e["data"])) for e in stream]
        present = [(v, n) for v, n in enumerate(numbers, 1) if n and n not in self.gone]
        assert (stream.version, found) == (len(numbers), present)

    def compare(self, lake: lakelog.Lake) -> None:
        """The streams of a branch are those of the model."""
        for subject in SUBJECTS:
            self.same(lake.stream(subject), self.branches[lake.branch_name].get(subject, []))

    def events(self, subjects: list[str]) -> list[dict[str, Any]]:
        batch = []
        for subject in subjects:
            self.count += 1
            event = {"type": "E", "subject": subject, "data": self.count}
            event["message"] = " ".join(self.dice.choices(WORDS, k=2))
            if self.dice.random() < 0.2 and subject not in self.erased:
                event["time"] = OLD
                self.old.add(self.count)
            batch.append(event)
        return batch

    def expect(self) -> None:
        lake = self.dice.choice(self.open)
        streams = self.branches[lake.branch_name]
        chosen = self.dice.sample(SUBJECTS, self.dice.randint(1, 2))
        batch = self.events([self.dice.choice(chosen) for _ in range(3)] + chosen)
        true = {subject: len(streams.get(subject, [])) for subject in chosen}
        wanted = {s: v + self.dice.choice([0, 0, 0, 0, 1, -1]) for s, v in true.items()}
        wanted = {subject: max(version, 0) for subject, version in wanted.items()}
        try:
            receipt = lake.append(batch, expect=wanted)
        except WrongVersion as error:
            refused = error.subject, error.expected, error.actual
        else:
            refused = None
        wrong = [(s, wanted[s], true[s]) for s in chosen if wanted[s] != true[s]]
        assert refused == (wrong[0] if wrong else None)
        if refused:
            return
        self.add(streams, batch)
        assert receipt.versions == {subject: len(streams[subject]) for subject in chosen}

    def add(self, streams: Streams, batch: list[dict[str, Any]]) -> None:
        for event in batch:
            streams.setdefault(event["subject"], []).append(event["data"])

    def append(self) -> None:
        self.dice.choice(self.open).append(self.events([self.dice.choice(SUBJECTS)]))

    def settle(self) -> None:
        self.dice.choice(self.open).settle()

    def compact(self) -> None:
        self.dice.choice(self.open).compact()

    def retention(self) -> None:
        lake = self.dice.choice(self.open)
        lake.retention("1000d", apply=True)
        for numbers in self.branches[lake.branch_name].values():
            numbers[:] = [0 if n in self.old else n for n in numbers]

    def dedupe(self) -> None:
        """The same twice, of which one is left."""
        lake = self.dice.choice(self.open)
        lake.append([{"type": "TWICE", "message": "alpha twice"}] * 2)
        dedupe.apply(lake, dedupe.plan(lake, ["type", "message"]))
        assert lake.sql("SELECT count(*) FROM events WHERE type = 'TWICE'").fetchall() == [(1,)]

    def erase(self) -> None:
        """A subject is erased from all states; its versions go on."""
        subject = self.dice.choice(SUBJECTS)
        if self.dice.random() < 0.5:
            self.erased.add(subject)
            self.dice.choice(self.open).erase(subject=subject, why="32/2026")
            for streams in (*self.branches.values(), *self.tags.values()):
                self.gone |= set(streams.get(subject, []))

    def react(self) -> None:
        """A subscriber handles what is left of a branch: each event has one reaction then."""
        lake = self.dice.choice(self.open)
        with lake.subscribe("react", where="type = 'E'") as subscription:
            subscription.run(_reaction, once=True)
        rows = lake.sql("SELECT type, subject, data::INT FROM events ORDER BY seq").fetchall()
        wanted, reactions = ([row[1:] for row in rows if row[0] == t] for t in ("E", "REACTION"))
        assert max(Counter(reactions).values(), default=1) == 1
        assert set(wanted) <= set(reactions)
        for subject in SUBJECTS:
            numbers = [n for name, n in reactions if name == subject]
            assert numbers == sorted(numbers)

    def search(self) -> None:
        """A word is found where a scan finds it."""
        lake, word = self.dice.choice(self.open), self.dice.choice([*WORDS, "twice"])
        found = lake.search(word).fetchall()
        query = "SELECT count(*) FROM events WHERE contains(message, ?)"
        assert [(len(found),)] == lake.sql(query, [word]).fetchall()

    def repair(self) -> None:
        self.dice.choice(self.open).repair()

    def forget(self) -> None:
        """Somebody deletes the marks, or all of the cache that can be."""
        for file in (Path(self.path) / "cache/streams").glob("*"):
            file.unlink()

    def restart(self) -> None:
        place = self.dice.randrange(len(self.open))
        self.open[place].close()
        branch = self.dice.choice(sorted(self.branches))
        self.open[place] = lakelog.open(self.path, create=False, branch=branch)

    def tag(self) -> None:
        lake = self.dice.choice(self.open)
        name = f"t{len(self.tags)}"
        lake.tag(name)
        streams = self.branches[lake.branch_name]
        self.tags[name] = {subject: list(numbers) for subject, numbers in streams.items()}

    def rollback(self) -> None:
        if self.tags:
            lake, name = self.dice.choice(self.open), self.dice.choice(sorted(self.tags))
            before = self.branches[lake.branch_name]
            lake.rollback(name)
            streams = {subject: list(numbers) for subject, numbers in self.tags[name].items()}
            self.branches[lake.branch_name] = streams
            if self.dice.random() < 0.4:
                lake.undo()
                self.branches[lake.branch_name] = before

    def undo(self) -> None:
        lake = self.dice.choice(self.open)
        try:
            lake.undo()
        except NothingToUndo:
            return
        except WouldDropEvents:
            return
        streams: Streams = {}
        for subject in SUBJECTS:
            stream = lake.stream(subject)
            streams[subject] = [0] * stream.version
            for e in stream:
                streams[subject][e["version"] - 1] = int(e["data"])
        self.branches[lake.branch_name] = streams

    def branch(self) -> None:
        if len(self.branches) < 4:
            lake, name = self.dice.choice(self.open), f"b{len(self.branches)}"
            lake.branch(name).close()
            streams = self.branches[lake.branch_name]
            self.branches[name] = {subject: list(numbers) for subject, numbers in streams.items()}

    def kill(self) -> None:
        """A process dies at some call of the disk within an append: all of it is there, or none."""
        branch = self.dice.choice(sorted(self.branches))
        streams, subject = self.branches[branch], self.dice.choice(SUBJECTS)
        version = len(streams.get(subject, []))
        dying = lakelog.open(self.path, create=False, branch=branch)
        if self.dice.random() < 0.5:
            first = self.events([subject])
            dying.append(first, expect={subject: version})
            self.add(streams, first)
            version += 1
        batch, has_died = self.events([subject] * 2), False
        with pytest.MonkeyPatch.context() as patch:
            seam.install(patch, fault := seam.Fault(self.dice.randint(1, 6), seam.Killed()))
            try:
                dying.append(batch, expect={subject: version})
            except seam.Killed:
                has_died = True
                fault.release()
        if has_died:
            with lakelog.open(self.path, create=False, branch=branch) as lake:
                there = lake.stream(subject).version
            assert there in (version, version + 2)
            if there == version:
                return
        self.add(streams, batch)


def _reaction(event: dict[str, Any]) -> dict[str, Any]:
    return {"type": "REACTION", "subject": event["subject"], "data": int(event["data"])}


# One that dies at a call of the disk stops the thread that watches the branch, too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("seed", range(SEED, SEED + HISTORIES))
def test_streams_over_random_histories(tmp_path: Path, seed: int) -> None:
    """After every step each stream has the events of the model, in order, without a gap."""
    history = History(str(tmp_path / "lake"), seed)
    try:
        history.run()
    except BaseException as error:
        error.add_note(f"seed {seed}: {' '.join(history.log)}")
        raise
