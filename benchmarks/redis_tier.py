"""The newest entries in Redis: what they cost beside a watcher, looking them up, writing them all.

A watcher ingests the same files with and without Redis, in turn. Measured where redis-server and
redis-py are installed.
"""

from __future__ import annotations

import contextlib
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
from lakelog.sync.redis_client import RedisClient
from lakelog.sync.redis_config import RedisConfig
from lakelog.sync.redis_feed import RecentFeeder
from lakelog.sync.redis_recent import RecentEntries
from tests.support.redis_server import BINARY, RedisServer, running

_SOURCES, _FILES, _LOOKS, _LATEST = 1000, 10, 2000, 100
_LINE = (
    '{"timestamp":"2026-05-01T12:%02d:%02d.%06dZ","event_type":"COMPLETE","source":"s%d",'
    '"level":"%s","message":"request %d took %d ms","data":{"node":%d,"ok":true}}\n'
)


def rates(scale: Scale) -> list[Row]:
    """Watch with and without Redis; look up; rebuild."""
    if BINARY is None or find_spec("redis") is None:
        return [Row("recent entries in Redis", "", [], note="no redis-server or no redis-py")]
    with directory() as root, running(RedisServer(root / "redis")) as server:
        (root / "logs").mkdir()
        for number in range(_FILES):
            _write(root / "logs" / f"f{number}.log", scale.bulk // _FILES, number)
        config = RedisConfig(port=server.port)
        # One round that is not measured: what is read for the first time comes from the disk.
        _watch(root, "warm", "")
        pairs = [
            (_watch(root, f"with{n}", config.address), _watch(root, f"without{n}", ""))
            for n in range(scale.rounds)
        ]
        added = [100 * (with_redis / without - 1) for with_redis, without in pairs]
        with _lake(root) as lake:
            return [
                Row("Redis adds to watching", "%", added, target=Target("<=", 10.0, "figure")),
                *_filled(lake, config, scale.rounds),
            ]


def _filled(lake: lakelog.Lake, config: RedisConfig, rounds: int) -> list[Row]:
    """Write all entries of all sources, then look up those of one."""
    spans, looks, count = list[float](), list[float](), lake.count()
    with contextlib.closing(RecentFeeder(lake, config, keep=count // _SOURCES)) as feeder:
        for _ in range(min(rounds, 3)):
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


def _watch(root: Path, name: str, url: str) -> float:
    """Ingest the files by a watcher, until it is at their ends; return the seconds it took."""
    words = [sys.executable, "-m", "lakelog", "-q", "--lake", str(root / name), "watch"]
    words += [str(root / "logs"), "--once", *(["--redis-url", url] if url else [])]
    began = time.perf_counter()
    subprocess.run(words, check=True)
    return time.perf_counter() - began


def _write(path: Path, count: int, seed: int) -> None:
    with path.open("w") as file:
        for n in range(count):
            level = "ERROR" if n % 10 == 0 else "INFO"
            number = n + seed * 7
            values = (n // 60 % 60, n % 60, n % 1_000_000, number % _SOURCES, level, n, seed, n % 7)
            file.write(_LINE % values)


@contextlib.contextmanager
def _lake(root: Path) -> Iterator[lakelog.Lake]:
    with lakelog.open(root / "without0", create=False) as lake:
        yield lake
