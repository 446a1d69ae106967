"""Bar charts as SVG, written by hand: no scripts, no fonts, readable in light and dark."""

from __future__ import annotations

from html import escape

_WIDTH, _ROW, _LEFT, _RIGHT = 640, 22, 170, 70
_COLOURS = {"train": "#4477aa", "validation": "#ddaa33", "test": "#bb5566"}
_SHORT = 24


def bars(title: str, rows: list[tuple[str, dict[str, int]]]) -> str:
    """Return horizontal bars, each cut into the sides of a split."""
    most = max((sum(parts.values()) for _, parts in rows), default=0) or 1
    height = 34 + _ROW * len(rows) + 24
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    made = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}"'
        f' height="{height}" role="img" aria-label="{escape(title)}"'
        ' font-family="sans-serif" font-size="12" fill="#808080">',
        f'<text x="8" y="18" font-size="14">{escape(title)}</text>',
    ]
    for place, (name, parts) in enumerate(rows):
        top, left = 30 + place * _ROW, float(_LEFT)
        short = name if len(name) <= _SHORT else name[: _SHORT - 1] + "…"
        made.append(
            f'<text x="{_LEFT - 8}" y="{top + 14}" text-anchor="end">{escape(short)}</text>'
        )
        for side, count in parts.items():
            wide = count * scale
            made.append(
                f'<rect x="{left:.1f}" y="{top}" width="{wide:.1f}" height="{_ROW - 6}"'
                f' fill="{_COLOURS.get(side, "#66ccee")}"><title>{escape(side)}: {count:,}</title>'
                "</rect>"
            )
            left += wide
        made.append(f'<text x="{left + 6:.1f}" y="{top + 14}">{sum(parts.values()):,}</text>')
    made += _legend({side for _, parts in rows for side in parts}, height - 10)
    return "\n".join([*made, "</svg>"]) + "\n"


def _legend(sides: set[str], y: int) -> list[str]:
    made, x = [], _LEFT
    for side in _COLOURS:
        if side in sides:
            made.append(
                f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{_COLOURS[side]}"/>'
            )
            made.append(f'<text x="{x + 15}" y="{y}">{side}</text>')
            x += 100
    return made
