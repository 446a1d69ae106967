"""Machines that append to a shared lake, each a process with a directory of its own, killed at any
moment, and a ledger of what was acknowledged.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

import lakelog
from lakelog.clients import connection as connections
from lakelog.errors import LakelogError
from lakelog.lake import Lake
from lakelog.remotes.shared import attach

_ENDED = 77


@dataclass
class MachineFleet:
    """Machines below a path that share the lake at an address; `events` each is what they append,
    in batches of `batch`."""

    root: Path
    url: str
    machines: int
    events: int
    batch: int
    kills: int
    seed: int
    jumps: bool = False
    """Whether the clock of each machine is wrong by up to a day, and jumps now and then."""
    died: int = 0
    _left: list[int] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        """Let all machines append and exchange until all have appended everything. Raises
        AssertionError with what a machine said."""
        chance, ends = random.Random(self.seed), time.monotonic() + seconds
        running = {number: self._start(number, chance) for number in range(self.machines)}
        while running:
            assert time.monotonic() < ends, "the machines did not end in time"
            connection.wait([process.sentinel for process in running.values()], 5.0)
            for number, process in list(running.items()):
                if process.exitcode is None:
                    continue
                if process.exitcode > 0:
                    raise AssertionError((self.root / f"m{number}.error").read_text())
                del running[number]
                if process.exitcode < 0:
                    self.died += 1
                    running[number] = self._start(number, chance)

    def _start(self, number: int, chance: random.Random) -> Any:
        # So many kills in all, spread over the machines by chance.
        life = chance.uniform(0.3, 2.0) if self.died < self.kills else 0.0
        # Not a fork of this process, which may have used a store of objects.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["tests.support.killed_machines", "lakelog.remotes.s3", "duckdb", "pyarrow"]
        )
        words = number, life, chance.random(), dict(os.environ)
        process = context.Process(target=self.live, args=words, daemon=True)
        process.start()
        return process

    def live(self, number: int, life: float, seed: float, environment: dict[str, str]) -> None:
        """Be a machine, in a process of its own."""
        os.environ.update(environment)
        connections.pause = lambda attempt: 0.01
        try:
            if life:
                timer = threading.Timer(life, lambda: os.kill(os.getpid(), signal.SIGKILL))
                timer.daemon = True
                timer.start()
            clock = _JumpingClock(random.Random(seed)) if self.jumps else None
            self._work(number, clock.jump if clock else lambda: None)
            os._exit(0)
        except BaseException:
            (self.root / f"m{number}.error").write_text(traceback.format_exc())
            os._exit(_ENDED)

    def _work(self, number: int, jump: Callable[[], object]) -> None:
        ledger = self.root / f"m{number}.acknowledged"
        tried = self.root / f"m{number}.tried"
        following = len(tried.read_text()) if tried.exists() else 0
        _again(lambda: attach(self.url, str(self.root / f"m{number}")))
        with lakelog.open(str(self.root / f"m{number}"), create=False) as lake:
            while following < self.events:
                count = min(self.batch, self.events - following)
                # A number is tried once: what a kill leaves in doubt may be there, once.
                with open(tried, "a") as file:
                    file.write("." * count)
                values = [number * self.events + following + n for n in range(count)]
                lake.append([{"type": "T", "data": {"n": value}} for value in values])
                with open(ledger, "a") as file:
                    file.write("".join(f"{value}\n" for value in values))
                following += count
                jump()
                with contextlib.suppress(LakelogError, OSError):
                    lake.exchange()
            _again(lake.exchange)

    def lakes(self) -> list[Lake]:
        """Open all machines, after exchanges that bring each what the others had."""
        lakes = [
            lakelog.open(str(self.root / f"m{number}"), create=False)
            for number in range(self.machines)
        ]
        for _ in range(2):
            for lake in lakes:
                _again(lake.exchange)
        return lakes

    def acknowledged(self) -> set[int]:
        """Return the numbers that were acknowledged."""
        ledgers = self.root.glob("m*.acknowledged")
        return {int(line) for ledger in ledgers for line in ledger.read_text().split()}

    def check(self) -> int:
        """Check that each machine has the same state, in which each acknowledged event is once, and
        none twice; return how many events there are."""
        lakes = self.lakes()
        try:
            heads = {lake.store.refs.head("main").digest for lake in lakes}
            assert len(heads) == 1, f"{len(heads)} states"
            # Each reads from the bucket what it does not have, so two of them stand for all.
            for lake in lakes[:2]:
                rows = lake.sql("SELECT (data->>'n')::BIGINT FROM events").fetchall()
                counts = Counter(n for (n,) in rows)
                assert not [n for n, count in counts.items() if count > 1], "doubled"
                missing = self.acknowledged() - counts.keys()
                assert not missing, f"{len(missing)} lost: {sorted(missing)[:5]}"
            return len(counts)
        finally:
            for lake in lakes:
                lake.close()


class _JumpingClock:
    """The clock of this process from now on, which is wrong."""

    def __init__(self, chance: random.Random) -> None:
        self._chance, self._offset, real = chance, 0.0, time.time_ns
        self.jump(always=True)
        time.time_ns = lambda: real() + int(self._offset * 1e9)
        time.time = lambda: time.time_ns() / 1e9

    def jump(self, always: bool = False) -> None:
        """Be wrong by another time than before, now and then."""
        if always or self._chance.random() < 0.1:
            self._offset = self._chance.uniform(-86_400, 86_400)


def _again(attempt: object) -> None:
    """Call what may fail while the store is in trouble, until it does not."""
    for _ in range(200):
        try:
            attempt()  # type: ignore[operator]
            return
        except (LakelogError, OSError):
            time.sleep(0.01)
    attempt()  # type: ignore[operator]
