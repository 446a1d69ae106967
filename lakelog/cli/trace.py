"""trace: everything that one request or run of an agent caused, as a tree."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from lakelog.cli.app import App, state_option, verb
from lakelog.cli.options import argument, flag
from lakelog.cli.render import terminal
from lakelog.cli.render.output import OutputTarget, emit_record, write_text
from lakelog.cli.render.tables import cell, fit
from lakelog.cli.render.terminal import many, paint
from lakelog.trace import TraceEvent, TraceTree

_WIDTH_MAX = 80
_DEPTH_MAX = 12
_TYPE = 14
_TOGETHER = 1_000


@verb()
def trace(
    app: App,
    id: str = argument("ID"),
    at: str | None = state_option("As of a tag, branch, snapshot or time."),
    as_json: bool = flag("--json", "Print the events as JSON, with all their ids."),
) -> None:
    """Show everything that one request or run of an agent caused, as a tree.

    ID is the id of an event, a trace, a span or a correlation. Each line has the time
    since the first event, how long it took, level, type and message. Below an event
    stands what it caused: by causationId, parentSpanId, or within its span.
    """
    with app.open() as lake:
        found_trace = (lake if at is None else lake.at(at)).trace(id)
    if as_json:
        record = {"id": id, "events": [event.record() for event in found_trace.events]}
        emit_record(record, OutputTarget("json"), lambda: "")
        return
    lines = list[str]()
    for line in _lines(found_trace):
        lines.append(line)
        # Written in parts: a trace may have 100,000 events.
        if len(lines) == _TOGETHER:
            write_text("".join(lines), sys.stdout.buffer, OutputTarget("table"))
            lines = []
    write_text("".join(lines), sys.stdout.buffer, OutputTarget("table"))


def _lines(found_trace: TraceTree) -> Iterator[str]:
    width = min(terminal.width(), _WIDTH_MAX)
    first = found_trace.events[0].event if found_trace.events else None
    # The root is the first event, but causes may carry later clocks than their effects.
    begins = f" from {min(e.event.time for e in found_trace.events):%Y-%m-%d %H:%M:%S}"
    yield f"{many(len(found_trace), 'event')}{begins if first else ''}\n"
    for event in found_trace.events:
        yield _line(event, width) + "\n"


def _line(placed: TraceEvent, width: int) -> str:
    event = placed.event
    took = "" if event.duration_ms is None else span(event.duration_ms)
    # What is deeper than the line is wide is indented no further.
    indent = "  " * min(placed.depth, _DEPTH_MAX)
    mark = "? " if placed.is_orphan else "∞ " if placed.is_cycle else ""
    # Without a message the source says who it was.
    message = cell(event.message or event.source or "")
    phrase = " ".join(filter(None, (mark + cell(event.type)[:_TYPE], message)))
    level = event.level or ""
    line = f"{'+' + span(placed.offset_ms):>9} {took:>8} {level:<5} {indent}{phrase}"
    is_failure = level in ("ERROR", "FATAL")
    return paint(fit(line, width).rstrip(), sys.stdout, fg="red" if is_failure else None)


def span(milliseconds: float) -> str:
    """Return a time span in few characters."""
    if milliseconds == 0:
        return "0"
    if milliseconds < 1:
        return f"{milliseconds * 1000:.0f}us"
    if milliseconds < 10_000:
        return f"{milliseconds:.3g}ms" if milliseconds < 1000 else f"{milliseconds / 1000:.2f}s"
    seconds = milliseconds / 1000
    if seconds < 600:
        return f"{seconds:.1f}s"
    return f"{seconds / 60:.0f}m" if seconds < 36_000 else f"{seconds / 3600:.1f}h"
