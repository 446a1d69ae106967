"""Appending durably, against SQLite and a bare append with fdatasync, and by many processes.

SQLite: one table with a unique hash of the event's JSON, journal_mode WAL, synchronous FULL, one
transaction per batch; the application's part, JSON and SHA-256 of each event, is in its time, as
encoding is in lakelog's. All three write the same events to the same disk.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sqlite3
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

import lakelog
from benchmarks import gen, lakes
from benchmarks.measure import Scale, directory, interleave, seconds
from benchmarks.report import Row, Target

Batches = list[list[gen.Event]]
Append = Callable[[list[gen.Event]], object]


class Sqlite:
    """The peer: events in one table, each once by the hash of its JSON."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(
            "CREATE TABLE events (id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, event TEXT)"
        )

    def append(self, events: list[gen.Event]) -> None:
        """Store a batch in one transaction."""
        rows = []
        for event in events:
            text = orjson.dumps(event)
            rows.append((hashlib.sha256(text).digest(), text.decode()))
        run = self._connection
        run.execute("BEGIN IMMEDIATE")
        run.executemany("INSERT OR IGNORE INTO events (hash, event) VALUES (?, ?)", rows)
        run.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class Bare:
    """The floor: JSON lines to a file, each batch synced."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def append(self, events: list[gen.Event]) -> None:
        """Write a batch and sync."""
        os.write(self._fd, b"".join(orjson.dumps(e) + b"\n" for e in events))
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def batched(scale: Scale) -> list[Row]:
    """Time batches of 100 events on one thread, from nothing and on what is there already."""
    parts = list(lakes.batches(scale.batches * 100, 100))
    count = scale.batches * 100
    ours, sqlite, bare = (_rates(t, count) for t in _race(scale.rounds, parts))
    return [
        Row(f"append 100, first {count:,}", "ev/s", ours, sqlite, Target(">=", 3)),
        _past(scale),
        Row("append 100, vs write+fdatasync", "ev/s", ours, bare),
    ]


def _past(scale: Scale) -> Row:
    """Time batches on a table and a lake that hold many events already.

    The unique index of the table costs more the more it holds; a lake does not.
    """
    events = list(gen.events(scale.grown + scale.rounds * scale.batches * 100))
    old, fresh = events[: scale.grown], events[scale.grown :]
    parts = [fresh[i : i + 100] for i in range(0, len(fresh), 100)]
    ours, theirs = iter(parts), iter(parts)
    with directory() as root, lakelog.open(str(root / "lake"), settings=lakes.QUIET) as lake:
        peer = Sqlite(root / "events.db")
        lake.append(old)
        peer.append(old)
        taken, compared = interleave(
            scale.rounds,
            lambda: _feed(lake.append, list(islice(ours, scale.batches))),
            lambda: _feed(peer.append, list(islice(theirs, scale.batches))),
        )
        peer.close()
    count = scale.batches * 100
    what = f"append 100, past {scale.grown:,}"
    return Row(what, "ev/s", _rates(taken, count), _rates(compared, count), Target(">=", 3))


def single(scale: Scale) -> list[Row]:
    """Time single events on one thread, and on many against SQLite on one."""
    parts = [[event] for event in gen.events(scale.singles)]
    ours, sqlite, bare = (_rates(t, scale.singles) for t in _race(scale.rounds, parts))
    crowd, alone = interleave(
        scale.rounds, lambda: _threads(parts, scale.threads), lambda: _sqlite(parts)
    )
    total = scale.singles * scale.threads
    crowded, lonely = _rates(crowd, total), _rates(alone, scale.singles)
    return [
        Row("append 1, vs SQLite", "ev/s", ours, sqlite, Target(">=", 0.8)),
        Row("append 1, vs write+fdatasync", "ev/s", ours, bare),
        Row(f"append 1, {scale.threads} threads", "ev/s", crowded, lonely, Target(">=", 4)),
    ]


def processes(scale: Scale) -> list[Row]:
    """Let processes append at once while a reader counts; every event must be there once."""
    total = scale.processes * scale.appends * 10
    rates, found, reads = [], [], []
    for _ in range(min(scale.rounds, 3)):
        with directory() as root:
            lakes.new(root / "lake")
            taken, counts = _crowd(str(root / "lake"), scale)
            rates.append(total / taken)
            reads.append(float(len(counts)))
            found.append(float(_each_once(root / "lake", counts)))
    what = f"{scale.processes} processes x {scale.appends} x 10"
    return [
        Row(f"{what}: found", "", found, target=Target("==", total, "figure")),
        Row("the same: rate", "ev/s", rates),
        Row(
            "the same: counts meanwhile", "", reads, note="none of them smaller than the one before"
        ),
    ]


def _race(rounds: int, parts: Batches) -> list[list[float]]:
    """Time lakelog, SQLite and the bare append in turn."""
    return interleave(rounds, lambda: _lake(parts), lambda: _sqlite(parts), lambda: _bare(parts))


def _rates(times: list[float], count: int) -> list[float]:
    return [count / t for t in times]


def _lake(parts: Batches) -> float:
    with directory() as root, lakelog.open(str(root / "lake")) as lake:
        return _feed(lake.append, parts)


def _sqlite(parts: Batches) -> float:
    with directory() as root:
        peer = Sqlite(root / "events.db")
        taken = _feed(peer.append, parts)
        peer.close()
        return taken


def _bare(parts: Batches) -> float:
    with directory() as root:
        peer = Bare(root / "events.jsonl")
        taken = _feed(peer.append, parts)
        peer.close()
        return taken


def _feed(append: Append, parts: Batches) -> float:
    """Time all batches after a first one that opens the files."""
    append([{"type": "FIRST"}])
    os.sync()

    def run() -> None:
        for part in parts:
            append(part)

    return seconds(run)


def _threads(parts: Batches, count: int) -> float:
    """Time `count` threads, each appending every part by itself."""
    with directory() as root, lakelog.open(str(root / "lake")) as lake:
        lake.append({"type": "FIRST"})
        os.sync()

        def run() -> None:
            for part in parts:
                lake.append(part)

        threads = [threading.Thread(target=run) for _ in range(count)]

        def all_of_them() -> None:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        return seconds(all_of_them)


def _crowd(path: str, scale: Scale) -> tuple[float, list[int]]:
    """Run the processes; return their seconds together and what a reader counted meanwhile."""
    spawn = multiprocessing.get_context("spawn")
    ready, go = spawn.Barrier(scale.processes + 1), spawn.Event()
    workers = [
        spawn.Process(target=worker, args=(path, n, scale.appends, ready, go))
        for n in range(scale.processes)
    ]
    for process in workers:
        process.start()
    counts: list[int] = []
    with lakelog.open(path) as lake:
        lake.count()
        ready.wait(120)

        def run() -> None:
            go.set()
            while any(process.is_alive() for process in workers):
                counts.append(lake.count())

        taken = seconds(run)
    codes = [process.exitcode for process in workers]
    if any(codes):
        raise RuntimeError(f"a process failed: exit codes {codes}")
    return taken, counts


def worker(path: str, number: int, appends: int, ready: Any, go: Any) -> None:
    """Append batches of ten, every event with a number of its own."""
    first = number * appends * 10
    events = [{"type": "N", "data": {"n": first + i}} for i in range(appends * 10)]
    with lakelog.open(path) as lake:
        ready.wait(120)
        go.wait(120)
        for start in range(0, len(events), 10):
            lake.append(events[start : start + 10])


def _each_once(path: Path, counts: list[int]) -> int:
    """Return how many events are there once, live and sealed; raise if a count went back."""
    if counts != sorted(counts):
        raise RuntimeError("the reader's count went back")
    query = "SELECT count(*), count(DISTINCT data->>'n') FROM (SELECT * FROM events)"
    with lakelog.open(str(path)) as lake:
        live = lake.sql(query).fetchall()[0]
        lake.settle()
        sealed = lake.sql(query).fetchall()[0]
    if not (live == sealed and live[0] == live[1]):
        raise RuntimeError(f"counts and distinct counts differ: live {live}, sealed {sealed}")
    return int(live[0])
