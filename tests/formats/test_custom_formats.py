"""A user's own pattern: what its groups become, in the engine and by the exact rule; mistakes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.errors import InvalidEvent, InvalidSetting
from lakelog.formats import grok, moments, pattern, re2
from lakelog.formats.custom import CustomFormat
from lakelog.formats.definition import FormatDefinition
from lakelog.formats.registry import FORMATS
from lakelog.ingest.transform import Transformer
from lakelog.lines.pieces import Chunk
from tests.support.effort import share
from tests.support.two_ways import NOW, compare

MakeLake = Callable[..., lakelog.Lake]
LINES = [
    "10.0.0.1 GET /a?b 200 1.50 warn 2026-01-02 03:04:05,678 all well",
    '::1 POST /x 404 0.000002701 ERROR 2026-01-02T03:04:05Z it\'s "so"',
    "fe80::1%eth0 PUT /ü 007 17 notice 2026-01-02T03:04:05.123456+02:00 x\x01y",
    "192.168.1.255 GET /n 12345678901234567890 -2.5 loud 2026-10-25 02:30:00 fold",
    "1.2.3.4 GET /z 0 5 info yesterday no time",
    "1.2.3.4 GET /z 0 5 info 1767323045.5 epoch",
    "1.2.3.4 GET /z -3 1e5 Information 10/Oct/2025:13:55:36 -0700 apache",
    "1.2.3.4 GET /z -3 1e5 fatal Nov  3 04:05:06 syslog",
    "1.2.3.4 GET /z -3 1e5 fatal Feb 29 04:05:06 leap",
    "1.2.3.4 GET /z -3 1e5 fatal Jan 12 2024 04:05:06 leap",
    "\ufeff1.2.3.4 GET /z 1 2 info 2026-01-02 03:04:05 marked",
    "nothing of the kind",
    "",
    "\x00\xff",
]
WHOLE = (
    "%{IP:client} %{WORD:method} %{NOTSPACE:path} %{INT:status:int} %{NOTSPACE:took:float}"
    r" %{WORD:level} (?<time>[A-Z][a-z]+ [ \d:]+|\S+(?: [\d:,]{8,12}| -\d{4})?) %{GREEDYDATA:msg}"
)
SOME = r"%{IP:[client][ip]} (?:GET (?P<path>\S+)|POST (?P<path>\S+)|(?P<other>\S+) /)"

LAUGHS = (*((f"A{n}", f"%{{A{n + 1}}}" * 9) for n in range(40)), ("A40", "x"))
"""Each name stands for nine of the next."""


def encoded(texts: list[str]) -> list[bytes]:
    return [text.encode("utf-8", "surrogateescape") for text in texts]


def made(pattern: str, **rest: Any) -> CustomFormat:
    return CustomFormat(FormatDefinition(pattern=pattern, **rest))


@pytest.mark.parametrize(
    ("definition", "least"),
    [
        (FormatDefinition(WHOLE), 7),
        (FormatDefinition(WHOLE, zone="Europe/Berlin"), 7),
        (FormatDefinition(WHOLE, levels=(("LOUD", "WARN"), ("notice", "DEBUG"))), 8),
        (FormatDefinition(WHOLE, time_format="%Y-%m-%d %H:%M:%S,%f"), 1),
        (FormatDefinition(WHOLE, time_format="none"), 9),
        (FormatDefinition(SOME), 10),
        (
            FormatDefinition("%{OWN}", define=(("OWN", "%{IP:id} %{WORD:type} %{DATA:subject} "),)),
            10,
        ),
    ],
)
def test_the_engine_agrees_with_the_exact_rule(
    make_lake: MakeLake, definition: FormatDefinition, least: int
) -> None:
    """Where SQL decides a line, it says what the exact rule says, and it decides most."""
    form, lines = CustomFormat(definition), encoded(LINES)

    def timed(line: bytes) -> bool:
        return "time" in form.parse(line)

    engine = make_lake().engine()
    assert compare(engine, form, form.QUERY, lines, timed) >= least
    for query in form.cheaper(lines[:1]):
        assert compare(engine, form, query, lines, timed) >= 1


@settings(max_examples=share(60), deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(LINES), st.integers(0, 80), st.characters()), max_size=40)
)
def test_edited_lines_are_read_alike(edits: list[tuple[str, int, str]]) -> None:
    """Lines with a character put in somewhere are read alike in both ways."""
    texts = [f"{text[:at]}{mark}{text[at:]}" for text, at, mark in edits]
    lines = [line.strip() for line in encoded(re.sub(r"[\r\n]", "", t) for t in texts)]  # type: ignore[arg-type]
    form = made(WHOLE)
    compare(ENGINE, form, form.QUERY, lines, lambda line: "time" in form.parse(line))


@pytest.fixture(autouse=True, scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One database for all examples."""
    global ENGINE
    with lakelog.open(str(tmp_path_factory.mktemp("engine") / "lake")) as lake:
        ENGINE = lake.engine()
        with mock.patch.object(pattern, "now", return_value=NOW):
            yield ENGINE


