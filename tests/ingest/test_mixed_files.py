"""Files of several styles: each line by the style that fits it, other text in its place."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.audit.audit import audit
from lakelog.cli import cli
from lakelog.formats import mixture
from lakelog.formats.registry import FORMATS
from lakelog.ingest import transform
from lakelog.ingest.records import joins
from lakelog.ingest.transform import Transformer
from lakelog.lines.pieces import Chunk

ACCESS = '10.0.0.1 - - [10/Oct/2024:13:55:{:02} +0000] "GET /a HTTP/1.1" 200 7 "-" "curl"'
ERROR = "2024/10/10 13:55:{:02} [error] 7#7: *1 open() failed"
JSON = '{{"time": "2024-10-10T13:55:{:02}Z", "level": "warn", "msg": "json"}}'
SYSLOG = "Oct 10 13:55:{:02} web sshd[7]: hello"
APP = "2024-10-10 13:55:{:02},123 INFO [main] a.b.C: started"
PAIRS = 'time=2024-10-10T13:55:{:02}Z level=error msg="pairs"'
PG = "2024-10-10 13:55:{:02}.837 UTC [147] LOG:  ready"
GLOG = "E1010 13:55:{:02}.619632 195 a.cc:253] Log"
GIN = (
    "[GIN] 2024/10/10 - 13:55:{:02} |\x1b[90;43m 404 \x1b[0m|  1.5ms |  10.0.0.1"
    ' |\x1b[97;44m GET     \x1b[0m "/b"'
)
COLOURED = "\x1b[31m2024-10-10 13:55:{:02},123 ERROR\x1b[0m a.b.C: failed"
STYLED = (ACCESS, ERROR, JSON, SYSLOG, APP, PAIRS, PG, GLOG)
BANNER = "  ____ _   _\n |  _ \\ | | | ready to serve"
OOS = '2024-10-10T13:55:{:02}|CLICK|page|web|item|{{"n":1}}'


def events(lake: lakelog.Lake) -> list[dict[str, Any]]:
    """The rows in the order of their places, with the second of their time."""
    query = "SELECT *, date_part('second', time) AS s FROM events ORDER BY origin, position"
    table = lake.sql(query).to_arrow_table()
    return [dict(row) for row in table.to_pylist()]


def written(path: Path, *lines: str, times: int = 1) -> str:
    """A file of these lines, a second after each other."""
    numbered = (line.format(n % 60) for n, line in enumerate(lines * times))
    path.write_text("".join(f"{line}\n" for line in numbered))
    return str(path)


def times_of(table: Any) -> list[Any]:
    """The time of each row, None where it is that of the ingest."""
    rows = table.select(["time", "ingested_at"]).to_pylist()
    return [None if row["time"] == row["ingested_at"] else row["time"] for row in rows]


def assert_accounted(lake: lakelog.Lake) -> None:
    """An audit finds each line once."""
    files = audit(lake.store, lake.branch_name, lake.engine, []).files
    assert [file.wrong for file in files] == [0] * max(len(files), 1)


@pytest.mark.matrix
@pytest.mark.parametrize("times", [3, 1000])
@pytest.mark.parametrize("blanks", ["  ", "\t"])
@pytest.mark.parametrize("style", [APP, GLOG, PG])
def test_an_indented_file(
    lake: lakelog.Lake, tmp_path: Path, style: str, blanks: str, times: int
) -> None:
    """Lines that are all indented are events as others are; what is indented deeper continues
    them, also as the file grows."""
    lines = [blanks + style, f"{blanks}    at a.b.C", blanks + style]
    path = written(tmp_path / "x.log", *lines, times=times)
    assert lake.ingest(path).events == 2 * times
    with open(path, "a") as file:
        file.write("\n".join(line.format(59) for line in lines[:2]) + "\n")
    assert lake.ingest(path).events == 1
    found = events(lake)
    assert [event["s"] for event in found[:2]] == [0, 2]
    assert {event["level"] for event in found} == {"ERROR" if style is GLOG else "INFO"}
    assert sum(event["message"].endswith("    at a.b.C") for event in found) == times + 1
    assert_accounted(lake)


def test_a_file_that_begins_within_a_trace(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Its indented first line says nothing of the others."""
    path = written(tmp_path / "x.log", "    at a.b.C", APP, "    at d.e.F", APP)
    assert lake.ingest(path).events == 3


@pytest.mark.matrix
@pytest.mark.parametrize("few", [0, 500])
@pytest.mark.parametrize("first", STYLED)
def test_each_line_by_its_style(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, few: int
) -> None:
    """Whatever style a file mostly has, lines of the others tell their own time and level."""
    monkeypatch.setattr(transform, "FEW", few)
    path = written(tmp_path / "some.log", *[first] * 12, *STYLED)
    report = lake.ingest(path)
    assert (report.events, report.quarantined) == (20, 0)
    rows = events(lake)
    assert [int(row["s"]) for row in rows] == list(range(20))
    assert [row["level"] for row in rows[12:]] == [
        "INFO",
        "ERROR",
        "WARN",
        None,
        "INFO",
        "ERROR",
        "INFO",
        "ERROR",
    ]
    assert_accounted(lake)


