"""Cheaper queries of formats of text: what they decide is what the exact rule decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakelog.formats import access, pattern, styles
from tests.support.effort import share
from tests.support.samples import lines_of
from tests.support.text_lines import edited, has_time
from tests.support.two_ways import NOW, compare

PLAIN: dict[str, list[str]] = {
    "access": [
        '127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a_b.gif HTTP/1.0" 200 2326',
        'h i u [29/Feb/2024:23:59:59 +0530] "GET /x?q=1&r=?-" 404 - "http://a/?b" "M (5; x)"',
        'h i u [29/Feb/2024:23:59:59 +1400] "GET /x?q=1&r=? HTTP/2.0" 404 - "http://a/?b" "M (5)"',
        '::1 - - [01/Jan/1999:00:00:00 +0000] "POST / HTTP/1.1" 503 0 "-" "-"',
        'h - - [01/Jan/1999:00:00:00 +0000] "GET /é?ü HTTP/1.1" 302 999999999999999999 "" "€"',
        'h - - [01/Jan/1999:00:00:00 +0000] "GET -?- HTTP/1" 200 5 "-" "a b"\r',
        'h - - [01/Jan/1999:00:00:00 +0000] "GET /? HTTP/1" 200 5 "x" "\x7f"',
    ]
}


@pytest.fixture(autouse=True)
def still() -> Iterator[None]:
    """The clock of the exact rule shows what the queries are given."""
    with mock.patch.object(pattern, "now", return_value=NOW):
        yield


def some_lines(form: Any) -> st.SearchStrategy[list[bytes]]:
    """Lines of a format, plain ones and all kinds of others, some edited."""
    seeds = PLAIN.get(form.NAME, []) * 2 + lines_of(form.NAME)
    return st.lists(edited(seeds), min_size=8, max_size=24)


@pytest.mark.matrix
@pytest.mark.parametrize("form", [access.FORM, styles.SYSLOG, styles.APPLOG], ids=lambda f: f.NAME)
@settings(max_examples=share(60))
@given(data=st.data())
def test_plain_lines_are_decided_as_by_the_exact_rule(engine: Any, form: Any, data: Any) -> None:
    """Whatever a cheaper query decides, it decides as the exact rule does."""
    lines = data.draw(some_lines(form))
    for query in form.cheaper(
        [line.encode() for line in PLAIN.get(form.NAME, lines_of(form.NAME))]
    ):
        compare(engine, form, query, lines, has_time(form))


def test_plain_access_lines_are_decided_by_the_cheaper_query(engine: Any) -> None:
    """It leaves only lines that are escaped, oddly written, or no access lines."""
    lines = [line.encode() for line in PLAIN["access"]]
    (query,) = access.FORM.cheaper([b"x", lines[0]])
    assert compare(engine, access.FORM, query, lines, has_time(access.FORM)) == len(lines) - 1
    assert access.FORM.cheaper([b"nothing of the kind"]) == []
