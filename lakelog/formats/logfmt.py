"""Lines of key=value pairs, values with spaces in quotes.

The first of time, ts, timestamp, t is the time (t, as Grafana has it, only if it is a date), of
level, lvl, severity the level, of msg, message the message; all other keys go into `data`, as text,
also `logger`, which is the source. A line without a time has that of its ingest. Where `time` is a
time of day, `date` and `tz` say the rest, as FortiGate has it, perhaps after a priority.
"""

from __future__ import annotations

import json
import re

from lakelog.errors import InvalidEvent
from lakelog.event import Severity
from lakelog.formats import pattern
from lakelog.formats.format import EventMembers, Format, Traits
from lakelog.formats.sqltext import IN_RANGE, level_sql, time_sql, with_word_sql
from lakelog.values import parse_time

_KEY = r'[^ \t="]+'
_VALUE = r'"(?:[^"\\]|\\.)*"|[^ \t"]*'
_PAIR = rf"({_KEY})=({_VALUE})"
_LINE = rf"(?:{_KEY})=(?:{_VALUE})(?:[ \t]+(?:{_KEY})=(?:{_VALUE}))*"
_PLACES = {
    "time": ("time", "ts", "timestamp"),
    "level": ("level", "lvl", "severity"),
    "message": ("msg", "message"),
}
_SHORT, _DATE = "t", r"\d{4}-\d\d-\d\d[T ].*"
_SOURCE = "logger"
_DAY, _CLOCK = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d:\d\d(?:\.\d{1,9})?"
_ZONE, _PRIORITY = r"[+-]\d{4}", r"<(\d{1,3})>"


class LogfmtLines(Format):
    """The format of lines of pairs."""

    NAME = "logfmt"
    traits = Traits(by_line=True)

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these are lines of pairs."""
        return pattern.timed_share(lines, self.parse)

    def parse(self, line: bytes) -> EventMembers:
        """Return the event of one line. Raises InvalidEvent."""
        line_text, data = pattern.decoded(line), dict[str, str]()
        if priority := re.match(_PRIORITY, line_text, re.ASCII):
            line_text, data["pri"] = line_text[priority.end() :], priority[1]
        # most lines of text have no pair, which is sooner seen than matched
        if "=" not in line_text or not re.fullmatch(_LINE, line_text):
            raise InvalidEvent("not a line of key=value pairs")
        for key, value in re.findall(_PAIR, line_text):
            # A doubled key has no place in an object, and none of the values may be lost.
            if key in data:
                raise InvalidEvent(f"key {key[:40]!r} is given twice")
            data[key] = _unquoted(value)
        event: EventMembers = {"type": "log"}
        # FortiGate: the date and the time of day are pairs of their own.
        if _is_full(_DAY, data.get("date")) and _is_full(_CLOCK, data.get("time")):
            zone = data["tz"] if _is_full(_ZONE, data.get("tz")) else ""
            data["time"] = f"{data.pop('date')}T{data['time']}{zone}"
        for column, names in _PLACES.items():
            name = next((n for n in names if data.get(n)), None)
            if name is not None:
                event[column] = data.pop(name)
        # `t` is a time only if it looks like one: it may be anything.
        if "time" not in event and re.fullmatch(_DATE, data.get(_SHORT, ""), re.ASCII):
            event["time"] = data.pop(_SHORT)
        if "time" in event:
            parse_time(event["time"])
        if data.get(_SOURCE):
            event["source"] = data[_SOURCE]
        if data:
            event["data"] = data
        if "level" not in event:
            return event
        word = event["level"]
        return Severity.with_word({**event, "level": Severity.without_offset(word)}, word)

    def _query(self) -> str:
        # A column goes to the first of its keys that has a value, as in parse().
        column_of = {
            column: "coalesce(" + ", ".join(f"nullif(pairs['{n}'], '')" for n in names) + ")"
            for column, names in _PLACES.items()
        }
        short = (
            f"CASE WHEN regexp_full_match(pairs['{_SHORT}'], '{_DATE}') THEN pairs['{_SHORT}'] END"
        )
        arms = {
            column: " ".join(f"WHEN pairs['{n}'] <> '' THEN '{n}'" for n in names)
            for column, names in _PLACES.items()
        }
        # The key that gave a column leaves the payload, so each arm names the key that won.
        arms["time"] += f" WHEN {short} IS NOT NULL THEN '{_SHORT}'"
        daily = (
            f"regexp_full_match(pairs['date'], '{_DAY}')"
            f" AND regexp_full_match(pairs['time'], '{_CLOCK}')"
        )
        zone = f"CASE WHEN regexp_full_match(pairs['tz'], '{_ZONE}') THEN pairs['tz'] END"
        dated = f"CASE WHEN {daily} THEN concat(pairs['date'], 'T', pairs['time'], {zone}) END"
        moved = ", ".join(f"CASE {column} ELSE '' END" for column in arms.values())
        moved += f", CASE WHEN {daily} THEN 'date' ELSE '' END"
        # Lines with escapes or a priority give no row here: unescaping is that of JSON, by the
        # exact rule.
        return f"""
WITH trimmed AS (SELECT {pattern.TRIMMED} AS text, position FROM lines),
cut AS (SELECT position, regexp_extract_all(text, '{_PAIR}', 1) AS keys,
          regexp_extract_all(text, '{_PAIR}', 2) AS quoted
        FROM trimmed WHERE {pattern.PLAIN} AND NOT contains(text, '\\')
          AND NOT starts_with(text, '<') AND regexp_full_match(text, '{_LINE}')),
paired AS (SELECT position, map_from_entries(list_zip(keys, list_transform(quoted,
             lambda v: CASE WHEN starts_with(v, '"') THEN v[2:-2] ELSE v END))) AS pairs
           FROM cut WHERE len(keys) = len(quoted) AND len(keys) = list_unique(keys)),
placed AS (SELECT *, coalesce({dated}, {column_of["time"]}, {short}) AS moment,
             {column_of["level"]} AS grade, {column_of["message"]} AS message, [{moved}] AS taken
           FROM paired),
typed AS (SELECT *, CASE WHEN moment IS NULL THEN {pattern.NOW} ELSE {time_sql("moment")} END
            AS time, {level_sql("grade")} AS level,
            map_from_entries(list_filter(map_entries(pairs),
              lambda e: NOT list_contains(taken, e.key))) AS rest FROM placed),
written AS (SELECT *, CASE WHEN cardinality(rest) > 0 THEN to_json(rest)::VARCHAR END AS data
  FROM typed)
SELECT time, 'log' AS type, NULL::VARCHAR AS category, nullif(pairs['{_SOURCE}'], '') AS source,
  NULL::VARCHAR AS subject, level, message,
  {with_word_sql("data", "grade", "level")} AS data, NULL::VARCHAR AS id, position,
  NOT coalesce({IN_RANGE} AND (grade IS NULL OR level IS NOT NULL), false)
    AS slow
FROM written"""


FORM = LogfmtLines(__doc__)


def _is_full(regex: str, value: str | None) -> bool:
    return re.fullmatch(regex, value or "", re.ASCII) is not None


def _unquoted(value: str) -> str:
    """A value without its quotes; its escapes are those of JSON, else only quotes have one."""
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value, strict=False)) if "\\" in value else value[1:-1]
    except ValueError:
        return re.sub(pattern.ESCAPE, r"\1", value[1:-1])
