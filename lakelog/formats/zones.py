"""Abbreviations of time zones: those that stand for one offset, and those that may be several.

A time whose word may be several is of the zone that its source is configured for, else UTC; the
word stays in the event's `data`, so that it can be seen.
"""

from __future__ import annotations

from lakelog.runtime.tables import tables_beside

_TABLE = tables_beside(__file__, "zones.toml")
ZONES: dict[str, str] = _TABLE["offsets"]
"""Abbreviations of zones that mean one offset."""
SEVERAL: tuple[str, ...] = tuple(_TABLE["several"])
"""Abbreviations that mean several."""
WORD = f"(?:{'|'.join((*ZONES, *SEVERAL))})"
TZ = f"(?P<tz>{WORD})"
_AREAS = "Africa|America|Antarctica|Asia|Atlantic|Australia|Europe|Indian|Pacific|Etc"
ODD = (
    rf" ?(?:[AaPp]\.?[Mm]\b|[\[(]?(?:{_AREAS})/\w|\(?(?:UTC|GMT)[+-]\d"
    rf"|\((?:UTC|GMT|Z|{WORD})\))"
)
"""Halves of the day, and zones, that only the style of leading times reads."""
