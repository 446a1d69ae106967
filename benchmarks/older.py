"""The older systems' claims: views of 10,000 events, look-ups in a million, memory and SQLite."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import orjson

import lakelog
from benchmarks import gen, measure
from benchmarks.measure import Scale, child, directory, interleave, percentile
from benchmarks.report import Row, Target
from lakelog.compat.lookups import Lookups

CLAIMED = 10_000
LIMIT = 100
_NOW = "2026-09-01T01:00:00Z"
_FIVE = """
def five(views):
    return [
        views.podcast_status_view(), views.throughput_view("7d"), views.error_analysis_view(),
        views.source_reliability_view(), views.system_health_view(),
    ]
"""
_VIEWS = f"""
import lakelog
{_FIVE}
result = five(lakelog.get_views(sys.argv[1], now="{_NOW}"))[0]["completed"]
"""
_RESIDENT = """
def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1000
"""
_HELD = f"""
import gc, numpy, lakelog, lakelog.oos.oos_views
{_FIVE}{_RESIDENT}
before = resident()
views = lakelog.get_views(sys.argv[1], now="{_NOW}")
answers = five(views)
gc.collect()
result = [resident() - before, answers[0], answers[3]["Podcast000"]["total_processed"]]
"""
_SQLITE = f"""
import gc, sqlite3
{_RESIDENT}
before = resident()
base = sqlite3.connect(":memory:")
base.execute("CREATE TABLE e (timestamp TEXT, event_type TEXT, content_type TEXT, source TEXT,"
             " item_id TEXT, data TEXT)")
with open(sys.argv[1], encoding="utf-8") as file:
    base.executemany("INSERT INTO e VALUES (?, ?, ?, ?, ?, ?)",
                     (line.rstrip("\\n").split("|", 5) for line in file))
