"""Cheaper queries for JSON lines that look like the first ones of their file.

The first takes a line that is, byte for byte, what its values give when they are written the way
the first line is written: same keys, order and separators. Such a line has these values and
nothing else: no key is left over or doubled, no number was shortened. The second looks more
closely at lines that are spaced or escaped otherwise. Both flag every line they do not decide.
"""

from __future__ import annotations

import re
from typing import Any

from lakelog.errors import InvalidEvent
from lakelog.event.encode import parse_line
from lakelog.formats import sqltext
from lakelog.formats.sqltext import COLUMN

_TAIL = r",\s*}\s*$"
_NO_NUMBER = r"(?i)(?:^|[:\[,])\s*-?(?:nan|inf)"
_PARTS = ("nan", "inf", "N", "A", "I", "F")
"""One of these is in every spelling of them, which is quick to see."""
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_@.-]+")
_EXTRAS_MAX = 64
READS_UTC = "make_timestamptz(epoch_us("
"""A part of queries that read times without a zone as UTC, whatever the session's zone."""
_SPACED = re.compile(rb'\s*{"[^"\\]*": ')
_SHAPE = re.compile(r"\d{4}-\d\d-\d\d([T ])\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)?")


def queries(lines: list[bytes]) -> list[str]:
    """Return the queries for files whose lines look like these, the cheaper first, or none.

    They decide lines that have only the sample's keys, each column under one spelling and none
    null; all others are flagged. The first raises where a line is no JSON at all.
    """
    good = _good(lines)
    keys = list(dict.fromkeys(key for _, event in good for key in event))
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
    look = LineShape(key_of, extras)
    # A key that some lines lack has to be left out of their text where it is null.
    always = {k for k in keys if all(k in event for _, event in good)}
    sample, event = good[0]
    moment = event.get(key_of["time"])
    bare = {*extras, key_of.get("data")}
    bare |= {key_of["time"]} if type(moment) in (int, float) else set()
    verbatim = f"coalesce(line = {_verbatim(keys, always, bare, sample)}, false)"
    verbatim += f" AND NOT ({_quoting(look.texts)} OR {no_json(look.payload)})"
    if look.payload:
        verbatim += f" AND NOT regexp_matches(line, '{sqltext.LARGE_WRITTEN}')"
    # most lines that are no JSON are cut short or never began, which is quick to see
    whole = f"starts_with(line, '{{') AND ends_with(line, {_end(sample)})"
    source_sql = f"CASE WHEN {whole} THEN line END"
    quick = look.query(
        look.parsed(source_sql), quick_time_sql(look.column["time"], moment), verbatim
    )
    source_sql = sqltext.time_sql(look.column["time"])
    return [quick, look.query(look.parsed(sqltext.VALID), source_sql, _careful(look))]


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
        self.payload = [f'j."{k}"' for k in extras] or [self.column["data"]] * ("data" in key_of)

    def parsed(self, line: str) -> str:
        """SQL for lines with their values `j`, in the types they are needed in."""
        shape = "{" + ", ".join(f'"{k}":"{v}"' for k, v in self.kinds.items()) + "}"
        return f"SELECT line, position, from_json({line}, '{shape}') AS j FROM lines"

    def query(self, parsed: str, moment: str, plain: str) -> str:
        """The query over `parsed` lines that decides those which are `plain`."""
        column = self.column
        severity = sqltext.level_sql(column["level"]) if "level" in self.key_of else "NULL::VARCHAR"
        word = sqltext.with_word_sql("body", column["level"], "severity")
        data = word if "level" in self.key_of else "body"
        body = f"{column['data']}::VARCHAR"
        if self.extras:
            body = _braced(", ".join(f'\'"{k}":\' || j."{k}"' for k in self.extras))
        return f"""
WITH parsed AS ({parsed}),
typed AS (SELECT *, {moment} AS time, {severity} AS severity, {plain} AS plain,
  nullif({body}, 'null') AS body FROM parsed)
SELECT time, {column["type"]} AS type, {column["category"]} AS category,
  {column["source"]} AS source, {column["subject"]} AS subject, severity AS level,
  {column["message"]} AS message, {data} AS data, {column["id"]} AS id, position,
  NOT coalesce(plain AND {sqltext.in_range_sql("time")} AND {column["type"]} <> ''
    AND ({column["level"]} IS NULL OR severity IS NOT NULL), false) AS slow
FROM typed"""


