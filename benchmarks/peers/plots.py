"""Figures as bars and curves, in SVG that needs nothing else."""

from __future__ import annotations

import math
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.peers import PEERS
from benchmarks.peers.rows import Figures, Row, sections
from benchmarks.peers.table import short

Curve = list[tuple[float, float]]
WIDTH, BAR, LEFT = 760, 24, 130
HEIGHT, TOP, BOTTOM, RIGHT = 400, 44, 48, 190
OURS, OTHERS = "#1d5f8a", "#b8c4cc"
BLUES = ("#0b3c5d", "#1d5f8a", "#2f86c1", "#5aa9e0", "#1b8a9e", "#27496d", "#7fb3d5")
COLOURS = ("#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#5d6d7e", "#117a65", "#a04000", "#7d8f1a")
BARS = (
    "load-rate",
    "many-rate",
    "load-small",
    "load-five",
    "views-later",
    "load-needle",
    "load-nested",
    "rate 10 by 1",
    "rate 10 by 16",
    "p99 10 by 1",
    "processes-10",
    "recovery",
)


def write(figures: Figures, where: Path) -> None:
    """Write a plot for each of the main rows and for every curve that was measured."""
    where.mkdir(parents=True, exist_ok=True)
    rows = {row.key: row for found in sections(figures).values() for row in found}
    for key in BARS:
        if key in rows:
            name = key.replace(" ", "-")
            (where / f"{name}.svg").write_text(bars(rows[key], rows[key].values(figures)))
    for name, (title, across, up, curves) in _curves(figures).items():
        if curves:
            (where / f"curve-{name}.svg").write_text(lines(title, across, up, curves))


def bars(row: Row, values: dict[str, float]) -> str:
    """One horizontal bar for each peer, the best on top."""
    ordered = sorted(values.items(), key=lambda pair: -pair[1] if row.most else pair[1])
    most = max(values.values()) or 1
    parts = _begin(46 + BAR * len(ordered), f"{row.title.strip()}, {row.unit}".strip(", "))
    better = "more is better" if row.most else "less is better"
    parts.append(_text(WIDTH - 10, 22, better, anchor="end", fill="#666"))
    for number, (name, value) in enumerate(ordered):
        y = 36 + number * BAR
        wide = max((WIDTH - LEFT - 110) * value / most, 1)
        fill = OURS if name == "lakelog" else OTHERS
        parts += [
            _text(LEFT - 8, y + 15, PEERS[name].title, anchor="end"),
            f'<rect x="{LEFT}" y="{y + 2}" width="{wide:.1f}" height="{BAR - 6}" fill="{fill}"/>',
            _text(LEFT + wide + 6, y + 15, short(value)),
        ]
    return "\n".join([*parts, "</svg>\n"])


def lines(title: str, across: str, up: str, curves: dict[str, Curve]) -> str:
    """Curves on logarithmic axes, named at the right in the order of their ends."""
    points = [point for curve in curves.values() for point in curve]
    xs, ys = _decades([x for x, _ in points]), _decades([y for _, y in points])
    parts = _begin(HEIGHT, title)
    for x in range(xs[0], xs[1] + 1):
        at = _across(10.0**x, xs)
        parts.append(_line(at, TOP, at, HEIGHT - BOTTOM, "#e4e4e4"))
        parts.append(_text(at, HEIGHT - BOTTOM + 18, _power(x), anchor="middle"))
    for y in range(ys[0], ys[1] + 1):
        at = _up(10.0**y, ys)
        parts.append(_line(70, at, WIDTH - RIGHT, at, "#e4e4e4"))
        parts.append(_text(64, at + 4, _power(y), anchor="end"))
    parts.append(_text((70 + WIDTH - RIGHT) / 2, HEIGHT - 10, across, anchor="middle"))
    parts.append(_text(10, TOP - 8, up, fill="#666"))
    ends = sorted(curves, key=lambda name: -curves[name][-1][1])
    label = float(TOP)
    for number, name in enumerate(ends):
        colours = BLUES if name.startswith("lakelog:") else COLOURS
        colour = OURS if name == "lakelog" else colours[number % len(colours)]
        dash = ' stroke-dasharray="5 3"' if name == "floor" else ""
        wide = 3 if name == "lakelog" else 1.8
        path = " ".join(f"{_across(x, xs):.1f},{_up(y, ys):.1f}" for x, y in curves[name])
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{wide}"{dash}/>'
        )
        end = _up(curves[name][-1][1], ys)
        label = max(label, end)
        label = min(label, HEIGHT - BOTTOM - 15 * (len(ends) - 1 - number))
        parts.append(_text(WIDTH - RIGHT + 10, label + 4, name, fill=colour))
        label += 15
    return "\n".join([*parts, "</svg>\n"])


def _curves(figures: Figures) -> dict[str, tuple[str, str, str, dict[str, Curve]]]:
    """Title, axes and curves of every plot of lines."""
    return {
        "commits": ("Commits of 100, the median in windows", "commits made", "ms", _grown(figures)),
        "processes": (
            "Commits of 10 by processes at once",
            "processes",
            "events/s",
            _crowds(figures),
        ),
        "segments": (
            "Cost against the number of segments",
            "segments",
            "ms",
            _steps(figures, "segments"),
        ),
        "history": (
            "Cost against the length of the history",
            "moves",
            "ms",
            _steps(figures, "history"),
        ),
    }


def _grown(figures: Figures) -> dict[str, Curve]:
    found = {}
    for peer, got in figures.get("commits", {}).items():
        curve = got.get("of", {}).get("100 by 1", {}).get("curve")
        if curve:
            found[PEERS[peer].title] = [(float(n), 1000 * t) for n, t in curve]
    return found


def _crowds(figures: Figures) -> dict[str, Curve]:
    found = {}
    for peer, got in figures.get("processes", {}).items():
        curve = [(float(n), of["rate"]) for n, of in got.get("of", {}).items() if of["rate"]]
        if len(curve) > 1:
            found[PEERS[peer].title] = curve
    return found


def _steps(figures: Figures, part: str) -> dict[str, Curve]:
    found: dict[str, Curve] = {}
    for peer, got in figures.get(part, {}).items():
        for count, steps in got.get("of", {}).items():
            for step, took in steps.items():
                name = f"{PEERS[peer].title}: {step}"
                found.setdefault(name, []).append((float(count), 1000 * took))
    return found


def _begin(height: float, title: str) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}"'
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height:g}" fill="#fff"/>',
        f'<text x="10" y="22" font-weight="bold" fill="#111">{escape(title)}</text>',
    ]


def _text(x: float, y: float, text: str, anchor: str = "start", fill: str = "#222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _decades(values: list[float]) -> tuple[int, int]:
    """Powers of ten that hold all values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _across(x: float, span: tuple[int, int]) -> float:
    return 70 + (WIDTH - RIGHT - 70) * (math.log10(x) - span[0]) / (span[1] - span[0])


def _up(y: float, span: tuple[int, int]) -> float:
    low = HEIGHT - BOTTOM
    return low - (low - TOP) * (math.log10(y) - span[0]) / (span[1] - span[0])


def _power(exponent: int) -> str:
    return f"{10**exponent:,}" if exponent >= 0 else f"{10.0**exponent:.{-exponent}f}"
