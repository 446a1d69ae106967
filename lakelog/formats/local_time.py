"""A format in the time zone of its source: times that name no zone are of that one.

Both ways of reading take the zone from here: the exact rule by `parse`, and the engine by its
session's zone, which the Transformer sets from `traits.zone`. They agree where clocks change: of
two moments that a local time may mean it is the later one.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, timedelta, timezone, tzinfo

from lakelog.errors import InvalidEvent, InvalidSetting
from lakelog.event import Severity
from lakelog.formats import sqltext
from lakelog.formats.engine_zone import EngineZone
from lakelog.formats.format import EventMembers, Format, FormatWrapper
from lakelog.formats.zones import ZONES
from lakelog.values import parse_time

_WORD = re.compile(rb"\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)? ?([A-Z]{2,5})(?![A-Za-z0-9_])")
"""A word after a time that may be a time zone."""
_WORDS_MAX = 3
_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d\d?)(?::?([0-5]\d))?")


def zone_note(form: Format, head: bytes) -> str:
    """Name the ambiguous time zone abbreviations in a file's first lines, which are read as UTC
    because no zone is configured; empty if there are none."""
    if form.traits.zone:
        return ""
    zone_words = []
    for line in head.splitlines():
        match = _WORD.search(line)
        word = match[1].decode() if match else ""
        # A word that no table of zones has is named only where the format really reads it as one.
        if word and word not in zone_words and not Severity.of(word) and word not in ZONES:
            zone_words += [word] if _has_word(form, line, word) else []
    if not zone_words:
        return ""
    times = f"times with {' and '.join(zone_words[:_WORDS_MAX])} are read as UTC"
    return f"{times}: say which zone is meant with --zone"


def _has_word(form: Format, line: bytes, word: str) -> bool:
    """Whether a line's event has a word as the zone of its time."""
    try:
        datas = [event.get("data") for event in form.events(line)]
    except InvalidEvent:
        return False
    return any(isinstance(data, dict) and data.get("tz") == word for data in datas)


class LocalTimeFormat(FormatWrapper):
    """A format whose times without a zone are of `zone`; all else is that of `form`."""

    def __init__(self, form: Format, zone: str, name: str) -> None:
        super().__init__(form, name, replace(form.traits, zone=engine_zone(zone)))
        self._name, self._zone = zone, zone_of(zone)

    def parse(self, line: bytes) -> EventMembers | list[EventMembers]:
        """Return the events of a line, their times in UTC. Raises InvalidEvent."""
        events = self._form.parse(line)
        for event in events if isinstance(events, list) else [events]:
            self._set_zone(event)
        return events

    def parse_own(self, line: bytes) -> EventMembers | list[EventMembers]:
        """Return the events of a line of the format itself. Raises InvalidEvent."""
        # Over a mixture the format's rule alone is asked, which knows no zone.
        return self._form.parse_own(line) if self.traits.styles else self.parse(line)

    def specialize(self, head: bytes) -> LocalTimeFormat:
        """Return the format as a file's first bytes define it, in the same zone."""
        return self.over(lambda form: form.specialize(head))

    def over(self, change: Callable[[Format], Format]) -> LocalTimeFormat:
        """Return the format that a change makes of the one below, in the same zone."""
        return LocalTimeFormat(change(self._form), self._name, self.NAME)

    def _set_zone(self, event: EventMembers) -> None:
        for key in sqltext.TIMES:
            if isinstance(event.get(key), str):
                event[key] = parse_time(event[key], self._zone)


@functools.cache
def zone_of(name: str) -> tzinfo:
    """Return the zone of a name such as Europe/Berlin, UTC or +02:00. Raises InvalidSetting."""
    if name.upper() in ("UTC", "GMT", "Z"):
        return UTC
    if match := _OFFSET.fullmatch(name):
        offset = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
        if offset < timedelta(hours=15):
            return timezone(offset if match[1] == "+" else -offset)
    if "/" in name:  # names such as CET are abbreviations to some and a region to others
        with contextlib.suppress(KeyError):
            return EngineZone(name)
    raise InvalidSetting(f"{name!r} is not a known time zone: write Europe/Berlin, UTC or +02:00")


def engine_zone(name: str) -> str:
    """Return the engine's name of a zone. Raises InvalidSetting."""
    zone = zone_of(name)
    if zone is not UTC and not isinstance(zone, timezone):
        return name
    offset = zone.utcoffset(None) or timedelta()
    minutes = round(abs(offset).total_seconds()) // 60
    sign = "-" if offset < timedelta() else "+"
    return f"GMT{sign}{minutes // 60:02}:{minutes % 60:02}" if minutes else "UTC"
