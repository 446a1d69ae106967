"""Tasks for workers in tests: functions that other processes can import."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from lakelog.errors import DamagedSegment


def doubled(number: int) -> int:
    """Return twice a number."""
    return 2 * number


def dies_once(number: int, folder: str) -> int:
    """Kill the process at the first attempt, and return the number at the next."""
    mark = Path(folder, str(number))
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def dies() -> None:
    """Kill the process."""
    os.kill(os.getpid(), signal.SIGKILL)


def finds_damage() -> None:
    """Raise an error that has members."""
    raise DamagedSegment("here", "the content does not match its name", 7)


def prints(text: str) -> str:
    """Print a text, as a library might."""
    print(text, flush=True)
    return text
