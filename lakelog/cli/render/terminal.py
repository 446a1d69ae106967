"""The terminal: detection, width and colours, messages to stderr, confirmation, progress.

NO_COLOR, FORCE_COLOR and TERM=dumb are honoured here for all output.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from lakelog.render import visible
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import shutil
else:
    shutil = Lazy("shutil")

_PAUSE = 0.1
_BAR = 24


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal."""
    # A closed stream raises ValueError, and pythonw or a daemon has None in its place.
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def has_colour(stream: object) -> bool:
    """Whether to colour a stream: NO_COLOR forbids it, FORCE_COLOR demands it, else on a
    terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def width() -> int:
    """Return the terminal's width, at least 20; COLUMNS overrides it, 80 if unknown."""
    # shutil reads COLUMNS itself, and asks the terminal else.
    return max(shutil.get_terminal_size((80, 24)).columns, 20)


def paint(message: str, stream: Any, **style: Any) -> str:
    """Return text with a style (`fg`, `bold`, `dim`) if the stream shows colours."""
    return click.style(message, **style) if has_colour(stream) else message


def say(message: str, **style: object) -> None:
    """Write a message to stderr, in which names of files and events control no terminal."""
    message = "\n".join(map(visible, message.split("\n")))
    painted = paint(message, sys.stderr, **style) if style else message
    click.echo(painted, err=True, color=has_colour(sys.stderr))


def confirm(question: str, yes: bool) -> bool:
    """Ask before something is removed. Without a terminal, --yes or LAKELOG_YES is required."""
    if yes:
        return True
    # A script must not hang on a question, and no answer is not a yes.
    if not is_terminal(sys.stdin):
        # For scripts that are older than the question; whoever sits at a terminal is asked.
        if os.environ.get("LAKELOG_YES", "").strip().lower() in ("1", "true", "yes", "on"):
            return True
        raise click.UsageError(
            f"{question.rstrip('?')}: add --yes, or set LAKELOG_YES=1: there is no terminal to"
            " confirm on"
        )
    click.echo(f"{question} [y/N]: ", nl=False, err=True)
    answer = sys.stdin.readline()  # without readline, which may lose a Ctrl-C
    # An end of input, such as Ctrl-D, is no answer: the run counts as interrupted.
    if not answer:
        raise click.Abort
    return answer.strip().lower() in ("y", "yes")


class ProgressLine:
    """A line on stderr that is overwritten; nothing where stderr is not a terminal.

    Use it as a context manager and call it with (done, total); total 0 means unknown.
    """

    def __init__(self, activity: str, unit: str = "", quiet: bool = False) -> None:
        dumb = os.environ.get("TERM") == "dumb"
        self._shown = is_terminal(sys.stderr) and not dumb and not quiet
        self._what, self._unit = activity, unit
        self._next = self._last = 0.0

    def __call__(self, count: int, total: int = 0, note: str = "") -> None:
        """Show the progress, ten times a second at most."""
        time_now = time.monotonic()
        # The last step is always shown, or a short job would end at what it was before.
        if not self._shown or (time_now < self._next and not 0 < total <= count):
            return
        self._next = time_now + _PAUSE
        line = visible(f"{self._what}  {self._measure(count, total)}  {note}".rstrip())
        # One column less than there are: a full line would wrap, and could not be written over.
        sys.stderr.write(f"\r\x1b[K{line[: width() - 1]}")
        sys.stderr.flush()

    def _measure(self, count_done: int, total: int) -> str:
        is_size = self._unit == "bytes"
        if not total:
            return size(count_done) if is_size else f"{count_done:,} {self._unit}".rstrip()
        share = min(count_done / total, 1.0)
        count = size(count_done) if is_size else f"{count_done:,}"
        whole = size(total) if is_size else f"{total:,} {self._unit}".rstrip()
        bar = "#" * int(share * _BAR)
        return f"[{bar:<{_BAR}}] {share:4.0%}  {count} of {whole}"

    def wipe(self) -> None:
        """Erase the line, before other output takes its place."""
        if self._shown and self._next:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()


def size(count: float) -> str:
    """Return a number of bytes with its unit: 25.8 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def many(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: 1 event, 2,000 events."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def arrival(count: int) -> str:
    """Return how many events are stored under their arrival: no time was found in their lines."""
    return f"arrival {many(count, 'event')}"
