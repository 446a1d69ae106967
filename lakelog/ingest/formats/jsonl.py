"""JSON lines in every spelling of the envelope; unknown keys go into `data`."""

from __future__ import annotations

import re
from typing import Any

from lakelog.errors import InvalidEvent
from lakelog.event import parse_line

NAME = "jsonl"
DEFAULT_TYPE = "event"
TIMES = ("time", "timestamp", "ts", "@timestamp")
_PAIRS = {"type": "event_type", "category": "content_type", "subject": "item_id"}
_TEXTS = ("category", "content_type", "source", "subject", "item_id", "level", "message", "id")
_HINTS = ("event", "eventName", "event_name", "eventType", "EventType")
_SHAPED = _HINTS[:-1]
"""Names of a struct ignore case, so the last hint is looked up by itself."""
_KNOWN = (*TIMES, "type", "event_type", *_TEXTS, "data")
_COLUMN = {
    **{k: k for k in ("type", "category", "source", "subject", "level", "message", "id", "data")},
    **dict.fromkeys(TIMES, "time"), **{v: k for k, v in _PAIRS.items()},
}  # fmt: skip
_LONG = r"[0-9.]{17,}|[0-9.]{16}[eE]"
"""Numbers that a double may not give back, and identifiers that look like them."""
_SPOILT = r"[:\[,]\s*-?(?:[0-9.]+[eE][+-]?[0-9]{3}|(?i:nan|inf))|,\s*[}\]]"
"""Exponents beyond a double, and what the engine takes though it is no JSON."""
_TAIL = r",\s*}\s*$"
_DEEP = 240
"""So many brackets may be nested as deeply as no event can be (orjson writes 254 levels)."""
_STRAY = r"^(?:[{\[]|-?(?i:nan|inf)|-?[0-9]+(?:\.[0-9]+(?:e[+-][0-9]+)?|e[+-][0-9]+)$)"
"""Text that may have been an object, a list or a decimal before the engine made it text."""
_ISO = (
    r"\d{4}-\d\d-\d\d(?:[T ](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?"
    r"(?:Z|[+-](?:0\d|1[0-4])(?::?[0-5]\d)?)?)?"
)
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_@.-]+")
_EXTRAS_MAX = 64
_LEVELS = (
    "TRACE VERBOSE FINEST=TRACE DEBUG FINE=DEBUG INFO INFORMATION INFORMATIONAL NOTICE=INFO"
    " WARN WARNING=WARN ERROR ERR SEVERE=ERROR FATAL CRITICAL CRIT ALERT EMERG EMERGENCY"
    " PANIC=FATAL"
)


def sniff(lines: list[bytes]) -> float:
    """Say how sure it is that these are JSON lines."""
    full = [line for line in lines if line.strip()]
    return sum(line.lstrip()[:1] == b"{" for line in full) / len(full) if full else 0.0


def parse(line: bytes) -> dict[str, Any]:
    """Return the event of one line. Raises InvalidEvent."""
    return typed(parse_line(line))


def typed(event: dict[str, Any]) -> dict[str, Any]:
    """Return a parsed line with a type, which some other key may hint at."""
    if all(event.get(k) in (None, "") for k in ("type", "event_type")):
        hints = (event[k] for k in _HINTS if isinstance(event.get(k), str) and event[k])
        event["type"] = next(hints, DEFAULT_TYPE)
    return event


def time_sql(text: str) -> str:
    """SQL that turns ISO text or epoch s/ms/us/ns as text into a TIMESTAMPTZ.

    Null where it is neither, or where Python might read it differently (eight digits may be a
    date). Decimals are rounded as Python rounds them.
    """
    whole, part = f"try_cast({text} AS BIGINT)", f"try_cast({text} AS DOUBLE)"
    scaled = f"""{part} * CASE WHEN abs({part}) < 1e11 THEN 1e6 WHEN abs({part}) < 1e14 THEN 1e3
        WHEN abs({part}) < 1e17 THEN 1e0 END"""
    return f"""CASE
      WHEN regexp_full_match({text}, '{_ISO}') THEN try_cast({text} AS TIMESTAMPTZ)
      WHEN regexp_full_match({text}, '-?\\d{{1,7}}|-?\\d{{9,18}}|[1-8]\\d{{18}}')
        THEN make_timestamptz(CASE
          WHEN abs({whole}) < 100000000000 THEN {whole} * 1000000
          WHEN abs({whole}) < 100000000000000 THEN {whole} * 1000
          WHEN abs({whole}) < 100000000000000000 THEN {whole}
          WHEN {whole} > 0 THEN {whole} // 1000 END)
      WHEN regexp_full_match({text}, '-?\\d{{1,17}}\\.\\d{{1,9}}')
        THEN make_timestamptz({_half_even(scaled)}) END"""


def _half_even(value: str) -> str:
    """SQL that rounds a double to the nearest whole number, halves to the even one."""
    low = f"floor({value})"
    up = f"({value}) - {low} > 0.5 OR (({value}) - {low} = 0.5 AND {low} % 2 <> 0)"
    return f"({low} + CASE WHEN {up} THEN 1 ELSE 0 END)::BIGINT"


