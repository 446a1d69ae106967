"""What actors do to one lake, what was promised to them, and whether it was kept.

Every event has a name of its own (`subject`). At each move of the branch an observer reads which
events it holds; at the end the promises are checked against moves and reads: an acknowledged
event is in every later read, once; a later read is a superset; what a rewind took away stays away.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import pytest

import lakelog
from lakelog.database import connection
from lakelog.errors import LakelogError, NothingToUndo, WouldDropEvents
from lakelog.paths import OBJECTS, FileName
from lakelog.segments import segment
from lakelog.store import Store
from lakelog.wal.trimming import trim
from tests.support.scheduler import HOUR, Actor, Scheduler
from tests.support.scratch import memory

REWINDS = {"rollback", "undo", "retention", "repair"}
SETTINGS = {"seal": "never", "rotate_events": 3, "threads": 1}
_warm: list[duckdb.DuckDBPyConnection] = []


@dataclass(frozen=True)
class Event:
    """One event: its name, the id it was given, and whether retention may take it."""

    name: str
    given: str | None = None
    old: bool = False

    @property
    def key(self) -> str:
        """What is stored once."""
        return self.given or self.name

    def row(self) -> dict[str, Any]:
        """The event as it is appended."""
        row: dict[str, Any] = {"type": "T", "source": "s", "subject": self.name}
        row |= {"id": self.given} if self.given else {}
        return row | ({"time": "2001-01-01T00:00:00Z"} if self.old else {})


@dataclass(frozen=True)
class Seen:
    """One read: when, what had been acknowledged before, and the names and keys it gave."""

    start: int
    end: int
    acked: frozenset[str]
    names: tuple[str, ...]
    keys: frozenset[str]


@dataclass(frozen=True)
class Moved:
    """One move of the branch as it was linked, and the names of the events it holds."""

    step: int
    number: int
    op: str
    names: tuple[str, ...]


@dataclass
class World:
    """One lake and its promises."""

    root: str
    scheduler: Scheduler
    shared_ids: float = 0.0
    old: float = 0.0
    must_raise_nothing: bool = True
    refusals: tuple[str, ...] = ()
    """Texts of errors that are an answer, not a fault."""

    def __post_init__(self) -> None:
        shutil.copytree(_template(), self.root)
        self.events: dict[str, Event] = {}
        self.acked: set[str] = set()
        self.reads: list[Seen] = []
        self.counts: list[tuple[int, int, int, int]] = []
        self.moves: list[Moved] = []
        self.errors: list[str] = []
        self.on_promise: Callable[[str, list[str]], None] = lambda kind, names: None
        self.writing = 0
        self._serial = itertools.count()
        self._eyes = Store.load(self.root)
        self._held: dict[str, list[str]] = {}
        self.scheduler.on_change = self._observe
        self._observing = False

    def open(self) -> lakelog.Lake:
        """A handle of its own, as another process has."""
        return lakelog.open(self.root, create=False)

    def make(self, count: int) -> list[Event]:
        """New events, some of which share their ids, some of which are old."""
        dice, made = self.scheduler.dice, []
        for _ in range(count):
            name = f"e{next(self._serial)}"
            given = f"id{dice.randrange(4)}" if dice.random() < self.shared_ids else None
            made.append(Event(name, given, given is None and dice.random() < self.old))
            self.events[name] = made[-1]
        return made

    def _observe(self, actor: Actor, name: str, args: tuple[Any, ...], result: Any) -> None:
        if name != "link" or not args[1].startswith(f"{self.root}/refs/heads/main/"):
            return
        number = FileName.of(args[1]).move
        if number is None:
            return
        self.scheduler.observing = True
        try:
            move = self._eyes.refs.read("main", number)
            names = self.names_in(move.snapshot)
        finally:
            self.scheduler.observing = False
        self.moves.append(Moved(self.scheduler.step, number, move.op, tuple(names)))

    def turns(self, least: int) -> Iterator[int]:
        """Count to `least`, and on while somebody writes, within reason."""
        for turn in itertools.count():
            if turn >= least * (5 if self.writing else 1):
                return
            yield turn

    def note(self, what: str, error: Exception) -> None:
        """Keep an error that may be; raise any other."""
        if self.must_raise_nothing and not any(text in str(error) for text in self.refusals):
            raise error
        self.errors.append(f"{what}: {error}")

    def names_in(self, snapshot: str) -> list[str]:
        """The names of the events in a state, read from its segments."""
        found: list[str] = []
        state = self._eyes.manifests.load(snapshot)
        for entry in self._eyes.manifests.segments(state):
            if entry.key not in self._held:
                table = segment.Segment(self._eyes.paths, entry.key).read()
                self._held[entry.key] = table["subject"].to_pylist()
            found += self._held[entry.key]
        return found

    def key_of(self, name: str) -> str:
        """The key of an event by its name."""
        return self.events[name].key

    def check(self) -> None:
        """Assert every promise; the scheduler is over."""
        self._check_moves()
        for seen in self.reads:
            self._check_read(seen)
        for early, late in itertools.combinations(sorted(self.reads, key=lambda s: s.end), 2):
            if early.end < late.start and not self._rewinds(early.start, late.end):
                lost = early.keys - late.keys
                assert not lost, f"{sorted(lost)} seen at {early.end}, not at {late.end}"
        self._check_counts()
        self._check_end()

    def _rewinds(self, start: int, end: int) -> list[Moved]:
        return [m for m in self.moves if m.op in REWINDS and start <= m.step <= end]

    def taken_off(self) -> set[str]:
        """Names, and all that share an id with them, that some rewind took off the branch."""
        pairs = itertools.pairwise(self.moves)
        gone = {n for a, b in pairs if b.op in REWINDS for n in set(a.names) - set(b.names)}
        keys = {self.key_of(name) for name in gone}
        return {name for name, event in self.events.items() if event.key in keys}

    def _banned(self, step: int) -> set[str]:
        """Names that rewinds before a step took off the branch."""
        banned: set[str] = set()
        before: set[str] = set()
        for move in self.moves:
            if move.step > step:
                break
            if move.op in REWINDS:
                banned = (banned | before) - set(move.names)
            before = set(move.names)
        return banned

    def _check_moves(self) -> None:
        numbers = [move.number for move in self.moves]
        assert numbers == list(range(2, 2 + len(numbers))), f"moves {numbers}"
        before = Moved(0, 1, "init", ())
        for move in self.moves:
            where = f"move {move.number} ({move.op})"
            _assert_once(self._keys(move.names), where)
            gone, new = set(before.names) - set(move.names), set(move.names) - set(before.names)
            if move.op == "retention":
                assert all(self.events[name].old for name in gone), f"{where} took {gone}"
            if move.op not in REWINDS:
                assert not gone, f"{where} lost {sorted(gone)}"
            if move.op not in {"seal", "undo", "rollback"}:
                assert not new, f"{where} added {sorted(new)}"
            before = move

    def _keys(self, names: tuple[str, ...]) -> list[str]:
        return [self.key_of(name) for name in names]

    def _check_read(self, seen: Seen) -> None:
        where = f"the read of {seen.start} to {seen.end}"
        _assert_once(list(seen.names), where)
        _assert_once(self._keys(seen.names), where)
        if self._rewinds(seen.start, seen.end):
            return
        banned = self._banned(seen.start)
        risen = banned & set(seen.names)
        assert not risen, f"{where}: {sorted(risen)} came back"
        if not (banned and self.shared_ids):
            lost = seen.acked - seen.keys - {self.key_of(name) for name in banned}
            assert not lost, f"{where}: acknowledged {sorted(lost)} not there"

    def _check_counts(self) -> None:
        if self._rewinds(0, self.scheduler.step):
            return
        for start, end, least, count in self.counts:
            floor = max((c for _, e, _, c in self.counts if e < start), default=0)
            assert count >= max(least, floor), f"count {count} at {start} to {end}"

    def _check_end(self) -> None:
        with self.open() as lake:
            _assert_intact(lake)
            before = sorted(name for (name,) in lake.sql("SELECT subject FROM events").fetchall())
            lake.settle()
            names = [name for (name,) in lake.sql("SELECT subject FROM events").fetchall()]
            if not self.shared_ids:
                assert sorted(names) == before, f"settling made {before} into {sorted(names)}"
            assert lake.count() == len(names), f"{lake.count()} counted, {len(names)} there"
            _assert_intact(lake)
        end = self.scheduler.step + 1
        self.acked_at_end = frozenset(map(self.key_of, self.acked))
        keys = frozenset(self._keys(tuple(names)))
        self._check_read(Seen(end, end, self.acked_at_end, tuple(names), keys))


def _assert_intact(lake: lakelog.Lake) -> None:
    damage = [p for p in lake.verify().problems if p.kind == "damage"]
    assert damage == [], f"at the end {damage}"


def _assert_once(values: list[str], where: str) -> None:
    twice = sorted(value for value, count in Counter(values).items() if count > 1)
    assert not twice, f"{where}: {twice} doubled"


@functools.cache
def _template() -> str:
    """A new lake without its empty folders of objects, which are rebuilt when needed."""
    folder = tempfile.mkdtemp(dir=memory())
    atexit.register(shutil.rmtree, folder, True)
    lakelog.open(f"{folder}/lake", settings=SETTINGS).close()
    for kind in OBJECTS:
        for leaf in os.scandir(f"{folder}/lake/{kind}"):
            if not os.listdir(leaf):
                os.rmdir(leaf)
    return f"{folder}/lake"


def warm_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give all actors cursors of one database: they compute in it and share nothing by it."""
    if not _warm:
        _warm.append(duckdb.connect(":memory:", config={"threads": "1"}))
        _warm[0].execute("SET TimeZone = 'UTC'")
    monkeypatch.setattr(connection, "connect", lambda paths, settings: _warm[0].cursor())


