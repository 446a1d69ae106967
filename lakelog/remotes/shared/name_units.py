"""Which pages of a manifest have a file of names together (F22.12): a pure policy.

    pages of level 3         64 together, the last ones fewer
    later ones that stay     64 together; those after these by the digits of their count, to the
                             base of four: 48, 32 or 16, then 12, 8 or 4, then 3, 2 or 1
    the newest ones          64 together, the last ones fewer; these are merged still. Those of
                             level 0 at the end have no file: any publish changes them

So a million entries have about eight files, and a page that stays is in five that are written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from lakelog.manifest import BOTTOM, Manifest, Page
from lakelog.remotes.shared.name_file import key_of

Unit = tuple[Page, ...]
_BASE = 4
MOST = _BASE**3
PAGE = 1 << 12
"""Entries of a page at most, by which the entries of all pages of a unit are numbered."""


def units(pages: Sequence[Page]) -> list[Unit]:
    """Return the pages that have a file of names together, in order, all but the newest small
    ones."""
    bottom = sum(page.level == BOTTOM for page in pages)  # these come first
    large = (number for number, page in enumerate(pages, 1) if page.is_large)
    stable = max(bottom, *large, 0)
    by_digits = _by_digits(pages[bottom:stable])
    end = max((number for number, page in enumerate(pages, 1) if page.level), default=0)
    return [*_chunks(pages[:bottom], MOST), *by_digits, *_chunks(pages[stable:end], MOST)]


def _chunks(pages: Sequence[Page], size: int) -> list[Unit]:
    return [tuple(pages[start : start + size]) for start in range(0, len(pages), size)]


def _by_digits(pages: Sequence[Page]) -> list[Unit]:
    digits, size, whole = list[Unit](), MOST, len(pages) - len(pages) % MOST
    digits += _chunks(pages[:whole], MOST)
    while size > 1:
        size //= _BASE
        if count := (len(pages) - whole) // size * size:
            digits.append(tuple(pages[whole : whole + count]))
        whole += count
    return digits


def before(unit: Unit) -> list[Unit]:
    """Return what had files before the last page of a unit was there, and that page."""
    return [*_by_digits(unit[:-1]), unit[-1:]]


def parts(unit: Unit) -> list[Unit]:
    """Return the units of which each has a file where the whole one would be too long."""
    size = MOST
    while size >= len(unit) > 1:
        size //= _BASE
    return _chunks(unit, size) if len(unit) > 1 else []


def unit_digest(unit: Unit) -> str:
    """Return what names the file of some pages."""
    return hashlib.sha256("\n".join(("", *(page.digest for page in unit))).encode()).hexdigest()


def file_keys(state: Manifest) -> list[str]:
    """Return the keys of the files of names that a state can have."""
    return [key_of(unit_digest(u)) for unit in units(state.pages) for u in _all_parts(unit)]


def _all_parts(unit: Unit) -> Iterator[Unit]:
    yield unit
    for subunit in parts(unit):
        yield from _all_parts(subunit)
