"""What Redis and the lake answer alike, and what is said where Redis has nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import lakelog
from lakelog.clients.redis_client import RedisClient
from lakelog.clients.redis_config import RedisConfig
from lakelog.recent.redis_feed import RecentFeeder
from lakelog.recent.redis_recent import RecentEntries, from_lake
from tests.support.cli import run
from tests.support.redis_server import RedisServer, running
from tests.support.requirements import need_module

need_module("redis")


@pytest.fixture
def config(home: Path) -> Iterator[RedisConfig]:
    """How to reach a server of its own."""
    with running(RedisServer(home / "redis")) as server:
        yield RedisConfig(port=server.port)


def test_recent_after_a_rotation(home: Path, config: RedisConfig) -> None:
    """The same from Redis and from the lake: the source of a line is its log."""
    log = home / "logs" / "app.log"
    log.parent.mkdir()
    with lakelog.open(str(home / "lake")) as lake, closing(RecentFeeder(lake, config)) as feeder:
        log.write_text("2026-01-01T00:00:00Z ERROR one\n")
        lake.ingest(str(log))
        feeder.feed()
        log.rename(f"{log}.1")
        # Whoever had it open writes on.
        with open(f"{log}.1", "a") as file:
            file.write("2026-01-01T00:00:00Z INFO more\n")
        log.write_text("2026-01-01T00:00:01Z ERROR two\n")
        lake.ingest(str(home / "logs"))
        feeder.feed()
        found = RecentEntries(lake, RedisClient(config))
        for source in (None, "app.log", "app*"):
            assert len(found.search(source)) == 3
            assert found.search(source) == from_lake(lake, source)


def test_empty_server_is_not_said_to_be_away(home: Path, config: RedisConfig) -> None:
    with lakelog.open(str(home / "lake")) as lake:
        lake.append([{"type": "t"}])
    url = f"redis://127.0.0.1:{config.port}"
    result = run(home / "lake", "recent", "--redis-url", url)
    assert "none were written yet" in result.stderr
    assert "not answer" not in result.stderr
