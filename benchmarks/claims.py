"""The older systems' claims in one table: what they promised, what lakelog does, whether it holds.

"stream" is the OOS log stream with its two loggers, "store" the event store with its persistence
manager. What other benchmarks measure anyhow is taken from them, at the sizes of this run.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import lakelog
from benchmarks import loggers, older
from benchmarks.measure import ROOT, Scale, child, directory
from benchmarks.report import Row, Target

CLAIMED = 10_000
_LARGE = 1_000_000
_AI = """
import sys, time, lakelog
count, clock, calls = int(sys.argv[2]), time.perf_counter, []
log = lakelog.get_ai_logger(sys.argv[1] + "/ai.log", lake=sys.argv[1] + "/lake", source="agent")
began = clock()
for i in range(count):
    before = clock()
    log.ai_decision("route", ["small", "large"], "small", 0.8, "short prompt")
    calls.append(clock() - before)
log.flush()
lake = lakelog.open(sys.argv[1] + "/lake")
while lake.count() < count: time.sleep(0.02)
took = clock() - began
result = [count / took, sorted(calls)[int(count * 0.99)] * 1e6, lake.count(), log.stats().dropped]
"""
_STORE = """
import orjson, os, sys, time
sys.path.insert(0, sys.argv[3])
from benchmarks import gen
from lakelog import EventDatabase
count, clock, calls = int(sys.argv[2]), time.perf_counter, []
database = EventDatabase(sys.argv[1] + "/events")
events = list(gen.events(count))
began = clock()
for event in events:
    before = clock()
    database.store_event(event)
    calls.append(clock() - before)
took = clock() - began
database.close()
raw = sum(len(orjson.dumps(event)) for event in events)
result = [count / took, sorted(calls)[int(count * 0.99)] * 1e6, raw]
"""
_MANAGER = """
import asyncio, sys, time
from lakelog import EventDatabase, create_event_persistence
count, rate, path = int(sys.argv[2]), 20_000, sys.argv[1] + "/events"

async def beat(longest):
    last = time.perf_counter()
    while True:
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest[0] = max(longest[0], now - last - 0.001)
        last = now

class Nothing:
    async def start(self): pass
    async def stop(self): pass
    async def queue_event(self, event): pass
    def get_stats(self): return {"total_stored": count}

async def main():
    config = {"persistence": {"database_path": path}}
    manager = create_event_persistence(config) if sys.argv[3] == "stored" else Nothing()
    await manager.start()
    longest, began = [0.0], time.perf_counter()
    task = asyncio.create_task(beat(longest))
    for n in range(count):
        await manager.queue_event({"event_type": "mutation", "action": "create", "source": "core",
                                   "timestamp": 1.76e9 + n, "data": {"fitness": n / 7, "n": n}})
        ahead = began + n / rate - time.perf_counter()
        if ahead > 0.001:
            await asyncio.sleep(ahead)
    task.cancel()
    await manager.stop()
    took = time.perf_counter() - began
    return [manager.get_stats()["total_stored"], count / took, 1000 * longest[0]]

result = asyncio.run(main())
"""


def claims(scale: Scale) -> list[Row]:
    """Every figure that the two systems claimed, with the claim as the target."""
    return [*_stream(scale), *_store(scale), *_manager(scale)]


def _stream(scale: Scale) -> list[Row]:
    """Loggers, views and memory of the OOS log stream."""
    count = str(max(scale.bulk // 5, 500))
    with directory() as root:
        oos = _runs(loggers.OOS_PROGRAM, root / "oos", count, scale.rounds)
        ai = _runs(_AI, root / "ai", count, scale.rounds)
    rows = []
    for name, runs in (("OOS logger", oos), ("AI logger", ai)):
        if any(stored != int(count) or dropped for _, _, stored, dropped in runs):
            raise AssertionError(f"{name}: {count} events were logged, and the lake has {runs}")
        rows += [
            Row(f"{name}, file and lake", "k/s", [r[0] / 1000 for r in runs], [], _least(1.5)),
            Row(f"{name}, p99 of a call", "ms", [r[1] / 1000 for r in runs], [], _most(1)),
        ]
    views = [replace(row, target=_most(100)) for row in older.claim(scale)]
    # A new process has to start Python and import lakelog first, which the claim is not about.
    rows += [row for row in views if "new process" not in row.what]
    # What the views keep does not grow with the log, what a database keeps does: a promise about
    # logs of a size at which memory matters.
    large = scale if scale.rounds == 1 else replace(scale, bulk=_LARGE)
    return [*rows, older.memory(large)[0]]


def _store(scale: Scale) -> list[Row]:
    """Rate, size and look-ups of the event store."""
    with directory() as root:
        runs = _runs(_STORE, root, str(CLAIMED), scale.rounds, str(ROOT))
        lakes = [root / str(number) / "events" for number in range(scale.rounds)]
        written = [_size(path) / 1e6 for path in lakes]
        for path in lakes:
            with lakelog.open(path, create=False) as lake:
                lake.settle()
        sealed = [_size(path) / 1e6 for path in lakes]
    raw = runs[0][2]
    looked = older.lookups(scale)
    return [
        Row("store_event, each durable", "k/s", [r[0] / 1000 for r in runs], [], _least(1)),
        Row("store_event, p99 of a call", "ms", [r[1] / 1000 for r in runs], [], _most(1)),
        Row("10,000 events, not yet sealed", "MB", written),
        Row("10,000 events, sealed", "MB", sealed, [], _most(1)),
        Row(
            "space saved by compression", "%", [100 - s * 1e8 / raw for s in sealed], [], _least(60)
        ),
        *(
            replace(row, what=f"look-up {row.what}", target=_most(1))
            for row in looked
            if row.what in ("recent, p50", "by id, p50", "by type, p50")
        ),
    ]


def _manager(scale: Scale) -> list[Row]:
    """The persistence manager at 20,000 events/s."""
    count = max(scale.bulk // 10, 500)
    with directory() as root:
        done, without = [], []
        for number in range(min(scale.rounds, 3)):
            (root / str(number)).mkdir()
            done.append(child(_MANAGER, str(root / str(number)), str(count), "stored"))
            without.append(child(_MANAGER, str(root / str(number)), str(count), "nothing"))
    if any(run.result[0] != count for run in done):
        raise AssertionError(f"{count} events were queued, and {done} stored")
    return [
        Row("manager at 20,000 events/s", "k/s", [r.result[1] / 1000 for r in done], [], _least(1)),
        Row("the same, peak memory", "MB", [r.peak for r in done], [], _most(50)),
        Row(
            "the same, event loop held",
            "ms",
            [r.result[2] for r in done],
            [r.result[2] for r in without],
            _most(5),
        ),
    ]


def _runs(code: str, root: Path, count: str, rounds: int, *more: str) -> list[list[float]]:
    """Run a program in directories 0, 1, ... of `root`; return its results."""
    results = []
    for number in range(rounds):
        place = root / str(number)
        place.mkdir(parents=True)
        results.append(child(code, str(place), count, *more).result)
    return results


def _size(path: Path) -> int:
    """The bytes of all files below a directory, what can be made anew left out."""
    return sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(path)
        for name in names
        if "cache" not in Path(folder).relative_to(path).parts
    )


def _least(limit: float) -> Target:
    return Target(">=", limit, "figure")


def _most(limit: float) -> Target:
    return Target("<=", limit, "figure")
