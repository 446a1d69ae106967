"""The first rows of an answer for people: an HTML table for notebooks, and the same as text.

Values come as the engine's own text, cut to 200 characters by the engine, so that a row of
megabytes costs nothing. Nothing in them is markup, and characters that control a terminal or turn
the direction of text are shown by their number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakelog import sql
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import html
else:
    html = Lazy("html")

_ROWS_MAX = 20
_VALUE_MAX = 200
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


DisplaySource = Any
"""A relation: it has `columns`, `types`, `limit`, `filter`, `order`, `project`, `aggregate` and
`fetchall` as those of DuckDB have, and a length."""


@dataclass(frozen=True)
class DisplayHead:
    """The first rows: each value as text or None. `right` says which columns are of numbers, which
    are aligned to the right, `is_all` if there are no more rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | None]]
    right: Sequence[bool]
    types: Sequence[str] = ()
    is_all: bool = True

    @classmethod
    def of(cls, relation: DisplaySource) -> DisplayHead:
        """Read the first rows of an answer."""
        # One character and one row more than are shown tell what was cut.
        texts = ", ".join(
            f"left(CAST(#{place} AS VARCHAR), {_VALUE_MAX + 1}) AS {sql.identifier(f'c{place}')}"
            for place, _ in enumerate(relation.columns[:_COLUMNS_MAX], 1)
        )
        rows = relation.limit(_ROWS_MAX + 1).project(texts).fetchall()
        types = [str(column_type) for column_type in relation.types]
        right = [is_number(type_name) for type_name in types]
        return cls(relation.columns, rows[:_ROWS_MAX], right, types, len(rows) <= _ROWS_MAX)

    @property
    def footer(self) -> str:
        """How many rows are shown."""
        count = len(self.rows)
        if not self.is_all:
            return f"the first {count} rows; there are more"
        return "1 row" if count == 1 else f"{count} rows"

    def to_html(self) -> str:
        """Return the rows as an HTML table, which needs no style sheet and no script, and the
        footer."""
        remaining = len(self.columns) - _COLUMNS_MAX
        footer = self.footer + (f", {remaining} more columns" if remaining > 0 else "")
        return f'{self.table()}<small style="{_DIM}">{footer}</small>'

    def table(self) -> str:
        """Return the rows as an HTML table alone."""
        rows = ([None if v is None else _cut(v, _VALUE_MAX) for v in row] for row in self.rows)
        body = "".join(row_html(row, self.right) for row in rows)
        top = table_start(self.columns[:_COLUMNS_MAX], self.right, self.types)
        return f"{top}{body}{TABLE_END}"

    def to_text(self) -> str:
        """Return the rows as a table of plain text."""
        rows = [self.columns[:_COLUMNS_MAX], *self.rows]
        cells = [["NULL" if v is None else _cut(visible(v), _TEXT_MAX) for v in r] for r in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                value.rjust(width) if right else value.ljust(width)
                for value, width, right in zip(line, widths, self.right, strict=False)
            ).rstrip()
            for line in cells
        ]
        lines.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
        return "\n".join([*lines, self.footer])


def visible(value: str) -> str:
    """Return text as one line in which characters that act on a terminal are seen."""
    line = value.replace("\r\n", "↵").replace("\n", "↵").replace("\t", " ")
    return escaped(line)


def escaped(value: str, spelling: str = "\\x{:02x}") -> str:
    """Return text of any number of lines in which characters that act on a terminal are seen."""
    # By number, so that what is shown can be looked up.
    return _CONTROL.sub(lambda match: spelling.format(ord(match[0])), value)


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
    cells = ""
    for value, is_right in zip(row, right, strict=False):
        wrap = _SHORT if value is None or len(value) <= _SHORT_MAX else _LONG
        # Lines of a text stay lines: an HTML table has room for them.
        content = f'<span style="{_DIM}">NULL</span>'
        if value is not None:
            content = "<br>".join(map(_escape, value.split("\n")))
        cells += f'<td style="{_CELL};{wrap};text-align:{_side(is_right)}">{content}</td>'
    return f"<tr>{cells}</tr>\n"


def _escape(value: str) -> str:
    return html.escape(visible(value))


def _cut(value: str, length: int) -> str:
    return value if len(value) <= length else f"{value[: length - 1]}…"


def _side(is_right: bool) -> str:
    return "right" if is_right else "left"
