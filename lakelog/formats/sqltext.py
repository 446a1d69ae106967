"""SQL for what the formats share: times, levels, and whether the engine reads JSON as it is."""

from __future__ import annotations

DEFAULT_TYPE = "event"
TIMES = ("time", "timestamp", "ts", "@timestamp")
PAIRS = {"type": "event_type", "category": "content_type", "subject": "item_id"}
HINTS = ("event", "eventName", "event_name", "eventType", "EventType")
COLUMN = {
    **{k: k for k in ("type", "category", "source", "subject", "level", "message", "id", "data")},
    **dict.fromkeys(TIMES, "time"),
    **{v: k for k, v in PAIRS.items()},
}
"""The column that each key of an envelope names."""
VALID = "CASE WHEN json_valid(line) THEN line END"
"""Lines that are no JSON at all would stop a query."""
_LONG = r"[0-9.]{17,}|[0-9.]{16}[eE]"
"""Numbers that a double may not give back, and identifiers that look like them."""
_LARGE = r"[0-9]{17,}\.|[0-9.]+[eE]\+?[0-9]{2}|[0-9.]{8,}[eE]\+?[0-9]"
"""Doubles from 1e16 on, which the engine spells otherwise than Python does."""
LARGE_WRITTEN = r"(?:^|[:\[,]) ?-?(?:[0-9]{17,}\.0|[0-9.]+e[0-9]{2})"
"""The same in JSON that the engine has written."""
SPOILT = rf"[:\[,]\s*-?(?:[0-9.]+[eE][+-]?[0-9]{{3}}|{_LARGE}|(?i:nan|inf))|,\s*[}}\]]"
"""Exponents beyond a double, and text that the engine accepts though it is no JSON."""
_DEEP = 240
"""So many brackets may be nested as deeply as no event can be (orjson writes 254 levels)."""
STRAY = r"^(?:[{\[]|-?(?i:nan|inf)|-?[0-9]+(?:\.[0-9]+(?:e[+-][0-9]+)?|e[+-][0-9]+)$)"
"""Text that may have been an object, a list or a decimal before the engine made it text."""
_ISO = (
    r"\d{4}-\d\d-\d\d(?:[T ](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?"
    r"(?:Z|[+-](?:0\d|1[0-4])(?::?[0-5]\d)?)?)?"
)
_BLANKS = " || ".join(f"chr({code})" for code in (32, 9, 10, 11, 12, 13))
_LEVELS = (
    "TRACE VERBOSE FINEST=TRACE DEBUG DBUG FINE=DEBUG INFO INFORMATION INFORMATIONAL NOTICE=INFO"
    " WARN WARNING=WARN ERROR ERR EROR SEVERE=ERROR FATAL CRITICAL CRIT ALERT EMERG EMERGENCY"
    " PANIC DPANIC=FATAL"
)
IN_RANGE = (
    "(time BETWEEN TIMESTAMPTZ '0001-01-01T00:00:00Z'"
    " AND TIMESTAMPTZ '9999-12-31T23:59:59.999999Z')"
)
"""SQL that says whether a time lies in the years 1 to 9999."""


def none_sql(lines: str) -> str:
    """SQL over a table of lines that leaves each of them to the exact rule."""
    text_columns = ", ".join(
        f"NULL::VARCHAR AS {column}"
        for column in "type category source subject level message data id".split()
    )
    return f"SELECT NULL::TIMESTAMPTZ AS time, {text_columns}, position, true AS slow FROM {lines}"


def time_sql(expression: str) -> str:
    """SQL that turns ISO text, epoch s/ms/us/ns or YYYYMMDDhhmmss as text into a TIMESTAMPTZ.

    Null where it is neither, or where Python might read it differently (eight digits may be a
    date). Decimals are rounded as Python rounds them.
    """
    whole, value = f"try_cast({expression} AS BIGINT)", f"try_cast({expression} AS DOUBLE)"
    # The size of an epoch says its unit, by the thresholds of lakelog.values.parse_time.
    scaled = f"""{value} * CASE WHEN abs({value}) < 1e11 THEN 1e6 WHEN abs({value}) < 1e14 THEN 1e3
        WHEN abs({value}) < 1e17 THEN 1e0 END"""
    return f"""CASE
      WHEN regexp_full_match({expression}, '{_ISO}') THEN try_cast({expression} AS TIMESTAMPTZ)
      WHEN regexp_full_match({expression}, '(19|20)\\d{{12}}([.]?\\d+)?')
        THEN try_strptime({expression}, '%Y%m%d%H%M%S')::TIMESTAMPTZ
      WHEN regexp_full_match({expression}, '-?\\d{{1,7}}|-?\\d{{9,18}}|[1-8]\\d{{18}}')
        THEN make_timestamptz(CASE
          WHEN abs({whole}) < 100000000000 THEN {whole} * 1000000
          WHEN abs({whole}) < 100000000000000 THEN {whole} * 1000
          WHEN abs({whole}) < 100000000000000000 THEN {whole}
          WHEN {whole} > 0 THEN {whole} // 1000 END)
      WHEN regexp_full_match({expression}, '-?\\d{{1,17}}\\.\\d{{1,9}}')
        THEN make_timestamptz({_half_even(scaled)}) END"""


