"""The newest entries in Redis: what they cost beside a watcher, looking them up, writing them all.

A watcher follows files of 100,000 lines/s in all with and without Redis, in turn; what is compared
is its processor time. Measured where redis-server and
redis-py are installed.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import lakelog
from benchmarks.measure import Scale, directory
from benchmarks.report import Row, Target
from benchmarks.watch import FILES, LINES, RATE, TICK, WRITER, cpu, end, line, watcher
from lakelog.clients.redis_client import RedisClient
from lakelog.clients.redis_config import RedisConfig
from lakelog.recent.redis_feed import RecentFeeder
from lakelog.recent.redis_recent import RecentEntries
from tests.support.redis_server import RedisServer, running
from tests.support.requirements import find

_SOURCES, _LOOKS, _LATEST = 1000, 2000, 100
_LINE = (
    '{"timestamp":"2026-05-01T12:%02d:%02d.%06dZ","event_type":"COMPLETE","source":"s%d",'
    '"level":"%s","message":"request %d took %d ms","data":{"node":%d,"ok":true}}\n'
)


def rates(scale: Scale) -> list[Row]:
    """Watch with and without Redis; look up; rebuild."""
    if find("redis-server") is None or find_spec("redis") is None:
        return [Row("recent entries in Redis", "", [], note="no redis-server or no redis-py")]
    with directory() as root, running(RedisServer(root / "redis")) as server:
        (root / "logs").mkdir()
        for number in range(FILES):
            _write(root / "logs" / f"f{number}.log", scale.bulk // FILES, number)
        config, rounds = RedisConfig(port=server.port), min(scale.rounds, 3)
        pairs = [(_watched(config.address, scale), _watched("", scale)) for _ in range(rounds)]
        added = [100 * (beside[0] / alone[0] - 1) for beside, alone in pairs]
        lags = [statistics.median(each[n][1] for each in pairs) for n in (0, 1)]
        with _lake(root) as lake:
            return [
                Row(
                    "Redis adds to watching",
                    "% cpu",
                    added,
                    target=Target("<=", 10.0, "figure"),
                    note=f"last lines seen after {lags[0]:.2f} s, without it {lags[1]:.2f} s",
                ),
                *_filled(lake, config, rounds),
            ]


def _filled(lake: lakelog.Lake, config: RedisConfig, rounds: int) -> list[Row]:
    """Write all entries of all sources, then look up those of one."""
    spans, looks, count = list[float](), list[float](), lake.count()
    with contextlib.closing(RecentFeeder(lake, config, keep=count // _SOURCES)) as feeder:
        for _ in range(rounds):
            began = time.perf_counter()
            feeder.rebuild()
            spans.append(time.perf_counter() - began)
    with contextlib.closing(RedisClient(config)) as client:
        entries = RecentEntries(lake, client)
        for number in range(_LOOKS):
            began = time.perf_counter()
            found = entries.latest(f"s{number % _SOURCES}", limit=_LATEST)
            looks.append(1000 * (time.perf_counter() - began))
            assert len(found) == min(_LATEST, count // _SOURCES)
        memory = client.client.info("memory")["used_memory"]
    note = f"p99 {statistics.quantiles(looks, n=100)[98]:.2f} ms"
    return [
        Row(
            f"latest {_LATEST} of a source, p50",
            "ms",
            [statistics.median(looks)],
            target=Target("<=", 0.5, "figure"),
            note=note,
        ),
        Row(
            f"rebuild of {count:,} entries",
            "s",
            spans,
            target=Target("<=", 30.0, "figure"),
            note=f"{memory / 2**20:,.0f} MiB in Redis",
        ),
    ]


def _watched(url: str, scale: Scale) -> tuple[float, float]:
    """Watch files that are written to at a steady rate; return seconds of processor time and lag.

    The lag is how long the last lines took to be in the lake.
    """
    with directory() as root:
        block = root / "block"
        block.write_text("".join(line(LINES["JSON lines"], n) for n in range(20_000)))
        (root / "logs").mkdir()
        with lakelog.open(root / "lake") as lake:
            lake.append({"type": "first"})
            with watcher(root, *(["--redis-url", url] if url else [])) as process:
                words = [FILES, RATE, scale.watch, TICK, block]
                command = [sys.executable, "-c", WRITER, root / "logs", *map(str, words)]
                subprocess.run(command, check=True)
                written = json.loads((root / "told.json").read_text())[-1][1]
                began = time.monotonic()
                while lake.count() <= written and time.monotonic() < began + 60:
                    time.sleep(0.02)
                took = cpu(process.pid), time.monotonic() - began
                end(process)
        return took


def _write(path: Path, count: int, seed: int) -> None:
    with path.open("w") as file:
        for n in range(count):
            level = "ERROR" if n % 10 == 0 else "INFO"
            number = n + seed * 7
            values = (n // 60 % 60, n % 60, n % 1_000_000, number % _SOURCES, level, n, seed, n % 7)
            file.write(_LINE % values)


@contextlib.contextmanager
def _lake(root: Path) -> Iterator[lakelog.Lake]:
    with lakelog.open(root / "lake", settings={"seal": "never"}) as lake:
        lake.ingest(root / "logs")
        yield lake
