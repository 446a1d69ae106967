"""Ingests of one file in scheduled steps: beside each other, growth, compaction and rollbacks.

Batches and chunks are small, so that one ingest publishes often. After every move the branch must
hold the events and the quarantined lines before its cursor, no more and no fewer.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.errors import LakelogError
from lakelog.files.file_cursor import FileCursor
from lakelog.ingest import batch
from lakelog.ingest.batch import Job
from lakelog.ingest.file_report import FileReport
from lakelog.ingest.group import Group
from lakelog.ingest.ingest import Ingester
from lakelog.lines import source
from lakelog.paths import FileName
from lakelog.store import Store
from tests.support.feeds import bad_lines, event, numbers
from tests.support.scheduler import Actor, Scheduler
from tests.support.scratch import memory
from tests.support.world import SETTINGS

ROWS, CHUNK = 12, 700
Play = Callable[[Actor], None]


class Feeding:
    """One file, who takes it in, and what the branch held after each move."""

    def __init__(self, stage: Scheduler, folder: Path, keyed: bool) -> None:
        self.stage, self.path, self.root = stage, folder / "f", stage.root
        self._keyed = keyed
        self._ends, self.moves = [0], 0
        self.path.touch()
        self.grow(stage.dice.randint(3, 60))
        with lakelog.open(self.root, settings=SETTINGS) as lake:
            lake.tag("empty")
        self._store = Store.load(self.root)
        stage.on_change = self._changed

    def grow(self, lines: int) -> None:
        """Add lines; every seventh is no event."""
        with open(self.path, "ab") as file:
            for n in range(len(self._ends) - 1, len(self._ends) - 1 + lines):
                given = event(n, id=f"i{n}") if self._keyed else event(n)
                line = (json.dumps(given) if n % 7 else "{oops").encode() + b"\n"
                file.write(line)
                self._ends.append(self._ends[-1] + len(line))

    def wanted(self, place: int) -> tuple[int, int]:
        """How many events and how many other lines the first bytes hold."""
        lines = self._ends.index(place)
        bad = len(range(0, lines, 7))
        return lines - bad, bad

    def check(self) -> None:
        """Take in what is left: everything is there, once. Raises AssertionError."""
        with lakelog.open(self.root, create=False) as lake:
            lake.ingest(str(self.path))
            lines = len(self._ends) - 1
            assert sorted(numbers(lake)) == [n for n in range(lines) if n % 7]
            at = [place for place, _, _ in bad_lines(lake)]
            assert at == [self._ends[n] for n in range(0, lines, 7)]
            assert not [p for p in lake.verify().problems if p.kind == "damage"]

    def _changed(self, actor: Actor, name: str, args: tuple[Any, ...], result: Any) -> None:
        """Count what a new move holds; raise in whoever made it."""
        made = Path(args[1]) if name == "link" else Path()
        number = FileName(made.name).move if "heads" in made.parts else None
        if number is None:
            return
        self.stage.observing = True
        try:
            move = self._store.refs.read_head("main", number).move
            state = self._store.manifests.load(move.snapshot)
            places = [c.bytes for c in FileCursor.of_state(self._store, state)]
            assert len(places) <= 1, f"the file has {len(places)} cursors"
            held = (state.totals.events, state.totals.quarantined)
            wanted = self.wanted(sum(places))
            assert held == wanted, f"{actor.name}, move {number}: {held} are not {wanted}"
            self.moves += 1
        finally:
            self.stage.observing = False


def feeding(stage: Scheduler, folder: Path) -> Feeding:
    """Some that ingest, one that follows, one that writes, compacts, or goes back."""
    dice = stage.dice
    world = Feeding(stage, folder, keyed=dice.random() < 0.3)
    for i in range(dice.randint(2, 3)):
        stage.add(f"ingest{i}", ingests(world, 3))
    stage.add("watch", follows(world, 4))
    stage.add("growth", grows(world, 4), 0.3)
    if dice.random() < 0.4:
        stage.add("compactor", works(world, 2, lambda lake: lake.compact()), 0.3)
    if dice.random() < 0.5:
        stage.add("user", works(world, 2, lambda lake: lake.rollback("empty")), 0.2)
    if dice.random() < 0.3:
        dice.choice(stage.actors).kill_at = dice.randint(20, 300)
    return world


def ingests(world: Feeding, turns: int) -> Play:
    """Ingest the file, again and again."""
    return works(world, turns, lambda lake: lake.ingest(str(world.path)))


def follows(world: Feeding, turns: int) -> Play:
    """Take it in as a watcher does: with others, if there were others."""

    def take(lake: lakelog.Lake) -> None:
        job = Job(lake.store, "main", lake.engine, mode="follow")
        worker = Ingester(job, lake.sealer())

        def alone(path: str, name: str, _: str) -> FileReport:
            return worker.take(path, name)

        group = Group(job, alone)
        group.take(str(world.path), str(world.path), "follow")
        group.flush()

    return works(world, turns, take)


def grows(world: Feeding, turns: int) -> Play:
    """Write more lines now and then."""

    def play(actor: Actor) -> None:
        for _ in range(turns):
            world.stage.begin(actor)
            world.grow(world.stage.dice.randint(1, 30))
            world.stage.stop(actor, world.stage.dice.randint(0, 300))
            world.stage.end(actor)

    return play


def works(world: Feeding, turns: int, work: Callable[[lakelog.Lake], Any]) -> Play:
    """Do something with a lake of one's own, so often."""

    def play(actor: Actor) -> None:
        with lakelog.open(world.root, create=False) as lake:
            for _ in range(turns):
                world.stage.begin(actor)
                work(lake)
                world.stage.end(actor)

    return play


def perform(seed: int, monkeypatch: pytest.MonkeyPatch) -> Feeding:
    """Play one seed. Raises AssertionError that says how to play it again."""
    folder = Path(tempfile.mkdtemp(dir=memory()))
    stage = Scheduler(seed, f"{folder}/lake")
    monkeypatch.setattr(batch, "ROWS_MAX", ROWS)
    monkeypatch.setattr(source.Source, "CHUNK", CHUNK)
    try:
        world = feeding(stage, folder)
        stage.run(monkeypatch)
        world.check()
        return world
    except (AssertionError, LakelogError, OSError) as error:
        raise AssertionError(f"feeding {seed}: {type(error).__name__}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
