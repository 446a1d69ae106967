"""Tags and branches in a query: what stands before `.events`, `.quarantine` or a view."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import TYPE_CHECKING

from lakelog.lazy import Lazy

if TYPE_CHECKING:
    import duckdb
else:
    duckdb = Lazy("duckdb")


TABLES = ("events", "quarantine")


def qualifiers(
    query: str, data: bytes, tables: Container[str]
) -> Iterator[tuple[int, int, str, str]]:
    """Yield (start, stop, name, table) of what stands before a dot and one of `tables`."""
    starts = duckdb.tokenize(query)
    ends = [*(at for at, _ in starts[1:]), len(data)]
    tokens = [
        (at, data[at:end].strip().decode())
        for (at, kind), end in zip(starts, ends, strict=False)
        if kind != duckdb.token_type.comment
    ]
    before = ""
    for (at, name), (_, dot), (_, table) in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if dot == "." and before != "." and _unquoted(table).lower() in tables:
            yield at, at + len(name.encode()), _unquoted(name), _unquoted(table).lower()
        before = name


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
