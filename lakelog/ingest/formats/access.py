"""Access logs of web servers, common and combined: host ident user [time] "request" status bytes.

`message` is the request line, `path` what stands before a question mark in it and `query` what
stands behind; the level comes from the status. A dash is null. What a server writes after the
agent stays as it is under `more`.
"""

from __future__ import annotations

from typing import Any

from lakelog.ingest.formats import pattern
from lakelog.ingest.formats.pattern import MONTH, STATUS, Pattern

NAME = "access"
_TEXT = r'(?:[^"\\]|\\.)'
_TARGET = rf'(?P<path>(?:[^"\\?]|\\.)+?)(?:\?(?P<query>{_TEXT}*?))?'
_REQUEST = rf"(?:(?P<method>[A-Za-z_-]+) {_TARGET}(?: (?P<protocol>HTTP/[\d.]+))?|{_TEXT}*)"
_DATA = (
    "host", "ident", "user", "method", "path", "query", "protocol", "status", "bytes", "referer",
    "agent", "more",
)  # fmt: skip
PATTERNS = (
    Pattern(
        r"(?P<host>[^ ]+) (?P<ident>[^ ]+) (?P<user>[^ ]+)"
        rf" \[(?P<day>\d\d)/{MONTH}/(?P<year>\d{{4}}):(?P<clock>\d\d:\d\d:\d\d)"
        r" (?P<zone>[+-]\d{4})\]"
        rf' "(?P<request>{_REQUEST})" (?P<status>\d{{3}}) (?P<bytes>\d{{1,18}}|-)'
        rf'(?: "(?P<referer>{_TEXT}*)" "(?P<agent>{_TEXT}*)")?(?: (?P<more>.+))?',
        "{year}-{mon}-{day}T{clock}{zone}",
        "access",
        STATUS,
        message="request",
        data=_DATA,
        numbers=("status", "bytes"),
        dashes=("request", *_DATA),
        quoted=("request", "method", "path", "query", "protocol", "referer", "agent"),
    ),
)
QUERY = pattern.query(PATTERNS)


def sniff(lines: list[bytes]) -> float:
    """Say how sure it is that these are lines of an access log."""
    return pattern.share(lines, parse)


def parse(line: bytes) -> dict[str, Any]:
    """Return the event of one line. Raises InvalidEvent."""
    return pattern.parse(PATTERNS, line, "no line of an access log (common or combined)")


def cheaper(lines: list[bytes]) -> list[str]:
    """There is no cheaper query."""
    return []
