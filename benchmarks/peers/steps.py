"""Steps that the parts share: making a peer, taking times, batches of events."""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

Event = dict[str, Any]
_REOPEN = """
import os, sys
from benchmarks.peers.{name} import Peer
print(Peer(sys.argv[1]).ask("reliability"), flush=True)
os._exit(0)
"""


@dataclass(frozen=True)
class Maker:
    """A peer by name and directory. The module is loaded before anything is timed."""

    name: str
    root: str

    def __post_init__(self) -> None:
        self._module()

    def __call__(self, below: str = "") -> Any:
        """Open the peer, in a directory of its own if one is named."""
        path = Path(self.root, below)
        path.mkdir(parents=True, exist_ok=True)
        return self._module().Peer(str(path))

    def can(self, what: str) -> bool:
        """Whether the peer has a method of that name."""
        return hasattr(self._module().Peer, what)

    def _module(self) -> Any:
        return importlib.import_module(f"benchmarks.peers.{self.name}")


@dataclass(frozen=True)
class Machine(Maker):
    """A peer as one of several machines that share a table opens it: each process is one."""

    def __call__(self, below: str = "", name: str = "") -> Any:
        """Open the peer by the name of a machine."""
        peer = super().__call__(below)
        return peer.machine(name or f"process-{os.getpid()}") if self.can("machine") else peer


def seconds(run: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def again(run: Callable[[], object], most: float, times: int = 5) -> float:
    """The median of a few calls; fewer when they take longer than `most` seconds together."""
    taken = [seconds(run)]
    while len(taken) < times and sum(taken) + taken[-1] < most:
        taken.append(seconds(run))
    return statistics.median(taken)


def batches(events: str, each: int, held: int = 20_000) -> Iterator[list[Event]]:
    """Batches of events of a file without end, all in memory before the first one is given."""
    return cut(read(events, max(held, each)), each)


def read(events: str, count: int) -> list[Event]:
    """The first events of a file."""
    with open(events, "rb") as file:
        return [json.loads(line) for line in islice(file, count)]


def cut(found: list[Event], each: int, first: int = 0) -> Iterator[list[Event]]:
    """Batches of events without end, beginning at one of them."""
    at = first % len(found)
    while True:
        part = found[at : at + each]
        at = at + each if at + each < len(found) else 0
        if len(part) == each:
            yield part


def close(peer: Any) -> None:
    """Let go of a peer that holds something."""
    if hasattr(peer, "close"):
        peer.close()


def peak() -> float:
    """Megabytes that this process and its largest child have used at most."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(who).ru_maxrss for who in whose) / 1024


def reopened(make: Maker, times: int) -> float:
    """How long a new process takes that opens what is there and asks one question, all of it."""
    command = [sys.executable, "-c", _REOPEN.format(name=make.name), make.root]
    return statistics.median(
        seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
        for _ in range(times)
    )
