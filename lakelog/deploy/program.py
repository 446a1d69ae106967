"""Running a program that this machine may have: its answer as text, or one error of one line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence

from lakelog.errors import LakelogError

_SHOWN_MAX = 300


def run(
    command: Sequence[str],
    arguments: Sequence[str],
    failure: type[LakelogError],
    seconds: int,
    *,
    hint: str = "",
    message_of: Callable[[str], str] = str,
) -> str:
    """Return what `command` printed with `arguments`. Raises `failure` if it fails, with what
    `message_of` leaves of its standard error, or does not end in `seconds`, with the `hint`."""
    title = f"{os.path.basename(command[0])} {arguments[0]}"
    try:
        completed = subprocess.run(
            [*command, *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            # One that asks a question would wait for ever: nobody is there to answer.
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise failure(f"{title} did not answer in {seconds:,} s{hint}") from None
    if completed.returncode:
        line = " ".join(message_of(completed.stderr).split())
        # podman and kubectl begin what they say with this word, each in its own case.
        line = line.removeprefix("Error: ").removeprefix("error: ")
        raise failure(f"{title}: {line[:_SHOWN_MAX] or 'it failed'}")
    return completed.stdout
