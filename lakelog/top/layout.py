"""A frame: all figures laid out in lines of a width, for any screen.

A line is a list of spans, each a text and a style; whoever writes it knows what a screen can show.
Pure: nothing is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lakelog.libraries import rich_cells
from lakelog.render import visible
from lakelog.top.lag import Lag
from lakelog.top.machine import MachineFigures
from lakelog.top.rates import COLUMNS, ERRORS, LakeFigures, NewestEvent

StyledText = tuple[str, str]
"""A text and its style: bold, dim, red, yellow, green, or none."""
FrameLine = list[StyledText]
ORDERS = ("rate", "total", "name")
WIDTH_LEAST = 20
_BARS = " ▁▂▃▄▅▆▇█"
_PLAIN_BARS = " .:-=+*#%"
_STYLES = {"FATAL": "red", "ERROR": "red", "WARN": "yellow"}
_TABLE_LEAST = 24
"""Cells that a table of values needs."""
_GAP = 2
_SECONDS = 60
_EMPTY: FrameLine = [("no events yet: `lakelog append`, `ingest` or `watch` store some", "")]


@dataclass(frozen=True)
class FrameOptions:
    """How a frame is laid out. `title` is the lake, `clock` the time, `mode` what is shown of it;
    `order` is one of ORDERS, `pattern` what names and events have to contain. Without `is_unicode`
    all is ASCII; without a height nothing is left out."""

    width: int = 80
    height: int | None = 24
    title: str = ""
    clock: str = ""
    mode: str = "live"
    order: str = "rate"
    pattern: str = ""
    is_unicode: bool = True
    footer: str = ""
    notes: tuple[tuple[str, str], ...] = ()
    """Further figures, by what they are."""


def frame(
    figures: LakeFigures, machine: MachineFigures, lags: Sequence[Lag], options: FrameOptions
) -> list[FrameLine]:
    """Return the lines of a frame, as many as the height, each at most as wide as the width."""
    width = max(options.width, WIDTH_LEAST)
    lines = [_title(options, width)]
    lines += _wrapped(_events(figures), width)
    if figures.is_live:
        lines += _wrapped(_rates(figures), width)
        if len(figures.looks) > 2:
            lines.append(_sparkline(figures, options, width))
    lines += _wrapped([_figure(name, value) for name, value in options.notes], width)
    # Few lines, so that a lake of many followers leaves room for its events.
    lines += _wrapped([_lag(lag) for lag in lags], width)[:4]
    lines += _wrapped(_storage(figures), width)
    lines += _wrapped(_machine(machine), width)
    height = options.height or 40
    # On a small screen the events count for more than the machine.
    lines = lines[: max(height // 2, 4)]
    space = height - len(lines) - bool(options.footer)
    newest = [
        e
        for e in figures.newest
        if any(options.pattern.lower() in t.lower() for t in (e.level, e.source, e.type, e.message))
    ]
    rows = max(0, min(10, (space - 2) // 2))
    lines += _tables(figures, options, width, rows)
    space = height - len(lines) - bool(options.footer)
    if space > 1:
        bottom = _newest(newest[-(space - 1) :], width) if figures.events else [_EMPTY]
        lines += [[], *bottom][: space + 1]
    # Cut at the end: all parts count in cells, in which wide characters take two.
    lines = [_cut(line, width) for line in lines[: height - bool(options.footer)]]
    if options.footer:
        # The footer stays at the bottom of the screen.
        lines += [[]] * (height - 1 - len(lines)) if options.height else []
        lines.append(_cut([(options.footer, "dim")], width))
    # Terminals that know no Unicode show question marks for bars.
    if options.is_unicode:
        return lines
    plain = str.maketrans({"…": "~", "·": "-"})
    return [
        [(t.translate(plain).encode("ascii", "replace").decode(), s) for t, s in line]
        for line in lines
    ]


def text_of(line: FrameLine) -> str:
    """A line without its styles."""
    return "".join(span for span, _ in line).rstrip()


def number(value: float) -> str:
    """A number in at most six characters: 0.3, 12, 1,003, 12.4k, 3.1M."""
    # Whole numbers below ten have no decimals.
    if value < 10:
        return f"{value:.0f}" if value == int(value) else f"{value:.1f}"
    if value < 10_000:
        return f"{value:,.0f}"
    for unit, size in (("k", 1e3), ("M", 1e6)):
        if value < 999.5 * size:
            scaled = value / size
            return f"{scaled:.0f}{unit}" if scaled >= 99.95 else f"{scaled:.1f}{unit}"
    return f"{value / 1e9:.1f}G"


def size(count: float) -> str:
    """Bytes with their unit: 25.8 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5:
            return (
                f"{count:.0f} {unit}" if unit == "bytes" or count >= 99.5 else f"{count:.1f} {unit}"
            )
        count /= 1000
    return f"{count:.1f} TB"


