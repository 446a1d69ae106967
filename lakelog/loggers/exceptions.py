"""Exceptions as data: type, message, notes, frames, and what caused them."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType

from lakelog.values import JsonObject

_CHAIN_MAX = 20


def exception_data(error: BaseException, trace: TracebackType | None = None) -> JsonObject:
    """Return an exception as `{type, message, frames, cause, context, exceptions, notes}`.

    `frames` are those of the traceback, the outermost first, each `{file, line, function, code}`.
    `cause` is what it was raised from, else `context` what was being handled; `exceptions` are
    those of a group. Members that would be empty are left out.
    """
    return _data(error, trace or error.__traceback__, set())


def _data(
    error: BaseException, trace: TracebackType | None, visited: set[int]
) -> dict[str, object]:
    visited.add(id(error))
    data: dict[str, object] = {
        "type": type_name(type(error)),
        "message": text_of(error),
        "frames": _frames(trace),
    }
    if notes := getattr(error, "__notes__", None):
        data["notes"] = [text_of(note) for note in notes]
    inner, role = error.__cause__, "cause"
    if inner is None and not error.__suppress_context__:
        # `raise … from None` hides the context on purpose.
        inner, role = error.__context__, "context"
    # Chains may be circular, and as long as a retry loop ran.
    if inner is not None and id(inner) not in visited and len(visited) < _CHAIN_MAX:
        data[role] = _data(inner, inner.__traceback__, visited)
    if isinstance(error, BaseExceptionGroup):
        data["exceptions"] = [
            _data(e, e.__traceback__, visited) for e in error.exceptions if id(e) not in visited
        ]
    return data


def _frames(trace: TracebackType | None) -> list[dict[str, object]]:
    return [
        # Source lines are read from the files, which may be gone: then they are empty.
        {"file": f.filename, "line": f.lineno, "function": f.name, "code": f.line or ""}
        for f in traceback.extract_tb(trace)
    ]


def type_name(error_type: type[BaseException]) -> str:
    """Return the name of an exception's type as tracebacks have it."""
    module, name = error_type.__module__, error_type.__qualname__
    return name if module in ("builtins", "__main__") else f"{module}.{name}"


def add_beside(data: JsonObject, name: str, value: object) -> None:
    """Add a member to the data of an event; what the program gave under its name is kept under the
    next one that is free, with `_` behind it."""
    if name in data:
        add_beside(data, f"{name}_", data[name])
    data[name] = value


def exception_in(info: object) -> BaseException | None:
    """Return the exception that an `exc_info` means: True, an exception, or what exc_info()
    returns."""
    if isinstance(info, BaseException):
        return info
    # A tuple of Nones: there is no exception.
    if isinstance(info, tuple):
        return info[1] if len(info) > 1 and isinstance(info[1], BaseException) else None
    return sys.exc_info()[1] if info else None


def text_of(value: object) -> str:
    """Return the text of a value; of an exception with a `lakelog_text`, that is stored instead."""
    try:
        is_error = isinstance(value, BaseException)
        return str(getattr(value, "lakelog_text", value) if is_error else value)
    except Exception:  # of a __str__ of its own
        return f"<{type(value).__name__}>"
