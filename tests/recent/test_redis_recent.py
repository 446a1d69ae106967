"""The newest entries in Redis equal those of the lake, whatever happens to either side."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.analyze import dedupe
from lakelog.clients.redis_config import RedisConfig
from lakelog.disk import disk
from lakelog.errors import InvalidSetting, Unreachable
from lakelog.maintain import retention
from lakelog.recent.redis_feed import RecentFeeder
from lakelog.recent.redis_recent import from_lake, prefix_of
from lakelog.remotes.shared import attach
from tests.support import protected
from tests.support.cli import run
from tests.support.effort import share
from tests.support.lakes import EXOTIC
from tests.support.recent_feed import KEEP, add, check, entries, feeding, plain
from tests.support.redis_server import RedisServer, free_port, running
from tests.support.requirements import need_module
from tests.support.sync_places import Proxy

need_module("redis")

TURNS = share(20)
_TIME = "2026-01-01T00:00:00Z"
PASSWORD = "Battery-Staple-4711"
HOSTILE = ["a\nb", "*", "[x", "?", "a\0b", "p:3:x:y", "ä\u2028😀", " ", "a:b", "{x}", "%s\\", ""]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for the tests that do not hurt it."""
    with running(RedisServer(tmp_path_factory.mktemp("redis"))) as found:
        yield found


@pytest.fixture
def config(server: RedisServer) -> RedisConfig:
    """How to reach it, emptied."""
    plain(server.port).flushall()
    return RedisConfig(port=server.port)


@pytest.fixture
def lake(home: Path) -> Iterator[lakelog.Lake]:
    """A lake of two segments, tagged."""
    with lakelog.open(str(home / "lake"), settings={"seal": "never"}) as found:
        add(found, 60)
        add(found, 60)
        found.tag("base")
        yield found


def until(condition: Callable[[], bool], seconds: float = 240) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# --- what is in it ----------------------------------------------------------------------------


def test_incremental_by_source_level_and_both(lake: lakelog.Lake, config: RedisConfig) -> None:
    """Only what is new is written, and the second time nothing."""
    with feeding(lake, config) as feeder:
        feeder.feed()
        check(lake, config)
        assert feeder.feed() == 0
        add(lake, 3, "new")
        # All, source, and for two levels both lists of these.
        assert feeder.feed() == 3 + 3 + 3 + 3
        assert feeder.figures["rebuilds"] == 1
        check(lake, config)
        add(lake, 400, "many")
        assert feeder.feed() <= KEEP * 20
        check(lake, config)


def test_values_of_every_kind(home: Path, config: RedisConfig) -> None:
    """As the lake has them; data that is JSON for the engine alone stays text."""
    with lakelog.open(str(home / "exotic"), settings={"seal": "never"}) as lake:
        lake.append(EXOTIC)
        data = ["NaN", "[1e999]", "[" * 1200 + "]" * 1200, '{"a":\n\r 1}', '{"a":1,"a":2}']
        lake.append([{"type": "odd", "data": json.loads("{}"), "message": text} for text in data])
        lake.settle()
        with feeding(lake, config, keep=100) as feeder:
            feeder.feed()
        check(lake, config, 100)
        found = {each.metadata["type"]: each for each in entries(lake, config).latest(limit=50)}
        assert found["NUL"].content == "a\0b"
        assert found["UNICODE"].metadata["data"] == ["ž", "\U0001f600"]
        assert (found["ZONE"].level, found["NEW"].timestamp.year) == ("WARN", 9999)


def test_text_that_no_json_reader_takes(home: Path, config: RedisConfig) -> None:
    """One such entry is text, the others stay what they are."""
    lines = ['{"type":"a","data":{"x":1e999}}', '{"type":"b","data":{"x":1}}']
    lines.append('{"type":"c","data":' + "[" * 900 + "]" * 900 + "}")
    (home / "odd.jsonl").write_text("\n".join(lines) + "\n")
    with lakelog.open(str(home / "lake"), settings={"seal": "never"}) as lake:
        lake.ingest(home / "odd.jsonl")
        with feeding(lake, config) as feeder:
            feeder.feed()
        found = entries(lake, config).latest("odd.jsonl")
        assert found == from_lake(lake)
        data = {each.metadata["type"]: each.metadata["data"] for each in found}
        assert (data["a"], data["b"]) == ('{"x":1e999}', {"x": 1})


