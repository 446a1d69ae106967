"""What varies in a line reaches the event: a field, the message or the time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

import pytest

from lakelog.formats.pattern import Pattern
from lakelog.formats.registry import FORMATS

FOUND_ELSEWHERE = (
    "[A-Z][a-z][a-z]",  # the day of the week
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,9}Z ",  # when a line was fetched, before its own time
    r" \d{4}\.\d\d\.\d\d",  # the date, after the epoch
    r" \d{4}-\d\d-\d\d-\d\d\.\d\d\.\d\d\.",
    r" +\d{1,2} \d\d:\d\d:\d\d ",
    r"[A-Za-zÀ-ÿ]{3,10}\.? \d\d?, \d{4},? \d\d?:\d\d:\d\d [AP]M",  # read by another style
    "(?:DEBUG|INFO|WARN|ERROR|FATAL|ANY)",  # the word behind the letter
    "[ T]",  # how a time is spelled
    "[ :]",
    "[^ap]",
    "[*.]?",  # a clock that nobody has set
    r"[\[<(]",
    r"[\])>]",
)
HALF = {"half"}
"""Belongs to the hour of a clock of twelve hours."""


def patterns() -> Iterator[tuple[str, Pattern]]:
    for name, form in FORMATS.items():
        for pattern in getattr(form, "PATTERNS", ()):
            yield name, pattern


def unnamed(tree: Iterable[tuple[Any, Any]], named: Iterable[int]) -> Iterator[str]:
    """Yield what matches more than one text, and is in no group of a name."""
    for kind, what in tree:
        if kind is _constants.SUBPATTERN:
            if what[0] not in named:
                yield from unnamed(what[3], named)
        elif kind in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
            yield from unnamed(what[2], named)
        elif kind is _constants.BRANCH:
            words = [
                branch for branch in what[1] if all(o is _constants.LITERAL for o, _ in branch)
            ]
            if sum(any(chr(c).isalnum() for _, c in word) for word in words) > 1:
                yield f"{kind} {what}"
            for branch in what[1]:
                yield from unnamed(branch, named)
        elif kind in (_constants.ANY, _constants.NOT_LITERAL) or (
            kind is _constants.IN and {chr(c) for o, c in what if o is _constants.LITERAL} - {" "}
        ):
            yield f"{kind} {what}"
        elif kind is _constants.IN:
            yield from (f"{o} {c}" for o, c in what if o is not _constants.LITERAL)


def test_no_part_of_a_line_is_skipped() -> None:
    """Each pattern takes all that varies into groups, and each group goes into the event."""
    skipped = []
    for name, pattern in patterns():
        regex = pattern.regex
        for part in FOUND_ELSEWHERE:
            regex = regex.replace(part, "")
        tree = _parser.parse(regex)
        groups = tree.state.groupdict
        used = {*pattern.data, pattern.message, pattern.source, pattern.subject, *HALF}
        used |= {*re.findall(r"\{(\w+)", pattern.time)}
        used |= {pattern.level.group} if pattern.level else set()
        lost = [*unnamed(tree, groups.values()), *({*groups} - used)]
        if lost:
            skipped.append((name, lost, pattern.regex))
    assert skipped == []


@pytest.mark.parametrize(
    ("name", "line", "data"),
    [
        (
            "traffic",
            "a:1 [14/Jan/2015:12:48:57.127] in~ app/n1 1/0/0/3/4 200 7 sid=a;b sid=c --NN 1/2/3/4/0"
            ' 0/0 {www.example.org|curl/8} {nginx} "GET /x HTTP/1.1" 0/0/0 TLSv1.3',
            {
                "request_cookie": "sid=a;b",
                "response_cookie": "sid=c",
                "headers": "{www.example.org|curl/8} {nginx}",
                "path": "/x",
                "more": "0/0/0 TLSv1.3",
            },
        ),
        (
            "traffic",
            "[pid: 8|app: 0|req: 3/12] 10.0.0.1 () {38 vars in 696 bytes} [Sun Mar 13 22:49:15"
            " 2016] PUT / => generated 47 bytes in 35 msecs (HTTP/1.1 200) 9 headers in 378 bytes",
            {"app": "0", "requests": "3/12", "vars": 38, "received": 696, "protocol": "HTTP/1.1"},
        ),
        (
            "samba",
            "[2024/01/02 03:04:05.678901,  3, pid=17, effective(0, 0), real(0, 0), class=auth]"
            " auth.c:12(check) ok",
            {"pid": "17", "context": "effective(0, 0), real(0, 0), class=auth"},
        ),
        (
            "runtime",
            "[Jan  2 03:04:05] NOTICE[7][C-0000001b] chan_sip.c:2 gone",
            {"pid": "7", "call": "C-0000001b", "line": "2"},
        ),
        (
            "runtime",
            "- 1131566461 2005.11.09 dn228 Nov 9 12:01:01 src@admin1 crond[2915]: (root) CMD",
            {"alert": "-", "node": "dn228", "location": "src@admin1", "pid": "2915"},
        ),
        (
            "applog",
            "2024-01-02 03:04:05 UTC [7]-12: app@shop LOG:  ready",
            {"pid": "7", "line": "12", "user": "app", "database": "shop"},
        ),
        (
            "applog",
            "2024-01-02T03:04:05.678+0000 D2 NETWORK  [conn4] end",
            {"thread": "conn4", "verbosity": "2", "level": "D"},
        ),
    ],
)
def test_what_programs_say_beside_the_message(name: str, line: str, data: dict[str, Any]) -> None:
    event = FORMATS.by_name(name).parse(line.encode())
    assert isinstance(event, dict)
    found = event["data"]
    assert {key: found.get(key) for key in data} == data
