"""A cheaper query for JSON lines that look like the first ones of their file.

It looks only for their keys, and flags every line that it does not decide: one that has other keys,
or a key twice, or whose values might be read otherwise than Python reads them.
"""

from __future__ import annotations

import re

from lakelog.errors import InvalidEvent
from lakelog.formats import sqltext
from lakelog.formats.sqltext import COLUMN
from lakelog.values import JsonObject, parse_line

_TAIL = r",\s*}\s*$"
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_@.-]+")
_EXTRAS_MAX = 64


def queries(lines: list[bytes]) -> list[str]:
    """Return the query for files whose lines look like these, or none.

    It decides lines that have only the sample's keys, each column under one spelling and none
    null; all others are flagged.
    """
    keys = list(dict.fromkeys(key for line in lines for key in _members(line)))
    # without a type an id may be anything
    envelope = COLUMN if "type" in map(COLUMN.get, keys) else COLUMN.keys() - {"id"}
    key_of = {COLUMN[k]: k for k in keys if k in envelope}
    extras = [k for k in keys if k not in envelope]
    # With a hint for the type the full query has to look which of them applies.
    has_type = "type" in key_of or not any(k in sqltext.HINTS for k in extras)
    once = len(key_of) + len(extras) == len(keys) == len({k.lower() for k in keys})
    plain = len(extras) <= _EXTRAS_MAX and all(map(_PLAIN_KEY.fullmatch, extras))
    if not (has_type and once and plain and "time" in key_of) or (extras and "data" in key_of):
        return []
    return [LineShape(key_of, extras).query()]


class LineShape:
    """How lines spell their columns: `key_of` is {column: key}.

    Their payload is under `data`, or made of the keys in `extras`.
    """

    def __init__(self, key_of: dict[str, str], extras: list[str]) -> None:
        self.key_of, self.extras = key_of, extras
        self.kinds = {k: "JSON" if c == "data" else "VARCHAR" for c, k in key_of.items()}
        self.kinds |= dict.fromkeys(extras, "JSON")
        self.texts = [k for column, k in key_of.items() if column not in ("time", "data")]
        self.column = {
            c: f'j."{key_of[c]}"' if c in key_of else "NULL::VARCHAR" for c in COLUMN.values()
        }
        if "type" not in key_of:
            self.column["type"] = f"'{sqltext.DEFAULT_TYPE}'"

    def query(self) -> str:
        """The query that decides lines which are spelled so."""
        # One typed parse of the members that a file has, instead of an extraction for each; lines
        # that are spelled otherwise are `slow`, and read by the wider query.
        shape = "{" + ", ".join(f'"{k}":"{v}"' for k, v in self.kinds.items()) + "}"
        column = self.column
        severity = sqltext.level_sql(column["level"]) if "level" in self.key_of else "NULL::VARCHAR"
        word = sqltext.with_word_sql("body", column["level"], "severity")
        data = word if "level" in self.key_of else "body"
        body = f"{column['data']}::VARCHAR"
        if self.extras:
            body = _braced(", ".join(f'\'"{k}":\' || j."{k}"' for k in self.extras))
        return f"""
WITH parsed AS MATERIALIZED (
  SELECT line, position, from_json(line, '{shape}') AS j, json_keys(line) AS keys
  FROM (SELECT {sqltext.VALID} AS line, position FROM lines)),
typed AS (SELECT *, {sqltext.time_sql(column["time"])} AS time, {severity} AS severity,
  {self._is_plain()} AS plain,
  nullif({body}, 'null') AS body FROM parsed)
SELECT time, {column["type"]} AS type, {column["category"]} AS category,
  {column["source"]} AS source, {column["subject"]} AS subject, severity AS level,
  {column["message"]} AS message, {data} AS data, {column["id"]} AS id, position,
  NOT coalesce(plain AND {sqltext.IN_RANGE} AND {column["type"]} <> ''
    AND ({column["level"]} IS NULL OR severity IS NOT NULL), false) AS slow
FROM typed"""

    def _is_plain(self) -> str:
        """SQL that says whether a line was read without loss."""
        present = " + ".join(f'(j."{k}" IS NOT NULL)::INT' for k in self.kinds)
        odd = rf"regexp_matches(line, '{_TAIL}')"
        if self.extras:
            odd = sqltext.odd_sql("line", sqltext.unchanged_sql("line"))
        elif "data" in self.kinds:
            odd = _odd_payload("j.data::VARCHAR", odd)
        stray = sqltext.stray_sql(self.texts) or "false"
        return f"len(keys) = {present} AND NOT ({stray}) AND NOT ({odd})"


def _members(line: bytes) -> JsonObject:
    """What a line holds, nothing if it is no event."""
    try:
        return parse_line(line)
    except InvalidEvent:
        return {}


def _braced(pairs: str) -> str:
    """SQL for an object of those members that are not null; null without any."""
    return f"'{{' || nullif(concat_ws(',', {pairs}), '') || '}}'"


def _odd_payload(body: str, tail: str) -> str:
    """SQL that says whether reading the payload of a line may lose something.

    Where it stands in the line as it was read, its numbers are what they were. (Quotes inside a
    string are escaped, so what is found can only be the key and its value.)
    """
    verbatim = f"(left({body}, 1) IN ('{{', '[', '\"') AND contains(line, '\"data\":' || {body}))"
    spoilt = f"{tail} OR regexp_matches({body}, '{sqltext.SPOILT}') OR {sqltext.deep_sql(body)}"
    odd = sqltext.odd_sql("line", "false")
    return f"CASE WHEN coalesce({verbatim}, false) THEN {spoilt} ELSE {odd} END"
