"""Subscriptions in the manifest, as FORMAT.md states them."""

from __future__ import annotations

import hashlib

from lakelog import subscriptions
from lakelog.subscriptions import record
from lakelog.subscriptions.position import PARTITION_SQL, PARTITIONS, Position
from tests.conftest import MakeLake


def test_subscriptions_are_entries_of_the_manifest(make_lake: MakeLake) -> None:
    """F6.20: name, id, condition, counts and the positions of partitions, by the MD5 of the
    subject; a removal has only its name."""
    lake = make_lake()
    lake.append([{"type": "IN", "subject": f"s{n % 4}", "data": {"n": n}} for n in range(10)])
    with lake.subscribe("test", where="type = 'IN'") as subscription:
        subscription.run(lambda event: None, once=True)
    access = lake.subscriptions()
    entry = access.store.manifests.find(access.state(access.head()), "subscription", "test")
    assert entry is not None
    assert entry.members.keys() == {"id", "created", "where", "handled", "positions"}
    assert entry.members["positions"] == [{"seq": 10}]
    assert (entry.members["where"], entry.members["handled"]) == ("type = 'IN'", 10)
    stored = record.SubscriptionRecord.from_entry(entry)
    moved = stored.moved({3: Position(5, 9, 77, 6), 4: Position(5, 9, 77, 6)}, 0, 0)
    groups = moved.entry().members["positions"]
    assert groups[1] == {"seq": 5, "upto": 9, "time": 77, "last_seq": 6, "partitions": [3, 4]}
    assert record.SubscriptionRecord.from_entry(moved.entry()) == moved
    query = f"SELECT DISTINCT subject, {PARTITION_SQL} FROM events"
    for subject, partition in lake.sql(query).fetchall():
        digest = hashlib.md5(subject.encode()).digest()
        assert partition == int.from_bytes(digest[8:], "little") % PARTITIONS
    subscriptions.remove(access, "test")
    assert access.store.manifests.find(access.state(access.head()), "subscription", "test") is None
