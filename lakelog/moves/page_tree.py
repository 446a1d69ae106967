"""Which pages a manifest has: recent entries become pages, and small pages become larger ones.

A log-structured tree of fan-out 16 (see manifest.py). Commits merge pages of level 0 alone; all
other merges are maintenance.
"""

from __future__ import annotations

from lakelog import manifest
from lakelog.entries import Entry, Removal
from lakelog.manifest import Manifests, Page, fold


def spill(
    manifests: Manifests, pages: tuple[Page, ...], recent: tuple[Entry, ...], commit: str
) -> tuple[tuple[Page, ...], tuple[Entry, ...]]:
    """Move recent entries beyond 16 into pages, and merge small pages; at most 256 entries are
    merged here, larger merges are maintenance."""
    biggest = manifest.FAN ** (manifest.LEVEL_MAX + 1)
    while len(recent) > manifest.FAN:
        count = len(recent) - len(recent) % manifest.FAN or manifest.FAN
        count = min(count, biggest)
        pages = (*pages, manifests.write_page(recent[:count], commit))
        recent = recent[count:]
    # Level 0 alone: this is on the path of every commit, and a merge reads what it merges.
    start = mergeable(pages, 0)
    if start is not None:
        pages = merge_from(manifests, pages, start, commit)
    return pages, recent


def mergeable(pages: tuple[Page, ...], level: int) -> int | None:
    """Return where the newest pages of at most this level begin, if sixteen of them have it, or if
    they are more than levels that fill one after the other leave."""
    start, full = len(pages), 0
    while start and pages[start - 1].level <= level and not pages[start - 1].is_large:
        start -= 1
        full += pages[start].level == level
    # Commits of many entries write pages of level 1 between those of level 0, which find no
    # sixteen neighbours then.
    is_crowded = level < manifest.LEVEL_MAX and len(pages) - start >= 2 * manifest.FAN
    return start if full >= manifest.FAN or is_crowded else None


def merge_from(
    manifests: Manifests, pages: tuple[Page, ...], start: int, commit: str
) -> tuple[Page, ...]:
    """Merge the pages from `start` on into as few as their entries need."""
    entries = fold([manifests.page(p) for p in pages[start:]], oldest=start == 0)
    size = manifest.FAN ** (manifest.LEVEL_MAX + 1)
    # Newer pages of lower levels come along, so this may be more than the largest page takes.
    page_entries = [entries[i : i + size] for i in range(0, len(entries), size)]
    manifests.drop_pages(pages[start:])
    return (*pages[:start], *(manifests.write_page(chunk, commit) for chunk in page_entries))


def is_mergeable(pages: tuple[Page, ...]) -> bool:
    """Whether maintenance has pages to merge."""
    return _is_stale(pages) or any(mergeable(pages, n) is not None for n in range(manifest.BOTTOM))


def merge_pages(manifests: Manifests, pages: tuple[Page, ...], commit: str) -> tuple[Page, ...]:
    """Merge the newest pages of levels that are full, or all pages where many entries may be
    dead."""
    if _is_stale(pages):
        return _merge_all(manifests, pages, commit)
    for level in range(manifest.BOTTOM):
        start = mergeable(pages, level)
        if start is not None:
            pages = merge_from(manifests, pages, start, commit)
    return pages


def _is_stale(pages: tuple[Page, ...]) -> bool:
    """Whether the pages above the bottom level have enough entries to rewrite all pages."""
    bottom = sum(page.entries for page in pages if page.level == manifest.BOTTOM)
    upper = sum(page.entries for page in pages) - bottom
    # Merges by level never drop dead entries of level 2, however many there are. At half the bottom
    # a page is written about three times in its life; a small tree is not worth it at all.
    return upper > max(bottom // 2, int(manifest.FAN ** (manifest.LEVEL_MAX + 1)))


def _merge_all(manifests: Manifests, pages: tuple[Page, ...], commit: str) -> tuple[Page, ...]:
    """Write the live entries of all pages as pages of the bottom level; keeps live entries alone in
    memory, as there may be a hundred times as many dead ones."""
    live: dict[tuple[str, str], Entry] = {}
    for page in pages:
        for entry in manifests.peek(page):
            live.pop(key := (entry.entry_type, entry.key), None)
            if not isinstance(entry, Removal):
                live[key] = entry
    entries, size = tuple(live.values()), manifest.FAN ** (manifest.LEVEL_MAX + 1)
    page_entries = (entries[start : start + size] for start in range(0, len(entries), size))
    manifests.drop_pages(pages)
    return tuple(manifests.write_page(chunk, commit, manifest.BOTTOM) for chunk in page_entries)
