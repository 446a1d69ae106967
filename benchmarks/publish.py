"""Publishing at many segments against few: the cost of a commit must not grow with the lake."""

from __future__ import annotations

import os
import time

from benchmarks import lakes
from benchmarks.history import FEW
from benchmarks.measure import Scale, directory, percentile, seconds
from benchmarks.report import Row, Target
from lakelog.entries.entry import SegmentEntry
from lakelog.manifest import manifest
from lakelog.moves.publication import Change, publish, run_maintenance
from lakelog.store import Store

Pairs = list[tuple[float, float]]


def commits(scale: Scale) -> list[Row]:
    """Publish one small segment at a time on both lakes, commit by commit in turn."""
    figures: dict[tuple[str, str], list[list[float]]] = {}
    for _ in range(min(scale.rounds, 3)):
        few, many = _round(scale)
        for part, pick in (("alone", _alone), ("with maintenance", _together)):
            for statistic in ("p50", "p99", "mean"):
                pair = figures.setdefault((part, statistic), [[], []])
                pair[0].append(_statistic(statistic, pick(many)))
                pair[1].append(_statistic(statistic, pick(few)))
    rows = []
    for (part, statistic), (ours, peer) in figures.items():
        rows.append(Row(f"publish {part}: {statistic}", "ms", ours, peer, Target("<=", 1.5)))
    return [*rows, _largest_merge()]


def _round(scale: Scale) -> tuple[Pairs, Pairs]:
    """Return milliseconds of each publish and the maintenance after it, on few and many."""
    taken: tuple[Pairs, Pairs] = ([], [])
    with directory() as root:
        stores, entries = [], []
        for name, count, per_move in (("few", FEW, 1), ("many", scale.many, lakes.PER_MOVE)):
            lakes.copy(lakes.segmented(count, per_move), root / name)
            store = Store.load(str(root / name))
            stores.append(store)
            with lakes.unsynced():
                entries.append(list(lakes.make_segments(store, scale.many, scale.commits)))
        os.sync()
        for store in stores:
            publish(store, "main", lambda *_: Change("snapshot", "warm"))
        for number in range(scale.commits):
            for index in (0, 1) if number % 2 == 0 else (1, 0):
                taken[index].append(_commit(stores[index], entries[index][number]))
    return taken


def _commit(store: Store, entry: SegmentEntry) -> tuple[float, float]:
    """Publish one segment, then maintain as a sealer does; return the milliseconds of each."""
    began = time.perf_counter()
    publish(store, "main", lambda *_: Change("seal", entries=(entry,)))
    middle = time.perf_counter()
    run_maintenance(store, "main")
    return (middle - began) * 1000, (time.perf_counter() - middle) * 1000


def _largest_merge() -> Row:
    """Time the move that merges sixteen pages of 256 into one of 4,096: once in 4,096 commits."""
    full = manifest.FAN**manifest.LEVEL_MAX
    taken = []
    for _ in range(3):
        with directory() as root:
            store = lakes.new(root / "lake")
            with lakes.unsynced():
                for number in range(manifest.FAN):
                    fresh = tuple(lakes.make_segments(store, number * full, full))
                    publish(store, "main", lambda *_, f=fresh: Change("seal", entries=f))
            taken.append(seconds(lambda store=store: run_maintenance(store, "main")) * 1000)
    return Row("merging 4,096 entries, one move", "ms", taken)


def _alone(pairs: Pairs) -> list[float]:
    return [publishing for publishing, _ in pairs]


def _together(pairs: Pairs) -> list[float]:
    return [publishing + maintaining for publishing, maintaining in pairs]


def _statistic(name: str, values: list[float]) -> float:
    if name == "mean":
        return sum(values) / len(values)
    return percentile(values, 0.5 if name == "p50" else 0.99)
