"""Watching more files than a process may open: how soon, with how much memory, at what cost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import lakelog
from benchmarks.measure import Scale, directory, progress
from benchmarks.report import Row, Target

DESCRIPTORS = 1024
"""`ulimit -n` of the watcher, soft and hard."""
PATIENCE = 600.0
_LINES = 5
_TOUCHED = 200
_REST = 1.75
"""Times as long as it is watched it is left alone before."""


def many(scale: Scale) -> list[Row]:
    """Follow many files with few descriptors: start, memory, a line more in some, then nothing."""
    with directory() as root:
        paths = _files(root / "logs", scale.followed)
        limit = min(DESCRIPTORS, max(scale.followed // 4, 64))
        with lakelog.open(str(root / "lake")) as lake, _watcher(root, limit) as watcher:
            sight = Sight(lake, watcher)
            first = sight.until(1)
            whole = sight.until(_LINES * len(paths))
            progress(f"{whole:.1f} s for {len(paths):,} files, {sight.peak / 1e6:.0f} MB")
            time.sleep(scale.watch)  # until it rests
            touched = random.Random(1).sample(paths, min(_TOUCHED, len(paths)))
            began = sight.spent
            for number, path in enumerate(touched):
                with open(path, "a") as file:
                    file.write(_line(path.name, 1000 + number))
            late = sight.until(_LINES * len(paths) + len(touched)) - began
            time.sleep(_REST * scale.watch)  # until it was renewed, which is no rest
            idle = _idle(watcher.pid, scale.watch)
    return [
        Row(
            f"{len(paths):,} files, ulimit {limit}: first seen",
            "s",
            [first],
            target=Target("<=", 60.0, "figure"),
        ),
        Row("the same, all of them seen", "s", [whole]),
        Row(f"a line more in {len(touched)} of them", "s", [late]),
        Row(
            "memory of the process tree",
            "MB",
            [sight.peak / 1e6],
            target=Target("<=", 200.0, "figure"),
        ),
        Row("once nothing is written", "% core", [100 * idle], target=Target("<=", 2.0, "figure")),
    ]


class Sight:
    """What SQL shows of a watcher's work, and the most memory its processes had meanwhile."""

    def __init__(self, lake: lakelog.Lake, watcher: subprocess.Popen[bytes]) -> None:
        self._lake, self._watcher, self._began = lake, watcher, time.monotonic()
        self.peak = 0

    @property
    def spent(self) -> float:
        """Seconds since the watcher was started."""
        return time.monotonic() - self._began

    def until(self, count: int) -> float:
        """Wait until so many lines are seen; return the seconds since the watcher was started.

        Raises TimeoutError if they do not come, RuntimeError if the watcher ends.
        """
        query, seen = "SELECT count(*) FROM events WHERE origin IS NOT NULL", 0
        limit = self.spent + PATIENCE
        while self.spent < limit:
            ((seen,),) = self._lake.sql(query).fetchall()
            if seen >= count:
                return self.spent
            self.peak = max(self.peak, memory(self._watcher.pid))
            if self._watcher.poll() is not None:
                raise RuntimeError(f"the watcher ended with {self._watcher.returncode}")
            time.sleep(0.1)
        raise TimeoutError(f"{seen:,} of {count:,} lines seen within {PATIENCE:.0f} s")


def memory(pid: int) -> int:
    """Bytes that a process and its descendants have in memory; what they share counts once."""
    return sum(_proportional(each) for each in family(pid))


def processor(pid: int) -> float:
    """Seconds of processor time of a process, its descendants, and children that have ended."""
    ticks = 0
    for each in family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and all its descendants that run."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for tasks in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (tasks / "children").read_text().split())
    return found


def _proportional(pid: int) -> int:
    with contextlib.suppress(OSError):
        match = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
        return int(match[1]) * 1024 if match else 0
    return 0


def _idle(pid: int, seconds: float) -> float:
    before = processor(pid)
    time.sleep(seconds)
    return (processor(pid) - before) / seconds


def _files(root: Path, count: int) -> list[Path]:
    """Write files of a few lines that no other has, a hundred in a directory."""
    paths = [root / f"d{n // 100:03d}" / f"app-{n:05d}.log" for n in range(count)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(_line(path.name, n) for n in range(_LINES)))
    return paths


def _line(name: str, number: int) -> str:
    event = {
        "timestamp": f"2026-05-01T12:{number % 60:02d}:00Z",
        "event_type": "STEP",
        "source": name,
        "data": {"n": number},
    }
    return json.dumps(event) + "\n"


@contextlib.contextmanager
def _watcher(root: Path, limit: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run `lakelog watch` with so many descriptors at most."""
    words = [sys.executable, "-m", "lakelog", "--lake", str(root / "lake"), "watch"]
    limited = ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *words, str(root / "logs")]
    with open(root / "watch.out", "wb") as out:
        process = subprocess.Popen(limited, stdout=out, stderr=out)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
