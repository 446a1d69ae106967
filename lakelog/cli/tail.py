"""tail: the last events, then live ones."""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
from typing import Any

import click

from lakelog.cli import exits
from lakelog.cli.app import App, verb
from lakelog.cli.arguments import moment, time_conditions
from lakelog.cli.options import flag, option
from lakelog.cli.render import terminal
from lakelog.cli.render.monitor import QueryMonitor
from lakelog.cli.render.output import FormatChoice, OutputTarget, write_text
from lakelog.cli.render.tables import cell, fit
from lakelog.cli.render.terminal import many
from lakelog.engine.messages import EngineMessage
from lakelog.errors import InvalidEvent, QueryFailed
from lakelog.history import Snapshot
from lakelog.libraries import pa, rich_cells
from lakelog.query import NewestEvents
from lakelog.render import ColumnBatch, QueryResult, text
from lakelog.subscriptions import GAP, BranchRewound, Follower
from lakelog.values import parse_value

_PAUSE = 0.2
"""Seconds between two looks at whether somebody still reads."""
_COUNT, _ALL = 10, 1 << 62
_NAME_MAX = 16
_WIDTH_MAX = 4000
_COLOURS = {"FATAL": "red", "ERROR": "red", "WARN": "yellow", "DEBUG": "blue", "TRACE": "blue"}
_DATA = NewestEvents.COLUMNS.index("data")


@verb()
def tail(
    app: App,
    follow: bool = flag("-f, --follow", "Show new events as they come, until Ctrl-C."),
    count: int | None = option(
        "-n N", "Number of events to show; 10 by default.", type=click.IntRange(min=0)
    ),
    since: str | None = option(
        "--since TIME",
        "All events since TIME, -n of them at most: a time, or 2h for two hours ago.",
    ),
    where: str | None = option("--where SQL", "Only events for which this SQL condition holds."),
    format: str | None = option(
        "--format FORMAT",
        "lines, or ndjson (or jsonl); by default lines on a terminal, else ndjson.",
        type=FormatChoice(("lines", "ndjson")),
    ),
    as_json: bool = flag("--json", "Short for --format ndjson."),
) -> None:
    """Show the last events in order of arrival; with -f, live ones too.

    Events of all processes, published or not, each once, within a second of
    being stored: one line each on a terminal, else one JSON object per line.
    Ctrl-C ends it with exit code 130, a reader that closes the pipe with 0.
    """
    if as_json and format == "lines":
        raise click.UsageError("--json and --format lines do not go together")
    format = format or ("lines" if terminal.is_terminal(sys.stdout) and not as_json else "ndjson")
    start = moment("--since", since)
    condition = where
    if start is not None:
        count = _ALL if count is None else count
        (young,) = time_conditions(start)
        # The line break ends a comment at the end of the condition, which would hide the bracket.
        condition = young if where is None else f"{young} AND ({where}\n)"
    with app.open() as lake:
        try:
            follower = Follower(lake.subscriptions(), condition)
        # The follower tries the condition at once, so a mistake is one of the option.
        except QueryFailed as error:
            raise click.BadParameter(EngineMessage(error).gist(), param_hint="--where") from None
        show(app, follower, _COUNT if count is None else count, format, is_following=follow)


def show(app: App, follower: Follower, count: int, format: str, *, is_following: bool) -> None:
    """Write the last events of a follower in order of arrival, and then what comes, until Ctrl-C.

    `format` is lines or ndjson.
    """
    # Only for the look back, which may read the whole lake; live events are few.
    with QueryMonitor(follower.interrupt, app.progress("looking back", "s")):
        events = follower.last(count)
    write = _Writer(format == "ndjson")
    # Written before the first look for new events: what was there comes before what comes.
    write(events)
    looks = follower.looks(threading.Event(), lambda: _PAUSE, GAP)
    for tables in looks if is_following else ():
        # Without new events nothing is written, so a closed pipe would not be noticed for hours.
        _check_reader()
        for table in tables:
            if isinstance(table, BranchRewound):
                place = f"{table.snapshot[: Snapshot.SHORT]} ({many(table.events, 'event')})"
                rewound = f"history was rewound by {table.op} to {place}"
                app.say(f"{rewound}; what follows came after it", fg="yellow")
            else:
                write(table)