def test_long_texts_are_cut_and_say_so(lake: lakelog.Lake, config: RedisConfig) -> None:
    """What is kept in Redis is bounded by entry, too."""
    lake.append({"type": "long", "message": "x" * 20_000, "data": {"y": "z" * 20_000}})
    lake.settle()
    with feeding(lake, config) as feeder:
        feeder.feed()
    (entry,) = entries(lake, config).latest(limit=1)
    assert (len(entry.content), entry.metadata["truncated"]) == (8192, True)
    assert "data" not in entry.metadata


def test_hostile_names_of_sources(lake: lakelog.Lake, config: RedisConfig) -> None:
    """Newlines, glob characters, NUL and what looks like a key of ours."""
    for name in HOSTILE:
        add(lake, 2, source=name, level=name.upper() or None)
    with feeding(lake, config) as feeder:
        feeder.feed()
        for name in HOSTILE:
            add(lake, 1, source=name, level="p:1:" + name)
        feeder.feed()
    check(lake, config)
    found = entries(lake, config)
    assert {each.source for each in found.search("a*")} == {"a\nb", "a\0b", "a:b"}


def test_name_of_a_file_that_is_no_text(lake: lakelog.Lake, config: RedisConfig) -> None:
    """It is the source of lines that name none, as the lake prints it."""
    path = os.fsencode(lake.path + "-logs/") + b"a\xff*.log"
    os.makedirs(os.path.dirname(path))
    with open(path, "w") as file:
        file.write("2026-01-01T00:00:00Z ERROR one\n2026-01-01T00:00:00Z INFO two\n")
    lake.ingest(os.fsdecode(path))
    with feeding(lake, config) as feeder:
        feeder.feed()
    found = entries(lake, config).search("a*.log")
    assert found == from_lake(lake, "a*.log")
    assert [each.content for each in found] == ["two", "one"]


def test_search_by_globs_and_texts(lake: lakelog.Lake, config: RedisConfig) -> None:
    """The same from Redis and from the lake, as far as Redis has it."""
    with feeding(lake, config, keep=1000) as feeder:
        feeder.feed()
    found = entries(lake, config)
    for look in (
        {"source": "s*"},
        {"source": "s[01]", "level": "error"},
        {"match": "n 1"},
        {"match": "n ?", "source": "s?"},
        {"match": "100%", "limit": 3},
        {"source": "none*"},
        {"source": "s1", "match": "5", "limit": 3},
        {"level": "info", "limit": 5},
    ):
        assert found.search(**look) == from_lake(lake, **look), look  # type: ignore[arg-type]


