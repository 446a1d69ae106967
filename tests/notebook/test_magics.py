"""Runs `shell_cases.py`, the tests of magics, in a process of its own.

A shell of IPython changes its process for good, and other tests of the suite fork theirs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.requirements import need_module

need_module("IPython")


def test_magics_in_a_shell() -> None:
    cases = Path(__file__).with_name("shell_cases.py")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", str(cases)]
    root = cases.parents[2]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
