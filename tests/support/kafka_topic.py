"""A topic of Kafka that a sync writes to, as a consumer sees it."""

from __future__ import annotations

import itertools
import json
from typing import Any

from tests.support.kafka_server import KafkaServer
from tests.support.sync_places import COMPARED, Place, Rows


class TopicPlace(Place):
    """A topic as a consumer with read_committed sees it."""

    def __init__(self, server: KafkaServer, name: str) -> None:
        self.server, self.name = server, name
        self.url = f"kafka://{server.hosts}/{name}"

    def messages(self, topic: str = "") -> list[tuple[str, bytes | None]]:
        """Keys and values, by partition, and in the order of each."""
        import confluent_kafka

        topic = topic or self.name
        client = self.server.client(
            "Consumer",
            **{
                "group.id": "test",
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
            },
        )
        partitions = client.list_topics(topic, timeout=240).topics[topic].partitions
        client.assign([confluent_kafka.TopicPartition(topic, p, 0) for p in partitions])
        found: dict[int, list[tuple[str, bytes | None]]] = {p: [] for p in sorted(partitions)}
        ended = set()
        while len(ended) < len(partitions):
            for raw in client.consume(1000, 0.05):
                if raw.error():
                    ended.add(raw.partition())
                else:
                    found[raw.partition()].append(((raw.key() or b"").decode(), raw.value()))
        client.close()
        return list(itertools.chain(*found.values()))

    def rows(self, table: str = "events", columns: str = COMPARED) -> Rows:
        """The last message of each key, as compaction leaves it."""
        rows = {int(key): value for key, value in self.messages()}
        return [
            tuple(row_of(value)[name] for name in columns.split(", "))
            for _, value in sorted(rows.items())
            if value is not None
        ]

    def ask(self, statement: str) -> Rows:
        raise AssertionError(statement)


def row_of(value: bytes) -> dict[str, Any]:
    """A value's columns, with `data` as its text."""
    row: dict[str, Any] = json.loads(value)
    data = value.decode().partition(',"data":')[2][:-1]
    return row | {"data": None if data in ("", "null") else data}
