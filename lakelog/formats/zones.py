"""Abbreviations of time zones: those that stand for one offset, and those that may be several.

A time whose word may be several is of the zone that its source is configured for, else UTC; the
word stays in the event's `data`, so that it can be seen.
"""

from __future__ import annotations

from lakelog.runtime.tables import ModuleFiles

_TABLE = ModuleFiles(__file__).tables("zones.toml")
ZONES: dict[str, str] = _TABLE["offsets"]
"""Abbreviations of zones that mean one offset."""
SEVERAL: tuple[str, ...] = tuple(_TABLE["several"])
"""Abbreviations that mean several."""
ZONE_WORD = f"(?:{'|'.join((*ZONES, *SEVERAL))})"
TZ = f"(?P<tz>{ZONE_WORD})"
AREAS = "Africa|America|Antarctica|Asia|Atlantic|Australia|Europe|Indian|Pacific|Etc"
"""How the names of zones begin that are named after cities."""
NUMERIC = r"[+-](?:0\d|1[0-4]):?(?:00|15|30|45)"
ODD_ZONE = (
    rf" ?(?:[AaPp]\.?[Mm]\b|[\[(]?(?:{AREAS})/\w|\(?(?:UTC|GMT)[+-]\d{{1,2}}(?::?\d\d)?\b"
    rf"|\((?:UTC|GMT|Z|{ZONE_WORD})\))"
)
"""Halves of the day, and zones, that only the style of leading times reads."""
ANY_ZONE = rf"(?:{ODD_ZONE}|Z\b| ?{NUMERIC}\b| ?{ZONE_WORD}\b)"
