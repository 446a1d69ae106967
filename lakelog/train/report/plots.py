"""Bar charts as SVG, written by hand: no scripts, no fonts, readable in light and dark."""

from __future__ import annotations

from html import escape

_WIDTH, _ROW, _LEFT, _RIGHT = 640, 22, 170, 70
_COLOURS = {"train": "#4477aa", "validation": "#ddaa33", "test": "#bb5566"}
_SHORT = 24


def bars(title: str, rows: list[tuple[str, dict[str, int]]]) -> str:
    """Return horizontal bars, each divided by split."""
    longest = max((sum(by_split.values()) for _, by_split in rows), default=0) or 1
    height = 34 + _ROW * len(rows) + 24
    # One scale for all bars, so that they can be compared by length.
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    elements = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}"'
        f' height="{height}" role="img" aria-label="{escape(title)}"'
        ' font-family="sans-serif" font-size="12" fill="#808080">',
        f'<text x="8" y="18" font-size="14">{escape(title)}</text>',
    ]
    for place, (name, by_split) in enumerate(rows):
        top, bar_end = 30 + place * _ROW, float(_LEFT)
        # SVG does not wrap text; a long name would run into the bar.
        short = name if len(name) <= _SHORT else name[: _SHORT - 1] + "…"
        elements.append(
            f'<text x="{_LEFT - 8}" y="{top + 14}" text-anchor="end">{escape(short)}</text>'
        )
        for split, count in by_split.items():
            wide = count * scale
            elements.append(
                f'<rect x="{bar_end:.1f}" y="{top}" width="{wide:.1f}" height="{_ROW - 6}"'
                f' fill="{_COLOURS.get(split, "#66ccee")}">'
                f"<title>{escape(split)}: {count:,}</title></rect>"
            )
            bar_end += wide
        elements.append(
            f'<text x="{bar_end + 6:.1f}" y="{top + 14}">{sum(by_split.values()):,}</text>'
        )
    elements += _legend({split for _, by_split in rows for split in by_split}, height - 10)
    return "\n".join([*elements, "</svg>"]) + "\n"


def _legend(splits: set[str], y: int) -> list[str]:
    elements, x = [], _LEFT
    for split in _COLOURS:
        if split in splits:
            elements.append(
                f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{_COLOURS[split]}"/>'
            )
            elements.append(f'<text x="{x + 15}" y="{y}">{split}</text>')
            x += 100
    return elements
