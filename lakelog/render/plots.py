"""Plots of an answer: line, bar, histogram or points, chosen by the types of its columns.

The engine makes the plot's few points of however many rows there are, so that a plot of millions
takes as little memory as one of ten. What was left out is said below the title.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lakelog import sql
from lakelog.errors import QueryFailed
from lakelog.libraries import alt
from lakelog.render.display import DisplaySource, is_number, visible
from lakelog.values import JsonObject

KINDS = ("line", "bar", "histogram", "point")
POINTS_MAX = 5_000
_BARS_MAX, _BINS, _BUCKETS, _LINES_MAX, _LABEL_MAX = 30, 30, 500, 10, 60
_WIDTH, _HEIGHT, _BAR_HEIGHT = 560, 280, 18
_UNITS = {
    "ms": "ms", "us": "µs", "ns": "ns", "s": "s", "sec": "s", "seconds": "s", "min": "min",
    "hours": "h", "bytes": "bytes", "kb": "kB", "mb": "MB", "gb": "GB", "usd": "USD",
    "eur": "EUR", "pct": "%", "percent": "%", "tokens": "tokens",
}  # fmt: skip
_TIME = re.compile(r"(TIMESTAMP.*|DATE)$", re.I)
_WHOLE: JsonObject = {"tickMinStep": 1}
_CLOCK = (
    "utcFormat(datum.value, utchours(datum.value) + utcminutes(datum.value) == 0 ?"
    " (utcdate(datum.value) == 1 ? '%b %Y' : '%b %d') :"
    " utcseconds(datum.value) == 0 ? '%H:%M' : '%H:%M:%S')"
)
"""Labels of times by the clock of 24 hours, dates at midnight."""
_NICE = (1, 2, 2.5, 5, 10)
_SPANS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Widths of a time bucket in seconds; beyond them, whole days."""


@dataclass(frozen=True)
class Axes:
    """The columns of a plot: `x` always, `y` for all but counts, `color` where lines are split."""

    kind: str
    x: str
    y: str = ""
    color: str = ""


def plot(
    relation: DisplaySource,
    x: str | None = None,
    y: str | None = None,
    color: str | None = None,
    kind: str | None = None,
    title: str = "",
) -> alt.Chart:
    """Return a chart of a relation. Raises QueryFailed for what it has no columns for."""
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    axes = choose(types, x, y, color, kind)
    draw = {"line": _line, "bar": _bar, "histogram": _histogram, "point": _points}[axes.kind]
    chart: alt.Chart
    chart, note = draw(relation, types, axes)
    chart = chart.properties(width=_WIDTH)
    if title or note:
        chart = chart.properties(title=_title(title, note))
    # White in dark themes too: labels are dark.
    chart = chart.configure(background="white").configure_axis(labelLimit=300)
    return chart


def choose(
    types: dict[str, str],
    x: str | None = None,
    y: str | None = None,
    color: str | None = None,
    kind: str | None = None,
) -> Axes:
    """Return the axes for columns of these types; what is given is kept."""
    if kind is not None and kind not in KINDS:
        raise QueryFailed(f"{kind!r} is no kind of plot: choose {', '.join(KINDS)}")
    for name in (x, y, color):
        if name is not None and name not in types:
            raise QueryFailed(f"there is no column {name!r}: there are {', '.join(types)}")
    # What the user has chosen is left where it is.
    free = [name for name in types if name not in (x, y, color)]
    times = [name for name in free if _TIME.match(types[name])]
    numbers = [name for name in free if is_number(types[name])]
    labels = [name for name in free if name not in times and name not in numbers]
    # Most answers are about time; a number is an axis only where a plot compares numbers.
    if x is None:
        single = [name for name in numbers if name != y][:1]
        candidates = times or labels or single
        if kind == "histogram":
            candidates = single or times
        elif kind in ("line", "point"):
            candidates = times or single or labels
        if not candidates:
            raise QueryFailed("there is nothing to plot: the answer has no columns left")
        x = candidates[0]
    if y is None and kind != "histogram":
        y = next((name for name in numbers if name != x), None)
    # By the types: text against numbers is bars, times are lines.
    if kind is None:
        kind = _kind_of(types[x], y)
    if kind in ("line", "point") and y is None:
        raise QueryFailed(f"a {kind} plot needs a column of numbers beside {x}")
    if color is None and kind in ("line", "point"):
        color = next((name for name in labels if name != x), None)
    return Axes(kind, x, y or "", color or "")


def _title(title: str, note: str) -> alt.TitleParams:
    if not title:
        return alt.TitleParams(note, anchor="start", fontSize=11, fontWeight="normal")
    return alt.TitleParams(visible(title), anchor="start", subtitle=note)


def _kind_of(type_of_x: str, y: str | None) -> str:
    if _TIME.match(type_of_x):
        return "line" if y else "histogram"
    if is_number(type_of_x):
        return "point" if y else "histogram"
    return "bar"