def _title(options: FrameOptions, width: int) -> FrameLine:
    style = "green" if options.mode == "live" else "yellow"
    right = f"{options.mode}  {options.clock}"
    room = width - len("lakelog  ") - rich_cells.cell_len(right) - _GAP
    title = _fitted(visible(options.title), max(room, 0))
    gap = " " * max(width - 9 - rich_cells.cell_len(title) - rich_cells.cell_len(right), 1)
    return [
        ("lakelog  ", "bold"),
        (title, ""),
        (gap, ""),
        (options.mode, style),
        (f"  {options.clock}", "dim"),
    ]


def _events(figures: LakeFigures) -> list[FrameLine]:
    items = [_figure("events", f"{figures.events:,}")]
    if figures.pending:
        items.append(_figure("in the WAL", f"{figures.pending:,}"))
    if figures.quarantined:
        items.append([("quarantine ", "dim"), (f"{figures.quarantined:,}", "yellow")])
    return items


def _rates(figures: LakeFigures) -> list[FrameLine]:
    now_rate, minute_rate = figures.rate()
    now_errors, minute_errors = figures.errors()
    style = "red" if now_errors else ""
    share = f", {minute_errors / minute_rate:.1%}" if minute_errors else ""
    return [
        [*_figure("rate", f"{number(now_rate)}/s"), (f" (minute {number(minute_rate)}/s)", "dim")],
        [
            ("errors ", "dim"),
            (f"{number(now_errors)}/s", style),
            (f" (minute {number(minute_errors)}/s{share})", "dim"),
        ],
    ]


def _sparkline(figures: LakeFigures, options: FrameOptions, width: int) -> FrameLine:
    count = min(_SECONDS, width - 10)
    values = figures.seconds(count)
    highest = max(values, default=0.0)
    bars = _BARS if options.is_unicode else _PLAIN_BARS
    # One step at least: a second with few events is not empty.
    steps = [0 if not v else 1 + round(v / highest * (len(bars) - 2)) for v in values]
    return [
        (f"{count} s ", "dim"),
        ("".join(bars[step] for step in steps), "green"),
        (f" {number(highest)}", "dim"),
    ]


def _storage(figures: LakeFigures) -> list[FrameLine]:
    # Bytes are of what is sealed.
    sealed = max(figures.events - figures.pending, 1)
    items = [_figure("storage", size(figures.bytes))]
    if figures.bytes:
        items.append(_figure("an event", f"{figures.bytes / sealed:.1f} bytes"))
    items += [_figure("segments", f"{figures.segments:,}"), _figure("WAL", size(figures.wal_bytes))]
    items.append(_figure("indexes", size(figures.index_bytes)))
    if figures.bytes_a_day:
        items.append(_figure("a day", size(figures.bytes_a_day)))
    return items


def _machine(machine: MachineFigures) -> list[FrameLine]:
    items: list[FrameLine] = []
    if machine.busy is not None:
        items.append(_figure("cpu", f"{machine.busy:.0%}"))
    if machine.load is not None:
        items.append(_figure("load", f"{machine.load:.1f}"))
    if machine.memory_used is not None and machine.memory_total is not None:
        share = f"{size(machine.memory_used)} of {size(machine.memory_total)}"
        items.append(_figure("memory", share))
    if machine.disk_free is not None:
        items.append(_figure("disk free", size(machine.disk_free)))
    if machine.processes:
        figures = f"{machine.processes_busy:.0%} cpu, {size(machine.processes_bytes)}"
        items.append(_figure("processes of the lake", f"{machine.processes}: {figures}"))
    return items


def _lag(lag: Lag) -> FrameLine:
    style = "yellow" if lag.is_wrong else ""
    return [(f"{lag.role} ", "dim"), (visible(f"{lag.name} {lag.state}"), style)]


