"""Formats whose columns a header names: CSV, Zeek and W3C, by SQL and by the exact rule."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.audit.audit import audit
from lakelog.formats import delimited, w3c, zeek
from lakelog.formats.registry import FORMATS
from lakelog.ingest import transform
from tests.support.effort import share
from tests.support.requirements import need
from tests.support.table_heads import HEADS, W3C, ZEEK, made
from tests.support.text_facts import FACTS, SHARED, events


@st.composite
def tables(draw: st.DrawFn, name: str) -> bytes:
    """A header and lines of cells, most as many as it names; further headers between them."""
    _, header, cells, mark = HEADS[name]
    width = len(header.rstrip("\n").split("\n")[-1 if name != "zeek" else -2].split(mark))
    width -= name in ("zeek", "w3c")
    text = header
    for _ in range(draw(st.integers(1, 12))):
        count = draw(st.sampled_from([width, width, width, width, width - 1, width + 1]))
        row = [
            draw(st.sampled_from(cells) | st.sampled_from(cells) | st.text(max_size=4))
            for _ in range(count)
        ]
        if draw(st.integers(0, 3)) and name != "csv":
            row[:2] = cells[:2]
        text += mark.join(row) + draw(st.sampled_from(["\n", "\n", "\n", "\r\n", "\n\n"]))
        if draw(st.integers(0, 9)) == 0:
            text += header
    return text.encode("utf-8", "replace") + b"\n"


@pytest.mark.parametrize("name", HEADS)
@settings(max_examples=share(60))
@given(data=st.data())
def test_tables_by_sql_are_those_of_the_exact_rule(engine: Any, name: str, data: Any) -> None:
    """Whatever the cells hold, both ways give the same rows and the same bad lines."""
    text = data.draw(tables(name))
    form = HEADS[name][0].specialize(text)
    assert made(engine, form, text, 0) == made(engine, form, text, 10_000)


def test_a_plain_table_is_decided_by_sql(engine: Any) -> None:
    """No line of such tables is left to be decided one by one."""
    for text in (
        ZEEK + "1588205198.8\tC1\t5\tT\ta,b\t1.5\tx\n" * 3,
        W3C + '2024-05-01 10:00:01 1.2.3.4 /x 404 "a b"\n' * 3,
        'time,level,message\n2024-05-01,info,"a, ""b""\nc"\n2024-05-01,warn,x\n',
    ):
        form = FORMATS.specialize(FORMATS.detect(text.encode(), b"", "x"), text.encode())
        with mock.patch.object(form, "parse", return_value=[]):
            rows, bad = made(engine, form, text.encode(), 0)
        assert len(rows) in (2, 3)
        assert not bad


def test_a_zeek_log(lake: lakelog.Lake) -> None:
    """Types are those of JSON, unset is null, empty is empty; the path is the type."""
    name = "lnav/logfile_bro_http.log.0"
    need("../shared")
    report = lake.ingest(str(SHARED / name))
    assert (report.events, report.quarantined) == (FACTS[name]["data_rows"], 0)
    assert report.files[0].format == "zeek"
    first = events(lake)[0]
    assert first["type"] == "http"
    assert first["time"] == dt.datetime(2011, 11, 3, 0, 19, 26, 452687, tzinfo=dt.UTC)
    data = first["data"]
    assert (data["id.resp_p"], data["status_code"], data["version"]) == (80, 200, "1.1")
    assert (data["tags"], data["referrer"], data["resp_fuids"]) == ([], None, ["Ftw3fJ2JJF3ntMTL2"])
    assert set(data) == set(FACTS[name]["fields"]) - {"ts", "uid"}


def test_a_header_that_changes_is_followed(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Lines behind a new header have its columns and its day; the same header changes nothing."""
    text = (
        "#Version: 1.0\n#Date: 2024-05-01\n#Fields: time c-ip\n10:00:00 a\n"
        "#Date: 2024-05-02\n#Fields: time c-ip\n10:00:00 b\n11:00:00 c\n"
        "#Version: 1.0\n#Date: 2024-05-02\n#Fields: time c-ip sc-status\n12:00:00 d 503\n"
    )
    (tmp_path / "ex.log").write_text(text)
    report = lake.ingest(str(tmp_path / "ex.log"))
    assert (report.events, report.quarantined) == (4, 0)
    found = events(lake)
    assert [f"{e['time']:%d %H}" for e in found] == ["01 10", "02 10", "02 11", "02 12"]
    assert [e["data"].get("c-ip") for e in found] == ["a", "b", "c", "d"]
    assert (found[3]["level"], found[3]["data"]["sc-status"]) == ("ERROR", 503)


