"""Time formats as users give them: directives of strftime, or detected from the text.

A `Moment` is a regex of groups and a template that makes ISO text of them, as those of patterns
are, so both ways of reading and the choice of a missing year are those of `pattern.py`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lakelog.errors import InvalidEvent, InvalidSetting
from lakelog.formats import leading_times, pattern
from lakelog.formats.zones import TZ
from lakelog.sql import literal
from lakelog.values import parse_time

NONE = "none"
"""A time format that means the time of ingest."""
_FRACTION = r"(?:[.,]\d{1,9})?"
_MON = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DAYS = "Mon|Tue|Wed|Thu|Fri|Sat|Sun"
_DAY_NAMES = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_WORD = "[A-Z]{2,5}"
_ZONE = r"(?P<zone>Z|[+-]\d\d:?\d\d)"
_DIRECTIVES = {
    "Y": r"(?P<year>\d{4})",
    "y": r"(?P<yy>\d\d)",
    "m": r"(?P<month>\d{1,2})",
    "d": r"(?P<day>\d{1,2})",
    "e": r" ?(?P<day>\d{1,2})",
    "b": f"(?P<mon>{_MON})",
    "H": r"(?P<hour>\d{1,2})",
    "k": r" ?(?P<hour>\d{1,2})",
    "I": r"(?P<hour12>\d{1,2})",
    "p": "(?P<half>AM|PM|am|pm)",
    "M": r"(?P<minute>\d\d)",
    "S": rf"(?P<second>\d\d{_FRACTION})",
    "f": r"(?P<part>\d{1,9})",
    "L": r"(?P<part>\d{1,9})",
    "z": _ZONE,
    "Z": TZ,
    "a": f"(?:{_DAYS})",
    "A": _DAY_NAMES,
    "s": r"(?P<stamp>\d{1,11})",
    "B": f"(?P<mon>{_MON})[a-z]*",
    "h": f"(?P<mon>{_MON})",
    "F": r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)",
    "T": rf"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d{_FRACTION})",
    "%": "%",
    "D": r"(?P<month>\d\d)/(?P<day>\d\d)/(?P<yy>\d\d)",
}
_PLAIN = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?[0-5]\d)?", re.ASCII
)
"""Text that is seldom no time; all other text is looked at more closely."""
_LEAP = re.compile(r"(.*\d\d:\d\d):60(?:[.,]\d{1,9})?(.*)", re.ASCII)
_ISO = r"(?P<date>\d{4}-\d\d-\d\d)[T ](?P<clock>\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?)"


@dataclass(frozen=True)
class Moment:
    """One way to write a time: `regex` has the groups of `template`, which gives ISO text."""

    regex: str
    template: str

    @property
    def names(self) -> list[str]:
        """The groups in their order."""
        return re.findall(r"\(\?P<(\w+)>", self.regex)

    def iso(self, moment: str) -> str | None:
        """Return ISO text, or None for a time that is written otherwise."""
        groups = self.groups(moment)
        return pattern.iso(self.template, groups) if groups is not None else None

    def groups(self, moment: str) -> dict[str, str | None] | None:
        """Return what the groups hold, or None for a time that is written otherwise."""
        match = re.fullmatch(self.regex, moment, re.ASCII)
        return match.groupdict() if match else None

    def cut_sql(self, expression: str) -> str:
        """SQL for the groups of a text that fits."""
        return f"regexp_extract({expression}, {literal(f'^(?:{self.regex})$')}, {self.names})"


@functools.cache
def moments(time_format: str) -> tuple[Moment, ...]:
    """Return the ways a time may be written: that of a format, or without one all that
    are detected. Raises InvalidSetting."""
    if time_format in ("", "iso", "epoch"):
        return _ANY
    return (_read(time_format),)


def iso(spellings: Sequence[Moment], moment: str) -> str:
    """Return ISO text of a time. Raises InvalidEvent."""
    for spelling in spellings:
        if (value := spelling.iso(moment)) is not None:
            return value
    raise InvalidEvent(f"time {moment[:40]!r} does not match the time format (--time-format)")


def respelled(moment: str) -> tuple[str, str | None]:
    """Return a time as text that `parse_time` reads, and the word for its zone if it has one.

    Text that is no time comes back as it is. A leap second is the last moment of its minute.
    """
    if _is_read(moment):
        return moment, None
    if leap := _LEAP.fullmatch(moment):
        return respelled(f"{leap[1]}:59.999999{leap[2]}")
    for spelling in _ANY:
        if (groups := spelling.groups(moment)) is not None:
            iso_text = pattern.iso(spelling.template, groups)
            return (iso_text, groups.get("tz")) if _is_read(iso_text) else (moment, None)
    time = leading_times.whole(moment)
    return (time.iso, time.tz or None) if time else (moment, None)


def unboxed(moment: object) -> object:
    """Return the time that is in an object of MongoDB (`$date`) or in a list of numbers, as Jackson
    writes Java's dates; what is no such box comes back as it is."""
    if isinstance(moment, dict) and list(moment) == ["$date"]:
        inner = moment["$date"]
        is_number = isinstance(inner, dict) and list(inner) == ["$numberLong"]
        return inner["$numberLong"] if is_number else inner
    if isinstance(moment, list) and 5 <= len(moment) <= 7 and all(type(n) is int for n in moment):
        year, month, day, hour, minute, second, nanos = (*moment, 0, 0)[:7]
        clock = f"{hour:02}:{minute:02}:{second:02}.{nanos:09}"
        return f"{year:04}-{month:02}-{day:02}T{clock}"
    return moment


