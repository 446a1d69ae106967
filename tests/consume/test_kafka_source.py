"""Topics of Kafka are consumed exactly once, against librdkafka's mock cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.clients import kafka_config
from lakelog.clients.kafka_config import KafkaConfig
from lakelog.consume.consume import Consumer, source_of
from lakelog.consume.source import MessageSource
from lakelog.errors import InvalidSetting, MissingPackage, Unreachable
from lakelog.ingest import Message
from lakelog.ingest.stream_cursor import StreamCursor
from tests.support.kafka_proxy import kafka_proxy
from tests.support.kafka_server import PARTITIONS, KafkaServer, kafka_server
from tests.support.lakes import opened
from tests.support.redis_server import free_port
from tests.support.source_suite import SourcePlace, SourceSuite, consumed, numbers
from tests.support.sync_places import Faulty

PASSWORD = "s3cret-Pa55word"
REPLACED = b'{"type":"t","n":100}'


class KafkaPlace(SourcePlace):
    """A topic of a running cluster."""

    def __init__(self, server: KafkaServer, name: str = "st") -> None:
        self.server, self.name = server, name
        self.url = f"kafka://{server.hosts}/{name}"
        self.client, self.turn = server.client("Producer"), 0

    def send(self, values: list[bytes | None]) -> None:
        for value in values:
            self.client.produce(self.name, value, partition=self.turn)
            self.turn = (self.turn + 1) % PARTITIONS
        assert self.client.flush(240) == 0

    def trim(self) -> None:
        """Large messages in each partition: the cluster keeps 5 MB of it."""
        for partition in range(PARTITIONS):
            for _ in range(7):
                value = json.dumps({"type": "t", "n": self.sent, "message": "x" * 900_000})
                self.client.produce(self.name, value, partition=partition)
                self.sent += 1
            assert self.client.flush(240) == 0


@pytest.fixture(scope="module")
def server() -> Iterator[KafkaServer]:
    with kafka_server() as server:
        yield server


@pytest.fixture
def place(server: KafkaServer, request: pytest.FixtureRequest) -> KafkaPlace:
    # A topic for each test: starting a cluster takes longer than most of them.
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    place = KafkaPlace(server, name)
    if "unknown" not in name:
        place.client.list_topics(name, timeout=240)
    return place


@pytest.mark.matrix
class TestKafka(SourceSuite):
    """The inherited faults, and what only Kafka has."""

    @pytest.fixture
    def place(self, place: KafkaPlace) -> KafkaPlace:
        return place

    def test_server_that_goes_away(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kafka_config.KafkaConfig, "TIMEOUT", 2.0)
        with kafka_server() as server:
            place = KafkaPlace(server)
            place.number(35)

            def stop(_: Any) -> None:
                server.stop()

            source: Any = Faulty(place.source(), "read", "before", 1, stop)  # type: ignore[arg-type]
            with pytest.raises(Unreachable, match="is the server running") as caught:
                consumed(path, source, retries=1)
            assert "\n" not in str(caught.value)
            assert not numbers(path)

    # The mock cluster keeps nothing: a restarted one is another cluster.
    test_server_is_killed_and_restarted = None

    def test_server_that_hangs_for_a_while(self, path: str) -> None:
        with kafka_server() as server:
            place = KafkaPlace(server)
            place.number(35)

            def pause(_: Any) -> None:
                os.kill(server.process.pid, signal.SIGSTOP)
                if not os.fork():
                    time.sleep(1)
                    os.kill(server.process.pid, signal.SIGCONT)
                    os._exit(0)

            source: Any = Faulty(place.source(), "read", "before", 2, pause)  # type: ignore[arg-type]
            assert consumed(path, source).messages == 35
            self.check(path, place)
            os.wait()

    def test_keys_headers_and_tombstones(self, path: str, place: KafkaPlace) -> None:
        produce = place.client.produce
        produce(
            place.name, '{"type":"a","message":"x"}', key="k1", partition=1, headers=[("h", b"1")]
        )
        produce(place.name, None, key="k1", partition=1, headers=[("h", b"1"), ("h", b"\xff")])
        produce(place.name, b"\0", key=b"\xff", partition=2)
        produce(
            place.name,
            '{"type":"a","subject":"own"}',
            key="k2",
            partition=3,
            timestamp=1_800_000_000_000,
        )
        assert place.client.flush(240) == 0
        consumed(path, place.url)
        with lakelog.open(path) as lake:
            rows = lake.sql("SELECT type, subject, epoch(time), data FROM events").fetchall()
            lines = lake.sql("SELECT line, reason FROM quarantine").fetchall()
        found = {
            (kind, subject): (at, json.loads(data)["kafka"]) for kind, subject, at, data in rows
        }
        assert found["a", "k1"][1]["headers"] == {"h": "1"}
        assert found["message.tombstone", "k1"][1]["headers"] == [
            ["h", "1"],
            ["h", {"base64": "/w=="}],
        ]
        at, details = found["a", "own"]
        assert (at, details["partition"], details["offset"], details["key"]) == (
            1_800_000_000,
            3,
            0,
            "k2",
        )
        assert lines[0][0] == "AA=="
        assert '"partition":2,"offset":0' in lines[0][1]
        assert '"key":{"base64":"/w=="}' in lines[0][1]

    def test_quarantined_messages_with_the_key_of_a_subject_are_erased(
        self, path: str, place: KafkaPlace
    ) -> None:
        for key, headers in (("ada", []), ("eve", [("who", b"ada")]), ("eve", [])):
            place.client.produce(place.name, "{broken", key=key, partition=1, headers=headers)
        assert place.client.flush(240) == 0
        consumed(path, place.url)
        with lakelog.open(path) as lake:
            assert lake.erase(subject=place.name, why="not a key").erasure.lines == 0
            assert lake.erase(subject="1", why="not a key").erasure.lines == 0
            assert lake.erase(subject="ada", why="asked").erasure.lines == 2
            assert lake.erase(subject="eve", why="asked").erasure.lines == 1
            assert lake.sql("FROM quarantine").fetchall() == []

    def test_partitions_are_stored_in_their_order(self, path: str, place: KafkaPlace) -> None:
        place.number(100)
        consumed(path, place.url)
        with lakelog.open(path) as lake:
            found = lake.sql(
                "SELECT origin, list(position ORDER BY seq) = list(position ORDER BY position)"
                " FROM events GROUP BY origin"
            ).fetchall()
        assert all(is_ordered for _, is_ordered in found)
        assert len(found) == PARTITIONS

    def test_offsets_are_committed_for_others(self, path: str, place: KafkaPlace) -> None:
        import confluent_kafka

        place.number(30)
        consumed(path, place.url)
        with lakelog.open(path) as lake:
            group = f"lakelog-{lake.store.lake_id[:8]}-main"
        client = place.server.client("Consumer", **{"group.id": group})
        places = [confluent_kafka.TopicPartition(place.name, p) for p in range(PARTITIONS)]
        committed = client.committed(places, timeout=240)
        assert sum(max(each.offset, 0) for each in committed) == 30
        client.close()

    def test_offsets_that_another_committed_are_not_read(
        self, path: str, place: KafkaPlace
    ) -> None:
        import confluent_kafka

        place.number(30)
        with lakelog.open(path) as lake:
            group = f"lakelog-{lake.store.lake_id[:8]}-main"
        client = place.server.client("Consumer", **{"group.id": group})
        places = [confluent_kafka.TopicPartition(place.name, p, 3) for p in range(PARTITIONS)]
        client.commit(offsets=places, asynchronous=False)
        client.close()
        self.check(path, place)

    # The mock cluster cannot add partitions to a topic.
    test_new_partitions_are_found = None

    def test_topic_of_another_cluster_is_another_stream(self, path: str, place: KafkaPlace) -> None:
        place.number(10)
        consumed(path, place.url)
        with kafka_server() as server:
            other = KafkaPlace(server, place.name)
            other.sent = 10
            other.number(5)
            consumed(path, other.url)
        assert numbers(path) == Counter(range(15))

    def test_lag_of_a_topic_that_was_created_again(self, path: str, place: KafkaPlace) -> None:
        """In the same cluster: it has fewer messages than were read, and all of them are new."""
        place.number(40)
        consumed(path, place.url)
        source = place.source()
        states = source.states
        source.states = lambda: [  # type: ignore[method-assign]
            dataclasses.replace(state, end="2") for state in states()
        ]
        with lakelog.open(path) as lake, contextlib.closing(Consumer(lake, source)) as consumer:
            assert {lag.behind for lag in consumer.lags() if int(lag.position) > 2} == {2}

    def test_topic_that_lost_its_newest_messages(self, path: str, place: KafkaPlace) -> None:
        """As a broker does that loses its power: it is the topic that was read, by its id. What
        the lake has of it is not stored again, and what replaced the lost messages is."""

        def named(**changes: Any) -> MessageSource:
            source = place.source()
            states = source.states
            source.states = lambda: [  # type: ignore[method-assign]
                dataclasses.replace(state, identity="i", **changes) for state in states()
            ]
            return source

        def cut() -> MessageSource:
            source = named(end="7")
            read = source.read

            def replaced(*asked: Any) -> tuple[list[Message], bool]:
                messages, is_end = read(*asked)
                new = [dataclasses.replace(m, value=REPLACED) for m in messages if m.number == 6]
                return [m for m in messages if m.number < 6] + new, is_end

            source.read = replaced  # type: ignore[method-assign]
            return source

        place.number(40)
        assert consumed(path, named()).messages == 40
        with lakelog.open(path) as lake, contextlib.closing(Consumer(lake, cut())) as consumer:
            assert {lag.behind for lag in consumer.lags()} == {0}
        said: list[str] = []
        result = consumed(path, cut(), batch=100, say=said.append)
        assert (result.events, result.known) == (PARTITIONS, 6 * PARTITIONS)
        assert len(said) == PARTITIONS
        assert "no longer has all that was read, as after a crash or a fail-over" in said[0]
        assert numbers(path) == Counter([*range(40), *[100] * PARTITIONS])
        place.number(8)
        assert consumed(path, named(), say=said.append).events == 8
        assert len(said) == PARTITIONS
        assert numbers(path) == Counter([*range(48), *[100] * PARTITIONS])
        with lakelog.open(path) as lake:
            assert not lake.verify().problems

    def test_topic_that_was_created_again_with_more_messages(
        self, path: str, place: KafkaPlace
    ) -> None:
        """It is known by its id, where the cluster has a controller that tells it."""
        place.number(40)
        said: list[str] = []
        with kafka_proxy(place.server.hosts) as proxy:
            url = f"kafka://{proxy.hosts}/{place.name}"
            # What was consumed before ids were recorded is the topic of the first one that is.
            proxy.has_controller = False
            assert consumed(path, url, say=said.append).messages == 40
            proxy.has_controller, proxy.topic_id = True, b"\x01" * 16
            assert consumed(path, url, say=said.append).messages == 0
            with opened(path) as lake:
                cursors = StreamCursor.of_state(lake.store, lake.store.state("main")).values()
            assert {cursor.identity for cursor in cursors} == {"AQEBAQEBAQEBAQEBAQEBAQ"}
            proxy.topic_id = b"\x02" * 16
            with opened(path) as lake, contextlib.closing(Consumer(lake, url)) as consumer:
                assert sum(lag.behind or 0 for lag in consumer.lags()) == 40
            place.number(20)
            assert not said
            assert consumed(path, url, say=said.append).messages == 60
            assert len(said) == PARTITIONS
            assert "it was created again, and is read from its beginning" in said[0]
            proxy.has_controller = False
            assert consumed(path, url, say=said.append).messages == 0
            assert len(said) == PARTITIONS
        assert numbers(path) == Counter([*range(40), *range(60)])

    def test_settings_cannot_change_what_is_stored(
        self, path: str, place: KafkaPlace, home: Path
    ) -> None:
        file = home / "kafka.conf"
        file.write_text(
            "# a comment\n\nenable.auto.commit = true\nauto.offset.reset=latest\n"
            "bootstrap.servers=nowhere:1\nenable.partition.eof=false\n"
        )
        place.number(20)
        consumed(path, source_of(place.url, str(file)))
        self.check(path, place)


@pytest.mark.parametrize(
    "url",
    ["kafka://", "kafka://host", "kafka:///t", "kafka://host/", "kafka://a b/t", "kafka://h/a/b",
     "kafka:t", "kafka://h:x/t", f"kafka://user:{PASSWORD}@host/t"],
)  # fmt: skip
def test_wrong_url(url: str) -> None:
    with pytest.raises(InvalidSetting, match=r"kafka://HOST|name of a topic") as caught:
        source_of(url)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sasl.password", "line 1: expected NAME=VALUE"),
        ("no.such.setting=1", "no.such.setting"),
        (
            f"sasl.password={PASSWORD}\nsecurity.protocol={PASSWORD}",
            r"the settings of Kafka: .*\*\*\*",
        ),
        (None, "No such file"),
    ],
)
def test_wrong_settings(home: Path, text: str | None, words: str) -> None:
    file = home / "kafka.conf"
    if text is not None:
        file.write_text(text)
    opened(str(home / "lake")).close()
    with pytest.raises(InvalidSetting, match=words) as caught:
        consumed(str(home / "lake"), source_of("kafka://127.0.0.1:1/t", str(file)))
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SSL"])
def test_refused_credentials(
    home: Path, place: KafkaPlace, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """The cluster knows neither SASL nor TLS: it refuses both, as others do a mechanism."""
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", protocol)
    monkeypatch.setenv("KAFKA_SASL_MECHANISM", "PLAIN")
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "app")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", PASSWORD)
    monkeypatch.setattr(kafka_config.KafkaConfig, "TIMEOUT", 4.0)
    config = KafkaConfig.read(place.url)
    assert PASSWORD not in repr(config)
    opened(str(home / "lake")).close()
    with pytest.raises(Unreachable, match=r"refuses us: .*see security\.protocol") as caught:
        consumed(str(home / "lake"), place.url, retries=0)
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_server_that_does_not_answer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_config.KafkaConfig, "TIMEOUT", 1.0)
    opened(str(home / "lake")).close()
    with pytest.raises(Unreachable, match=r"does not answer.*tried 2 times"):
        consumed(str(home / "lake"), f"kafka://127.0.0.1:{free_port()}/t", retries=1)


def test_missing_extra(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_config.kafka, "_module", None)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    opened(str(home / "lake")).close()
    with pytest.raises(MissingPackage, match=r"pip install 'lakelog\[kafka\]'"):
        consumed(str(home / "lake"), "kafka://127.0.0.1:1/t")
