"""A program as handler: it reads events from its standard input, and may write what is appended."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import orjson

from lakelog.errors import LakelogError
from lakelog.event.types import Event
from lakelog.subscriptions.delivery import ReadEvent

COLUMNS = tuple("time type category source subject level message id data".split())
"""What a program is given of an event: what an append takes."""


class CommandHandler:
    """Starts a command for each batch of events, one JSON line each; 0 means that it handled all.

    With `appends`, the JSON lines that it writes are events to append.
    """

    def __init__(self, command: str, *, appends: bool = False) -> None:
        self._command, self._appends = command, appends

    def __call__(self, events: Sequence[ReadEvent]) -> list[Event]:
        """Run the command. Raises LakelogError where it fails, or writes what is no event."""
        process = subprocess.run(
            self._command,
            shell=True,
            input=b"".join(map(line_of, events)),
            stdout=subprocess.PIPE if self._appends else None,
            check=False,
        )
        if process.returncode:
            raise LakelogError(f"the command {self._command!r} ended with {process.returncode}")
        try:
            return [orjson.loads(line) for line in (process.stdout or b"").splitlines() if line]
        except orjson.JSONDecodeError as error:
            raise LakelogError(
                f"the command {self._command!r} wrote a line that is not JSON: {error}"
            ) from None


def line_of(event: ReadEvent) -> bytes:
    """Return an event as a line of JSON, which `lakelog append` takes."""
    members = {name: event[name] for name in COLUMNS if event.get(name) is not None}
    if isinstance(members.get("data"), str):
        members["data"] = orjson.Fragment(members["data"])
    return orjson.dumps(members, option=orjson.OPT_UTC_Z) + b"\n"
