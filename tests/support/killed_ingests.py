"""Ingests that are killed, and what has to be there afterwards."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401 - loaded before the fork, so that a child starts quickly
import pyarrow.compute
import pyarrow.parquet  # noqa: F401

import lakelog
from lakelog.files.file_cursor import FileCursor
from lakelog.ingest import batch
from lakelog.lines import source
from lakelog.query import session  # noqa: F401
from tests.support.effort import share
from tests.support.feeds import PACKED, event, put

KILLS = {"plain": share(80), "gz": share(40), "ids": share(50), "bulk": share(30)}


def child(work: Callable[[], object], rows_max: int = 40, chunk: int = 3000) -> int:
    """Run something in a forked process that publishes often; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 9
    try:
        batch.ROWS_MAX, source.Source.CHUNK = rows_max, chunk
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def taking(lake: str, *paths: str) -> Callable[[], object]:
    """What a child does that ingests files."""
    return lambda: lakelog.open(lake, create=False).ingest(list(paths))


def ended(pid: int) -> bool:
    """Whether a child ended by itself, and well; it is waited for."""
    _, status = os.waitpid(pid, 0)
    assert not (os.WIFEXITED(status) and status), f"a child failed with {status >> 8}"
    return os.WIFEXITED(status)


def telling(work: Callable[[], object], pipe: int) -> Callable[[], object]:
    """Work that writes a byte at its start and at the start of every publish."""
    real = batch.publish

    def publish(*arguments: Any) -> Any:
        os.write(pipe, b".")
        return real(*arguments)

    def run() -> None:
        batch.publish = publish
        os.write(pipe, b".")
        work()

    return run


def killed(work: Callable[[], object], chance: random.Random) -> bool:
    """Kill a child a random moment after a random publish; False if it was done before."""
    ours, its = os.pipe()
    pid = child(telling(work, its))
    os.close(its)
    heard, goal = 0, chance.randint(1, 5)
    while heard < goal and (told := os.read(ours, goal - heard)):
        heard += len(told)
    os.close(ours)
    time.sleep(chance.random() * 0.03)
    os.kill(pid, signal.SIGKILL)
    return not ended(pid)


class Feed:
    """A file that grows, and how many events it holds up to any byte."""

    def __init__(self, path: Path, kind: str, lines: int) -> None:
        self.path, self.kind = path, kind
        self.data, self.count = b"", 0
        self._starts, self._made = [0], [0]
        self._ids: set[int] = set()
        self.grow(lines)

    def grow(self, lines: int) -> None:
        """Add lines: good ones, some bad, with ids some twice."""
        made = []
        for n in range(self.count, self.count + lines):
            line = json.dumps(event(n, id=f"{n % 1500}") if self.kind == "ids" else event(n))
            known = self.kind == "ids" and n % 1500 in self._ids
            self._ids.add(n % 1500)
            if n % 50 == 7:
                line, known = "{oops", True
            line = f'{{"index":{{}}}}\n{line}' if self.kind == "bulk" else line
            made.append(line + "\n")
            self._starts.append(self._starts[-1] + len(made[-1]))
            self._made.append(self._made[-1] + (not known))
        self.count += lines
        self.data += "".join(made).encode()
        pack = PACKED["gz of many members"] if self.kind == "gz" else PACKED["plain"]
        put(self.path, pack(self.data))

    def events(self, place: int) -> int:
        """How many events the first bytes hold."""
        return self._made[self._starts.index(place)]


def state(lake: lakelog.Lake) -> tuple[int, int, int]:
    """(events, quarantined lines, bytes of the file) by the newest manifest alone."""
    now = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    found = [c.bytes for c in FileCursor.of_state(lake.store, now)]
    assert len(found) <= 1
    return now.totals.events, now.totals.quarantined, sum(found)


def survive(root: Path, kind: str, seed: str, goal: int) -> tuple[int, int]:
    """Kill the ingest of a growing file so often, and check it; return kills and publishes."""
    path, chance = str(root / "lake"), random.Random(seed)
    given = Feed(root / "f.jsonl", kind, 4000)
    kills = moves = done = 0
    with lakelog.open(path, settings={"seal": "never", "threads": 1}) as lake:
        while kills < goal:
            if killed(taking(path, str(given.path)), chance):
                kills += 1
            else:
                given.grow(2000)
            events, bad, place = state(lake)
            assert events == given.events(place)
            assert bad == given.data[:place].count(b"{oops")
            moves, done = moves + (place != done), place
        lake.ingest(str(given.path))
        assert state(lake) == (
            given.events(len(given.data)),
            given.data.count(b"{oops"),
            len(given.data),
        )
        query = "SELECT count(DISTINCT (origin, position)) AS p, count(DISTINCT id) AS i"
        ((places, ids),) = lake.sql(f"{query} FROM events").fetchall()
        assert places == lake.count()
        assert ids == (places if kind == "ids" else 0)
        assert [p for p in lake.verify().problems if p.kind == "damage"] == []
    return kills, moves
