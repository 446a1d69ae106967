"""What logging costs: handlers and loggers against those that write a file, and what a kill loses.

Every contender runs in an interpreter of its own and records the same fields of the same records,
from the first call until the last record is where it belongs: in the file, written; in the lake,
durable.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import lakelog
from benchmarks.measure import ROOT, Scale, child, directory, interleave
from benchmarks.report import Row, Target

_CALL = """log.info("request %d of %s done", i, "user", extra={"ms": 12.5, "path": "/a/b"})"""
_LOGGING = """
import logging, sys, time
log = logging.getLogger("shop.cart")
log.propagate, log.level = False, 10
"""
_FILE = (
    _LOGGING
    + """
fields = "asctime levelname name message pathname lineno funcName threadName process ms path"
handler = logging.FileHandler(sys.argv[1] + "/file.log")
handler.setFormatter(logging.Formatter("|".join(f"%({field})s" for field in fields.split())))
done = handler.flush
log.addHandler(handler)
"""
)
_LAKE = (
    _LOGGING
    + """
import lakelog
handler = lakelog.LakeHandler(sys.argv[1] + "/lake")
done = handler._recorder.flush
log.addHandler(handler)
"""
)
_STRUCTLOG = """
import structlog, sys, time
from structlog.processors import CallsiteParameter as Site
site = structlog.processors.CallsiteParameterAdder(
    [Site.PATHNAME, Site.LINENO, Site.FUNC_NAME, Site.THREAD_NAME, Site.PROCESS])
file = open(sys.argv[1] + "/file.log", "a")
structlog.configure(cache_logger_on_first_use=True,
    logger_factory=structlog.WriteLoggerFactory(file), processors=[
    structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True),
    site, structlog.processors.JSONRenderer()])
logger = structlog.get_logger().bind(name="shop.cart")
class log:
    def info(text, i, user, extra): logger.info(text % (i, user), **extra)
done = file.flush
"""
_LOGURU = """
import loguru, sys, time
loguru.logger.remove()
loguru.logger.add(sys.argv[1] + "/file.log", serialize=True)
class log:
    def info(text, i, user, extra): loguru.logger.bind(**extra).info(text % (i, user))
def done(): pass
"""
_RATE = f"""
count = int(sys.argv[2])
for i in range(200): {_CALL}
began = time.perf_counter()
for i in range(count): {_CALL}
done()
result = count / (time.perf_counter() - began)
"""
_CALLS = f"""
count, calls, clock = int(sys.argv[2]), [], time.perf_counter
for i in range(count):
    began = clock()
    {_CALL}
    calls.append(clock() - began)
done()
result = sorted(calls)[int(count * 0.99)] * 1e6
"""


def handlers(scale: Scale) -> list[Row]:
    """Log records to a lake and to files; what a call, the import and the memory cost."""
    count = str(max(scale.bulk // 5, 500))
    with directory() as root:
        home = iter(range(1_000))

        def run(code: str, measured: str) -> float:
            place = root / str(next(home))
            place.mkdir()
            return float(child(code + measured, str(place), count).result)

        ours, file, structured, loguru = interleave(
            scale.rounds,
            lambda: run(_LAKE, _RATE),
            lambda: run(_FILE, _RATE),
            lambda: run(_STRUCTLOG, _RATE),
            lambda: run(_LOGURU, _RATE),
        )
        calls = [run(_LAKE, _CALLS) for _ in range(scale.rounds)]
        first, bare = interleave(
            scale.starts,
            lambda: child(_LAKE + "\nlog.info('x'); result = 0", str(root / "0")),
            lambda: child(_LOGGING + "\nresult = 0"),
        )
        imported = [child("import lakelog; lakelog.LakeHandler; result = 0") for _ in bare]
    return [
        Row("LakeHandler, FileHandler", "ev/s", ours, file, Target(">=", 1)),
        Row("the same, structlog to a file", "ev/s", ours, structured, Target(">=", 1)),
        Row("the same, loguru to a file", "ev/s", ours, loguru, Target(">=", 1)),
        Row("p99 of a call", "us", calls, [], Target("<=", 50, "figure")),
        Row("import", "ms", [1000 * c.inside for c in imported], [], Target("<=", 60, "figure")),
        Row(
            "import to first record",
            "ms",
            [1000 * c.inside for c in first],
            [1000 * c.inside for c in bare],
        ),
        Row(
            "the same, peak memory",
            "MB",
            [c.peak for c in first],
            [c.peak for c in bare],
            Target("<=", 20, "excess"),
        ),
    ]


OOS_PROGRAM = """
import sys, time
import lakelog
count = int(sys.argv[2])
log = lakelog.get_logger(sys.argv[1] + "/oos.log", lake=sys.argv[1] + "/lake")
calls, clock = [], time.perf_counter
began = clock()
for i in range(count):
    before = clock()
    log.complete("podcast", "TechPodcast", f"ep_{i}", {"words": 4800, "ms": 12.5})
    calls.append(clock() - before)
