"""Many at once: contested publishes, long histories against the model, gc beside the others."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import lakelog
from lakelog.errors import AlreadyExists
from lakelog.maintain import gc
from lakelog.moves.publication import Change, publish
from tests.support import feeding
from tests.support.casts import CASTS, WRITING, perform
from tests.support.scheduler import Scheduler
from tests.support.world import World, reads, warm_engine, works, writes
from tests.torture.case import Case, Row

PROCESSES, MOVES, TAGS = 8, 30, 8
OPERATIONS = 500


def publishes(case: Case) -> None:
    """Let eight processes move one branch and take the same names at once."""
    path = str(case.place / "lake")
    moves, tags = case.some(MOVES), case.some(TAGS)
    told = _together(lambda me: _contend(path, me, moves, tags))
    with lakelog.open(path, create=False) as lake:
        log = lake.log()
        tagged = {tag.name: tag.message for tag in lake.store.refs.tags()}
        events = sorted(n for (n,) in lake.sql("SELECT subject FROM events").fetchall())
        assert not lake.verify().problems
    numbers = [entry.move.number for entry in log]
    assert numbers == list(range(len(log), 0, -1)), "numbers are missing or twice"
    made = {entry.move.message: entry.move.number for entry in log if entry.move.op == "snapshot"}
    claimed = {m: n for one in told for m, n in one["moves"].items()}
    assert len(claimed) == PROCESSES * moves
    assert made == claimed, "a move is not where its process was told it is"
    winners = Counter(name for one in told for name in one["tags"])
    assert winners == Counter({f"t{n}": 1 for n in range(tags)}), f"winners {winners}"
    assert all(tagged[name] == f"{one['me']}" for one in told for name in one["tags"])
    assert events == sorted(f"{me}-{n}" for me in range(PROCESSES) for n in range(moves))
    case.tally.notes["names won once"] += tags
    case.verified(sum(one["lost"] for one in told), PROCESSES * moves)


def _contend(path: str, me: int, moves: int, tags: int) -> dict[str, Any]:
    """Publish and tag as fast as it goes; return what was won where, and how often it lost."""
    lake = lakelog.open(path, settings={"seal": "never"})
    made, won, lost = dict[str, int](), list[str](), 0
    for n in range(moves):
        lake.append({"type": "T", "subject": f"{me}-{n}"})
        tries = [0]

        def plan(*_: Any, n: int = n, tries: list[int] = tries) -> Change:
            tries[0] += 1
            return Change("snapshot", f"{me}-{n}")

        head = publish(lake.store, "main", plan)
        assert head is not None
        made[f"{me}-{n}"] = head.move.number
        lost += tries[0] - 1
    for n in range(tags):
        try:
            lake.tag(f"t{n}", message=f"{me}")
            won.append(f"t{n}")
        except AlreadyExists:
            pass
    lake.close()
    return {"me": me, "moves": made, "tags": won, "lost": lost}


def _together(work: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
    """Run the work in processes that start at once; return what each says."""
    gate, told, pids = os.pipe(), [], []
    for me in range(PROCESSES):
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            signal.alarm(120)
            try:
                os.close(gate[1])
                os.read(gate[0], 1)
                said = json.dumps(work(me)).encode()
                os.write(theirs, said)
                code = 0
            except BaseException:
                os.write(theirs, traceback.format_exc().encode())
            finally:
                os._exit(code)
        os.close(theirs)
        pids.append((pid, ours))
    os.close(gate[1])
    for pid, ours in pids:
        with os.fdopen(ours, "rb") as file:
            told.append(file.read())
        ended = os.waitpid(pid, 0)[1]
        assert ended == 0, f"a process ended with {ended}: {told[-1].decode()}"
    os.close(gate[0])
    return [json.loads(one) for one in told]


def history(stage: Scheduler, root: str) -> World:
    """A long life: some five hundred operations of twelve actors, some of them rewinds."""
    dice = stage.dice
    world = World(root, stage, shared_ids=dice.choice([0.0, 0.3]))
    stage._next_stop = dice.choice([200, 2000])
    for i in range(4):
        stage.add(f"writer{i}", writes(world, OPERATIONS // 10), WRITING)
    for i in range(2):
        stage.add(f"sealer{i}", works(world, 24, "settle", "seal", "trim", "compact"), 0.3)
    rewinds = dice.choice([["undo"], ["undo by force", "rollback"]])
    stage.add("user", works(world, 16, "tag", "snapshot", *rewinds), 0.2)
    stage.add("other", works(world, 8, "branch", "snapshot", rewinds[0]), 0.1)
    for i in range(4):
        stage.add(f"reader{i}", reads(world, OPERATIONS // 16), 0.3)
    return world


def histories(case: Case) -> None:
    """Check one history: appends, refs, monotonic reads, repeatable states."""
    warm_engine(case.patch)
    case.patch.setitem(CASTS, "history", history)
    case.patch.setattr("tests.torture.contests.OPERATIONS", case.some(500))
    world = perform("history", case.start, case.patch)
    done = len(world.reads) + len(world.counts) + len(world.moves) + len(world.acked)
    case.tally.notes["operations"] += done
    case.tally.notes["steps"] += world.scheduler.step
    case.verified(world.scheduler.moved)


def schedules(case: Case) -> None:
    """Play one scheduled run of one cast (tests/support/casts.py) and check its promises."""
    warm_engine(case.patch)
    name = list(CASTS)[case.number % len(CASTS)]
    world = perform(name, case.start, case.patch)
    case.tally.notes["steps"] += world.scheduler.step
    case.verified(len(world.moves) + len(world.errors))


def feeds(case: Case) -> None:
    """Play one scheduled run of those who take in one file (tests/support/feeding.py)."""
    warm_engine(case.patch)
    moves = feeding.perform(case.start, case.patch).moves
    case.tally.notes["publishes"] += moves
    case.verified(moves)


def collections(case: Case) -> None:
    """Let gc run beside writers, readers, compaction, and processes that stand still for days."""
    warm_engine(case.patch)
    real, runs = gc.gc, list[gc.GcResult]()

    def counting(*args: Any, **kwargs: Any) -> gc.GcResult:
        runs.append(real(*args, **kwargs))
        return runs[-1]

    case.patch.setattr(gc, "gc", counting)
    perform(("collecting", "stalling")[case.number % 2], case.start, case.patch)
    case.tally.notes["files deleted"] += sum(run.deleted for run in runs)
    case.verified(sum(bool(run.deleted) for run in runs), len(runs))


ROWS = [
    Row("publish", "contested publishes", 4000, 50_000, 25, publishes),
    Row("history", "histories of 500 ops", 60, 600, 80, histories),
    Row("schedule", "scheduled interleavings", 500, 3000, 35, schedules),
    Row("feed", "scheduled ingests", 300, 3000, 25, feeds),
    Row("gc", "gc beside all others", 300, 3000, 20, collections),
]
