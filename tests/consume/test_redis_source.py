"""Streams of Redis are consumed exactly once, against a real server."""

from __future__ import annotations

import contextlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

import lakelog
from lakelog.clients import redis_client
from lakelog.consume.consume import Consumer, source_of
from lakelog.errors import InvalidSetting, MissingPackage, SyncRefused, Unreachable
from lakelog.ingest import Quarantine
from tests.support import encrypted, protected
from tests.support.lakes import opened
from tests.support.peak_memory import growth
from tests.support.redis_server import RedisServer, free_port, running
from tests.support.requirements import need_module
from tests.support.source_suite import SourcePlace, SourceSuite, consumed, numbers
from tests.support.sync_places import Faulty

PASSWORD = "s3cret-Pa55word"


class RedisPlace(SourcePlace):
    """A stream of a running server."""

    def __init__(self, server: RedisServer, name: str = "st") -> None:
        import redis

        self.server, self.name = server, name
        self.url = f"redis://127.0.0.1:{server.port}/0/{name}"
        self.client: Any = redis.Redis(port=server.port)

    def send(self, values: list[bytes | None]) -> None:
        pipe = self.client.pipeline(transaction=False)
        for value in values:
            pipe.xadd(self.name, {"data": value or b""})
        pipe.execute()

    def trim(self) -> None:
        self.client.xtrim(self.name, maxlen=30, approximate=False)


@pytest.fixture
def server(home: Path) -> Iterator[RedisServer]:
    options = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
    with running(RedisServer(home / "redis", options=options)) as server:
        yield server


