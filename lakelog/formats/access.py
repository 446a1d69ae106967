"""Access logs of web servers, common and combined: host ident user [time] "request" status bytes.

`message` is the request line, `path` what stands before a question mark in it and `query` what
stands after; the level comes from the status. A dash is null. What a server writes after the
agent stays as it is under `more`. A month in digits stands before the day, as cPanel writes it,
unless the line ends with the bytes, as those of Proxmox do.
"""

from __future__ import annotations

import re

from lakelog.formats import sqltext
from lakelog.formats.pattern import MONTH, STATUS, Pattern
from lakelog.formats.pattern_format import PatternFormat

_TEXT = r'(?:[^"\\]|\\.)'
_TARGET = rf'(?P<path>(?:[^"\\?]|\\.)+?)(?:\?(?P<query>{_TEXT}*?))?'
REQUEST = rf"(?:(?P<method>[A-Za-z_-]+) {_TARGET}(?: (?P<protocol>HTTP/[\d.]+))?|{_TEXT}*)"
"""A request line, cut into its parts where it has them."""
_DATA = (
    "host",
    "ident",
    "user",
    "method",
    "path",
    "query",
    "protocol",
    "status",
    "bytes",
    "referer",
    "agent",
    "more",
)
_QUOTED = ("method", "path", "query", "protocol", "referer", "agent")
_AGENT = rf'(?: "(?P<referer>{_TEXT}*)" "(?P<agent>{_TEXT}*)")?(?: (?P<more>.+))?'
_DIGITS = "{year}-{month}-{day}T{clock}{zone}"
PATTERNS = tuple(
    Pattern(
        rf"(?P<host>[^ ]+) (?P<ident>[^ ]+) (?P<user>[^ ]+) \[{date}:(?P<clock>\d\d:\d\d:\d\d)"
        r" (?P<zone>[+-]\d{4})\]"
        rf' "(?P<request>{REQUEST})" (?P<status>\d{{3}}) (?P<bytes>\d{{1,18}}|-){rest}',
        time,
        "access",
        STATUS,
        message="request",
        data=data,
        numbers=("status", "bytes"),
        dashes=("request", *data),
        quoted=("request", *(name for name in _QUOTED if name in data)),
    )
    for date, time, rest, data in (
        (
            rf"(?P<day>\d\d)/{MONTH}/(?P<year>\d{{4}})",
            "{year}-{mon}-{day}T{clock}{zone}",
            _AGENT,
            _DATA,
        ),
        # Proxmox ends its lines with the bytes, which cPanel never does.
        (r"(?P<day>\d\d)/(?P<month>0\d|1[0-2])/(?P<year>\d{4})", _DIGITS, "", _DATA[:-3]),
        (r"(?P<month>\d\d)/(?P<day>\d\d)/(?P<year>\d{4})", _DIGITS, _AGENT, _DATA),
    )
)


class AccessLog(PatternFormat):
    """The format of common and combined access logs."""

    def cheaper(self, lines: list[bytes]) -> list[str]:
        """Return a cheaper query, if some lines are as plain as most are: it cuts them at quotes
        and spaces, which is exact where nothing is escaped and the request is of three words."""
        plain = re.compile(_PLAIN.removesuffix(_END), re.ASCII)
        return [_QUICK] if any(plain.fullmatch(_text(line)) for line in lines) else []


FORM = AccessLog("access", __doc__, PATTERNS, "no line of an access log (common or combined)")


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


def _json(name: str, text: str) -> str:
    """SQL for a member whose text needs no escape; a dash or nothing is null."""
    return (
        f"CASE WHEN {text} IN ('-', '') THEN '\"{name}\":null,'"
        f" ELSE concat('\"{name}\":\"', {text}, '\",') END"
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
  NOT coalesce({sqltext.in_range_sql("time")}, false) AS slow
FROM cut"""