def _tables(figures: LakeFigures, options: FrameOptions, width: int, rows: int) -> list[FrameLine]:
    if rows < 1:
        return []
    # A column that is null in all events says nothing.
    columns = [c for c in COLUMNS if any({*figures.totals.get(c, ()), *figures.minute[c]})]
    # As many tables as fit beside each other, in the order of what is asked most.
    fitting = max(1, min(len(columns), (width + _GAP) // (_TABLE_LEAST + _GAP)))
    columns = columns[:fitting]
    share = (width - _GAP * (len(columns) - 1)) // max(len(columns), 1)
    tables = [_table(figures, column, options, share, rows) for column in columns]
    count = max(map(len, tables), default=0)
    lines: list[FrameLine] = [[]]
    for place in range(count):
        line: FrameLine = []
        for table in tables:
            line += [(" " * _GAP, "")] if line else []
            line += table[place] if place < len(table) else [(" " * share, "")]
        lines.append(line)
    return lines


def _table(
    figures: LakeFigures, column: str, options: FrameOptions, width: int, rows: int
) -> list[FrameLine]:
    values = figures.by(column)
    if options.pattern:
        values = {n: v for n, v in values.items() if options.pattern.lower() in n.lower()}
    order = {
        "rate": lambda n: (-values[n][0], -values[n][1], -values[n][2], n),
        "total": lambda n: (-values[n][2], -values[n][0], n),
        "name": lambda n: (n,),
    }[options.order]
    names = sorted(values, key=order)[:rows]
    # 14 cells for the two figures behind a name.
    live, room = figures.is_live, width - 14
    heads = ("/s", "total") if live else ("share", "total")
    figures_head = f"{heads[0]:>7}{heads[1]:>7}"
    lines: list[FrameLine] = [[(_fitted(column, room), "bold"), (figures_head, "dim")]]
    for name in names:
        rate, _, total = values[name]
        cell = number(rate) if live else f"{total / max(figures.events, 1):.1%}"
        style = _STYLES.get(name, "") if column == "level" else ""
        label = visible(name) if name else f"no {column}"
        figures_cell = f"{cell:>7}{number(total):>7}"
        lines.append([(_fitted(label, room), style or ("" if name else "dim")), (figures_cell, "")])
    return lines


def _newest(events: Sequence[NewestEvent], width: int) -> list[FrameLine]:
    # As wide as the names are, and a sixth of the screen at most.
    widest = max((rich_cells.cell_len(visible(e.source)) for e in events), default=0)
    source_room = min(widest, max(6, width // 6))
    lines = []
    for event in events:
        level = event.level or "-"
        style = _STYLES.get(event.level, "dim" if event.level in ("DEBUG", "TRACE") else "")
        message = visible(f"{event.type}  {event.message}".strip())
        lines.append(
            [
                (f"{event.time:8} ", "dim"),
                (f"{_fitted(level, 5)} ", style),
                (f"{_fitted(visible(event.source or '-'), source_room)} ", ""),
                (message, style if event.level in ERRORS else ""),
            ]
        )
    return lines


def _figure(name: str, value: str) -> FrameLine:
    return [(f"{name} ", "dim"), (value, "")]


def _wrapped(items: Sequence[FrameLine], width: int) -> list[FrameLine]:
    """Items in as few lines as hold them, each whole where it fits."""
    lines: list[FrameLine] = []
    used = 0
    for item in items:
        length = sum(rich_cells.cell_len(span) for span, _ in item)
        if lines and used + _GAP + length <= width:
            lines[-1] = [*lines[-1], (" " * _GAP, ""), *item]
            used += _GAP + length
        else:
            lines.append(list(item))
            used = length
    return lines


def _cut(line: FrameLine, width: int) -> FrameLine:
    result, used = FrameLine(), 0
    for span, style in line:
        length = rich_cells.cell_len(span)
        if used + length > width:
            result.append((_fitted(span, width - used), style))
            return result
        result.append((span, style))
        used += length
    return result


def _fitted(value: str, width: int) -> str:
    """A text in just so many cells, its end left out or blanks behind it."""
    if rich_cells.cell_len(value) <= width:
        return value + " " * (width - rich_cells.cell_len(value))
    return rich_cells.set_cell_size(value, max(width - 1, 0)) + ("…" if width > 0 else "")
