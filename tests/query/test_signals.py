"""Signals and forks in the middle of appends: no hang, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lakelog

SIGNALS = """
import signal, sys, threading, lakelog
from lakelog.errors import ReentrantAppend
lake, acked, refused, count = lakelog.open(sys.argv[1]), [], [], [0]

def append(name):
    lake.append({"type": "A", "subject": name})
    acked.append(name)

def handler(number, frame):
    count[0] += 1
    try:
        append(f"signal-{count[0]}")
    except ReentrantAppend:
        refused.append(number)

def work(index):
    step = 0
    while count[0] < int(sys.argv[2]):
        append(f"{index}-{step}")
        step += 1

signal.signal(signal.SIGALRM, handler)
other = threading.Thread(target=work, args=(1,))
other.start()
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
work(0)
signal.setitimer(signal.ITIMER_REAL, 0)
other.join()
lake.close()
found = [n for (n,) in lakelog.open(sys.argv[1]).sql("SELECT subject FROM events").fetchall()]
assert sorted(found) == sorted(acked), (len(found), len(acked))
assert refused
"""
FORKS = """
import os, sys, threading, lakelog
lake, acked = lakelog.open(sys.argv[1]), []
other = lakelog.open(sys.argv[1])
stop = threading.Event()

def work(index):
    step = 0
    while not stop.is_set():
        (lake, other)[step % 2].append({"type": "A", "subject": f"{index}-{step}"})
        acked.append(f"{index}-{step}")
        step += 1

def fork(index):
    for step in range(int(sys.argv[2]) // 4):
        name = f"child-{index}-{step}"
        pid = os.fork()
        if not pid:
            if step % 10 == 0:
                lake.append({"type": "A", "subject": name})
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        if step % 10 == 0:
            acked.append(name)

workers = [threading.Thread(target=work, args=(n,)) for n in range(2)]
forkers = [threading.Thread(target=fork, args=(n,)) for n in range(4)]
for thread in (*workers, *forkers):
    thread.start()
for thread in forkers:
    thread.join()
stop.set()
for thread in workers:
    thread.join()
found = [n for (n,) in lake.sql("SELECT subject FROM events").fetchall()]
assert sorted(found) == sorted(acked), (len(found), len(acked))
"""
CLOSE = """
import os, signal, sys, lakelog
from lakelog.errors import WriterClosed
lake, acked = lakelog.open(sys.argv[1]), []
signal.signal(signal.SIGALRM, lambda *_: lake.close())
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    while True:
        lake.append({"type": "A", "subject": str(len(acked))})
        acked.append(1)
except WriterClosed:
    pass
assert lakelog.open(sys.argv[1]).count() == len(acked)
"""


@pytest.mark.parametrize(("program", "count"), [(SIGNALS, 200), (FORKS, 80), (CLOSE, 1)])
def test_signals_and_forks_neither_hang_nor_lose(home: Path, program: str, count: int) -> None:
    """An append or close in a signal handler works or says at once why not; forks of several
    threads take turns while others append."""
    root = str(Path(lakelog.__file__).parent.parent)
    # From 3.12 on Python warns of a fork beside threads, which is what this is about.
    quiet = ("-W", "ignore:This process:DeprecationWarning")
    command = [sys.executable, *quiet, "-c", program, str(home / "lake"), str(count)]
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
