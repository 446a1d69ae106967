"""Formats of text: both ways of reading a line agree, whatever is done to it."""

from __future__ import annotations

import codecs
import contextlib
import datetime as dt
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.errors import InvalidEvent
from lakelog.formats import access, logfmt, pattern, styles
from lakelog.formats.registry import FORMATS
from lakelog.ingest import records, transform
from lakelog.ingest.transform import Transformer
from lakelog.lines.pieces import Chunk
from lakelog.values import parse_time
from tests.support.effort import share
from tests.support.linear_time import assert_linear
from tests.support.samples import lines_of
from tests.support.text_lines import begins_record, edited, has_time, rows_of
from tests.support.two_ways import NOW, compare, decided

FORMS = [access.FORM, styles.SYSLOG, logfmt.FORM, styles.APPLOG]
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.NAME)


@pytest.fixture(autouse=True)
def still() -> Iterator[None]:
    """The clock of the exact rule shows what the queries are given."""
    with mock.patch.object(pattern, "now", return_value=NOW):
        yield


# --- the two ways ---------------------------------------------------------------------------------


@pytest.mark.matrix
@each_form
@settings(max_examples=share(80))
@given(data=st.data())
def test_text_by_sql_is_that_of_the_exact_rule(engine: Any, form: Any, data: Any) -> None:
    """Whatever the query of a format of text decides, it decides as the exact rule does."""
    lines = data.draw(st.lists(edited(lines_of(form.NAME)), min_size=8, max_size=24))
    compare(engine, form, form.QUERY, lines, has_time(form))


@pytest.mark.matrix
@each_form
@settings(max_examples=share(60))
@given(data=st.data())
def test_bytes_of_any_kind_are_stored_or_quarantined(engine: Any, form: Any, data: Any) -> None:
    """However bytes of real lines are changed, each line gives one row or one bad line."""
    raw = b"\n".join(line.encode() for line in lines_of(form.NAME)) + b"\n"
    _take_spoilt(engine, form, raw, data)


def _take_spoilt(engine: Any, form: Any, raw: bytes, data: Any) -> None:
    spoilt = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 30))):
        at = data.draw(st.integers(0, len(spoilt) - 1))
        piece = data.draw(
            st.binary(max_size=2) | st.sampled_from([b"\n", b"\xff", b"\xef\xbb\xbf"])
        )
        spoilt[at : at + data.draw(st.integers(0, 2))] = piece
    text = bytes(spoilt) + b"\n"
    with mock.patch.object(transform, "FEW", data.draw(st.sampled_from([0, 1000]))):
        made = Transformer(lambda: engine, form, "o").run(Chunk(text, 0), final=True)
    found = made.table["position"].to_pylist() if made.table is not None else []
    bad = [b.position for b in made.bad]
    lines = [line + b"\n" for line in text.split(b"\n")[:-1]]
    for at in range(len(lines) - 1, 0, -1):
        if not begins_record(form, lines[at]):
            lines[at - 1 : at + 1] = [lines[at - 1] + lines[at]]
    places = list(itertools.accumulate(map(len, lines), initial=0))
    full = [
        at
        for at, line in zip(places, lines, strict=False)
        if line.strip().removeprefix(codecs.BOM_UTF8)
    ]
    assert sorted(found + bad) == full
    assert found == sorted(found)


