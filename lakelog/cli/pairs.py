"""KEY=VALUE arguments: settings, query parameters, and events given on the command line."""

from __future__ import annotations

from typing import Any

import click
import orjson

from lakelog.errors import InvalidEvent
from lakelog.event.exact import parse_value


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
        orjson.loads(argument)
        return parse_value(argument.encode())
    except (orjson.JSONDecodeError, InvalidEvent, UnicodeEncodeError):
        return argument