def day_heading(day: str, *, is_coloured: bool) -> str:
    """Return what stands above the events of a day."""
    return click.style(f"{day} UTC", dim=True) if is_coloured else f"{day} UTC"


def line(event: dict[str, Any], width: int, colour: bool) -> str:
    """Return an event as one line of at most `width` columns: time, level, source, type, and its
    message and data."""
    moment, level = event["time"], cell(event["level"] or "")
    clock = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"
    names = [fit(cell(event[n]), _NAME_MAX) for n in ("source", "type") if event[n]]
    columns = [event["message"] or event["subject"], _pairs(event["data"])]
    content = " ".join(cell(t[:_WIDTH_MAX]) for t in columns if t)
    head = " ".join([clock, f"{fit(level, 5):5}", *names])
    room = width - rich_cells.cell_len(head) - 2
    content = fit(content, room)
    if not colour:
        return f"{head}  {content}".rstrip()
    shade = _COLOURS.get(level.upper())
    # Painted last: escape sequences would count as columns.
    painted = click.style(f"{fit(level, 5):5}", fg=shade, bold=True) if shade else f"{level:5.5}"
    names[-1:] = [click.style(name, bold=True) for name in names[-1:]]
    return " ".join([click.style(clock, dim=True), painted, *names]) + f"  {content}".rstrip()


def _pairs(data: str | None) -> str:
    """Return the members of an object as name=value, without those that are null."""
    # A payload of megabytes would be parsed only to be cut again.
    if not data or not data.startswith("{") or len(data) > _WIDTH_MAX:
        return data or ""
    try:
        members = parse_value(data.encode())
    except InvalidEvent:
        return data
    if not isinstance(members, dict):  # with a key that is there twice it is kept as its text
        return data
    return " ".join(f"{name}={text(value)}" for name, value in members.items() if value is not None)


class _Writer:
    """Writes tables of events to stdout."""

    def __init__(self, as_json: bool) -> None:
        self._as_json, self._day = as_json, ""

    def __call__(self, table: pa.Table) -> None:
        if sys.stdout is None:
            raise click.UsageError("standard output is closed")
        if not table.num_rows:
            return
        out = sys.stdout.buffer
        if self._as_json:
            batches = map(ColumnBatch, table.to_batches(16_384))
            for chunk in QueryResult(list(NewestEvents.COLUMNS), batches, (_DATA,)).encode(
                "ndjson"
            ):
                out.write(chunk)
            out.flush()
            return
        width, colour = terminal.width(), terminal.has_colour(sys.stdout)
        # Written in parts, so that the first lines of a long look back appear at once.
        for batch in table.to_batches(1000):
            output = "".join(self._event_lines(event, width, colour) for event in batch.to_pylist())
            write_text(output, out, OutputTarget("table"))

    def _event_lines(self, event: dict[str, object], width: int, colour: bool) -> str:
        """Return an event's line, after a line with the day where that changes."""
        day, lines = f"{event['time']:%Y-%m-%d}", line(event, width, colour) + "\n"
        if day == self._day:
            return lines
        self._day = day
        return day_heading(day, is_coloured=colour) + "\n" + lines


def _check_reader() -> None:
    """Raise ReaderLeft if nobody reads our pipe any more."""
    try:
        fd = sys.stdout.fileno()
        # Only of a pipe does poll say that the other end is closed.
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return
    except (AttributeError, OSError, ValueError):
        return
    poll = select.poll()
    poll.register(fd, 0)
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        raise exits.ReaderLeft
