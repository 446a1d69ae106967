"""A training set appears whole or not at all, whenever its export is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lakelog import train
from tests.support.trainsets import lake_of, notes, recipe

CODE = """
import sys, lakelog
from lakelog import train
lake = lakelog.open(sys.argv[1])
print("ready", flush=True)
made = {"select": {"sql": "SELECT * FROM events"}, "shape": {"kind": "text"}}
train.export(lake, made, sys.argv[2])
"""


@pytest.mark.matrix
@pytest.mark.parametrize("wait", [0.0, 0.2, 0.5, 1.0])
def test_a_killed_export_leaves_no_directory(home: Path, wait: float) -> None:
    """Killed at any time it leaves a whole export or none, and the next one removes the rest."""
    with lake_of(home / "lake", notes(3000, 300)) as lake:
        command = [sys.executable, "-c", CODE, str(home / "lake"), str(home / "out")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            running.stdout.readline()
            time.sleep(wait)
            running.send_signal(signal.SIGKILL)
            running.wait()
        if (home / "out").exists():
            assert train.check(str(home / "out")).clean
        else:
            train.export(lake, recipe("text"), home / "out")
        assert not list(home.glob(".out.tmp-*"))