def is_plain(moment: str) -> bool:
    """Whether a time is written as most are, so that `parse_time` reads it."""
    return _PLAIN.fullmatch(moment) is not None


def _is_read(moment: str) -> bool:
    if is_plain(moment):
        return True
    try:
        parse_time(moment)
    except InvalidEvent:
        return False
    return True


def kind_sql(spellings: Sequence[Moment], expression: str) -> str:
    """SQL for which of the ways a time is written in, null for none."""
    arms = (
        f"WHEN regexp_full_match({expression}, {literal(w.regex)}) THEN {n}"
        for n, w in enumerate(spellings)
    )
    return f"CASE {' '.join(arms)} END"


def _read(time_format: str) -> Moment:
    """The moment that a strftime format describes. Raises InvalidSetting."""
    regex, end = "", 0
    for token in re.finditer(r"%([-_0]?)(.?)|( +)", time_format):
        regex += re.escape(time_format[end : token.start()]) + _token(time_format, token)
        end = token.end()
    regex += re.escape(time_format[end:])
    names = re.findall(r"\(\?P<(\w+)>", regex)
    # A group of a regex can be there once.
    if len(set(names)) < len(names):
        raise _wrong(time_format, "says one thing twice")
    if "stamp" in names:
        return Moment(regex, "{stamp}.{part}" if "part" in names else "{stamp}")
    month = "mon" if "mon" in names else "month"
    hour = "hour12" if "hour12" in names else "hour"
    if not {month, "day", hour, "minute"} <= set(names):
        raise _wrong(
            time_format, "has to give month, day, hour and minute, as '%d/%b/%Y:%H:%M:%S %z'"
        )
    if ("hour12" in names) != ("half" in names):
        raise _wrong(time_format, "needs %p beside %I, and only there")
    # "?" is the year that puts the moment nearest before now.
    year = "{year}" if "year" in names else "20{yy}" if "yy" in names else "?"
    seconds = ":{second}" if "second" in names else ":00"
    seconds += ".{part}" if "part" in names else ""
    zone = "{zone}" if "zone" in names else "{tz}" if "tz" in names else ""
    return Moment(regex, f"{year}-{{{month}}}-{{day}}T{{{hour}}}:{{minute}}{seconds}{zone}")


def _token(time_format: str, token: re.Match[str]) -> str:
    if token[3]:
        return " +"
    if token[2] not in _DIRECTIVES or not token[2]:
        raise _wrong(time_format, f"holds {token[0]!r}, which is no directive that is known")
    return _DIRECTIVES[token[2]]


def _wrong(time_format: str, reason: str) -> InvalidSetting:
    return InvalidSetting(f"the time format {time_format!r} {reason}")


_ANY = (
    Moment(rf"{_ISO} ?{_ZONE}", "{date}T{clock}{zone}"),
    Moment(rf"{_ISO} (?P<zone>[+-]\d\d)", "{date}T{clock}{zone}"),
    Moment(rf"{_ISO} {_ZONE} (?:{_WORD}|[+-]\d\d(?:\d\d)?)", "{date}T{clock}{zone}"),
    Moment(_ISO, "{date}T{clock}"),
    Moment(rf"{_ISO} {TZ}", "{date}T{clock}{tz}"),
    Moment(r"(?P<stamp>-?\d{9,19}(?:\.\d{1,9})?)", "{stamp}"),
    *map(
        _read,
        (
            "%d/%b/%Y:%H:%M:%S %z",
            "%b %e %H:%M:%S",
            "%b %e %Y %H:%M:%S",
            "%a %b %e %H:%M:%S %Y",
            "%a %b %e %H:%M:%S %Z %Y",
            "%a, %d %b %Y %H:%M:%S %z",
            "%a, %d %b %Y %H:%M:%S %Z",
            "%Y/%m/%d %H:%M:%S",
            "%d-%b-%Y %H:%M:%S",
            "%d %b %Y %H:%M:%S",
            "%Y%m%d %H:%M:%S",
            "%Y%m%dT%H%M%S",
        ),
    ),
)
