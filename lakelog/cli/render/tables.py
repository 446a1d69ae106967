"""Tables for people: they fit the terminal, numbers stand right, what does not fit is named.

Cells are cut with an ellipsis, but never numbers and times. Where even that is too wide, columns
that hold only nulls are left out first, then those furthest right. Of whole events, what is null
or our own bookkeeping gives way already when the rest would have to be cut short.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import click

from lakelog.export.values import Row, iso, text

ROWS_MAX = 200
GAP = 2
_CELL_MAX = 300
_TEXT_MIN = 8
_TEXT_GOOD = 20
_BOOKKEEPING = ("ingested_at", "origin", "position", "seq")
_NUMBERS = (int, float, Decimal)
_RIGID = (*_NUMBERS, datetime.datetime, datetime.date, datetime.time, datetime.timedelta)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Count(int):
    """An integer that a table shows with commas."""


class Share(float):
    """A part of one that a table shows in percent."""


def render(
    columns: Sequence[str], rows: Sequence[Row], width: int, colour: bool
) -> tuple[str, list[str]]:
    """Return the table as text, and the columns that found no room."""
    from rich.cells import cell_len

    values = [[row[i] for row in rows] for i in range(len(columns))]
    names = [cell(c) for c in columns]
    cells = [[cell(v) for v in column] for column in values]
    natural = [max(map(cell_len, [n, *c])) for n, c in zip(names, cells, strict=True)]
    least = [_least(n, v) for n, v in zip(natural, values, strict=True)]
    empty = [bool(rows) and all(v is None for v in column) for column in values]
    spare = [i for i, n in enumerate(columns) if empty[i] or n in _BOOKKEEPING]
    if set(_BOOKKEEPING) <= set(columns):
        good = [max(low, min(n, _TEXT_GOOD)) for low, n in zip(least, natural, strict=True)]
        kept = keep(good, spare, width)
    else:
        kept = list(range(len(columns)))
    widths = fit(natural, least, [i for i in kept if empty[i]], kept, width)
    right = {i for i in widths if _is_number(values[i])}

    def line(texts: list[str], styles: list[str]) -> str:
        parts = [_padded(t, w, i in right) for t, (i, w) in zip(texts, widths.items(), strict=True)]
        parts[-1] = parts[-1].rstrip()
        painted = [_painted(p, s) if colour else p for p, s in zip(parts, styles, strict=True)]
        return (" " * GAP).join(painted).rstrip()

    drawn = [line([names[i] for i in widths], ["bold"] * len(widths))]
    drawn.append("─" * _total(list(widths.values()), list(range(len(widths)))))
    for at in range(len(rows)):
        styles = ["dim" if values[i][at] is None else "" for i in widths]
        drawn.append(line([cells[i][at] for i in widths], styles))
    return "\n".join(drawn) + "\n", [columns[i] for i in range(len(columns)) if i not in widths]


def fit(
    natural: list[int], least: list[int], empty: list[int], kept: list[int], width: int
) -> dict[int, int]:
    """Return {column: width} of the kept columns that fit, from their least to natural width.

    Empty columns go first, then the last ones; the first always stays. Room beyond the least
    widths is shared evenly.
    """
    kept = keep(least, empty, width, kept)
    kept = keep(least, kept[1:], width, kept)
    widths = {i: min(least[i], width) for i in kept}
    spare = width - _total(least, kept)
    while spare > 0 and (hungry := [i for i in kept if widths[i] < natural[i]]):
        share = max(spare // len(hungry), 1)
        for i in hungry[:spare]:
            more = min(share, natural[i] - widths[i])
            widths[i], spare = widths[i] + more, spare - more
    return widths


def keep(
    widths: list[int], droppable: list[int], width: int, kept: list[int] | None = None
) -> list[int]:
    """Leave out droppable columns, the last first, until the kept ones fit or none is left."""
    kept = list(range(len(widths))) if kept is None else list(kept)
    for last in reversed(droppable):
        if len(kept) > 1 and last in kept and _total(widths, kept) > width:
            kept.remove(last)
    return kept


def cell(value: Any) -> str:
    """Return a value as one line without control characters, which could command a terminal."""
    if value is None:
        return "NULL"
    if isinstance(value, datetime.datetime):
        return iso(value).replace("T", " ")
    if isinstance(value, datetime.timedelta):
        return str(value)
    if isinstance(value, (Count, Share)):
        return f"{value:,}" if isinstance(value, Count) else f"{value:.1%}"
    shown = text(value)
    if len(shown) > _CELL_MAX:
        shown = shown[:_CELL_MAX] + "…"
    shown = shown.replace("\r\n", "↵").replace("\n", "↵").replace("\t", " ")
    return _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}", shown)


def _least(natural: int, values: list[Any]) -> int:
    rigid = all(v is None or isinstance(v, _RIGID) for v in values)
    return natural if rigid and any(v is not None for v in values) else min(natural, _TEXT_MIN)


def _is_number(values: list[Any]) -> bool:
    some = [v for v in values if v is not None]
    return bool(some) and all(isinstance(v, _NUMBERS) and not isinstance(v, bool) for v in some)


def _padded(text: str, width: int, right: bool) -> str:
    from rich.cells import cell_len, set_cell_size

    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…"
    return " " * (width - length) + text if right else text + " " * (width - length)


def _painted(text: str, style: str) -> str:
    return click.style(text, **{style: True}) if style else text


def _total(widths: list[int], kept: list[int]) -> int:
    return sum(widths[i] for i in kept) + GAP * (len(kept) - 1)
