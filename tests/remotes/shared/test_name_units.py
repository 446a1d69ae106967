"""Pages have files of names together: few at a time, each page in few of those that are written."""

from __future__ import annotations

import itertools

from lakelog.manifest import BOTTOM, FAN, LEVEL_MAX, Page
from lakelog.remotes.shared import name_units

_FULL = FAN**BOTTOM


def page(number: int, level: int, entries: int = _FULL) -> Page:
    return Page(f"{number:064x}", 1000, level, entries, 0, 10 * entries, [number, number])


def lengths(pages: list[Page]) -> list[int]:
    return [len(unit) for unit in name_units.units(pages)]


def test_a_million_entries_have_few_units() -> None:
    bottom = [page(number, BOTTOM) for number in range(166)]
    newest = [page(3000 + number, 0, FAN) for number in range(15)]
    for count in range(200):
        later = [page(1000 + number, LEVEL_MAX) for number in range(count)]
        small = [page(2000 + number, LEVEL_MAX, 20) for number in range(30)]
        units = name_units.units([*bottom, *later, *small])
        assert list(itertools.chain(*units)) == [*bottom, *later, *small]
        assert name_units.units([*bottom, *later, *small, *newest]) == units
        assert len(units) <= 3 + count // 64 + 3 + 1
    assert lengths(bottom) == [64, 64, 38]
    assert lengths([*bottom, *later[: 64 + 2 * 16 + 3]]) == [64, 64, 38, 64, 32, 3]
    assert lengths(small) == [30]


def test_a_page_that_stays_is_written_few_times() -> None:
    written, pages, count = set[tuple[str, ...]](), list[Page](), 512
    for number in range(count):
        pages.append(page(number, LEVEL_MAX))
        written |= {tuple(p.digest for p in unit) for unit in name_units.units(pages)}
    assert sum(map(len, written)) / count < 6


def test_parts_of_a_unit_go_down_to_single_pages() -> None:
    unit = tuple(page(number, BOTTOM) for number in range(38))
    assert [len(part) for part in name_units.parts(unit)] == [16, 16, 6]
    assert [len(part) for part in name_units.parts(unit[:16])] == [4] * 4
    assert name_units.parts(unit[:1]) == []