base.commit()
states = dict(base.execute(\"\"\"SELECT event_type, count(*) FROM (SELECT event_type,
    row_number() OVER (PARTITION BY item_id ORDER BY timestamp DESC, rowid DESC) AS n FROM e
    WHERE event_type IN ('DISCOVER', 'PROCESS', 'COMPLETE', 'FAIL')) WHERE n = 1 GROUP BY 1\"\"\"))
since = "2026-08-25T01:00:00Z"
base.execute("SELECT substr(timestamp, 1, 13), count(*) FROM e WHERE event_type = 'COMPLETE'"
             " AND timestamp > ? AND timestamp <= '{_NOW}' GROUP BY 1", [since]).fetchall()
base.execute("SELECT json_extract(data, '$.error'), count(*) FROM e WHERE event_type = 'FAIL'"
             " GROUP BY 1").fetchall()
base.execute("SELECT * FROM e WHERE event_type = 'FAIL' ORDER BY timestamp DESC"
             " LIMIT 10").fetchall()
done = dict(base.execute("SELECT source, count(*) FROM e"
                         " WHERE event_type IN ('COMPLETE', 'FAIL') GROUP BY 1"))
base.execute("SELECT count(*), min(timestamp) FROM e WHERE timestamp > ?", [since]).fetchall()
names = dict(DISCOVER="discovered", PROCESS="processing", COMPLETE="completed", FAIL="failed")
gc.collect()
result = [resident() - before, {{names[k]: states[k] for k in names}}, done["Podcast000"]]
"""


def claim(scale: Scale) -> list[Row]:
    """Ask the five views of a log of 10,000 events: from a new process, anew, and once more."""
    with directory() as root:
        path = log(root / "oos.log", CLAIMED)
        whole = [child(_VIEWS, str(path)).whole * 1000 for _ in range(scale.rounds)]
        views = lakelog.get_views(path, now=_NOW)
        _five(views)
        fresh = [
            _ms(lambda: _five(lakelog.get_views(path, now=_NOW))) for _ in range(4 * scale.rounds)
        ]
        grown = []
        for line in path.read_bytes().splitlines(keepends=True)[: 4 * scale.rounds]:
            with path.open("ab") as file:
                file.write(line)
            grown.append(_ms(lambda: _five(views)))
    return [
        Row("five views, a new process", "ms", whole, target=Target("<=", 600, "figure")),
        Row("five views, read anew", "ms", fresh, target=Target("<=", 10, "figure")),
        Row("five views, one event later", "ms", grown, target=Target("<=", 10, "figure")),
    ]


def memory(scale: Scale) -> list[Row]:
    """What the views keep of a log, against SQLite in memory with the same events."""
    with directory() as root:
        path = str(log(root / "oos.log", scale.bulk))
        ours, peer = interleave(
            min(scale.rounds, 3), lambda: child(_HELD, path), lambda: child(_SQLITE, path)
        )
    if ours[0].result[1:] != peer[0].result[1:]:
        raise AssertionError(f"{ours[0].result} is not {peer[0].result}")
    held, theirs = ([max(c.result[0], 0.01) for c in side] for side in (ours, peer))
    return [
        Row("views, memory held, to SQLite", "MB", held, theirs, Target("<=", 0.15)),
        Row("views, the process's peak", "MB", [c.peak for c in ours], [c.peak for c in peer]),
    ]


def lookups(scale: Scale) -> list[Row]:
    """Look-ups in the older event store's table: p50 of many, the first ones of a kind apart."""
    random_ = random.Random(11)
    rows = []
    with directory() as root:
        gen.write(scale.bulk, root / "events.jsonl")
        with lakelog.open(str(root / "lake")) as lake:
            lake.ingest(str(root / "events.jsonl"))
            table = Lookups(lake)
            ids = [
                i
                for (i,) in lake.sql("SELECT id FROM omega.events USING SAMPLE 900 ROWS").fetchall()
            ]
            stats = table.stats()
            low, high = stats["oldest"], stats["newest"]

            def minute() -> object:
                start = random_.uniform(low, max(high - 60, low))
                return table.between(start, start + 60, limit=LIMIT)

            def of_type() -> object:
                return table.between(event_type=random_.choice(["FAIL", "COMPLETE"]), limit=LIMIT)

            def of_source() -> object:
                return table.between(source=random_.choice(gen.SOURCES), limit=LIMIT)

            kinds: list[tuple[str, float, Callable[[], object]]] = [
                ("recent", 1, lambda: table.between(limit=LIMIT)),
                ("by id", 1, lambda: table.find(random_.choice(ids))),
                ("by type", 1, of_type),
                ("by source", 5, of_source),
                ("a random minute", 5, minute),
                ("stats", 5, table.stats),
            ]
            for name, limit, look in kinds:
                first, *taken = [_ms(look) for _ in range(60 * scale.rounds)]
                rows.append(
                    Row(
                        f"{name}, p50",
                        "ms",
                        [percentile(taken, 0.5)],
                        target=Target("<=", limit, "figure"),
                    )
                )
                rows.append(Row(f"{name}, p99", "ms", [percentile(taken, 0.99)]))
                rows.append(Row(f"{name}, the first one", "ms", [first]))
            rows += _moving(lake, table, scale)
    return rows


def _moving(lake: lakelog.Lake, table: Lookups, scale: Scale) -> list[Row]:
    """The newest events, each time one more was appended."""
    taken = []
    for event in gen.events(10 * scale.rounds, seed=8):
        lake.append(event)
        taken.append(_ms(lambda: table.between(limit=LIMIT)))
    return [Row("recent, an event later, p50", "ms", [percentile(taken, 0.5)])]


def log(path: Path, count: int) -> Path:
    """Write the benchmark events as OOS lines."""
    measure.progress(f"writing {count:,} OOS lines")
    with path.open("wb") as file:
        for event in gen.events(count):
            head = "|".join(str(value) for name, value in event.items() if name != "data")
            file.write(f"{head}|".encode() + orjson.dumps(event["data"]) + b"\n")
    return path


def _five(views: object) -> None:
    scope: dict[str, Callable[[object], object]] = {}
    exec(_FIVE, scope)
    scope["five"](views)


def _ms(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) * 1000
