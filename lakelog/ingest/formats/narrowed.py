"""A cheaper query for JSON lines that look like the first ones of their file.

It decides only what it decides without loss. A line that is, byte for byte, what its values give
when they are written the way the first line is written (same keys, order and separators) has
these values and nothing else: no key is left over or doubled, no number was shortened. Others
are looked at more closely, and flagged where a doubt remains.
"""

from __future__ import annotations

import re
from typing import Any

from lakelog.errors import InvalidEvent
from lakelog.event import parse_line
from lakelog.ingest.formats import sqltext
from lakelog.ingest.formats.sqltext import COLUMN

_TAIL = r",\s*}\s*$"
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_@.-]+")
_EXTRAS_MAX = 64
_SPACED = re.compile(rb'\s*{"[^"\\]*": ')


def query(lines: list[bytes]) -> str | None:
    """Return the query for files whose lines look like these, or None.

    It decides lines that have only the sample's keys, each column under one spelling and none
    null; all others are flagged.
    """
    good = _good(lines)
    keys = list(dict.fromkeys(key for _, event in good for key in event))
    named = {COLUMN[k]: k for k in keys if k in COLUMN}
    extras = [k for k in keys if k not in COLUMN]
    typed = "type" in named or not any(k in sqltext.HINTS for k in extras)
    once = len(named) + len(extras) == len(keys) == len({k.lower() for k in keys})
    plain = len(extras) <= _EXTRAS_MAX and all(map(_PLAIN_KEY.fullmatch, extras))
    if not (typed and once and plain and "time" in named) or (extras and "data" in named):
        return None
    always = {k for k in keys if all(k in event for _, event in good)}
    first, event = good[0]
    bare = {*extras, named.get("data")}
    bare |= {named["time"]} if type(event.get(named["time"])) in (int, float) else set()
    return _sql(named, extras, _verbatim(keys, always, bare, first))


def _good(lines: list[bytes]) -> list[tuple[bytes, dict[str, Any]]]:
    """The lines that are events, and what they hold."""
    good = []
    for line in lines:
        try:
            good.append((line, parse_line(line)))
        except InvalidEvent:
            continue
    return good


def _sql(named: dict[str, str], extras: list[str], verbatim: str) -> str:
    """The query for lines that spell their columns as `named` {column: key} does.

    Their payload is under `data`, or made of the keys in `extras`.
    """
    kinds = {k: "JSON" if column == "data" else "VARCHAR" for column, k in named.items()}
    kinds |= dict.fromkeys(extras, "JSON")
    shape = "{" + ", ".join(f'"{k}":"{v}"' for k, v in kinds.items()) + "}"
    texts = [k for column, k in named.items() if column not in ("time", "data")]
    column = {c: f'j."{named[c]}"' if c in named else "NULL::VARCHAR" for c in COLUMN.values()}
    if "type" not in named:
        column["type"] = f"'{sqltext.DEFAULT_TYPE}'"
    severity = sqltext.level_sql(column["level"]) if "level" in named else "NULL::VARCHAR"
    payload = [f'j."{k}"' for k in extras] or [column["data"]] * ("data" in named)
    body = f"{column['data']}::VARCHAR"
    if extras:
        body = _braced(", ".join(f'\'"{k}":\' || j."{k}"' for k in extras))
    return f"""
WITH parsed AS MATERIALIZED (
  SELECT line, position, try(from_json(line, '{shape}')) AS j FROM lines),
typed AS (SELECT *, {sqltext.time_sql(column["time"])} AS time, {severity} AS severity,
  CASE WHEN coalesce(line = {verbatim}, false) AND NOT ({_quoting(texts)})
    THEN NOT ({_no_json(payload)}) ELSE {_careful(kinds, texts, extras)} END AS plain
  FROM parsed)
SELECT time, {column["type"]} AS type, {column["category"]} AS category,
  {column["source"]} AS source, {column["subject"]} AS subject, severity AS level,
  {column["message"]} AS message, nullif({body}, 'null') AS data, {column["id"]} AS id, position,
  NOT coalesce(plain AND {sqltext.in_range_sql("time")} AND {column["type"]} <> ''
    AND ({column["level"]} IS NULL OR severity IS NOT NULL), false) AS slow
FROM typed"""


def _verbatim(keys: list[str], always: set[str], bare: set[Any], first: bytes) -> str:
    """SQL for the line that its own values give, spaced and ended as the first line is.

    Keys that not every line has are left out where their value is null.
    """
    colon, comma = (": ", ", ") if _SPACED.match(first) else (":", ",")
    pieces, before = list[str](), "{"
    for key in keys:
        quote = "" if key in bare else '"'
        head, value = f"'{before}\"{key}\"{colon}{quote}'", f'j."{key}"'
        ends = f", '{quote}'" if quote else ""
        if key in always:
            pieces.append(f"{head}, {value}{ends}")
        else:
            pieces.append(f"{head} || {value}" + (f" || '{quote}'" if quote else ""))
        before = comma
    rest = "\\r" if first.endswith(b"\r") else ""
    return f"concat({', '.join(pieces)}, e'}}{rest}\\n')"


def _quoting(names: list[str]) -> str:
    """SQL that says whether one of these texts holds what JSON writes differently."""
    if not names:
        return "false"
    texts = "concat(" + ", ".join(f'j."{k}"' for k in names) + ")"
    return f"contains({texts}, '\"') OR contains({texts}, '\\')"


def _no_json(values: list[str]) -> str:
    """SQL that says whether these JSON texts may hold what the engine takes though it is none."""
    deep = " OR ".join(sqltext.deep_sql(v) for v in values)
    names = " OR ".join(f"contains({v}, '{name}')" for v in values for name in ("NaN", "Infinity"))
    return f"coalesce({deep} OR {names}, false)" if values else "false"


def _careful(kinds: dict[str, str], texts: list[str], extras: list[str]) -> str:
    """SQL that says whether a line that is spaced or escaped otherwise was read without loss."""
    present = " + ".join(f'(j."{k}" IS NOT NULL)::INT' for k in kinds)
    odd = rf"regexp_matches(line, '{_TAIL}')"
    if extras:
        odd = sqltext.odd_sql("line", sqltext.unchanged_sql("line"))
    elif "data" in kinds:
        odd = _odd_payload("j.data::VARCHAR", odd)
    stray = sqltext.stray_sql(texts) or "false"
    return f"try(len(json_keys(line))) = {present} AND NOT ({stray}) AND NOT ({odd})"


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
