"""A user's own format: a pattern in grok or as a regex with named groups, and its options.

Groups called as a column of events (time, level, message, source, subject, type, category, id, or
one of the other spellings that events may have) fill it; all others are members of `data`. With a
group `message` the pattern has to fit the whole line, so that nothing of the line is lost; without
one it may fit anywhere, and the message is the line. A line that does not fit is no event, unless
a rule (`begins`, `continues`) makes it a part of the record before.

Lines are matched against users' patterns by RE2 alone, in the engine and in Arrow, so that none
takes more than linear time; Python's own regexes never see them.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from lakelog.errors import InvalidEvent, InvalidSetting
from lakelog.event import Severity
from lakelog.formats import columns, grok, local_time, moments, pattern, re2, sqltext
from lakelog.formats.definition import FormatDefinition
from lakelog.formats.format import EventMembers, Format, Traits, share, utf8
from lakelog.formats.grok import Field, shortened
from lakelog.sql import literal
from lakelog.values import parse_time

TYPE = "log"
TEXT_MAX = 20_000
COLUMNS = {
    **sqltext.COLUMN,
    "loglevel": "level",
    "log_level": "level",
    "log.level": "level",
    "severity": "level",
    "msg": "message",
    "logger": "source",
}
"""The column that a group of this name fills."""
_TAKEN = ("data", "seq", "ingested_at", "origin", "position")
_TEXTS = ("type", "category", "source", "subject", "message", "id")
_DATE = "date"
"""A group of this name beside one of the time is its day."""
_END = " \t\n\v\f\r"
_BLANKS = " || ".join(f"chr({ord(c)})" for c in _END)


@functools.lru_cache(maxsize=256)
def form(name: str) -> CustomFormat:
    """Return the format of a definition that is written out. Raises InvalidSetting."""
    return CustomFormat(FormatDefinition.of_name(name))


class CustomFormat(Format):
    """The format that a definition with a pattern describes. Raises InvalidSetting."""

    def __init__(self, definition: FormatDefinition) -> None:
        super().__init__(definition.pattern)
        self.definition = definition
        self.NAME = definition.spelled()
        self._layout = _layout(definition)
        self.has_time, self.groups = "time" in self._layout.columns, self._layout.places
        self._levels = {word.strip().upper(): _level(level) for word, level in definition.levels}
        self._zone = local_time.zone_of(definition.zone or "UTC")
        self._ways = () if _untimed(definition) else moments.moments(definition.time_format)
        defines = dict(definition.define)
        begins = _rule("begins", definition.begins, defines)
        continues = _rule("continues", definition.continues, defines)
        self.traits = Traits(
            begins=begins or (r"[^\r\n]" if continues else ""),
            continues=continues,
            untrimmed=True,
            prose=True,
            zone=local_time.engine_zone(definition.zone) if definition.zone else "",
        )

    @property
    def label(self) -> str:
        """The name of the definition, else its pattern."""
        return self.definition.name or shortened(self.definition.pattern)

    def sniff(self, lines: list[bytes]) -> float:
        """Return the share of lines that fit; of longer records, of lines that begin one."""
        return share([line for line in lines if self._begins(line)], self.is_event)

    def parse(self, line: bytes) -> EventMembers:
        """Return the event of a line and of those that continue it. Raises InvalidEvent."""
        record = _text_of(line)
        head, _, continuation = record.partition("\n")
        head = head.rstrip(_END)
        values = self._groups(head)
        if values is None:
            raise InvalidEvent(self._misfit(head))
        return self._event(head, continuation, values)

    def cheaper(self, lines: list[bytes]) -> list[str]:
        """Return the query of those ways to write a time only that these lines show."""
        spellings = dict.fromkeys(
            spelling for spelling in map(self._way, lines) if spelling is not None
        )
        return [self._query_of(tuple(spellings))] if spellings and len(self._ways) > 1 else []

    def reach(self, line: bytes) -> tuple[str, str]:
        """Return how much of a line a part of the pattern fits, and what comes next in that."""
        head = line.decode("utf-8", "backslashreplace").partition("\n")[0].rstrip(_END)
        pattern_text, defines = self.definition.pattern, dict(self.definition.define)
        tokens = grok.pieces(pattern_text)
        for count in range(len(tokens) - 1, 0, -1):
            try:
                regex = grok.expand("".join(tokens[:count]), defines).regex
                text_fit = re2.first(f"(?P<g0>{regex})", head)
            except InvalidSetting:
                continue  # a part in brackets that are still open
            if text_fit:
                return text_fit, "".join(tokens[count:])
        return "", pattern_text

    def _begins(self, line: bytes) -> bool:
        line_text = line.decode("utf-8", "replace")
        begins, continues = self.traits.begins, self.traits.continues
        if not begins or not re2.matches(begins, line_text):
            return not begins
        return not (continues and re2.matches(continues, line_text))

    def _groups(self, head: str) -> dict[str, str] | None:
        """The values of the groups of a line, None if it does not fit."""
        values = re2.groups(self._layout.regex, head)
        return values if values and values["g0"] else None

    def _value(self, values: dict[str, str], groups: tuple[str, ...]) -> str | None:
        return next((values[group] for group in groups if values[group]), None)

    def _time(self, values: dict[str, str]) -> str | None:
        values_of_times = [self._value(values, groups) for groups in self._layout.times]
        return " ".join(filter(None, values_of_times)).strip(" ") or None

    def _way(self, line: bytes) -> moments.Moment | None:
        try:
            values = self._groups(_text_of(line).partition("\n")[0].rstrip(_END))
        except InvalidEvent:
            return None
        moment = self._time(values) if values else None
        return next(
            (spelling for spelling in self._ways if moment and spelling.iso(moment) is not None),
            None,
        )

    def _event(self, head: str, continuation: str, values: dict[str, str]) -> EventMembers:
        """The event of a line that fits."""
        event: EventMembers = {"type": TYPE}
        if self._ways and (moment := self._time(values)):
            event["time"] = parse_time(moments.iso(self._ways, moment), self._zone)
        for column, groups in self._layout.columns.items():
            value = self._value(values, groups)
            if column in (*_TEXTS, "level") and value is not None:
                event[column] = value
        word = event.get("level")
        if word is not None:
            event["level"] = self._levels.get(word.strip().upper(), word)
        message = event.get("message") if self._layout.is_whole else head
        if message or continuation:
            event["message"] = "\n".join(filter(None, (message, continuation)))
        data = {f.name: self._value(values, groups) for f, groups in self._layout.data.items()}
        if any(value is not None for value in data.values()):
            # As grok writes them, %{NUMBER:bytes:int}: a kind belongs to the field, not to the
            # value.
            kinds = {f.name: f.kind for f in self._layout.data}
            event["data"] = {n: _number(v, kinds[n]) for n, v in data.items()}
        return event if word is None else Severity.with_word(event, word)

    def _misfit(self, head: str) -> str:
        """Why a line does not fit."""
        if self._layout.is_whole and re2.matches(self._layout.inner, head):
            return "the pattern fits only a part of the line"
        return "the pattern does not fit the line"

    def _query(self) -> str:
        return self._query_of(self._ways)

    def _query_of(self, formats: tuple[moments.Moment, ...]) -> str:
        """SQL over `lines` for those that fit and whose time is written in one of the ways."""
        layout, joined = self._layout, bool(self.traits.begins)
        continuation = f", CASE WHEN more IS NOT NULL THEN rtrim(more, {_BLANKS}) END AS rest"
        names = ["g0", *(f"g{n + 1}" for n in range(layout.count))]
        moment = " || ' ' || ".join(f"coalesce({_sql(g)}, '')" for g in layout.times)
        cuts = "".join(
            f", CASE WHEN kind = {n} THEN {spelling.cut_sql('moment')} END AS m{n}"
            for n, spelling in enumerate(formats)
        )
        isos = " ".join(
            f"WHEN {n} THEN {pattern.iso_sql(spelling.template, f'm{n}')}"
            for n, spelling in enumerate(formats)
        )
        column = {c: _sql(layout.columns.get(c, ())) for c in _TEXTS}
        message = column["message"] if layout.is_whole else "nullif(text, '')"
        if joined:
            message = f"nullif(concat_ws(chr(10), {message}, nullif(rest, '')), '')"
        grade = _sql(layout.columns.get("level", ()))
        data = sqltext.with_word_sql("body", "grade", "severity")
        # what does not fit is left for the exact rule at the end: a condition on what was cut would
        # be pushed down by the engine, and lines cut twice
        return f"""
