"""Styles of programs, runtimes and servers: each gives time, level, source and message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.audit.audit import audit
from lakelog.formats import pattern, styles
from lakelog.formats.registry import FORMATS
from lakelog.ingest import transform
from tests.support.effort import share
from tests.support.samples import lines_of, samples_of
from tests.support.text_facts import FACTS, SHARED
from tests.support.text_lines import edited, has_time
from tests.support.two_ways import NOW, compare

PG = "2025-08-13 01:45:01.123 PDT [12345] "
FORMS = {"applog": styles.APPLOG, "runtime": styles.RUNTIME, "traffic": styles.TRAFFIC}


@pytest.fixture(autouse=True)
def still() -> Iterator[None]:
    """The clock of the exact rule shows what the queries are given."""
    with mock.patch.object(pattern, "now", return_value=NOW):
        yield


@pytest.mark.matrix
@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=share(50))
@given(data=st.data())
def test_styles_by_sql_are_those_of_the_exact_rule(engine: Any, name: str, data: Any) -> None:
    """Whatever becomes of lines, full and narrowed queries agree with the exact rule."""
    form, seeds = FORMS[name], lines_of(name)
    lines = data.draw(st.lists(edited(seeds), min_size=8, max_size=20))
    few = data.draw(st.lists(st.sampled_from(seeds), min_size=1, max_size=3))
    for query in (form.QUERY, *form.cheaper([line.encode() for line in few])):
        compare(engine, form, query, lines, has_time(form))


@pytest.mark.parametrize("name", FORMS)
def test_each_style_is_seen_in_plain_text(name: str) -> None:
    """In text, lines of every style are events of that style, not text."""
    text = FORMATS.tolerant(FORMATS.by_name("plain"), "x.txt", forced=False)
    for sample in samples_of(name):
        if sample.is_line and not sample.reason:
            (event,) = text.events(sample.text.encode())
            (expected,) = sample.events
            assert event.get("source") == expected.get("source"), sample
            assert ("level" in event) == ("level" in expected), sample


def test_what_postgres_adds_belongs_to_its_message(lake: lakelog.Lake, tmp_path: Path) -> None:
    """DETAIL, HINT and STATEMENT go behind the line they are about; an audit agrees."""
    path = tmp_path / "pg.log"
    text = PG + "ERROR:  no table\n" + PG + "STATEMENT:  SELECT 1\n\tFROM x\n" + PG + "LOG:  on\n"
    path.write_text(text)
    assert lake.ingest(str(path)).events == 2
    first, second = lake.sql("SELECT level, message FROM events ORDER BY position").fetchall()
    assert first == ("ERROR", f"no table\n{PG}STATEMENT:  SELECT 1\n\tFROM x")
    assert second == ("INFO", "on")
    assert [f.wrong for f in audit(lake.store, lake.branch_name, lake.engine, []).files] == [0]


def test_colours_stay_in_messages(engine: Any) -> None:
    """Colours of a terminal hide nothing: lines are told as without them, messages keep them."""
    line = "\x1b[0m\x1b[32mSep 19 \x1b[0m09:24:04\x1b[31m mac \x1b[1mapp\x1b[34m[17]\x1b[0m: a"
    line += "\x1b[33mb"
    found = styles.SYSLOG.parse(line.encode())
    assert (found["source"], found["data"]["procid"], found["data"]["host"]) == ("app", "17", "mac")
    assert found["message"] == "a\x1b[33mb"
    (exact,) = [
        styles.APPLOG.parse(b"\x1b[31m2024-01-02 03:04:05 ERROR\x1b[0m a.b: \x1b[1mx\x1b[0m")
    ]
    assert (exact["level"], exact["source"]) == ("ERROR", "a.b")
    assert exact["message"].endswith("\x1b[1mx\x1b[0m")


RED, OFF = "\x1b[1;31m", "\x1b[0m"


@pytest.mark.parametrize("few", [0, 10_000])
@pytest.mark.parametrize(
    ("name", "line", "event"),
    [
        ("applog", f"2026-11-24 10:00:01 {RED}ERROR{OFF} app: down", ("ERROR", None, "app: down")),
        (
            "loguru",
            f"{RED}2026-11-24 10:00:01.123{OFF} | {RED}ERROR   {OFF} | {RED}a.b{OFF}:{RED}f{OFF}:"
            f"{RED}5{OFF} - {RED}down",
            ("ERROR", "a.b", f"{RED}down"),
        ),
        (
            "spring",
            f"2026-11-24T10:00:01.123Z {RED} WARN{OFF} {RED}1{OFF} {RED}---{OFF} {RED}[app] [ main]"
            f" {OFF}{RED}c.e.App {OFF} {RED}:{OFF} down",
            ("WARN", "c.e.App", "down"),
        ),
        ("runtime", f"{RED}ERROR{OFF}:    down", ("ERROR", None, "down")),
        (
            "access",
            f'::1 - - [24/Nov/2026:10:00:01 +0000] "{RED}GET" 200 1',
            ("INFO", None, f"{RED}GET"),
        ),
    ],
)
def test_colours_hide_no_level(
    lake: lakelog.Lake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    few: int,
    name: str,
    line: str,
    event: tuple[str | None, ...],
) -> None:
    """Programs colour the time, the level and the logger, each by itself."""
    monkeypatch.setattr(transform, "FEW", few)
    path = tmp_path / "a.log"
    path.write_text(f"{line}\n" * 3)
    (file,) = lake.ingest(str(path)).files
    assert (file.format, file.events, file.quarantined) == (name, 3, 0)
    assert lake.sql("SELECT level, source, message FROM events").fetchall() == [event] * 3
    assert [f.wrong for f in audit(lake.store, lake.branch_name, lake.engine, []).files] == [0]


@pytest.mark.needs("../shared")
@pytest.mark.parametrize(
    ("name", "form", "counts"),
    [
        ("lnav/logfile_glog.0", "runtime", (7, 0)),
        ("lnav/logfile_epoch.0", "runtime", (2, 0)),
        ("lnav/logfile_postgres.0", "applog", None),
        ("lnav/logfile_uwsgi.0", "traffic", (19, 0)),
        ("lnav/logfile_ansi.1", "syslog", (10, 0)),
        ("lnav/logfile_docker_compose_with_ts.0", "runtime", None),
        ("services/aws-alb-logs__aws-alb-logs.log", "traffic", (14, 0)),
        ("services/haproxy-logs__haproxy-logs.log", "traffic", (5, 0)),
        ("services/bunkerweb-logs__bunkerweb-logs.log", "traffic", (5, 0)),
        ("services/immich-logs__immich-logs.log", "runtime", None),
        ("services/paperless-ngx-logs__paperless-ngx-logs.log", "applog", (31, 0)),
        ("services/gitea-bf__gitea-bf.log", "applog", (60, 0)),
        ("services/sshesame__sshesame.log", "applog", (381, 0)),
        ("services/mssql-text-logs__mssql-text-logs.log", "applog", (14, 0)),
        ("services/odoo-logs__odoo.log", "applog", (6, 0)),
        ("services/pgsql-user-enum__pgsql-user-enum.log", "applog", None),
        ("services/asterisk-user-enum__asterisk-user-enum.log", "runtime", (6, 0)),
        ("services/qbittorrent-logs__qbittorrent-logs.log", "runtime", (6, 0)),
        ("services/teamspeak-bf__teamspeak-bf.log", "applog", (6, 0)),
    ],
)
def test_real_files_of_styles(
    lake: lakelog.Lake, name: str, form: str, counts: tuple[int, int] | None
) -> None:
    """Each file is taken for what it is, no line is lost, and an audit agrees."""
    report = lake.ingest(str(SHARED / name))
    assert report.files[0].format == form
    assert report.quarantined == 0
    assert report.events <= FACTS[name]["lines"]
    if counts:
        assert (report.events, report.quarantined) == counts
    assert [f.wrong for f in audit(lake.store, lake.branch_name, lake.engine, []).files] == [0]


SLOW_HEAD = """/usr/sbin/mysqld, Version: 10.3.39-MariaDB (Debian 10). started with:
Tcp port: 3306  Unix socket: /run/mysqld/mysqld.sock
Time\t\t    Id Command\tArgument
"""
SLOW_QUERY = """# User@Host: root[root] @ localhost []
# Thread_id: 8  Schema: x  QC_hit: No
# Query_time: 2.000000  Lock_time: 0.000000  Rows_sent: 1  Rows_examined: 0
SET timestamp=1697055255;
select sleep(2)
  from x;
