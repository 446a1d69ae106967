"""Access logs of web servers: a quicker query for lines without escapes."""

from __future__ import annotations

import re

from lakelog.formats import sqltext, styles
from lakelog.formats.pattern import MONTH, STATUS
from lakelog.formats.pattern_format import PatternFormat


class AccessLog(PatternFormat):
    """The format of common and combined access logs."""

    def cheaper(self, lines: list[bytes]) -> list[str]:
        """Return a cheaper query, if some lines are as plain as most are: it cuts them at quotes
        and spaces, which is exact where nothing is escaped and the request is of three words."""
        plain = re.compile(_PLAIN.removesuffix(_END), re.ASCII)
        return [_QUICK] if any(plain.fullmatch(_text(line)) for line in lines) else []


_STYLE = styles.ACCESS
FORM = AccessLog(_STYLE.NAME, _STYLE.about, _STYLE.PATTERNS, _STYLE.otherwise)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r\n")


# Lines without escapes can be split at quotes and spaces, which is cheaper than a regex with
# groups.
_WORD, _FIELD, _END = r'[^ "\\\x00-\x1f]+', r'"[^"\\\x00-\x1f]*"', r"\r?\n"
_PLAIN = (
    rf"[0-9A-Za-z:._-]{_WORD[:-1]}* {_WORD} {_WORD}"
    rf" \[\d\d/{MONTH.replace('?P<mon>', '?:')}/\d{{4}}:\d\d:\d\d:\d\d"
    r" [+-](?:0\d|1[0-4])[0-5]\d\]"
    rf' "[A-Za-z_]+ {_WORD.replace(" ", " ?")}(?:\?{_WORD[:-1]}*)? HTTP/[\d.]+"'
    rf" [1-9]\d\d (?:0|[1-9]\d{{0,17}}|-)(?: {_FIELD} {_FIELD})?{_END}"
)


def _json(name: str, expression: str) -> str:
    """SQL for a member whose text needs no escape; a dash or nothing is null."""
    return (
        f"CASE WHEN {expression} IN ('-', '') THEN '\"{name}\":null,'"
        f" ELSE concat('\"{name}\":\"', {expression}, '\",') END"
    )


# Lines that do not match _PLAIN give no row here, and are left to QUERY.
_QUICK = f"""
WITH quoted AS (SELECT position, string_split(line, '"') AS p FROM lines
                WHERE regexp_full_match(line, '{_PLAIN}')),
spaced AS (SELECT position, p, string_split(p[1], ' ') AS h, string_split(p[2], ' ') AS r,
             string_split(p[3], ' ') AS s FROM quoted),
cut AS (SELECT position, p, h, r, instr(r[2], '?') AS mark, s[2] AS status,
          rtrim(s[3], e'\\r\\n') AS bytes,
          try_strptime(concat(h[4], h[5]), '[%d/%b/%Y:%H:%M:%S%z]') AS time FROM spaced)
SELECT time, 'access' AS type, NULL::VARCHAR AS category, NULL::VARCHAR AS source,
  NULL::VARCHAR AS subject, {STATUS.sql("status")} AS level, p[2] AS message,
  concat('{{', {_json("host", "h[1]")}, {_json("ident", "h[2]")}, {_json("user", "h[3]")},
    '"method":"', r[1], '",',
    CASE WHEN mark = 0 THEN concat({_json("path", "r[2]")}, '"query":null,')
      ELSE concat({_json("path", "left(r[2], mark - 1)")},
                  {_json("query", "substr(r[2], mark + 1)")}) END,
    '"protocol":"', r[3], '","status":', status, ',"bytes":',
    CASE WHEN bytes = '-' THEN 'null' ELSE bytes END, ',',
    CASE WHEN len(p) < 7 THEN '"referer":null,"agent":null,'
      ELSE concat({_json("referer", "p[4]")}, {_json("agent", "p[6]")}) END,
    '"more":null}}') AS data,
  NULL::VARCHAR AS id, position,
  NOT coalesce({sqltext.IN_RANGE}, false) AS slow
FROM cut"""