# --- actors -------------------------------------------------------------------------------------


def writes(world: World, appends: int, batch: int = 2) -> Any:
    """Append, and note what was acknowledged."""

    def play(actor: Actor) -> None:
        lake, dice = world.open(), world.scheduler.dice
        world.writing += 1
        for _ in range(appends):
            events = world.make(dice.randint(1, batch))
            world.scheduler.begin(actor)
            try:
                lake.append([event.row() for event in events])
                world.acked.update(event.name for event in events)
                world.on_promise("append", [event.name for event in events if not event.old])
            except OSError as error:
                world.errors.append(f"append: {error}")
            world.scheduler.end(actor)
        world.writing -= 1
        if dice.random() < 0.8:
            lake.close()

    return play


def goes_on(world: World, times: int) -> Any:
    """Be one short-lived writer after another, whose events are sealed and whose files go."""

    def play(actor: Actor) -> None:
        seal = works(world, 1, "settle", "settle", "settle", "compact")
        world.writing += 1
        for _ in range(times):
            writes(world, world.scheduler.dice.randint(1, 2))(actor)
            seal(actor)
        world.writing -= 1

    return play


def stays(world: World, times: int) -> Any:
    """Be one writer that lives on, whose every event is sealed before it appends the next."""

    def play(actor: Actor) -> None:
        lake, seal = world.open(), works(world, 1, "seal")
        world.writing += 1
        for _ in range(times):
            events = world.make(1)
            lake.append([event.row() for event in events])
            world.acked.update(event.name for event in events)
            seal(actor)
        world.writing -= 1

    return play