WITH trimmed AS (SELECT rtrim(line, {_BLANKS}) AS text, position{continuation if joined else ""}
  FROM lines),
cut AS (SELECT *, regexp_extract(text, {literal(layout.regex)}, {names}) AS m
  FROM trimmed WHERE {pattern.PLAIN}),
fit AS (SELECT *, nullif(trim({moment or "''"}), '') AS moment,
          {grade} AS grade FROM cut),
classified AS (SELECT *, {moments.kind_sql(formats, "moment") if formats else "NULL"} AS kind
               FROM fit),
split AS (SELECT *{cuts} FROM classified),
written AS (SELECT *, {f"CASE kind {isos} END" if formats else "NULL::VARCHAR"} AS iso FROM split),
timed AS (SELECT *, {self._level_sql("grade")} AS severity, {self._data_sql()} AS body,
    CASE WHEN {"moment IS NULL" if formats else "true"} THEN {pattern.NOW}
      ELSE {sqltext.time_sql("iso")} END AS time FROM written)
SELECT time, coalesce({column["type"]}, '{TYPE}') AS type, {column["category"]} AS category,
  {column["source"]} AS source, {column["subject"]} AS subject, severity AS level,
  {message} AS message, {data} AS data, {column["id"]} AS id, position,
  m.g0 = '' OR NOT coalesce({sqltext.IN_RANGE}, false)
    OR (grade IS NOT NULL AND severity IS NULL) AS slow
