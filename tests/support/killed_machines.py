"""Machines that append to a shared lake, each a process with a directory of its own, killed at any
moment, and a ledger of what was acknowledged.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import lakelog
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
    died: int = 0
    _left: list[int] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        """Let all machines append and exchange until all have appended everything. Raises
        AssertionError with what a machine said."""
        chance, ends = random.Random(self.seed), time.monotonic() + seconds
        running = {self._start(number, chance): number for number in range(self.machines)}
        while running:
            assert time.monotonic() < ends, "the machines did not end in time"
            pid, status = os.wait()
            if pid not in running:
                continue
            number = running.pop(pid)
            if os.WIFSIGNALED(status):
                self.died += 1
            elif os.WEXITSTATUS(status) != 0:
                raise AssertionError((self.root / f"m{number}.error").read_text())
            else:
                continue
            running[self._start(number, chance)] = number

    def _start(self, number: int, chance: random.Random) -> int:
        # So many kills in all, spread over the machines by chance.
        life = chance.uniform(0.05, 2.0) if self.died < self.kills else 0.0
        pid = os.fork()
        if pid:
            return pid
        try:
            if life:
                timer = threading.Timer(life, lambda: os.kill(os.getpid(), signal.SIGKILL))
                timer.daemon = True
                timer.start()
            self._work(number)
            os._exit(0)
        except BaseException:
            (self.root / f"m{number}.error").write_text(traceback.format_exc())
            os._exit(_ENDED)

    def _work(self, number: int) -> None:
        ledger = self.root / f"m{number}.acknowledged"
        tried = self.root / f"m{number}.tried"
        following = len(tried.read_text()) if tried.exists() else 0
        # Here, as the client of the bucket has threads, which a fork would not bring along.
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


def _again(attempt: object) -> None:
    """Call what may fail while the store is in trouble, until it does not."""
    for _ in range(200):
        try:
            attempt()  # type: ignore[operator]
            return
        except (LakelogError, OSError):
            time.sleep(0.01)
    attempt()  # type: ignore[operator]
