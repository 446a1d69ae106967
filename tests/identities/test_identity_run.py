"""Id runs: sorted keys of 12 bytes that answer membership exactly, and merge before many."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lakelog
from lakelog import identities
from lakelog.disk import disk
from lakelog.entries.entry import IdRun
from lakelog.errors import DamagedIds
from lakelog.event import identity_key
from lakelog.identities import IdentityKeys, identity_run
from tests.support.effort import share

COMMIT = "0123456789abcdef" * 2
EDGES = [0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
HIGHS = st.sampled_from(EDGES) | st.integers(0, 2**64 - 1)
LOWS = st.sampled_from(EDGES[:4]) | st.integers(0, 2**32 - 1)
KEYS = st.lists(st.tuples(HIGHS, LOWS), max_size=40)


def numbers(keys: Iterable[tuple[int, int]]) -> IdentityKeys:
    """Return keys by their two parts."""
    pairs = list(keys)
    return IdentityKeys.of_numbers(
        np.array([high for high, _ in pairs], dtype=np.uint64),
        np.array([low for _, low in pairs], dtype=np.uint32),
    )


def write(lake: lakelog.Lake, keys: Iterable[tuple[int, int]]) -> tuple[IdRun, ...]:
    """Write keys as a run, if there are any; return its entry."""
    return numbers(keys).write(lake.store.paths, COMMIT)


def read(lake: lakelog.Lake, keys: Iterable[tuple[int, int]]) -> IdentityKeys:
    """Write keys as a run; return what is read of it."""
    return IdentityKeys.merged(IdentityKeys.read(lake.store, run) for run in write(lake, keys))


@settings(max_examples=share(150))
@given(stored=KEYS, asked=KEYS)
def test_a_run_finds_exactly_its_keys(
    lake: lakelog.Lake, stored: list[tuple[int, int]], asked: list[tuple[int, int]]
) -> None:
    """Whatever is asked for, in any order and repeated, is found if and only if it was stored."""
    asked = asked + stored[::2]
    digits = pa.chunked_array([[f"{high:016x}{low:08x}" for high, low in asked]], pa.string())
    hits = identities.stored_keys(lake.store, write(lake, stored), digits)
    assert list(hits) == [key in set(stored) for key in asked]
    by_order = read(lake, stored).contains(IdentityKeys.of(digits))
    assert list(by_order) == [key in set(stored) for key in sorted(asked)]


@settings(max_examples=share(50))
@given(stored=KEYS)
def test_a_run_is_sorted_and_of_known_size(
    lake: lakelog.Lake, stored: list[tuple[int, int]]
) -> None:
    """A run has 64 bytes of header and 12 a key, in order of both parts."""
    entries = write(lake, stored)
    assert len(entries) == bool(stored)
    for entry in entries:
        keys = IdentityKeys.read(lake.store, entry)
        assert list(zip(keys.high.tolist(), keys.low.tolist(), strict=True)) == sorted(stored)
        assert entry.count == len(stored)
        assert entry.bytes == 64 + 12 * len(stored)


def test_keys_of_a_run_that_share_their_first_part_are_told_apart(lake: lakelog.Lake) -> None:
    """Many keys with one first part are found by their second."""
    stored = [(7, low) for low in range(0, 2_000, 2)]
    hits = read(lake, stored).contains(numbers((7, low) for low in range(2_000)))
    assert hits.tolist() == [low % 2 == 0 for low in range(2_000)]


def test_merged_runs_hold_the_keys_of_all(lake: lakelog.Lake) -> None:
    """Merging loses no key and invents none."""
    draw = random.Random(5)
    parts = [[(draw.getrandbits(64), draw.getrandbits(32)) for _ in range(n)] for n in (0, 1, 500)]
    merged = IdentityKeys.merged(read(lake, part) for part in parts)
    (entry,) = merged.write(lake.store.paths, COMMIT)
    run = IdentityKeys.read(lake.store, entry)
    assert len(run) == 501
    for part in parts:
        assert run.contains(numbers(part)).all()
    assert not run.overlaps([numbers([(1, 1)])])


@pytest.mark.parametrize(
    ("count", "level"), [(0, 0), (1, 0), (7, 0), (8, 1), (63, 1), (64, 2), (511, 2), (512, 3)]
)
def test_a_size_class_is_a_power_of_eight(count: int, level: int) -> None:
    """Class n holds runs of 8**n keys and more, up to eight times that."""
    assert identity_run.size_class(count) == level


@pytest.mark.parametrize(
    ("counts", "chosen"),
    [
        ([], []),
        ([1] * 7, []),
        ([1] * 8, [1] * 8),
        ([1] * 9, [1] * 9),
        ([9] * 8 + [1] * 7, [9] * 8),
        ([9] * 8 + [1] * 8, [1] * 8),
        ([1, 2, 3, 4, 5, 6, 7, 7], [1, 2, 3, 4, 5, 6, 7, 7]),
        ([1, 9, 70, 600, 5000, 40000, 300000], []),
        ([1, 9] * 7 + [70] * 8, [70] * 8),
    ],
)
def test_what_is_merged_next(counts: list[int], chosen: list[int]) -> None:
    """Eight or more of one class are merged, the smallest class first; else nothing."""
    runs = [IdRun(str(n), 0, count) for n, count in enumerate(counts)]
    assert [run.count for run in identities.runs_to_merge(runs)] == chosen


def test_merging_keeps_runs_few_whatever_comes() -> None:
    """However many runs of whatever sizes are added, about seven of a class are left."""
    draw, runs, merges = random.Random(1), list[IdRun](), 0
    for number in range(3_000):
        runs.append(IdRun(str(number), 0, draw.choice([1, 1, 1, 5, 30, 400])))
        while due := identities.runs_to_merge(runs):
            names = {run.digest for run in due}
            runs = [run for run in runs if run.digest not in names]
            runs.append(IdRun(f"m{merges}", 0, sum(run.count for run in due)))
            merges += 1
    assert len(runs) <= 7 * 7
    assert merges < 3_000


@pytest.mark.damaged
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"LKW1" + data[4:],
        lambda data: data[:8] + b"\xff" + data[9:],
        lambda data: data[:63] + bytes([data[63] ^ 1]) + data[64:],
        None,
    ],
)
def test_a_run_of_the_wrong_shape_is_damage(lake: lakelog.Lake, damage: Any) -> None:
    """A run that is missing, cut, longer or not of its header's making is DamagedIds, named."""
    paths = lake.store.paths
    (entry,) = write(lake, [(1, 2), (3, 4)])
    path = paths.object("ids", entry.digest)
    data = disk.read(path)
    disk.unlink(path)
    if damage is not None:
        disk.create_whole(path, damage(data))
    with pytest.raises(DamagedIds, match=entry.digest):
        IdentityKeys.read(lake.store, entry)


