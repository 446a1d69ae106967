"""Watching: rate and lag of three formats over ten files, and what it costs to wait."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import lakelog
from benchmarks.measure import Scale, directory
from benchmarks.report import Row, Target

FILES, RATE = 10, 100_000
"""Files that are written to in turn, and lines a second in all of them."""
TICK = 0.02
LINES = {
    "JSON lines": (
        '{"timestamp":"2026-05-01T12:%02d:%02d.%06dZ","event_type":"COMPLETE","source":"Pod%d",'
        '"item_id":"ep_%d","data":{"duration_ms":%d,"ok":true,"host":"node-%d"}}\n'
    ),
    "OOS": '2026-05-01T12:%02d:%02d.%06dZ|COMPLETE|podcast|Pod%d|ep_%d|{"ms":%d,"node":%d}\n',
    "combined access": (
        '10.0.%d.%d - - [01/May/2026:12:00:00 +0000] "GET /a/%06d?x=%d HTTP/1.1" 200 %d'
        ' "https://example.org/%d" "Mozilla/5.0 (X11; Linux x86_64) Firefox/%d"\n'
    ),
}
WRITER = r"""
import json, os, sys, time
root, files, rate, seconds, tick, block = sys.argv[1:]
files, rate, seconds, tick = int(files), int(rate), float(seconds), float(tick)
lines = open(block, "rb").read().splitlines(keepends=True)
out = [os.open(f"{root}/f{n}.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY) for n in range(files)]
began, done, told = time.time(), 0, []
while (now := time.time()) < began + seconds:
    due = int((now - began) * rate) - done
    share = min(due // files, len(lines) // 2)
    for n, fd in enumerate(out):  # no two files hold the same, or they would be one
        at = (done // files + n * 997) % (len(lines) // 2)
        os.write(fd, b"".join(lines[at : at + share]))
    done += share * files
    told.append((time.time(), done))
    time.sleep(max(tick - (time.time() - now), 0))
json.dump(told, open(f"{root}/../told.json", "w"))
"""


def rates(scale: Scale) -> list[Row]:
    """Write lines of each format to ten files; see when SQL sees them."""
    return [row for form in LINES for row in _rate(form, scale.watch)]


def _rate(form: str, span: float) -> list[Row]:
    with directory() as root:
        block = root / "block"
        numbers = range(20_000)
        block.write_text("".join(line(LINES[form], n) for n in numbers))
        (root / "logs").mkdir()
        size = block.stat().st_size / len(numbers)
        with lakelog.open(str(root / "lake")) as lake:
            lake.append({"type": "first"})
            lake.sql("SELECT count(*) FROM events").fetchall()
            with watcher(root) as process:
                words = [FILES, RATE, span, TICK, block]
                writer = subprocess.Popen(
                    [sys.executable, "-c", WRITER, root / "logs", *map(str, words)]
                )
                used, seen = cpu(process.pid), []
                while writer.poll() is None or len(seen) < 5 or seen[-1][1] < _told(root)[-1][1]:
                    time.sleep(0.05)
                    ((count,),) = lake.sql("SELECT count(*) FROM events").fetchall()
                    seen.append((time.time(), count - 1))
                    if writer.poll() is not None and time.time() > _told(root)[-1][0] + 60:
                        break
                used = cpu(process.pid) - used
                end(process)
        told = _told(root)
        lag = _lag(told, seen)
        took = seen[-1][0] - told[0][0]
        rate = seen[-1][1] / took
        note = f"{rate * size / 2**20:.0f} MiB/s, {used / took:.1f} cores"
        least, most = Target(">=", RATE * 0.95, "figure"), Target("<=", 1.0, "figure")
        return [
            Row(f"watch {form}, seen", "lines/s", [rate], target=least, note=note),
            Row(f"watch {form}, largest lag", "s", [lag], target=most),
        ]


def idle(scale: Scale) -> list[Row]:
    """Watch files to which nothing is written: processor time and memory."""
    files = scale.watched
    with directory() as root:
        (root / "logs").mkdir()
        for n in range(files):
            text = "".join(line(LINES["JSON lines"], n * 100 + m) for m in range(20))
            (root / "logs" / f"f{n}.log").write_text(text)
        with lakelog.open(str(root / "lake")) as lake:
            lake.append({"type": "first"})
            began = time.monotonic()
            with watcher(root) as process:
                while lake.sql("SELECT count(*) FROM events").fetchall()[0][0] <= 20 * files:
                    time.sleep(0.05)
                took = time.monotonic() - began
                time.sleep(20)  # until it rests
                used = cpu(process.pid)
                time.sleep(scale.watch)
                used = (cpu(process.pid) - used) / scale.watch
                resident = _resident(process.pid)
                end(process)
        return [
            Row(f"watch {files:,} new files, first round", "s", [took]),
            Row(
                f"watch {files:,} idle files",
                "% core",
                [100 * used],
                target=Target("<=", 1.0, "figure"),
            ),
            Row("memory of it", "MB", [resident / 1e6], target=Target("<=", 120.0, "figure")),
        ]


def line(shape: str, n: int) -> str:
    """Return the nth line of a shape."""
    values = (n // 60 % 60, n % 60, n * 7919 % 1_000_000, n % 40, n, n * 31 % 5000, n % 7)
    return shape % values[: shape.count("%") - shape.count("%%")]


def watcher(root: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start to watch `logs` into `lake`."""
    words = ["-m", "lakelog", "--lake", str(root / "lake"), "watch", str(root / "logs"), *options]
    return subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a watcher, which ingests what is there."""
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def _told(root: Path) -> list[tuple[float, int]]:
    try:
        return [(at, n) for at, n in json.loads((root / "told.json").read_text())]
    except FileNotFoundError:
        return [(time.time(), 1 << 60)]


def _lag(told: list[tuple[float, int]], seen: list[tuple[float, int]]) -> float:
    """The longest that any line was written but not seen."""
    worst, at = 0.0, 0
    for when, count in told:
        while at < len(seen) and seen[at][1] < count:
            at += 1
        worst = max(worst, (seen[at][0] if at < len(seen) else seen[-1][0] + 60) - when)
    return worst


def cpu(pid: int) -> float:
    """Return the processor time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024
