"""Topics of Kafka as a source: each partition is a stream, its position the next offset.

Partitions are assigned by the lake's cursors, so that no group is rebalanced: of several consumers
of one topic the publication decides. Offsets are committed for others to see, and never read.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lakelog.clients import ConnectionLost, KafkaClient, KafkaConfig
from lakelog.consume.source import MessageSource, StreamState, encode_object, text_or_base64
from lakelog.errors import SyncRefused
from lakelog.ingest import Message, StreamCursor
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

kafka = Lazy("confluent_kafka")
_BYTES_MAX = 64 << 20
"""Bytes of messages that are returned at once, about."""
_FETCHED = 5000
_WAIT = 0.05
"""Messages that are taken from the client at a time, and seconds to wait for so many."""
_NO_ID = "A" * 22
"""The id of a topic that has none, in base64."""
_OWN = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
}
"""What the lake decides, whatever the settings say."""


class KafkaTopic(MessageSource):
    """One topic: `kafka://HOST:PORT[,HOST2:PORT]/TOPIC`."""

    def __init__(self, url: str, file: str | None = None) -> None:
        """Read URL and settings. Raises InvalidSetting."""
        self._config = KafkaConfig.read(url, file)
        self.name, self.address = self._config.topic, self._config.address
        self.absence = f"{self.address}: there is no such topic: create it, or check the name"
        self._client: KafkaClient | None = None
        self._prefix = ""
        self._administrator: AdminClient | None = None
        self._has_ids = True
        """Whether the cluster says which topic it is that has the name."""
        self._next: dict[int, int] = {}
        """Where the client reads each assigned partition."""
        self._at_end: set[int] = set()
        """Partitions whose end was reached, of which nothing was read since."""

    def connect(self, group: str) -> None:
        """Make a client. Raises MissingPackage, InvalidSetting; it connects by itself."""
        if self._client is None:
            group = self._config.settings.get("group.id", group)
            self._client = self._config.client("Consumer", **_OWN, **{"group.id": group})

    def states(self) -> Sequence[StreamState]:
        """The partitions as they are now, new ones included."""
        assert self._client is not None
        metadata, topic = self._client.metadata(self.name)
        if topic is None:
            return []
        # By the cluster and not by its hosts, which have many names.
        self._prefix = f"kafka:{metadata.cluster_id or self._config.hosts}/{self.name}/"
        identity = self._topic_id(metadata)
        return [self._state(partition, identity) for partition in sorted(topic.partitions)]

    def order(self, position: str) -> int:
        """The offset."""
        return int(position)

    def read(
        self, positions: Mapping[str, str], ends: Mapping[str, str], limit: int
    ) -> tuple[list[Message], bool]:
        """Return messages after the positions, and whether all partitions are at their ends."""
        assert self._client is not None
        places = {self._partition(key): int(position) for key, position in positions.items()}
        unfinished = {p for p, place in places.items() if place < int(ends[f"{self._prefix}{p}"])}
        if not unfinished:
            return [], True
        self._assign(places, unfinished)
        messages, size, until = list[Message](), 0, time.monotonic() + KafkaConfig.TIMEOUT
        while unfinished and len(messages) < limit and size < _BYTES_MAX:
            records = self._client.raw.consume(min(limit - len(messages), _FETCHED), _WAIT)
            if records:
                until = time.monotonic() + KafkaConfig.TIMEOUT
            for raw in records:
                partition = raw.partition()
                if (error := raw.error()) is None:
                    messages.append(self._message(raw))
                    size += len(raw)
                    self._next[partition] = raw.offset() + 1
                    self._at_end.discard(partition)
                    if self._next[partition] >= int(ends[f"{self._prefix}{partition}"]):
                        unfinished.discard(partition)
                elif error.name() == "_PARTITION_EOF":
                    # Before the end where the rest is a transaction that is open or was aborted.
                    unfinished.discard(partition)
                    self._at_end.add(partition)
                else:
                    raise self._client.failure(error)
            self._client.check()
            if time.monotonic() > until:
                raise ConnectionLost(
                    f"{self.address} did not answer within {KafkaConfig.TIMEOUT:g} s"
                )
        return messages, not unfinished

    def acknowledge(self, cursors: Sequence[StreamCursor]) -> None:
        """Commit the offsets of the group, without waiting for the answer."""
        assert self._client is not None
        offsets = [self._place(self._partition(c.key), int(c.position)) for c in cursors]
        # A hint: whoever has no right to a group does without.
        with contextlib.suppress(kafka.KafkaException):
            self._client.raw.commit(offsets=offsets, asynchronous=True)

    def close(self) -> None:
        """Close the client."""
        client, self._client = self._client, None
        self._next, self._at_end = {}, set()
        self._administrator, self._has_ids = None, True
        if client is not None:
            client.close()

    def _topic_id(self, metadata: Any) -> str:
        """The id of the topic, "" where the cluster has none or does not tell us."""
        # The client would wait for a controller, which some that speak this protocol lack.
        if not self._has_ids or metadata.controller_id not in metadata.brokers:
            return ""
        try:
            if self._administrator is None:
                self._administrator = self._config.administrator()
            names = kafka.TopicCollection([self.name])
            answers = self._administrator.describe_topics(
                names, request_timeout=KafkaConfig.TIMEOUT / 4
            )
            topic_id = str(answers[self.name].result().topic_id or "")
        except kafka.KafkaException:
            # Not once more on this connection: each attempt may take as long.
            topic_id = ""
        self._has_ids = topic_id not in ("", _NO_ID)
        return topic_id if self._has_ids else ""

    def _state(self, partition: int, identity: str) -> StreamState:
        assert self._client is not None
        try:
            low, high = self._client.raw.get_watermark_offsets(
                self._place(partition), timeout=KafkaConfig.TIMEOUT / 2
            )
        except kafka.KafkaException as error:
            raise self._client.failure(error.args[0]) from None
        return StreamState(
            f"{self._prefix}{partition}",
            f"{self.name}/{partition}",
            str(low),
            str(high),
            identity=identity,
        )

    def _assign(self, places: dict[int, int], unfinished: set[int]) -> None:
        """Let the client read from these offsets, as far as it does not."""
        assert self._client is not None
        if self._next == places and not unfinished & self._at_end:
            return
        # Also where it was at the end and nothing came since: it says so again.
        try:
            self._client.raw.assign([self._place(p, place) for p, place in places.items()])
        except kafka.KafkaException as error:
            raise SyncRefused(self._config.hide(f"{self.address}: {error}")) from None
        self._next, self._at_end = dict(places), set()

    def _place(self, partition: int, offset: int = 0) -> Any:
        return kafka.TopicPartition(self.name, partition, offset)

    def _partition(self, key: str) -> int:
        return int(key.removeprefix(self._prefix))

    def _message(self, raw: Any) -> Message:
        partition, offset, key = raw.partition(), raw.offset(), raw.key()
        timestamp_type, milliseconds = raw.timestamp()
        details: dict[str, object] = {"topic": self.name, "partition": partition, "offset": offset}
        is_timed = timestamp_type != kafka.TIMESTAMP_NOT_AVAILABLE and milliseconds >= 0
        if is_timed:
            details["timestamp"] = milliseconds
        if key is not None:
            details["key"] = text_or_base64(key)
        if headers := raw.headers():
            details["headers"] = _listed(headers)
        return Message(
            f"{self._prefix}{partition}",
            # A position is that of the message to be read next.
            str(offset + 1),
            offset,
            raw.value(),
            key,
            milliseconds * 1000 if is_timed else None,
            encode_object(details),
            "kafka",
        )


def _listed(headers: list[tuple[str, bytes | None]]) -> object:
    """Headers as an object; as a list of pairs where a name is repeated."""
    pairs = [(name, None if value is None else text_or_base64(value)) for name, value in headers]
    return dict(pairs) if len({name for name, _ in pairs}) == len(pairs) else pairs
