"""Patterns of text formats: one declaration of a line gives its SQL and its exact rule.

A regex with named groups says how a line is cut. It is written so that RE2 and Python read it
alike (no `\\s`, `\\w` and `\\d` of ASCII, no lookaround) and so that a line fits in one way only,
for Python would try them all. A template of groups gives ISO text, which is read by the rule that
all formats share. Of several patterns the first that fits decides. A group that is empty is null.
Lines are looked at without the white space around them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from string import Formatter

from lakelog.errors import InvalidEvent, InvalidSetting
from lakelog.event import Severity
from lakelog.formats import sqltext
from lakelog.formats.format import SPACE as SPACE
from lakelog.formats.format import EventMembers, share, utf8
from lakelog.formats.line_encoding import COLOUR
from lakelog.formats.local_time import zone_of
from lakelog.formats.zones import ZONES
from lakelog.runtime.lazy import LazyProperty
from lakelog.sql import literal
from lakelog.values import parse_time

MONTH = "(?P<mon>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
CLOCK = r"(?P<clock>\d\d:\d\d:\d\d(?:[.,]\d{1,9})?)"
PRI = r"<(?P<pri>\d{1,2}|1[0-8]\d|19[01])>"
AHEAD = timedelta(days=1)
"""How far after the time of ingest a date without a year may be; else it is a year older."""
MESSAGE = "(?P<message>.*)"
REST = f"(?: {MESSAGE})?"
"""The message may be empty, and then the space before it is missing."""
_QUOTED_SIGN = r'(?:[^"\\]|\\.)'
_TARGET = rf'(?P<path>(?:[^"\\?]|\\.)+?)(?:\?(?P<query>{_QUOTED_SIGN}*?))?'
REQUEST = rf"(?:(?P<method>[A-Za-z_-]+) {_TARGET}(?: (?P<protocol>HTTP/[\d.]+))?|{_QUOTED_SIGN}*)"
"""A request line, cut into its parts where it has them."""
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
_WIDTHS = {"day": 2, "month": 2, "hour": 2, "min": 2, "sec": 2, "millis": 3}
"""Groups of a time that may be written without leading zeros, and how long they are with them."""
_SEVERITIES = ("FATAL", "FATAL", "FATAL", "ERROR", "WARN", "INFO", "INFO", "DEBUG")
_YEARLESS, _YEARS = "?", 8
"""A template's first character where the year is not said; leap years are that far apart."""
_TAI = (1 << 62) + 10
"""The TAI64 label of the epoch, as those who write labels count."""
_COLOUR = re.compile(COLOUR)
COLOURS = f"(?:{COLOUR})*"
"""ANSI colour codes; they may precede a record, and stay in messages."""
ESCAPE = r'\\(["\\])'
"""A quote or a backslash with a backslash before it."""


@dataclass(frozen=True)
class Level:
    """How a group gives the level: as SQL over its text, and as a function of it."""

    group: str
    sql: Callable[[str], str]
    of: Callable[[str], str | None]


def _status_sql(expression: str) -> str:
    digit = f"left({expression}, 1)"
    return f"CASE {digit} WHEN '5' THEN 'ERROR' WHEN '4' THEN 'WARN' ELSE 'INFO' END"


def _severity_sql(expression: str) -> str:
    arms = " ".join(f"WHEN {n} THEN '{name}'" for n, name in enumerate(_SEVERITIES))
    return f"CASE {expression}::INT % 8 {arms} END"


def graded(levels: dict[str, str], group: str = "level", otherwise: str = "") -> Level:
    """A level by the words or letters of one program, else by `otherwise` if that is set."""
    arms = " ".join(f"WHEN '{word}' THEN '{level}'" for word, level in levels.items())
    default = f"ELSE '{otherwise}' " if otherwise else ""
    return Level(
        group,
        lambda text: f"CASE {text} {arms} {default}END",
        lambda word: levels.get(word, otherwise or None),
    )


WORD = Level("level", sqltext.level_sql, str)
"""A level by its name."""
STATUS = Level("status", _status_sql, lambda s: {"5": "ERROR", "4": "WARN"}.get(s[0], "INFO"))
"""The level of an HTTP status."""
SEVERITY = Level("pri", _severity_sql, lambda pri: _SEVERITIES[int(pri) % 8])
"""The level that the priority of a syslog line holds."""