def _half_even(value: str) -> str:
    """SQL that rounds a double to the nearest whole number, halves to the even one."""
    low = f"floor({value})"
    up = f"({value}) - {low} > 0.5 OR (({value}) - {low} = 0.5 AND {low} % 2 <> 0)"
    return f"({low} + CASE WHEN {up} THEN 1 ELSE 0 END)::BIGINT"


def odd_sql(json_text: str, unchanged: str) -> str:
    """SQL that says whether reading JSON `text` may lose something or accept what is no JSON.

    `unchanged` is a condition, evaluated only where `text` holds long numbers: they came out
    unchanged.
    """
    return f"""({deep_sql(json_text)}
      OR CASE WHEN NOT regexp_matches({json_text}, '{_LONG}|{SPOILT}') THEN false
        WHEN regexp_matches({json_text}, '{SPOILT}') THEN true ELSE NOT coalesce({unchanged}, false)
        END)"""


def document_sql(body: str) -> str:
    """SQL that says the same of a document, nested as deeply as it likes, not of long strings."""
    long = rf"[:\[,]\s*-?(?:{_LONG})"
    return f"""CASE WHEN regexp_matches({body}, '{SPOILT}') THEN true
        WHEN regexp_matches({body}, '{long}') THEN NOT coalesce({unchanged_sql(body)}, false)
        ELSE false END"""


def deep_sql(json_text: str) -> str:
    """SQL that says whether JSON text may be nested deeper than an event can be."""
    brackets = f"strlen({json_text}) - strlen(replace(replace({json_text}, '{{', ''), '[', ''))"
    return f"CASE WHEN strlen({json_text}) < {_DEEP} THEN false ELSE {brackets} > {_DEEP} END"


def unchanged_sql(json_text: str) -> str:
    """SQL that says whether the engine writes every long number of JSON `text` as it was."""
    rewritten = f"try(json({json_text}))::VARCHAR"
    return (
        f"regexp_extract_all({json_text}, '{_LONG}') = regexp_extract_all({rewritten}, '{_LONG}')"
    )


def stray_sql(names: list[str] | tuple[str, ...]) -> str:
    """SQL that says whether one of these columns was no text and may not be what it was."""
    return " OR ".join(
        f"CASE WHEN regexp_matches(j.\"{k}\", '{STRAY}')"
        f" THEN coalesce(json_type(line, '$.\"{k}\"') <> 'VARCHAR', true) ELSE false END"
        for k in names
    )


def with_word_sql(data: str, word: str, level: str) -> str:
    """SQL for the payload `data` with the word for a level, as `levels.with_word` has it."""
    member = f"concat('\"level\":', to_json({word}), '}}')"
    # most are the name itself, or null, which is quick to see
    return f"""CASE WHEN {word} = {level} OR {level} IS NULL THEN {data}
      WHEN upper(trim({word}, {_BLANKS})) <> {level} THEN CASE
        WHEN {data} IS NULL OR {data} = '{{}}' THEN '{{' || {member}
        WHEN starts_with({data}, '{{') AND NOT list_contains(json_keys({data}), 'level')
          THEN {data}[:-2] || ',' || {member}
        ELSE {data} END ELSE {data} END"""


def level_sql(expression: str) -> str:
    """SQL that maps a level's name to a severity, null if unknown."""
    arms, waiting = [], []
    for word in _LEVELS.split():
        name, _, target = word.partition("=")
        waiting.append(f"'{name}'")
        if target:
            names = ", ".join([*waiting, f"'{target}'"])
            arms.append(f"WHEN upper(trim({expression})) IN ({names}) THEN '{target}'")
            waiting = []
    return f"CASE {' '.join(arms)} END"
