"""A model of the protocol: random interleavings of steps, nothing of the real code.

Writers append, rotate and fail; sealers turn frames into segments and publish; trimmers unlink;
readers count; one rollback; compaction and gc, which thins the history, beside tags of old states;
a power cut may end it all. Every actor is a generator and every
`yield` is a step boundary where any other may run. A rule of the protocol is a name in RULES;
`run` takes the rules that are switched off and returns what went wrong.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

RULES = {
    "wal before head": "a reader reads the WALs first and looks for the head afterwards (6.2)",
    "second look": "what looks damaged is read again, for frames come while one reads (6.1)",
    "look again": "a reader whose writer has no watermark looks whether the file is there (6.3)",
    "tail dedupe": "a reader counts a given id once in the tail (6.4)",
    "same watermark": "a publish holds only if the watermarks it took are unchanged (5.5)",
    "file still there": "no watermark counts as unsealed only while a file is there (5.5)",
    "ids again": "a publish onto a new head compares its ids with that head's (5.5)",
    "entry outlives files": "a watermark stays while the writer has a file (5.6)",
    "drop is durable": "the WAL directory is synced before a watermark is left out (5.6)",
    "trim is durable": "the refs are synced before a WAL file is unlinked (5.7)",
    "probe the hint": "a hint is never believed without the probe of its successor (3.2)",
    "carry watermarks": "a rollback keeps the watermarks of the move before it (13)",
    "lock until next": "a writer holds its newest file until the next one is there (4.3)",
    "carry the state": "a ref carries the state that it names, sufficient by itself (F7.11)",
    "young before link": "what a move adds is there, and young, right before its link (F9.3)",
    "refuse condemned": "no ref names what was condemned for half the grace (F9.10)",
    "refs again": "gc reads the refs again before it deletes what was condemned (F9.10)",
}
Steps = Iterator[None]
Event = tuple[int, int | None]
_RESTARTS = 400
GRACE = 60
"""Steps for which an object is condemned before gc deletes it."""
_WINDOW = 2
"""The newest moves, whose states gc keeps."""


class Directory:
    """Names, of which only those synced survive the power."""

    def __init__(self) -> None:
        self.live: dict[Any, Any] = {}
        self._durable: dict[Any, Any] = {}
        self._pending: list[tuple[Any, Any]] = []

    def add(self, name: Any, value: Any) -> None:
        """Make an entry."""
        self.live[name] = value
        self._pending.append((name, value))

    def remove(self, name: Any) -> None:
        """Drop an entry."""
        if self.live.pop(name, None) is not None:
            self._pending.append((name, None))

    def sync(self) -> None:
        """Make all entries durable."""
        self._durable, self._pending = dict(self.live), []

    def is_durable(self, name: Any) -> bool:
        """Whether an entry was synced, as who did so knows."""
        return name in self._durable

    def power_cut(self, dice: random.Random) -> None:
        """Keep of each name's pending changes any first few."""
        changes: dict[Any, list[Any]] = {}
        for name, value in self._pending:
            changes.setdefault(name, []).append(value)
        state = dict(self._durable)
        for name, values in changes.items():
            kept = values[: dice.randint(0, len(values))]
            if kept and kept[-1] is None:
                state.pop(name, None)
            elif kept:
                state[name] = kept[-1]
        self.live, self._durable, self._pending = state, dict(state), []


@dataclass
class WalFile:
    """One WAL file; `owned` while its writer holds the lock."""

    writer: int
    n: int
    frames: list[tuple[int, tuple[Event, ...]]] = field(default_factory=list)
    durable: int = 0
    owned: bool = True

    @property
    def last(self) -> int:
        """Highest sequence, -1 for none."""
        return self.frames[-1][0] if self.frames else -1


@dataclass(frozen=True)
class Segment:
    """A file of events; no two are the same file."""

    serial: int
    events: tuple[Event, ...]