ENGINE: Any = None


def test_groups_go_to_columns_and_to_data() -> None:
    """Names of columns and their other spellings fill columns; numbers keep their text."""
    event = made(WHOLE).parse(LINES[0].encode())
    assert event.pop("time").isoformat() == "2026-01-02T03:04:05.678000+00:00"
    assert event == {
        "type": "log",
        "level": "warn",
        "message": "all well",
        "data": {
            "client": "10.0.0.1",
            "method": "GET",
            "path": "/a?b",
            "status": 200,
            "took": "1.50",
        },
    }


def test_a_pattern_without_message_keeps_the_line() -> None:
    """A pattern may fit anywhere in a line; the line is the message, so that nothing is lost."""
    event = made("%{IP:client} %{WORD:method}").parse(b"from 10.0.0.1 GET /x and more")
    assert event["message"] == "from 10.0.0.1 GET /x and more"
    assert event["data"] == {"client": "10.0.0.1", "method": "GET"}
    assert "time" not in event


def test_a_pattern_with_message_has_to_fit_the_whole_line() -> None:
    """What a pattern with a message leaves of a line would be lost: the line does not fit."""
    form = made("%{WORD:level}: %{WORD:message}")
    assert form.parse(b"  WARN: disk \t") == {"type": "log", "level": "WARN", "message": "disk"}
    with pytest.raises(InvalidEvent, match="fits only a part of the line"):
        form.parse(b"WARN: disk full")
    with pytest.raises(InvalidEvent, match="does not fit the line"):
        form.parse(b"oops")


def test_a_day_and_a_time_in_two_groups_are_one_time() -> None:
    """A group `date` beside one of the time is its day."""
    form = made(r"(?P<date>\S+)\|(?P<time>[\d:.]+)\|%{GREEDYDATA:message}", zone="+02:00")
    event = form.parse(b"2026-01-02|03:04:05.5|x")
    assert event["time"].isoformat() == "2026-01-02T01:04:05.500000+00:00"
    assert "data" not in event


