"""Lines and files of programs, systems and languages that are met less often."""

from __future__ import annotations

from pathlib import Path

import pytest

import lakelog


def rows_of(lake: lakelog.Lake, path: Path) -> list[tuple[str, str | None]]:
    """The times and the messages of a file."""
    report = lake.ingest(str(path))
    assert (report.quarantined, report.arrivals) == (0, 0)
    query = "SELECT strftime(time, '%Y-%m-%d %H:%M:%S'), message FROM events ORDER BY position"
    return lake.sql(query).fetchall()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("2017 Nov 11 00:00:01 ip-10->/var/log/secure", "2017-11-11 00:00:01"),
        ("2014:07:02-00:17:45: '3.2.1.4' failed", "2014-07-02 00:17:45"),
        ("2012-025T10:22:40,672:DEBUG:foo", "2012-01-25 10:22:40"),
        ("Apr-07-13 07:08:36 [SSL-out] x", "2013-04-07 07:08:36"),
        ("INFO [2023-01-15|10:00:00.123] Starting Geth", "2023-01-15 10:00:00"),
        ("2023-01-15-10.00.00.123456+060 I12345E456   LEVEL: Warning", "2023-01-15 09:00:00"),
        ("2023-01-15-10.00.00.123456-300 I12345E456   LEVEL: Warning", "2023-01-15 15:00:00"),
        ("15. März 2023 10:00:00 x", "2023-03-15 10:00:00"),
        ("1 juil. 2023 10:00:00 x", "2023-07-01 10:00:00"),
        ("15/ene/2023 10:00:00 x", "2023-01-15 10:00:00"),
        (
            '1.2.3.4 - - [02/sept./2015:00:11:31 +0000] "GET / HTTP/1.1" 401 1',
            "2015-09-02 00:11:31",
        ),
        ("15-Dez-2023 10:00:00 x", "2023-12-15 10:00:00"),
    ],
)
def test_times_of_other_systems_and_languages(
    lake: lakelog.Lake, tmp_path: Path, line: str, expected: str
) -> None:
    """A line is dated as a person would date it."""
    (tmp_path / "a.log").write_text(f"{line}\n")
    assert [moment for moment, _ in rows_of(lake, tmp_path / "a.log")] == [expected]


@pytest.mark.parametrize("day", ["000", "366", "400"])
def test_a_day_that_a_year_has_not_is_told(lake: lakelog.Lake, tmp_path: Path, day: str) -> None:
    """The line is stored under its arrival, not under the time of the one before."""
    (tmp_path / "a.log").write_text(f"2023-001T10:00:00 a\n2023-{day}T10:00:00 b\n")
    assert lake.ingest(str(tmp_path / "a.log")).arrivals == 1


def test_lines_that_are_all_indented_are_events(lake: lakelog.Lake, tmp_path: Path) -> None:
    """What is indented further continues the line above."""
    lines = [" [A][2024-11-29 15:58:55] one", "   more", " [A][2024-11-29 15:58:56] two"]
    (tmp_path / "a.log").write_text("".join(f"{line}\n" for line in lines))
    assert rows_of(lake, tmp_path / "a.log") == [
        ("2024-11-29 15:58:55", "[A][2024-11-29 15:58:55] one\n   more"),
        ("2024-11-29 15:58:56", "[A][2024-11-29 15:58:56] two"),
    ]


def test_the_banner_of_export_csv_is_no_header(lake: lakelog.Lake, tmp_path: Path) -> None:
    """The line below it names the columns, also where many lines are read by a query."""
    rows = "".join(f'"10/22/2018 4:13:{n % 60:02} PM","docker","m{n}"\r\n' for n in range(400))
    head = '#TYPE Selected.System.EventLogRecord\r\n"TimeCreated","ProviderName","Message"\r\n'
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + (head + rows).encode())
    found = rows_of(lake, tmp_path / "a.csv")
    assert found == [(f"2018-10-22 16:13:{n % 60:02}", f"m{n}") for n in range(400)]
    assert lake.sql("SELECT DISTINCT source FROM events").fetchall() == [("docker",)]


def test_flows_are_read_by_their_header(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Fields of any version and order; a dash is null, and the type of traffic none of events."""
    (tmp_path / "a.log").write_text(
        "version account-id type srcaddr bytes start end action\n"
        "3 123 IPv4 1.2.3.4 568 1566848875 1566848933 ACCEPT\n"
        "3 123 - - - 1566848876 1566848933 -\n"
    )
    moments = [moment for moment, _ in rows_of(lake, tmp_path / "a.log")]
    assert moments == ["2019-08-26 19:47:55", "2019-08-26 19:47:56"]
    query = "SELECT type, data->>'type', data->>'srcaddr', data->>'bytes' FROM events ORDER BY time"
    assert lake.sql(query).fetchall() == [
        ("access", "IPv4", "1.2.3.4", "568"),
        ("access", None, None, None),
    ]


@pytest.mark.parametrize(
    ("error", "statement"),
    [("FEHLER", "ANWEISUNG:"), ("ERREUR", "INSTRUCTION :"), ("ОШИБКА", "ОПЕРАТОР:")],
)
def test_statements_belong_to_errors_in_any_language(
    lake: lakelog.Lake, tmp_path: Path, error: str, statement: str
) -> None:
    """PostgreSQL's are one event, whatever it speaks."""
    prefix = "2023-01-15 10:00:00.123 UTC [1234]"
    (tmp_path / "a.log").write_text(f"{prefix} {error}:  no\n{prefix} {statement}  select 1\n")
    found = rows_of(lake, tmp_path / "a.log")
    assert found == [("2023-01-15 10:00:00", f"no\n{prefix} {statement}  select 1")]
    assert lake.sql("SELECT level FROM events").fetchall() == [("ERROR",)]
