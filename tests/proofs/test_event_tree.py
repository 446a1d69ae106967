"""The Merkle tree over events depends on the events alone, and on every byte of each."""

from __future__ import annotations

import hashlib
import random
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest

from lakelog.engine import core
from lakelog.errors import Damaged
from lakelog.proofs import event_tree, snapshot_tree
from lakelog.proofs.event_tree import EMPTY_ROOT, NUMBERS, TEXTS, Levels
from lakelog.segments import segment
from tests.conftest import MakeLake
from tests.support.lakes import EXOTIC, events

LAKE = "000102030405060708090a0b0c0d0e0f"
EVENT: dict[str, Any] = {
    "seq": 5,
    "time": 1_767_225_600_000_000,
    "ingested_at": 1_767_225_600_000_001,
    "position": 0,
    "type": "A",
    "category": "",
    "source": "web",
    "subject": None,
    "level": "INFO",
    "message": "é\0",
    "data": '{"n": 1.0}',
    "id": "1",
    "origin": None,
}


def table(rows: list[dict[str, Any]]) -> pa.Table:
    kinds = dict.fromkeys(TEXTS, pa.string()) | dict.fromkeys(NUMBERS, pa.int64())
    return pa.Table.from_pylist(rows, pa.schema(kinds.items()))


def root(rows: list[dict[str, Any]]) -> bytes:
    return event_tree.root({0: event_tree.leaves(LAKE, table(rows))})[0]


def many(seqs: list[int]) -> list[dict[str, Any]]:
    return [EVENT | {"seq": seq, "id": str(seq), "position": seq % 3 or None} for seq in seqs]


def slow_root(rows: dict[int, bytes], height: int, place: int = 0) -> tuple[bytes, int]:
    """The hash and number of the events of a node, as docs/proofs.md defines it."""
    low, high = place << height, (place + 1) << height
    inside = {seq: leaf for seq, leaf in rows.items() if low <= seq < high}
    if len(inside) < 2:
        return next(iter(inside.values()), b""), len(inside)
    (left, before), (right, after) = (
        slow_root(inside, height - 1, 2 * place + side) for side in (0, 1)
    )
    if not before or not after:
        return left or right, before + after
    head = bytes([1, height - 1]) + before.to_bytes(8, "little") + after.to_bytes(8, "little")
    return hashlib.sha256(head + left + right).digest(), before + after


def test_the_root_is_that_of_the_definition() -> None:
    """Computed by arrays, it is what the recursive definition gives; also with gaps."""
    chance = random.Random(1)
    for count in (1, 2, 3, 7, 64, 100, 333):
        seqs = sorted(chance.sample(range(1000), count))
        rows = many(seqs)
        leaves = {e["seq"]: event_tree.leaf(event_tree.event_bytes(LAKE, e)) for e in rows}
        chance.shuffle(rows)
        found = event_tree.root({0: event_tree.leaves(LAKE, table(rows))})
        assert found[:2] == slow_root(leaves, 62)


def test_the_root_is_independent_of_segmentation() -> None:
    """Many ways of dividing the same events, with gaps, have the same root and paths."""
    chance = random.Random(2)
    rows = many(sorted(chance.sample(range(3000), 2000)))
    whole = {0: event_tree.leaves(LAKE, table(rows))}
    expected = {seq: event_tree.root(whole, seq) for seq in (0, rows[7]["seq"], rows[-1]["seq"])}
    for _ in range(25):
        cuts = [0, *sorted(chance.sample(range(1, 3000), chance.randrange(40))), 3000]
        parts: dict[int, list[event_tree.Nodes]] = {}
        below: dict[int, list[event_tree.ProofStep]] = {}
        for low, high in pairwise(cuts):
            inside = [e for e in rows if low <= e["seq"] < high]
            levels: Levels = {0: event_tree.leaves(LAKE, table(inside))}
            for height, nodes in event_tree.climb(levels, low, high)[0].items():
                parts.setdefault(height, []).append(nodes)
            for seq in expected:
                if low <= seq < high:
                    below[seq] = event_tree.climb(levels, low, high, seq)[1]
        joined = {height: event_tree.concat(nodes) for height, nodes in parts.items()}
        for seq, (top, count, path) in expected.items():
            found = event_tree.root(joined, seq)
            assert (found[0], found[1], below[seq] + found[2]) == (top, count, path)


def test_any_change_of_an_event_changes_the_root() -> None:
    """Of each field, and of null, nothing, and texts that move between two fields."""
    changes: list[dict[str, Any]] = [{name: 99} for name in NUMBERS]
    changes += [{name: f"{EVENT[name] or ''}x"} for name in TEXTS]
    changes += [{"position": None}, {"category": None}, {"subject": ""}, {"origin": ""}]
    changes += [{"level": "INF", "message": "Oé\0"}, {"data": '{"n":1.0}'}]
    changes += [{"message": "e\u0301\0"}]
    rows = many(list(range(20)))
    rows[5] = EVENT
    roots = {root(rows)}
    roots.update(root([*rows[:5], rows[5] | change, *rows[6:]]) for change in changes)
    assert len(roots) == 1 + len(changes)
    assert root(rows[:-1]) not in roots
    assert root([*rows[:3], rows[3] | {"seq": 4}, rows[4] | {"seq": 3}, *rows[5:]]) not in roots


