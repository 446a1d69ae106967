"""Times at the beginning of lines that no format reads: none gets the time of another line."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.cli import cli
from lakelog.formats import leading_times, pattern
from lakelog.formats.date_orders import DateOrders
from lakelog.ingest import transform
from tests.support.real_files import DATA
from tests.support.requirements import need

MOMENT = datetime(2024, 10, 27, 9, 4, 7, tzinfo=UTC)
DATES = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%Y-%b-%d",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%d-%m-%Y",
    "%m/%d/%Y",
    "%m-%d-%Y",
    "%d.%m.%y",
    "%m/%d/%y",
    "%d-%b-%Y",
    "%d/%b/%Y",
    "%d %b %Y",
    "%d %B %Y",
    "%dth %B, %Y",
    "%b %d, %Y",
    "%b %d %Y",
    "%B %d, %Y",
    "%a %b %d, %Y",
    "%A, %d %B %Y",
    "%a %d.%m.%Y",
    "%Y年%m月%d日",
)
CLOCKS = ("%H:%M:%S", "%k:%M:%S", "%H:%M:%S.%f", "%H:%M:%S,250", "%I:%M:%S %p", "%I:%M:%S%p")
ZONES = ("", "Z", " UTC", "+0200", " +02:00", " -0730", " CEST", " (EST)", " GMT+2")
OFFSETS = {"+0200": 2, " +02:00": 2, " -0730": -7.5, " CEST": 2, " (EST)": -5, " GMT+2": 2}
WHOLE = (
    ("%a %b %d %H:%M:%S %Y", 0),
    ("%a %b %d %H:%M:%S CEST %Y", 2),
    ("%Y%m%d%H%M%S", 0),
    ("%Y%m%dT%H%M%SZ", 0),
    ("%Y%m%d-%H%M%S", 0),
    ("%Y%m%d %H:%M:%S", 0),
    ("%y%m%d  %k:%M:%S", 0),
    ("%y%m%d %H%M%S", 0),
    ("%Y-%m-%d-%H.%M.%S", 0),
    ("%Y-%m-%d_%H:%M:%S", 0),
    ("%Y-%m-%d\t%H:%M:%S", 0),
    ("%m/%d/%Y\t%H:%M:%S", 0),
    ("%Y-%m-%d   %H:%M:%S", 0),
    ("%b/%d/%Y %H:%M:%S", 0),
    ("%d-%b-%Y::%H:%M:%S", 0),
    ("%d/%b/%Y:%H:%M:%S +0200", 2),
    ("%H:%M:%S %d.%m.%Y", 0),
    ("%I:%M:%S %p %m/%d/%Y", 0),
    ("%H:%M:%S,250 %Y-%m-%d", 0),
    ("%Y-%m-%d %H:%M:%S.%f +0200 CEST m=+1.5", 2),
    ("%Y-%m-%d %H:%M:%S [Europe/Berlin]", 2 if MOMENT.day < 27 else 1),
)
BEFORE = (
    ("", ""),
    ("[", "]"),
    ("(", ")"),
    ("<", ">"),
    ('"', '"'),
    ("ERROR ", ""),
    ("ERROR    ", " -"),
    ("[INFO] ", ""),
    ("[INFO] [", "]"),
    ("web-1 ", ":"),
    ("localhost ", ""),
    ("10.0.0.1 [", "]"),
    ("host app[123]: ", ""),
    ("<13>host app: ", " |"),
    ("web-1  | ", ""),
    ("time=", ""),
    ("[main] [7] ", ""),
    ("\x1b[31m[", "]\x1b[0m"),
)


def spelled(form: str) -> str:
    """The moment in a spelling of strftime."""
    # %k is an hour without its zero; that of a double space has it as a blank
    form = form.replace("  %k", f" {MOMENT.hour:2}").replace("%k", str(MOMENT.hour))
    return MOMENT.strftime(form.replace("%f", "250000"))


def spellings() -> list[tuple[str, float]]:
    """(a spelling, the hours of its offset): each date with some clocks and zones, and others."""
    rng = random.Random(7)
    found = [*((spelled(form), float(offset)) for form, offset in WHOLE)]
    for date, clock in itertools.product(DATES, CLOCKS):
        for zone in rng.sample(ZONES, 3):
            text = f"{spelled(date)} {spelled(clock)}{zone}"
            found.append((text, OFFSETS.get(zone, 0)))
    return found


def placed() -> list[tuple[str, datetime]]:
    """Lines with each spelling, each in two of the places where a time may stand."""
    lines = []
    for number, (text, offset) in enumerate(spellings()):
        for place in (0, 1 + number % (len(BEFORE) - 1)):
            ahead, behind = BEFORE[place]
            second = MOMENT - timedelta(hours=offset)
            lines.append((f"{ahead}{text}{behind} request 7 done", second))
    return lines


LINES = placed()


def rows(lake: lakelog.Lake) -> list[Any]:
    """Time (whole seconds) and message of each event, in the order of their lines."""
    query = """SELECT date_trunc('second', time) AT TIME ZONE 'UTC', message, time = ingested_at
        FROM events ORDER BY origin, position"""
    return lake.sql(query).fetchall()


def test_the_spellings_are_many() -> None:
    """What the tests below play is what the document promises."""
    assert len(spellings()) > 400
    assert len(LINES) > 800


@pytest.mark.matrix
@pytest.mark.parametrize("part", range(16))
def test_each_spelling_in_each_place(part: int) -> None:
    """Whatever stands around it and however it is written, the time is the one that is meant."""
    orders = DateOrders()
    for line, moment in LINES[part::16]:
        orders = DateOrders()
        orders.add([line.encode()])
        with orders.settled():
            found = leading_times.find(line)
        assert found is not None, line
        read = pattern.parse_time(found.iso)
        assert read.replace(microsecond=0) == moment, line


@pytest.mark.parametrize(
    ("line", "day"),
    [
        ("Thu Nov 14 20:14:37.123 <airportd[88]> up", (11, 14, 3)),
        ("Thu, Feb 29 20:14:37 up", (2, 29, 3)),
        ("[Sat Dec 31 23:59:59] up", (12, 31, 5)),
    ],
)
def test_a_weekday_tells_the_year(line: str, day: tuple[int, int, int]) -> None:
    """It is the last in which the day is that of the week, and not the last of all."""
    month, number, weekday = day
    found = leading_times.find(line)
    assert found is not None
    read, limit = pattern.parse_time(found.iso), datetime.now(UTC) + pattern.AHEAD
    assert (read.month, read.day, read.weekday()) == day
    for year in range(read.year + 1, limit.year + 1):
        with contextlib.suppress(ValueError):
            later = datetime(year, month, number, tzinfo=UTC)
            assert later.weekday() != weekday or later > limit


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("03/12/2024 10:00:00 - app.db - ERROR - failed", ("ERROR", "app.db", "failed")),
        ("03/12/2024 10:00:00 | app | info | up", ("INFO", "app", "up")),
        ("12.03.2024 10:00:00: app : WARNING : slow", ("WARN", "app", "slow")),
        (
            "03/12/2024 10:00:00 [main] WARN c.f.Bar - slow",
            ("WARN", None, "[main] WARN c.f.Bar - slow"),
        ),
        ("03/12/2024 10:00:00 - started - now", (None, None, "started - now")),
        ("03/12/2024 10:00:00 - app - error in it", (None, None, "app - error in it")),
    ],
)
def test_a_logger_and_a_level_behind_a_time(
    lake: lakelog.Lake, tmp_path: Path, line: str, event: tuple[str | None, ...]
) -> None:
    """As Python's logging is told to write them, with any date; a thread stays in the message."""
    (tmp_path / "a.log").write_text(f"{line}\n")
    lake.ingest(str(tmp_path / "a.log"))
    assert lake.sql("SELECT level, source, message FROM events").fetchall() == [event]


