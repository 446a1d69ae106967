"""Figures as bars, in SVG that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

WIDTH, BAR, LEFT = 720, 22, 130
OURS, OTHERS = "#2a6f97", "#b8c4cc"


def write(figures: dict[str, dict[str, Any]], count: int, where: Path) -> None:
    """Write one plot for each of the main questions."""
    where.mkdir(parents=True, exist_ok=True)
    bulk, small = figures.get("bulk", {}), figures.get("commits of 10", {})
    plots = {
        "bulk": ("Bulk load, events/s", {n: count / f["load"] for n, f in bulk.items()}),
        "commits": ("Commits of 10, events/s", {n: f["rate"] for n, f in small.items()}),
        "bytes": (
            "Bytes an event",
            {n: f.get("tidy_bytes", f["bytes"]) / count for n, f in bulk.items()},
        ),
        "status": (
            "Latest state by item, ms", {n: 1000 * f["ask"]["status"] for n, f in bulk.items()},
        ),
    }  # fmt: skip
    for name, (title, values) in plots.items():
        if values:
            (where / f"peers-{name}.svg").write_text(bars(title, values))


def bars(title: str, values: dict[str, float]) -> str:
    """One horizontal bar for each value, the longest as wide as there is room."""
    height = 40 + BAR * len(values)
    most = max(values.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="10" y="22" font-weight="bold">{escape(title)}</text>',
    ]
    for row, (name, value) in enumerate(values.items()):
        y = 36 + row * BAR
        wide = max((WIDTH - LEFT - 110) * value / most, 1)
        fill = OURS if name == "lakelog" else OTHERS
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{y + 2}" width="{wide:.1f}" height="{BAR - 6}" fill="{fill}"/>',
            f'<text x="{LEFT + wide + 6:.1f}" y="{y + 14}">{value:,.4g}</text>',
        ]
    return "\n".join([*parts, "</svg>\n"])