def test_ttl_of_silent_sources(
    lake: lakelog.Lake, config: RedisConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their entries and names expire; those of others stay."""
    client, found, now = plain(config.port), entries(lake, config), disk.now_us
    with feeding(lake, config, ttl=3600) as feeder:
        feeder.feed()
        assert len(found.latest("s1")) == KEEP
        assert 0 < client.pttl(client.keys("*:s:s1")[0]) <= 3_600_000
    with feeding(lake, config, ttl=1.5) as feeder:
        feeder.feed()
        until(lambda: not client.keys("*:s:s1"))
        assert found.latest("s1") == []
        # However slow the machine is, it does not expire while it is asked for.
        monkeypatch.setattr(disk, "now_us", lambda: now() + 3_600_000_000)
        add(lake, 1, source="fresh")
        feeder.feed()
        assert found.sources() == ["fresh"]
        # As if it had been filled then: what expired is not written again.
        feeder.rebuild()
        assert found.sources() == ["fresh"]


def test_other_limits_rebuild(lake: lakelog.Lake, config: RedisConfig) -> None:
    """Without limits of its own a feeder keeps to those that are there."""
    for keep in (3, 9):
        with feeding(lake, config, keep=keep) as feeder:
            feeder.feed()
        check(lake, config, keep)
    with feeding(lake, config, keep=None) as feeder:
        add(lake, 50)
        feeder.feed()
        assert feeder.figures["rebuilds"] == 0
    check(lake, config, 9)


def test_branches_and_lakes_are_apart(lake: lakelog.Lake, home: Path, config: RedisConfig) -> None:
    """Each has keys of its own."""
    with lake.branch("other", "base") as other:
        add(other, 5, "other")
        for each in (lake, other):
            with feeding(each, config) as feeder:
                feeder.feed()
        assert entries(other, config).latest(limit=1) == from_lake(other, limit=1)
        assert entries(lake, config).latest(limit=1) == from_lake(lake, limit=1)
        assert from_lake(lake, limit=1) != from_lake(other, limit=1)
    with lakelog.open(str(home / "second")) as second, pytest.raises(Unreachable, match="not have"):
        entries(second, config).latest()


# --- the lake changes ---------------------------------------------------------------------------


def rewind(lake: lakelog.Lake) -> None:
    """Other events get the numbers of those that are gone."""
    lake.rollback("base")
    add(lake, 40, "after")


CHANGES: dict[str, Callable[[lakelog.Lake], object]] = {
    "add": lambda lake: add(lake, 10, "more"),
    "rewind": rewind,
    "undo": lambda lake: (lake.rollback("base"), lake.undo()),
    "compact": lambda lake: lake.compact(),
    "compact and add": lambda lake: (lake.compact(), add(lake, 4)),
}


@pytest.mark.matrix
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("is_mid_way", [False, True])
def test_lake_changes(
    lake: lakelog.Lake, config: RedisConfig, change: str, is_mid_way: bool
) -> None:
    """A rollback and its undo are noticed, compaction is none; also after some rounds."""
    with feeding(lake, config) as feeder:
        feeder.feed()
        add(lake, 30, "second")
        if is_mid_way:
            feeder.feed()
        CHANGES[change](lake)
        feeder.feed()
        check(lake, config)
        rebuilds = feeder.figures["rebuilds"]
        assert (rebuilds > 1) == (change == "rewind" and is_mid_way)


def test_dedupe_and_retention(lake: lakelog.Lake, config: RedisConfig) -> None:
    """Entries that left the lake leave Redis, and older ones take their places."""
    with feeding(lake, config) as feeder:
        add(lake, 60, "n")
        feeder.feed()
        dedupe.apply(lake, dedupe.plan(lake, "message,source", "first"))
        feeder.feed()
        check(lake, config)
        add(lake, 60, "old", time="2001-01-01T00:00:00Z")
        feeder.feed()
        check(lake, config)
        cutoff = 1_000_000 * int(time.time()) - 86_400_000_000
        retention.apply(lake.store, lake.branch_name, cutoff, lake.engine)
        feeder.feed()
        check(lake, config)
        assert feeder.figures["rebuilds"] == 3


def test_fields_go_with_their_key(
    home: Path, config: RedisConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing else has changed since, and another process erased."""
    with protected.create(home / "protected", monkeypatch) as lake, feeding(lake, config) as feeder:
        protected.append(lake, range(2))
        lake.settle()
        feeder.feed()
        with lakelog.open(lake.path) as other:
            other.erase(subject="s0", why="asked")
        assert feeder.feed()
        check(lake, config)
        present = {
            entry.metadata["subject"]: protected.PLANTED in str(entry.metadata)
            for entry in entries(lake, config).latest()
        }
        assert present == {"s0": False, "s1": True}
        assert not feeder.feed()


def test_erased_entries_go_after_a_rollback(lake: lakelog.Lake, config: RedisConfig) -> None:
    """To the state that was written, which has lost the events under the name that it had."""
    with feeding(lake, config) as feeder:
        add(lake, 3, "gone", subject="ann")
        lake.tag("written")
        feeder.feed()
        lake.erase(subject="ann", why="asked")
        lake.rollback("written")
        assert feeder.feed()
        assert not entries(lake, config).search(match="gone")
        check(lake, config)
        assert not feeder.feed()


def test_gc_of_the_state_in_the_watermark(lake: lakelog.Lake, config: RedisConfig) -> None:
    """New entries are found by seq."""
    with feeding(lake, config) as feeder:
        feeder.feed()
        client = plain(config.port)
        mark = json.loads(client.hget(prefix_of(lake), "watermark"))
        client.hset(
            prefix_of(lake), "watermark", json.dumps({**mark, "snapshot": "0" * 64, "move": 0})
        )
        add(lake, 9, "later")
        feeder.feed()
        assert feeder.figures["rebuilds"] == 1
    check(lake, config)


def test_two_feeders(lake: lakelog.Lake, config: RedisConfig) -> None:
    """Each entry is there once, whoever writes it."""
    with lakelog.open(lake.path) as again, contextlib.ExitStack() as stack:
        feeders = [stack.enter_context(feeding(each, config)) for each in (lake, again)]
        for feeder in feeders:
            feeder.start()
        for n in range(20):
            add(lake, 5, f"r{n}")
            time.sleep(0.1)
        lake.rollback("base")
        add(lake, 11, "end")
    with feeding(lake, config) as feeder:
        feeder.feed()
    check(lake, config)


# --- Redis goes away ----------------------------------------------------------------------------


@pytest.mark.matrix
def test_feeders_of_two_machines_of_a_shared_lake(home: Path, config: RedisConfig) -> None:
    """One that has not heard of the newest events takes them out of no list."""
    for name in ("one", "two"):
        attach(f"file://{home}/bucket", str(home / name))
    with (
        lakelog.open(home / "one") as one,
        lakelog.open(home / "two") as two,
        feeding(one, config) as feeder,
        feeding(two, config) as slower_feeder,
    ):
        add(one, 9)
        feeder.feed()
        slower_feeder.feed()
        add(one, 9)
        feeder.feed()
        assert (slower_feeder.feed(), slower_feeder.figures["rebuilds"]) == (0, 0)
        check(one, config)


@pytest.mark.parametrize("how", ["kill", "shutdown", "flush", "empty"])
def test_server_restart(lake: lakelog.Lake, tmp_path: Path, how: str) -> None:
    """One line when it goes, one when it has everything again; the lake never waits."""
    kept = ("--appendonly", "yes", "--appendfsync", "always")
    server = RedisServer(tmp_path, options=("--save", "") if how == "empty" else kept).start()
    config, said = RedisConfig(port=server.port), list[str]()
    try:
        with feeding(lake, config, say=said.append) as feeder:
            feeder.start()
            until(lambda: feeder.figures["entries_behind"] == 0)
            if how == "flush":
                plain(server.port).flushall()
            elif how == "shutdown":
                plain(server.port).shutdown()
                server.process.wait()
            else:
                server.stop()
            add(lake, 30, "meanwhile")
            if how != "flush":
                until(lambda: bool(said))
                until(lambda: feeder.figures["entries_behind"] == 30)
                add(lake, 30, "later")
                server.start()
                until(lambda: len(said) == 2)
            until(lambda: feeder.figures["entries_behind"] == 0)
            add(lake, 1, "last")
        check(lake, config)
        assert len(said) == (0 if how == "flush" else 2)
        assert not said or "the lake goes on" in said[0]
    finally:
        server.stop()


@pytest.mark.matrix
@pytest.mark.parametrize("is_rebuild", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_lost_replies(
    lake: lakelog.Lake, config: RedisConfig, number: int, is_rebuild: bool
) -> None:
    """The server has written it, and the feeder does not know: no entry is doubled."""
    with contextlib.closing(Proxy(config.port)) as proxy:
        through = RedisConfig(port=proxy.port)
        with feeding(lake, through) as feeder:
            if not is_rebuild:
                feeder.feed()
                add(lake, 30, "new")
            left = [number]

            def is_lost(data: bytes) -> bool:
                left[0] -= b"LPUSH" in data or b"HGETALL" in data or b"SADD" in data
                return left[0] == 0

            proxy.on_up = is_lost
            for _ in range(4):
                with contextlib.suppress(Unreachable):
                    feeder.feed()
            assert proxy.cuts == 1
        check(lake, config)


@pytest.mark.matrix
@pytest.mark.parametrize("limit", [10, 2_000, 9_000])
def test_cut_connection(lake: lakelog.Lake, config: RedisConfig, limit: int) -> None:
    """In the middle of what is sent: it is all there or none of it."""
    with contextlib.closing(Proxy(config.port)) as proxy:
        proxy.limit = ("up", limit)
        with feeding(lake, RedisConfig(port=proxy.port)) as feeder:
            with pytest.raises(Unreachable):
                feeder.feed()
            with pytest.raises(Unreachable, match="does not have the recent entries"):
                entries(lake, config).latest()
            feeder.feed()
        check(lake, config)


def test_kill_in_the_middle_of_a_rebuild(lake: lakelog.Lake, config: RedisConfig) -> None:
    """What is read stays, and what was begun goes with the next one."""
    with feeding(lake, config) as feeder:
        feeder.feed()
        client = plain(config.port)
        client.sadd(f"{prefix_of(lake)}:generations", "dead")
        client.lpush(f"{prefix_of(lake)}:dead:s:s1", "half")
        client.zadd(f"{prefix_of(lake)}:dead:index:s", {"s1": 1})
        assert entries(lake, config).latest("s1") == from_lake(lake, "s1", limit=KEEP)
        feeder.rebuild()
    check(lake, config)


def test_full_memory(lake: lakelog.Lake, tmp_path: Path) -> None:
    """One line; the lake goes on, and it is all there once there is room."""
    options = ("--maxmemory", "1", "--maxmemory-policy", "noeviction", "--save", "")
    said = list[str]()
    with running(RedisServer(tmp_path, options=options)) as server:
        config = RedisConfig(port=server.port)
        with feeding(lake, config, say=said.append) as feeder:
            feeder.start()
            until(lambda: bool(said))
            add(lake, 20, "meanwhile")
            time.sleep(1.5)
            assert said == [
                f"{config.address} is full: raise its maxmemory, or keep fewer entries;"
                " the lake goes on, Redis gets it later"
            ]
            plain(server.port).config_set("maxmemory", 0)
            until(lambda: len(said) == 2)
        check(lake, config)


def test_rollback_when_there_is_no_room_for_two(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Entries of events that are gone are not read: what there is is dropped first."""
    options = ("--maxmemory-policy", "noeviction", "--save", "")
    with running(RedisServer(tmp_path, options=options)) as server:
        config = RedisConfig(port=server.port)
        with feeding(lake, config) as feeder:
            add(lake, 30, "gone")
            feeder.feed()
            rewind(lake)
            plain(server.port).config_set("maxmemory", 1)
            with pytest.raises(Unreachable, match="is full"):
                feeder.feed()
            with pytest.raises(Unreachable, match="does not have"):
                entries(lake, config).latest()
            plain(server.port).config_set("maxmemory", 0)
            feeder.feed()
        check(lake, config)


def test_evicted_list_is_not_read_as_empty(lake: lakelog.Lake, config: RedisConfig) -> None:
    """Redis threw it away to make room: then the lake has the word."""
    with feeding(lake, config) as feeder:
        feeder.feed()
    client = plain(config.port)
    client.delete(*client.keys("*:s:s1"))
    with pytest.raises(Unreachable, match="does not have"):
        entries(lake, config).latest("s1")
    assert entries(lake, config).latest("unknown") == []


@pytest.mark.parametrize("kind", ["index:a", "index:s", "index:l", "index:p", "s:s1", "a:"])
def test_eviction_of_a_key_is_noticed(lake: lakelog.Lake, config: RedisConfig, kind: str) -> None:
    """By who reads: nothing is missing without a word; and by the feeder, who fills all again."""
    with feeding(lake, config) as feeder:
        feeder.feed()
        found, client = entries(lake, config), plain(config.port)
        client.unlink(*client.keys(f"*:{kind}"))
        looks = [
            lambda: found.latest("unknown"),
            lambda: found.latest(None, "UNKNOWN"),
            lambda: found.latest("unknown", "INFO"),
            lambda: found.search("s*"),
            lambda: found.latest(),
        ]
        refused = 0
        for look in looks:
            with contextlib.suppress(Unreachable):
                refused += 1
                look()
                refused -= 1
        assert refused or kind == "index:a"
        add(lake, 9)
        feeder.feed()
        assert feeder.figures["rebuilds"] == 2
    check(lake, config)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "wrong"}, "refuses user or password"),
        ({"username": "nobody", "password": PASSWORD}, "refuses user or password"),
        ({"username": "reader", "password": PASSWORD}, "does not let this user write"),
        ({"username": "app", "password": PASSWORD, "db": 99}, "DB index is out of range"),
    ],
)
def test_user_without_rights(
    lake: lakelog.Lake, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    """One line without the password, however often it is tried."""
    users = f"--user app on >{PASSWORD} ~* &* +@all --user default off"
    users += f" --user reader on >{PASSWORD} ~* +@read +ping +hello +client"
    said = list[str]()
    with running(RedisServer(tmp_path, options=tuple(users.split()))) as server:
        config = RedisConfig(port=server.port, **changes)
        with feeding(lake, config, say=said.append) as feeder:
            feeder.start()
            until(lambda: bool(said))
            time.sleep(1.5)
        assert len(said) == 1
        assert words in said[0]
        assert PASSWORD not in said[0]
        assert "wrong" not in said[0]


def test_limits_that_cannot_be(lake: lakelog.Lake) -> None:
    """Refused before anything is written."""
    for wrong in ({"keep": 0}, {"keep": 10**9}, {"ttl": 0}, {"ttl": -1}):
        with pytest.raises(InvalidSetting):
            RecentFeeder(lake, RedisConfig(), **wrong)  # type: ignore[arg-type]


# --- beside a watcher ---------------------------------------------------------------------------


def watching(home: Path, *words: str) -> subprocess.Popen[str]:
    """A watcher of `logs`."""
    command = [sys.executable, "-m", "lakelog", "--lake", str(home / "lake"), "watch"]
    command += [str(home / "logs"), "--interval", "0.1", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.rounds
def test_crash_recovery_of_the_watcher(home: Path, config: RedisConfig) -> None:
    """Killed while lines are written: Redis has the newest of the lake, once each."""
    (home / "logs").mkdir()
    words = ("--redis-url", config.address, "--redis-keep", str(KEEP))
    for turn in range(TURNS):
        with watching(home, *words) as watcher:
            client, before = plain(config.port), ""
            for n in range(1 + turn % 3):
                with (home / "logs" / f"f{turn % 4}.log").open("a") as file:
                    file.write("".join(f"{_TIME} ERROR {turn} {n} {m}\n" for m in range(9)))
                if turn % 2:  # in the middle of a round, or before the first
                    (key,) = client.keys("lakelog:*}") or [""]
                    before = client.hget(key, "version") if key else ""
                    with contextlib.suppress(AssertionError):
                        until(lambda: _has_moved(client, before), 5)  # noqa: B023
            time.sleep(0.2 * turn / TURNS)
            watcher.kill()
            watcher.communicate()
    run(home / "lake", "watch", str(home / "logs"), "--once", *words)
    with lakelog.open(str(home / "lake"), create=False) as lake:
        assert lake.count() >= TURNS * 9
        check(lake, config)


def _has_moved(client: Any, before: str) -> bool:
    keys = client.keys("lakelog:*}")
    return bool(keys) and client.hget(keys[0], "version") != before


def test_status_and_command_line(home: Path, config: RedisConfig) -> None:
    """The status has the figures, `recent` the entries, and the unit no password."""
    (home / "logs").mkdir()
    (home / "logs" / "a.log").write_text(
        "2026-01-01T00:00:00Z ERROR one\n2026-01-02T00:00:00Z INFO two\n"
    )
    lake, secret = home / "lake", f"redis://:{PASSWORD}@127.0.0.1:{config.port}/0"
    run(lake, "watch", str(home / "logs"), "--once", "--redis-url", config.address)
    status = json.loads(run(lake, "watch", "--status", "--json").stdout)["redis"]
    assert (status["address"], status["entries_behind"]) == (config.address, 0)
    assert status["entries_written"] > 0  # after the last round of the files, and told all the same
    (home / "logs" / "b.log").write_text("2026-01-03T00:00:00Z INFO three\n")
    away = f"redis://127.0.0.1:{free_port()}/0"
    run(lake, "watch", str(home / "logs" / "b.log"), "--once", "--redis-url", away)
    assert "does not answer" in run(lake, "watch", "--status").stdout
    words = ("recent", "--redis-url", config.address, "--json")
    found = json.loads(run(lake, *words, "--level", "error").stdout)
    assert [(each["source"], each["content"]) for each in found] == [("a.log", "one")]
    assert run(lake, *words, "--match", "none").stdout.strip() == "[]"
    again = run(lake, "recent", "--rebuild", "--redis-url", config.address)
    assert "entries written" in again.stderr
    assert json.loads(run(lake, *words).stdout)[0]["content"] == "three"
    unit = run(lake, "watch", str(home), "--print-unit", "--redis-url", secret).stdout
    assert config.address in unit
    assert PASSWORD not in unit


def test_recent_from_the_lake_when_redis_is_away(home: Path, lake: lakelog.Lake) -> None:
    """A line says so, without what the URL holds."""
    url = f"redis://me:{PASSWORD}@127.0.0.1:{free_port()}/0"
    result = run(lake.path, "recent", "--redis-url", url, "--source", "s1", "-n", "2", "--json")
    assert len(json.loads(result.stdout)) == 2
    assert "these are from the lake" in result.stderr
    assert PASSWORD not in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--redis-url", f"http://x:{PASSWORD}@h"], "a Redis URL looks like"),
        (["--redis-url", f"redis://x:{PASSWORD}@h:port"], "a Redis URL looks like"),
        (["--redis-keep", "5"], "without --redis-url"),
        (["--redis-url", "redis://h", "--redis-ttl", "soon"], "not a duration"),
        (["--redis-url", "redis://h", "--redis-keep", "0"], "keeps 1 to"),
    ],
)
def test_mistake_is_one_line(home: Path, words: list[str], said: str) -> None:
    """Before anything is watched."""
    (home / "logs").mkdir()
    result = run(home / "lake", "watch", str(home / "logs"), *words, code=2)
    assert said in result.stderr
    assert PASSWORD not in result.output


def test_end_of_a_watcher_without_redis(home: Path) -> None:
    """SIGTERM ends it as ever, and a line had said that Redis is away."""
    (home / "logs").mkdir()
    (home / "logs" / "a.log").write_text("2026-01-01 ERROR one\n")
    with watching(home, "--redis-url", f"redis://127.0.0.1:{free_port()}") as watcher:
        assert watcher.stderr is not None
        said = ""
        while "does not answer" not in said:
            line = watcher.stderr.readline()
            assert line
            said += line
        # Directories come first: a lake is one that has lakelog.json.
        until((home / "lake" / "lakelog.json").exists)
        with lakelog.open(str(home / "lake"), create=False) as lake:
            until(lambda: lake.count() == 1)
        watcher.send_signal(signal.SIGTERM)
        said += watcher.communicate(timeout=240)[1]
    assert watcher.returncode == 0
    assert said.count("does not answer") == 1
