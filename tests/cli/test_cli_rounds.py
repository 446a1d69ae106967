"""Verbs that work in rounds end at a signal, wherever it comes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.cli import run
from tests.support.processes import environment

_AT_EVERY_STEP = """
import os, signal, sys
from lakelog.cli import rounds

class Nothing:
    commits = 0

def child(n):
    steps = iter(range(n))
    def step(*_):
        if next(steps, None) == n - 1: signal.raise_signal(signal.SIGTERM)
    def work(stop):
        sys.setprofile(step)
        return Nothing()
    signal.alarm(60)
    rounds.repeat(work, lambda *_: None, 0.001)
    signal.raise_signal(signal.SIGTERM)  # with the handler from before

for n in range(1, 61):
    process = os.fork()
    if not process:
        child(n)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


def test_a_signal_in_any_step_of_waiting_ends_the_rounds() -> None:
    """Also where the interrupted thread holds the lock of what it waits for."""
    done = subprocess.run(
        [sys.executable, "-c", _AT_EVERY_STEP],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout.split() == [str(-signal.SIGTERM)] * 60, done.stderr


_STANDS_STILL = """
import sqlite3
from lakelog.cli import rounds, signals

def work(stop):
    print("ready", flush=True)
    endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t"
    sqlite3.connect(":memory:").execute(endless).fetchall()

with signals.ended_by_second_interrupt():
    rounds.repeat(work, lambda *_: None, None)
"""


def test_a_second_interrupt_ends_what_stands_still() -> None:
    """As in the library of a server that does not answer, where no handler of Python runs."""
    with subprocess.Popen(
        [sys.executable, "-c", _STANDS_STILL],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            for _ in range(50):
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1)
                    break
        finally:
            process.kill()
        assert process.communicate()[1] == "lakelog: interrupted\n"
        assert process.returncode == 130


_WAITED_FOR = """
import os, signal, sys, threading
from lakelog.cli import main
threading.Thread(target=threading.Event().wait).start()
threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
sys.argv = ["lakelog", "--lake", sys.argv[1], "sql", "SELECT count(*) FROM range(1000000000000)"]
main()
"""


def test_an_interrupted_verb_ends_though_a_thread_stands_still(tmp_path: Path) -> None:
    """As one does that reads from a bucket which does not answer; Python would wait for it."""
    run(tmp_path / "lake", "init")
    done = subprocess.run(
        [sys.executable, "-c", _WAITED_FOR, str(tmp_path / "lake")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (done.returncode, done.stderr.strip()) == (130, "lakelog: interrupted")
