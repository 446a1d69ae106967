"""Feeders of the newest entries to Redis, and whether it has what the lake has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import redis

import lakelog
from lakelog.clients.redis_client import RedisClient
from lakelog.clients.redis_config import RedisConfig
from lakelog.recent.redis_feed import RecentFeeder
from lakelog.recent.redis_recent import RecentEntries, from_lake, prefix_of

KEEP = 7
LEVELS = ("INFO", "ERROR", None)


def plain(port: int, **more: Any) -> Any:
    """A client of its own."""
    return redis.Redis(port=port, decode_responses=True, **more)


def add(lake: lakelog.Lake, count: int, name: str = "n", **columns: Any) -> None:
    """Append events of three sources and levels, and publish them."""
    events = [
        {"type": name, "source": f"s{n % 3}", "level": LEVELS[n // 3 % 3], "message": f"{name} {n}"}
        for n in range(count)
    ]
    lake.append([{**event, "data": {"n": n}, **columns} for n, event in enumerate(events)])
    lake.settle()


@contextlib.contextmanager
def feeding(
    lake: lakelog.Lake, config: RedisConfig, keep: int | None = KEEP, **options: Any
) -> Iterator[RecentFeeder]:
    """A feeder, without its thread."""
    with contextlib.closing(RecentFeeder(lake, config, keep=keep, **options)) as feeder:
        yield feeder


def entries(lake: lakelog.Lake, config: RedisConfig) -> RecentEntries:
    """Who reads them."""
    return RecentEntries(lake, RedisClient(config))


def check(lake: lakelog.Lake, config: RedisConfig, keep: int = KEEP) -> None:
    """Each list is what the lake has, and there is no other key."""
    looks = check_lists(lake, config, keep)
    client = plain(config.port, password=config.password or None)
    names = client.keys("*")
    (generation,) = client.smembers(f"{prefix_of(lake)}:generations")
    beside = {prefix_of(lake), f"{prefix_of(lake)}:generations"}
    lists = [name for name in set(names) - beside if ":index:" not in name]
    assert len(lists) == looks
    assert all(name in beside or f"}}:{generation}:" in name for name in names)


def check_lists(lake: lakelog.Lake, config: RedisConfig, keep: int = KEEP) -> int:
    """Each list is what the lake has; return how many were looked at."""
    found = entries(lake, config)
    levels = lake.sql("SELECT DISTINCT upper(level) FROM events WHERE level <> ''").fetchall()
    looks = 0
    for level in (None, *(row[0] for row in levels)):
        wanted = from_lake(lake, level=level, limit=10_000)
        sources = {each.source for each in wanted}
        assert level or set(found.sources()) == sources
        assert found.latest(None, level and level.lower(), 10_000) == wanted[:keep]
        for source in sources:
            of_source = [each for each in wanted if each.source == source]
            assert found.latest(source, level, 10_000) == of_source[:keep]
        looks += 1 + len(sources)
    assert found.status().entries_behind == 0
    return looks
