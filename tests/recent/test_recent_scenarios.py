"""The newest entries in Redis beside the lake, while both are restored, emptied and killed.

Whatever happened: after a round Redis has what the lake has, and after a rebuild no other key.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import redis

import lakelog
from lakelog.analyze import dedupe
from lakelog.clients.redis_client import RedisClient
from lakelog.clients.redis_config import RedisConfig
from lakelog.errors import LakelogError, NothingToUndo, Unreachable
from lakelog.lake import Lake
from tests.support.recent_feed import add, check, entries, feeding, plain
from tests.support.redis_server import RedisServer, running
from tests.support.requirements import need_module
from tests.support.sync_places import Proxy, forked, kill

need_module("redis")

COUNT = int(os.environ.get("LAKELOG_SYNC_SCENARIOS", "2"))
STEPS = 14


class Scenario:
    """One lake, one server, and what happens to both."""

    def __init__(self, home: Path, server: RedisServer, random: Random) -> None:
        self.path, self.home, self.server, self.random = str(home / "lake"), home, server, random
        self.config, self.story, self.names = RedisConfig(port=server.port), list[str](), 0
        self.saved: dict[bytes, bytes] = {}
        with self.opened() as lake:
            add(lake, 9, "first")
            lake.tag("base")

    def opened(self) -> contextlib.AbstractContextManager[Lake]:
        return lakelog.open(self.path, settings={"seal": "never"})

    def play(self) -> None:
        for _ in range(STEPS):
            step = self.random.choice((*STEPS_OF_LAKE, *STEPS_OF_SERVER, *(Scenario.feeds,) * 4))
            self.story.append(step.__name__)
            step(self)
        self.feeds()
        with self.opened() as lake, feeding(lake, self.config) as feeder:
            feeder.rebuild()
            check(lake, self.config)

    def feeds(self) -> None:
        """A round, perhaps after one that was killed or lost its connection."""
        fault = self.random.choice((None, self._is_killed, self._loses_its_connection))
        if fault is not None:
            self.story[-1] += f" after {fault.__name__}"
            fault(self.random.randint(1, 9))
        with self.opened() as lake:
            lake.settle()
            with feeding(lake, self.config) as feeder:
                feeder.feed()
            try:
                check(lake, self.config)
            except AssertionError as error:
                raise AssertionError(self.story) from error

    def _is_killed(self, number: int) -> None:
        """Before the nth command."""
        original, left = RedisClient.call, [number]

        def call(client: RedisClient, *arguments: object, **options: object) -> object:
            left[0] -= 1
            if not left[0]:
                kill(client)  # type: ignore[arg-type]
            return original(client, *arguments, **options)  # type: ignore[arg-type]

        def feed() -> None:
            RedisClient.call = call  # type: ignore[assignment, method-assign]
            with self.opened() as lake, feeding(lake, self.config) as feeder:
                feeder.feed()

        assert forked(feed) in (0, -9), self.story

    def _loses_its_connection(self, number: int) -> None:
        """After so many bytes in one direction."""
        with contextlib.closing(Proxy(self.server.port)) as proxy, self.opened() as lake:
            proxy.limit = self.random.choice(("up", "down")), number * 300
            through = RedisConfig(port=proxy.port)
            with feeding(lake, through) as feeder, contextlib.suppress(Unreachable):
                feeder.feed()

    # --- what happens to the lake ---

    def grows(self) -> None:
        self.names += 1
        with self.opened() as lake:
            add(lake, self.random.randint(1, 30), f"n{self.names % 4}")

    def is_backed_up(self) -> None:
        shutil.rmtree(self.home / "backup", ignore_errors=True)
        shutil.copytree(self.path, self.home / "backup")

    def is_restored(self) -> None:
        if (self.home / "backup").exists():
            shutil.rmtree(self.path)
            shutil.copytree(self.home / "backup", self.path)
            # As many events as may have been lost, under the same numbers.
            for _ in range(self.random.randint(0, 2)):
                self.grows()

    def is_rolled_back(self) -> None:
        with self.opened() as lake:
            lake.rollback(self.random.choice(lake.tags()).name)

    def is_undone(self) -> None:
        with self.opened() as lake, contextlib.suppress(NothingToUndo):
            lake.undo(force=True)

    def is_tagged(self) -> None:
        self.names += 1
        with self.opened() as lake:
            lake.tag(f"t{self.names}")

    def is_compacted(self) -> None:
        with self.opened() as lake:
            lake.compact()

    def loses_duplicates(self) -> None:
        with self.opened() as lake, contextlib.suppress(LakelogError):
            dedupe.apply(lake, dedupe.plan(lake, "message,source", "last"))

    # --- what happens to the server ---

    def is_emptied(self) -> None:
        plain(self.server.port).flushall()

    def crashes(self) -> None:
        """With what it had written to its log."""
        self.server.stop()
        self.server.start()

    def is_saved(self) -> None:
        """As a replica that lags behind."""
        client = self._client()
        self.saved = {key: client.dump(key) for key in client.keys("*")}

    def fails_over(self) -> None:
        """To that replica."""
        client = self._client()
        client.flushall()
        for key, value in self.saved.items():
            client.restore(key, 0, value)

    def _client(self) -> Any:
        """A client that answers in bytes."""
        return redis.Redis(port=self.server.port)


STEPS_OF_LAKE: tuple[Callable[[Scenario], None], ...] = (
    Scenario.grows,
    Scenario.grows,
    Scenario.grows,
    Scenario.is_backed_up,
    Scenario.is_restored,
    Scenario.is_restored,
    Scenario.is_rolled_back,
    Scenario.is_undone,
    Scenario.is_tagged,
    Scenario.is_compacted,
    Scenario.loses_duplicates,
)
STEPS_OF_SERVER: tuple[Callable[[Scenario], None], ...] = (
    Scenario.is_emptied,
    Scenario.crashes,
    Scenario.is_saved,
    Scenario.fails_over,
)


@pytest.fixture
def server(home: Path) -> Iterator[RedisServer]:
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with running(RedisServer(home / "redis", options=options)) as started:
        yield started


@pytest.mark.matrix
@pytest.mark.parametrize("number", range(COUNT))
def test_random_scenarios_with_redis(home: Path, server: RedisServer, number: int) -> None:
    seed = int(os.environ.get("LAKELOG_SEED", "9")) * 1_000 + number
    Scenario(home, server, Random(seed)).play()


def test_server_that_loses_writes_in_the_middle_of_a_rebuild(home: Path) -> None:
    """As a replica does that becomes the primary, or a crash with snapshots alone."""
    writes = 0
    with (
        running(RedisServer(home / "redis")) as server,
        contextlib.closing(Proxy(server.port)) as proxy,
        lakelog.open(str(home / "lake"), settings={"seal": "never"}) as lake,
        feeding(lake, RedisConfig(port=proxy.port), keep=3_000) as feeder,
    ):
        add(lake, 15_000)
        client = plain(server.port)

        def lose(data: bytes) -> bool:
            nonlocal writes
            if b"EVAL" in data:
                writes += 1
                if writes == 2:
                    client.save()
                elif writes == 3:
                    client.execute_command("DEBUG", "RELOAD", "NOSAVE")
            return False

        proxy.on_up = lose
        feeder.feed()
        assert writes > 3
        check(lake, RedisConfig(port=server.port), keep=3_000)


def test_an_advance_that_was_cut_goes_on_behind_what_it_wrote(home: Path) -> None:
    """The watermark names the whole state from its first range on, and how far its entries go."""
    writes = 0
    with (
        running(RedisServer(home / "redis")) as server,
        contextlib.closing(Proxy(server.port)) as proxy,
        lakelog.open(str(home / "lake"), settings={"seal": "never"}) as lake,
        feeding(lake, RedisConfig(port=proxy.port), keep=3_000) as feeder,
    ):
        config = RedisConfig(port=server.port)
        add(lake, 9)
        feeder.feed()
        add(lake, 15_000)

        def is_second(data: bytes) -> bool:
            nonlocal writes
            writes += b"EVAL" in data
            return writes == 2

        proxy.on_up = is_second
        with pytest.raises(Unreachable):
            feeder.feed()
        assert entries(lake, config).status().entries_behind
        feeder.feed()
        assert feeder.figures["rebuilds"] == 1
        check(lake, config, keep=3_000)