def reads(world: World, times: int) -> Any:
    """Read all rows, or count them."""

    def play(actor: Actor) -> None:
        lake, scheduler = world.open(), world.scheduler
        for _ in world.turns(times):
            start, acked = scheduler.step, frozenset(map(world.key_of, world.acked))
            scheduler.begin(actor)
            if scheduler.dice.random() < 0.3:
                count = lake.count()
                world.counts.append((start, scheduler.step, len(acked), count))
            else:
                rows = lake.sql("SELECT subject FROM events").fetchall()
                names = tuple(name for (name,) in rows)
                keys = frozenset(map(world.key_of, names))
                world.reads.append(Seen(start, scheduler.step, acked, names, keys))
            scheduler.end(actor)

    return play


def works(world: World, times: int, *kinds: str) -> Any:
    """Do operations drawn from `kinds`, each a name in OPERATIONS."""

    def play(actor: Actor) -> None:
        lake = world.open()
        for turn in world.turns(times):
            kind = world.scheduler.dice.choice(kinds)
            world.scheduler.begin(actor)
            acked = frozenset(map(world.key_of, world.acked))
            try:
                snapshot = OPERATIONS[kind](world, lake, f"{actor.name}-{turn}")
                world.on_promise(kind, [f"{actor.name}-{turn}"])
                if snapshot is not None and not world._rewinds(0, world.scheduler.step):
                    world.scheduler.observing = True
                    held = frozenset(map(world.key_of, world.names_in(snapshot)))
                    world.scheduler.observing = False
                    assert acked <= held, f"{kind} left out {sorted(acked - held)}"
            except (OSError, LakelogError) as error:
                world.note(kind, error)
            world.scheduler.end(actor)

    return play


