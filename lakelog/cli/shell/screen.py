"""Output of the shell: tables, a pager for tall ones, and errors."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable

from lakelog.cli import exits
from lakelog.cli.render import terminal
from lakelog.cli.render.monitor import is_cancelled
from lakelog.cli.render.output import OutputTarget, write_text
from lakelog.cli.render.tables import ROWS_MAX, cell, names_of, render
from lakelog.cli.render.terminal import many
from lakelog.engine.messages import EngineMessage
from lakelog.errors import QueryFailed
from lakelog.render import QueryResult

_BELOW = 3
"""Lines that follow a table: its count, and the prompt."""


def draw(result: QueryResult) -> tuple[str, str, str]:
    """Return (the table, the number of rows, what is left out)."""
    rows = [row for batch in result.batches for row in batch]
    colour = terminal.has_colour(sys.stdout)
    drawing, left_out = render(result.columns, rows[:ROWS_MAX], terminal.width(), colour)
    is_cut = len(rows) > ROWS_MAX
    # All rows of a table were fetched already, but only so many are drawn.
    count_words = f"the first {ROWS_MAX} rows" if is_cut else many(len(rows), "row")
    note = ".format csv shows all" if is_cut or left_out else ""
    if left_out:
        shown_columns = f"{len(result.columns) - len(left_out)} of {len(result.columns)} columns"
        note = f"{shown_columns}, not {names_of(left_out)}; {note}"
    return drawing, count_words, note


def show(content: str) -> None:
    """Write a text to stdout, or to a pager if it is taller than the screen."""
    command = pager(content)
    if command:
        page(content.encode(sys.stdout.encoding or "utf-8", "replace"), command)
    else:
        write_text(content, sys.stdout.buffer, OutputTarget("table"))


def pager(content: str) -> list[str]:
    """Return the command of a pager for a text on stdout; nothing where none is needed or
    installed.

    PAGER="" turns it off.
    """
    try:
        command = shlex.split(os.environ.get("PAGER", "less"))
    # An unclosed quote in PAGER: without a pager is better than without the answer.
    except ValueError:
        return []
    tall = content.count("\n") > shutil.get_terminal_size((80, 24)).lines - _BELOW
    usable = bool(command) and tall and terminal.is_terminal(sys.stdout)
    return command if usable and shutil.which(command[0]) else []


def page(content: bytes, command: list[str]) -> None:
    """Show a text in a pager. Ctrl-C then belongs to the pager, which may end before it read
    everything."""
    # F, R, X: end at once if all fits, keep colours, leave the text on the screen. The user's own
    # LESS wins.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env={"LESS": "FRX", **os.environ})
    # Ctrl-C belongs to the pager; the shell must survive it.
    previous_handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with contextlib.suppress(BrokenPipeError):
            process.communicate(content)
        process.wait()
    finally:
        signal.signal(signal.SIGINT, previous_handler)


def complain(error: BaseException, query: str = "", as_typed: Callable[[str], str] = str) -> None:
    """Report an error: the engine's own lines with their caret, else one line."""
    if is_cancelled(error):
        terminal.say("cancelled", fg="yellow")
        return
    if os.environ.get("LAKELOG_DEBUG"):
        traceback.print_exception(error)
    is_query_error = isinstance(error, QueryFailed) or exits.is_engine(error)
    message = (
        EngineMessage(as_typed(str(error))).renumbered(query)
        if is_query_error
        else f"error: {exits.words_of(error)}"
    )
    headline, *details = [cell(line) for line in message.splitlines()] or [type(error).__name__]
    terminal.say(headline, fg="red")
    for line in details:
        terminal.say(line)


def duration(seconds: float) -> str:
    """Return a duration with its unit: 12 ms, 3.4 s."""
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"
