"""Writers and housekeepers that are killed, and what has to be there afterwards."""

from __future__ import annotations

import os
import random
import signal
import struct
import time
from collections.abc import Callable
from typing import NoReturn

import duckdb  # noqa: F401 - loaded before the fork, so that a child starts quickly
import pyarrow.compute
import pyarrow.parquet  # noqa: F401

import lakelog
from lakelog.query import session  # noqa: F401
from lakelog.store import Store
from lakelog.wal.tail import Tail

_ACK = struct.Struct("<qq")
_EVENTS = 3


def write(path: str, pipe: int, me: int, with_ids: bool) -> NoReturn:
    """Append for ever; tell the pipe what was acknowledged."""
    lake = lakelog.open(path)
    count = 0
    while True:
        names = [f"{me}-{count}-{n}" for n in range(_EVENTS)]
        events = [{"type": "k", "data": {"name": name}} for name in names]
        if with_ids:
            events = [{**e, "id": name} for e, name in zip(events, names, strict=True)]
        lake.append(events)
        os.write(pipe, _ACK.pack(me, count))
        count += 1


def keep_house(path: str, verb: Callable[[lakelog.Lake], object]) -> NoReturn:
    """Seal, compact or collect for ever; two collectors may refuse each other."""
    lake = lakelog.open(path)
    while True:
        try:
            verb(lake)
        except lakelog.LakelogError as error:
            if "another process" not in str(error):
                os._exit(7)


class Crew:
    """Six processes on one lake; whoever is killed is replaced."""

    def __init__(self, path: str) -> None:
        self.path, self.started, self.acked = path, 0, list[tuple[int, int]]()
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        house = (lambda k: k.settle(), lambda k: k.compact(), lambda k: k.gc())
        self._roles: list[Callable[[int], NoReturn]] = [
            *(lambda me, ids=ids: write(path, self._write, me, ids) for ids in (0, 1, 0)),
            *(lambda me, verb=verb: keep_house(path, verb) for verb in house),
        ]
        self._pids = [self._start(role) for role in self._roles]

    def kill_one(self, chance: random.Random) -> None:
        """Kill one at random and start another in its place."""
        index = chance.randrange(len(self._pids))
        self._kill(self._pids[index])
        self._pids[index] = self._start(self._roles[index])

    def end(self) -> None:
        """Kill all."""
        for pid in self._pids:
            self._kill(pid)
        self._drain()

    def _start(self, role: Callable[[int], NoReturn]) -> int:
        self.started += 1
        pid = os.fork()
        if pid == 0:
            try:
                role(self.started)
            finally:
                os._exit(9)
        return pid

    def _kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert not os.WIFEXITED(status), f"a process ended by itself with {status >> 8}"
        self._drain()

    def _drain(self) -> None:
        data = b""
        try:
            while part := os.read(self._read, 65_536):
                data += part
        except BlockingIOError:
            pass
        self.acked += list(_ACK.iter_unpack(data[: len(data) // 16 * 16]))


class Witness:
    """Reads on beside the crew without a database, which forks must not inherit."""

    def __init__(self, path: str) -> None:
        self._path, self._least = path, 0
        self._store = Store.load(path)
        self._tail = Tail(self._store.paths, self._store.refs, "main")

    def look(self, acked: int, counting: bool) -> None:
        """Open the lake; require at least as many events as were acknowledged, and as before."""
        with lakelog.open(self._path, create=False) as lake:
            lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
        if counting:
            pending = self._tail.collect()
            state = self._store.manifests.load(pending.head.move.snapshot)
            there = state.totals.events + pending.events
            assert there >= max(acked, self._least)
            self._least = there


def survive(path: str, seed: int, kills: int) -> int:
    """Kill so many processes of a crew on a new lake and check it; return how many acks came."""
    lakelog.open(path, settings={"seal": "never", "rotate_events": 50}).close()
    chance = random.Random(seed)
    crew = Crew(path)
    witness = Witness(path)
    number = 0
    # On a slow machine most die before they have acknowledged anything: then more are killed.
    while number < kills or len(crew.acked) <= kills:
        number += 1
        time.sleep(chance.random() * 0.03)
        crew.kill_one(chance)
        witness.look(len(crew.acked) * _EVENTS, counting=number % 5 == 0)
    crew.end()
    with lakelog.open(path) as lake:
        query = "SELECT data->>'name', count(*) FROM events GROUP BY 1"
        found = dict(lake.sql(query).fetchall())
        wanted = {f"{me}-{n}-{i}" for me, n in crew.acked for i in range(_EVENTS)}
        assert not wanted - found.keys(), f"seed {seed}: lost {sorted(wanted - found.keys())[:5]}"
        assert set(found.values()) <= {1}, f"seed {seed}"
        lake.settle()
        assert lake.count() == len(found), f"seed {seed}"
        assert [p for p in lake.verify().problems if p.kind == "damage"] == [], f"seed {seed}"
    return len(crew.acked)