def in_range_sql(moment: str) -> str:
    """SQL that says whether a time lies in the years 1 to 9999."""
    low, high = "'0001-01-01T00:00:00Z'", "'9999-12-31T23:59:59.999999Z'"
    return f"({moment} BETWEEN TIMESTAMPTZ {low} AND TIMESTAMPTZ {high})"


def odd_sql(text: str, kept: str) -> str:
    """SQL that says whether reading JSON `text` may lose something or take what is no JSON.

    `kept` is a condition, asked only where `text` holds long numbers: they came out unchanged.
    """
    return f"""({_deep_sql(text)}
      OR CASE WHEN NOT regexp_matches({text}, '{_LONG}|{_SPOILT}') THEN false
        WHEN regexp_matches({text}, '{_SPOILT}') THEN true ELSE NOT coalesce({kept}, false) END)"""


def _deep_sql(text: str) -> str:
    """SQL that says whether JSON text may be nested deeper than an event can be."""
    brackets = f"strlen({text}) - strlen(replace(replace({text}, '{{', ''), '[', ''))"
    return f"CASE WHEN strlen({text}) < {_DEEP} THEN false ELSE {brackets} > {_DEEP} END"


def _unchanged_sql(text: str) -> str:
    """SQL that says whether the engine writes every long number of JSON `text` as it was."""
    read = f"try(json({text}))::VARCHAR"
    return f"regexp_extract_all({text}, '{_LONG}') = regexp_extract_all({read}, '{_LONG}')"


def _stray_sql(names: list[str] | tuple[str, ...]) -> str:
    """SQL that says whether one of these columns was no text and may not be what it was."""
    return " OR ".join(
        f"CASE WHEN regexp_matches(j.\"{k}\", '{_STRAY}')"
        f" THEN coalesce(json_type(line, '$.\"{k}\"') <> 'VARCHAR', true) ELSE false END"
        for k in names
    )


def level_sql(text: str) -> str:
    """SQL that maps a level's name to a severity, null if unknown."""
    arms, waiting = [], []
    for word in _LEVELS.split():
        name, _, target = word.partition("=")
        waiting.append(f"'{name}'")
        if target:
            names = ", ".join([*waiting, f"'{target}'"])
            arms.append(f"WHEN upper(trim({text})) IN ({names}) THEN '{target}'")
            waiting = []
    return f"CASE {' '.join(arms)} END"


def narrow(lines: list[bytes]) -> str | None:
    """Return a cheaper query for files whose lines look like these, or None.

    It decides lines that have only the sample's keys, each column under one spelling and none
    null; all others are flagged.
    """
    keys: dict[str, None] = {}
    for line in lines:
        try:
            keys.update(dict.fromkeys(parse_line(line)))
        except InvalidEvent:
            continue
    named = {_COLUMN[k]: k for k in keys if k in _COLUMN}
    extras = [k for k in keys if k not in _COLUMN]
    typed = "type" in named or not any(k in _HINTS for k in extras)
    once = len(named) + len(extras) == len(keys) == len({k.lower() for k in keys})
    plain = len(extras) <= _EXTRAS_MAX and all(map(_PLAIN_KEY.fullmatch, extras))
    if not (typed and once and plain and "time" in named) or (extras and "data" in named):
        return None
    return _narrow_query(named, extras)


def _narrow_query(named: dict[str, str], extras: list[str]) -> str:
    """The query for lines that spell their columns as `named` {column: key} does.

    Their payload is under `data`, or made of the keys in `extras`.
    """
    kinds = {k: "JSON" if column == "data" else "VARCHAR" for column, k in named.items()}
    kinds |= dict.fromkeys(extras, "JSON")
    shape = "{" + ", ".join(f'"{k}":"{v}"' for k, v in kinds.items()) + "}"
    present = " + ".join(f'(j."{k}" IS NOT NULL)::INT' for k in kinds)
    texts = [k for column, k in named.items() if column not in ("time", "data")]
    column = {c: f'j."{named[c]}"' if c in named else "NULL::VARCHAR" for c in _COLUMN.values()}
    if "type" not in named:
        column["type"] = f"'{DEFAULT_TYPE}'"
    severity = level_sql(column["level"]) if "level" in named else "NULL::VARCHAR"
    body, odd = f"{column['data']}::VARCHAR", rf"regexp_matches(line, '{_TAIL}')"
    if extras:
        pairs = ", ".join(f'\'"{k}":\' || j."{k}"' for k in extras)
        body, odd = _braced(pairs), odd_sql("line", _unchanged_sql("line"))
    elif "data" in named:
        odd = _odd_payload(body, odd)
    return f"""
WITH parsed AS MATERIALIZED (
  SELECT line, position, try(from_json(line, '{shape}')) AS j, try(len(json_keys(line))) AS keys
  FROM lines),
typed AS (SELECT *, {time_sql(column["time"])} AS time, {severity} AS severity,
  keys = {present} AND NOT ({_stray_sql(texts) or "false"}) AND NOT ({odd}) AS plain
  FROM parsed)
SELECT time, {column["type"]} AS type, {column["category"]} AS category,
  {column["source"]} AS source, {column["subject"]} AS subject, severity AS level,
  {column["message"]} AS message, nullif({body}, 'null') AS data, {column["id"]} AS id, position,
  NOT coalesce(plain AND {in_range_sql("time")} AND {column["type"]} <> ''
    AND ({column["level"]} IS NULL OR severity IS NOT NULL), false) AS slow
FROM typed"""


