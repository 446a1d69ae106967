"""The time at the beginning of a line of text, in any usual spelling: the reader of last resort.

It is asked about lines whose format read no time, so that none of them gets the time of another
line. A time may stand up to 60 characters in, behind what precedes one in a log: a level, a host or
program, a process, brackets. Read are

    2026-11-24 10:00:00   24.11.2026 10:00   11/24/2026 10:00:00 AM   24-Nov-2026 10:00:00
    Nov 24 2026 10:00:00  Tue Nov 24 10:00:00 CET 2026   24 Nov 10:00:00   10:00:00 24.11.2026
    20261124T100000Z      261124  9:00:00    1790000000.123   1790000000123456   11-24 10:00:00

each with fractions of a second, an offset, or the word or the city of a zone behind it. Where the
order of day and month is open, a value above 12 in the same file settles it, for all lines that are
read together; else the day comes first before dots and dashes, the month before slashes. Of three
pairs of digits that is the year with which the dates of a file lie in the fewest years, then in the
latest one that has begun. Years of two digits are 1969 to 2068, as in POSIX; a missing
year is the last that lies at most a day ahead and has that day of the week, if one is said. What
begins as a time and is none (`24:99:00`, a clock without a date) is `UNREAD`: it is stored under
its arrival.

`stamped` is the style of such lines: the time and a level behind it, perhaps with a logger, are cut
off the message, unless words stand before them.
"""

from __future__ import annotations

import calendar
import contextlib
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lakelog import arrays
from lakelog.errors import InvalidEvent
from lakelog.event import Severity
from lakelog.formats import pattern
from lakelog.formats.date_orders import (
    AHEAD,
    FOREIGN,
    GAP,
    HEAD,
    MONTHS,
    TOKENS,
    TRIPLE,
    date_of,
    is_day,
)
from lakelog.formats.format import EventMembers
from lakelog.formats.line_encoding import LineEncoding
from lakelog.formats.line_starts import LEVEL_WORDS, WORDS
from lakelog.formats.pattern import COLOURS, MONTH, Pattern
from lakelog.formats.pattern_format import PatternFormat
from lakelog.formats.pattern_tables import expanded, with_fragments
from lakelog.formats.zones import AREAS, SEVERAL, ZONES
from lakelog.libraries import np, pa, pc
from lakelog.runtime.tables import ModuleFiles
from lakelog.values import parse_time

