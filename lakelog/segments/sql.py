"""Quoting for SQL: the only place where a name, text or path becomes part of a query.

Values are bound as parameters wherever a statement takes them. What cannot be bound (names of
columns and tables, texts in views, files in views) goes through here, and never through an f-string
with quotes of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lakelog.appends import StreamSubject
from lakelog.errors import InvalidName
from lakelog.keys import VAULT
from lakelog.runtime.lazy import Lazy
from lakelog.segments import block_ranges

if TYPE_CHECKING:
    from lakelog.segments import engine_files
else:
    engine_files = Lazy("lakelog.segments.engine_files")

_WILDCARD = re.compile(r"[*?\[]")
# Of the columns of segments; all others are text.
_TYPES = {
    "time": "TIMESTAMPTZ",
    "ingested_at": "TIMESTAMPTZ",
    "position": "BIGINT",
    "seq": "BIGINT",
}


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
    escaped = (name.replace("\\", "\\\\").replace('"', '\\"') for name in names)
    return literal("$" + "".join(f'."{name}"' for name in escaped))


def id_key(row: str = "", *, of_streams: bool = False) -> str:
    """Return the identity key of a row's source and id (FORMAT.md, F13.1), where it has an id; with
    `of_streams` that of its stream and version where it has these (F13.6), NULL without any.

    `row` stands before the names, such as `j.`.
    """
    key = f"sha256(coalesce({row}source, '') || chr(0) || {row}id)[1:24]"
    if not of_streams:
        return key
    subject = f"substr({row}origin, {len(StreamSubject.ORIGIN) + 1})"
    text = f"'{StreamSubject.ORIGIN}' || sha256({subject}) || ':' || {row}position::VARCHAR"
    return (
        f"CASE WHEN starts_with({row}origin, '{StreamSubject.ORIGIN}') THEN sha256({text})[1:24]"
        f" WHEN {row}id <> '' THEN {key} END"
    )


def no_rows(columns: Iterable[str]) -> str:
    """Return a query for these columns of segments, each of its type, that has no rows."""
    nulls = ", ".join(f"NULL::{_TYPES.get(name, 'VARCHAR')} AS {name}" for name in columns)
    return f"SELECT {nulls} WHERE false"


def parquet(paths: Iterable[str], *options: str, between: str = ", ") -> str:
    """Return the table function that reads exactly these Parquet files, in this order.

    Raises InvalidName for a path that the engine cannot be given.
    """
    literals = between.join(literal(file_pattern(path)) for path in paths)
    # DuckDB 2.0 takes a directory named `type=web` for a partition, and its name for the value of
    # every row's column `type`.
    settings = ", ".join(("hive_partitioning = false", *options))
    return f"read_parquet([{literals}], {settings})"


def file_pattern(path: str) -> str:
    """Return the pattern that matches this file alone, as DuckDB takes every path for a pattern.

    Raises InvalidName for a path with both a wildcard and a backslash, which has none.
    """
    path = engine_files.engine_name(path) if VAULT.lakes or block_ranges.OPEN else path
    if not _WILDCARD.search(path):
        return path
    if "\\" in path:
        raise InvalidName(
            f"{path!r}: the SQL engine cannot read a path with both a backslash and one of * ? [;"
            " rename the directory"
        )
    return _WILDCARD.sub(lambda match: f"[{match[0]}]", path)
