"""Three years in the life of one lake, on a clock of its own, against a model of every event.

Each day five writers append (with ids, some of them sent again), a watcher follows logs that are
written and rotated, and what lakelog starts by itself (sealing, merging, compaction, gc) is run in
its place. Now and then somebody tags, rolls back, undoes, makes a branch and deletes it; retention
keeps a month. `years_chores.py` has what is done beside it. Any of them may be killed at any change
of the disk. Every week all that is alive is compared with the model, at the end every tag too. Then
the lake must cost what a lake of two days with the same events costs: in files, and in the time of
what is done daily.
"""

from __future__ import annotations

import gc as memory
import gzip
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lakelog
from lakelog.collect import watch
from lakelog.collect.watch import Watcher
from lakelog.disk import disk
from lakelog.errors import LakelogError
from lakelog.history import delete_branch, delete_tag
from lakelog.history.thinning import window
from lakelog.maintain import BackgroundWork, reachability
from lakelog.moves.publication import AUTOMATIC_OPS
from lakelog.store import SealerProcess
from tests.support import seam
from tests.support.seam import Fault, Killed
from tests.torture.case import Case, Row
from tests.torture.years_chores import DAY, Chores, person, play_chores

HOUR = DAY // 24
DAYS, SEASON, LONG = 1095, 60, 4
"""A life of so many days, or a shorter one; each so many-th is of the long ones."""
START = 1_767_225_600_000_000
KEPT = 30
"""Days that retention keeps."""
WRITERS = 5
BUSY = 320
"""States that are published on a busy day."""
ROUNDS = 15
"""How often each operation is timed."""
SLOWER, MORE = 2.0, 5.0
"""What three years may cost, in multiples of two days: time of an operation; files."""
SETTINGS = {"rotate_events": 60, "threads": 1, "memory_bytes": 200_000_000}


