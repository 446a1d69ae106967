"""Load a file, ask every question, name the state, change it and return, export, open anew."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

from benchmarks.peers import PEERS, files, sql
from benchmarks.peers.steps import Maker, again, batches, close, peak, reopened, seconds

MORE = 1_000
"""Events that arrive before the five views are asked for once more."""
STEP, ROUNDS = 100, 5
"""Events between a tag and the return to it, and how often that is done."""


def bulk(make: Maker, events: str, most: str, cut: str, rest: str) -> dict[str, Any]:
    """Load within `cut` seconds; with `rest` "all", do everything that can be done afterwards.

    A question is asked five times, or as often as `most` seconds allow. Who ran out of time is
    asked nothing.
    """
    peer, result, span, turns = make(), dict[str, Any](), float(most), count(1)
    if hasattr(peer, "until"):
        peer.until = time.perf_counter() + float(cut)
    result["load"] = seconds(lambda: peer.load(events))
    result["load_peak"] = peak()
    result["bytes"] = peer.size()
    if hasattr(peer, "count"):
        result["count"] = peer.count
    if make.can("ask"):
        [(result["count"],)] = peer.ask("count")
    if hasattr(peer, "until") and time.perf_counter() > peer.until:
        return result
    if make.can("ask"):
        result["ask"] = _timed(peer, sql.ALL, span, turns)
        result["answers"] = {name: _digest(peer.ask(name)) for name in sql.ALL}
    result["peak"] = peak()
    if make.can("export"):
        result["export"] = seconds(lambda: peer.export(f"{make.root}/../export.parquet"))
    if rest == "all":
        _later(make, peer, events, span, turns, result)
    close(peer)
    if make.can("ask"):
        result["first"] = reopened(make, 3)
    return result


def _later(
    make: Maker, peer: Any, events: str, span: float, turns: Iterator[int], result: dict[str, Any]
) -> None:
    """What changes what was loaded."""
    fresh = batches(events, MORE, held=MORE)
    if make.can("tidy"):
        result["tidy"] = seconds(peer.tidy)
        result["tidy_bytes"] = peer.small() if make.can("small") else peer.size()
        result["ask_tidy"] = _timed(peer, sql.ALL, span, turns)
        if {name: _digest(peer.ask(name)) for name in sql.ALL} != result["answers"]:
            raise AssertionError(f"{make.name} answers otherwise once it has made itself small")
    if make.can("index"):
        result["index"] = seconds(peer.index)
        result["indexed"] = _timed(peer, ["needle"], span, turns)["needle"]
    if make.can("mark"):
        _travel(make, peer, events, result)
    if make.can("commit") and make.can("ask"):
        asked = (
            peer.views
            if make.can("views")
            else lambda: [peer.ask(n, next(turns)) for n in sql.VIEWS]
        )
        result["views_first"] = seconds(asked)
        taken = []
        for _ in range(3):
            peer.commit(next(fresh))
            taken.append(seconds(asked))
        result["views_later"] = sorted(taken)[1]


def _timed(peer: Any, names: Iterable[str], span: float, turns: Iterator[int]) -> dict[str, float]:
    """How long each question takes. No text is asked twice, so that no cache of answers counts;
    files, indexes and modules are warm."""
    return {name: again(lambda n=name: peer.ask(n, next(turns)), span) for name in names}


def _travel(make: Maker, peer: Any, events: str, result: dict[str, Any]) -> None:
    """Name a state, count it once there is a newer one, return to it; every count must be right.

    What a peer does not sync is synced for it, as far as it is part of the step.
    """
    taken: dict[str, list[float]] = {}
    after = files.sync if not PEERS[make.name].synced else lambda _: None

    def step(name: str, run: Callable[[], object]) -> None:
        taken.setdefault(name, []).append(seconds(lambda: (run(), after(make.root))))

    [(before,)] = peer.ask("count")
    for number, more in zip(range(ROUNDS), batches(events, STEP, held=STEP), strict=False):
        peer.mark()
        if make.can("tag"):
            step("tag", lambda n=number: peer.tag(f"mark-{n}"))
        peer.commit(more)
        [(newer,)] = peer.ask("count")
        found: list[int] = []
        taken.setdefault("past", []).append(seconds(lambda held=found: held.append(peer.past())))
        step("back", peer.back)
        [(returned,)] = peer.ask("count")
        if [before + STEP, before, before] != [newer, *found, returned]:
            raise AssertionError(f"{before} events, then {newer}, {found}, {returned}")
    result.update({name: statistics.median(each) for name, each in taken.items()})


def train(make: Maker, events: str) -> dict[str, Any]:
    """Load, then export a training set: redacted, each row once, split by subject."""
    peer = make()
    peer.load(events)
    return {"train": seconds(lambda: peer.train(f"{make.root}/set"))}


def _digest(rows: list[tuple[Any, ...]]) -> str:
    """A name for the numbers of an answer: times and floats are spelled differently."""
    plain = [[f"{float(v):.4f}" if isinstance(v, int | float) else "" for v in row] for row in rows]
    return hashlib.sha256(repr(sorted(plain)).encode()).hexdigest()[:12]