@pytest.mark.parametrize(
    ("written", "text", "wanted"),
    [
        ("%d/%b/%Y:%H:%M:%S %z", "10/Oct/2025:13:55:36 -0700", "2025-10-10T20:55:36+00:00"),
        ("%m/%d/%y %I:%M %p", "1/2/26 3:04 PM", "2026-01-02T15:04:00+00:00"),
        ("%d.%m.%Y %H:%M:%S,%L", "02.01.2026 9:04:05,678", "2026-01-02T09:04:05.678000+00:00"),
        ("%A, %B %e %Y %T %Z", "Friday, January  2 2026 03:04:05 GMT", "2026-01-02T03:04:05+00:00"),
        ("%s", "1767323045", "2026-01-02T03:04:05+00:00"),
        ("%s.%f", "1767323045.25", "2026-01-02T03:04:05.250000+00:00"),
        ("it's %F at %H:%M", "it's 2026-01-02 at 03:04", "2026-01-02T03:04:00+00:00"),
        ("", "Fri, 2 Jan 2026 03:04:05 +0100", "2026-01-02T02:04:05+00:00"),
        ("", "20260102T030405", "2026-01-02T03:04:05+00:00"),
        ("iso", "2026-01-02T03:04Z", "2026-01-02T03:04:00+00:00"),
        ("epoch", "1767323045123", "2026-01-02T03:04:05.123000+00:00"),
    ],
)
def test_times_are_read_as_they_are_written(written: str, text: str, wanted: str) -> None:
    """Directives of strftime, and without them whatever is known by its looks."""
    form = made(r"\[(?P<time>[^\]]*)\]", time_format=written)
    lines = [f"[{text}]".encode()]
    assert form.parse(lines[0])["time"].isoformat() == wanted
    assert compare(ENGINE, form, form.QUERY, lines, lambda _: True) <= 1


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        (FormatDefinition(r"(?P<a>x"), "missing )"),
        (FormatDefinition(r"(?P<a>x)(?=y)"), "looks ahead, which RE2 does not do"),
        (FormatDefinition(r"(?<!y)(?P<a>x)"), "looks behind"),
        (FormatDefinition(r"(?P<a>x)\1"), "invalid escape sequence"),
        (FormatDefinition(r"(?P<a>(?>x))"), "write (?:"),
        (FormatDefinition(r"(?P<a>x)(?P=a)"), "refers back"),
        (FormatDefinition(r"(?P<a>x{5000})"), "invalid repetition size"),
        (FormatDefinition(r"(?P<a>[z-a])"), "invalid character class range"),
        (FormatDefinition("%{IPP:client}"), "no pattern 'IPP': did you mean 'IP'?"),
        (FormatDefinition("%{zzzzzz:client}"), "define it with --define NAME=REGEX"),
        (FormatDefinition("%{A:x}", define=(("A", "%{B}"), ("B", "%{A}"))), "refers to itself"),
        (FormatDefinition("%{A0:x}", define=LAUGHS), "longer than 65,536"),
        (FormatDefinition("%{INT:n:number}"), "no type of group"),
        (FormatDefinition("%{INT:n m}"), "cannot name a group"),
        (
            FormatDefinition("".join(f"(?P<g{n}>x)" for n in range(101))),
            "more than 100 named groups",
        ),
        (FormatDefinition("%{IP} only"), "names no group"),
        (FormatDefinition("(?P<a>x)*"), "matches empty text"),
        (
            FormatDefinition("%{DATA:origin} x"),
            "'origin' has the name of a column that lakelog fills",
        ),
        (FormatDefinition("%{DATA:data} x"), "rename it"),
        (FormatDefinition("%{WORD:time} %{WORD:timestamp}"), "both be the column time"),
        (FormatDefinition("%{WORD:a}", begins="("), "begins '('"),
        (FormatDefinition("%{WORD:a}", continues="(?=x)"), "looks ahead"),
        (FormatDefinition("%{WORD:a}", zone="CET"), "write Europe/Berlin"),
        (FormatDefinition("%{WORD:time}", time_format="%H:%M"), "has to give month, day"),
        (FormatDefinition("%{WORD:time}", time_format="yyyy-MM-dd"), "has to give month, day"),
        (FormatDefinition("%{WORD:time}", time_format="%Q"), "no directive that is known"),
        (FormatDefinition("%{WORD:time}", time_format="%d %e %m %H %M"), "says one thing twice"),
        (FormatDefinition("%{WORD:time}", time_format="%F %I:%M"), "needs %p beside %I"),
        (FormatDefinition("%{WORD:level}", levels=(("x", "LOUD"),)), "choose from TRACE"),
        (FormatDefinition("x" * 30_000), "1 to 20,000 characters"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused_in_one_line(
    definition: FormatDefinition, words: str
) -> None:
    """What is wrong, where, and what to do: before a line is read."""
    with pytest.raises(InvalidSetting) as refused:
        CustomFormat(definition)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text", [r"^(?P<x>(?:a+)+)$", r"^(?P<x>(?:a|a)*b)$", "(?P<x>(?:.*,){30}P)"]
)
def test_no_pattern_hangs(make_lake: MakeLake, text: str) -> None:
    """Patterns that take Python for ever (then this test ends at its timeout) are easy for RE2."""
    form = made(text)
    line = b"a" * 5000 + b"," * 5000
    found = Transformer(make_lake().engine, form, "o").run(Chunk((line + b"\n") * 600, 0))
    assert len(found.bad) == 600


def test_what_is_written_out_is_read_again() -> None:
    """The name of a format in a cursor holds all of it."""
    mine = FormatDefinition(
        WHOLE,
        begins="%{IP}",
        continues=r"\s",
        time_format="%F %T",
        zone="Europe/Berlin",
        levels=(("LOUD", "WARN"),),
        define=(("X", "y"),),
        name="mine",
    )
    assert FormatDefinition.of_name(mine.spelled()) == mine
    assert FORMATS.by_name(mine.spelled()).definition == mine
    assert FORMATS.by_name(mine.spelled()) is FORMATS.by_name(mine.spelled())
    assert FormatDefinition(zone="UTC", begins="x").over(mine).zone == "UTC"
    for broken in ("pattern:{", "pattern:[]", "pattern:"):
        with pytest.raises(InvalidSetting, match="is not a format"):
            FORMATS.by_name(broken)


def test_every_standard_pattern_compiles() -> None:
    """RE2 takes each of them, and none fits more than it should on its own."""
    for name in grok.built_in():
        expansion = grok.expand(f"(?P<all>%{{{name}}})")
        assert "g1" in expansion.regex
        re2.check(expansion.regex, "pattern", name)