@pytest.mark.matrix
@pytest.mark.parametrize("few", [0, 500])
@pytest.mark.parametrize("style", [ACCESS, JSON, SYSLOG, PAIRS, OOS])
def test_text_has_the_time_of_the_line_before(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: str, few: int
) -> None:
    """Banners and stray text sort in place, those that come first with what follows them."""
    monkeypatch.setattr(transform, "FEW", few)
    lines = [*BANNER.split("\n"), style, style, "server started", "\tindented", style]
    report = lake.ingest(written(tmp_path / "some.log", *lines))
    assert (report.events, report.quarantined) == (7, 0)
    rows = events(lake)
    assert [int(row["s"]) for row in rows] == [2, 2, 2, 3, 3, 3, 6]
    assert rows[4]["message"] == "server started"
    assert_accounted(lake)


@pytest.mark.parametrize("few", [0, 500])
@pytest.mark.parametrize("first", [ACCESS, GIN, SYSLOG])
def test_colours_of_a_terminal_hide_no_style(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, few: int
) -> None:
    """However many lines are coloured, each tells its time and level."""
    monkeypatch.setattr(transform, "FEW", few)
    lake.ingest(written(tmp_path / "some.log", *[first] * 12, GIN, COLOURED))
    rows = events(lake)
    assert [int(row["s"]) for row in rows] == list(range(14))
    assert [(row["type"], row["level"]) for row in rows[12:]] == [
        ("access", "WARN"),
        ("log", "ERROR"),
    ]


def test_styles_in_plain_text(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A file that begins with much text has its lines of known styles read as such."""
    lines = ["some words"] * 60 + [ACCESS, "words", APP, "words"]
    lake.ingest(written(tmp_path / "some.log", *lines * 50))
    rows = events(lake)
    assert len(rows) == 64 * 50
    assert [r["type"] for r in rows[60:64]] == ["access", "log", "log", "log"]
    assert [r["time"] for r in rows[:60]] == [rows[60]["time"]] * 60
    assert rows[61]["time"] == rows[60]["time"]
    assert rows[63]["time"] == rows[62]["time"]


RARE = (
    "type=USER_LOGIN msg=audit(1364481364.243:24288): pid=1 uid=0 res=failed",
    "[1697055255] unbound[123:0] error: address in use",
    "I/ActivityManager(  585): started",
    "1:M 11 Oct 2023 22:14:15.123 # low memory",
    "[   12.345678] usb 1-1: new device",
    "[11-Oct-2023 22:14:16] WARNING: [pool www] busy",
    "17/06/09 20:10:41 WARN spark.SecurityManager: x",
    "10:00:01.123 [INFO]",
    "Wed Oct 11 22:14:15 2023 : Error: x",
    "https 2018-07-02T22:23:00.186641Z app/x 192.0.2.1:44 10.0.0.1:80 0.086 0.048 0.037 200 200 0"
    ' 57 "GET http://a/ HTTP/1.1" "curl" E T arn:x "Root=1-5" "-" 0',
    "msg=hello level=error",
    '{"a": [1], "at": "2024-10-10T13:55:02Z", "time": "2024-10-10T13:55:02Z"}',
    "\x1b[31m2024-10-10 13:55:01,123 ERROR\x1b[0m failed",
    "# User@Host: root[root] @ localhost []",
)


def test_plain_text_is_read_alike_however_long_it_is(engine: Any) -> None:
    """Lines of a style have its time and level in a few lines of text and among many."""
    text = "some words of text\n"
    data = (text * 60 + "".join(f"{line}\n{text}" for line in RARE)).encode()
    form = FORMATS.detect(data, data, "x.log")
    assert form.NAME == "plain"
    form = FORMATS.tolerant(form, "x.log", forced=False)
    columns = ["position", "type", "source", "subject", "level", "message", "data"]
    few, many = (
        Transformer(lambda: engine, form, "o").run(Chunk(whole, 0), final=True).table
        for whole in (data, data + text.encode() * 2500)
    )
    many = many.slice(0, few.num_rows)
    assert few.select(columns).to_pylist() == many.select(columns).to_pylist()
    # the lines before the first time have that one, all others that of the line before
    assert times_of(few) == times_of(many)
    # but for a clock without a date
    assert times_of(few).count(None) == 1
    styled = few.select(columns).to_pylist()[60::2]
    assert [row["level"] for row in styled[:4]] == ["WARN", "ERROR", "INFO", "WARN"]
    assert not any(row["message"] == line for row, line in zip(styled[:11], RARE, strict=False))


def test_times_are_carried_across_reads(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Text that is written later has the time of the line that was read before."""
    path = tmp_path / "some.log"
    path.write_text(f"{ACCESS.format(1)}\n{ACCESS.format(2)}\n")
    lake.ingest(str(path))
    with path.open("a") as file:
        file.write("Traceback: no time here\n")
    lake.ingest(str(path))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(path.read_bytes() + b"more words\n"))
    lake.ingest(str(tmp_path / "packed.gz"))
    assert [int(row["s"]) for row in events(lake)] == [1, 2, 2, 2]
    assert_accounted(lake)