@pytest.mark.matrix
@each_form
def test_no_line_takes_long(form: Any) -> None:
    """However a line of 20 kB goes on after a good beginning, the time grows with its length."""

    def parse(line: str) -> None:
        with contextlib.suppress(InvalidEvent):
            form.parse(line.encode())

    signs = [
        " ",
        "$",
        "[",
        '"',
        "\\",
        "a.",
        "a.b",
        " (",
        " (a",
        ":a@",
        ":a",
        "=",
        "?",
        " HTTP/",
        ":",
    ]
    signs += [
        "] [",
        "a=",
        'a="',
        " a=1",
        " - ",
        "[a]",
        "?a ",
        '\\"',
        "-",
        "0",
        " 0",
        "\t",
        "a$.",
        "::",
    ]
    for seed, sign in itertools.product(lines_of(form.NAME), signs):
        for part in (1, 2, 3):
            for end in ("", "\0"):
                assert_linear(parse, seed[: len(seed) * part // 3], sign, end)


@pytest.mark.parametrize(
    ("form", "begin"),
    [
        (styles.SYSLOG, "Mar 12 10:00:01 web app[12]: [2024-03-12 10:00:00 +0000"),
        (styles.APPLOG, "2022-12-29 11:39:26.009756|ERROR   |Quer"),
    ],
)
def test_blanks_take_no_longer_than_other_text(form: Any, begin: str) -> None:
    """Behind a time within a line, and where a name ends at a mark."""

    def parse(line: str) -> None:
        with contextlib.suppress(InvalidEvent):
            form.parse(line.encode())

    assert_linear(parse, begin, " ", "\0")


# --- what lines mean ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("severity", "level"),
    list(enumerate(["FATAL", "FATAL", "FATAL", "ERROR", "WARN", "INFO", "INFO", "DEBUG"])),
)
def test_the_priority_of_a_syslog_line_is_its_level(engine: Any, severity: int, level: str) -> None:
    """Its severity is the level, whatever its facility, in both RFCs."""
    rests = ("1 2024-05-01T10:00:00+02:00 h a 1 m - x", "Jan  1 10:00:00 h a[1]: x")
    given = [(facility * 8 + severity, rest) for facility in (0, 4, 23) for rest in rests]
    every = rows_of(engine, styles.SYSLOG, [f"<{pri}>{rest}" for pri, rest in given])
    for (pri, _), found in zip(given, every, strict=True):
        assert (found["level"], found["source"], found["message"]) == (level, "a", "x")
        assert (found["data"]["pri"], found["data"]["procid"]) == (pri, "1")


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("today", "date", "year"),
    [
        ("2026-01-01", "Jan  1 23:00:00", 2026),
        ("2026-01-01", "Jan  2 00:00:00", 2026),
        ("2026-01-01", "Jan  2 00:00:01", 2025),
        ("2026-01-01", "Dec 31 23:59:59", 2025),
        ("2025-12-31T12", "Jan  1 11:00:00", 2026),
        ("2025-12-31T12", "Jan  1 12:00:01", 2025),
        ("2025-12-31T12", "Dec 31 13:00:00", 2025),
        ("2025-06-01", "Feb 29 10:00:00", 2024),
        ("2024-02-28T12", "Feb 29 11:00:00", 2024),
        ("2023-12-31T12", "Feb 29 11:00:00", 2020),
        ("1903-03-01", "Feb 29 11:00:00", 1896),
        ("2026-01-01", "Jan  2 00:00:00.5", 2025),
    ],
)
def test_a_date_without_a_year(engine: Any, today: str, date: str, year: int) -> None:
    """It is in the latest year in which it is not more than a day ahead of the ingest."""
    now = dt.datetime.fromisoformat(today).replace(tzinfo=dt.UTC)
    line = f"{date} host app: text".encode()
    with mock.patch.object(pattern, "now", return_value=now):
        assert parse_time(styles.SYSLOG.parse(line)["time"]).year == year
    with mock.patch("tests.support.two_ways.NOW", now):
        for found in decided(engine, styles.SYSLOG, styles.SYSLOG.QUERY, [line]).values():
            assert found["time"].year == year


LEVELS = {
    "pattern": ("2024-05-01 10:00:00 {} x\n", ("WARNING", "critical", "notice", "INFO", "info")),
    "letters": ("I0102 10:00:00.123456 12 a.go:1] m\n{}0102 10:00:00.5 12 a.go:1] m\n", "EWF"),
    "logfmt": ("ts=2024-05-01T10:00:00Z severity={} msg=x a=1\n", ("warning", "Err", "info")),
    "csv": ("time,Severity,n\n2024-05-01T10:00:00Z,{},1.50\n", ("Informational", "info")),
    "jsonl": ('{{"time":"2024-05-01T10:00:00Z","level":"{}","n":1}}\n', ("Informational", "info")),
    "spaced": ('{{"level": "{}", "@timestamp": "2024-05-01"}}\n', ("crit", "Fatal")),
    "typed": ('{{"type":"a","level":"{}","data":{{"n":1}}}}\n', ("warning", "WARN")),
    "taken": ('{{"type":"a","level":"{}","data":{{"level":1}}}}\n', ("warning",)),
    "text": ('{{"type":"a","level":"{}","data":"x"}}\n', ("warning",)),
}
KEPT = {"INFO": None, "info": None, "Fatal": None, "WARN": None}