@dataclass
class Move:
    """One ref: the state it names, and how far each writer is sealed. `carries` says whether the
    text of the state stands in it."""

    segments: tuple[Segment, ...] = ()
    watermarks: dict[int, int] = field(default_factory=dict)
    carries: bool = True

    def events(self) -> list[Event]:
        """All events of the segments."""
        return [e for segment in self.segments for e in segment.events]

    def keys(self) -> set[Any]:
        """Their keys."""
        return set(map(key, self.events()))


@dataclass(frozen=True)
class Mode:
    """What may happen in a run."""

    shared_ids: bool = False
    failures: float = 0.0
    rollback: bool = False
    power: bool = False
    gc: bool = False


def key(event: Event) -> Any:
    """The identity of an event: its given id, else itself."""
    return event[1] if event[1] is not None else ("plain", event[0])


class World:
    """The shared directory, and what the outside was promised."""

    def __init__(self, seed: int, off: frozenset[str]) -> None:
        assert off <= RULES.keys()
        self.dice, self.off = random.Random(seed), off
        self.wals, self.refs = Directory(), Directory()
        self.refs.add(0, Move())
        self.refs.sync()
        self.hint = 0
        self.acked: set[Any] = set()
        self.most = 0
        self.rewound = False
        self.gone: set[Any] = set()
        self.faults: set[str] = set()
        self.uids, self.writers = itertools.count(), itertools.count()
        self.now = 0
        self.serials = itertools.count()
        self.objects: dict[Segment, int] = {}
        """The segments on disk, and when each was written."""
        self.condemned: dict[Segment, int] = {}

    def put(self, events: tuple[Event, ...]) -> Segment:
        """Write a segment."""
        segment = Segment(next(self.serials), events)
        self.objects[segment] = self.now
        return segment

    def may_add(self, segment: Segment) -> bool:
        """Whether a move may add it now."""
        born = self.objects.get(segment, -GRACE)
        return self.now - born < GRACE // 2 or not self.holds("young before link")

    def may_name(self, segments: tuple[Segment, ...]) -> bool:
        """Whether a ref may name an old state now."""
        if not self.holds("refuse condemned"):
            return True
        return all(
            s in self.objects and self.now - self.condemned.get(s, self.now) < GRACE // 2
            for s in segments
        )

    def has_text(self, segments: tuple[Segment, ...]) -> bool:
        """Whether some ref carries a state."""
        return any(ref.carries and ref.segments == segments for ref in self.refs.live.values())

    def moves(self) -> list[int]:
        """The numbers of the moves, oldest first."""
        return sorted(name for name in self.refs.live if isinstance(name, int))

    def check(self, ref: Move) -> None:
        """Note if what a ref names is not there."""
        if not self.has_text(ref.segments) or any(s not in self.objects for s in ref.segments):
            self.faults.add("gone")

    def holds(self, rule: str) -> bool:
        """Whether a rule is switched on."""
        return rule not in self.off

    def head(self) -> tuple[int, Move]:
        """The newest move, or what a hint alone says."""
        newest = self.moves()[-1]
        number = newest if self.holds("probe the hint") else min(newest, self.hint)
        return number, self.refs.live[number]

    def files(self, writer: int) -> list[Any]:
        """Names of a writer's files now."""
        return [name for name in self.wals.live if name[0] == writer]


def writer(world: World, frames: int, mode: Mode) -> Steps:
    """Append, acknowledge after the sync, rotate; a failed sync repeats the frame elsewhere."""
    dice, name, n = world.dice, next(world.writers), itertools.count()
    file: WalFile | None = None
    full = True
    for sequence in range(frames):
        frame = (sequence, tuple(_event(world, mode) for _ in range(dice.randint(1, 2))))
        if file is not None and not full:
            file.frames.append(frame)
            yield
        if file is None or full or dice.random() < mode.failures:
            successor = WalFile(name, next(n), [frame])
            world.wals.add((name, successor.n), successor)
            yield
            world.wals.sync()
            yield
            if file is not None:
                file.owned = False
            file = successor
        file.durable = len(file.frames)
        yield
        world.acked.update(map(key, frame[1]))
        yield
        full = dice.random() < 0.4
        if full and not world.holds("lock until next"):
            file.owned = False
        for _ in range(dice.choice([0, 0, 40])):
            yield
    if file is not None:
        file.owned = False