_TABLE = ModuleFiles(__file__).tables("leading_times.toml")
_FRAGMENTS = with_fragments(
    {
        "areas": AREAS,
        "foreign": "|".join(f"{name}|{name.title()}" for name in FOREIGN),
        "gap": GAP,
        "months": f"{MONTHS}|{MONTHS.upper()}|{MONTHS.lower()}",
        "triple": TRIPLE,
        "zones": "|".join((*sorted(ZONES, key=len, reverse=True), *SEVERAL)),
    },
    _TABLE["fragments"],
)
_WEEKDAYS = "Mon|Tue|Wed|Thu|Fri|Sat|Sun"
_WEEKDAY = re.compile(rf"({_WEEKDAYS})[a-z]*[,.]?[ -]+", re.ASCII)
_LIKE = re.compile(expanded(_TABLE["like"], _FRAGMENTS), re.ASCII)
"""How text begins that is meant as a time."""
_OPEN = re.compile(rf"{COLOURS}[\[(<{{\"'|*#>~]{{0,3}}{COLOURS} ?", re.ASCII)
_CLOSE = re.compile(rf"{COLOURS}[\])}}>\"'|:;,]*{COLOURS}(?:[ \t]+[|-]{{1,2}}(?=[ \t]))?[ \t]*")
_ANY_CASE = "|".join(f"{word}|{word.title()}|{word.lower()}" for word in LEVEL_WORDS.split("|"))
_BRACKETED = re.compile(rf"[\[(<|] *({_ANY_CASE}) *[\])>|]:?")
_PLAIN = re.compile(rf"({LEVEL_WORDS})\b:?(?![\w.=-])|({_ANY_CASE}):(?= )")
_NAMED = re.compile(rf"([A-Za-z_][\w.$-]*) +([|:-]) +\[?({_ANY_CASE})\]? +\2(?= )", re.ASCII)
"""A logger and a level between the same marks, as Python's tutorials write them."""
_THREADED = re.compile(rf"\[[^\]]{{0,60}}\] +({LEVEL_WORDS})\b(?![\w.=-])")
_BEFORE = re.compile(rf"{COLOURS}[=\[(<]?({_ANY_CASE})\b[\])>:|=]*{COLOURS}[ \t|:-]*", re.ASCII)
"""A level before a time."""
_KEY = re.compile(r"\"?(?:time|timestamp|ts|date|datetime|when|at|t)\"?[=:] ?", re.IGNORECASE)
_PRI = re.compile(r"<\d{1,3}>")
_TOKEN = re.compile(
    r"(?:<[^>\s]{1,12}>|\[[^\]]{0,40}\]|\([^)]{0,40}\)|[-|:=>*+]+(?= )"
    # a name with more than letters, or in capitals
    r"|(?=[A-Za-z/-]*[\d.:/=@_#|\[-])[^\s\"(){}<>]{1,60}|[A-Z]{2,}=*(?=[ \t\[:]))[ \t|:-]*",
    re.ASCII,
)
_FIRST = re.compile(r"[A-Za-z][\w.-]*[ \t|:-]+", re.ASCII)
"""The first word may be any: a host, or a program."""
_AFTER = re.compile(r"\]?|(?: \([A-Za-z ]+\))?(?: m=[+-][\d.]+)?", re.ASCII)
"""What is part of a time for JavaScript, which names the zone in words, and Go."""
_CONTINUES = re.compile(
    r"(?:[a-z_-]+[:=]|at|on|by|to|in|of|is|was|see|since|from|until|till|after|before|between|and"
    r"|expires|expired|created|updated|modified|started|ended|date|time)[ \t]*$",
    re.ASCII | re.IGNORECASE,
)
"""What stands before a time in a line that continues another: a key, or a word of a sentence."""
_MAYBE = r"^.{0,90}?(?:\d[:.hH]\d\d|\d{10}|\d{8}[T_-]\d\d|\d{6} \d{6}|年)"
"""What a line holds that has a time at its beginning, and other lines may hold, too."""
_SURE = r"^[\[(]?\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4} \d{1,2}:\d\d"
"""What always is a time, or meant as one (`_LIKE`)."""


@dataclass(frozen=True)
class LeadingTime:
    """A time as ISO text, where it stands, and the word for its zone if it may be several.

    `alone` says that nothing but a level stands before it; `begins` that what does makes the line
    no continuation of another, as a name with a colon or a preposition would.
    """

    iso: str
    start: int
    end: int
    tz: str = ""
    begins: bool = True
    alone: bool = True
    level: str = ""
    """The level before it."""

    @staticmethod
    def timed(lines: pa.ChunkedArray | pa.Array) -> Any:
        """Return the indexes of the lines that have a time of their own at their beginning,
        readable or not; of a line that is no text it is unknown."""
        return _where(lines, lambda time: time is not None)

    @staticmethod
    def beginning(lines: pa.Array) -> Any:
        """Return the indexes of the lines that continue no other, as they have a time of their own
        at their beginning; lines that are indented do not count."""
        return _where(lines, lambda time: time is not None and time.begins, indented=False)


UNREAD = LeadingTime("", 0, 0)
"""The result for text that begins as a time, which cannot be read."""


def find(line: str) -> LeadingTime | None:
    """Return the time at the beginning of a line, UNREAD for what only looks like one."""
    head = line[:HEAD]
    place, level, alone, begins = 0, "", True, True
    # Levels, priorities and names may stand before a time; so many, or a number in the prose of a
    # line would be one.
    for _ in range(TOKENS + 1):
        opening = _OPEN.match(head, place)
        start = opening.end() if opening else place
        if start > AHEAD:
            return None
        if moment := _at(head, start):
            iso, end, tz = moment
            return LeadingTime(iso, start, end, tz, begins, alone, level)
        # A time of a spelling that nobody knows: to go on would find another number of the line.
        if alone and _LIKE.match(head, start):
            return UNREAD
        if match := _BEFORE.match(head, place):
            level = level or match[1]
        elif match := _PRI.match(head, place):
            pass
        else:
            key = _KEY.match(head, place)
            match = key or _TOKEN.match(head, place)
            if match is None and alone:
                match = _FIRST.match(head, place)
            if key or (alone and match and _CONTINUES.match(head, place, match.end())):
                begins = False
            alone = False
        if match is None or match.end() == place:
            return None
        place = match.end()
    return None


