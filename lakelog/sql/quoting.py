"""Quoting for SQL: the only place where a name, text or path becomes part of a query.

Values are bound as parameters wherever a statement takes them. What cannot be bound (names of
columns and tables, texts in views, files in views) goes through here, and never through an f-string
with quotes of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lakelog.errors import InvalidName

# Of the columns of segments; all others are text.
_TYPES = {
    "time": "TIMESTAMPTZ",
    "ingested_at": "TIMESTAMPTZ",
    "position": "BIGINT",
    "seq": "BIGINT",
}

_DIVIDED_MAX = 4
"""A field of more names is not divided at each of its dots."""


def identifier(name: str) -> str:
    """Return the name of a column, table or schema. Raises InvalidName for one with a NUL."""
    if "\0" in name:
        raise InvalidName(f"{name!r} has a NUL character: it cannot be a name in SQL")
    return '"' + name.replace('"', '""') + '"'


def literal(string: str) -> str:
    """Return a text; one with NUL characters as an expression, as no SQL text can hold them."""
    literals = ["'" + plain.replace("'", "''") + "'" for plain in string.split("\0")]
    return literals[0] if len(literals) == 1 else f"({' || chr(0) || '.join(literals)})"


def json_path(names: Iterable[str]) -> str:
    """Return the literal of the JSON path to a member, one name for each level."""
    levels = [*names]
    if "" in levels:  # which no path of the engine can have: a JSON pointer can (RFC 6901)
        pointers = (name.replace("~", "~0").replace("/", "~1") for name in levels)
        return literal("".join(f"/{name}" for name in pointers))
    escaped = (name.replace("\\", "\\\\").replace('"', '\\"') for name in levels)
    return literal("$" + "".join(f'."{name}"' for name in escaped))


def member_paths(field: str) -> list[str]:
    """Return the literals of the JSON paths that a field may stand for, members of members first:
    names of members have dots, too, as those of OpenTelemetry do."""
    return [json_path(path) for path in _divided(field)]


def _divided(field: str) -> Iterator[tuple[str, ...]]:
    names = field.split(".")
    if len(names) > _DIVIDED_MAX:  # there would be hundreds
        for depth in reversed(range(len(names))):
            yield *names[:depth], ".".join(names[depth:])
        return
    member, dot, remaining = field.partition(".")
    for path in _divided(remaining) if dot else ():
        yield member, *path
        yield f"{member}.{path[0]}", *path[1:]
    if not dot:
        yield (field,)


def no_rows(columns: Iterable[str]) -> str:
    """Return a query for these columns of segments, each of its type, that has no rows."""
    nulls = ", ".join(f"NULL::{_TYPES.get(name, 'VARCHAR')} AS {name}" for name in columns)
    return f"SELECT {nulls} WHERE false"