def test_every_path_leads_to_the_root() -> None:
    """Of each event, with its place and the number of events."""
    rows = many(sorted(random.Random(3).sample(range(500), 150)))
    levels = {0: event_tree.leaves(LAKE, table(rows))}
    for index, event in enumerate(rows):
        top, count, path = event_tree.root(levels, event["seq"])
        data = event_tree.event_bytes(LAKE, event)
        assert event_tree.follow(data, event["seq"], path) == (top, count, index)


@pytest.mark.parametrize(
    "steps", [[(3, 1), (1, 1)], [(2, 1), (2, 1)], [(62, 1)], [(-1, 1)], [(0, 0)], [(0, -1)]]
)
def test_a_path_that_cannot_be(steps: list[tuple[int, int]]) -> None:
    """Heights that do not ascend within the tree, and neighbours without events, are refused."""
    path = [event_tree.ProofStep(height, count, bytes(32)) for height, count in steps]
    with pytest.raises(ValueError, match="not in order"):
        event_tree.follow(event_tree.event_bytes(LAKE, EVENT), 5, path)


def test_no_events_and_double_events() -> None:
    """The root of nothing is SHA-256 of nothing; a seq that stands twice is refused."""
    assert event_tree.root({})[:2] == (EMPTY_ROOT, 0)
    assert event_tree.root({0: event_tree.leaves(LAKE, table([]))})[:2] == (EMPTY_ROOT, 0)
    with pytest.raises(ValueError, match="same seq"):
        event_tree.leaves(LAKE, table(many([1, 2, 2])))


def test_compaction_keeps_the_root(make_lake: MakeLake) -> None:
    """The root of a branch is the same before and after compaction, with the cache or without, and
    another one after an event was appended or removed."""
    lake = make_lake()
    for start in range(0, 300, 30):
        lake.append([*events("A", 30, start), *events("B", 3, start), *EXOTIC])
        lake.settle()
    before = snapshot_tree.root(lake.store, lake.store.refs.head("main").move.snapshot)
    assert lake.compact().removed
    state = lake.store.refs.head("main").move.snapshot
    layouts = {e.layout for e in lake.store.manifests.segments(lake.store.manifests.load(state))}
    assert layouts == {"sorted"}
    assert snapshot_tree.root(lake.store, state) == before
    assert snapshot_tree.root(lake.store, state) == before
    assert snapshot_tree.root(lake.store, state, trusted=set()) == before
    lake.append({"type": "A"})
    after = snapshot_tree.root(lake.store, lake.settle().move.snapshot)
    assert after[0] != before[0]
    assert after[1] == before[1] + 1 == lake.count()


def test_typed_segments_share_an_engine(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open one takes longer than to read a small segment, and a state may have thousands."""
    lake = make_lake(segment_rows=20)
    for start in range(0, 50, 10):
        lake.append(events("A", 10, start))
        lake.settle()
    before = snapshot_tree.root(lake.store, lake.store.refs.head("main").move.snapshot)
    lake.compact()
    state = lake.store.refs.head("main").move.snapshot
    entries = lake.store.manifests.segments(lake.store.manifests.load(state), "events")
    assert [bool(entry.fields) for entry in entries] == [True] * 3
    opened, connect = list[object](), core.connect
    monkeypatch.setattr(core, "connect", lambda config: opened.append(config) or connect(config))
    assert snapshot_tree.root(lake.store, state, trusted=set()) == before
    assert len(opened) == 1


def test_a_damaged_cache_is_computed_again(make_lake: MakeLake) -> None:
    """Bits of the cached peaks that flip do not reach the root."""
    lake = make_lake()
    lake.append(events("A", 500))
    state = lake.settle().move.snapshot
    expected = snapshot_tree.root(lake.store, state)
    (entry,) = lake.store.manifests.segments(lake.store.manifests.load(state))
    path = f"{lake.store.paths.peaks}/{entry.key}"
    with open(path, "rb") as file:
        data = file.read()
    chance = random.Random(4)
    for _ in range(50):
        flipped = bytearray(data)
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        with open(path, "wb") as file:
            file.write(flipped)
        assert snapshot_tree.root(lake.store, state) == expected
    with open(path, "rb") as file:
        assert file.read() == data


@pytest.mark.damaged
def test_a_damaged_segment_is_named(make_lake: MakeLake) -> None:
    """Rows whose bytes do not have the digest are not hashed into a root."""
    lake = make_lake()
    lake.append(events("A", 50))
    state = lake.settle().move.snapshot
    (entry,) = lake.store.manifests.segments(lake.store.manifests.load(state))
    path = lake.store.paths.object("segments", entry.key)
    with open(path, "r+b") as file:
        file.seek(60)
        file.write(b"\xff\xff")
    with pytest.raises(Damaged, match=entry.key):
        snapshot_tree.root(lake.store, state)


def test_leaves_are_those_of_single_events(make_lake: MakeLake) -> None:
    """Hashed by columns, events of every kind have the leaf of their bytes one by one."""
    lake = make_lake()
    lake.append(EXOTIC)
    state = lake.settle().move.snapshot
    (entry,) = lake.store.manifests.segments(lake.store.manifests.load(state))
    rows = segment.Segment(lake.store.paths, entry.key).read()
    for seq in range(len(rows)):
        event, path = snapshot_tree.path_of(lake.store, state, seq)
        data = event_tree.event_bytes(lake.store.lake_id, event)
        top, count, index = event_tree.follow(data, seq, path)
        assert (top.hex(), count, index) == (*snapshot_tree.root(lake.store, state), seq)
