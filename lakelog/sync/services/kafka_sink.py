"""Topics of Kafka as a target: `kafka://HOST:PORT[,HOST2:PORT]/TOPIC`, written in transactions.

A row is a message: the key is its seq, the value a JSON object of its columns, `data` last and as
it is. A row that is gone is a tombstone. The watermark is a message of the topic `lakelog_sync`, by
the key `TOPIC/TABLE`, in the transaction of the rows, so consumers with read_committed see all of a
batch or nothing, each row once. That topic has to be compacted; what is written here is created so.

    begin    other producers of the topic are fenced off, then the watermark is read again
    write    rows are held in memory: an open transaction would hold up everybody who reads
    commit   begin_transaction, rows, watermark, commit_transaction

Whoever was fenced off in between fails to commit, reconnects, and finds the watermark moved.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from lakelog import sql
from lakelog.clients import ConnectionLost, KafkaClient, KafkaConfig
from lakelog.errors import LakelogError, SyncRefused
from lakelog.libraries import duckdb, pa
from lakelog.runtime.lazy import Lazy
from lakelog.sync.column_types import TypeNames
from lakelog.sync.target import (
    KEY,
    WATERMARKS,
    SyncTarget,
    TableShape,
    TargetColumn,
    Watermark,
    WatermarkMoved,
)

kafka = Lazy("confluent_kafka")
admin = Lazy("confluent_kafka.admin")
_DATA = "data"
_FINITE = "CASE WHEN isfinite({0}) THEN to_json({0}) ELSE to_json({0}::VARCHAR) END"
_VALUES = {
    "timestamptz": "strftime(timezone('UTC', {0}), '%Y-%m-%dT%H:%M:%S.%fZ')",
    "timestamp": "strftime({0}, '%Y-%m-%dT%H:%M:%S.%f')",
    "date": "{0}::VARCHAR",
    "blob": "to_base64({0})",
}
_READER = {
    "group.id": "lakelog",
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "allow.auto.create.topics": False,
    # At the end of a topic a broker holds back its answer for so long, and those after it.
    "fetch.wait.max.ms": 10,
}


class KafkaTarget(SyncTarget):
    """A topic that is written in transactions."""

    # What JSON has: a message declares no types.
    type_names = TypeNames({name: name for name in ("text", "bigint", "double", "boolean")})
    batch_rows = 100_000

    def __init__(self, url: str) -> None:
        """Read the URL, and settings from the environment. Raises InvalidSetting."""
        self._config = KafkaConfig.read(url)
        self.address = self._config.address
        self._reader: KafkaClient | None = None
        self._producer: KafkaClient | None = None
        self._marks: dict[str, Watermark] = {}
        self._places: dict[int, int] = {}
        """How far each partition of the topic of watermarks was read."""
        self._waiting: list[tuple[bytes, bytes | None]] = []

    def connect(self) -> None:
        """Connect. Raises MissingPackage, ConnectionLost, SyncRefused."""
        self._reader = self._config.client("Consumer", **_READER)
        self._reader.metadata(self._config.topic)
        self._marks, self._places = {}, {}

    def watermarks(self) -> dict[str, Watermark]:
        """The watermarks of this topic's tables: the last message of each key counts."""
        prefix, marks = f"{self._config.topic}/", dict(self._marks)
        for key, value in self._read_on(WATERMARKS):
            name = key.decode("utf-8", "replace")
            if name.startswith(prefix):
                record = (value or b"").decode("utf-8", "replace")
                marks[name.removeprefix(prefix)] = Watermark.parse(record, self.address)
        self._marks = marks
        return marks

    def shape(self, table: str) -> TableShape | None:
        """The topic, which takes whatever columns there are."""
        places = self._partitions(self._config.topic)
        if not places:
            return None
        is_empty = all(low == high for low, high in map(self._offsets, places))
        return TableShape({}, True, is_empty, is_schemaless=True, expires=True)

    def value_sql(self, column: TargetColumn) -> str:
        """The SQL of a column as JSON has it; numbers that JSON has not are text."""
        name = sql.identifier(column.name)
        return _VALUES.get(column.kind, "{0}").format(name)

    def mismatch(self, column: TargetColumn, declared: str) -> str:
        """Nothing: a topic declares no types."""
        return ""

    def begin(self, table: str, version: int) -> None:
        """Fence off other producers, and compare the watermark. Raises WatermarkMoved."""
        self._waiting = []
        if self._producer is None:
            self._producer = self._config.client(
                "Producer",
                **{
                    "transactional.id": f"lakelog/{self._config.topic}",
                    "compression.type": self._config.settings.get("compression.type", "zstd"),
                },
            )
            # This aborts what an earlier producer of the id has left open, and fences it off
            # (KIP-98). The watermark is read afterwards: none of its messages can come behind it.
            self._run(lambda raw: raw.init_transactions(KafkaConfig.TIMEOUT))
        mark = self.watermarks().get(table)
        if (mark.version if mark else 0) != version:
            raise WatermarkMoved(f"{self.address}: another sync writes to the topic")

    def create(self, table: str, columns: Sequence[TargetColumn], keyed: bool) -> None:
        """Create the topic."""
        self._create(self._config.topic)

    def extend(self, table: str, columns: Sequence[TargetColumn]) -> None:
        """Nothing: a topic declares no columns."""

    def clear(self, table: str) -> None:
        """Refuse: a topic cannot be emptied in a transaction."""
        raise SyncRefused(
            f"{self.address}: the rows have to be written from the start, and a topic cannot be"
            " emptied: sync to another topic"
        )

    def delete(self, table: str, keys: pa.Table) -> int:
        """Write tombstones."""
        mark = self._marks.get(table)
        if mark is not None and mark.mode == "append":
            raise SyncRefused(
                f"{self.address}: events were removed from the lake, and the mode append writes no"
                " tombstones: sync with --mode upsert to another topic"
            )
        self._waiting += [(b"%d" % key, None) for key in keys[KEY].to_pylist()]
        return len(keys)

    def write(self, table: str, rows: pa.Table, keyed: bool) -> None:
        """Keep rows for the transaction, as JSON."""
        names = [name for name in rows.column_names if name != _DATA]
        members = []
        for name in names:
            column = sql.identifier(name)
            is_double = str(rows.schema.field(name).type) in ("double", "float")
            members.append(f"{column} := {_FINITE.format(column) if is_double else column}")
        expression = f"to_json(struct_pack({', '.join(members)}))"
        if _DATA in rows.column_names:
            # As it is and not parsed, which would change numbers that no double can hold.
            data = f"CASE WHEN json_valid({_DATA}) THEN {_DATA} ELSE to_json({_DATA}) END"
            expression = (
                f"""left({expression}, -1) || ',"data":' || coalesce({data}, 'null') || '}}'"""
            )
        with duckdb.connect() as connection:
            connection.register("lakelog_rows", rows)
            lines = connection.sql(
                f"SELECT {KEY}::VARCHAR, {expression} FROM lakelog_rows"
            ).fetchall()
        self._waiting += [(key.encode(), value.encode()) for key, value in lines]

    def commit(self, table: str, watermark: Watermark) -> None:
        """Write rows and watermark as one transaction."""
        if not self._partitions(WATERMARKS):
            self._create(WATERMARKS)
        waiting, self._waiting = self._waiting, []
        mark = f"{self._config.topic}/{table}".encode(), watermark.to_json().encode()
        self._run(lambda raw: raw.begin_transaction())
        try:
            for key, value in waiting:
                self._produce(self._config.topic, key, value)
            self._produce(WATERMARKS, *mark)
            self._run(lambda raw: raw.commit_transaction(6 * KafkaConfig.TIMEOUT))
        except LakelogError:
            self.rollback()
            raise

    def rollback(self) -> None:
        """Abort what is open; a producer that cannot is replaced."""
        self._waiting = []
        producer, self._producer = self._producer, None
        if producer is not None:
            # Also where it succeeds: the next one reads the watermark, and its id fences this one.
            with contextlib.suppress(kafka.KafkaException, RuntimeError):
                producer.raw.abort_transaction(KafkaConfig.TIMEOUT)
            producer.close()

    def close(self) -> None:
        """Close the clients."""
        self.rollback()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _run(self, call: Any) -> None:
        """Call a method of the producer. Raises ConnectionLost, also for one that is fenced off."""
        producer = self._producer
        if producer is None:
            raise ConnectionLost(f"{self.address}: the connection broke")
        try:
            call(producer.raw)
        except kafka.KafkaException as caught:
            error = caught.args[0]
            if error.fatal() or error.name() in ("_FENCED", "INVALID_PRODUCER_EPOCH"):
                raise ConnectionLost(f"{self.address}: another sync writes to the topic") from None
            producer.raw.poll(0)
            raise producer.failure(error) from None

    def _produce(self, topic: str, key: bytes, value: bytes | None) -> None:
        until = time.monotonic() + 6 * KafkaConfig.TIMEOUT
        while True:
            try:
                self._run(lambda raw: raw.produce(topic, value, key))
                return
            # The queue of the client is full: `poll` serves what was delivered, and makes room.
            except BufferError:
                if time.monotonic() > until:
                    raise ConnectionLost(f"{self.address} does not take messages") from None
                self._run(lambda raw: raw.poll(0.1))

    def _partitions(self, topic: str) -> list[Any]:
        """The partitions of a topic, none where there is no such topic."""
        _, metadata = self._connected().metadata(topic)
        numbers = sorted(metadata.partitions) if metadata is not None else ()
        return [kafka.TopicPartition(topic, number, 0) for number in numbers]

    def _offsets(self, place: Any) -> tuple[int, int]:
        """The first offset of a partition, and the next."""
        reader = self._connected()
        try:
            low, high = reader.raw.get_watermark_offsets(place, timeout=KafkaConfig.TIMEOUT / 2)
        except kafka.KafkaException as error:
            raise reader.failure(error.args[0]) from None
        return low, high

    def _connected(self) -> KafkaClient:
        if self._reader is None:
            raise ConnectionLost(f"{self.address}: the connection broke")
        return self._reader

    def _read_on(self, topic: str) -> list[tuple[bytes, bytes | None]]:
        """The committed messages of a topic since the last call, as keys and values, in the order
        of each key: it may hold the watermarks of many syncs."""
        reader, places = self._connected(), self._partitions(topic)
        unread, records = {place.partition for place in places}, list[tuple[bytes, bytes | None]]()
        for place in places:
            place.offset = self._places.get(place.partition, kafka.OFFSET_BEGINNING)
        positions = dict(self._places)
        reader.raw.assign(places)
        until = time.monotonic() + KafkaConfig.TIMEOUT
        while unread:
            for raw in reader.raw.consume(1000, 0.05):
                until = time.monotonic() + KafkaConfig.TIMEOUT
                if (error := raw.error()) is None:
                    records.append((raw.key() or b"", raw.value()))
                    positions[raw.partition()] = raw.offset() + 1
                elif error.name() == "_PARTITION_EOF":
                    unread.discard(raw.partition())
                    # Behind the marks of transactions, too, which are no messages.
                    positions[raw.partition()] = raw.offset()
                else:
                    raise reader.failure(error)
            reader.check()
            if time.monotonic() > until:
                raise ConnectionLost(
                    f"{self.address} did not answer within {KafkaConfig.TIMEOUT:g} s"
                )
        reader.raw.unassign()
        self._places = positions
        return records

    def _create(self, topic: str) -> None:
        """Create a topic: by asking for it, where a cluster creates topics so. That of watermarks
        has to be compacted, for which another request is needed."""
        is_compacted = topic == WATERMARKS
        if not is_compacted and self._asked(topic):
            return
        policy = {"cleanup.policy": "compact"} if is_compacted else {}
        # Without a number of its own, -1, a topic has as many partitions as the cluster gives one.
        new = admin.NewTopic(topic, num_partitions=1 if policy else -1, config=policy)
        creator = self._config.administrator()
        try:
            for outcome in creator.create_topics(
                [new], request_timeout=KafkaConfig.TIMEOUT / 4
            ).values():
                outcome.result()
        except kafka.KafkaException as error:
            is_there = error.args[0].name() == "TOPIC_ALREADY_EXISTS"
            if not is_there and not self._asked(topic):
                reason = self._config.hide(error.args[0].str())
                raise SyncRefused(
                    f"{self.address}: the topic {topic} cannot be created: {reason}"
                ) from None

    def _asked(self, topic: str) -> bool:
        """Ask for a topic as a producer does, and return whether it is there then."""
        client, until = self._config.client("Producer"), time.monotonic() + 2
        with contextlib.closing(client):
            while time.monotonic() < until:
                with contextlib.suppress(kafka.KafkaException):
                    client.raw.list_topics(topic, timeout=KafkaConfig.TIMEOUT / 2)
                if self._partitions(topic):
                    return True
                time.sleep(0.05)
        return False