def _event(world: World, mode: Mode) -> Event:
    given = world.dice.randrange(3) if mode.shared_ids and world.dice.random() < 0.5 else None
    return next(world.uids), given


def frames_above(files: list[WalFile], mark: int) -> tuple[list[tuple[Event, ...]], bool]:
    """A writer's frames above a watermark, each sequence once, and whether none is missing."""
    found: dict[int, tuple[Event, ...]] = {}
    for file in files:
        for sequence, events in file.frames:
            if sequence > mark:
                found.setdefault(sequence, events)
    taken = []
    while mark + 1 + len(taken) in found:
        taken.append(found[mark + 1 + len(taken)])
    return taken, len(taken) == len(found)


def _first_of_key(taken: list[tuple[Event, ...]], known: set[Any]) -> tuple[Event, ...]:
    segment: list[Event] = []
    for event in itertools.chain(*taken):
        if event[1] is None or key(event) not in known:
            known.add(key(event))
            segment.append(event)
    return tuple(segment)


def sealer(world: World, tries: int, foreign: bool) -> Steps:
    """Seal single writers, dead or (`foreign`) alive, then perhaps trim."""
    for _ in range(tries):
        there = [f for f in world.wals.live.values() if foreign or not f.owned]
        if there:
            yield from _seal(world, world.dice.choice(there).writer)
            if world.dice.random() < 0.7:
                yield from trim(world)
        yield


def _seal(world: World, who: int) -> Steps:
    """F9.3, F9.4: read, write a segment, publish; start over while a precondition fails."""
    for _ in range(_RESTARTS):
        _, base = world.head()
        yield
        files = []
        for name in world.files(who):
            files += [world.wals.live[name]] if name in world.wals.live else []
            yield
        mark = base.watermarks.get(who, -1)
        taken, whole = frames_above(files, mark)
        yield
        if not whole:
            continue
        segment = world.put(_first_of_key(taken, base.keys()))
        yield
        if not taken or (yield from _publish(world, who, mark, len(taken), segment, base)):
            return
    world.faults.add("stuck")


def _publish(world: World, who: int, mark: int, frames: int, segment: Segment, base: Move) -> Any:
    """Return whether the attempt is over; False to seal again."""
    for _ in range(_RESTARTS):
        number, head = world.head()
        yield
        if world.holds("file still there") and who not in head.watermarks and not world.files(who):
            return True
        if world.holds("same watermark") and head.watermarks.get(who, -1) != mark:
            return False
        given = {key(e) for e in segment.events if e[1] is not None}
        if world.holds("ids again") and head is not base and given & head.keys():
            return False
        watermarks = {**head.watermarks, who: max(mark + frames, head.watermarks.get(who, -1))}
        _drop_entries(world, watermarks, who)
        yield
        if number + 1 in world.refs.live:
            continue
        if not world.may_add(segment):
            return False
        segments = (*head.segments, segment) if segment.events else head.segments
        world.refs.add(number + 1, Move(segments, watermarks))
        yield
        if world.dice.random() < 0.1:
            return True  # the sealer dies before it syncs the directory
        world.refs.sync()
        yield
        world.hint = number + 1
        return True
    world.faults.add("stuck")
    return True


def _drop_entries(world: World, watermarks: dict[int, int], who: int) -> None:
    dead = [w for w in watermarks if not world.files(w)]
    if dead and world.holds("drop is durable"):
        world.wals.sync()
    if not world.holds("entry outlives files"):
        dead += [w for w in {who} - set(dead) if not any(f.owned for f in _files_of(world, w))]
    for gone in dead:
        del watermarks[gone]