@dataclass(frozen=True)
class Pattern:
    """How one kind of line is split and where its groups go.

    `time` is a template of groups; it begins with "?" where the year is not said. `data` names
    the groups of the payload, `numbers` those that are whole numbers of at most 18 digits.
    A dash is null in the groups of `dashes`; a backslash before a quote or a backslash goes in
    those of `quoted`, one of two quotes in those of `doubled`. A payload of nulls alone is null
    itself. A template that is "-" means the time of ingest.
    """

    regex: str
    time: str
    type: str
    level: Level | None = None
    message: str = "message"
    source: str = ""
    subject: str = ""
    data: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    dashes: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()

    def groups(self, line: str) -> dict[str, str | None] | None:
        """Return what the groups hold, or None for text of another kind."""
        match = self._compiled.fullmatch(line)
        return match and {name: self._value(name, v) for name, v in match.groupdict().items()}

    @LazyProperty
    def _compiled(self) -> re.Pattern[str]:
        # not by `re.fullmatch`, whose cache costs more to ask than most lines to match
        return re.compile(self.regex, re.ASCII)

    def _value(self, name: str, value: str | None) -> str | None:
        if not value or (value == "-" and name in self.dashes):
            return None
        value = value.replace('""', '"') if name in self.doubled else value
        return re.sub(ESCAPE, r"\1", value) if name in self.quoted else value

    def event(self, values: dict[str, str | None]) -> EventMembers:
        """Return the event that groups give."""
        event: EventMembers = {"type": self.type}
        if self.time != "-":
            event["time"] = iso(self.time, values)
        for column in ("message", "source", "subject"):
            name = getattr(self, column)
            if name and values[name] is not None:
                event[column] = values[name]
        grade = values[self.level.group] if self.level else None
        level = self.level.of(grade) if self.level and grade is not None else None
        if level is not None:
            event["level"] = level
        payload = {name: values[name] for name in self.data}
        if any(value is not None for value in payload.values()):
            event["data"] = {
                k: int(v) if v and k in self.numbers else v for k, v in payload.items()
            }
        return Severity.with_word(event, grade) if self.has_word and grade else event

    @property
    def has_word(self) -> bool:
        """Whether the level is a word or a letter, which no member of the payload keeps."""
        return self.level is not None and self.level.group == "level"

    def names(self) -> list[str]:
        """The groups in their order."""
        return re.findall(r"\(\?P<(\w+)>", self.regex)

    def column(self, groups: str, name: str) -> str:
        """SQL for the value of a group of the struct `groups`."""
        value = f"nullif({groups}.{name}, '')"
        if name == "message" and _head(self.regex):
            value = f"nullif(substr(text, length({groups}.head) + 1), '')"
        if name in self.dashes:
            value = f"nullif({value}, '-')"
        if name in self.doubled:
            value = f"replace({value}, '\"\"', '\"')"
        if name in self.quoted:
            plain = f"regexp_replace({value}, '{ESCAPE}', '\\1', 'g')"
            value = f"CASE WHEN contains({value}, '\\') THEN {plain} ELSE {value} END"
        return value

    def columns(self, groups: str) -> dict[str, str]:
        """SQL for ISO text, the level's text, message, source and payload, out of `groups`."""
        pairs = ", ".join(
            f"'{name}', {self.column(groups, name)}" + ("::BIGINT" if name in self.numbers else "")
            for name in self.data
        )
        is_any = " OR ".join(f"{self.column(groups, name)} IS NOT NULL" for name in self.data)
        return {
            "iso": iso_sql(self.time, groups),
            "grade": self.column(groups, self.level.group) if self.level else "NULL::VARCHAR",
            **{
                c: self.column(groups, getattr(self, c)) if getattr(self, c) else "NULL::VARCHAR"
                for c in ("message", "source", "subject")
            },
            "data": f"CASE WHEN {is_any} THEN json_object({pairs})::VARCHAR END"
            if pairs
            else "NULL::VARCHAR",
        }


