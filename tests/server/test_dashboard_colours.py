"""Every colour of the dashboard can be told from what it stands on, in light and dark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lakelog

STYLES = Path(lakelog.__file__).parent / "server" / "dashboard" / "base.css"
TEXTS = "text text-soft accent error warn info debug live".split()
GROUNDS = "bg bg-soft bg-hover bg-pick".split()
MARKS = [*(f"bar-{level}" for level in "fatal error warn info debug trace none".split())]
MARKS += [f"s{number}" for number in range(1, 9)]


def themes() -> dict[str, dict[str, str]]:
    blocks = re.findall(r"(:root[^{]*)\{([^}]*)\}", STYLES.read_text())
    light, dark = (
        dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", body)) for _, body in blocks[:2]
    )
    return {"light": light, "dark": {**light, **dark}}


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_and_marks_have_contrast(theme: str) -> None:
    colours = themes()[theme]
    pairs = [(text, ground, 4.5) for text in TEXTS for ground in GROUNDS]
    pairs += [("asof", "asof-bg", 4.5), ("accent-text", "accent", 4.5), ("text", "mark", 4.5)]
    pairs += [("error", "error-bg", 4.5), ("text", "error-bg", 4.5)]
    pairs += [(mark, "bg", 3.0) for mark in MARKS]
    weak = [
        (over, under, round(contrast(colours[over], colours[under]), 2))
        for over, under, least in pairs
        if contrast(colours[over], colours[under]) < least
    ]
    assert weak == []
