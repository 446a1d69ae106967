"""The first rows of an answer for people: an HTML table for notebooks, and the same as text.

Values come as the engine's own text, cut to VALUE_MAX characters by the engine, so that a row of
megabytes costs nothing. Nothing in them is markup, and characters that control a terminal or turn
the direction of text are shown by their number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakelog.runtime.lazy import Lazy
from lakelog.segments import sql

if TYPE_CHECKING:
    import html
else:
    html = Lazy("html")

ROWS_MAX = 20
VALUE_MAX = 200
_COLUMNS_MAX = 50
_TEXT_MAX = 40
# Directional marks as well: they can make a text read as another one.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")
_NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL\b.*", re.I)
# Colours and borders by opacity: they follow the text's colour, in light and dark themes alike.
_CELL = "padding:0.15em 0.6em;vertical-align:top"
_SHORT, _SHORT_MAX = "white-space:pre", 40
_LONG = "white-space:pre-wrap;overflow-wrap:anywhere;min-width:16em;max-width:40em"
_LINE = "border-bottom:1px solid rgba(128,128,128,0.4)"
_DIM = "opacity:0.6"
TABLE_END = "</tbody></table>\n"
_PLAIN = "tex2jax_ignore mathjax_ignore"
"""Classes by which notebooks know that two dollar signs are no formula."""


def is_number(type_name: str) -> bool:
    """Whether a type, by the engine's name, is one of numbers."""
    return _NUMBER.fullmatch(type_name) is not None


@dataclass(frozen=True)
class DisplayHead:
    """The first rows: each value as text or None. `is_all` if there are no more rows."""

    columns: list[str]
    types: list[str]
    rows: list[tuple[str | None, ...]]
    is_all: bool

    @property
    def right(self) -> list[bool]:
        """Whether a column is of numbers, which are aligned to the right."""
        return [is_number(type_name) for type_name in self.types]

    @property
    def footer(self) -> str:
        """How many rows are shown."""
        count = len(self.rows)
        if not self.is_all:
            return f"the first {count} rows; there are more"
        return "1 row" if count == 1 else f"{count} rows"


def head_sql(columns: list[str]) -> str:
    """SQL expressions for columns as the text that is shown of them."""
    # One character more than is shown tells what was cut.
    head_columns = columns[:_COLUMNS_MAX]
    return ", ".join(
        f"left(CAST(#{place} AS VARCHAR), {VALUE_MAX + 1}) AS {sql.identifier(f'c{place}')}"
        for place, _ in enumerate(head_columns, 1)
    )


def head_of(
    columns: list[str], types: Sequence[object], rows: list[tuple[str | None, ...]]
) -> DisplayHead:
    """Return the head of an answer from the rows of `head_sql`, of which one more was asked for
    than is shown."""
    kinds = [str(column_type) for column_type in types]
    return DisplayHead(columns, kinds, rows[:ROWS_MAX], len(rows) <= ROWS_MAX)


def visible(value: str) -> str:
    """Return text as one line in which characters that act on a terminal are seen."""
    line = value.replace("\r\n", "↵").replace("\n", "↵").replace("\t", " ")
    # By number, so that what is shown can be looked up.
    return _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}", line)


def to_html(head: DisplayHead) -> str:
    """Return the rows as an HTML table, which needs no style sheet and no script."""
    head_columns, remaining = head.columns[:_COLUMNS_MAX], len(head.columns) - _COLUMNS_MAX
    rows = ([None if v is None else _cut(v, VALUE_MAX) for v in row] for row in head.rows)
    body = "".join(row_html(row, head.right) for row in rows)
    footer = head.footer + (f", {remaining} more columns" if remaining > 0 else "")
    top = table_start(head_columns, head.right, head.types)
    return f'{top}{body}{TABLE_END}<small style="{_DIM}">{footer}</small>'


def table_start(columns: Sequence[str], right: Sequence[bool], types: Sequence[str] = ()) -> str:
    """Return an HTML table up to its first row."""
    kinds = [f'<br><small style="{_DIM};font-weight:normal">{_escape(k)}</small>' for k in types]
    heads = "".join(
        f'<th style="{_CELL};{_LINE};text-align:{_side(is_right)}">{_escape(name)}{type_name}</th>'
        for name, is_right, type_name in zip(
            columns, right, kinds or [""] * len(columns), strict=False
        )
    )
    table = f'<table class="{_PLAIN}" style="border-collapse:collapse">'
    return f"{table}<thead><tr>{heads}</tr></thead><tbody>\n"


def row_html(row: Sequence[str | None], right: Sequence[bool]) -> str:
    """Return a row of an HTML table, of texts or None."""
    cells = (
        f'<td style="{_CELL};{_wrap(value)};text-align:{_side(is_right)}">{_value(value)}</td>'
        for value, is_right in zip(row, right, strict=False)
    )
    return f"<tr>{''.join(cells)}</tr>\n"


def to_text(head: DisplayHead) -> str:
    """Return the rows as a table of plain text."""
    rows = [tuple(head.columns[:_COLUMNS_MAX]), *head.rows]
    cells = [["NULL" if v is None else _cut(visible(v), _TEXT_MAX) for v in r] for r in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(line, widths, head.right, strict=False)
        ).rstrip()
        for line in cells
    ]
    lines.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join([*lines, head.footer])


def _wrap(value: str | None) -> str:
    return _SHORT if value is None or len(value) <= _SHORT_MAX else _LONG


def _value(value: str | None) -> str:
    if value is None:
        return f'<span style="{_DIM}">NULL</span>'
    # Lines of a text stay lines: an HTML table has room for them.
    return "<br>".join(_escape(line) for line in value.split("\n"))


def _escape(value: str) -> str:
    return html.escape(visible(value))


def _cut(value: str, length: int) -> str:
    return value if len(value) <= length else f"{value[: length - 1]}…"


def _side(is_right: bool) -> str:
    return "right" if is_right else "left"
