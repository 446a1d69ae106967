"""What is typed as an argument: KEY=VALUE for settings, parameters and events; times and spans."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import click
import orjson

from lakelog.disk import disk
from lakelog.errors import InvalidEvent, InvalidSetting
from lakelog.settings import span_us
from lakelog.values import parse_time, parse_value, to_micros


def utf8(argument: str) -> str:
    """Return an argument as UTF-8, which a terminal sends whatever the locale of the process says;
    one that is in no encoding stays as it is."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        with contextlib.suppress(UnicodeError):
            return os.fsencode(argument).decode()
    return argument


def event_of(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return the event that KEY=VALUE arguments describe. Raises UsageError."""
    event: dict[str, Any] = {}
    for pair in pairs:
        key, value = pair_of(pair)
        *path, leaf = key.split(".") if "." in key.strip(".") else [key]
        # Dots nest only inside data: `a.b=1` means data.a.b, as a column has no members.
        if path and path[0] != "data":
            path = ["data", *path]
        place = event
        # setdefault returns what is there, which may be a scalar of `data.a=1` before `data.a.b=2`.
        for name in path:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise click.UsageError(f"{key}: {name} has a value of its own already")
        # Refused and not overwritten: which of two values was meant cannot be known.
        if leaf in place:
            raise click.UsageError(f"{key} is given twice")
        place[leaf] = value_of(value)
    return event


def pair_of(argument: str) -> tuple[str, str]:
    """Split KEY=VALUE. Raises UsageError."""
    key, equals, value = argument.partition("=")
    if not equals or not key:
        raise click.UsageError(f"{argument!r} is not KEY=VALUE; a file is read with < FILE")
    return key, value


def value_of(argument: str) -> Any:
    """Return VALUE as JSON if it parses, else as text."""
    try:
        # orjson refuses NaN and bare words; parse_value then keeps integers that no double can
        # hold.
        orjson.loads(argument)
        return parse_value(argument.encode())
    except (orjson.JSONDecodeError, InvalidEvent, UnicodeEncodeError):
        return argument


def time_conditions(since: int | None, until: int | None = None) -> list[str]:
    """Return the SQL conditions of events between two times, in microseconds."""
    bounds = ((">=", since), ("<", until))
    return [f"time {sign} make_timestamptz({at})" for sign, at in bounds if at is not None]


def require_times(since: str | None, until: str | None) -> None:
    """Raise UsageError, which names the option, unless both are times."""
    for option, value in (("--since", since), ("--until", until)):
        moment(option, value)


def moment(option: str, value: str | None, asked_us: int | None = None) -> int | None:
    """Return the time that an option names, in microseconds: a span ends when it was asked for, now
    unless another time is given. Raises UsageError."""
    if value is None:
        return None
    try:
        # A span first: no time can be taken for one.
        return (disk.now_us() if asked_us is None else asked_us) - span_us(value)
    except InvalidSetting:
        pass
    try:
        return to_micros(parse_time(value))
    except InvalidEvent:
        raise click.UsageError(
            f"{option} is a time such as 2026-11-20T08:00, or a span such as 2h, not {value!r}"
        ) from None