"""
SLOW = f"""# Time: 231011 22:14:15
{SLOW_QUERY}{SLOW_QUERY}# Time: 231012  2:14:16
{SLOW_QUERY}# Time: 2023-10-13T02:14:17.5Z
{SLOW_QUERY}"""


@pytest.mark.parametrize("times", [1, 300])
@pytest.mark.parametrize("head", ["", SLOW_HEAD])
@pytest.mark.parametrize("grows", [False, True])
def test_each_slow_query_is_an_event(
    lake: lakelog.Lake, tmp_path: Path, head: str, times: int, grows: bool
) -> None:
    """A query has the time before it, else that of the query before it; an audit agrees."""
    path = tmp_path / "slow.log"
    path.write_text(head)
    if grows:
        lake.ingest(str(path))
    path.write_text(head + SLOW * times)
    lake.ingest(str(path))
    query = "SELECT strftime(time, '%d %T'), message FROM events WHERE message LIKE '# User%'"
    moments = ["11 22:14:15", "11 22:14:15", "12 02:14:16", "13 02:14:17"]
    expected = [(moment, SLOW_QUERY.strip()) for moment in moments * times]
    assert lake.sql(f"{query} ORDER BY position").fetchall() == expected
    assert lake.sql("SELECT count(*) FROM events").fetchall() == [(len(expected) + bool(head),)]
    (file,) = audit(lake.store, lake.branch_name, lake.engine, []).files
    assert file.wrong == 0
