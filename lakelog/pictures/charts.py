"""Pictures of what an analysis found: series with what was expected, marks and forecasts, and bars.

A picture is a Vega-Lite specification, which vl-convert draws as PNG or SVG, or puts into one page
of HTML that needs no network.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeVar

from lakelog.errors import InvalidSetting, MissingPackage
from lakelog.libraries import alt, vl_convert
from lakelog.render import visible
from lakelog.values import JsonObject

BARS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the shape of a series in one line, of its last values where there are more than
    `width`; a value that is missing is a space."""
    latest = list(values)[-width:]
    present = [value for value in latest if math.isfinite(value)]
    low, high = (min(present), max(present)) if present else (0.0, 0.0)
    steps = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(
        BARS[round((value - low) * steps)] if math.isfinite(value) else " " for value in latest
    )


def meter(share: float, width: int) -> str:
    """Return a bar of a share from 0 to 1, by eighths of a character."""
    eighths = round(max(0.0, min(share, 1.0)) * width * 8)
    full, remainder = divmod(eighths, 8)
    return ("█" * full + _EIGHTHS[remainder].strip()).ljust(width)


ENDINGS = (".png", ".svg", ".html")
POINTS_MAX = 5_000
"""Points of a curve that are drawn; of more, spans of several have the value that stands out."""
_WIDTH, _HEIGHT, _PANEL_HEIGHT, _BAR_HEIGHT, _SCALE = 720, 260, 90, 18, 2.0
_LABEL = 60
_INK, _EXPECTED, _ALARM, _AHEAD = "#2f4b7c", "#9aa5b1", "#c0392b", "#b26a00"
_CLOCK = (
    "utcFormat(datum.value, utchours(datum.value) + utcminutes(datum.value) == 0 ? '%b %d'"
    " : '%H:%M')"
)
Numbers = Sequence[float]
_Chart = TypeVar("_Chart", bound="alt.Chart | alt.VConcatChart")


@dataclass(frozen=True)
class Curve:
    """A series by spans of time that begin at `start_us` and are `length_us` long, NaN where it has
    no value; what was expected, if that is known; and a band below and above, such as that of a
    forecast."""

    title: str
    start_us: int
    length_us: int
    values: Numbers
    expected: Numbers = ()
    low: Numbers = ()
    high: Numbers = ()
    is_ahead: bool = False
    """Whether the values are forecasts; they follow the curve before in the same panel."""


