"""The faults that each source of messages is tested with: every message is stored exactly once.

A test class of a source inherits `SourceSuite` and has a fixture `place`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.clients.connection import ConnectionLost
from lakelog.consume.consume import Consumer, ConsumeResult, source_of
from lakelog.consume.source import MessageSource
from lakelog.errors import InvalidSetting, LakelogError, SyncRefused, Unreachable
from lakelog.ingest.quarantine import Quarantine
from lakelog.maintain import retention
from lakelog.views import Contract, Ledger
from tests.support.effort import share
from tests.support.lakes import opened
from tests.support.sync_places import Faulty, forked, kill

KILLS = int(os.environ.get("SOURCE_KILLS", share(25)))
POINTS = [
    (method, moment, number)
    for method, numbers in {
        "connect": (1,),
        "states": (1,),
        "read": (1, 2, 3),
        "acknowledge": (1, 2, 3),
    }.items()
    for number in numbers
    for moment in ("before", "after")
]
"""After `read` is before the publish, before `acknowledge` is after it."""


class SourcePlace:
    """A topic or stream as its own client sees it."""

    url: str
    sent = 0
    """Messages that `number` has sent."""

    def send(self, values: list[bytes | None]) -> None:
        """Add messages."""
        raise AssertionError

    def trim(self) -> None:
        """Let the server remove old messages, but not all."""
        raise AssertionError

    def number(self, count: int) -> None:
        """Send so many events, each with its number as `n`."""
        numbers = range(self.sent, self.sent + count)
        self.send([json.dumps({"type": "t", "message": "m", "n": n}).encode() for n in numbers])
        self.sent += count

    def source(self) -> MessageSource:
        """A fresh source of this place."""
        return source_of(self.url)


def consumed(path: str, source: str | MessageSource, **options: Any) -> ConsumeResult:
    """Consume into a lake by its path, in small batches."""
    with lakelog.open(path) as lake:
        consumer = Consumer(lake, source, **{"batch": 10, **options})
        with contextlib.closing(consumer):
            return consumer.run()


def numbers(path: str, branch: str = "main") -> Counter[int]:
    """How often each numbered message is stored."""
    with lakelog.open(path, branch=branch) as lake:
        found = lake.sql("SELECT (data->>'n')::INT FROM events WHERE type = 't'").fetchall()
    return Counter(n for (n,) in found)


def lose(source: Any) -> None:
    """Break the connection, as a server does that goes away."""
    source.close()
    raise ConnectionLost("the connection broke")


class SourceSuite:
    """Faults, and changes of the lake and of the stream."""

    @pytest.fixture
    def place(self) -> SourcePlace:
        raise AssertionError

    @pytest.fixture
    def path(self, home: Path) -> str:
        path = str(home / "lake")
        opened(path).close()
        return path

    def check(self, path: str, place: SourcePlace) -> None:
        """Every message is stored once, and the lake is whole."""
        consumed(path, place.url)
        assert numbers(path) == Counter(range(place.sent))
        assert consumed(path, place.url).commits == 0
        with lakelog.open(path) as lake:
            assert not lake.verify().problems

    # --- the consumer is killed, its connection breaks ---------------------------------------

    @pytest.mark.matrix
    @pytest.mark.parametrize(("method", "moment", "number"), POINTS)
    def test_crash_recovery(
        self, path: str, place: SourcePlace, method: str, moment: str, number: int
    ) -> None:
        place.number(35)
        source: Any = Faulty(place.source(), method, moment, number, kill)  # type: ignore[arg-type]
        assert forked(lambda: consumed(path, source)) == -signal.SIGKILL
        self.check(path, place)

    @pytest.mark.matrix
    @pytest.mark.parametrize(("method", "moment", "number"), POINTS)
    def test_retry_after_a_lost_connection(
        self, path: str, place: SourcePlace, method: str, moment: str, number: int
    ) -> None:
        place.number(35)
        said = list[str]()
        source: Any = Faulty(place.source(), method, moment, number, lose)  # type: ignore[arg-type]
        consumed(path, source, say=said.append)
        assert source.has_struck
        assert said == ["the connection broke; trying again"]
        self.check(path, place)

    def test_gives_up_after_some_attempts(self, path: str, place: SourcePlace) -> None:
        source = place.source()
        source.states = lambda: lose(source)  # type: ignore[method-assign, assignment]
        with pytest.raises(Unreachable, match="tried 2 times"):
            consumed(path, source, retries=1)

    def test_crash_recovery_while_messages_arrive(self, path: str, place: SourcePlace) -> None:
        choose = random.Random(17)
        for _ in range(KILLS):
            place.number(40)
            consumer = os.fork()
            if not consumer:
                _consume_for_ever(path, place.url)
            place.number(30)
            time.sleep(choose.uniform(0, 0.4))
            os.kill(consumer, signal.SIGKILL)
            os.waitpid(consumer, 0)
        self.check(path, place)

    # --- several consumers -----------------------------------------------------------------

    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_concurrent_consumers_store_each_message_once(
        self, path: str, place: SourcePlace, moment: str
    ) -> None:
        """Another one publishes while this one reads."""
        place.number(35)
        ran = list[int]()

        def meanwhile(_: Any) -> None:
            if not ran:
                ran.append(consumed(path, place.url).messages)

        source: Any = Faulty(place.source(), "read", moment, 1, meanwhile)  # type: ignore[arg-type]
        assert consumed(path, source).messages == 0
        assert ran == [35]
        self.check(path, place)

    def test_concurrent_consumer_reads_on_after_this_one_has_looked(
        self, path: str, place: SourcePlace
    ) -> None:
        """Then the lake is further than what this one knows of the stream, which is no rewind."""
        place.number(5)
        ran = list[int]()

        def meanwhile(_: Any) -> None:
            if not ran:
                place.number(10)
                ran.append(consumed(path, place.url).messages)

        source: Any = Faulty(place.source(), "states", "after", 1, meanwhile)  # type: ignore[arg-type]
        consumed(path, source)
        assert ran == [15]
        self.check(path, place)

    def test_concurrent_consumers_in_processes(self, path: str, place: SourcePlace) -> None:
        place.number(300)
        consumers = []
        for _ in range(3):
            pid = os.fork()
            if not pid:
                code = 1
                with contextlib.suppress(BaseException):
                    consumed(path, place.url)
                    code = 0
                os._exit(code)
            consumers.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in consumers]
        assert codes == [0, 0, 0]
        self.check(path, place)

    # --- the lake changes -------------------------------------------------------------------

    def test_rollback_takes_the_cursor_back(self, path: str, place: SourcePlace) -> None:
        place.number(20)
        consumed(path, place.url)
        with opened(path) as lake:
            lake.tag("base")
        place.number(20)
        consumed(path, place.url)
        query = "SELECT n, origin, position FROM (SELECT *, data->>'n' AS n FROM events) ORDER BY n"
        with opened(path) as lake:
            before = lake.sql(query).fetchall()
            lake.rollback("base")
        assert consumed(path, place.url).messages == 20
        with opened(path) as lake:
            assert lake.sql(query).fetchall() == before
        self.check(path, place)

    def test_rollback_may_keep_the_cursor(self, path: str, place: SourcePlace) -> None:
        place.number(20)
        with opened(path) as lake:
            lake.tag("base")
        consumed(path, place.url)
        with opened(path) as lake:
            lake.rollback("base", cursors=False)
        assert consumed(path, place.url).messages == 0

    def test_rollback_while_messages_are_read(self, path: str, place: SourcePlace) -> None:
        with opened(path) as lake:
            lake.tag("base")
        place.number(35)

        def meanwhile(_: Any) -> None:
            with opened(path) as lake:
                lake.rollback("base")

        source: Any = Faulty(place.source(), "read", "after", 3, meanwhile)  # type: ignore[arg-type]
        consumed(path, source)
        self.check(path, place)

    @pytest.mark.parametrize("change", ["compact", "retention", "seal"])
    def test_maintenance_is_no_rewind(self, path: str, place: SourcePlace, change: str) -> None:
        place.number(35)
        consumed(path, place.url)
        with opened(path) as lake:
            if change == "compact":
                assert lake.compact().removed
            elif change == "retention":
                retention.apply(lake.store, lake.branch_name, 1_000_000, lake.engine)
            else:
                lake.append([{"type": "own"}])
                lake.settle()
        assert consumed(path, place.url).messages == 0
        self.check(path, place)

    def test_branches_have_cursors_of_their_own(self, path: str, place: SourcePlace) -> None:
        place.number(20)
        consumed(path, place.url)
        with opened(path) as lake:
            lake.branch("other").close()
        place.number(5)
        with lakelog.open(path, branch="other") as lake:
            consumer = Consumer(lake, place.url)
            with contextlib.closing(consumer):
                assert consumer.run().messages == 5
        assert numbers(path, "other") == Counter(range(25))
        self.check(path, place)

    # --- what messages hold -----------------------------------------------------------------

    def test_no_message_is_lost_whatever_it_holds(self, path: str, place: SourcePlace) -> None:
        values: dict[bytes, tuple[int, int]] = {
            b'{"type":"a","message":"x"}': (1, 0),
            b'{\n  "type": "pretty",\n  "message": "x"\n}': (1, 0),
            b'{"type":"a"}\n{"type":"b"}\n': (2, 0),
            b"": (1, 0),
            b" \n ": (1, 0),
            b'{"broken': (0, 1),
            b"[]": (0, 1),
            b"\0\1\2": (0, 1),
            b'{"type":"a","data":{"kafka":1,"redis":2}}': (1, 0),
            b'{"type":"a","data":[1,2]}': (1, 0),
            b'{"type":"a","source":"own","subject":"mine","time":"2026-05-01T10:00:00Z"}': (1, 0),
            "text in no format, žluťoučký".encode(): (1, 0),
        }
        place.send(list(values))
        result = consumed(path, place.url)
        assert result.messages == len(values)
        assert result.events == sum(events for events, _ in values.values())
        assert result.quarantined == sum(bad for _, bad in values.values())
        with lakelog.open(path) as lake:
            rows = lake.sql("SELECT type, source, subject, data FROM events").fetchall()
            lines = lake.sql("SELECT line, reason FROM quarantine").fetchall()
        assert {line for line, _ in lines} == {'{"broken', "[]", "AAEC"}
        assert all(place.url.rpartition("/")[2] in reason for _, reason in lines)
        own = [row for row in rows if row[1] == "own"]
        assert [row[:3] for row in own] == [
            ("event" if own[0][0] == "event" else "a", "own", "mine")
        ]
        sources = {row[1] for row in rows if row[1] != "own"}
        assert sources == {place.url.rpartition("/")[2]}
        assert all("kafka" in row[3] or "redis" in row[3] for row in rows)

    def test_message_that_breaches_a_contract_is_quarantined(
        self, path: str, place: SourcePlace
    ) -> None:
        place.number(3)
        consumed(path, place.url)
        with lakelog.open(path) as lake:
            fields = Ledger.of_table(lake.schema()).values()
            pinned = Contract.of_ledger("t", fields, on_breach=Contract.QUARANTINE)
            Contract.pin(lake.store, "main", [pinned])
        place.send([b'{"type":"t","message":"m","n":"x"}'])
        place.number(2)
        result = consumed(path, place.url)
        assert (result.messages, result.events, result.quarantined) == (3, 2, 1)
        with lakelog.open(path) as lake:
            ((line, reason),) = lake.sql("SELECT line, reason FROM quarantine").fetchall()
        assert line == '{"type":"t","message":"m","n":"x"}'
        assert reason.startswith("contract of type t: n is text, not int; ")
        self.check_replay(path)

    def check_replay(self, path: str) -> None:
        """A replay refuses the message while its contract holds; then it has all its details."""
        with lakelog.open(path) as lake:
            assert Quarantine(lake.store, "main").replay(lake.engine).stored == 0
            Contract.unpin(lake.store, "main")
            assert Quarantine(lake.store, "main").replay(lake.engine).stored == 1
            payloads = lake.sql("SELECT data FROM events").fetchall()
        members = [list(json.loads(payload)) for (payload,) in payloads]
        assert len(members) == 6
        assert all(names == members[0] for names in members)

    def test_time_of_a_message_without_one(self, path: str, place: SourcePlace) -> None:
        before = time.time()
        place.send([b'{"type":"t","n":0}', b'{"type":"t","n":1,"time":"2020-01-01T00:00:00Z"}'])
        after = time.time()
        time.sleep(0.01)
        consumed(path, place.url)
        with lakelog.open(path) as lake:
            times = lake.sql("SELECT epoch(time) FROM events ORDER BY data->>'n'").fetchall()
        assert int(before * 1000) / 1000 <= times[0][0] <= after + 0.001
        assert times[1][0] == 1_577_836_800

    def test_format_that_was_asked_for(self, path: str, place: SourcePlace) -> None:
        place.send([b"10.0.0.1 GET 17", b"10.0.0.2 PUT 18"])
        consumed(path, place.url, form="%{IP:client} %{WORD:method} %{INT:ms:int}")
        with lakelog.open(path) as lake:
            found = lake.sql("SELECT data->>'method' FROM events ORDER BY 1").fetchall()
        assert found == [("GET",), ("PUT",)]

    def test_table_formats_are_refused(self, path: str, place: SourcePlace) -> None:
        place.send([b"a,b", b"1,2"])
        with pytest.raises(InvalidSetting, match="csv needs the lines before a line"):
            consumed(path, place.url, form="csv")
        assert consumed(path, place.url).events == 2

    def test_idempotent_ids(self, path: str, place: SourcePlace) -> None:
        place.send([b'{"type":"t","n":1,"id":"one"}'] * 3)
        result = consumed(path, place.url)
        assert (result.messages, result.events, result.known) == (3, 1, 2)

    def test_many_events_in_a_message(self, path: str, place: SourcePlace) -> None:
        lines = b"\n".join(b'{"type":"t","n":%d}' % n for n in range(5000))
        place.send([lines, lines.replace(b'"n":', b'"n":10')])
        assert consumed(path, place.url).events == 10_000
        with lakelog.open(path) as lake:
            found = lake.sql("SELECT count(DISTINCT (origin, position)) FROM events").fetchall()
        assert found == [(10_000,)]

    def test_huge_message(self, path: str, place: SourcePlace) -> None:
        place.send([json.dumps({"type": "huge", "message": "x" * 900_000}).encode()])
        consumed(path, place.url)
        with lakelog.open(path) as lake:
            assert lake.sql("SELECT length(message) FROM events").fetchall() == [(900_000,)]

    # --- the stream is not as it should be ---------------------------------------------------

    def test_unknown_stream(self, path: str, place: SourcePlace) -> None:
        with pytest.raises(SyncRefused, match="there is no such") as caught:
            consumed(path, place.url + "-unknown")
        assert "\n" not in str(caught.value)

    def test_from_the_end(self, path: str, place: SourcePlace) -> None:
        place.send([b'{"type":"old"}'] * 7)
        assert consumed(path, place.url, start="end").messages == 0
        place.number(5)
        assert consumed(path, place.url, start="end").messages == 5
        self.check(path, place)

    def test_removed_messages_are_counted_and_reported(self, path: str, place: SourcePlace) -> None:
        place.number(20)
        consumed(path, place.url)
        place.number(200)
        place.trim()
        said = list[str]()
        result = consumed(path, place.url, say=said.append)
        assert result.missing > 0
        assert result.messages + result.missing == place.sent - 20
        assert sum(numbers(path).values()) == place.sent - result.missing
        reported = [words for words in said if "were removed by the server before" in words]
        assert sum(int(words.split(": ")[1].split()[0]) for words in reported) == result.missing
        assert consumed(path, place.url, say=said.append).missing == 0
        with lakelog.open(path) as lake:
            consumer = Consumer(lake, place.url)
            with contextlib.closing(consumer):
                lags = consumer.lags()
        assert sum(lag.missing for lag in lags) == result.missing
        assert sum(lag.behind or 0 for lag in lags) == 0

    def test_rollback_past_what_was_removed(self, path: str, place: SourcePlace) -> None:
        with opened(path) as lake:
            lake.tag("base")
        place.number(220)
        consumed(path, place.url, batch=30)
        place.trim()
        consumed(path, place.url)
        with opened(path) as lake:
            lake.tag("again")
            lake.rollback("again")
        first = consumed(path, place.url)
        assert (first.messages, first.missing) == (0, 0)

    def test_lags(self, path: str, place: SourcePlace) -> None:
        place.number(12)
        with lakelog.open(path) as lake:
            consumer = Consumer(lake, place.url)
            with contextlib.closing(consumer):
                assert sum(lag.behind or 0 for lag in consumer.lags()) == 12
                consumer.run()
                assert sum(lag.behind or 0 for lag in consumer.lags()) == 0
                place.number(3)
                assert sum(lag.behind or 0 for lag in consumer.lags()) == 3


def _consume_for_ever(path: str, url: str) -> None:
    with contextlib.suppress(BaseException):
        while True:
            with contextlib.suppress(LakelogError):
                consumed(path, url)
    os._exit(9)
