"""The most memory that a process has had. Not ru_maxrss: that is at least what the process had
which started it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def peak(process: int | str = "self") -> int:
    """The most memory that a process has had, in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def forget() -> None:
    """Count this process's most memory from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def growth(code: str, *arguments: str) -> int:
    """By how many bytes code makes a new process grow; what it does before it calls `begin()` does
    not count."""
    script = (
        "from tests.support.peak_memory import peak\n"
        "def begin():\n"
        "    global _before\n"
        "    _before = peak()\n"
        f"begin()\n{code}\n"
        "print(peak() - _before)\n"
    )
    command = [sys.executable, "-c", script, *arguments]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.split()[-1])
