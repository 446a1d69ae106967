"""Small durable commits: by size, by threads, over many commits, and by processes."""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from benchmarks.peers.steps import Maker, batches, close, cut, read

SIZES = (1, 10, 100)
THREADS = (1, 4, 16)
GROWN = 100
"""The size of which so many commits are made that growth shows."""
WINDOWS = 20
HELD = 20_000


def commits(make: Maker, events: str, most: str, long: str, span: str) -> dict[str, Any]:
    """Every size and number of threads, each on something new.

    One thread makes `most` commits of a hundred, or as many as `long` seconds allow; all others
    go on for `span` seconds.
    """
    result, found = {}, read(events, HELD)
    for each in SIZES:
        for threads in THREADS:
            grown = each == GROWN and threads == 1
            peer = make(f"{each}-{threads}")
            parts = [cut(found, each, 997 * n) for n in range(threads)]
            peer.commit(next(parts[0]))  # the first one loads what all others need
            count = int(most) if grown else 10**9
            took, whole = crowd(peer.commit, parts, count, float(long if grown else span))
            close(peer)
            result[f"{each} by {threads}"] = summed(took, whole, each, grown)
    return {"of": result}


def processes(make: Maker, events: str, counts: str, each: str, span: str) -> dict[str, Any]:
    """Commit from many processes at once; what raises is counted as refused."""
    numbers = [int(n) for n in counts.split(",")]
    context = multiprocessing.get_context("spawn")
    result = {}
    for count in numbers:
        barrier = context.Barrier(count)
        where = replace(make, root=f"{make.root}/{count}")
        peer = where()
        peer.commit(next(batches(events, int(each))))  # what all of them open is there
        close(peer)
        with context.Pool(count, _ready, (barrier,)) as pool:
            words = (where, events, int(each), float(span))
            done = pool.starmap(_many, [words] * count, chunksize=1)
        whole = max(d.ended for d in done) - min(d.began for d in done)
        result[str(count)] = {
            "rate": sum(d.commits for d in done) * int(each) / whole,
            "refused": sum(d.refused for d in done),
            "shut_out": sum(d.shut_out for d in done),
            "slowest": max(d.slowest for d in done),
        }
    return {"of": result}


def crowd(
    commit: Callable[[Any], object], parts: Sequence[Iterator[Any]], most: int, span: float
) -> tuple[list[float], float]:
    """Let threads commit until a time; return each commit's seconds, in order, and the whole."""
    taken: list[list[float]] = [[] for _ in parts]
    wrong: list[BaseException] = []
    until = time.perf_counter() + span

    def run(number: int) -> None:
        mine, part = taken[number], parts[number]
        try:
            while not mine or (len(mine) < most and time.perf_counter() < until):
                batch = next(part)
                began = time.perf_counter()
                commit(batch)
                mine.append(time.perf_counter() - began)
        except Exception as error:
            wrong.append(error)

    began = time.perf_counter()
    if len(parts) == 1:
        run(0)
    else:
        threads = [threading.Thread(target=run, args=(n,)) for n in range(len(parts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    whole = time.perf_counter() - began
    if wrong and not any(taken):
        raise wrong[0]
    return [t for mine in taken for t in mine], whole


def summed(took: list[float], whole: float, each: int, grown: bool = False) -> dict[str, Any]:
    """The rate of commits of so many events, their middle and slowest times, and their growth."""
    ordered = sorted(took)
    result: dict[str, Any] = {
        "rate": len(took) * each / whole,
        "count": len(took),
        "p50": statistics.median(took),
        "p99": ordered[int(len(took) * 0.99)],
    }
    if grown and len(took) >= WINDOWS:
        size = len(took) // WINDOWS
        result["curve"] = [
            [(n + 1) * size, statistics.median(islice(took, n * size, (n + 1) * size))]
            for n in range(WINDOWS)
        ]
    return result


_barrier: Any = None


def _ready(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


@dataclass
class _Done:
    """What one process did; times are of the clock that all processes share."""

    began: float = 0.0
    ended: float = 0.0
    commits: int = 0
    refused: int = 0
    shut_out: bool = False
    """Whether the peer could not even be opened."""
    slowest: float = 0.0


def _many(where: Maker, events: str, each: int, span: float) -> _Done:
    """Open beside the others, and once all have tried, commit for a while."""
    where.can("commit")  # loads the module
    parts, done, peer = batches(events, each), _Done(), None
    next(parts)
    _barrier.wait(120)
    try:
        peer = where()
        peer.commit(next(parts))
    except Exception:
        done.shut_out = True
    _barrier.wait(120)
    done.began = done.ended = time.monotonic()
    while not done.shut_out and done.ended - done.began < span:
        batch, began = next(parts), time.monotonic()
        try:
            peer.commit(batch)
            done.commits += 1
        except Exception:
            done.refused += 1
        done.ended = time.monotonic()
        done.slowest = max(done.slowest, done.ended - began)
    return done