@pytest.mark.matrix
@pytest.mark.parametrize("few", [0, 500])
@pytest.mark.parametrize("name", LEVELS)
def test_the_word_for_a_level_stays_beside_its_severity(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, few: int
) -> None:
    """It is `level` in the payload where it is another word, unless that has a level itself."""
    monkeypatch.setattr(transform, "FEW", few)
    line, words = LEVELS[name]
    for number, word in enumerate(words):
        path = tmp_path / f"{number}.{'csv' if name == 'csv' else 'log'}"
        path.write_text(line.format(word))
        assert lake.ingest(str(path)).quarantined == 0
        [(level, data)] = lake.sql(
            "SELECT level, data FROM events ORDER BY ingested_at DESC, position DESC LIMIT 1"
        ).fetchall()
        assert level in ("INFO", "WARN", "ERROR", "FATAL")
        found = json.loads(data or "{}")
        if name in ("taken", "text"):
            assert found == ({"level": 1} if name == "taken" else "x")
        else:
            assert found.get("level") == KEPT.get(word, word)


def test_number_texts_and_microseconds_stay_as_they_are(lake: lakelog.Lake, tmp_path: Path) -> None:
    """What a number would lose stays text; the time of Blue Gene has its microseconds."""
    (tmp_path / "t.csv").write_text(
        "time,a,b\n2024-05-01T10:00:00.000001Z,1.50,0.000002701\n2024-05-01T10:00:01Z,007,1e5\n"
    )
    (tmp_path / "bgl.log").write_text(
        "- 1117838570 2005.06.03 R02-M1-N0-C:J12-U11 2005-06-03-15.42.50.363779 R02 RAS KERNEL INFO"
        " instruction cache parity error corrected\n"
    )
    for name in ("t.csv", "bgl.log"):
        assert lake.ingest(str(tmp_path / name)).quarantined == 0
    query = "SELECT epoch_us(time) % 1000000, data FROM events ORDER BY time DESC"
    assert [(us, json.loads(data)) for us, data in lake.sql(query).fetchall()][:2] == [
        (0, {"a": "007", "b": "1e5"}),
        (1, {"a": "1.50", "b": "0.000002701"}),
    ]
    assert lake.sql(query).fetchall()[2][0] == 363779


TRACE = (
    "2024-01-02 03:04:05,678 - a.b - ERROR - failed\nTraceback (most recent call last):\n"
    '  File "x.py", line 1, in <module>\n\nValueError: 2024\n'
)
NEXT = "2024-01-02 03:04:06,000 - a.b - INFO - on it goes\n"


@pytest.mark.parametrize("few", [0, 1000])
def test_a_stack_trace_is_one_event(engine: Any, few: int) -> None:
    """Lines without a time go behind the message before them, however lines are decided."""
    text = (TRACE + NEXT + NEXT).encode()
    with mock.patch.object(transform, "FEW", few):
        made = Transformer(lambda: engine, styles.APPLOG, "o").run(Chunk(text, 0), final=True)
    assert made.table["message"].to_pylist() == [
        "failed\n" + TRACE.partition("\n")[2].rstrip(),
        "on it goes",
        "on it goes",
    ]
    assert made.table["position"].to_pylist() == [0, len(TRACE), len(TRACE + NEXT)]
    assert not made.bad


@pytest.mark.parametrize(
    ("mode", "final", "open_end", "taken"),
    [
        ("once", False, False, 2),
        ("once", True, False, 3),
        ("once", False, True, 3),
        ("follow", False, False, 2),
        ("follow", False, True, 2),
        ("settled", True, False, 3),
        ("settled", True, True, 2),
        ("last", True, True, 3),
    ],
)
def test_a_record_that_may_go_on_is_held_back(
    engine: Any, mode: str, final: bool, open_end: bool, taken: int
) -> None:
    """The last record waits for its end where more may come."""
    parts = [NEXT, TRACE, TRACE[:-1] if open_end else TRACE]
    chunk = Chunk("".join(parts).encode(), 100, open_end)
    made = Transformer(lambda: engine, styles.APPLOG, "o", mode=mode).run(chunk, final=final)
    assert made.table.num_rows == taken
    assert made.length == len("".join(parts[:taken]))