def test_an_iis_log_with_days_of_its_own(lake: lakelog.Lake) -> None:
    """The day of lines with only a time is that of the newest #Date before them."""
    name = "lnav/logfile_w3c.2"
    need("../shared")
    report = lake.ingest(str(SHARED / name))
    assert (report.events, report.quarantined) == (FACTS[name]["data_rows"], 0)
    days = [event["time"].day for event in events(lake)]
    assert days == [9] * 11 + [10] * 3


@pytest.mark.parametrize("form", [w3c.FORM, zeek.FORM])
def test_a_later_header_that_is_no_text_stops_nothing(engine: Any, form: Any) -> None:
    """Bytes that are no UTF-8 in a header further down are quarantined with its lines."""
    header = b"#Fields: a b\n" if form is w3c.FORM else b"#fields\ta\tb\n"
    text = (
        header + b"1\t2\n#\xff\n" + header.replace(b"b", b"\xff") + b"3\t4\n" + header + b"5\t6\n"
    )
    fitted = FORMATS.specialize(form, text)
    for few in (0, 10_000):
        rows, bad = made(engine, fitted, text, few)
        assert [[value for _, value in row["data"]] for row in rows.values()] == [[*"12"], [*"56"]]
        assert bad == [len(header) + 4]


def test_several_spaces_divide_cells_as_one_does(engine: Any) -> None:
    """As Exchange writes some lines of IIS; a line with a cell too many is still refused."""
    text = b'#Fields: a b c\n1  2 3\n1 2   "x  y"\n1 2  3 4\n1  3\n'
    form = FORMATS.specialize(w3c.FORM, text)
    for few in (0, 10_000):
        rows, bad = made(engine, form, text, few)
        cells = [[value for _, value in row["data"]] for row in rows.values()]
        assert cells == [["1", "2", "3"], ["1", "2", "x  y"], ["1", None, "3"]]
        assert bad == [text.index(b"1 2  3 4")]


@pytest.mark.parametrize("name", ["w3c", "zeek"])
def test_a_table_may_begin_with_a_byte_order_mark(engine: Any, name: str) -> None:
    """A mark before the header changes nothing, however few the lines are."""
    header = "#Fields: a b\n" if name == "w3c" else "#fields\ta\tb\n"
    text = ("\ufeff" + header + "1\t2\n3\t4\n").encode()
    form = FORMATS.specialize(FORMATS[name], text)
    for few in (0, 10_000):
        rows, bad = made(engine, form, text, few)
        assert [[value for _, value in row["data"]] for row in rows.values()] == [[*"12"], [*"34"]]
        assert not bad


def test_a_separator_that_is_nothing(engine: Any) -> None:
    """A header that names no separator of sets means a comma."""
    text = ZEEK.replace("#set_separator\t,", "#set_separator\t").encode()
    text += b"1588205198.8\tC1\t5\tT\ta,b\t1.5\tx\n"
    form = zeek.FORM.specialize(text)
    assert made(engine, form, text, 0) == made(engine, form, text, 10_000)
    (row,) = made(engine, form, text, 0)[0].values()
    assert ("tags", ["a", "b"]) in row["data"]