def whole(moment: str) -> LeadingTime | None:
    """Return the time that a text is from its beginning to its end, perhaps in brackets; None for
    any other text."""
    time = find(moment) if len(moment) <= HEAD else None
    if time is None or time is UNREAD or moment[: time.start] not in ("", "["):
        return None
    return time if _AFTER.fullmatch(moment, time.end) else None


def _at(head: str, start: int) -> tuple[str, int, str] | None:
    """The time that stands at a place: ISO text, its end, and the word of its zone."""
    weekday = _WEEKDAY.match(head, start)
    place = weekday.end() if weekday else start
    initial = head[place : place + 1]
    if not initial.isascii() or not initial.isalnum():
        return None
    # Nearly all lines have no time at most places: the first character decides which shapes are
    # tried.
    for shape in _shapes("digits" if initial.isdigit() else "letters"):
        match = shape.match(head, place)
        groups = match.groupdict() if match is not None else None
        name = weekday[1] if weekday else ""
        if groups is not None and match is not None and (iso := _iso(groups, name)):
            word = groups.get("tz") or ""
            return iso, match.end(), word if word in SEVERAL else ""
    return None


@functools.cache
def _shapes(name: str) -> tuple[re.Pattern[str], ...]:
    """Compiled when a line is first read so: that takes longer than to load all other formats."""
    return tuple(re.compile(expanded(regex, _FRAGMENTS), re.ASCII) for regex in _TABLE[name])


def _iso(groups: Mapping[str, str | None], weekday: str) -> str:
    """ISO text of a time that has the shape of one; empty if it is none."""
    if epoch := groups.get("epoch"):
        return epoch.replace(",", ".")
    hour = _hour(int(groups["hour"] or 0), groups.get("half"))
    seconds = groups.get("second") or "00"
    fraction = groups.get("fraction")
    if seconds == "60":  # a leap second is the last moment of its minute
        seconds, fraction = "59", "999999"
    date = date_of(groups)
    if date is None or hour is None or seconds > "59":
        return ""
    clock = f"{hour:02}:{groups['minute']}:{seconds}" + (f".{fraction}" if fraction else "")
    year, month, day = date
    zone = _zone(groups)
    date_and_clock = f"{month:02}-{day:02}T{clock}"
    if not is_day(2000 if year is None else year, month, day):
        return ""
    try:
        iso = (
            pattern.iso("?-{rest}{zone}", {"rest": date_and_clock, "zone": zone})
            if year is None
            else ""
        )
        if iso and weekday:
            iso = f"{_year_of(int(iso[:4]), month, day, weekday)}{iso[4:]}"
        iso = iso or f"{year:04}-{date_and_clock}{zone}"
        if city := groups.get("city"):
            iso = pattern.iso("{iso}@{city}", {"iso": iso, "city": city})
        if year is None or city or zone:
            parse_time(iso)
    except InvalidEvent:
        return ""
    return iso


def _year_of(latest: int, month: int, day: int, weekday: str) -> int:
    """The latest year in which a day is that of the week; that is one of 40 for all days."""
    number = _WEEKDAYS.split("|").index(weekday)
    years = (year for year in range(latest, latest - 40, -1) if is_day(year, month, day))
    fits = (year for year in years if calendar.weekday(year, month, day) == number)
    return next(fits, latest)


def _hour(hour: int, half: str | None) -> int | None:
    if half is None:
        return hour if hour < 24 else None
    return hour % 12 + 12 * (half in "Pp") if hour <= 12 else None


