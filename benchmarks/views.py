"""Views: warm, after 10,000 more events, cold and plain, at two sizes; and readers beside writers.

Peers are the questions as plain SQL (viewsql.py) in the same process and lake, run in turn with
ours. Every answer after more events is compared with one computed from nothing.
"""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lakelog
from benchmarks import gen, lakes, measure
from benchmarks.measure import Scale, directory, median, percentile
from benchmarks.report import Row, Target
from benchmarks.viewsql import PLAIN
from lakelog import views

SUBJECTS = ("status", "stuck", "sessions", "funnel", "durations")
"""Views that keep a row a subject; the others' states stay small."""
MORE = 10_000
_WARM = 20
_ROOMY: dict[str, object] = {"seal": "never", "memory_bytes": "4GB"}
"""Neither side should spill to the disk: what is measured is work, not the disk."""
_CLIENT = """
import random, sys, time
sys.path.insert(0, {root!r})
import lakelog
from lakelog import views
lake = lakelog.open(sys.argv[2], create=False)
end = float(sys.argv[3])
"""
_READER = """
from benchmarks import gen
made = gen.events(10**9, seed=random.randrange(10**6))
took, wrong = [], 0
names = ("throughput", "status", "errors", "reliability")
for name in names:
    views.read(lake, name, {"type": None} if name == "throughput" else None)
while time.time() < end or not took:
    if {feeding}:
        lake.append([next(made) for _ in range(100)])
    name = random.choice(names)
    before = lake.count() if name == "throughput" else 0
    began = time.perf_counter()
    rows = views.read(lake, name, {"type": None} if name == "throughput" else None)
    took.append(time.perf_counter() - began)
    if name == "throughput":
        wrong += not before <= sum(rows["events"].to_pylist()) <= lake.count()
    time.sleep(0.01)
print([took, wrong])
"""
_WRITER = """
from benchmarks import gen
made = gen.events(10**9, seed=random.randrange(10**6))
while time.time() < end:
    lake.append([next(made) for _ in range(100)])
    time.sleep(0.05)
print([[], 0])
"""
_COMPACTOR = """
from lakelog.store import SealerProcess
__import__("os").nice(10)  # as `lakelog compact --watch` does
SealerProcess.give_way()
while time.time() < end:
    lake.compact()
    time.sleep(1)
print([[], 0])
"""


def speed(scale: Scale, names: Iterable[str] = PLAIN) -> list[Row]:
    """Each view at full size: cold against plain, both over Parquet alone; warm; and after 10,000
    more events, which stay in the WAL."""
    found: dict[str, list[Row]] = {}
    with directory() as root:
        path = lakes.copy(_ingested(scale.history), root / "lake")
        with lakelog.open(str(path), create=False) as lake:
            lake.sql("SELECT max(type), max(data) FROM events").fetchall()
            more = _batches(min(MORE, scale.history))
            for name in names:
                measure.progress(f"view {name}")
                found[name] = _cold(lake, name)
            for name in names:
                measure.progress(f"view {name}, {MORE:,} more")
                found[name] += _later(lake, name, more)
    return [row for rows in found.values() for row in rows]