def _good(lines: list[bytes]) -> list[tuple[bytes, dict[str, Any]]]:
    """The lines that are events, and what they hold."""
    good = []
    for line in lines:
        try:
            good.append((line, parse_line(line)))
        except InvalidEvent:
            continue
    return good


def quick_time_sql(expression: str, example: Any) -> str:
    """SQL for a time, cheaper for ISO text of the example's shape."""
    shape = _SHAPE.fullmatch(example) if isinstance(example, str) else None
    if not shape:
        return sqltext.time_sql(expression)
    like = re.sub(r"\d", "_", shape[0].split("+")[0]) + (shape[3] if shape[3] == "+00:00" else "")
    fraction = ".%f" if shape[2] else ""
    form = f"%Y-%m-%d{shape[1]}%H:%M:%S{fraction}{shape[3] or ''}"
    # separators stand where they should and no space leads, so that all the rest are digits
    return f"""CASE WHEN {expression} LIKE '{like}' AND {expression} > '0'
      THEN {READS_UTC}try_strptime({expression}, '{form}')))
      ELSE {sqltext.time_sql(expression)} END"""


def _verbatim(keys: list[str], always: set[str], bare: set[Any], sample: bytes) -> str:
    """SQL for the line that its own values give, spaced and ended as the first line is.

    Keys that not every line has are left out where their value is null.
    """
    colon, comma = (": ", ", ") if _SPACED.match(sample) else (":", ",")
    members, before = list[str](), "{"
    for key in keys:
        quote = "" if key in bare else '"'
        head, value = f"'{before}\"{key}\"{colon}{quote}'", f'j."{key}"'
        ends = f", '{quote}'" if quote else ""
        if key in always:
            members.append(f"{head}, {value}{ends}")
        else:
            members.append(f"{head} || {value}" + (f" || '{quote}'" if quote else ""))
        before = comma
    return f"concat({', '.join(members)}, {_end(sample)})"


def _end(sample: bytes) -> str:
    return "e'}\\r\\n'" if sample.endswith(b"\r") else "e'}\\n'"


def _quoting(names: list[str]) -> str:
    """SQL that says whether one of these texts holds what JSON writes differently."""
    if not names:
        return "false"
    values = "concat(" + ", ".join(f'j."{k}"' for k in names) + ")"
    holds = f"contains({values}, '\"') OR contains({values}, '\\')"
    return f"CASE WHEN contains(line, '\\') THEN {holds} ELSE false END"


def no_json(values: list[str]) -> str:
    """SQL that says whether these JSON texts may hold what the engine takes though it is none."""
    deep = " OR ".join(sqltext.deep_sql(v) for v in values)
    none = " OR ".join(
        f"CASE WHEN {' OR '.join(_holds(v, spelling) for spelling in _PARTS)}"
        f" THEN regexp_matches({v}, '{_NO_NUMBER}') ELSE false END"
        for v in values
    )
    return f"coalesce({deep} OR {none}, false)" if values else "false"


def _holds(value: str, spelling: str) -> str:
    return f"contains({value}, '{spelling}')"


def _careful(look: LineShape) -> str:
    """SQL that says whether a line that is spaced or escaped otherwise was read without loss."""
    present = " + ".join(f'(j."{k}" IS NOT NULL)::INT' for k in look.kinds)
    odd = rf"regexp_matches(line, '{_TAIL}')"
    if look.extras:
        odd = sqltext.odd_sql("line", sqltext.unchanged_sql("line"))
    elif "data" in look.kinds:
        odd = _odd_payload("j.data::VARCHAR", odd)
    stray = sqltext.stray_sql(look.texts) or "false"
    count = f"len(json_keys({sqltext.VALID}))"
    return f"{count} = {present} AND NOT ({stray}) AND NOT ({odd})"


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