def test_what_continues_nothing_is_quarantined_as_one(engine: Any) -> None:
    """Lines at a file's beginning that belong to a record before it are kept together."""
    text = ("\tat a.b\n\tat c.d\n" + NEXT).encode()
    made = Transformer(lambda: engine, styles.APPLOG, "o").run(Chunk(text, 0), final=True)
    assert [(b.position, b.reason) for b in made.bad] == [(0, "a line that continues another")]
    assert made.bad[0].line == "\tat a.b\n\tat c.d"
    assert made.table["position"].to_pylist() == [16]


def test_a_record_without_end_is_cut_into_lines(engine: Any) -> None:
    """Lines that would make an endless record stand for themselves; the first one is an event."""
    text = (NEXT + "and more of it\n" * 80_000).encode()
    made = Transformer(lambda: engine, styles.APPLOG, "o", mode="follow").run(Chunk(text, 0))
    assert made.table["message"].to_pylist() == ["on it goes"]
    assert len(made.bad) == 80_000 - 1
    assert made.length == len(text) - len("and more of it\n")


# --- telling formats apart ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (lines_of("applog")[0] + "\n\tat a.b\n\tat c.d\n", "applog"),
        ("just text\n", "plain"),
        ("a=1 b=2\n", "plain"),
        ("key=value\n", "plain"),
        ("", "jsonl"),
        ("2024-01-02\n", "plain"),
        ('{"time":"2024-01-02 03:04:05","msg":"x"}\n2024-01-02 03:04:05 INFO x: y\n', "jsonl"),
        ('{"a":"b=c time=5"}\n', "jsonl"),
        ('{"index":{}}\n{"ts":5}\n', "bulk"),
        ("2026-05-01T12:00:00|A|||x|{}\n", "oos"),
        ("2026-05-01 12:00:00|INFO|b|c|d|\n", "oos"),
        ("type=SYSCALL msg=audit(1684329817.579:2995): arch=c000003e\n", "auditd"),
    ],
)
def test_text_is_told_from_json_and_from_other_text(lines: str, name: str) -> None:
    """The surest format is the right one; what is nothing known is plain text."""
    assert name == FORMATS.detect(lines.encode(), lines.encode(), "x.log").NAME


@settings(max_examples=share(60))
@example(events=[{"ts": "2024-05-01 10:00:00 INFO a: b", "x=1 time=5": "<34>1 "}])
@given(events=st.lists(st.dictionaries(st.text(), st.text() | st.integers()), min_size=1))
def test_json_is_never_taken_for_text(events: list[dict[str, Any]]) -> None:
    """No format of text is sure of JSON lines, nor the formats of JSON of lines of text."""
    lines = [json.dumps(event).encode() for event in events]
    assert [form.sniff(lines) for form in FORMS] == [0.0] * len(FORMS)
    for form in FORMS:
        text = [line.encode() for line in lines_of(form.NAME)]
        assert form.sniff(text) > 0.3
        assert [FORMATS[n].sniff(text) for n in ("jsonl", "oos", "bulk")] == [0.0] * 3


@pytest.mark.parametrize(
    ("form", "cut"),
    [(access.FORM, True), (logfmt.FORM, True), (styles.SYSLOG, False), (styles.APPLOG, False)],
)
def test_a_last_line_that_ends_in_digits(form: Any, cut: bool) -> None:
    """More digits may follow a number, but nothing is known of the end of a message."""
    lines = {"access": 0, "syslog": 4, "logfmt": 0, "applog": 1}
    text = lines_of(form.NAME)[lines[form.NAME]].encode()
    end = b"" if form in (access.FORM, logfmt.FORM) else b" 22"
    assert records.is_cut(text + end, form) is cut
