"""Earlier places in a file, [bytes, crc] pairs, of which a cursor remembers a few."""

from __future__ import annotations

PLACES_MAX = 12
"""Earlier places that a cursor remembers; old ones lie further apart."""


def thin(places: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Drop one earlier place where there are too many: the one whose neighbours are nearest to
    each other, relative to their distance from the newest."""
    if len(places) <= PLACES_MAX:
        return places
    end = places[-1][0]
    gaps = [
        (places[n + 1][0] - places[n - 1][0]) / (end - places[n - 1][0] + 1)
        for n in range(1, len(places) - 1)
    ]
    drop = gaps.index(min(gaps)) + 1
    return places[:drop] + places[drop + 1 :]
