"""Sealing events with ids against a long history of ids, and what that costs events without."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from random import Random

import lakelog
from benchmarks import gen, lakes
from benchmarks.measure import Scale, directory, interleave, seconds
from benchmarks.report import Row, Target
from lakelog.event import EncodedBatch

BATCH = 1_000


def identities(scale: Scale) -> list[Row]:
    """Seal events with and without ids on a lake with a history of ids, and on an empty one."""
    events = list(gen.events(scale.sealed))
    plain = _encoded(events)
    random = Random(7)
    with directory() as root:
        lakes.with_ids(root / "history", scale.history)
        lakes.new(root / "empty", lakes.QUIET)

        def keyed(name: str) -> float:
            return _seal(root / name, _with_ids(events, random), scale.sealed)

        def unkeyed(name: str) -> float:
            return _seal(root / name, plain, scale.sealed)

        ids, ids_empty, none, none_empty = interleave(
            scale.rounds,
            lambda: keyed("history"),
            lambda: keyed("empty"),
            lambda: unkeyed("history"),
            lambda: unkeyed("empty"),
        )
        merging = _merge(root / "history")
    what = f"seal {scale.sealed // 1000:,} k"
    return [
        Row(f"{what} ids, vs no ids, {scale.history / 1e6:g} M", "s", ids, none, Target("<=", 2)),
        Row(f"{what} no ids, vs empty lake", "s", none, none_empty, Target("<=", 1.15)),
        Row("the peer of that: rate", "ev/s", [scale.sealed / t for t in none_empty]),
        Row(f"{what} ids, vs empty lake", "s", ids, ids_empty),
        Row("merging id runs after them", "s", [merging]),
    ]


def _encoded(events: list[gen.Event]) -> list[EncodedBatch]:
    """Encode the events in batches."""
    return [
        EncodedBatch.of(events[start : start + BATCH]) for start in range(0, len(events), BATCH)
    ]


def _with_ids(events: list[gen.Event], random: Random) -> list[EncodedBatch]:
    """Encode the events with random UUIDs as ids, the worst kind to store."""
    return _encoded(
        [{**e, "id": str(uuid.UUID(int=random.getrandbits(128), version=4))} for e in events]
    )


def _seal(path: Path, encoded: list[EncodedBatch], count: int) -> float:
    """Append what is encoded, then time sealing it in a process that has the lake open."""
    with lakelog.open(str(path)) as lake:
        before = lake.count()
        for part in encoded:
            lake.writer().append(part)
        sealer = lake.sealer()
        lake.sql("SELECT 1").fetchall()
        os.sync()
        taken = seconds(sealer.seal)
        assert lake.count() - before == count
        lake.settle()
    return taken


def _merge(path: Path) -> float:
    """Time merging whatever runs of ids are due."""
    with lakelog.open(str(path)) as lake:
        began = time.perf_counter()
        lake.sealer().maintain()
        return time.perf_counter() - began