def test_a_dash_may_stand_between_a_day_without_a_year_and_the_clock() -> None:
    """As Snort and others write it."""
    found = leading_times.find("01/21-08:24:53.632228 7988 DBG  started")
    assert found is not None
    assert found.iso.endswith("-01-21T08:24:53.632228")


def test_each_spelling_in_a_file_that_a_style_reads(lake: lakelog.Lake, tmp_path: Path) -> None:
    """The style of a program that knows the beginning of a time does not pass over its end."""
    # Behind a month, a day and a year without a zone, the next word is a host.
    lines = [line for line in LINES if not line[0].startswith(("<", "Oct 27 2024 09:04:07 r"))]
    for place, (line, _) in enumerate(lines):
        text = line.replace("request 7", f"request 7 {place:04}")
        (tmp_path / f"{place}.log").write_text(f"{OWN}\n" * (place % 4 // 2) + f"{text}\n")
    lake.ingest(str(tmp_path))
    found = sorted(
        (match[1], time) for time, text, _ in rows(lake) if (match := _PLACE.search(text or ""))
    )
    expected = [(f"{place:04}", m.replace(tzinfo=None)) for place, (_, m) in enumerate(lines)]
    assert found == expected


_PLACE = re.compile(r"request 7 (\d{4})")
OWN = "2024-10-10 13:55:36,123 INFO [main] a.b.C: started"
NEIGHBOURS = {
    "applog": OWN,
    "syslog": "Oct 10 13:55:36 web sshd[7]: hello",
    "access": '10.0.0.1 - - [10/Oct/2024:13:55:36 +0000] "GET /a HTTP/1.1" 200 7 "-" "curl"',
    "logfmt": 'time=2024-10-10T13:55:36Z level=error msg="pairs"',
    "runtime": "E1010 13:55:36.619632 195 a.cc:253] Log",
    "plain": "only words",
}


@pytest.mark.matrix
@pytest.mark.parametrize("few", [0, 500])
@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_no_line_is_dated_by_a_neighbour(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, neighbour: str, few: int
) -> None:
    """In files of every kind of text, read by the engine or line by line, a time that the format
    does not know is that of its line."""
    monkeypatch.setattr(transform, "FEW", few)
    own = [line for line in LINES if not line[0].startswith("<")][:: 97 if few else 89]
    path = tmp_path / "some.log"
    # not every second line, so that the format of the file is the one meant
    path.write_text("".join(f"{NEIGHBOURS[neighbour]}\n" * 3 + line + "\n" for line, _ in own))
    report = lake.ingest(str(path))
    assert report.quarantined == 0
    assert neighbour in ("plain", report.files[0].format)
    found = [(time, message) for time, message, _ in rows(lake) if "request 7" in (message or "")]
    assert [time for time, _ in found] == [moment.replace(tzinfo=None) for _, moment in own]


@pytest.mark.parametrize("few", [0, 500])
def test_a_log_across_an_upgrade(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """MariaDB's older times, of six digits, are neither of today nor of the lines around them."""
    monkeypatch.setattr(transform, "FEW", few)
    path = tmp_path / "mysqld.log"
    path.write_text(
        "130324  0:04:00 [Warning] Access denied for user root\n130324 10:04:00 [Note] ready\n"
        "2026-11-24 10:00:00 0 [Note] InnoDB: started\nmore of it\n130325  0:04:00 [ERROR] late\n"
    )
    assert lake.ingest(str(path)).arrivals == 0
    found = lake.sql("SELECT strftime(time, '%y%m%d %H'), level FROM events ORDER BY position")
    assert [row for row in found.fetchall() if row[1]] == [
        ("130324 00", "WARN"),
        ("130324 10", "INFO"),
        ("261124 10", "INFO"),
        ("130325 00", "ERROR"),
    ]


@pytest.mark.matrix
@pytest.mark.parametrize("few", [0, 500])
@pytest.mark.parametrize("neighbour", ["applog", "syslog", "plain"])
def test_what_cannot_be_read_is_arrival(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, neighbour: str, few: int
) -> None:
    """A time that is none, or without its date, is neither that of the line before nor lost: it is
    counted by ingest, preview, status and audit, at once and after a compaction."""
    monkeypatch.setattr(transform, "FEW", few)
    odd = ["2024-99-99 10:00:00 odd", "12:34:56 odd", "Feb 30 10:00:00 odd"]
    path = tmp_path / "some.log"
    first = "24.11.2020 10:00:00 INFO words" if neighbour == "plain" else NEIGHBOURS[neighbour]
    path.write_text("".join(f"{line}\n" for line in [first] * 5 + odd + ["after"]))
    began = datetime.now(UTC).replace(microsecond=0, tzinfo=None)
    run = CliRunner()
    shown = run.invoke(cli, ["--lake", lake.path, "formats", "test", str(path)])
    assert "arrival 3 events" in shown.output
    watched = run.invoke(cli, ["--lake", lake.path, "watch", "--once", str(tmp_path)])
    assert "arrival 3 events" in watched.output
    for command in (["watch", "--status"], ["audit"], ["compact"], ["audit"]):
        done = run.invoke(cli, ["--lake", lake.path, *command])
        assert done.exit_code == 0, done.output
        assert ("arrival 3 events" in done.output) == (command != ["compact"]), done.output
    found = rows(lake)
    assert [time >= began for time, message, _ in found if "odd" in message] == [True] * 3
    assert [arrived for _, _, arrived in found].count(True) == 3


@pytest.mark.parametrize("suffix", ["log", "csv"])
@pytest.mark.parametrize(
    ("dates", "first"),
    [
        # Spark's spelling: the last two digits would be a year that has not begun, or an older one
        (["17/06/09"], "2017-06-09"),
        (["17/06/02", "17/06/14", "17/06/26"], "2017-06-02"),
        # one day of each year would be one of many years
        (["09.06.17", "14.06.17", "26.06.17"], "2017-06-09"),
        (["02/06/17", "14/06/17"], "2017-06-02"),
        (["01-12-21", "02-12-21"], "2021-12-01"),
        (["98/06/02"], "1998-06-02"),
    ],
)
def test_years_of_two_digits_are_few_and_late(
    lake: lakelog.Lake, tmp_path: Path, suffix: str, dates: list[str], first: str
) -> None:
    """A log is of few years, and of those that are possible of the latest one that has begun."""
    path = tmp_path / f"x.{suffix}"
    line = "{} 10:00:00 it ran" if suffix == "log" else "{},10:00:00,it ran"
    header = "" if suffix == "log" else "Date,Time,what\n"
    path.write_text(header + "".join(line.format(date) + "\n" for date in dates))
    lake.ingest(str(path))
    days = lake.sql("SELECT DISTINCT time::DATE::VARCHAR FROM events ORDER BY 1").fetchall()
    assert (days[0][0], len(days)) == (first, len(dates))


@pytest.mark.matrix
@pytest.mark.parametrize("few", [0, 500])
@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (["03/04/2024", "25/04/2024"], ["2024-04-03", "2024-04-25"]),
        (["03/04/2024", "04/25/2024"], ["2024-03-04", "2024-04-25"]),
        (["03/04/2024", "05/04/2024"], ["2024-03-04", "2024-05-04"]),
        (["03.04.2024", "05.04.2024"], ["2024-04-03", "2024-04-05"]),
        (["03.04.2024", "04.25.2024"], ["2024-03-04", "2024-04-25"]),
        (["03-04-24", "05-04-24"], ["2024-04-03", "2024-04-05"]),
        (["03-04-24", "03-04-25"], ["2003-04-24", "2003-04-25"]),
        (["03-04-98", "05-04-98"], ["1998-04-03", "1998-04-05"]),
        (["01/02/68", "01/02/69"], ["2068-01-02", "1969-01-02"]),
    ],
)
def test_the_order_of_day_and_month_is_that_of_the_file(
    lake: lakelog.Lake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dates: list[str],
    expected: list[str],
    few: int,
) -> None:
    """A day above 12 anywhere settles it, also for lines that come later; else it is the rule; and
    files that are read together do not settle it for each other."""
    monkeypatch.setattr(transform, "FEW", few)
    path = tmp_path / "b.log"
    for other, day in (("a", "25/12/2020"), ("c", "12/25/2020")):
        (tmp_path / f"{other}.log").write_text(f"{day} 10:00:00 other\n" * 3)
    path.write_text("".join(f"{date} 10:00:00 line\n" for date in dates))
    done = CliRunner().invoke(cli, ["--lake", lake.path, "watch", "--once", str(tmp_path)])
    assert done.exit_code == 0, done.output
    with path.open("a") as file:
        file.write(f"{dates[0]} 11:00:00 line\n")
    assert lake.ingest(str(path)).events == 1
    found = [f"{time:%Y-%m-%d}" for time, message, _ in rows(lake) if message == "line"]
    assert found == [*expected, expected[0]]


def test_a_year_that_is_not_said(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the last one in which the day is not ahead, so a log across New Year stays in order; a
    clock that goes back is believed."""
    monkeypatch.setattr(pattern, "now", lambda: datetime(2025, 1, 2, tzinfo=UTC))
    lines = ("31.12. 23:59:59 a", "01.01. 00:00:01 b", "31.12. 23:59:58 c", "29.02. 10:00:00 d")
    (tmp_path / "x.log").write_text("".join(f"{line}\n" for line in lines))
    lake.ingest(str(tmp_path / "x.log"))
    assert [str(time) for time, _, _ in rows(lake)] == [
        "2024-12-31 23:59:59",
        "2025-01-01 00:00:01",
        "2024-12-31 23:59:58",
        "2024-02-29 10:00:00",
    ]


@pytest.mark.parametrize("few", [0, 500])
def test_lines_that_are_no_utf8(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Their times are read as those of others, whichever lines they stand among."""
    monkeypatch.setattr(transform, "FEW", few)
    path = tmp_path / "some.log"
    path.write_bytes(f"{OWN}\n".encode() * 3 + b"24.11.2026 10:00:00 caf\xe9\n\xe9 more\nwords\n")
    report = lake.ingest(str(path))
    assert (report.quarantined, report.arrivals) == (0, 0)
    found = [(str(time), message) for time, message, _ in rows(lake)][3:]
    assert found == [("2026-11-24 10:00:00", "café\né more\nwords")]


def test_times_are_of_the_zone_of_their_source(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A time that names no zone is of the one that is configured; one that does is not."""
    (tmp_path / "x.log").write_text("24.11.2026 10:00:00 a\n24.11.2026 10:00:00 UTC b\n")
    lake.ingest(str(tmp_path / "x.log"), format="plain@Europe/Berlin")
    assert [time.hour for time, _, _ in rows(lake)] == [9, 10]


def test_halves_of_the_day_and_zones_count_in_the_log_of_a_program(
    lake: lakelog.Lake, tmp_path: Path
) -> None:
    """The styles of programs, which lines beside them decide, know fewer spellings of a time."""
    lines = [
        f"{MOMENT:{date} %I:%M:%S}{fraction}{zone}{end}"
        for date in ("%Y-%m-%d", "%Y/%m/%d")
        for fraction in ("", ".25")
        for zone in (*OFFSETS, " AM", "AM", " a.m.", " PM", " PM CEST", " AM+0200", " UTC+02:00")
        for end in (" request", " INFO request", " [main] INFO a.b.C - request", ": request")
    ]
    lines += [f"{MOMENT:%F %T} [{city}] INFO a.b.C - request" for city in ("Asia/Tokyo", "Etc/GMT")]
    (tmp_path / "x.log").write_text("\n".join([OWN] * 50 + lines))
    lake.ingest(str(tmp_path / "x.log"))
    for line, (time, message, _) in zip(lines, rows(lake)[50:], strict=True):
        found = leading_times.find(line)
        assert found is not None, line
        own = pattern.parse_time(found.iso).replace(microsecond=0, tzinfo=None)
        assert (time, message[-7:]) == (own, "request"), line


@pytest.mark.parametrize(
    "line",
    [
        "    at 2024-10-10 10:00:00 in a trace",
        "Caused by: it expired on 2024-10-10 10:00:00",
        "version 10.12.13.14 10:00:00",
        "00:11:22:33:44:55 is an address",
        "see 2024-10-10 10:00:00",
    ],
)
def test_text_with_a_time_in_it_continues_a_record(
    lake: lakelog.Lake, tmp_path: Path, line: str
) -> None:
    """What belongs to the record before stays there."""
    (tmp_path / "x.log").write_text(f"{OWN}\n{line}\n{OWN}\n")
    assert lake.ingest(str(tmp_path / "x.log")).events == 2


@pytest.mark.matrix
@pytest.mark.parametrize("part", range(8))
def test_no_line_of_real_logs_is_dated_by_a_neighbour(
    lake: lakelog.Lake, tmp_path: Path, part: int
) -> None:
    """In real logs a line that begins with a date and a clock has that time, whatever the format of
    its file reads."""
    need("../shared")
    files = sorted((*DATA.glob("loghub/*"), *DATA.glob("services/*.log")))[part::8]
    assert files
    for number, path in enumerate(files):
        lines = [line for line in path.read_bytes().splitlines() if line.strip()][:2000]
        (tmp_path / f"{number}.log").write_bytes(b"\n".join(lines) + b"\n")
    lake.ingest(str(tmp_path))
    # as text: a year of four digits and a clock say the same in every zone but for the hour
    wrong = lake.sql(r"""
        WITH stamped AS (SELECT time, message, regexp_extract(message,
            '^\W*(\d{4})-(\d\d)-(\d\d)[T ](\d\d:\d\d:\d\d)', ['y', 'm', 'd', 'c']) AS t FROM events)
        SELECT message FROM stamped SEMI JOIN (FROM events
            -- the time of syslog or of a container stands before that of the message
            WHERE type <> 'syslog' AND coalesce(data, '') NOT LIKE '%"stream"%') USING (message)
        WHERE t.y <> '' AND abs(date_diff('hour', time,
            try_cast(t.y || '-' || t.m || '-' || t.d || ' ' || t.c AS TIMESTAMP))) > 26""")
    assert wrong.fetchall() == []
