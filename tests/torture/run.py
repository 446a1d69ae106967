"""Plays rows: one process a core, each case in a fresh folder, until its count or its time is up.

Workers are forked before anything of a row has run, count in shared memory and tell their parent
what they found by a pipe. A case that raises is a finding; three findings end a row.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import mmap
import os
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support.world import MEMORY
from tests.torture.case import Case, Row, Tally

FINDINGS = 3
PATIENCE = 200
"""Seconds after which a case stands still."""


class StandsStill(BaseException):
    """No case may take so long; nothing of lakelog catches this by mistake."""


@dataclass
class Finding:
    """A case that went wrong, and how."""

    row: str
    seed: int
    number: int
    text: str

    @property
    def replay(self) -> str:
        """The line that plays it again."""
        return f"python -m tests.torture {self.row} --seed {self.seed} --case {self.number}"


@dataclass
class Result:
    """What became of a row."""

    row: Row
    target: int
    seed: int
    tally: Tally = field(default_factory=Tally)
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0
    skipped: str = ""

    @property
    def holds(self) -> bool:
        """Whether nothing was wrong and the count was reached."""
        return not self.findings and (bool(self.skipped) or self.tally.done >= self.target)


def play(
    row: Row, seed: int, number: int, size: float = 1.0, patience: int = 0
) -> tuple[Tally, str]:
    """Play one case in this process, for `patience` seconds at most if it is given; return what it
    counted, and the error if it found one."""
    folder = tempfile.mkdtemp(prefix="torture-", dir=MEMORY)
    tally = Tally()
    with pytest.MonkeyPatch.context() as patch:
        case = Case(row.name, seed, number, Path(folder), patch, size, tally)
        if patience:
            signal.signal(signal.SIGALRM, _stands_still)
            signal.alarm(patience)
        try:
            row.play(case)
            return tally, ""
        except (Exception, StandsStill):
            return tally, traceback.format_exc()
        finally:
            if patience:
                signal.alarm(0)
            shutil.rmtree(folder, ignore_errors=True)


def run(row: Row, target: int, seconds: float, seed: int, jobs: int) -> Result:
    """Play a row until `target` is verified or `seconds` are over."""
    result = Result(row, target, seed, skipped=row.missing())
    if result.skipped:
        return result
    began = time.monotonic()
    counted = mmap.mmap(-1, 8 * (jobs + 1))
    ours, theirs = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pids = []
    for index in range(jobs):
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            _work(row, seed, index, jobs, counted, target, began + seconds, theirs)
        pids.append(pid)
    os.close(theirs)
    try:
        for told in _lines(ours):
            result.tally.add(Tally(*told["tally"][:3], notes=told["tally"][3]))
            if told["error"]:
                result.findings.append(Finding(row.name, seed, told["number"], told["error"]))
                if len(result.findings) >= FINDINGS:
                    counted[:8] = struct.pack("q", 1)
    finally:
        os.close(ours)
        _end(pids, result)
    result.seconds = time.monotonic() - began
    return result


def _end(pids: list[int], result: Result) -> None:
    """Wait for the workers; one that died is a finding too."""
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        if status:
            died = f"a worker died with status {status}"
            result.findings.append(Finding(result.row.name, result.seed, 0, died))


def _work(
    row: Row, seed: int, index: int, jobs: int, counted: mmap.mmap, target: int, until: float,
    pipe: int,
) -> NoReturn:  # fmt: skip
    code = 1
    try:
        number, slot = index, 8 * (index + 1)
        while row.cases is None or number < row.cases:
            stop, *done = struct.unpack(f"{jobs + 1}q", counted[:])
            enough = row.cases is None and sum(done) >= target
            if stop or enough or time.monotonic() >= until:
                break
            tally, error = play(row, seed, number, patience=PATIENCE)
            counted[slot : slot + 8] = struct.pack("q", done[index] + tally.done)
            figures = [tally.done, tally.fired, tally.skipped, tally.notes]
            line = json.dumps({"number": number, "tally": figures, "error": error[-3000:]})
            os.write(pipe, line.encode() + b"\n")
            number += jobs
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()  # lakes that were made once for all cases go
        os._exit(code)


def _lines(pipe: int) -> Iterator[dict[str, Any]]:
    with os.fdopen(os.dup(pipe), "rb") as file:
        for line in file:
            yield json.loads(line)


def _stands_still(*_: object) -> None:
    raise StandsStill("the case stands still")