@pytest.mark.parametrize(
    ("name", "fits", "fits_not"),
    [
        (
            "IP",
            ["1.2.3.4", "255.255.255.255", "::1", "2001:db8::8a2e:370:7334", "::ffff:1.2.3.4"],
            ["1.2.3", "256.1.1.1", "abc"],
        ),
        ("NUMBER", ["1", "-1.5", "+2", ".5"], ["", "x", "1."]),
        ("HOSTNAME", ["localhost", "a-b.example.com"], ["-", ""]),
        (
            "TIMESTAMP_ISO8601",
            ["2026-01-02T03:04:05.678Z", "2026-01-02 03:04:05,1 +02:00"],
            ["2026"],
        ),
        ("HTTPDATE", ["10/Oct/2025:13:55:36 -0700"], ["10/10/2025:13:55:36"]),
        ("SYSLOGTIMESTAMP", ["Nov  3 04:05:06", "Jan 12 04:05:06.123"], ["Foo 1 04:05:06"]),
        ("QS", ['"a \\" b"', "'x'"], ['"a', "a"]),
        ("URI", ["https://u:p@h.example:8080/a/b?c=d#e", "ftp://1.2.3.4/"], ["/a/b"]),
        ("UNIXPATH", ["/var/log/a-b.log"], ["var"]),
        ("UUID", ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567"]),
        ("LOGLEVEL", ["INFO", "Warning", "err"], ["loud"]),
        ("MAC", ["00:1A:2b:3c:4d:5e", "00-1a-2b-3c-4d-5e", "001a.2b3c.4d5e"], ["00:1a"]),
        ("MONTHDAY", ["1", "09", "31"], ["0", "32"]),
        ("JAVACLASS", ["org.a.B$C", "Main"], ["1a"]),
    ],
)
def test_standard_patterns_mean_what_they_say(
    name: str, fits: list[str], fits_not: list[str]
) -> None:
    """Texts that a pattern names fit it whole, others do not."""
    regex = f"^(?:{re.sub(r'[(][?]P<g[0-9]+>', '(?:', grok.expand(f'%{{{name}}}').regex)})$"
    assert [text for text in fits if not re2.matches(regex, text)] == []
    assert [text for text in fits_not if re2.matches(regex, text)] == []


def test_known_layouts_are_read_by_their_names() -> None:
    """COMBINEDAPACHELOG and SYSLOGLINE give the fields that are documented for them."""
    line = b'1.2.3.4 - bob [10/Oct/2025:13:55:36 -0700] "GET /a HTTP/1.1" 200 5 "-" "curl/8"'
    event = made("%{COMBINEDAPACHELOG}").parse(line)
    assert event["time"].isoformat() == "2025-10-10T20:55:36+00:00"
    assert event["data"] == {
        "clientip": "1.2.3.4",
        "ident": None,
        "auth": "bob",
        "verb": "GET",
        "request": "/a",
        "httpversion": "1.1",
        "rawrequest": None,
        "response": 200,
        "bytes": 5,
        "referrer": '"-"',
        "agent": '"curl/8"',
    }
    event = made("%{SYSLOGLINE}").parse(b"Nov  3 04:05:06 web1 sshd[42]: Accepted")
    assert (event["message"], event["data"]["program"], event["data"]["pid"]) == (
        "Accepted",
        "sshd",
        42,
    )


def test_lines_of_a_record_are_told_by_a_rule(make_lake: MakeLake) -> None:
    """begins, continues, or both say which lines belong together; blank ones go on."""
    data = b"A one\n  at x\n\n  at y\nB two\n- three\nA four\n"
    for rules, wanted in (
        ({"begins": "[A-Z] "}, ["one\n  at x\n\n  at y", "two\n- three", "four"]),
        ({"continues": r"\s|-"}, ["one\n  at x\n\n  at y", "two\n- three", "four"]),
        ({"begins": ".", "continues": r"\s"}, ["one\n  at x\n\n  at y", "two", "four"]),
    ):
        form = made("%{WORD:level} %{GREEDYDATA:message}", **rules)
        found = Transformer(make_lake().engine, form, "o").run(Chunk(data, 0), final=True)
        assert found.table["message"].to_pylist() == wanted
        many = Transformer(make_lake().engine, form, "o").run(Chunk(data * 300, 0), final=True)
        assert many.table["message"].to_pylist() == wanted * 300


def test_moments_are_named_once() -> None:
    """Each way to write a time is regex that Python and RE2 read alike."""
    for way in moments.moments(""):
        assert len(set(way.names)) == len(way.names)
        re2.check(way.regex, "time", way.regex)