def parse(
    patterns: Sequence[Pattern], line: bytes, otherwise: str, *, joined: bool = False
) -> EventMembers:
    """Return the event of a line; raises InvalidEvent, with the reason `otherwise` if none fits.

    Lines that are `joined` to it go after its message.
    """
    head, continuation = decoded(line), ""
    if joined:
        head, _, continuation = head.partition("\n")
        head = head.rstrip(SPACE)
    event = _first(patterns, head)
    # Colours are removed only where the line does not fit with them, or a level may be among them:
    # fields and messages may hold them.
    if "\x1b" in head and "level" not in (event or {}):
        bare = _first(patterns, _COLOUR.sub("", head).strip(SPACE))
        if bare and bare.get("message"):
            bare["message"] = _coloured(head, bare["message"])
        event = bare if event is None or (bare and "level" in bare) else event
    if event is None:
        raise InvalidEvent(otherwise)
    if continuation:
        event["message"] = "\n".join(filter(None, (event.get("message"), continuation)))
    return event


def _first(patterns: Sequence[Pattern], line: str) -> EventMembers | None:
    """The event by the first pattern that fits."""
    for pattern in patterns:
        values = pattern.groups(line)
        if values is not None:
            return pattern.event(values)
    return None


def _coloured(line: str, message: str) -> str:
    """The end of a line that shows a message, with its colours."""
    position, end = len(line), len(message)
    codes = {match.end(): match.start() for match in _COLOUR.finditer(line)}
    while position and (position in codes or (end and line[position - 1] == message[end - 1])):
        if position in codes:
            position = codes[position]
        else:
            position, end = position - 1, end - 1
    return message if end else line[position:]


def decoded(line: bytes) -> str:
    """A line as text without the white space around it. Raises InvalidEvent if it is none."""
    return utf8(line).strip(SPACE)


def timed_share(lines: list[bytes], parse_line: Callable[[bytes], EventMembers]) -> float:
    """The share of the lines that are not blank that are events with a time of their own."""
    return share(lines, lambda line: _timed(line, parse_line))


def query(
    patterns: Sequence[Pattern],
    *,
    joined: bool = False,
    whole: bool = False,
    kinds: Sequence[int] = (),
) -> str:
    """SQL over `lines` for the lines that one of the patterns fits, or of their `kinds` only.

    Where records are `joined` of lines, `more` holds those after the first; where they are `whole`,
    a line has newlines within it.
    """
    kinds = kinds or range(len(patterns))
    # One regex cuts each line, that of its kind; extracting with all patterns would multiply the
    # cost.
    cuts = ", ".join(
        f"CASE WHEN kind = {k} THEN {_cut_sql(patterns[k])} END AS m{k}" for k in kinds
    )
    columns_of = {k: patterns[k].columns(f"m{k}") for k in kinds}
    columns = ", ".join(
        f"{_chosen({k: columns_of[k][column] for k in kinds})} AS {column}"
        for column in columns_of[kinds[0]]
    )
    grades = {k: level.sql("grade") for k in kinds if (level := patterns[k].level)}
    types = _chosen({k: f"'{patterns[k].type}'" for k in kinds})
    word_sql = _chosen({k: "grade" for k in kinds if patterns[k].has_word})
    word = "" if word_sql == _NOTHING else f", {word_sql} AS word"
    data = sqltext.with_word_sql("data", "word", "coalesce(level, '')") if word else "data"
    # Of a record of several lines, those after the first belong to the message.
    continuation, message = "", "message"
    if joined:
        continuation, message = ", rest", _MESSAGE
    line_text = _STRIPPED if whole else TRIMMED
    return f"""
WITH trimmed AS (SELECT {line_text} AS text, position{_REST if joined else ""} FROM lines),
classified AS (SELECT *, {_kind_sql(patterns, kinds)} AS kind FROM trimmed WHERE {PLAIN}),
cut AS (SELECT position, text, kind, {cuts}{continuation} FROM classified),
fields AS (SELECT position, kind{continuation}, contains(text, chr(27)) AS is_coloured,
             {columns} FROM cut),
timed AS (SELECT *, {_chosen(grades)} AS level{word},
            CASE WHEN iso = '-' THEN {NOW} ELSE {sqltext.time_sql("iso")} END AS time FROM fields)
SELECT time, {types} AS type, NULL::VARCHAR AS category, source, subject, level,
  {message} AS message, {data} AS data, NULL::VARCHAR AS id, position,
  NOT coalesce({sqltext.IN_RANGE}, false) OR (is_coloured AND level IS NULL) AS slow
FROM timed"""