@pytest.mark.matrix
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_a_character_cut_off_is_quarantined(engine: Any, form: Any) -> None:
    """A line that ends amid a character stops nothing; the exact rule says what is wrong."""
    text = "é 1\n".encode() + b"2026-05-01 12:00:00 \xc3\n" * 9 + b"\xff\n\xc7"
    rows, bad = made(engine, FORMATS.specialize(form, text), text, 0)
    assert bad or rows


def test_what_grows_behind_a_new_header_is_audited(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Lines behind a header that says something else are each in their place, whenever taken."""
    path, text = tmp_path / "ex.log", "#Version: 1.0\n#Fields: a b\n1 2\n#Fields: a c\n"
    for more in ("3 4\n5 6\n", "7 8\n", "#Fields: a b\n9 0\n"):
        text += more
        path.write_text(text)
        lake.ingest(str(path))
    found = events(lake)
    assert [list(e["data"].values()) for e in found] == [
        [*"12"],
        [*"34"],
        [*"56"],
        [*"78"],
        [*"90"],
    ]
    assert list(found[1]["data"]) == ["a", "c"]
    assert [f.wrong for f in audit(lake.store, lake.branch_name, lake.engine, []).files] == [0]


def test_what_a_csv_record_is(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Newlines in quotes belong to the record; a header or other numbers of cells make no event."""
    text = (
        'time;level;message;size;source\r\n2024-05-01 10:00:00;warning;"two\nlines; ""x""";5;a\r\n'
        "2024-05-01 10:00:01;info;short\r\n2024-05-01 10:00:02;info;;0.50;b\r\n"
    )
    (tmp_path / "t.csv").write_bytes(text.encode())
    report = lake.ingest(str(tmp_path / "t.csv"))
    assert (report.events, report.quarantined) == (2, 1)
    assert report.files[0].format == "csv"
    found = events(lake)
    assert (found[0]["level"], found[0]["message"]) == ("WARN", 'two\nlines; "x"')
    assert (found[0]["source"], found[0]["data"]) == ("a", {"size": 5, "level": "warning"})
    assert (found[1]["message"], found[1]["data"]) == (None, {"size": "0.50"})
    ((reason, line),) = lake.sql("SELECT reason, line FROM quarantine").fetchall()
    assert reason == "3 fields, but the header has 5"
    assert line == "2024-05-01 10:00:01;info;short"


@pytest.mark.parametrize("count", [1, 1500])
@pytest.mark.parametrize(
    ("header", "row", "level", "data"),
    [
        (
            "date,time,level,message",
            "2024-05-01,10:00:00.5,warning,x",
            "WARN",
            {"level": "warning"},
        ),
        ("Time,Level,Message", "2024-05-01 10:00:00.5,Error,x", "ERROR", None),
        (
            "Event DateTime;Severity;Message;Port",
            "2024-05-01T12:00:00.500+02:00;info;x;80",
            "INFO",
            {"Port": 80},
        ),
        ("Message,Date,Time", "x,2024-05-01,10:00:00.5", None, None),
        ("time,message,Timestamp", "10:00:00,x,1714557600.5", None, {"time": "10:00:00"}),
        ("Timestamp,Message", "5/1/2024 10:00:00.5 AM,x", None, None),
        ("Created At;Message", "01.05.2024 12:00:00,5 +0200;x", None, None),
        ("timestamp,message", "01/May/2024:10:00:00.5 +0000,x", None, None),
        ("Date,Time,Message", "5/1/2024,10:00:00.5 AM,x", None, None),
    ],
)
def test_where_tables_have_their_times(
    lake: lakelog.Lake, tmp_path: Path, header: str, row: str, level: str, data: Any, count: int
) -> None:
    """A time may stand in two columns or in one of another name, by what the first rows hold."""
    path = tmp_path / "t.csv"
    path.write_text("\n".join([header, *[row] * count, ""]))
    report = lake.ingest(str(path))
    assert (report.events, report.quarantined) == (count, 0)
    query = "SELECT DISTINCT time, level, message, data::VARCHAR FROM events"
    [(time, grade, message, payload)] = lake.sql(query).fetchall()
    assert time == dt.datetime(2024, 5, 1, 10, 0, 0, 500_000, tzinfo=dt.UTC)
    assert (grade, message, json.loads(payload or "null")) == (level, "x", data)


@pytest.mark.parametrize("few", [0, 10_000])
def test_rows_say_in_which_order_days_and_months_stand(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """A day above 12 in the first rows counts for all of them."""
    monkeypatch.setattr(transform, "FEW", few)
    path = tmp_path / "t.csv"
    path.write_text("Timestamp,x\n05/01/2024 21:05,1\n15/01/2024 09:05,2\n06/01/2024 21:05,3\n")
    assert lake.ingest(str(path)).arrivals == 0
    rows = lake.sql("SELECT DISTINCT month(time), day(time) FROM events ORDER BY ALL").fetchall()
    assert rows == [(1, 5), (1, 6), (1, 15)]


def test_the_event_viewer_of_windows_names_no_messages(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Its header has a name less than its rows have cells."""
    path = tmp_path / "t.csv"
    path.write_text(
        "\ufeffLevel,Date and Time,Source,Event ID,Task Category\r\n"
        'Information,11/24/2026 10:00:01 AM,Auditing,4624,Logon,"on\r\n\r\nSubject:\tada"\r\n'
        "Error,11/24/2026 10:00:02 PM,Service,7000,None,no start\r\n"
    )
    report = lake.ingest(str(path))
    assert (report.events, report.quarantined, report.arrivals) == (2, 0, 0)
    query = "SELECT hour(time), level, source, message FROM events ORDER BY time"
    assert lake.sql(query).fetchall() == [
        (10, "INFO", "Auditing", "on\r\n\r\nSubject:\tada"),
        (22, "ERROR", "Service", "no start"),
    ]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("Time,x", "0.5,1"),
        ("time,x", "06:55:46,1"),
        ("Date,Time,x", "Dec,06:55:46,1"),
        ("date,time,x", "081109,203615,1"),
        ("Date,x", "17/06/09,1"),
        ("date,time,x", "5/1/2024,12.5,1"),
    ],
)
def test_what_is_no_time_stays_data(
    lake: lakelog.Lake, tmp_path: Path, header: str, row: str
) -> None:
    """Rows whose columns look like a time by name only are events with the time of ingest."""
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\n{row}\n{row}\n")
    report = lake.ingest(str(path))
    assert (report.events, report.quarantined) == (2, 0)
    assert set(events(lake)[0]["data"]) == set(header.split(","))
    query = "SELECT count(*) FROM events WHERE ingested_at - time < INTERVAL 1 HOUR"
    assert lake.sql(query).fetchall() == [(2,)]


def test_a_header_alone_is_no_event(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A table whose first row comes later is a table from the beginning."""
    path = tmp_path / "t.csv"
    path.write_text("time,message\n")
    assert lake.ingest(str(path)).events == 0
    path.write_text("time,message\n2024-05-01,x\n")
    assert lake.ingest(str(path)).events == 1
    assert lake.ingest(str(path)).events == 0
    assert events(lake)[0]["message"] == "x"


@pytest.mark.matrix
@pytest.mark.parametrize("cut", range(1, 60, 7))
@pytest.mark.parametrize("name", ["zeek", "w3c", "csv"])
def test_tables_that_grow_are_audited(
    lake: lakelog.Lake, tmp_path: Path, name: str, cut: int
) -> None:
    """Taken in wherever it was cut, each record is there once, and an audit says so."""
    rows = {
        "zeek": "1588205198.8\tC1\t5\tT\ta,b\t1.5\tx\n",
        "csv": '2024-05-01,info,"a\nb",1,,\n',
        "w3c": "2024-05-01 10:00:01 1.2.3.4 /x 404 x\n",
    }
    text = HEADS[name][1] + rows[name] * 4
    at = len(HEADS[name][1]) + cut
    path = tmp_path / ("grows.csv" if name == "csv" else "grows.log")
    path.write_text(text[:at])
    lake.ingest(str(path))
    path.write_text(text)
    lake.ingest(str(path))
    ((count,),) = lake.sql("SELECT count(*) FROM events").fetchall()
    assert count == 4
    found = audit(lake.store, lake.branch_name, lake.engine, [])
    assert [file.wrong for file in found.files] == [0]


@example(words="Dear Sir, thank you,\nyours, me\nnone\nx\n")
@given(words=st.text(st.sampled_from("ab ,.\n;"), max_size=60))
@settings(max_examples=share(60))
def test_prose_is_no_table(words: str) -> None:
    """Text with commas in it is not taken for a table unless it looks like one throughout."""
    lines = words.encode().split(b"\n")
    sure = delimited.FORM.sniff(lines)
    full = [line for line in lines if line.strip()]
    assert not sure or delimited.is_header(full[0].decode())
    assert json.dumps(sure)


@pytest.mark.parametrize("times", [1, 900])
@pytest.mark.parametrize(
    "lines",
    [
        ["Oct 11 22:14:15 general\tinfo\tHello", "Oct 11 22:14:16 mod_x\tinfo\tBye"],
        ["main\tINFO\tStarting the application", "main\tINFO\tReady", "db\tERROR\tGone"],
        ["INFO|main|Starting the application", "ERROR|db|Gone"],
        [
            "system,info,account user admin logged in",
            "system,info,account user admin logged out",
            "system,error,critical login failure",
        ],
        ["ERROR\tdisk\tfull", "WARN\tfan\tslow"],
        ["shop,cart emptied", "shop,cart filled", "shop,order placed"],
    ],
)
def test_lines_of_a_log_are_no_table(
    lake: lakelog.Lake, tmp_path: Path, lines: list[str], times: int
) -> None:
    """A first line that is like those below it names no columns, and is an event as they are."""
    path = tmp_path / "x.log"
    path.write_text("".join(f"{line}\n" for line in lines * times))
    report = lake.ingest(str(path))
    assert (report.events, report.quarantined) == (len(lines) * times, 0)
    assert report.files[0].format != "csv"


@pytest.mark.parametrize(
    "text",
    [
        "level,message,time\nINFO,on,2023-10-11T22:14:15Z\nERROR,off,2023-10-11T22:14:16Z\n",
        "level,event,time\nINFO,event,2023-10-11T22:14:15Z\nERROR,event,2023-10-11T22:14:16Z\n",
        "trace,error,warning\n1,2,3\n4,5,6\n",
        "alert,info\nDiskFull,a disk is full\nFanSlow,a fan is slow\n",
        "name,kind\nname,text\nage,number\nid,number\n",
    ],
)
def test_headers_with_words_for_levels(lake: lakelog.Lake, tmp_path: Path, text: str) -> None:
    """Columns may be named as levels are, and as one of their values."""
    path = tmp_path / "x.log"
    path.write_text(text)
    report = lake.ingest(str(path))
    assert (report.files[0].format, report.events) == ("csv", text.count("\n") - 1)


def test_a_table_of_insights(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Columns of CloudWatch have a sign before their names; time and message are found."""
    path = tmp_path / "logs-insights-results.csv"
    path.write_text(
        "@timestamp,@message,@logStream\n2023-05-01 10:00:00.123,one,s/1\n"
        '2023-05-01 10:00:01.000,"two, three",s/1\n'
    )
    report = lake.ingest(str(path))
    assert (report.files[0].format, report.events, report.quarantined) == ("csv", 2, 0)
    rows = lake.sql("SELECT time, message, data FROM events ORDER BY position").fetchall()
    assert rows[0][0].isoformat() == "2023-05-01T10:00:00.123000+00:00"
    assert [row[1:] for row in rows] == [
        ("one", '{"@logStream":"s/1"}'),
        ("two, three", '{"@logStream":"s/1"}'),
    ]
