"""Which words of a message are values: regular expressions, one set for all programs.

A *shape* is a message with its values replaced. It depends on the message alone, so that shapes
are counted by segment and add up, however the segments are cut. The expressions are RE2's, which
looks neither ahead nor back and never takes longer than the text is long.
"""

from __future__ import annotations

from lakelog.sql import literal

VALUE = "\x1a"
"""What stands for a value in a shape: no log has this character."""
LENGTH_MAX = 1_000
"""Characters of a message that its shape is made of."""

_DOMAINS = "com|net|org|edu|gov|mil|int|info|biz|io|local|lan|internal|localdomain|arpa"
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_UNITS = (
    r"(?:[kKMGTP]i?)?[Bb](?:ytes?)?|[mun]?s(?:ec(?:ond)?s?)?|min(?:ute)?s?|hours?|days?|[kMG]?Hz|%"
)
SIGNS = "=:,;()[]{}\"'|<>"
"""What is a token of its own in a shape; other tokens are words."""
_SIGN = r"""[=:,;()\[\]{}"'|<>]"""
_DELIMITERS = rf"\s{_SIGN[1:-1]}"
TOKEN = rf"\s*(?:{_SIGN}|[^{_DELIMITERS}]+)"
_QUOTED = r"\"[^\"]*\""
# `[1, 2]` and `User{7}` are one value; what is in brackets in brackets has values of its own.
_ENCLOSED = r"[\w.\x24@]*(?:\([^()=]*\)|\[[^\[\]=]*\]|\{[^{}=]*\})"

MASKS = {
    "url": r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s,;\"'\])>]+",
    "email": r"[\w.+\-]+@[\w.\-]+",
    "windows_path": r"\b[A-Za-z]:\\[^\s,;\"']+",
    "path": r"(?:/[\w.\-+%~@:\x24#<>*]+){2,}/?",
    "mac_address": r"\b(?:[0-9a-fA-F]{1,4}[:\-]){3,7}[0-9a-fA-F]{1,4}\b",
    "host": rf"(?:[\w\-]+\.)+(?:{_DOMAINS})(?:\.[a-z][a-z])?(\.?(?:[^\w.\-]|\z))",
    "host_port": r"\b[A-Za-z][\w\-]*(?:\.[\w\-]+)+:\d+\b",
    "quantity": rf"(?:<\s?)?\b\d+(?:\.\d+)?\s?(?:{_UNITS})\b",
    "weekday": rf"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? (?:{_MONTHS})\b",
    "month": rf"\b(?:{_MONTHS})[ \-/]+\d+",
    "truth": r"\b(?:true|false|True|False|null|None|nil|NaN)\b",
    "value": rf"(=)(?:{_QUOTED}|{_ENCLOSED}|[^\s,;\"'\])}}=]+)",
}
"""What is a value wherever it stands. Groups are kept: what
follows a host, and the sign before a value."""
# Numbers are values wherever they are: ids, sizes, versions and times are seldom what a message is
# about.
_TOKEN = rf"[^{_DELIMITERS}]*[0-9{VALUE}][^{_DELIMITERS}]*"
_UNITS_MAX, _SHORT = 61, 400
# More than mining looks at, as each has a token; in messages of more than `_SHORT` characters. A
# million dumps that differ further on are few shapes.
_LONG = rf"(?s)\A((?:[^{_DELIMITERS}]*(?:{_SIGN}\s*|\s+)){{{_UNITS_MAX}}}).+\z"
_BEGINNING = rf"(?:{_SIGN}|[^{_DELIMITERS}]{{1,64}})"
# A list of values is one value, however many it has.
_RUN = rf"{VALUE}(?:[\s:,]*{VALUE}|\s*\(\s*{VALUE}\s*\))+"

PASSES = (
    ("|".join(f"(?:{mask})" for mask in MASKS.values()), rf"\2{VALUE}\1"),
    (_TOKEN, VALUE),
    (_RUN, VALUE),
)
"""Each expression and what it is replaced by, in this order: values that are known by their form;
every other word that has a digit or a part of such a value; values one after the other."""


def shape_sql(message: str) -> str:
    """Return SQL for the shape of a message, which is an SQL expression."""
    # Cut at a word: half a word has another shape than the whole one.
    shape = (
        f"CASE WHEN length({message}) > {LENGTH_MAX} THEN"
        f" regexp_replace(left({message}, {LENGTH_MAX}), '\\S*\\z', '{VALUE}') ELSE {message} END"
    )
    for expression, replacement in PASSES:
        shape = f"regexp_replace({shape}, {literal(expression)}, {literal(replacement)}, 'g')"
    shortened = f"regexp_replace({shape}, {literal(_LONG)}, '\\1{VALUE}')"
    return f"CASE WHEN length({message}) > {_SHORT} THEN {shortened} ELSE {shape} END"


def beginning_sql(shape: str) -> str:
    """Return SQL for the first token of a shape, and a value if there are more."""
    single, start = literal(rf"\s*{_BEGINNING}?\s*"), literal(f"({_BEGINNING})")
    return (
        f"CASE WHEN regexp_full_match({shape}, {single}) THEN {shape}"
        f" ELSE regexp_extract({shape}, {start}, 1) || ' {VALUE}' END"
    )
