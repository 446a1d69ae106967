"""Tables that fit the terminal: numbers are right-aligned, columns left out are named.

Cells are cut with an ellipsis, but never numbers, times and names. Where even that is too wide,
columns that hold only nulls are left out first, then those furthest right, but those that a view
names as its main ones last. Of whole events, null
columns and our own bookkeeping are left out as soon as the others would have to be cut.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import click

from lakelog.libraries import rich_cells
from lakelog.render import text, visible

ROWS_MAX = 200
GAP = 2
# Wider than any terminal, and short enough that a payload of megabytes costs nothing.
_CELL_MAX = 300
_NAMES_MAX = 15
_TEXT_MIN = 8
_TEXT_GOOD = 20
_PLAN = ["explain_key", "explain_value"]
_BOOKKEEPING = ("ingested_at", "origin", "position", "seq")
_NUMBERS = (int, float, Decimal)


# A name that is cut could not be given to the next command.
class FullName(str):
    """A name that people pass on to another verb, which a table never cuts."""


_RIGID = (FullName, *_NUMBERS, datetime.datetime, datetime.date, datetime.time, datetime.timedelta)


class Count(int):
    """An integer that a table shows with commas."""


class Share(float):
    """A part of one that a table shows in percent."""


def render(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    width: int,
    colour: bool,
    *,
    main: Sequence[str] = (),
) -> tuple[str, list[str]]:
    """Return the table as text, and the columns that did not fit: not `main` ones, as long as
    others can go."""
    if list(columns) == _PLAN:  # drawn by the engine, over several lines
        return "\n".join(str(row[1]).rstrip("\n") for row in rows) + "\n", []
    if not columns:  # those of records, of which there are none
        return "", []
    values = [[row[i] for row in rows] for i in range(len(columns))]
    names = [cell(c) for c in columns]
    cells = [[cell(v) for v in column] for column in values]
    # In columns of the terminal and not characters: wide ones take two.
    natural = [max(map(rich_cells.cell_len, [n, *c])) for n, c in zip(names, cells, strict=True)]
    least_widths = [_least(n, v) for n, v in zip(natural, values, strict=True)]
    empty = [bool(rows) and all(v is None for v in column) for column in values]
    spare = [i for i, n in enumerate(columns) if empty[i] or n in _BOOKKEEPING]
    # Whole events were asked for, not these columns: they make room for the payload.
    if set(_BOOKKEEPING) <= set(columns):
        good = [max(low, min(n, _TEXT_GOOD)) for low, n in zip(least_widths, natural, strict=True)]
        columns_kept = drop_columns(good, spare, width)
    else:
        columns_kept = list(range(len(columns)))
    minor = [i for i in columns_kept if main and columns[i] not in main]
    minor += [i for i in columns_kept if empty[i] and columns[i] not in main]
    widths = fit_columns(natural, least_widths, minor, columns_kept, width)
    # By values and not by the column's type, because computed columns have any.
    right = {i for i in widths if _is_number(values[i])}

    def line(cells: list[str], styles: list[str]) -> str:
        padded = [_pad(t, w, i in right) for t, (i, w) in zip(cells, widths.items(), strict=True)]
        # Before painting, which would end the line with an escape sequence.
        padded[-1] = padded[-1].rstrip()
        painted = [
            click.style(p, **{s: True}) if colour and s else p
            for p, s in zip(padded, styles, strict=True)
        ]
        return (" " * GAP).join(painted).rstrip()

    table_lines = [line([names[i] for i in widths], ["bold"] * len(widths))]
    table_lines.append("─" * _total(list(widths.values()), list(range(len(widths)))))
    for index in range(len(rows)):
        styles = ["dim" if values[i][index] is None else "" for i in widths]
        table_lines.append(line([cells[i][index] for i in widths], styles))
    return "\n".join(table_lines) + "\n", [
        columns[i] for i in range(len(columns)) if i not in widths
    ]


def fit_columns(
    natural: list[int], least_widths: list[int], minor: list[int], remaining: list[int], width: int
) -> dict[int, int]:
    """Return {column: width} of the columns that fit, from their least to natural width.

    Minor columns are dropped first, from the end, then the last ones; the first always stays. Space
    beyond the least widths is shared evenly.
    """
    # Such as columns without a value, since nothing is lost with them.
    remaining = drop_columns(least_widths, minor, width, remaining)
    remaining = drop_columns(least_widths, remaining[1:], width, remaining)
    widths = {i: min(least_widths[i], width) for i in remaining}
    spare = width - _total(least_widths, remaining)
    while spare > 0 and (hungry := [i for i in remaining if widths[i] < natural[i]]):
        # Evenly, but never to a column that is wide enough already; what it leaves goes round
        # again.
        share = max(spare // len(hungry), 1)
        for i in hungry[:spare]:
            growth = min(share, natural[i] - widths[i])
            widths[i], spare = widths[i] + growth, spare - growth
    return widths


def drop_columns(
    widths: list[int], droppable: list[int], width: int, remaining: list[int] | None = None
) -> list[int]:
    """Drop droppable columns, the last first, until the others fit or none is left to drop."""
    remaining = list(range(len(widths))) if remaining is None else list(remaining)
    for column in reversed(droppable):
        if len(remaining) > 1 and column in remaining and _total(widths, remaining) > width:
            remaining.remove(column)
    return remaining


def cell(value: object) -> str:
    """Return a value as one line without control characters, which could control a terminal."""
    if value is None:
        return "NULL"
    if isinstance(value, datetime.datetime):
        return text(value).replace("T", " ")
    if isinstance(value, datetime.timedelta):
        return str(value)
    if isinstance(value, (Count, Share)):
        return f"{value:,}" if isinstance(value, Count) else f"{value:.1%}"
    line = text(value)
    # Cut before the replacements, which would go through the whole text.
    if len(line) > _CELL_MAX:
        line = line[:_CELL_MAX] + "…"
    return visible(line)


def names_of(columns: Sequence[str]) -> str:
    """Return the names of columns for a line of text, of many the first ones."""
    names = [cell(name) for name in columns[:_NAMES_MAX]]
    if more := len(columns) - len(names):
        names.append(f"and {more} more")
    return ", ".join(names)


def second(time_us: int) -> datetime.datetime:
    """Return microseconds since 1970 as a time in UTC, cut to the second."""
    return datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC)


def clock(time_us: int) -> str:
    """Return microseconds since 1970 as people read them: 2026-11-20 08:25:13Z."""
    return cell(second(time_us))


def fit(line: str, width: int) -> str:
    """Cut a line to `width` columns of a terminal, of which wide characters take two."""
    if rich_cells.cell_len(line) <= width:
        return line
    return rich_cells.set_cell_size(line, width - 1).rstrip() + "…" if width > 0 else ""


def _least(natural: int, values: list[object]) -> int:
    # All nulls are no numbers: such a column may shrink, or go.
    rigid = all(v is None or isinstance(v, _RIGID) for v in values)
    return natural if rigid and any(v is not None for v in values) else min(natural, _TEXT_MIN)


def _is_number(values: list[object]) -> bool:
    some = [v for v in values if v is not None]
    return bool(some) and all(isinstance(v, _NUMBERS) and not isinstance(v, bool) for v in some)


def _pad(value: str, width: int, right: bool) -> str:
    length = rich_cells.cell_len(value)
    if length > width:
        return rich_cells.set_cell_size(value, width - 1) + "…"
    return " " * (width - length) + value if right else value + " " * (width - length)


def _total(widths: list[int], places: list[int]) -> int:
    return sum(widths[i] for i in places) + GAP * (len(places) - 1)
