"""JSON lines in every spelling of the envelope; unknown keys go into `data`."""

from __future__ import annotations

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
ODD = r"[0-9.]{17}|[0-9][eE][+-]?[0-9]{3}|NaN|Infinity|,\s*[}\]]"
"""What a line must not hold for the engine's reading of it to be lossless."""
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
    event = parse_line(line)
    has_type = any(event.get(k) not in (None, "") for k in ("type", "event_type"))
    if not has_type and not any(isinstance(event.get(k), str) for k in _HINTS):
        event["type"] = DEFAULT_TYPE
    return event


def time_sql(text: str) -> str:
    """SQL that turns ISO text or epoch s/ms/us/ns as text into a TIMESTAMPTZ, null if neither."""
    number = f"try_cast({text} AS DECIMAL(38,9))"
    return f"""CASE
      WHEN regexp_matches({text}, '^\\d{{4}}-\\d\\d-\\d\\d') THEN try_cast({text} AS TIMESTAMPTZ)
      WHEN regexp_full_match({text}, '-?\\d{{1,19}}(\\.\\d{{1,9}})?') THEN make_timestamptz((CASE
        WHEN abs({number}) < 100000000000 THEN round({number} * 1000000)
        WHEN abs({number}) < 100000000000000 THEN round({number} * 1000)
        WHEN abs({number}) < 100000000000000000 THEN round({number})
        ELSE trunc({number} / 1000) END)::BIGINT) END"""


def in_range_sql(moment: str) -> str:
    """SQL that says whether a time lies in the years 1 to 9999."""
    low, high = "'0001-01-01T00:00:00Z'", "'9999-12-31T23:59:59.999999Z'"
    return f"({moment} BETWEEN TIMESTAMPTZ {low} AND TIMESTAMPTZ {high})"


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

    It decides lines that have only the sample's columns, each under one spelling, and whose
    payload the engine gives back letter for letter; all others are flagged.
    """
    keys: dict[str, None] = {}
    for line in lines:
        try:
            keys.update(dict.fromkeys(parse_line(line)))
        except InvalidEvent:
            continue
    names = [_COLUMN[k] for k in keys if k in _COLUMN]
    typed = {"time", "type"} <= set(names) and len(set(names)) == len(names)
    return _narrow_query({_COLUMN[k]: k for k in keys if k in _COLUMN}) if typed else None


def _narrow_query(named: dict[str, str]) -> str:
    """The query for lines that spell their columns as `named` {column: key} does."""
    kinds = {k: "JSON" if column == "data" else "VARCHAR" for column, k in named.items()}
    shape = "{" + ", ".join(f'"{k}":"{v}"' for k, v in kinds.items()) + "}"
    present = " + ".join(f'(j."{k}" IS NOT NULL)::INT' for k in named.values())
    texts = [k for column, k in named.items() if column not in ("time", "data")]
    boxed = " OR ".join(f"coalesce(left(j.\"{k}\", 1) IN ('{{', '['), false)" for k in texts)
    column = {c: f'j."{named[c]}"' if c in named else "NULL::VARCHAR" for c in _COLUMN.values()}
    body = f"{column['data']}::VARCHAR"
    lossless = f"coalesce(contains(line, {body}), true)" if "data" in named else "true"
    severity = level_sql(column["level"]) if "level" in named else "NULL::VARCHAR"
    return f"""
WITH parsed AS MATERIALIZED (
  SELECT line, position, try(from_json(line, '{shape}')) AS j, try(len(json_keys(line))) AS keys
  FROM lines),
typed AS (SELECT *, {time_sql(column["time"])} AS time, {severity} AS severity,
  keys = {present} AND {lossless} AND NOT ({boxed}) AND NOT contains(line, 'NaN')
    AND NOT contains(line, 'Infinity') AND NOT contains(line, ',}}') AS plain FROM parsed)
SELECT time, {column["type"]} AS type, {column["category"]} AS category,
  {column["source"]} AS source, {column["subject"]} AS subject, severity AS level,
  {column["message"]} AS message, nullif({body}, 'null') AS data, {column["id"]} AS id, position,
  NOT coalesce(plain AND {in_range_sql("time")} AND {column["type"]} <> ''
    AND ({column["level"]} IS NULL OR severity IS NOT NULL), false) AS slow
FROM typed"""


def _query() -> str:
    columns = {**dict.fromkeys((*TIMES, "type", "event_type", *_TEXTS), "VARCHAR"), "data": "JSON"}
    columns.update(dict.fromkeys(_SHAPED, "JSON"))
    shape = "{" + ", ".join(f'"{k}":"{v}"' for k, v in columns.items()) + "}"
    nulls = "{" + ", ".join(f'"{k}":null' for k in _KNOWN) + "}"
    present = " + ".join(f'(j."{k}" IS NOT NULL)::INT' for k in _KNOWN)
    twice = " OR ".join(f'(j."{a}" IS NOT NULL AND j."{b}" IS NOT NULL)' for a, b in _PAIRS.items())
    times = " + ".join(f'(j."{k}" IS NOT NULL)::INT' for k in TIMES)
    boxed = " OR ".join(f"coalesce(left(j.\"{k}\", 1) IN ('{{', '['), false)" for k in _TEXTS)
    named = {k: f'j."{k}"' for k in _SHAPED}
    named[_HINTS[-1]] = f"json_extract(line, '$.{_HINTS[-1]}')"
    hints = ", ".join(
        f"CASE WHEN starts_with({v}, '\"') THEN {v}->>'$' END" for v in named.values()
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
    regexp_matches(line, '{ODD}') OR {boxed} OR {twice} OR ({times}) > 1 AS odd
  FROM parsed WHERE j IS NOT NULL AND json_type(line) = 'OBJECT'),
typed AS (
  SELECT *, CASE WHEN at_text IS NULL THEN $now::TIMESTAMPTZ ELSE {time_sql("at_text")} END AS time,
    {level_sql("j.level")} AS severity FROM cut)
SELECT time,
  coalesce(j.type, j.event_type, {hints}, '{DEFAULT_TYPE}') AS type,
  coalesce(j.category, j.content_type) AS category, j.source AS source,
  coalesce(j.subject, j.item_id) AS subject, severity AS level, j.message AS message,
  CASE WHEN extra IS NULL OR extra = '{{}}' THEN body
       WHEN body IS NULL THEN extra
       WHEN starts_with(body, '{{') AND NOT list_has_any(json_keys(body), json_keys(extra))
         THEN CASE WHEN body = '{{}}' THEN extra ELSE body[:-2] || ',' || extra[2:] END
       ELSE '{{"data":' || body || ',' || extra[2:] END AS data,
  j.id AS id, position,
  odd OR time IS NULL OR NOT {in_range_sql("time")}
    OR coalesce(coalesce(j.type, j.event_type) = '', false)
    OR (j.level IS NOT NULL AND severity IS NULL) AS slow
FROM typed"""


QUERY = _query()