log.flush()
lake = lakelog.open(sys.argv[1] + "/lake")
while lake.count() < count: time.sleep(0.02)
took = clock() - began
result = [count / took, sorted(calls)[int(count * 0.99)] * 1e6, lake.count(), log.stats().dropped]
"""
_STANDARD = """
import logging, sys, time
handler = logging.FileHandler(sys.argv[1] + "/file.log")
handler.setFormatter(logging.Formatter("%(asctime)s|%(message)s"))
log = logging.getLogger("oos")
log.propagate, log.level = False, 10
log.addHandler(handler)
count = int(sys.argv[2])
began = time.perf_counter()
for i in range(count):
    log.info("COMPLETE|podcast|TechPodcast|ep_%d|%s", i, {"words": 4800, "ms": 12.5})
handler.flush()
result = count / (time.perf_counter() - began)
"""


def logger(scale: Scale) -> list[Row]:
    """Write OOS lines to a file and a lake until both have all of them, against logging alone."""
    count = max(2 * scale.bulk, 2_000)
    with directory() as root:
        home = iter(range(1_000))

        def run(code: str, lines: int) -> object:
            place = root / str(next(home))
            place.mkdir()
            return child(code, str(place), str(lines)).result

        ours, peer = interleave(
            min(scale.rounds, 3),
            lambda: run(OOS_PROGRAM, count),
            lambda: run(_STANDARD, count // 4),
        )
    if any(stored != count or dropped for _, _, stored, dropped in ours):
        raise AssertionError(f"{count} lines were logged, and the lake has {ours}")
    rates, calls = [r[0] for r in ours], [r[1] for r in ours]
    return [
        Row("file and lake, both have all", "ev/s", rates, peer, Target(">=", 1.5)),
        Row(
            "the same, thousand events/s",
            "k",
            [rate / 1000 for rate in rates],
            [],
            Target(">=", 150, "figure"),
        ),
        Row("p99 of a call", "us", calls, [], Target("<=", 50, "figure")),
    ]


_LOADED = """
import mmap, os, struct, sys, time
import lakelog
kind, root, ledger = sys.argv[1:]
fd = os.open(ledger, os.O_RDWR)
times = mmap.mmap(fd, 0)
write, clock = struct.Struct("<q").pack_into, time.monotonic_ns
if kind == "file":
    log = lakelog.get_logger(root + "/oos.log", lake=root + "/lake")
    def call(i): log.complete("podcast", "A", str(i))
else:
    log = lakelog.get_logger(None, lake=root + "/lake")
    def call(i): log.complete("podcast", "A", str(i))
for i in range(len(times) // 8):
    call(i)
    write(times, 8 * i, clock())
"""
_TIME = struct.Struct("<q")
_ROOM = 4_000_000


def killed(scale: Scale) -> list[Row]:
    """Kill loggers under load; the age of the oldest event that is lost, the worst of all."""
    rounds = max(2 * scale.rounds, 2) if scale.rounds < 5 else 100
    worst = {kind: [_kill(kind, number) for number in range(rounds)] for kind in ("file", "lake")}
    return [
        Row(
            f"kill -9, {rounds} times: lost, {kind}",
            "ms",
            [max(ages)],
            [],
            Target("<=", 50, "figure"),
        )
        for kind, ages in worst.items()
    ]


def _kill(kind: str, seed: int) -> float:
    """Kill one logger; return the age (ms) of the oldest event that the lake does not have.

    Raises AssertionError where there is a gap or a duplicate.
    """
    with directory() as root:
        lakelog.open(root / "lake").close()
        ledger = root / "ledger"
        with open(ledger, "wb") as file:
            file.truncate(8 * _ROOM)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", _LOADED, kind, str(root), str(ledger)]
        process = subprocess.Popen(command, env=environment)
        with open(ledger, "r+b") as file, mmap.mmap(file.fileno(), 0) as times:
            while not _TIME.unpack_from(times)[0]:
                time.sleep(0.01)
            time.sleep(random.Random(seed).uniform(0.2, 0.8))
            moment = time.monotonic_ns()
            process.send_signal(signal.SIGKILL)
            process.wait()
            stored = _stored(kind, root)
            if stored != list(range(len(stored))):
                raise AssertionError(f"{kind}, {seed}: events are missing or doubled")
            lost = _TIME.unpack_from(times, 8 * len(stored))[0]
            return (moment - lost) / 1e6 if lost else 0.0


def _stored(kind: str, root: Path) -> list[int]:
    """The numbers that the lake has, once what the killed process left is there too."""
    with lakelog.open(root / "lake") as lake:
        if kind == "file":
            lines = (root / "oos.log").read_bytes().count(b"\n")
            while lake.count() < lines:
                time.sleep(0.02)
            lake.ingest(root / "oos.log")
        else:
            # A process that logs to the lake stores what is in the buffer of one that was killed.
            code = "log = lakelog.get_logger(None, lake=sys.argv[1]); log.fail('x', 'B', '0')"
            child(f"import lakelog\n{code}\nlog.flush(); result = 0", str(root / "lake"))
        query = "SELECT subject::BIGINT FROM events WHERE source = 'A' ORDER BY 1"
        return [number for (number,) in lake.sql(query).fetchall()]