def narrowed(
    patterns: Sequence[Pattern], lines: list[bytes], *, joined: bool = False, whole: bool = False
) -> list[str]:
    """Return the query of only those patterns that occur in some first lines of a file, if they
    are far fewer; it is planned and run faster."""
    kinds = set()
    for line in lines:
        with contextlib.suppress(InvalidEvent):
            line_text = decoded(line)
            kinds |= {next((k for k, p in enumerate(patterns) if p.groups(line_text)), -1)}
    kinds.discard(-1)
    if not kinds or 2 * len(kinds) > len(patterns):
        return []
    return [query(patterns, joined=joined, whole=whole, kinds=sorted(kinds))]


def _head(regex: str) -> str:
    """A regex for what stands before the message, where that is all the rest."""
    if regex.endswith(REST):
        return regex.removesuffix(REST) + "(?: |$)"
    return regex.removesuffix(MESSAGE) if regex.endswith(MESSAGE) else ""


def _cut_sql(pattern: Pattern) -> str:
    """SQL for the groups. A message that is the rest of the line is cut off by where it begins,
    because matching groups in all of it is slow."""
    head = _head(pattern.regex)
    if not head:
        return f"regexp_extract(text, {_whole(pattern.regex)}, {pattern.names()})"
    names = ["head", *(name for name in pattern.names() if name != "message")]
    return f"regexp_extract(text, {literal(f'^(?P<head>{head})')}, {names})"


def _kind_sql(patterns: Sequence[Pattern], kinds: Sequence[int]) -> str:
    """SQL for which of the patterns fits first; null if it is none of `kinds`."""
    arms = []
    for k in kinds:
        # A line counts for the first pattern that fits, so patterns that are left out must not fit
        # before this one.
        earlier = (patterns[j].regex for j in range(k) if j not in kinds)
        before = [re.sub(r"\(\?P<\w+>", "(?:", regex) for regex in earlier]  # without names
        number = f"CASE WHEN NOT regexp_matches(text, {_whole('|'.join(before))}) THEN {k} END"
        number = number if before else str(k)
        if len(kinds) == 1 and patterns[k].time != "-":
            return number  # where it does not fit all is empty, which is no time
        arms.append(f"WHEN regexp_matches(text, {_whole(patterns[k].regex)}) THEN {number}")
    return f"CASE {' '.join(arms)} END"


def _chosen(values: dict[int, str]) -> str:
    """SQL for the value that the kind of a line decides."""
    if not values:
        return _NOTHING
    kinds: dict[str, list[int]] = {}
    for number, value in values.items():
        kinds.setdefault(value, []).append(number)
    arms = (f"WHEN kind IN ({', '.join(map(str, ks))}) THEN {v}" for v, ks in kinds.items())
    return f"CASE {' '.join(arms)} END"


_NOTHING = "NULL::VARCHAR"
NOW = "$now::TIMESTAMPTZ"
_BLANKS = " || ".join(f"chr({ord(c)})" for c in SPACE)
# Lines of a chunk end with their newline, which most often is all the white space there is.
_BARE = "replace(line, chr(10), '')"
_ENDS = " OR ".join(f"ends_with({_BARE}, chr({ord(c)}))" for c in SPACE if c != "\n")
_STRIPPED = f"trim(line, {_BLANKS})"
TRIMMED = f"CASE WHEN ascii({_BARE}) > 32 AND NOT ({_ENDS}) THEN {_BARE} ELSE {_STRIPPED} END"
"""SQL for a line without the white space around it; trimming is slow and seldom needed."""
_REST = f", CASE WHEN more IS NOT NULL THEN rtrim(more, {_BLANKS}) END AS rest"
_MESSAGE = "CASE WHEN rest <> '' THEN concat_ws(chr(10), message, rest) ELSE message END"
PLAIN = "NOT starts_with(text, chr(65279))"
"""SQL for text that does not begin with the mark of a file's beginning."""


def now() -> datetime:
    """The time of ingest, for lines that are decided one by one."""
    return datetime.now(UTC)


def _timed(line: bytes, parse_line: Callable[[bytes], EventMembers]) -> bool:
    if line.lstrip()[:1] == b"{":
        return False
    try:
        event = parse_line(line)
        return "time" in event and parse_time(event["time"]) is not None
    except InvalidEvent:
        return False


def _whole(regex: str) -> str:
    return literal(f"^(?:{regex})$")