def _files_of(world: World, who: int) -> list[WalFile]:
    return [world.wals.live[name] for name in world.files(who)]


def trim(world: World) -> Steps:
    """Unlink finished files that the head covers."""
    number, head = world.head()
    yield
    for name, file in list(world.wals.live.items()):
        if not file.owned and file.last <= head.watermarks.get(file.writer, -1):
            if world.holds("trim is durable") and not world.refs.is_durable(number):
                world.refs.sync()
            yield
            world.wals.remove(name)
            yield
            if world.dice.random() < 0.5:
                world.wals.sync()


def reader(world: World, times: int) -> Steps:
    """Read several times; note what must not be."""
    for _ in range(times):
        must, least, rewound = set(world.acked), world.most, world.rewound
        seen = yield from _read(world)
        if seen is None:
            world.faults.add("stuck")
            continue
        if len(seen) != len(set(seen)):
            world.faults.add("double")
        if not world.rewound:
            if must - set(seen):
                world.faults.add("missing")
            if len(set(seen)) < least:
                world.faults.add("backwards")
            world.most = max(world.most, len(set(seen)))
        if rewound and world.gone & set(seen):
            world.faults.add("resurrected")
        world.check(world.head()[1])
        yield


def _read(world: World) -> Any:
    """Section 12 of FORMAT.md; None if it never came to an end."""
    for _ in range(_RESTARTS):
        if not world.holds("wal before head"):
            _, head = world.head()
            yield
        names = list(world.wals.live)
        read: dict[Any, WalFile] = {}
        for name in names:
            file = world.wals.live.get(name)
            passed = len(file.frames) if file is not None else 0
            yield
            if file is not None:
                # Frames take the place of space, so it may have passed that of one before it came,
                # and see a later one.
                if len(file.frames) > passed + 1 and not world.holds("second look"):
                    world.faults.add("damaged")
                read[name] = WalFile(file.writer, file.n, list(file.frames))
        if world.holds("wal before head"):
            _, head = world.head()
            yield
        if world.holds("look again") and any(
            name[0] not in head.watermarks and name not in world.wals.live for name in read
        ):
            continue
        writers = sorted({name[0] for name in read})
        tails = [
            frames_above([f for f in read.values() if f.writer == w], head.watermarks.get(w, -1))
            for w in writers
        ]
        if not all(whole for _, whole in tails):
            continue
        return _answer(world, head, [frames for frames, _ in tails])
    return None


def _answer(world: World, head: Move, tails: list[list[tuple[Event, ...]]]) -> list[Any]:
    found, known = list(map(key, head.events())), head.keys()
    for event in (e for tail in tails for frame in tail for e in frame):
        if event[1] is not None and world.holds("tail dedupe"):
            if key(event) in known:
                continue
            known.add(key(event))
        found.append(key(event))
    return found


def rollback(world: World) -> Steps:
    """Some time later, one new move that names an old state."""
    for _ in range(world.dice.randint(3, 25)):
        yield
    while True:
        number, head = world.head()
        target = world.refs.live[world.dice.choice(world.moves())]
        yield
        if number + 1 in world.refs.live or not world.may_name(target.segments):
            continue
        watermarks = head.watermarks if world.holds("carry watermarks") else target.watermarks
        world.rewound = True
        world.gone = head.keys() - target.keys()
        carries = world.holds("carry the state")
        world.refs.add(number + 1, Move(target.segments, dict(watermarks), carries))
        world.refs.sync()
        return


def tagger(world: World) -> Steps:
    """Name old states, each some time after it was chosen."""
    for name in ("v1", "v2", "v3"):
        for _ in range(world.dice.randint(1, 40)):
            yield
        target = world.refs.live[world.dice.choice(world.moves())]
        for _ in range(world.dice.randint(0, 2 * GRACE)):
            yield
        if world.may_name(target.segments):
            ref = Move(target.segments, {}, world.holds("carry the state"))
            world.refs.add(name, ref)
        yield