def _zone(groups: Mapping[str, str | None]) -> str:
    """The zone as ISO text has it; empty for none, or one that may be several."""
    if groups.get("z"):
        return "Z"
    if offset := groups.get("glued") or groups.get("apart"):
        return offset
    if east := groups.get("east"):
        return "{}{:02}:{:02}".format(east[0], *divmod(int(east[1:]), 60))
    if offset := groups.get("named"):
        digits = offset[1:].replace(":", "")
        hours, minutes = (digits[:-2], digits[-2:]) if len(digits) > 2 else (digits, "00")
        return f"{offset[0]}{hours:0>2}:{minutes}"
    return ZONES.get(groups.get("tz") or "", "")


def _where(lines: Any, fits: Any, *, indented: bool = True) -> Any:
    # What begins with a date and a clock has a time, or one that cannot be read: most lines that
    # have one at all are decided at once.
    sure = arrays.truths(pc.match_substring_regex(lines, _SURE))
    maybe = np.flatnonzero(arrays.truths(pc.match_substring_regex(lines, _MAYBE)) & ~sure)
    candidates = lines.take(arrays.integers(maybe)).cast(pa.large_binary())
    heads = pc.binary_slice(candidates, 0, 4 * HEAD).to_pylist()
    indexes = [
        index for index, head in zip(maybe, heads, strict=True) if fits(_time_of(head, indented))
    ]
    return np.sort(np.concatenate([np.flatnonzero(sure), np.array(indexes, np.int64)]))


def _time_of(head: bytes | None, indented: bool) -> LeadingTime | None:
    line = LineEncoding.as_utf8(head or b"").decode("utf-8", "ignore")
    if not indented and line[:1] in pattern.SPACE:
        return None
    return find(line.strip(pattern.SPACE))


_LOCAL = rf"(?P<day>\d\d)/{MONTH}/(?P<year>\d{{4}}):(?P<clock>\d\d:\d\d:\d\d(?:\.\d{{1,9}})?)"
PATTERNS = tuple(
    Pattern(
        rf"(?P<message>{WORDS}\[?{_LOCAL}{zone}[^0-9].*)",
        "{year}-{mon}-{day}T{clock}" + template,
        "log",
    )
    for zone, template in ((r" (?P<zone>[+-]\d{4})", "{zone}"), ("", ""))
)
"""Lines of an access log of no known layout, which are so many that the engine reads them."""


class Stamped(PatternFormat):
    """The style of lines of no known layout that have a time at their beginning."""

    def parse(self, line: bytes) -> EventMembers:
        """Return the event of a line. Raises InvalidEvent."""
        if b"/" in line:
            with contextlib.suppress(InvalidEvent):
                return super().parse(line)
        line_text = pattern.decoded(line)
        moment = find(line_text)
        if moment is None or moment is UNREAD:
            raise InvalidEvent(self.otherwise)
        return _event(line_text, moment)


def _event(line: str, moment: LeadingTime) -> EventMembers:
    event: EventMembers = {"type": "log", "time": moment.iso}
    close = _CLOSE.match(line, moment.end)
    place = close.end() if close else moment.end
    level, logger, end = _level(line, place)
    message = line[end if moment.alone else 0 :]
    if logger and moment.alone:
        event["source"] = logger
    if message:
        event["message"] = message
    if moment.tz:
        event["data"] = {"tz": moment.tz}
    if word := level or moment.level:
        event["level"] = Severity.of(word) or "INFO"  # a Note is MySQL's
        return Severity.with_word(event, word)
    return event


def _level(line: str, place: int) -> tuple[str, str, int]:
    """The level that stands at a place, the logger before it, and where what follows begins."""
    match = _NAMED.match(line, place)
    logger = match[1] if match else ""
    match = match or _BRACKETED.match(line, place) or _PLAIN.match(line, place)
    if match is None:
        # a thread stays in the message
        threaded = _THREADED.match(line, place)
        return threaded[1] if threaded else "", "", place
    close = _CLOSE.match(line, match.end())
    word = next(filter(None, reversed(match.groups())))
    return word, logger, close.end() if close else match.end()


FORM = Stamped("stamped", __doc__, PATTERNS, "no time at its beginning")
