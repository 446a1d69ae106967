"""OOS lines: timestamp|event_type|content_type|source|item_id|data_json.

Only the first five bars split; the JSON may hold more of them.
"""

from __future__ import annotations

import re

from lakelog.errors import InvalidEvent
from lakelog.formats import sqltext
from lakelog.formats.format import EventMembers, Format, Traits, share, utf8
from lakelog.formats.sqltext import IN_RANGE, LARGE_WRITTEN, odd_sql, time_sql
from lakelog.values import parse_value

_SHAPE = re.compile(
    rb"\d{4}-\d\d-\d\d[T ][\d:.]+ ?(?:[A-Z]{1,5}|[+-]\d\d:?\d\d)?\|[^|]+\|[^|]*\|[^|]*\|[^|]*\|"
    rb'\s*(?:[{\["]|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\s*$|true|false|null|$)'
)
"""Six fields, of which the first is a time and no more, and the last begins as JSON does: other
programs divide by bars, too."""

_NO_NUMBER = r"(?i)(?:^|[:\[,])\s*-?(?:nan|inf)"
_SPELLINGS = ("nan", "inf", "N", "A", "I", "F")
"""One of these is in every spelling of them, which is quick to see."""


class OosLines(Format):
    """The format of OOS lines."""

    NAME = "oos"
    traits = Traits(by_line=True)

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these are OOS lines."""
        return share(lines, _SHAPE.match)

    def parse(self, line: bytes) -> EventMembers:
        """Return the event of one line. Raises InvalidEvent."""
        fields = utf8(line).rstrip("\r\n").split("|", 5)
        if len(fields) != 6:
            raise InvalidEvent(f"{len(fields)} fields, but an OOS line has 6, separated by |")
        time, name, category, source, subject, payload = fields
        event: EventMembers = {"time": time, "type": name}
        event.update({"category": category, "source": source, "subject": subject})
        if payload.strip():
            event["data"] = parse_value(payload.encode())
        return {k: v for k, v in event.items() if k == "data" or v != ""}

    def _query(self) -> str:
        start = " + ".join(f"length(p[{i}])" for i in range(1, 6))
        return f"""
WITH split AS (SELECT line, position, string_split(rtrim(line, chr(10) || chr(13)), '|') AS p
               FROM lines),
cut AS (SELECT *, substr(rtrim(line, chr(10) || chr(13)), {start} + 6) AS body FROM split
        WHERE len(p) >= 6),
typed AS (SELECT *, {time_sql("p[1]")} AS time FROM cut)
SELECT time, p[2] AS type, nullif(p[3], '') AS category, nullif(p[4], '') AS source,
  nullif(p[5], '') AS subject, NULL::VARCHAR AS level, NULL::VARCHAR AS message,
  nullif(nullif(trim(body), ''), 'null') AS data, NULL::VARCHAR AS id, position,
  time IS NULL OR NOT {IN_RANGE} OR p[2] = ''
    OR NOT (trim(body) = '' OR json_valid(body)) OR {odd_sql("(':' || body)", "true")} AS slow
FROM typed"""

    def cheaper(self, lines: list[bytes]) -> list[str]:
        """Return a cheaper query: it takes lines of six fields whose JSON is written as the engine
        writes it, so that nothing of it can have been lost."""
        if not any(map(_SHAPE.match, lines)):
            return []
        return [
            f"""
WITH split AS MATERIALIZED (SELECT position, string_split(line, '|') AS p FROM lines),
read AS (SELECT position, p, {time_sql("p[1]")} AS time,
    json(CASE WHEN len(p) = 6 AND json_valid(p[6]) THEN p[6] END)::VARCHAR AS body FROM split)
SELECT time, p[2] AS type, nullif(p[3], '') AS category, nullif(p[4], '') AS source,
  nullif(p[5], '') AS subject, NULL::VARCHAR AS level, NULL::VARCHAR AS message,
  nullif(body, 'null') AS data, NULL::VARCHAR AS id, position,
  NOT coalesce(p[6] = concat(body, e'\\n') AND {IN_RANGE} AND p[2] <> ''
    AND NOT ({_no_json("body")})
    AND NOT regexp_matches(body, '{LARGE_WRITTEN}'), false) AS slow
FROM read"""
        ]


def _no_json(value: str) -> str:
    """SQL that says whether JSON text may hold what the engine takes though it is none."""
    maybe = " OR ".join(f"contains({value}, '{spelling}')" for spelling in _SPELLINGS)
    return f"""coalesce({sqltext.deep_sql(value)}
      OR CASE WHEN {maybe} THEN regexp_matches({value}, '{_NO_NUMBER}') ELSE false END, false)"""


FORM = OosLines(__doc__)