def iso(template: str, groups: dict[str, str | None]) -> str:
    """ISO text out of groups, the year chosen where none is said."""
    values = {name: value or "" for name, value in groups.items()}
    if values.get("mon"):
        values["mon"] = f"{_MONTHS.index(values['mon']) // 3 + 1:02}"
    for name, width in _WIDTHS.items():
        values[name] = values.get(name, "").zfill(width)
    if values.get("tz"):
        values["tz"] = ZONES.get(values["tz"], "")  # else of the zone of the source
    values["offset"] = values.get("offset", "").lstrip()  # with a space it is no ISO text
    if values.get("bias"):  # the minutes that are missing to UTC
        minutes = int(values["bias"])
        values["bias"] = f"{'+-'[minutes > 0]}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    if values.get("tai"):
        seconds = int(values["tai"][:16], 16) - _TAI
        values["tai"] = f"{seconds}.{int(values['tai'][16:], 16):09}"
    if values.get("half"):
        late = 12 * (values["half"] in "PMpm")
        values["hour12"] = f"{int(values['hour12']) % 12 + late:02}"
    moment = template.removeprefix(_YEARLESS).format(**values).replace(",", ".")
    if "@" in template:
        return _in_zone(*moment.split("@"))
    if not template.startswith(_YEARLESS):
        return moment
    limit = now() + AHEAD
    # Before the year is known dates compare as text: month, day and time have a fixed width.
    latest = limit.year - (moment > f"{limit:-%m-%dT%H:%M:%S.%f}")
    # 29 February exists in leap years only, at most eight years apart.
    for year in range(latest, latest - _YEARS, -1):
        try:
            parse_time(f"{year}{moment}")
        except InvalidEvent:
            continue
        return f"{year}{moment}"
    return f"{latest}{moment}"


def _in_zone(moment: str, name: str) -> str:
    """ISO text in the zone of a city; as it is if there is none."""
    with contextlib.suppress(InvalidSetting, InvalidEvent):
        return parse_time(moment, zone_of(name)).isoformat()
    return moment


def iso_sql(template: str, groups: str) -> str:
    """SQL for the same; left to the exact rule are leap days where the year has none, and the zones
    of cities, as the engine stops at a name that it does not know."""
    if template == "-":
        return "'-'"
    terms = []
    for moment, name, _, _ in Formatter().parse(template.removeprefix(_YEARLESS)):
        terms += [literal(moment)] if moment else []
        terms += [_part_sql(groups, name)] if name else []
    moment = f"replace({' || '.join(terms)}, ',', '.')"
    if not template.startswith(_YEARLESS):
        return moment
    limit = f"({NOW} AT TIME ZONE 'UTC' + INTERVAL {AHEAD.days} DAY)"
    later = f"({moment} > strftime({limit}, '-%m-%dT%H:%M:%S.%f'))::INT"
    return f"(year({limit}) - {later})::VARCHAR || {moment}"


def _part_sql(groups: str, name: str) -> str:
    value = f"{groups}.{name}"
    if name == "mon":
        return f"lpad((strpos('{_MONTHS}', {value}) // 3 + 1)::VARCHAR, 2, '0')"
    if name == "tz":
        arms = " ".join(f"WHEN '{zone}' THEN '{offset}'" for zone, offset in ZONES.items())
        return f"CASE {value} {arms} ELSE '' END"
    if name == "offset":
        return f"ltrim({value})"
    if name == "bias":
        minutes = f"abs(try_cast({value} AS INT))"
        clock = f"printf('%02d:%02d', {minutes} // 60, {minutes} % 60)"
        return f"coalesce(translate({value}[1], '+-', '-+') || {clock}, '')"
    if name == "tai":
        whole, fraction = (
            f"try_cast('0x' || {value}[{span}] AS BIGINT)" for span in ("1:16", "17:24")
        )
        return f"({whole} - {_TAI})::VARCHAR || '.' || lpad({fraction}::VARCHAR, 9, '0')"
    if name == "hour12":
        hour = f"try_cast({value} AS INT) % 12 + 12 * ({groups}.half IN ('PM', 'pm'))::INT"
        return f"lpad(({hour})::VARCHAR, 2, '0')"
    return f"lpad({value}, {_WIDTHS[name]}, '0')" if name in _WIDTHS else value
