"""Tags and branches in a query: what stands before `.events`, `.quarantine` or a view."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import NamedTuple

from lakelog.libraries import duckdb

TABLES = ("events", "quarantine")


class Token(NamedTuple):
    """A token of a query that is no comment, and the byte at which it begins."""

    start: int
    text: str

    @property
    def stop(self) -> int:
        """The byte after it."""
        return self.start + len(self.text.encode())

    @property
    def name(self) -> str:
        """The name that it is, without quotes."""
        text = self.text
        return text[1:-1].replace('""', '"') if text.startswith('"') else text


def tokens(query: str) -> Iterator[Token]:
    """Yield the tokens of a query."""
    data = query.encode()
    starts = duckdb.tokenize(query)
    ends = [*(start for start, _ in starts[1:]), len(data)]
    for (start, token_type), end in zip(starts, ends, strict=False):
        if token_type != duckdb.token_type.comment:
            yield Token(start, data[start:end].strip().decode())


def qualifiers(query: str, tables: Container[str]) -> Iterator[tuple[int, int, str, str]]:
    """Yield (start, stop, name, table) of what stands before a dot and one of `tables`; places are
    those of bytes."""
    token_list = [*tokens(query)]
    before = ""
    for owner, dot, table in zip(token_list, token_list[1:], token_list[2:], strict=False):
        if dot.text == "." and before != "." and table.name.lower() in tables:
            yield owner.start, owner.stop, owner.name, table.name.lower()
        before = owner.text