def label(name: str, type_name: str) -> str:
    """Return the title of an axis, with the unit that the column's name or type tells."""
    if _TIME.match(type_name):
        return f"{visible(name)} (UTC)"
    # The last part of a name is often its unit.
    stem, _, ending = name.rpartition("_")
    unit = _UNITS.get(ending.lower())
    return f"{visible(stem)} ({unit})" if stem and unit else visible(name)


def _line(relation: DisplaySource, types: dict[str, str], axes: Axes) -> tuple[alt.Chart, str]:
    rows, note = _few(relation, types, axes), ""
    if rows is None:
        rows, note = _bucketed(relation, types, axes)
    marks = alt.Chart(_values(rows)).mark_line(point=len(rows) <= 100, clip=True)
    return _encoded(marks, types, axes).properties(height=_HEIGHT), note


def _points(relation: DisplaySource, types: dict[str, str], axes: Axes) -> tuple[alt.Chart, str]:
    rows, note = _few(relation, types, axes), ""
    if rows is None:
        # Equal for equal rows, whereas a random sample would be another one each time.
        sample = relation.project(_selected(types, axes)).order("hash(x, y)").limit(POINTS_MAX)
        rows = _fetched(sample, axes)
        note = f"{POINTS_MAX:,} of the points, chosen by their hash"
    marks = alt.Chart(_values(rows)).mark_circle(size=36, opacity=0.6, clip=True)
    return _encoded(marks, types, axes).properties(height=_HEIGHT), note


def _encoded(marks: alt.Chart, types: dict[str, str], axes: Axes) -> alt.Chart:
    channels: JsonObject = {
        "x": _x(axes.x, types[axes.x]),
        "y": alt.Y("y:Q", title=label(axes.y, types[axes.y])),
    }
    if axes.color:
        channels["color"] = alt.Color("c:N", title=visible(axes.color))
    return marks.encode(**channels)


def _bar(relation: DisplaySource, types: dict[str, str], axes: Axes) -> tuple[alt.Chart, str]:
    value = f"sum({_number(axes.y)})" if axes.y else "count(*)::DOUBLE"
    # The order of the first row of each: what the query has ordered stays so.
    placed = relation.project("*, row_number() OVER () AS lakelog_place")
    grouped = placed.aggregate(
        f"{_text(axes.x)} AS x, {value} AS y, min(lakelog_place) AS place", _text(axes.x)
    )
    bars = grouped.order("place").limit(_BARS_MAX + 1).fetchall()
    note = ""
    if len(bars) > _BARS_MAX:
        count = len(grouped)
        bars = grouped.order("y DESC NULLS LAST, x").limit(_BARS_MAX).fetchall()
        note = f"the {_BARS_MAX} largest of {count:,}"
    elif not axes.y:
        bars.sort(key=lambda bar: (-bar[1], str(bar[0])))
    rows = [{"x": _shown(x), "y": y} for x, y, _ in bars]
    chart = alt.Chart(_values(rows)).mark_bar()
    # Rows are counted in whole numbers.
    title, ticks = (label(axes.y, types[axes.y]), {}) if axes.y else ("rows", _WHOLE)
    chart = chart.encode(
        y=alt.Y("x:N", sort=None, title=visible(axes.x)),
        x=alt.X("y:Q", title=title, axis=alt.Axis(**ticks)),
    )
    return chart.properties(height=max(len(rows), 2) * _BAR_HEIGHT), note


def _histogram(relation: DisplaySource, types: dict[str, str], axes: Axes) -> tuple[alt.Chart, str]:
    is_time = bool(_TIME.match(types[axes.x]))
    value = _value_of(axes.x, types[axes.x])
    finite = relation.project(f"{value} AS v").filter("isfinite(v)")
    low, high, count = finite.aggregate("min(v), max(v), count(*)").fetchall()[0]
    left_out = len(relation) - count
    if not count:
        raise QueryFailed(f"there is no value of {axes.x} to plot")
    step = _step(high - low, is_time, _BINS)
    start = math.floor(low / step) * step
    bins = finite.aggregate(f"floor((v - {start!r}) / {step!r}) AS bin, count(*)", "bin")
    rows = [
        {"x": start + place * step, "end": start + (place + 1) * step, "y": number}
        for place, number in sorted(bins.fetchall())
    ]
    # Between places and from the ground: for bars of no width it would draw their upper ends.
    counts = alt.Y("y:Q", title="rows", axis=alt.Axis(**_WHOLE))
    sides = {"x": _x(axes.x, types[axes.x]), "x2": "end", "y": counts, "y2": alt.datum(0)}
    chart = alt.Chart(_values(rows)).mark_rect(stroke="white", strokeWidth=1).encode(**sides)
    note = f"{left_out:,} rows without a value are left out" if left_out else ""
    return chart.properties(height=_HEIGHT), note


