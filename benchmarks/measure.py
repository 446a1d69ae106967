"""Measuring: sizes of a run, interleaved rounds, and child processes with their time and memory.

Peers are always measured in the same run, in turn, so that what else the machine does falls on
both sides; what is compared is the median of the rounds.
"""

from __future__ import annotations

import ast
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORK = Path(tempfile.gettempdir()) / "lakelog-benchmarks"
"""Lakes to measure on, and those kept for the next run; on the disk that is measured."""
_CHILD = """
import sys, time
began = time.perf_counter()
{code}
took = time.perf_counter() - began
with open("/proc/self/status") as file:
    peak = next(int(x.split()[1]) for x in file if x.startswith("VmHWM"))
print([took, peak / 1000, result])
"""


@dataclass(frozen=True)
class Scale:
    """How much one run measures."""

    rounds: int = 5
    batches: int = 200
    grown: int = 200_000
    singles: int = 2_000
    threads: int = 16
    processes: int = 10
    appends: int = 200
    many: int = 10_000
    rewinds: int = 15
    commits: int = 320
    moves: int = 12_000
    entries: int = 1_200_000
    frames: int = 150_000
    files: int = 2_000
    watched_days: float = 30
    sealed: int = 250_000
    history: int = 10_000_000
    bulk: int = 1_000_000
    starts: int = 9
    watch: float = 20.0
    watched: int = 1_000
    followed: int = 20_000
    reading: float = 60
    state_mb: int = 1_000
    pushed_mb: int = 1_000


FULL = Scale()
QUICK = Scale(
    rounds=3,
    batches=50,
    grown=20_000,
    singles=300,
    appends=30,
    many=1_000,
    rewinds=5,
    commits=64,
    moves=2_000,
    entries=100_000,
    frames=5_000,
    files=200,
    watched_days=1,
    sealed=25_000,
    history=1_000_000,
    bulk=50_000,
    starts=5,
    reading=8,
    watch=5.0,
    watched=100,
    followed=2_000,
    state_mb=100,
    pushed_mb=100,
)
TINY = Scale(
    rounds=1,
    batches=2,
    grown=200,
    singles=4,
    threads=2,
    processes=2,
    appends=3,
    many=20,
    rewinds=1,
    commits=4,
    moves=40,
    entries=9_000,
    frames=9,
    files=9,
    sealed=200,
    history=2_000,
    bulk=2_000,
    watched_days=0.002,
    starts=1,
    reading=1,
    watch=0.5,
    watched=10,
    followed=80,
    state_mb=4,
    pushed_mb=4,
)


@dataclass(frozen=True)
class Child:
    """What a process did: seconds inside the code and in all, peak megabytes, and its result."""

    inside: float
    whole: float
    peak: float
    result: Any


def seconds(run: Callable[[], object]) -> float:
    """Return how long a call takes, with garbage of earlier ones collected before."""
    gc.collect()
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def interleave(rounds: int, *runs: Callable[[], Any]) -> list[list[Any]]:
    """Call every run once a round, in turn and every other round backwards; return results."""
    results: list[list[Any]] = [[] for _ in runs]
    for number in range(rounds):
        order = range(len(runs))
        for index in order if number % 2 == 0 else reversed(order):
            results[index].append(runs[index]())
    return results


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def median(values: list[float]) -> float:
    """Return the middle value."""
    return statistics.median(values)


def child(code: str, *arguments: str) -> Child:
    """Run code that sets `result` in a new interpreter; arguments are its `sys.argv[1:]`."""
    command = [sys.executable, "-c", _CHILD.format(code=code), *arguments]
    whole, text = process(command)
    inside, peak, result = ast.literal_eval(text.splitlines()[-1])
    return Child(inside, whole, peak, result)


def process(command: list[str]) -> tuple[float, str]:
    """Run a command; return its seconds and its output. Raises CalledProcessError.

    Bytecode is kept from run to run, as that of an installed package is.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": f"{WORK}/bytecode"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    WORK.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=WORK,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return time.perf_counter() - began, done.stdout


@contextmanager
def directory() -> Iterator[Path]:
    """Yield a fresh directory on the measured disk, removed afterwards."""
    WORK.mkdir(parents=True, exist_ok=True)
    # The maintenance of a lake may still write there when it is removed.
    with tempfile.TemporaryDirectory(dir=WORK, prefix="run-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def progress(text: str) -> None:
    """Say on stderr what is being measured."""
    print(f"{time.strftime('%H:%M:%S')} load {os.getloadavg()[0]:.1f}  {text}", file=sys.stderr)


def busy_cores(seconds: float = 1.0) -> float:
    """How many cores are at work now: the load says what was, for minutes after it has ended."""
    try:
        before = _ticks()
        time.sleep(seconds)
        after = _ticks()
    except OSError:
        return os.getloadavg()[0]
    idle, every = after[0] - before[0], after[1] - before[1]
    return (os.cpu_count() or 1) * (1 - idle / every) if every else 0.0


def _ticks() -> tuple[int, int]:
    """The ticks that all cores were idle, and all of them. Raises OSError where Linux is not."""
    numbers = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return numbers[3] + numbers[4], sum(numbers)