def compactor(world: World, times: int) -> Steps:
    """Merge two neighbours of the head's segments, several times."""
    for _ in range(times):
        number, head = world.head()
        yield
        if len(head.segments) < 2:
            continue
        at = world.dice.randrange(len(head.segments) - 1)
        inputs = head.segments[at : at + 2]
        merged = world.put(tuple(e for segment in inputs for e in segment.events))
        for _ in range(world.dice.choice([0, 3, GRACE])):
            yield
        number, head = world.head()
        yield
        if number + 1 in world.refs.live or not set(inputs) <= set(head.segments):
            continue
        if world.may_add(merged):
            kept = [s for s in head.segments if s != inputs[1]]
            kept[kept.index(inputs[0])] = merged
            world.refs.add(number + 1, Move(tuple(kept), dict(head.watermarks)))
            world.refs.sync()
            world.hint = number + 1
        yield


def collector(world: World, times: int) -> Steps:
    """Thin the history, condemn what no ref names, and delete it after the grace."""
    for _ in range(times):
        for number in world.moves()[:-_WINDOW]:
            # Also those whose state a tag names, though FORMAT.md keeps them: a tag is enough.
            world.refs.remove(number)
        world.refs.sync()
        yield
        used = _used(world)
        world.condemned = {
            s: world.condemned.get(s, world.now) for s in world.objects if s not in used
        }
        yield
        due = [s for s, since in world.condemned.items() if world.now - since >= GRACE]
        used = _used(world) if world.holds("refs again") else set()
        yield
        for segment in due:
            if segment not in used:
                world.objects.pop(segment, None)
        for _ in range(world.dice.choice([0, 5, GRACE])):
            yield


def _used(world: World) -> set[Segment]:
    return {segment for ref in world.refs.live.values() for segment in ref.segments}


def run(seed: int, mode: Mode = Mode(), off: frozenset[str] = frozenset()) -> set[str]:
    """Run one interleaving; return the faults seen: double, missing, backwards, resurrected,
    damaged, stuck, gone."""
    world = World(seed, off)
    dice = world.dice
    actors = [writer(world, dice.randint(1, 4), mode) for _ in range(3)]
    actors += [sealer(world, dice.randint(2, 6), foreign=i > 0) for i in range(3)]
    actors += [reader(world, 4) for _ in range(2)]
    actors += [rollback(world)] if mode.rollback else []
    if mode.gc:
        actors += [tagger(world), compactor(world, 6), collector(world, dice.randint(2, 8))]
    weights = [dice.choice([1, 1, 1, 6]) for _ in actors]
    left = dice.randint(5, 150) if mode.power else None
    while actors and left != 0:
        left = None if left is None else left - 1
        world.now += 1
        chosen = dice.choices(range(len(actors)), weights)[0]
        try:
            next(actors[chosen])
        except StopIteration:
            del actors[chosen], weights[chosen]
    if mode.power:
        _cut_power(world)
        _alone(reader(world, 1), sealer(world, 3, foreign=True), reader(world, 1))
    _alone(sealer(world, 10, foreign=True), reader(world, 1))
    for name in ("v1", "v2", "v3"):
        if name in world.refs.live:
            world.check(world.refs.live[name])
    return world.faults


def _cut_power(world: World) -> None:
    """Lose what was not synced; all processes are dead after it."""
    world.most = world.hint = 0
    world.refs.power_cut(world.dice)
    world.wals.power_cut(world.dice)
    for file in world.wals.live.values():
        file.owned = False
        file.frames = file.frames[: world.dice.randint(file.durable, len(file.frames))]


def _alone(*actors: Steps) -> None:
    for actor in actors:
        for _ in actor:
            pass
