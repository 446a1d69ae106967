"""Workers of a queue as processes that are killed: what every item has become."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import lakelog
from lakelog.pipeline import Item, WorkQueue
from tests.support.processes import environment

WORKER = """
import os, random, sys, time
import lakelog
from lakelog.pipeline.work_queue import WorkQueue

log, effects, attempts = sys.argv[1], sys.argv[2], int(sys.argv[3])
queue = WorkQueue(log, "thumbnails", attempts=attempts, backoff=0.01, backoff_max=0.05, timeout=20)
chance = random.Random(os.getpid())

def process(item):
    time.sleep(chance.random() * 0.02)
    if item.data["kind"] == "bad":
        raise ValueError("cannot be read")
    if chance.random() < 0.2:
        raise OSError("flaky")
    with open(effects, "a") as out:
        out.write(item.id + "\\n")
    return {"pid": os.getpid()}

queue.run(process, concurrency=4, batch=8)
"""


def play(log: str, home: Path, *, items: int, kills: int, seed: int, workers: int = 2) -> WorkQueue:
    """Process items by workers, kill one of them `kills` times, and let the last ones end."""
    chance, attempts = random.Random(seed), 12
    queue = WorkQueue(log, "thumbnails", attempts=attempts)
    queue.add(
        Item("photos", f"p-{n}", {"kind": "bad" if n % 50 == 7 else "good"}) for n in range(items)
    )
    words = [sys.executable, "-c", WORKER, log, str(home / "effects"), str(attempts)]
    crew = [subprocess.Popen(words, env=environment()) for _ in range(workers)]
    try:
        for _ in range(kills):
            # Until something more is completed: then the workers are in the middle of their work.
            done = queue.counts()["completed"]
            while (counts := queue.counts())["completed"] == done and _is_open(counts):
                time.sleep(chance.uniform(0.02, 0.1))
            if not _is_open(counts):
                break
            victim = chance.randrange(workers)
            crew[victim].kill()
            crew[victim].wait()
            crew[victim] = subprocess.Popen(words, env=environment())
        for worker in crew:
            assert worker.wait(timeout=600) == 0
    finally:
        for worker in crew:
            worker.kill()
            worker.wait()
    return queue


def _is_open(counts: dict[str, int]) -> bool:
    return counts["waiting"] + counts["running"] > 0


def faults(queue: WorkQueue, log: str, items: int) -> list[str]:
    """Return what is wrong with the end of a play: nothing, as a rule."""
    found = []
    counts = queue.counts()
    bad = sum(n % 50 == 7 for n in range(items))
    if counts != {"waiting": 0, "running": 0, "completed": items - bad, "dead": bad}:
        found.append(f"counts {counts} of {items} items, {bad} of them bad")
    letters = {letter.item.id: letter.error for letter in queue.dead_letters()}
    for n in range(items):
        reason = letters.get(f"p-{n}", "")
        # The last attempt of a bad item may be one whose worker was killed.
        if n % 50 == 7 and "cannot be read" not in reason and not reason.endswith("died"):
            found.append(f"p-{n} has the reason {reason!r}")
    for subject, times in Counter(completions(log)).items():
        if times != 1:
            found.append(f"{subject} was completed {times} times")
    return found


def completions(log: str) -> list[Any]:
    """The items of all events COMPLETE, as they are stored."""
    if Path(log).is_file():
        lines = (line.split("|") for line in Path(log).read_text("utf-8").splitlines())
        return [parts[4] for parts in lines if parts[1:2] == ["COMPLETE"]]
    with lakelog.open(log) as lake:
        rows = lake.sql("SELECT subject FROM events WHERE type = 'COMPLETE'").fetchall()
    return [subject for (subject,) in rows]


def main() -> None:
    """Play 1,000 items with 30 kills, in a lake and in an oos.log; end with 1 at a fault."""
    for kind in ("lake", "oos.log"):
        with tempfile.TemporaryDirectory() as home:
            log = f"{home}/{kind}"
            if kind == "lake":
                lakelog.open(log).close()
            queue = play(log, Path(home), items=1000, kills=30, seed=1)
            found = faults(queue, log, 1000)
            effects = Counter((Path(home) / "effects").read_text().split())
            again = sum(times > 1 for times in effects.values())
            print(f"{kind}: {queue.counts()}, {again} processed again, {len(found)} faults", *found)
            if found:
                raise SystemExit(1)


if __name__ == "__main__":
    main()