def _braced(pairs: str) -> str:
    """SQL for an object of those members that are not null; null without any."""
    return f"'{{' || nullif(concat_ws(',', {pairs}), '') || '}}'"


def _odd_payload(body: str, tail: str) -> str:
    """SQL that says whether reading the payload of a line may lose something.

    Where it stands in the line as it was read, its numbers are what they were. (Quotes inside a
    string are escaped, so what is found can only be the key and its value.)
    """
    verbatim = f"(left({body}, 1) IN ('{{', '[', '\"') AND contains(line, '\"data\":' || {body}))"
    spoilt = f"{tail} OR regexp_matches({body}, '{_SPOILT}') OR {_deep_sql(body)}"
    return (
        f"CASE WHEN coalesce({verbatim}, false) THEN {spoilt} ELSE {odd_sql('line', 'false')} END"
    )


def _query() -> str:
    columns = {**dict.fromkeys((*TIMES, "type", "event_type", *_TEXTS), "VARCHAR"), "data": "JSON"}
    columns.update(dict.fromkeys(_SHAPED, "JSON"))
    shape = "{" + ", ".join(f'"{k}":"{v}"' for k, v in columns.items()) + "}"
    nulls = "{" + ", ".join(f'"{k}":null' for k in _KNOWN) + "}"
    present = " + ".join(f'(j."{k}" IS NOT NULL)::INT' for k in _KNOWN)
    twice = " OR ".join(f'(j."{a}" IS NOT NULL AND j."{b}" IS NOT NULL)' for a, b in _PAIRS.items())
    times = " + ".join(f'(j."{k}" IS NOT NULL)::INT' for k in TIMES)
    named = {k: f'j."{k}"' for k in _SHAPED}
    named[_HINTS[-1]] = f"json_extract(line, '$.{_HINTS[-1]}')"
    hints = ", ".join(
        f"CASE WHEN starts_with({v}, '\"') THEN nullif({v}->>'$', '') END" for v in named.values()
    )
    moment = ", ".join(f'j."{k}"' for k in TIMES)
    return f"""
WITH parsed AS MATERIALIZED (
  SELECT line, position, try(from_json(line, '{shape}')) AS j, try(json_keys(line)) AS keys
  FROM lines),
cut AS (
  SELECT *, coalesce({moment}) AS at_text, {present} AS present,
    CASE WHEN len(keys) = {present} THEN NULL
         ELSE json_merge_patch(line, '{nulls}')::VARCHAR END AS extra,
    nullif(j.data::VARCHAR, 'null') AS body,
    {_stray_sql(("type", "event_type", *_TEXTS))} OR {twice} OR ({times}) > 1
      OR len(keys) <> list_unique(keys) OR {odd_sql("line", _unchanged_sql("line"))} AS odd
  FROM parsed WHERE j IS NOT NULL AND json_type(line) = 'OBJECT'),
typed AS (
  SELECT *, CASE WHEN at_text IS NULL THEN $now::TIMESTAMPTZ ELSE {time_sql("at_text")} END AS time,
    {level_sql("j.level")} AS severity FROM cut),
met AS (
  SELECT *,
    CASE WHEN extra <> '{{}}' AND starts_with(body, '{{') THEN json_keys(body) END AS "inner"
  FROM typed)
SELECT time,
  coalesce(j.type, j.event_type, {hints}, '{DEFAULT_TYPE}') AS type,
  coalesce(j.category, j.content_type) AS category, j.source AS source,
  coalesce(j.subject, j.item_id) AS subject, severity AS level, j.message AS message,
  CASE WHEN extra IS NULL OR extra = '{{}}' THEN body
       WHEN body IS NULL THEN extra
       WHEN "inner" IS NOT NULL AND NOT list_has_any("inner", json_keys(extra))
         THEN CASE WHEN body = '{{}}' THEN extra ELSE body[:-2] || ',' || extra[2:] END
       ELSE '{{"data":' || body || ',' || extra[2:] END AS data,
  j.id AS id, position,
  odd OR time IS NULL OR NOT {in_range_sql("time")}
    OR coalesce(coalesce(j.type, j.event_type) = '', false)
    OR (j.level IS NOT NULL AND severity IS NULL)
    OR ("inner" IS NOT NULL AND len("inner") <> list_unique("inner")) AS slow
FROM met"""


QUERY = _query()