@pytest.mark.matrix
class TestRedisStream(SourceSuite):
    """The inherited faults, and what only Redis has."""

    @pytest.fixture
    def place(self, server: RedisServer) -> Iterator[RedisPlace]:
        place = RedisPlace(server)
        yield place
        place.client.close()

    @pytest.mark.matrix
    @pytest.mark.parametrize("method", ["states", "read", "acknowledge"])
    def test_server_is_killed_and_restarted(
        self, path: str, place: RedisPlace, method: str
    ) -> None:
        place.number(35)

        def restart(_: Any) -> None:
            place.server.stop()
            place.server.start()

        source: Any = Faulty(place.source(), method, "before", 1, restart)  # type: ignore[arg-type]
        consumed(path, source)
        self.check(path, place)

    def test_server_that_is_away(self, path: str, place: RedisPlace) -> None:
        place.number(5)
        place.server.stop()
        with pytest.raises(Unreachable, match="is the server running") as caught:
            consumed(path, place.url)
        assert "\n" not in str(caught.value)
        place.server.start()
        self.check(path, place)

    @pytest.mark.parametrize("trouble", ["replica", "script"])
    def test_server_that_cannot_answer_now(
        self, path: str, place: RedisPlace, trouble: str
    ) -> None:
        """As in a fail-over, or while a long script runs: it is asked again."""
        place.number(35)
        command: tuple[object, ...] = ("EVAL", "while true do end", 0)
        end: tuple[str, ...] = ("SCRIPT", "KILL")
        place.client.config_set("busy-reply-threshold", 1)
        if trouble == "replica":
            place.client.config_set("replica-serve-stale-data", "no")
            command, end = ("REPLICAOF", "127.0.0.1", 1), ("REPLICAOF", "NO", "ONE")

        def begin(_: Any) -> None:
            pool.submit(place.client.execute_command, *command)
            # Until it says so.
            with contextlib.suppress(redis.ResponseError):
                while True:
                    other.exists(place.name)
            Timer(0.2, other.execute_command, end).start()

        redis = need_module("redis")
        other = redis.Redis(port=place.server.port)
        with ThreadPoolExecutor(1) as pool, contextlib.closing(other):
            source: Any = Faulty(place.source(), "read", "before", 1, begin)  # type: ignore[arg-type]
            consumed(path, source)
        self.check(path, place)

    def test_cut_connections(self, path: str, place: RedisPlace) -> None:
        place.number(35)

        def cut(_: Any) -> None:
            place.client.client_kill_filter(_type="normal", skipme=True)

        for number in (1, 2, 3):
            source: Any = Faulty(place.source(), "read", "before", number, cut)  # type: ignore[arg-type]
            consumed(path, source)
            place.number(35)
        self.check(path, place)

    def test_stream_that_was_created_again(self, path: str, place: RedisPlace) -> None:
        place.client.xadd("st", {"data": '{"type":"t","n":0}'}, id="99999999999999-0")
        place.sent = 1
        consumed(path, place.url)
        place.client.delete("st")
        assert consumed(path, place.url).messages == 0
        place.number(5)
        said = list[str]()
        assert consumed(path, place.url, say=said.append).messages == 5
        assert "it was created again" in said[0]
        self.check(path, place)

    def test_entry_that_was_deleted_before_it_was_read(self, path: str, place: RedisPlace) -> None:
        place.number(10)
        consumed(path, place.url)
        place.number(10)
        entries = place.client.xrange("st")
        place.client.xdel("st", entries[3][0], entries[12][0], entries[19][0])
        assert consumed(path, place.url).missing == 2
        assert numbers(path) == Counter(set(range(20)) - {12, 19})

    def test_empty_stream(self, path: str, place: RedisPlace) -> None:
        place.client.xgroup_create("st", "other", mkstream=True)
        assert consumed(path, place.url).messages == 0
        place.number(3)
        self.check(path, place)

    def test_group_shows_what_was_consumed(self, path: str, place: RedisPlace) -> None:
        place.number(12)
        consumed(path, place.url)
        place.number(3)
        (group,) = place.client.xinfo_groups("st")
        assert group["name"].startswith(b"lakelog-")
        assert (group["entries-read"], group["lag"], group["pending"]) == (12, 3, 0)

    def test_fields_of_an_entry(self, path: str, place: RedisPlace) -> None:
        place.client.xadd("st", {"type": "flat", "user": "1"})
        place.client.xadd("st", {"trace": "abc", "message": '{"type":"t","n":1}'})
        place.client.execute_command("XADD", "st", "*", "a", "1", "a", "2")
        place.client.xadd("st", {b"\xff": b"\xfe", b"x": b"1"})
        result = consumed(path, place.url)
        assert (result.events, result.quarantined) == (4, 0)
        with lakelog.open(path) as lake:
            found = dict(
                lake.sql("SELECT type || position, data FROM events ORDER BY position").fetchall()
            )
        flat, traced, twice, raw = found.values()
        assert '"user":"1"' in flat
        assert '"fields":{"trace":"abc"}' in traced
        assert '"fields":[["a","1"],["a","2"]]' in twice
        assert '"fields":[[{"base64":"/w=="},{"base64":"/g=="}],["x","1"]]' in raw

    def test_ids_that_are_no_time(self, path: str, place: RedisPlace) -> None:
        """Also those whose numbers have no room in a position."""
        ids = [
            "1-0",
            "1-1",
            "1-1048577",
            "5000000000-3",
            "18446744073709551615-18446744073709551614",
        ]
        for n, entry_id in enumerate(ids):
            place.client.xadd("st", {"data": f'{{"type":"t","n":{n}}}'}, id=entry_id)
        place.sent = len(ids)
        self.check(path, place)
        with lakelog.open(path) as lake:
            found = lake.sql(
                "SELECT count(DISTINCT (origin, position)), min(year(time)) > 2000 FROM events"
            ).fetchall()
        assert found == [(5, True)]

    def test_huge_entry_beyond_the_longest_line(self, path: str, place: RedisPlace) -> None:
        place.send([b"x" * (65 << 20), b'{"type":"t","n":0}'])
        place.sent = 1
        result = consumed(path, place.url)
        assert (result.messages, result.events, result.quarantined) == (2, 1, 5)
        with lakelog.open(path) as lake:
            size = lake.sql("SELECT sum(length(line)) FROM quarantine").fetchall()
        assert size == [(65 << 20,)]

    def test_key_of_another_kind(self, path: str, place: RedisPlace) -> None:
        place.client.set("st", "text")
        with pytest.raises(SyncRefused, match="that key holds no stream"):
            consumed(path, place.url)

    def test_user_who_may_only_read(
        self, path: str, place: RedisPlace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rights = ["+ping", "+xrange", "+xinfo", "+hello", "+client"]
        place.client.acl_setuser(
            "reader", enabled=True, passwords=[f"+{PASSWORD}"], keys=["st"], commands=rights
        )
        monkeypatch.setenv("REDIS_USERNAME", "reader")
        monkeypatch.setenv("REDIS_PASSWORD", PASSWORD)
        place.number(5)
        self.check(path, place)
        monkeypatch.setenv("REDIS_PASSWORD", PASSWORD + "x")
        with pytest.raises(Unreachable, match="refuses user or password") as caught:
            consumed(path, place.url)
        assert PASSWORD not in str(caught.value)


def test_replica_is_asked_once_to_move_the_group(home: Path, server: RedisServer) -> None:
    """It has all entries, and may not write: each batch would wait for seconds else."""
    path = str(home / "lake")
    opened(path).close()
    place = RedisPlace(server)
    place.number(9)
    place.client.replicaof("127.0.0.1", free_port())
    place.client.config_resetstat()
    assert consumed(path, place.url).events == 9
    stats = place.client.info("commandstats")["cmdstat_xgroup|create"]
    assert (stats["calls"], stats["rejected_calls"]) == (0, 1)
    place.client.close()


@pytest.mark.parametrize("looks", [True, False], ids=["seen at once", "seen late"])
def test_crash_that_loses_the_last_second(home: Path, looks: bool) -> None:
    path = str(home / "lake")
    opened(path).close()
    with running(RedisServer(home / "redis", options=("--save", ""))) as server:
        place = RedisPlace(server)
        place.number(35)
        place.client.save()
        place.number(10)
        consumed(path, place.url)
        server.stop()
        server.start()
        assert place.client.xlen("st") == 35
        said = list[str]()
        if looks:
            consumed(path, place.url, say=said.append)
        place.number(7)
        consumed(path, place.url, say=said.append)
        assert len([words for words in said if "after a crash or a fail-over" in words]) == 1
        with lakelog.open(path) as lake, contextlib.closing(Consumer(lake, place.url)) as own:
            assert [lag.behind for lag in own.lags()] == [0]
        assert numbers(path) == Counter(range(place.sent))
        place.client.xtrim("st", maxlen=0)
        place.number(2)
        place.client.xtrim("st", maxlen=0)
        assert consumed(path, place.url).missing == 2
        place.client.close()


def test_crash_brings_back_no_line_that_was_erased(home: Path) -> None:
    path = str(home / "lake")
    opened(path).close()
    with running(RedisServer(home / "redis", options=("--save", ""))) as server:
        place = RedisPlace(server)
        place.number(33)
        place.send([b"{ada", b"\0ada"])
        place.client.save()
        place.number(5)
        consumed(path, place.url)
        with lakelog.open(path) as lake:
            assert lake.erase(subject="ada", why="asked").erasure.lines == 1
        server.stop()
        server.start()
        place.number(1)
        consumed(path, place.url)
        assert numbers(path) == Counter(range(place.sent))
        with lakelog.open(path) as lake:
            assert lake.sql("SELECT line FROM quarantine").fetchall() == [("AGFkYQ==",)]
        place.client.close()


def test_details_of_a_line_are_sealed_where_they_are_protected(
    home: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay takes them from there; without the keys nobody does."""
    protected.keys_in(home, monkeypatch)
    place = RedisPlace(server)
    with lakelog.open(home / "lake") as lake:
        lake.protect(["redis"])
        place.client.xadd(place.name, {"data": "no event", "email": protected.PLANTED})
        place.client.xadd(place.name, {"data": '{"type": "A",', "email": protected.PLANTED})
        consumed(str(home / "lake"), place.url, form="jsonl")
        place.client.close()
        reasons = "SELECT count(*) FROM quarantine WHERE contains(reason, ?)"
        assert lake.sql(reasons, [protected.PLANTED]).fetchone() == (2,)
        with protected.without_keys(home):
            assert lake.sql(reasons, [protected.PLANTED]).fetchone() == (0,)
        assert Quarantine(lake.store, "main").replay(lake.engine, form="plain").stored == 2
        data = lake.sql("SELECT data FROM events").fetchall()
        emails = [json.loads(payload)["redis"]["fields"]["email"] for (payload,) in data]
        assert emails == [protected.PLANTED] * 2
    assert encrypted.found(home / "lake", [protected.PLANTED]) == []


def test_crash_after_consuming_began_at_the_end(home: Path) -> None:
    """What was older then is not read either, though nothing of what was read is there."""
    path = str(home / "lake")
    opened(path).close()
    with running(RedisServer(home / "redis", options=("--save", ""))) as server:
        place = RedisPlace(server)
        place.number(20)
        place.client.save()
        place.number(5)
        assert consumed(path, place.url, start="end").messages == 0
        server.stop()
        server.start()
        said = list[str]()
        assert consumed(path, place.url, say=said.append).messages == 0
        assert "another stream" in said[0]
        place.number(3)
        assert consumed(path, place.url).messages == 3
        assert numbers(path) == Counter(range(25, 28))
        place.client.close()


@pytest.mark.matrix
@pytest.mark.parametrize("seed", range(16))
def test_histories_of_a_stream_that_is_rewound(home: Path, server: RedisServer, seed: int) -> None:
    """Whatever was in the stream at a look is stored once, though ids are given again."""
    path, place, choose = str(home / "lake"), RedisPlace(server), random.Random(seed)
    opened(path).close()
    entries, sent, expected = list[tuple[str, int]](), 0, set[int]()
    for _ in range(18):
        change = choose.choice(["add", "add", "add", "rewind", "rewind", "again", "trim", "xdel"])
        if change == "rewind" and entries:
            # As a replica has it: the same entries up to somewhere, and never the later ones.
            entries = entries[: choose.randrange(len(entries) + 1)]
            place.client.delete("st")
        elif change == "again":
            entries = []
            place.client.delete("st")
        elif change == "trim":
            entries = entries[-choose.randrange(1, 20) :]
            place.client.xtrim("st", maxlen=len(entries), approximate=False)
        elif change == "xdel" and entries:
            gone = entries.pop(choose.randrange(len(entries)))
            place.client.xdel("st", gone[0])
        last = int(entries[-1][0].partition("-")[0]) if entries else 0
        if change == "add":
            for _ in range(choose.randrange(1, 25)):
                last += choose.randrange(1, 3)
                entries.append((f"{last}-0", sent))
                sent += 1
        have = {name.decode() for name, _ in place.client.xrange("st")}
        pipe = place.client.pipeline(transaction=False)
        for name, n in entries:
            if name not in have:
                pipe.xadd("st", {"data": f'{{"type":"t","n":{n}}}'}, id=name)
        try:
            pipe.execute()
        except redis_client.redis.ResponseError:  # below one that was deleted
            entries = [
                (name.decode(), json.loads(pairs[b"data"])["n"])
                for name, pairs in place.client.xrange("st")
            ]
        if place.client.exists("st") and choose.random() < 0.7:
            consumed(path, place.url)
            expected |= {n for _, n in entries}
            assert numbers(path) == Counter(expected)
    with lakelog.open(path) as lake:
        query = "SELECT count(*) - count(DISTINCT (origin, position)) FROM events"
        assert lake.sql(query).fetchall() == [(0,)]
    place.client.close()


_BATCH = """
import sys
from lakelog.consume.consume import source_of
source = source_of(sys.argv[1])
source.connect("g")
[state] = source.states()
begin()
messages, _ = source.read({state.key: state.start}, {state.key: state.end}, 50_000)
assert len(messages) == 20_000
"""


@pytest.mark.parametrize("fields", [("data", "1"), ("a", "1", "b", "2")], ids=["value", "fields"])
def test_a_batch_takes_memory_by_its_messages(server: RedisServer, fields: tuple[str, ...]) -> None:
    """A message that waits for the others holds its bytes, and not a page for each part of it."""
    place = RedisPlace(server)
    pipe = place.client.pipeline(transaction=False)
    for _ in range(20_000):
        pipe.execute_command("XADD", place.name, "*", *fields)
    pipe.execute()
    place.client.close()
    assert growth(_BATCH, place.url) < 45_000_000


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost/0",
        "redis://localhost/0/",
        "redis://localhost/x/st",
        "redis://localhost:x/0/st",
        "redis:st",
        "rabbit://localhost/q",
        "st",
        "",
    ],
)
def test_wrong_url(url: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        source_of(url)
    assert "\n" not in str(caught.value)
    assert "redis://HOST:PORT/DB" in str(caught.value)


def test_missing_extra(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_client.redis, "_module", None)
    monkeypatch.setitem(sys.modules, "redis", None)
    opened(str(home / "lake")).close()
    with pytest.raises(MissingPackage, match=r"pip install 'lakelog\[redis\]'"):
        consumed(str(home / "lake"), f"redis://127.0.0.1:{free_port()}/0/st")
