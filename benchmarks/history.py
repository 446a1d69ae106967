"""Going back: tag, rollback and undo in a process with the lake open and nothing pending."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import lakelog
from benchmarks import lakes
from benchmarks.measure import Scale, directory, median, seconds
from benchmarks.report import Row, Target
from lakelog.rollback.rollback import rollback, undo
from lakelog.state.state import save_state

FEW = 10
FILES = 100
PARTS = ("data", "cursors", "state")
VERBS = ("tag", "rollback", "undo")


def rewinds(scale: Scale) -> list[Row]:
    """Time each verb on a lake of ten segments and on one of many, in turn."""
    few, many = lakes.segmented(FEW, per_move=1), lakes.segmented(scale.many)
    taken: dict[tuple[str, str], list[float]] = {}
    with (
        directory() as root,
        lakelog.open(str(lakes.copy(few, root / "few"))) as small,
        lakelog.open(str(lakes.copy(many, root / "many"))) as large,
    ):
        older = {lake: _one_before(lake) for lake in (small, large)}
        for number in range(scale.rewinds):
            pairs = (("few", small), ("many", large))
            for name, lake in pairs if number % 2 == 0 else reversed(pairs):
                for verb, ms in zip(VERBS, _once(lake, number, older[lake]), strict=True):
                    taken.setdefault((verb, name), []).append(ms)
    rows = []
    for verb in VERBS:
        ours, peer = taken[verb, "many"], taken[verb, "few"]
        rows.append(
            Row(f"{verb}, {scale.many:,} vs {FEW} segments", "ms", ours, peer, Target("<=", 2))
        )
        rows.append(
            Row(
                f"{verb}: slower median",
                "ms",
                _slower(ours, peer),
                target=Target("<=", 10, "figure"),
            )
        )
        rows.append(Row(f"{verb}: first in the process", "ms", ours[:1], peer[:1]))
    return rows


def together(scale: Scale) -> list[Row]:
    """Time a tag, and a rollback and undo of data, cursors and a state directory of 100 files that
    equals its record, on a lake of many segments."""
    taken: dict[str, list[float]] = {verb: [] for verb in (*VERBS, "tag and rollback")}
    with directory() as root:
        home = root / "state"
        home.mkdir()
        for number in range(FILES):
            (home / f"{number}.json").write_bytes(os.urandom(1000))
        with lakelog.open(str(lakes.copy(lakes.segmented(scale.many), root / "many"))) as lake:
            save_state(lake, {"state": str(home)}, name="v1")
            lake.append({"type": "LATER"})
            lake.settle()
            for number in range(scale.rewinds):
                steps: list[Callable[[], object]] = [
                    lambda: lake.tag(f"t{number}"),  # noqa: B023
                    lambda: rollback(lake, "v1", PARTS),
                    lambda: undo(lake),
                ]
                for verb, step in zip(VERBS, steps, strict=True):
                    taken[verb].append(seconds(step) * 1000)
                taken["tag and rollback"].append(taken["tag"][-1] + taken["rollback"][-1])
    target = Target("<=", 20, "figure")
    return [
        Row(
            f"{verb} with data, cursors and state, {scale.many:,} segments",
            "ms",
            each,
            target=target if "and" in verb else None,
        )
        for verb, each in taken.items()
    ]


def _slower(one: list[float], other: list[float]) -> list[float]:
    return one if median(one) > median(other) else other


def _one_before(lake: lakelog.Lake) -> str:
    """Name the move before the newest."""
    return f"@{lake.settle().move.number - 1}"


def _once(lake: lakelog.Lake, number: int, older: str) -> list[float]:
    """Tag, go back to an older move, and undo that; return the milliseconds of each."""
    steps: list[Callable[[], object]] = [
        lambda: lake.tag(f"t{number}"),
        lambda: lake.rollback(older),
        lake.undo,
    ]
    taken = []
    for step in steps:
        began = time.perf_counter()
        step()
        taken.append((time.perf_counter() - began) * 1000)
    return taken
