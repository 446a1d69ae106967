"""One piece of work on one peer, in a process of its own; the last line printed is its result.

python -m benchmarks.peers.work PEER WORK DIRECTORY EVENTS [ARGUMENT...]
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

from benchmarks.peers import sql

Make = Callable[[], Any]


def bulk(make: Make, events: str) -> dict[str, Any]:
    """Load a file; ask each question; name the state, change it and return; open anew."""
    peer, result = make(), dict[str, Any]()
    result["load"] = _seconds(lambda: peer.load(events))
    result["bytes"] = peer.size()
    result["ask"] = {
        name: statistics.median(_seconds(lambda n=name: peer.ask(n)) for _ in range(5))
        for name in sql.ALL
    }
    result["answers"] = {name: repr(peer.ask(name))[:200] for name in ("reliability", "needle")}
    if hasattr(peer, "mark"):
        peer.mark()
        peer.commit(_batch(events, 100))
        result["back"] = _seconds(peer.back)
    if hasattr(peer, "tidy"):
        result["tidy"] = _seconds(peer.tidy)
        result["tidy_bytes"] = peer.size()
    return result


def first(make: Make, events: str) -> dict[str, Any]:
    """Open what `bulk` left and ask one question."""
    return {"first": _seconds(lambda: make().ask("reliability"))}


def commits(make: Make, events: str, each: str, most: str, span: str) -> dict[str, Any]:
    """Commit batches of a size, one after the other, up to a number or a time."""
    peer, batch = make(), _batch(events, int(each))
    took: list[float] = []
    began = time.perf_counter()
    while len(took) < int(most) and time.perf_counter() - began < float(span):
        took.append(_seconds(lambda: peer.commit(batch)))
    took = took[1:] or took  # the first one loads what all others need
    ordered = sorted(took)
    return {
        "rate": len(took) * int(each) / sum(took), "count": len(took),
        "p50": statistics.median(took), "p99": ordered[int(len(took) * 0.99)],
        "head": statistics.median(took[:50]), "last": statistics.median(took[-50:]),
    }  # fmt: skip


def processes(make: Make, events: str, count: str, each: str, span: str) -> dict[str, Any]:
    """Commit from many processes at once; what raises is counted as refused."""
    if os.fork() == 0:
        make()  # what all of them open is there, and nobody else holds it
        os._exit(0)
    os.wait()
    context = multiprocessing.get_context("spawn")
    with context.Pool(int(count)) as pool:
        words = (sys.argv[1], sys.argv[3], events, int(each), float(span))
        done = pool.starmap(_many, [words] * int(count))
    return {
        "rate": sum(n for n, _, _ in done) * int(each) / float(span),
        "refused": sum(refused for _, refused, _ in done),
        "slowest": max(worst for _, _, worst in done),
    }


def recovery(make: Make, events: str, each: str, most: str) -> dict[str, Any]:
    """Die by SIGKILL after many commits that nothing tidied; see how long the next open takes."""
    pid = os.fork()
    if not pid:
        peer, batch = make(), _batch(events, int(each))
        for _ in range(int(most)):
            peer.commit(batch)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    return {"recovery": _seconds(lambda: make().ask("reliability"))}


def _many(name: str, root: str, events: str, each: int, span: float) -> tuple[int, int, float]:
    done, refused, worst = 0, 0, 0.0
    try:
        peer, batch = _maker(name, root)(), _batch(events, each)
    except Exception:
        return 0, 1, 0.0
    until = time.perf_counter() + span
    while time.perf_counter() < until:
        began = time.perf_counter()
        try:
            peer.commit(batch)
            done += 1
        except Exception:
            refused += 1
        worst = max(worst, time.perf_counter() - began)
    return done, refused, worst


def _maker(name: str, root: str) -> Make:
    module = importlib.import_module(f"benchmarks.peers.{name}")
    return lambda: module.Peer(root)


def _batch(events: str, count: int) -> list[dict[str, Any]]:
    with open(events, "rb") as file:
        return [json.loads(line) for line in islice(file, count)]


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Do the work that the command line names."""
    name, what, root, events, *words = sys.argv[1:]
    works = {w.__name__: w for w in (bulk, first, commits, processes, recovery)}
    result = works[what](_maker(name, root), events, *words)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("\n" + json.dumps({**result, "peak": peak}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