def _seal(world: World, lake: lakelog.Lake, _: str) -> None:
    lake.sealer().seal()


def _trim(world: World, lake: lakelog.Lake, _: str) -> None:
    trim(lake.store, "main", lake._session.tail("main"))


def _retain(world: World, lake: lakelog.Lake, _: str) -> None:
    lake.retention("3650d", apply=True)


def _collect(world: World, lake: lakelog.Lake, _: str) -> None:
    lake.gc()


def _compact(world: World, lake: lakelog.Lake, _: str) -> None:
    lake.compact()


def _rollback(world: World, lake: lakelog.Lake, _: str) -> None:
    newest = world.moves[-1].number if world.moves else 1
    lake.rollback(f"@{world.scheduler.dice.randint(1, newest)}")


def _undo(world: World, lake: lakelog.Lake, _: str) -> None:
    before = len(world.moves)
    try:
        lake.undo()
    except (NothingToUndo, WouldDropEvents):
        return
    for last, move in itertools.pairwise(world.moves[max(before - 1, 0) :]):
        gone = set(last.names) - set(move.names)
        lost = [name for name in gone if not world.events[name].old]
        assert move.op != "undo" or not lost, f"undo without force dropped {sorted(lost)}"


def _undo_by_force(world: World, lake: lakelog.Lake, _: str) -> None:
    try:
        lake.undo(force=True)
    except NothingToUndo:
        return


OPERATIONS: dict[str, Any] = {
    "settle": lambda world, lake, name: lake.settle().move.snapshot,
    "seal": _seal,
    "trim": _trim,
    "compact": _compact,
    "gc": _collect,
    "retain": _retain,
    "rollback": _rollback,
    "undo": _undo,
    "undo by force": _undo_by_force,
    "snapshot": lambda world, lake, name: lake.snapshot(name).id,
    "tag": lambda world, lake, name: lake.tag(name).snapshot,
    "branch": lambda world, lake, name: lake.branch(name).store.refs.head(name).move.snapshot,
}


def collects(world: World, times: int, stalls: bool = False) -> Any:
    """Let a day go by and collect; `stalls` lets it go by in the middle of what others do."""

    def play(actor: Actor) -> None:
        lake, scheduler = world.open(), world.scheduler
        for _ in range(times):
            if stalls:
                scheduler.between_moves(actor)
                scheduler.shift += 30 * HOUR
            else:
                scheduler.quiet(actor)
                scheduler.shift += 30 * HOUR
                scheduler.loud()
            scheduler.begin(actor)
            try:
                lake.gc()
            except (OSError, LakelogError) as error:
                world.note("gc", error)
            scheduler.end(actor)

    return play
