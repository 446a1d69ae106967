"""kill -9 at random moments: of writers and housekeepers, of ingest, and of exports."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from lakelog import cli
from tests.support import killed_crews, killed_ingests, lakes
from tests.torture.case import Case, Row

KINDS = list(killed_ingests.KILLS)


def crews(case: Case) -> None:
    """Kill members of a crew: three writers, a sealer, a compactor and gc."""
    kills = case.some(25)
    case.tally.notes["acks"] += killed_crews.survive(str(case.place / "lake"), case.start, kills)
    case.verified(kills, kills)


def ingests(case: Case) -> None:
    """Kill the ingest of a growing file."""
    kind = KINDS[case.number % len(KINDS)]
    name = f"{kind} {case.start}"
    kills, moves = killed_ingests.survive(case.place, kind, name, case.some(10))
    case.tally.notes["publishes"] += moves
    case.verified(kills, kills)


def exports(case: Case) -> None:
    """Kill `lakelog sql --output`: the file is the old one or the whole new one."""
    path, dice = str(case.place / "lake"), case.dice
    with lakes.opened(path, threads=1) as lake:
        lake.append(lakes.events("E", 20_000))
        lake.settle()
    for ending in ("csv", "parquet", "ndjson"):
        target = case.place / f"out.{ending}"
        for _ in range(case.some(4)):
            target.write_bytes(b"old")
            fired = _killed_export(path, target, dice)
            data = target.read_bytes()
            assert data == b"old" or _whole(data, ending), f"half of {target.name} is there"
            case.verified(fired)


def _killed_export(path: str, target: Path, dice: random.Random) -> int:
    """Start an export and kill it a little after its file has begun; 1 if it was still at it."""
    before = set(os.listdir(target.parent))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
            words = ["--lake", path, "sql", "SELECT * FROM events", "-o", str(target)]
            cli.cli.main(words)
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        finally:
            os._exit(code)
    until = time.monotonic() + 5
    while set(os.listdir(target.parent)) <= before and time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert status == 0, f"the export failed with {status}"
            return 0
        time.sleep(0.001)
    time.sleep(dice.random() * 0.06)
    os.kill(pid, signal.SIGKILL)
    killed = int(os.WIFSIGNALED(os.waitpid(pid, 0)[1]))
    for name in set(os.listdir(target.parent)) - before:
        os.unlink(target.parent / name)
    return killed


def _whole(data: bytes, ending: str) -> bool:
    if ending == "parquet":
        return data[:4] == data[-4:] == b"PAR1"
    return data.endswith(b"\n") and data.count(b"\n") == 20_000 + (ending == "csv")


ROWS = [
    Row("kills", "crew killed, acks kept", 300, 3000, 70, crews),
    Row("ingest", "ingest killed, each once", 200, 1000, 22, ingests),
    Row("export", "exports killed, whole", 60, 600, 14, exports),
]