def _few(relation: DisplaySource, types: dict[str, str], axes: Axes) -> list[JsonObject] | None:
    """Return all points, None if there are too many."""
    points = relation.project(_selected(types, axes)).limit(POINTS_MAX + 1)
    rows = _fetched(points, axes)
    if len(rows) > POINTS_MAX or len({row.get("c") for row in rows}) > _LINES_MAX:
        # One more than is shown: then all of it is read in buckets.
        return None
    return sorted(rows, key=lambda row: row["x"]) if axes.kind == "line" else rows


def _bucketed(
    relation: DisplaySource, types: dict[str, str], axes: Axes
) -> tuple[list[dict[str, object]], str]:
    """Return the mean of each bucket, and of the lines with most rows."""
    if not _TIME.match(types[axes.x]) and not is_number(types[axes.x]):
        raise QueryFailed(f"{axes.x} has more values than a line can have: try kind='bar'")
    points = relation.project(_selected(types, axes)).filter("isfinite(x) AND y IS NOT NULL")
    # The longest lines say most; others would only cover them.
    notes = []
    if axes.color:
        counts = points.aggregate("c, count(*) AS n", "c").order("n DESC, c")
        lines = counts.limit(_LINES_MAX).fetchall()
        if (total := len(counts)) > _LINES_MAX:
            notes.append(f"the {_LINES_MAX} lines with most rows of {total:,}")
            names = ", ".join("NULL" if c is None else sql.literal(c) for c, _ in lines)
            nulls = " OR c IS NULL" if any(c is None for c, _ in lines) else ""
            points = points.filter(f"c IN ({names}){nulls}")
    # Buckets begin at multiples of a round step, so that a later answer has the same ones.
    low, high = points.aggregate("min(x), max(x)").fetchall()[0]
    if low is None:
        raise QueryFailed(f"there is no value of {axes.y} to plot")
    is_time = bool(_TIME.match(types[axes.x]))
    step = _step(high - low, is_time, _BUCKETS)
    bucket, line = f"floor(x / {step!r}) * {step!r}", ", c" if axes.color else ""
    means = points.aggregate(f"{bucket} AS x, avg(y) AS y{line}", f"{bucket}{line}").order("x")
    width = _words(step / 1000) if is_time else f"{step:g}"
    notes.insert(0, f"mean of each {width}")
    return _fetched(means, axes), "; ".join(notes)


def _selected(types: dict[str, str], axes: Axes) -> str:
    selects = [f"{_value_of(axes.x, types[axes.x])} AS x", f"{_number(axes.y)} AS y"]
    return ", ".join([*selects, f"{_text(axes.color)} AS c"] if axes.color else selects)


def _fetched(relation: DisplaySource, axes: Axes) -> list[dict[str, object]]:
    names = ("x", "y", "c") if axes.color else ("x", "y")
    rows = [dict(zip(names, row, strict=True)) for row in relation.fetchall()]
    for row in rows:
        if axes.color:
            # NULL is a line of its own.
            row["c"] = _shown(row["c"])
    # A point without a place cannot be drawn.
    return [row for row in rows if row["x"] is not None]


def _value_of(name: str, type_name: str) -> str:
    """SQL for a place on the x axis: times as milliseconds since 1970, text as it is."""
    if _TIME.match(type_name):
        return f"(epoch_us({sql.identifier(name)}::TIMESTAMPTZ) / 1000.0)"
    return _number(name) if is_number(type_name) else _text(name)


def _number(name: str) -> str:
    # NaN and infinities have no place, and JSON, in which a notebook gets a plot, lacks them.
    value = f"{sql.identifier(name)}::DOUBLE"
    return f"(CASE WHEN isfinite({value}) THEN {value} END)"


def _text(name: str) -> str:
    # Cut by the engine: a text of megabytes would go to the notebook.
    return f"left({sql.identifier(name)}::VARCHAR, {_LABEL_MAX})"


def _shown(value: str | None) -> str:
    return "NULL" if value is None else visible(value)


def _x(name: str, type_name: str) -> alt.X:
    if _TIME.match(type_name):
        axis = alt.Axis(labelExpr=_CLOCK)
        return alt.X("x:T", title=label(name, type_name), scale=alt.Scale(type="utc"), axis=axis)
    return alt.X("x:Q" if is_number(type_name) else "x:N", title=label(name, type_name))


def _values(rows: Sequence[dict[str, object]]) -> alt.InlineData:
    return alt.InlineData(values=list(rows))


def _step(width: float, is_time: bool, count: int) -> float:
    """Return a round width, of which about `count` make the whole; of times in milliseconds."""
    target = width / count
    # Milliseconds, as Vega counts times.
    if is_time:
        interval = next((span for span in _SPANS if span * 1000 >= target), None)
        return 1000.0 * (interval or math.ceil(target / 86_400_000) * 86_400)
    if target <= 0 or not math.isfinite(target):
        return 1.0
    power = 10.0 ** math.floor(math.log10(target))
    # A little slack: a quotient may be off by its last bit.
    return next(n * power for n in _NICE if n * power >= target * 0.999)


def _words(seconds: float) -> str:
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds / size
            return word if count == 1 else f"{count:g} {word}s"
    return "second" if seconds == 1 else f"{seconds:g} seconds"