class World:
    """The clock, the helper that lakelog starts beside itself, and who dies when."""

    def __init__(self, case: Case) -> None:
        self.now, self.killed = START, 0
        self._fault: Fault | None = None
        self._thread = threading.get_ident()
        self._is_helping = False
        seam.install(case.patch, self._hook)
        case.patch.setattr(disk, "now_us", self._tick)
        case.patch.setattr(watch, "STABLE", 0.0)
        case.patch.setattr(watch, "GRACE", 0.0)
        case.patch.setattr(SealerProcess, "start", lambda process: self._help(process))

    def _tick(self) -> int:
        self.now += 1
        return self.now

    def _hook(self, name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # Who dies is one program; threads of other open lakes go on.
        fault = self._fault if threading.get_ident() == self._thread else None
        done = fault(name, real, *args, **kwargs) if fault else real(*args, **kwargs)
        if name == "sync_file":  # files carry the time of this world
            os.utime(args[0], ns=(self.now * 1000, self.now * 1000))
        return done

    def _help(self, process: SealerProcess) -> None:
        """Do what the helper process does, before its caller goes on."""
        if self._is_helping:
            return
        self._is_helping = True
        try:
            with lakelog.open(process.root, create=False, branch=process.branch) as lake:
                BackgroundWork(lake).run()
        except LakelogError:
            pass  # the branch may be gone
        finally:
            self._is_helping = False

    def may_die(self, at: int, play: Callable[[], None]) -> bool:
        """Play something that dies at its so many-th change of the disk; whether it did."""
        fault = self._fault = Fault(at, Killed()) if at else None
        died = False
        try:
            play()
        except Killed:
            died = True
        finally:
            self._fault = None
        if fault is not None and died:
            fault.release()
            self.killed += 1
        return died


class Life:
    """One lake through the years, and what it must hold."""

    def __init__(self, case: Case, world: World, root: Path) -> None:
        self._world, self.dice = world, case.dice
        self.path, self._logs = str(root / "lake"), root / "logs"
        self._logs.mkdir(parents=True)
        lakelog.open(self.path, settings=SETTINGS).close()
        self.chores = Chores(self, root)
        self.alive: set[str] = set()
        """The message of each event that the branch holds."""
        self.times: dict[str, int] = {}
        self._written: set[str] = set()
        """Lines of logs that the watcher may not have taken in yet."""
        self._ids: dict[str, str] = {}
        self.tags: dict[str, set[str]] = {}
        self._serial = 0
        self._lakes: list[lakelog.Lake | None] = [None] * WRITERS
        self._watcher: Watcher | None = None
        self._quietly = False

    def live(self, days: int) -> None:
        """Go through so many days."""
        self.chores.set_up()
        for day in range(days):
            self._day()
            if day % 7 == 6 or day == days - 1:
                self.check()

    def be_busy(self, states: int) -> None:
        """Two days on which one state is published after the other, and nobody dies."""
        self._quietly = True
        for _ in range(2):
            for _ in range(states):
                self._world.now += DAY // 3 // states
                self._append()
                self.verb(lakelog.Lake.settle)
            self._world.now += 2 * DAY // 3
            self.verb(lambda lake: BackgroundWork(lake).run())
        self.check()

    def take_over(self, other: Life) -> None:
        """Take the events of another lake in at once."""
        with lakelog.open(other.path) as lake, lakelog.open(self.path) as mine:
            rows = lake.sql("SELECT time, type, subject, message, data, id FROM events").arrow()
            mine.append(rows)
        self.alive, self.times = set(other.alive), dict(other.times)
        self._serial, self._ids = other._serial, dict(other._ids)
        self.chores.set_up()

    def keep_states(self, count: int) -> None:
        """Make so many moves of a user, whose states stay."""
        for number in range(count):
            self._world.now += HOUR // 60
            self._append()
            with lakelog.open(self.path, create=False) as lake:
                lake.snapshot(f"state {number}")

    def _day(self) -> None:
        """Work in eight hours, and what is done at night."""
        for _ in range(8):
            self._world.now += HOUR
            self._append()
            if self.chance(0.5):
                self._write_logs()
                self._look()
        if self.chance(0.3):
            self._rotate()
        if self.chance(0.1):
            self.dice.choice([self._tag, self._roll_back, self._branch_off, self._snapshot])()
        self._world.now += 16 * HOUR
        for share, verb in ((0.2, lakelog.Lake.compact), (0.2, lakelog.Lake.gc)):
            if self.chance(share):
                self.verb(verb)
        if self.chance(1 / 7):
            self._keep_a_month()
        self.chores.daily()

    # --- who writes ---

    def _append(self) -> None:
        number = self.dice.randrange(WRITERS)
        lake = self._lakes[number]
        if lake is None:
            lake = self._lakes[number] = lakelog.open(self.path, create=False)
        batch = [self._event() for _ in range(self.dice.choice([1, 1, 2, 10]))]
        told = {event["message"] for event in batch}
        self.times |= dict.fromkeys(told, self._world.now)
        held = [id for id, message in self._ids.items() if message in self.alive]
        again = self.dice.sample(held, min(len(held), 2))
        resent = [{"type": "T", "id": id, "message": f"again {id}"} for id in again]
        if self._dies(lambda: lake.append([*batch, *resent]), 0.02, 40):
            lake = self._lakes[number] = None
            memory.collect()
            stored = self._stored()
            told = {message for message in told if stored[message]}
        elif self.chance(0.05):  # a short-lived program
            lake.close()
            self._lakes[number] = None
        self.alive |= told
        self._ids |= {e["id"]: e["message"] for e in batch if "id" in e and e["message"] in told}

    def _event(self) -> dict[str, Any]:
        self._serial += 1
        somebody, message = person(self.now, self._serial), f"event {self._serial}"
        event = {
            "type": "T",
            "time": self.now / 1e6,
            "subject": somebody,
            "message": message,
            "data": {"n": self._serial, "text": "x" * 40},
        }
        self.chores.people.setdefault(somebody, set()).add(message)
        return event | ({"id": f"id{self._serial}"} if self.chance(0.3) else {})

    @property
    def now(self) -> int:
        """The time of this world, in microseconds."""
        return self._world.now

    def new_message(self, word: str) -> str:
        """A message that nobody else has, of now."""
        self._serial += 1
        told = f"{word} {self._serial}"
        self.times[told] = self._world.now
        return told

    def forget(self, messages: set[str]) -> None:
        """Let go of what was erased, in every state."""
        self.alive -= messages
        self.tags = {name: held - messages for name, held in self.tags.items()}
        self.check_tags()

    def holds_message(self, told: str) -> bool:
        """Whether the branch has it."""
        return bool(self._stored()[told])

    def _write_logs(self) -> None:
        second = self._world.now // 1_000_000
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
        for name in ("web.log", "job.log"):
            with open(self._logs / name, "a") as file:
                for _ in range(self.dice.randrange(6)):
                    self._serial += 1
                    text = f"line {self._serial} of {name}"
                    file.write(f"{stamp} INFO {text}\n")
                    self._written.add(text)
                    self.times[text] = second * 1_000_000

    def _look(self) -> None:
        """Follow the logs: after it every line of them is stored, or the watcher has died."""

        def play() -> None:
            if self._watcher is None:
                lake = lakelog.open(self.path, create=False)
                self._watcher = Watcher(lake, [str(self._logs)])
            self._watcher.round(final=True)

        if self._dies(play, 0.02, 30):
            self._watcher = None
            memory.collect()
        else:
            self.alive |= self._written
            self._written = set()

    def _catch_up(self) -> None:
        while self._written:
            self._look()

    def _rotate(self) -> None:
        """As logrotate does with delaycompress, keeping a few; nothing goes that was not read."""
        self._catch_up()
        for name in ("web.log", "job.log"):
            log, first = self._logs / name, self._logs / f"{name}.1"
            if not log.exists():
                continue
            if first.exists():
                packed = self._logs / f"{name}-{self._serial}.gz"
                packed.write_bytes(gzip.compress(first.read_bytes()))
                os.utime(packed, ns=(first.stat().st_atime_ns, first.stat().st_mtime_ns))
                first.unlink()
            os.rename(log, first)
        self._look()
        for old in sorted(self._logs.glob("*.gz"), key=os.path.getmtime)[:-6]:
            old.unlink()

    # --- who keeps house ---

    def _tag(self) -> None:
        """Tag what is there; the lake keeps a year's tags."""
        self._catch_up()
        name = f"v{self._serial}"
        self.verb(lambda lake: lake.tag(name))
        if len(self.tags) > 12:
            first = min(self.tags, key=lambda name: int(name[1:]))
            self.verb(lambda lake: delete_tag(lake.store, first))
        self.tags[name] = set(self.alive)
        with lakelog.open(self.path, create=False) as lake:
            there = {tag.name for tag in lake.tags()}
        self.tags = {name: held for name, held in self.tags.items() if name in there}

    def _snapshot(self) -> None:
        self.verb(lambda lake: lake.snapshot("as it is"))

    def _keep_a_month(self) -> None:
        self._catch_up()
        line = self._world.now - KEPT * DAY
        younger = {message for message in self.alive if self.times[message] >= line}
        self.verb(lambda lake: lake.retention(f"{KEPT}d", apply=True), younger)

    def _roll_back(self) -> None:
        """Go back to a tag, and undo it."""
        self._catch_up()
        if self.tags:
            before, name = set(self.alive), self.dice.choice(sorted(self.tags))
            self.verb(lambda lake: lake.rollback(name, cursors=False), self.tags[name])
            while self.alive != before:
                self.verb(lakelog.Lake.undo, before)

    def _branch_off(self) -> None:
        """Make a branch, work on it, and delete it."""
        name = f"try{self._serial}"
        with lakelog.open(self.path, create=False) as lake, lake.branch(name) as other:
            count = other.count()
            other.append([{"type": "T", "message": f"{name} {n}"} for n in range(30)])
            other.settle()
            assert other.count() == count + 30, f"branch {name}"
        with lakelog.open(self.path, create=False, branch=name) as other:
            delete_branch(other.store, name, other.settle)

    def verb(self, play: Callable[[lakelog.Lake], Any], after: set[str] | None = None) -> bool:
        """Run a command in a process of its own, which makes the branch `after`; if it is killed,
        the branch is as it was, or so. Return whether it was."""

        def run() -> None:
            with lakelog.open(self.path, create=False) as lake:
                play(lake)

        died = self._dies(run, 0.1, 60)
        if after is not None and (not died or self._holds(after)):
            self.alive = set(after)
        return died

    def _dies(self, play: Callable[[], Any], chance: float, most: int) -> bool:
        dies = not self._quietly and self.chance(chance)
        return self._world.may_die(self.dice.randint(1, most) if dies else 0, play)

    def chance(self, share: float) -> bool:
        return self.dice.random() < share

    # --- what must be there ---

    def check(self) -> None:
        """Compare the branch with the model."""
        self._catch_up()
        self._compare(self._stored(), self.alive, f"day {(self._world.now - START) // DAY}")
        self.chores.check()

    def check_tags(self) -> None:
        """Compare every tag with what was alive when it was made."""
        for name, held in self.tags.items():
            self._compare(self._stored(f'"{name}".events'), held, name)

    def _compare(self, stored: Counter[str], held: set[str], where: str) -> None:
        lost, more = sorted(held - stored.keys()), sorted((stored - Counter(held)).elements())
        assert not lost, f"{where}: {len(lost)} lost, such as {lost[:3]}"
        assert not more, f"{where}: {len(more)} doubled or back, such as {more[:3]}"

    def _holds(self, messages: set[str]) -> bool:
        return self._stored() == Counter(messages)

    def _stored(self, table: str = "events") -> Counter[str]:
        query = f"""SELECT message, count(*) FROM {table}
            WHERE NOT starts_with(type, 'lakelog.') GROUP BY 1"""
        with lakelog.open(self.path, create=False) as lake:
            return Counter(dict(lake.sql(query).fetchall()))

    def close(self) -> None:
        """Close everything, and collect what is due."""
        self._catch_up()
        for lake in filter(None, self._lakes):
            lake.close()
        if self._watcher is not None:
            self._watcher.close()
        self._lakes, self._watcher = [None] * WRITERS, None
        self.verb(lakelog.Lake.gc)


# --- what it costs ---


def costs(path: str, turn: int) -> dict[str, float]:
    """CPU seconds of what is done daily."""
    taken: dict[str, float] = {}

    def timed(name: str, play: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = play()
        taken[name] = time.process_time() - began
        return result

    lake = timed("open", lambda: lakelog.open(path, create=False))
    timed("first query", lake.count)
    timed("append", lambda: lake.append({"type": "T", "message": "cost"}))
    timed("tag", lambda: lake.tag(f"cost{turn}"))
    lake.append({"type": "T", "message": "to be taken back"})
    timed("rollback", lambda: lake.rollback(f"cost{turn}"))
    timed("gc mark", lambda: reachability.Marker(lake.store, disk.now_us()))
    play_chores(lake, path, turn, timed)
    lake.close()
    return taken


def moves_of_users(path: str, now: int) -> int:
    """How many moves of a user are kept."""
    with lakelog.open(path, create=False) as lake:
        moves = window(lake.store.settings, lake.store.refs.newest_first("main"), now)
        return sum(move.op not in AUTOMATIC_OPS for move in moves)


def files(path: str) -> int:
    """How many files are in a lake."""
    return sum(len(names) for _, _, names in os.walk(path))


def years(case: Case) -> None:
    """Live three years, and compare with a lake of two days."""
    world = World(case)
    old, young = (Life(case, world, case.place / name) for name in ("old", "young"))
    days = case.some(DAYS if case.number % LONG == LONG - 1 else SEASON)
    old.live(days)
    old.check_tags()
    young.take_over(old)
    # States that a user made are kept, and what is kept is alive in both.
    young.keep_states(moves_of_users(old.path, world.now))
    for life in (old, young):
        life.be_busy(case.some(BUSY))
        life.close()
    old.check_tags()
    notes = case.tally.notes
    notes["events alive"] += len(old.alive)
    with lakelog.open(old.path) as lake:
        problems = lake.verify().problems
        assert not problems, f"{problems[:3]}"
        needed = len(reachability.Marker(lake.store, disk.now_us()).live)
    counts = files(old.path), files(young.path), needed
    for name, count in zip(("files", "files after two days", "files needed"), counts, strict=True):
        notes[name] += count
    if case.size == 1:
        _compare_costs(old.path, young.path, notes)
    assert counts[0] <= MORE * min(counts[1:]), f"{notes}"
    case.verified(world.killed, days)


def _compare_costs(old: str, young: str, notes: Counter[str]) -> None:
    """Note what each operation costs, in percent of what it costs after two days."""
    # What this process knows of three years is none of the lake's: looking for garbage in it is
    # left out.
    memory.collect()
    memory.freeze()
    taken = [(costs(old, turn), costs(young, turn)) for turn in range(ROUNDS)]
    slower = []
    for name in taken[0][0]:
        many, few = (statistics.median(one[n][name] for one in taken) for n in (0, 1))
        notes[f"{name}: % of two days"] += round(100 * many / few)
        if many > SLOWER * few:
            slower.append(f"{name}: {many * 1000:.2f} ms, and {few * 1000:.2f} at first")
    assert not slower, "; ".join(slower)


ROWS = [Row("years", "days of long lives", SEASON, DAYS, 60, years, patience=2400)]
