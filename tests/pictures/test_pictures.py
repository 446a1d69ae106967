"""Pictures of analyses: what is drawn, in which form, and the shape of a series as text."""

from __future__ import annotations

import math

import pytest

from lakelog.errors import InvalidSetting, MissingPackage
from lakelog.pictures import (
    Curve,
    charts,
    curves_chart,
    encode,
    meter,
    require_drawable,
    since,
    sparkline,
)
from tests.support.requirements import need_module

HOUR = 3_600_000_000


def curve(count: int, **more: object) -> Curve:
    return Curve("requests", 0, HOUR, [float(n % 7) for n in range(count)], **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([9, 0, 7], 2, "▁█"),
        ([5, 5], 9, "▁▁"),
        ([1, math.nan, 2], 9, "▁ █"),
        ([], 9, ""),
    ],
    ids=["each height", "the last ones", "constant", "a gap", "none"],
)
def test_a_sparkline_has_the_shape_of_a_series(values: list[float], width: int, line: str) -> None:
    assert sparkline(values, width) == line


def test_a_meter_shows_a_share() -> None:
    assert [meter(share, 2) for share in (0, 0.5, 0.56, 1, 7)] == ["  ", "█ ", "█▏", "██", "██"]


@pytest.mark.parametrize(
    ("path", "start"),
    [("a.png", b"\x89PNG"), ("a.svg", b"<svg"), ("A.HTML", b"<!DOCTYPE html>")],
    ids=["png", "svg", "html"],
)
def test_a_picture_is_what_its_name_says(path: str, start: bytes) -> None:
    need_module("altair")
    need_module("vl_convert")
    panels = [[curve(40, expected=[3.0] * 40), curve(0)], [curve(3)]]
    drawn = encode(curves_chart(panels[:1], "title", [(HOUR, 2 * HOUR)], limit=4), path)
    assert drawn.lstrip().startswith(start)
    # A page must not ask another server for what it needs.
    assert b"cdn.jsdelivr" not in drawn


def test_a_value_that_stands_out_is_drawn_however_long_the_series() -> None:
    need_module("altair")
    values = [1.0] * 30_000
    values[12_345] = 90.0
    chart = curves_chart([[Curve("long", 0, HOUR, values)]], "title").to_dict(format="vega-lite")
    (points,) = chart["datasets"].values()
    assert len(points) <= charts.POINTS_MAX
    assert max(point["y"] for point in points) == 90.0


def test_a_curve_is_cut_at_a_time() -> None:
    later = since(curve(10, low=[0.0] * 10), 7 * HOUR)
    assert (later.start_us, len(later.values), len(later.low)) == (7 * HOUR, 3, 3)
    assert since(curve(10), -HOUR) == curve(10)


def test_what_cannot_be_drawn_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSetting, match=r"\.png, \.svg, \.html"):
        require_drawable("a.txt")
    monkeypatch.setattr(charts, "find_spec", lambda _: None)
    with pytest.raises(MissingPackage, match=r"lakelog\[analysis\]"):
        require_drawable("a.png")
