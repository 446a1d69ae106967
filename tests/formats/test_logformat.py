"""Access logs as a server was told to write them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.audit.audit import audit
from lakelog.errors import InvalidSetting
from lakelog.formats import access, logformat
from lakelog.formats.registry import FORMATS
from tests.support.effort import share
from tests.support.text_facts import events
from tests.support.text_lines import edited
from tests.support.two_ways import compare

CUSTOM = 'access:%v:%p %h %l %u %t "%r" %>s %O "%{Referer}i" \\"%{User-Agent}i\\" %D %{X-Id}o'
NGINX = (
    'access:$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent'
    ' "$http_referer" "$http_user_agent" rt=$request_time ${upstream_addr} $http_x_forwarded_for'
)
PARTS = 'access:%{msec}t %a "%m %U%q %H" %s %b'
LINES = {
    CUSTOM: [
        'a.b:443 ::1 - joe [10/Oct/2000:13:55:36 -0700] "GET /x?q=\\"1\\" HTTP/1.1" 404 23 "-"'
        ' "M (x) \\"y\\"" 1500 id-7',
        'a.b:- ::1 - - [10/Oct/2000:13:55:36 +0000] "-" 500 0 "" "" - a b c',
    ],
    NGINX: [
        '1.2.3.4 - - [30/Sep/2021:08:00:55 +0200] "POST /a HTTP/2.0" 200 5 "http://r/" "A b"'
        " rt=0.003 10.0.0.1:80 1.1.1.1, 2.2.2.2"
    ],
    PARTS: [
        '1588205198899 1.2.3.4 "GET /a?b=1 HTTP/1.1" 200 -',
        '1588205198899 1.2.3.4 "GET /a HTTP/1.1" 302 7',
    ],
}


@pytest.mark.parametrize("text", LINES)
@settings(max_examples=share(40))
@given(data=st.data())
def test_custom_formats_by_sql_are_those_of_the_exact_rule(
    engine: Any, text: str, data: Any
) -> None:
    """Whatever becomes of lines, both ways agree on them."""
    form = FORMATS.by_name(text)
    lines = data.draw(st.lists(edited(LINES[text]), min_size=4, max_size=12))
    compare(engine, form, form.QUERY, lines, lambda _: True)


@pytest.mark.parametrize("text", LINES)
def test_custom_formats_are_decided_by_sql(engine: Any, text: str) -> None:
    """Lines as the format says are all decided by its query."""
    form = FORMATS.by_name(text)
    lines = [line.encode() for line in LINES[text]]
    assert compare(engine, form, form.QUERY, lines, lambda _: True) == len(lines)


def test_what_directives_give(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Names are those of common access logs, numbers are numbers, a dash is null."""
    path = tmp_path / "x.log"
    path.write_text("\n".join(LINES[CUSTOM]) + "\n")
    report = lake.ingest(str(path), format=CUSTOM)
    assert (report.events, report.quarantined) == (2, 0)
    first, second = events(lake)
    assert first["time"] == dt.datetime(2000, 10, 10, 20, 55, 36, tzinfo=dt.UTC)
    assert (first["level"], first["message"]) == ("WARN", 'GET /x?q="1" HTTP/1.1')
    assert first["data"] == {
        "vhost": "a.b",
        "port": 443,
        "host": "::1",
        "ident": None,
        "user": "joe",
        "method": "GET",
        "path": "/x",
        "query": 'q="1"',
        "protocol": "HTTP/1.1",
        "status": 404,
        "sent": 23,
        "referer": None,
        "agent": 'M (x) "y"',
        "duration_us": 1500,
        "sent_x_id": "id-7",
    }
    assert (second["level"], second["data"]["duration_us"]) == ("ERROR", None)
    found = audit(lake.store, lake.branch_name, lake.engine, [])
    assert [(f.format, f.wrong) for f in found.files] == [(CUSTOM, 0)]
    path.write_text(path.read_text() + LINES[CUSTOM][0] + "\n")
    assert lake.ingest(str(path)).events == 1


def test_variables_and_parts() -> None:
    """Variables of nginx and the parts of a request are found, too."""
    event = FORMATS.by_name(NGINX).parse(LINES[NGINX][0].encode())
    assert event["data"]["duration_s"] == "0.003"
    assert event["data"]["upstream_addr"] == "10.0.0.1:80"
    assert event["data"]["x_forwarded_for"] == "1.1.1.1, 2.2.2.2"
    parts = FORMATS.by_name(PARTS).parse(LINES[PARTS][0].encode())
    assert parts["time"] == "1588205198899"
    assert (parts["data"]["path"], parts["data"]["query"]) == ("/a", "b=1")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("%h %Z", "unknown directive '%Z'"),
        ("%h %{x}Q", "unknown directive '%{x}Q'"),
        ("plain words", "no directive in the log format"),
        ("%h%l", "nothing follows %h"),
        ("%h %", "unknown directive '%'"),
    ],
)
def test_a_wrong_format_is_one_clear_line(text: str, told: str) -> None:
    """It says which directive is wrong, and in what."""
    with pytest.raises(InvalidSetting, match="log format") as caught:
        FORMATS.by_name(f"access:{text}")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_the_usual_formats() -> None:
    """Common and combined are what access logs are read as anyway."""
    assert FORMATS.by_name("access:combined") is FORMATS.by_name("access:common") is access.FORM
    assert logformat.read("%h").data == ("host",)
