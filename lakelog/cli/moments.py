"""Times on the command line: of the clock, or spans counted back from now."""

from __future__ import annotations

import click

from lakelog.errors import InvalidEvent, InvalidSetting
from lakelog.event.encode import parse_time, to_micros
from lakelog.settings import span_us
from lakelog.store import disk


def moment(option: str, value: str | None) -> int | None:
    """Return the time that an option names, in microseconds. Raises UsageError."""
    if value is None:
        return None
    try:
        # A span first: no time can be taken for one.
        return disk.now_us() - span_us(value)
    except InvalidSetting:
        pass
    try:
        return to_micros(parse_time(value))
    except InvalidEvent:
        raise click.UsageError(
            f"{option} is a time such as 2026-11-20T08:00, or a span such as 2h, not {value!r}"
        ) from None
