"""Plays rows: one process a core, each case in a fresh folder, until its count or its time is up.

Workers are forked before anything of a row has run, count in shared memory and tell their parent
what they found, each by a pipe. A case that raises is a finding; three findings end a row. A case
whose process dies, or has to be killed for it stands still, is one too: another goes on behind it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import mmap
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support.scratch import MEMORY, memory
from tests.torture import mounts
from tests.torture.case import Case, Row, Tally

FINDINGS = 3
LATE = 1.5
"""So many times its patience, and a case that did not notice is killed."""


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
    next: int = 0
    """The first case that was not played, if it is to go on."""

    def add(self, more: Result) -> None:
        """Add what came of going on."""
        self.tally.add(more.tally)
        self.findings += more.findings
        self.seconds += more.seconds
        self.next = more.next

    @property
    def short(self) -> int:
        """What is missing, where more cases and more time are all it takes."""
        over = self.skipped or self.findings or self.row.cases is not None
        return 0 if over else max(self.target - self.tally.done, 0)

    @property
    def holds(self) -> bool:
        """Whether nothing was wrong and the count was reached."""
        return not self.findings and (bool(self.skipped) or self.tally.done >= self.target)


def play(
    row: Row, seed: int, number: int, size: float = 1.0, patience: int = 0
) -> tuple[Tally, str]:
    """Play one case in this process, for `patience` seconds at most if it is given; return what it
    counted, and the error if it found one."""
    folder = tempfile.mkdtemp(prefix=_prefix(os.getpid()), dir=memory())
    tally = Tally()
    with pytest.MonkeyPatch.context() as patch:
        case = Case(row.name, seed, number, Path(folder), patch, size, tally)
        if patience:
            signal.signal(signal.SIGALRM, _stands_still)
            signal.alarm(patience)
        try:
            row.play(case)
            return tally, ""
        # The engine loses what a handler raises, and ours says KeyboardInterrupt for it; what does
        # not raise fails by an exception of its own.
        except (Exception, StandsStill, KeyboardInterrupt, pytest.fail.Exception):
            return tally, traceback.format_exc()
        finally:
            if patience:
                signal.alarm(0)
            shutil.rmtree(folder, ignore_errors=True)


class Board:
    """What workers and their parent share: whether to stop, what each has done, the case that each
    plays and since when."""

    def __init__(self, jobs: int) -> None:
        self._cells = memoryview(mmap.mmap(-1, 8 * (1 + 3 * jobs))).cast("q")
        self._jobs = jobs

    @property
    def stopped(self) -> bool:
        """Whether no more cases are to be begun."""
        return bool(self._cells[0])

    @property
    def done(self) -> int:
        """What all have verified."""
        return sum(self._cells[1 : 1 + self._jobs])

    def stop(self) -> None:
        """Begin no more cases."""
        self._cells[0] = 1

    def begin(self, index: int, number: int) -> None:
        """A worker begins a case."""
        self._cells[1 + self._jobs + index] = number
        self._cells[1 + 2 * self._jobs + index] = time.monotonic_ns()

    def add(self, index: int, done: int) -> None:
        """A worker has verified so many more."""
        self._cells[1 + index] += done

    def played(self, index: int) -> tuple[int, float]:
        """The case that a worker plays, and for how many seconds."""
        began = self._cells[1 + 2 * self._jobs + index]
        seconds = (time.monotonic_ns() - began) / 1e9 if began else 0.0
        return self._cells[1 + self._jobs + index], seconds


@dataclass
class Worker:
    """One process that plays cases, and the pipe it tells them by."""

    index: int
    pid: int
    pipe: int
    _held: bytes = b""

    def lines(self, wait: float) -> Iterator[dict[str, Any]]:
        """What it told since the last time."""
        while select.select([self.pipe], [], [], wait)[0]:
            data = os.read(self.pipe, 1 << 16)
            if not data:
                return
            *whole, self._held = (self._held + data).split(b"\n")
            yield from map(json.loads, whole)
            wait = 0

    def ended(self) -> int | None:
        """Its status once it has ended, None before."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return status if pid else None

    def kill(self) -> None:
        """Kill it and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def clear(self) -> None:
        """Remove what it left, mounts and folders too."""
        os.close(self.pipe)
        # In both places: there may be room in memory now where there was none, or the reverse.
        for place in (MEMORY, tempfile.gettempdir()):
            for folder in Path(place).glob(f"{_prefix(self.pid)}*"):
                mounts.release(folder)
                shutil.rmtree(folder, ignore_errors=True)


class Crew:
    """The workers of one row."""

    def __init__(
        self, result: Result, jobs: int, until: float, patience: int, board: Board
    ) -> None:
        self._result, self._jobs, self._until = result, jobs, until
        self._patience, self._board = patience, board
        self._workers = [self._start(index, result.next + index) for index in range(jobs)]

    def work(self) -> None:
        """Hear the workers until all have ended."""
        while self._workers:
            for worker in list(self._workers):
                self._hear(worker, 0.5 / len(self._workers))
                number, seconds = self._board.played(worker.index)
                late = seconds > LATE * self._patience
                if late:
                    worker.kill()
                    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
                status = worker.ended()
                if status is not None:
                    self._part(worker, number, status, late)
            if len(self._result.findings) >= FINDINGS:
                self._board.stop()

    def end(self) -> None:
        """Kill those that are left."""
        for worker in self._workers:
            worker.kill()
            os.waitpid(worker.pid, 0)
            worker.clear()

    def _start(self, index: int, first: int) -> Worker:
        result, (ours, theirs) = self._result, os.pipe()
        self._board.begin(index, first)  # or its time would be that of the one before
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            os.setpgid(0, 0)
            # What others registered waits for threads that only the parent has.
            atexit._clear()
            told = Told(result, index, self._jobs, theirs, self._board)
            _work(told, first, self._until, self._patience)
        with contextlib.suppress(OSError):  # it was faster, or is gone already
            os.setpgid(pid, pid)
        os.close(theirs)
        return Worker(index, pid, ours)

    def _hear(self, worker: Worker, wait: float) -> None:
        result = self._result
        for told in worker.lines(wait):
            result.tally.add(Tally(*told["tally"][:3], notes=told["tally"][3]))
            if told["error"]:
                result.findings.append(
                    Finding(result.row.name, result.seed, told["number"], told["error"])
                )

    def _part(self, worker: Worker, number: int, status: int, late: bool) -> None:
        """Let go of a worker; if it died in a case, another goes on with the next."""
        self._hear(worker, 0)
        self._workers.remove(worker)
        worker.kill()
        worker.clear()
        if status:
            still = f"it stood still for {LATE * self._patience:.0f} s and was killed"
            code = os.waitstatus_to_exitcode(status)
            died = f"its process {'ended' if code > 0 else 'was killed'} with {abs(code)}"
            self._result.findings.append(
                Finding(self._result.row.name, self._result.seed, number, still if late else died)
            )
            self._workers.append(self._start(worker.index, number + self._jobs))


def run(
    row: Row, target: int, seconds: float, seed: int, jobs: int, patience: int = 0, first: int = 0
) -> Result:
    """Play a row from its case `first` on until `target` is verified or `seconds` are over; no case
    may take much longer than `patience` seconds, by default the row's."""
    result = Result(row, target, seed, skipped=row.missing(), next=first)
    if result.skipped:
        return result
    began = time.monotonic()
    board = Board(jobs)
    crew = Crew(result, jobs, began + seconds, patience or row.patience, board)
    try:
        crew.work()
    finally:
        crew.end()
    result.next = 1 + max(board.played(index)[0] for index in range(jobs))
    result.seconds = time.monotonic() - began
    return result


@dataclass
class Told:
    """What a worker plays, and where it tells what it found."""

    result: Result
    index: int
    jobs: int
    pipe: int
    board: Board


def _work(told: Told, number: int, until: float, patience: int) -> NoReturn:
    code, row, board = 1, told.result.row, told.board
    try:
        while row.cases is None or number < row.cases:
            enough = row.cases is None and board.done >= told.result.target
            if board.stopped or enough or time.monotonic() >= until:
                break
            board.begin(told.index, number)
            tally, error = play(row, told.result.seed, number, patience=patience)
            board.add(told.index, tally.done)
            figures = [tally.done, tally.fired, tally.skipped, tally.notes]
            line = json.dumps({"number": number, "tally": figures, "error": error[-3000:]})
            os.write(told.pipe, line.encode() + b"\n")
            number += told.jobs
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()  # lakes that were made once for all cases go
        os._exit(code)


def _prefix(pid: int) -> str:
    """What names of folders of a process begin with."""
    return f"torture-{pid}-"


def _stands_still(*_: object) -> None:
    raise StandsStill("the case stands still")
