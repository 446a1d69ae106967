"""Topics of Kafka as a target, against librdkafka's mock cluster."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog.clients import kafka_config
from lakelog.errors import MissingPackage, SyncRefused, Unreachable
from lakelog.sync.services.kafka_sink import KafkaTarget
from lakelog.sync.sync import status
from lakelog.sync.target import WATERMARKS
from tests.support.kafka_server import KafkaServer, kafka_server
from tests.support.kafka_topic import TopicPlace
from tests.support.lakes import opened
from tests.support.redis_server import free_port
from tests.support.source_suite import consumed
from tests.support.sync_places import expected, synced
from tests.support.target_suite import CHANGES, TargetSuite, add, restored_from_a_backup, rewind


@pytest.fixture(scope="module")
def server() -> Iterator[KafkaServer]:
    with kafka_server() as server:
        # As clusters are set up where topics are not created by whoever asks.
        client = server.client("Producer")
        client.list_topics(WATERMARKS, timeout=240)
        yield server


@pytest.fixture
def place(server: KafkaServer, request: pytest.FixtureRequest) -> TopicPlace:
    return TopicPlace(server, "".join(c if c.isalnum() else "-" for c in request.node.name))


@pytest.mark.matrix
class TestKafkaTarget(TargetSuite):
    """The inherited faults, as far as a topic can have them."""

    @pytest.fixture
    def place(self, place: TopicPlace) -> TopicPlace:
        return place

    # A topic has no columns, types, constraints or SQL.
    test_column_of_another_type = None
    test_column_that_was_dropped = None
    test_constraint_that_a_row_violates = None
    test_table_without_key = None
    test_table_that_is_gone = None
    test_upsert_replaces_rows_of_the_same_key = None
    test_older_state_that_was_collected = None
    test_move_that_was_dropped = None
    test_check_finds_and_repairs_what_differs = None
    test_check_of_numbers_that_a_database_may_not_have = None
    test_refused_rows_go_to_the_quarantine = None
    test_table_that_was_emptied = None

    @pytest.mark.parametrize("change", ["add", "rewind", "undo", "compact", "retention", "dedupe"])
    def test_incremental(  # type: ignore[override]
        self, path: str, place: TopicPlace, change: str
    ) -> None:
        synced(path, place.url)
        CHANGES[change](path)
        result = synced(path, place.url)
        assert place.rows() == expected(path)
        assert not result.is_rebuilt
        assert result.total == len(place.rows())

    def test_lake_restored_from_a_backup(  # type: ignore[override]
        self, path: str, home: Path, place: TopicPlace
    ) -> None:
        """A topic cannot be filled again."""
        restored_from_a_backup(path, home, place)
        before = place.rows()
        with pytest.raises(SyncRefused, match="a topic cannot be emptied"):
            synced(path, place.url)
        assert place.rows() == before

    def test_append_refuses_removals(self, path: str, place: TopicPlace) -> None:
        synced(path, place.url, mode="append")
        before = place.messages()
        rewind(path)
        with pytest.raises(SyncRefused, match="the mode append writes no tombstones"):
            synced(path, place.url, mode="append")
        assert place.messages() == before

    def test_new_column_of_the_mapping_is_added(  # type: ignore[override]
        self, path: str, place: TopicPlace
    ) -> None:
        """Another mapping would have to write all rows again, and a topic cannot be emptied."""
        synced(path, place.url, query="SELECT seq, type FROM events")
        with pytest.raises(SyncRefused, match="a topic cannot be emptied: sync to another topic"):
            synced(path, place.url, query="SELECT seq, type, message FROM events")
        assert place.rows(columns="seq, type") == expected(path, "seq, type")

    def test_tables_of_one_target_are_independent(  # type: ignore[override]
        self, path: str, place: TopicPlace
    ) -> None:
        """A topic is one table."""
        synced(path, place.url)
        with pytest.raises(SyncRefused, match="rows that no sync wrote"):
            synced(path, place.url, table="second")
        add(path, "a", 3)
        with lakelog.open(path) as lake:
            (found,) = status(lake, place.url)
        assert found.events_behind == 3

    def test_table_with_rows_of_somebody_else(  # type: ignore[override]
        self, path: str, place: TopicPlace
    ) -> None:
        client = place.server.client("Producer")
        client.produce(place.name, b"mine")
        assert client.flush(240) == 0
        with pytest.raises(SyncRefused, match="rows that no sync wrote"):
            synced(path, place.url)

    def test_watermark_of_a_later_version(  # type: ignore[override]
        self, path: str, place: TopicPlace
    ) -> None:
        synced(path, place.url)
        client = place.server.client("Producer")
        client.produce(WATERMARKS, b'{"shape": 9}', key=f"{place.name}/events")
        assert client.flush(240) == 0
        with pytest.raises(lakelog.LakelogError, match="upgrade lakelog"):
            synced(path, place.url)

    def test_incremental_reading_of_watermarks(self, path: str, place: TopicPlace) -> None:
        """Their topic has those of all syncs, which are not read again each round."""
        target = KafkaTarget(place.url)
        target.connect()
        with contextlib.closing(target):
            synced(path, place.url)
            first = target.watermarks()["events"]
            assert target._read_on(WATERMARKS) == []
            add(path, "e", 3)
            synced(path, place.url)
            assert target.watermarks()["events"].version == first.version + 1
            assert len(target.watermarks()) == 1

    def test_each_row_is_one_message(self, path: str, place: TopicPlace) -> None:
        synced(path, place.url)
        synced(path, place.url)
        add(path, "e", 7)
        synced(path, place.url)
        keys = [key for key, _ in place.messages()]
        assert sorted(map(int, keys)) == [seq for (seq,) in expected(path, "seq")]

    def test_rewind_writes_tombstones(self, path: str, place: TopicPlace) -> None:
        synced(path, place.url)
        rewind(path)
        synced(path, place.url)
        gone = [key for key, value in place.messages() if value is None]
        assert len(gone) == 80

    def test_consumed_again_it_gives_equal_events(
        self, path: str, place: TopicPlace, home: Path
    ) -> None:
        synced(path, place.url)
        consumed(str(home / "copy"), place.url)
        columns = "type, message, time, data->>'n'"
        with lakelog.open(path) as lake, lakelog.open(str(home / "copy")) as copy:
            query = f"SELECT {columns} FROM events ORDER BY ALL"
            assert copy.sql(query).fetchall() == lake.sql(query).fetchall()


def test_server_that_is_away(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_config.KafkaConfig, "TIMEOUT", 1.0)
    opened(str(home / "lake")).close()
    with pytest.raises(Unreachable, match="is the server running") as caught:
        synced(str(home / "lake"), f"kafka://127.0.0.1:{free_port()}/t", retries=0)
    assert "\n" not in str(caught.value)


@pytest.mark.matrix
def test_missing_extra(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_config.kafka, "_module", None)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    opened(str(home / "lake")).close()
    with pytest.raises(MissingPackage, match=r"pip install 'lakelog\[kafka\]'"):
        synced(str(home / "lake"), "kafka://127.0.0.1:1/t")