def scaling(scale: Scale) -> list[Row]:
    """Warm views of a lake against those of one a tenth as large."""
    with directory() as root:
        big = lakes.copy(_ingested(scale.history), root / "big")
        small = lakes.copy(_ingested(scale.history // 10), root / "small")
        with lakelog.open(str(big), create=False) as a, lakelog.open(str(small), create=False) as b:
            ours, peer = [], []
            for name in PLAIN:
                for lake, into in ((a, ours), (b, peer)):
                    views.read(lake, name)
                    into.append(_warm(lake, name))
    return [Row("views: warm, to a tenth", "ms", ours, peer, Target("<=", 1.5))]


def beside(scale: Scale) -> list[Row]:
    """Four readers of views, first alone, then beside two writers and a compactor; and one alone
    that has 100 new events to merge before each answer, which is the work of those beside."""
    with directory() as root:
        path = lakes.copy(_ingested(scale.history // 10), root / "lake")
        idle, _ = _clients(path, scale.reading / 2, {"reader": 4})
        fed, _ = _clients(path, scale.reading / 2, {"fed": 1})
        busy, wrong = _clients(path, scale.reading, {"reader": 4, "writer": 2, "compactor": 1})
    ratio = Target("<=", 2)
    return [
        Row("views beside writers: p50", "ms", [median(busy)], [median(idle)]),
        Row(
            "views beside writers: p99",
            "ms",
            [percentile(busy, 0.99)],
            [percentile(idle, 0.99)],
            ratio,
        ),
        Row(
            "the same, to one that is fed", "ms", [percentile(busy, 0.99)], [percentile(fed, 0.99)]
        ),
        Row("views beside writers: wrong", "", [wrong], target=Target("==", 0, "figure")),
    ]


def _cold(lake: Any, name: str) -> list[Row]:
    plain = [_ms(lambda: lake.sql(PLAIN[name]).to_arrow_table())]
    cold = _ms(lambda: views.read(lake, name))
    lake._views.engine.background_writer.drain()
    plain.append(_ms(lambda: lake.sql(PLAIN[name]).to_arrow_table()))
    return [
        Row(f"{name}: cold, to plain SQL", "ms", [cold], [median(plain)], Target("<=", 1.3)),
        Row(f"{name}: warm", "ms", [_warm(lake, name)], target=Target("<=", 20, "figure")),
    ]


def _later(lake: Any, name: str, more: Iterator[list[gen.Event]]) -> list[Row]:
    after = []
    for _ in range(3):
        lake.append(next(more))
        lake.sql("SELECT count(type) FROM events").fetchall()
        after.append(_ms(lambda: views.read(lake, name)))
    again = [_ms(lambda: lake.sql(PLAIN[name]).to_arrow_table())]
    limit = 250 if name in SUBJECTS else 60
    rows = [Row(f"{name}: 10,000 more", "ms", after, target=Target("<=", limit, "figure"))]
    if name in SUBJECTS:
        rows.append(
            Row(f"{name}: 10,000 more, to plain", "ms", [median(after)], again, Target("<=", 0.2))
        )
    return rows


def _warm(lake: Any, name: str) -> float:
    return median([_ms(lambda: views.read(lake, name)) for _ in range(_WARM)])


def _ms(run: Any) -> float:
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) * 1000


def _batches(size: int) -> Iterator[list[gen.Event]]:
    """Batches of other events than those of the lake."""
    events = gen.events(10**9, seed=11)
    while True:
        yield list(itertools.islice(events, size))


def _ingested(count: int) -> Path:
    """Return a kept lake of `count` events taken in from a file, marked as verified."""

    def make(root: Path) -> None:
        with directory() as work:
            gen.write(count, work / "events.jsonl")
            with lakelog.open(str(root), settings=_ROOMY) as lake:
                lake.ingest(str(work / "events.jsonl"))

    return lakes.kept(f"ingested-{count}", make)


def _clients(path: Path, duration: float, kinds: dict[str, int]) -> tuple[list[float], int]:
    """Run processes side by side; return the readers' milliseconds, and wrong counts.

    Raises CalledProcessError if one of them failed.
    """
    codes = {
        "reader": _READER.replace("{feeding}", "False"),
        "writer": _WRITER,
        "fed": _READER.replace("{feeding}", "True"),
        "compactor": _COMPACTOR,
    }
    head = _CLIENT.format(root=str(measure.ROOT))
    # The same end for all: answers after the last writer's are kept ones, in their thousands.
    words = ["-", str(path), str(time.time() + duration)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", head + codes[kind], *words], stdout=subprocess.PIPE, text=True
        )
        for kind, count in kinds.items()
        for _ in range(count)
    ]
    took: list[float] = []
    wrong = 0
    for process in started:
        text, _ = process.communicate(timeout=duration * 10 + 300)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, "a client of the views")
        mine, faults = ast.literal_eval(text)
        took += [x * 1000 for x in mine]
        wrong += faults
    return took, wrong