@pytest.mark.damaged
def test_a_flipped_key_is_noticed_before_it_lets_a_duplicate_in(lake: lakelog.Lake) -> None:
    """One bit of one key: the next query or seal that needs the run names it."""
    lake.append({"type": "A", "id": "x"})
    lake.settle()
    state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    path = lake.store.paths.object("ids", state.ids[0].digest)
    data = disk.read(path)
    disk.unlink(path)
    disk.create_whole(path, data[:-1] + bytes([data[-1] ^ 1]))
    lake.append({"type": "A", "id": "x"})
    for act in (lake.settle, lake.count, lambda: lake.sql("FROM events")):
        with pytest.raises(DamagedIds, match=state.ids[0].digest):
            act()


@pytest.mark.parametrize(("source", "ident"), [(None, "x"), ("s", "x"), ("é", "日本"), ("", "")])
def test_the_key_of_an_id_is_the_same_in_python_and_in_sql(
    lake: lakelog.Lake, source: str | None, ident: str
) -> None:
    """Identity is the first 12 bytes of SHA-256(source NUL id), whoever computes it."""
    query = "SELECT sha256(coalesce($1, '') || chr(0) || $2)[1:24]"
    assert lake.sql(query, [source, ident]).fetchall() == [(identity_key(source, ident),)]


@settings(max_examples=share(100))
@given(parts=st.lists(KEYS, min_size=1, max_size=5), size=st.integers(1, 9))
def test_joined_runs_are_one_run_of_all_keys(
    lake: lakelog.Lake, parts: list[list[tuple[int, int]]], size: int
) -> None:
    """Joined a range at a time, runs give the bytes that one run of all their keys has."""
    runs = [run for keys in parts for run in write(lake, keys)]
    with mock.patch.object(identity_run, "RANGE", size):
        joined = [identities.join(lake.store, runs, COMMIT)] if runs else []
    assert joined == [*write(lake, [key for keys in parts for key in keys])]
    leftovers = disk.listing(lake.store.paths.cache)
    assert not [name for name in leftovers if name.startswith(disk.TEMPORARY)]