FROM timed"""

    def _level_sql(self, grade: str) -> str:
        arms = " ".join(
            f"WHEN {literal(word)} THEN '{level}'" for word, level in self._levels.items()
        )
        by_name = sqltext.level_sql(grade)
        if not arms:
            return by_name
        return f"CASE upper(trim({grade}, {_BLANKS})) {arms} ELSE {by_name} END"

    def _data_sql(self) -> str:
        data = self._layout.data
        if not data:
            return "NULL::VARCHAR"
        pairs = ", ".join(
            f"{literal(f.name)}, {_json_sql(_sql(g), f.kind)}" for f, g in data.items()
        )
        has_any = " OR ".join(f"{_sql(groups)} IS NOT NULL" for groups in data.values())
        return f"CASE WHEN {has_any} THEN json_object({pairs})::VARCHAR END"


@dataclass(frozen=True)
class _Layout:
    """Where the groups of a pattern go; `g0` is all that fits.

    `columns` and `data` name the groups that may hold a value, of which the first that does
    counts; `times` are those of the day and of the time. A pattern that `is_whole` fits lines
    whole; `inner` is it without its ends.
    """

    regex: str
    inner: str
    count: int
    columns: dict[str, tuple[str, ...]]
    data: dict[Field, tuple[str, ...]]
    times: tuple[tuple[str, ...], ...]
    is_whole: bool
    places: tuple[tuple[str, str], ...]


def _untimed(definition: FormatDefinition) -> bool:
    return definition.time_format == moments.NONE


@functools.lru_cache(maxsize=256)
def _layout(definition: FormatDefinition) -> _Layout:
    """Parse and compile a pattern. Raises InvalidSetting."""
    source = definition.pattern
    if not source or len(source) > TEXT_MAX:
        raise InvalidSetting(f"a pattern has 1 to {TEXT_MAX:,} characters, not {len(source):,}")
    expansion = grok.expand(source, dict(definition.define))
    FormatDefinition.check_regex(expansion.regex, "pattern", source)
    if not expansion.fields:
        raise InvalidSetting(
            f"pattern {shortened(source)!r} names no group: write %{{IP:client}} or (?P<client>...)"
        )
    # Each line of every file would be an event without a value, and none quarantined.
    if re2.matches(expansion.regex, ""):
        raise InvalidSetting(
            f"pattern {shortened(source)!r} matches empty text, and so any line: make it stricter"
        )
    column_groups, data, times = _places(definition, expansion.fields)
    # A pattern that has a message describes whole lines; another one picks values out of them.
    is_whole = "message" in column_groups
    inner = f"(?P<g0>{expansion.regex})"
    regex = rf"^[ \t]*{inner}[ \t]*$" if is_whole else inner
    places = _listed(expansion.fields, column_groups, len(times) > 1)
    return _Layout(
        regex, inner, len(expansion.fields), column_groups, data, times, is_whole, places
    )


def _places(
    definition: FormatDefinition, fields: tuple[Field, ...]
) -> tuple[dict[str, tuple[str, ...]], dict[Field, tuple[str, ...]], tuple[tuple[str, ...], ...]]:
    """Which groups go to which column, which to `data`, and which make up the time."""
    names: dict[str, str] = {}
    column_groups: dict[str, tuple[str, ...]] = {}
    data: dict[str, tuple[Field, tuple[str, ...]]] = {}
    for number, field in enumerate(fields, 1):
        column = COLUMNS.get(field.name, "")
        # Ingest fills these itself; a group of that name would be overwritten without a word.
        if field.name in _TAKEN:
            raise InvalidSetting(
                f"group {field.name!r} has the name of a column that lakelog fills: rename it"
            )
        # With --time-format none the text of the time is payload like any other.
        if column == "time" and _untimed(definition):
            column = ""
        # Alternatives may repeat a group, but two groups cannot fill one column.
        if column and names.setdefault(column, field.name) != field.name:
            raise InvalidSetting(
                f"groups {names[column]!r} and {field.name!r} would both be the column {column}:"
                " rename one of them"
            )
        if column:
            column_groups[column] = (*column_groups.get(column, ()), f"g{number}")
        else:
            old = data.get(field.name, (field, ()))
            data[field.name] = (old[0], (*old[1], f"g{number}"))
    times = [column_groups["time"]] if "time" in column_groups else []
    # The day goes before the time of day, whatever their order in the line.
    if times and _DATE in data:
        times.insert(0, data.pop(_DATE)[1])
    return column_groups, dict(data.values()), tuple(times)


def _listed(
    fields: tuple[Field, ...], column_groups: dict[str, tuple[str, ...]], is_dated: bool
) -> tuple[tuple[str, str], ...]:
    """Where each group goes, as people read it."""
    columns_of = {group: column for column, groups in column_groups.items() for group in groups}
    pairs = {}
    for number, field in enumerate(fields, 1):
        column = columns_of.get(f"g{number}") or f"data.{field.name}"
        pairs[field.name] = "time" if is_dated and field.name == _DATE else column
    return tuple(pairs.items())


def _level(name: str) -> str:
    if name.upper() not in Severity.ALL:
        raise InvalidSetting(f"no level {name!r}: choose from {', '.join(Severity.ALL)}")
    return name.upper()


def _rule(name: str, rule: str, defines: dict[str, str]) -> str:
    """The regex of a rule for lines, at their beginning. Raises InvalidSetting."""
    if not rule:
        return ""
    regex = re.sub(r"\(\?P<g\d+>", "(?:", grok.expand(rule, defines).regex)
    FormatDefinition.check_regex(regex, name, rule)
    return f"(?m:^(?:{regex}))"


def _text_of(line: bytes) -> str:
    return utf8(line.removeprefix(b"\xef\xbb\xbf")).rstrip(_END)


def _number(value: str | None, number_type: str) -> Any:
    """The number that a text is, if the number is written so; else the text, letter for letter."""
    if value is None or not number_type:
        return value
    return columns.number(value)


def _sql(groups: tuple[str, ...]) -> str:
    """SQL for the first of some groups that holds a value."""
    if not groups:
        return "NULL::VARCHAR"
    values = [f"nullif(m.{group}, '')" for group in groups]
    return values[0] if len(values) == 1 else f"coalesce({', '.join(values)})"


def _json_sql(value: str, number_type: str) -> str:
    """SQL for the JSON of a member."""
    if not number_type:
        return value
    return f"CASE WHEN {columns.is_number_sql(value)} THEN {value}::JSON ELSE to_json({value}) END"