def since(curve: Curve, start_us: int) -> Curve:
    """Return a curve from a time on."""
    begin = max(0, (start_us - curve.start_us) // curve.length_us)
    names = ("values", "expected", "low", "high")
    later: dict[str, Any] = {name: getattr(curve, name)[begin:] for name in names}
    return dataclasses.replace(curve, start_us=curve.start_us + begin * curve.length_us, **later)


def require_drawable(path: str) -> None:
    """Raise InvalidSetting for a file whose ending is no picture's, MissingPackage where it cannot
    be drawn."""
    if os.path.splitext(path)[1].lower() not in ENDINGS:
        raise InvalidSetting(f"{path}: a picture ends in {', '.join(ENDINGS)}")
    if not (find_spec("altair") and find_spec("vl_convert")):
        raise MissingPackage(
            "--plot needs altair and vl-convert-python: pip install 'lakelog[analysis]'"
        )


def encode(chart: alt.Chart | alt.VConcatChart, path: str) -> bytes:
    """Return a chart as the bytes of a file, by the ending of its name."""
    spec: JsonObject = chart.to_dict()
    ending = os.path.splitext(path)[1].lower()
    if ending == ".png":
        return bytes(vl_convert.vegalite_to_png(spec, scale=_SCALE))
    draw: Any = vl_convert.vegalite_to_svg if ending == ".svg" else vl_convert.vegalite_to_html
    options = {} if ending == ".svg" else {"bundle": True}
    return str(draw(spec, **options)).encode()


def curves_chart(
    panels: Sequence[Sequence[Curve]],
    title: str,
    spans: Sequence[tuple[int, int]] = (),
    limit: float | None = None,
) -> alt.VConcatChart:
    """Return panels below one another, with one axis of times. A panel has a curve, and perhaps its
    forecast; `spans` (us) are marked in all of them, `limit` is a line in the first."""
    height = _HEIGHT if len(panels) == 1 else _PANEL_HEIGHT
    curves = [curve for panel in panels for curve in panel]
    times = [curve.start_us for curve in curves]
    times += [curve.start_us + curve.length_us * len(curve.values) for curve in curves]
    # One axis of times for all panels, which are compared by when something happened.
    domain = alt.Scale(type="utc", domain=[min(times) / 1e3, max(times) / 1e3])
    marked = [
        {"x": max(start, min(times)) / 1e3, "x2": min(end, max(times)) / 1e3}
        for start, end in spans
        if end > min(times) and start < max(times)
    ]
    drawn = []
    for place, panel in enumerate(panels):
        marks = alt.Chart(alt.InlineData(values=marked)).mark_rect(color=_ALARM, opacity=0.16)
        x = alt.X("x:T", scale=domain)
        layers: list[alt.Chart] = [marks.encode(x=x, x2="x2:T")] if marked else []
        layers += [layer for curve in panel for layer in _layers(curve, domain)]
        if limit is not None and not place:
            rule = alt.Chart(alt.InlineData(values=[{"y": limit}])).mark_rule(color=_ALARM)
            layers.append(rule.encode(y="y:Q"))
        heading = title if len(panels) == 1 else panel[0].title
        drawn.append(
            alt.layer(*layers).properties(width=_WIDTH, height=height, title=_title(heading))
        )
    chart: alt.VConcatChart = alt.vconcat(*drawn, spacing=14)
    if len(panels) > 1:
        chart = chart.properties(title=_title(title))
    return _styled(chart)


def bars_chart(bars: Sequence[tuple[str, float]], title: str, axis: str) -> alt.Chart:
    """Return a bar for each label, in their order."""
    # Numbered: labels that are cut may be equal.
    rows = [
        {"n": number, "label": visible(label)[:_LABEL], "value": value}
        for number, (label, value) in enumerate(bars)
    ]
    labels = {str(row["n"]): row["label"] for row in rows}
    names = alt.Axis(labelLimit=420, labelExpr=f"{json.dumps(labels)}[datum.value]")
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar(color=_INK)
        .encode(
            y=alt.Y("n:O", sort=None, title=None, axis=names),
            x=alt.X("value:Q", title=axis),
            tooltip=["label:N", "value:Q"],
        )
        .properties(width=_WIDTH // 2, height=max(len(rows), 2) * _BAR_HEIGHT, title=_title(title))
    )
    return _styled(chart)


def _styled(chart: _Chart) -> _Chart:
    # White in dark themes too: labels are dark.
    styled: _Chart = chart.configure(background="white", padding=12).configure_view(stroke=None)
    return styled


def _title(heading: str) -> alt.TitleParams:
    return alt.TitleParams(visible(heading)[:120], anchor="start", frame="group", fontSize=12)


def _layers(curve: Curve, domain: alt.Scale) -> list[alt.Chart]:
    rows = _rows(curve)
    data = alt.InlineData(values=rows)
    x = alt.X("x:T", scale=domain, title=None, axis=alt.Axis(grid=False, labelExpr=_CLOCK))
    # From 0 on, a latency between 200 and 210 ms would be a flat line.
    y = alt.Y("y:Q", title=None, scale=alt.Scale(zero=False))
    tips = [alt.Tooltip("x:T", title="time", format="%Y-%m-%d %H:%M"), alt.Tooltip("y:Q")]
    layers = []
    if curve.low and curve.high:
        band = alt.Chart(data).mark_area(color=_AHEAD, opacity=0.2)
        layers.append(band.encode(x=x, y=alt.Y("low:Q", title=None), y2="high:Q"))
    if curve.expected:
        dashes = alt.Chart(data).mark_line(color=_EXPECTED, strokeWidth=1)
        layers.append(dashes.encode(x=x, y=alt.Y("expected:Q", title=None)))
    line = alt.Chart(data).mark_line(
        color=_AHEAD if curve.is_ahead else _INK, strokeWidth=1.4, point=len(rows) < 3
    )
    layers.append(line.encode(x=x, y=y, tooltip=tips))
    return layers


def _outstanding(values: Numbers) -> float | None:
    """The value that is farthest from the mean of all, None of none."""
    mean = sum(values) / len(values) if values else 0.0
    return max(values, key=lambda value: abs(value - mean), default=None)


def _rows(curve: Curve) -> list[JsonObject]:
    """The points of a curve, each at the middle of its span; few enough to be drawn."""
    # What stands out most of each step is drawn: a mean would hide the outlier that the picture is
    # for.
    step = max(1, -(-len(curve.values) // POINTS_MAX))
    columns = {"y": curve.values, "expected": curve.expected, "low": curve.low, "high": curve.high}
    rows = []
    for start in range(0, len(curve.values), step):
        middle = curve.start_us + curve.length_us * (start + min(step, len(curve.values)) / 2)
        row: JsonObject = {"x": middle / 1e3}
        for name, values in columns.items():
            present = [v for v in list(values[start : start + step]) if math.isfinite(v)]
            if len(values):
                row[name] = _outstanding(present)
        rows.append(row)
    return rows
