"""Verbs that work in rounds end at a signal, wherever it comes."""

from __future__ import annotations

import signal
import subprocess
import sys

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
