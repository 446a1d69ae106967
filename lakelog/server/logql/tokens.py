"""The tokens of LogQL."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lakelog.server.logql.syntax import LogQLFault

_DURATIONS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
    "d": 86_400.0, "w": 604_800.0, "y": 31_536_000.0,
}  # fmt: skip
_BYTES = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "pb": 10**15, "kib": 1 << 10,
    "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "pib": 1 << 50, "k": 10**3, "g": 10**9,
    "t": 10**12,
}  # fmt: skip
_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
    |(?P<duration>(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|μs|ms|s|m|h|d|w|y))+(?![A-Za-z0-9_.]))
    |(?P<bytes>[0-9]+(?:\.[0-9]+)?(?:[kKMGTP]i?)?[bB](?![A-Za-z0-9_]))
    |(?P<number>(?:0[xX][0-9a-fA-F]+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
        (?![A-Za-z0-9_]))
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
    |(?P<mark>\|=|\|~|\|>|!=|!~|!>|=~|==|>=|<=|[{}()\[\],=<>|+\-*/%^])""",
    re.X,
)
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\\"'`])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))"
)
_CONTROL = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
LENGTH_MAX = 131_072


@dataclass(frozen=True)
class LogQLToken:
    """A token: its type (string, duration, bytes, number, name, mark, end), its spelling, its
    value, and the character at which it begins."""

    category: str
    spelling: str
    value: str | float
    start: int


def tokens(query: str) -> list[LogQLToken]:
    """Return the tokens of a query, the last of them its end. Raises LogQLFault."""
    if len(query) > LENGTH_MAX:
        raise LogQLFault(f"the query has more than {LENGTH_MAX:,} characters")
    token_list, place = [], 0
    while place < len(query):
        match = _TOKEN.match(query, place)
        if match is None:
            raise fault(query, place, f"unexpected {query[place]!r}")
        category = str(match.lastgroup)
        if category != "space":
            value = _value(category, match[0], query, place)
            token_list.append(LogQLToken(category, match[0], value, place))
        place = match.end()
    # Two, for who looks at the token behind this one.
    return [*token_list, *2 * [LogQLToken("end", "", "", len(query))]]


def fault(query: str, place: int, reason: str) -> LogQLFault:
    """An error at a character of a query."""
    line = query.count("\n", 0, place) + 1
    column = place - (query.rfind("\n", 0, place) + 1) + 1
    return LogQLFault(f"parse error at line {line}, col {column}: {reason}")


def seconds(spelling: str) -> float:
    """The seconds of a duration such as 1h30m."""
    return sum(
        float(number) * _DURATIONS[unit]
        for number, unit in re.findall(r"([0-9.]+)(ns|us|µs|μs|ms|s|m|h|d|w|y)", spelling)
    )


def _value(category: str, spelling: str, query: str, place: int) -> str | float:
    if category == "string":
        return spelling[1:-1] if spelling[0] == "`" else _unescaped(spelling[1:-1], query, place)
    if category == "duration":
        return seconds(spelling)
    if category == "bytes":
        number = re.match(r"[0-9.]+", spelling)
        assert number is not None
        return float(number[0]) * _BYTES[spelling[number.end() :].lower()]
    if category == "number":
        return float(int(spelling, 16)) if spelling[:2].lower() == "0x" else float(spelling)
    return spelling


def _unescaped(spelling: str, query: str, place: int) -> str:
    def replaced(match: re.Match[str]) -> str:
        simple, two, four, eight, octal, unknown = match.groups()
        if simple:
            return _CONTROL.get(simple, simple)
        if unknown:
            raise fault(
                query, place, f"\\{unknown} is no escape: write `…` for a regular expression"
            )
        code = int(octal, 8) if octal else int(two or four or eight, 16)
        if code > 0x10FFFF:
            raise fault(query, place, "an escape that is no character")
        return chr(code)

    return _ESCAPE.sub(replaced, spelling)