def test_many_small_files_carry_their_own_times(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Files that are read together do not take times from each other."""
    for n in range(5):
        written(tmp_path / f"{n}.log", f"words {n}", *[ACCESS.replace(":55:", f":{n:02}:")] * 2)
    done = CliRunner().invoke(cli, ["--lake", lake.path, "watch", "--once", str(tmp_path)])
    assert done.exit_code == 0, done.output
    rows = lake.sql("SELECT message, minute(time) FROM events WHERE message LIKE 'words%'")
    assert sorted(rows.fetchall()) == [(f"words {n}", n) for n in range(5)]


@pytest.mark.matrix
@pytest.mark.parametrize("first", [*STYLED, OOS, "only words"])
def test_both_ways_agree_on_mixed_lines(engine: Any, first: str) -> None:
    """What the engine makes of thousands of mixed lines is what the exact rule makes of each."""
    others = [*STYLED, "words", "INFO: started", "x=1 y=2", "2024-99-99 99:99:99 no time"]
    lines = [line.format(n % 60) for n, line in enumerate(([first] * 3 + others) * 40)]
    data = "".join(f"{line}\n" for line in lines).encode()
    form = mixture.tolerant(FORMATS.detect(data, b"", "some.log"))
    found = []
    for few in (0, 10**6):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transform, "FEW", few)
            made = Transformer(lambda: engine, form, "o").run(Chunk(data, 0), final=True)
        assert made.bad == []
        columns = ["position", "type", "level", "source", "message", "data"]
        found.append((made.table.select(columns).to_pylist(), times_of(made.table)))
    assert found[0] == found[1]
    assert len(found[0][0]) == len(lines) or joins(form)


@pytest.mark.parametrize("line", ['{"a": ', "[[1,2", "", "7", "\x01\x02"])
def test_damage_is_no_text(lake: lakelog.Lake, tmp_path: Path, line: str) -> None:
    """Broken JSON among JSON lines, and bytes that are no text, are quarantined as ever."""
    path = tmp_path / "some.log"
    path.write_text(f"{JSON.format(1)}\n{line}\n{JSON.format(2)}\n")
    report = lake.ingest(str(path))
    assert (report.events, report.quarantined) == (2, 1 if line else 0)


def test_text_in_a_file_of_json_lines_is_damage(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Where the name or --format says that all lines are JSON, text among them is quarantined."""
    path = tmp_path / "some.jsonl"
    path.write_text(f"{JSON.format(1)}\nwords\n")
    assert lake.ingest(str(path)).quarantined == 1
    other = tmp_path / "other.log"
    other.write_text(f"{JSON.format(3)}\nwords\n")
    assert lake.ingest(str(other), format="jsonl").quarantined == 1


def test_access_lines_do_not_stick_to_an_error(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Lines of an access log behind one of an error log, of whatever layout, are their own."""
    odd = '[10/Oct/2024:13:55:{:02} +0100] example.org 10.0.0.1 0.2 "GET / HTTP/2.0" 207 125'
    vhost = 'example.org 10.0.0.1 - [10/Oct/2024:13:55:{:02} +0000] "GET / HTTP/1.1" 200 1'
    report = lake.ingest(
        written(tmp_path / "e.log", ERROR, ERROR, ERROR, *[ACCESS, odd, vhost] * 2)
    )
    assert (report.events, report.quarantined) == (9, 0)
    assert [row["message"] for row in events(lake)[:3]] == ["*1 open() failed"] * 3
    assert_accounted(lake)


@pytest.mark.parametrize(
    "last",
    [
        "2023-09-05 19:07:03,851 server03 proftpd[7] localhost: USER ccvv_ftp1: No such user found",
        "bye",
    ],
)
def test_a_last_line_without_newline_may_be_text(
    lake: lakelog.Lake, tmp_path: Path, last: str
) -> None:
    """The end of a file that has ended is an event, whatever its style; an audit agrees."""
    path = tmp_path / "some.log"
    path.write_text(f"Sep  5 19:07:02 host proftpd[7]: started\n{last}")
    report = lake.ingest(str(path))
    assert (report.files[0].format, report.events, report.quarantined) == ("syslog", 2, 0)
    with path.open("a") as file:
        file.write("\nSep  5 19:07:04 host proftpd[7]: ended\n")
    assert lake.ingest(str(path)).events == 1
    assert_accounted(lake)
