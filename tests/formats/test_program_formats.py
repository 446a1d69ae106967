"""The logs of single programs: every field of a line as each of them documents it."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.files.source import Chunk
from lakelog.formats import mixture, pattern, registry
from lakelog.ingest import transform
from lakelog.ingest.audit.audit import audit
from lakelog.ingest.transform import Transformer
from tests.support.effort import share
from tests.support.linear_time import assert_linear
from tests.support.text_facts import SHARED
from tests.support.text_lines import edited
from tests.support.tree import ROOT
from tests.support.two_ways import NOW, compare, one_by_one

REQ = "req-38101a0b-2096-447d-96ea-a692162415ae"
VM = "b9000564-fe1a-409b-b8cc-1e88b294cd1d"
SESSION = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
ASKED = (
    "client @0x7f3a2c001234 192.0.2.10#16361 (www.example.com): view internal: query:"
    " www.example.com IN A +E(0)K (198.51.100.7)"
)
TOLD = dict[str, Any]
SAMPLES: list[tuple[str, str, str | None, TOLD]] = [
    (
        "bind",
        f"15-Mar-2023 10:18:34.123 queries: info: {ASKED}",
        "2023-03-15T10:18:34.123",
        {
            "type": "query",
            "level": "INFO",
            "source": "queries",
            "subject": "www.example.com",
            "message": ASKED,
            "data": {
                "client": "192.0.2.10",
                "port": 16361,
                "view": "internal",
                "name": "www.example.com",
                "class": "IN",
                "record": "A",
                "flags": "+E(0)K",
                "server": "198.51.100.7",
            },
        },
    ),
    (
        "bind",
        "2023-03-15T10:18:36.000Z general: critical: exiting",
        "2023-03-15T10:18:36",
        {
            "type": "log",
            "level": "FATAL",
            "source": "general",
            "message": "exiting",
            "data": {"level": "critical"},
        },
    ),
    (
        "bind",
        "15-Mar-2023 10:18:37.5 debug 12: zone x/IN: loaded",
        "2023-03-15T10:18:37.5",
        {
            "type": "log",
            "level": "DEBUG",
            "message": "zone x/IN: loaded",
            "data": {"level": "debug 12"},
        },
    ),
    (
        "couchdb",
        "[notice] 2023-05-01T10:00:00.123456Z couchdb@127.0.0.1 <0.345.0> 3f7a1e2b4c"
        " localhost:5984 10.0.0.5 admin GET /_all_dbs?limit=5 200 ok 3",
        "2023-05-01T10:00:00.123456",
        {
            "type": "access",
            "level": "INFO",
            "source": "couchdb@127.0.0.1",
            "message": "GET /_all_dbs?limit=5",
            "data": {
                "pid": "<0.345.0>",
                "request_id": "3f7a1e2b4c",
                "host": "localhost:5984",
                "client": "10.0.0.5",
                "user": "admin",
                "method": "GET",
                "path": "/_all_dbs?limit=5",
                "status": 200,
                "result": "ok",
                "duration_ms": 3,
                "level": "notice",
            },
        },
    ),
    (
        "couchdb",
        "[error] 2025-04-29T21:01:40.588499Z nonode@nohost emulator -------- Error in",
        "2025-04-29T21:01:40.588499",
        {
            "type": "log",
            "level": "ERROR",
            "source": "nonode@nohost",
            "message": "Error in",
            "data": {"pid": "emulator"},
        },
    ),
    (
        "couchdb",
        "[Mon, 01 Jan 2018 12:00:00 GMT] [info] [<0.100.0>] 10.0.0.1 - - GET / 200",
        "2018-01-01T12:00:00",
        {
            "type": "log",
            "level": "INFO",
            "message": "10.0.0.1 - - GET / 200",
            "data": {"pid": "<0.100.0>"},
        },
    ),
    (
        "freeswitch",
        "2023-03-06 15:13:32.685002 96.83% [WARNING] sofia_reg.c:3223 SIP auth failure",
        "2023-03-06T15:13:32.685002",
        {
            "type": "log",
            "level": "WARN",
            "source": "sofia_reg.c:3223",
            "message": "SIP auth failure",
            "data": {"idle": "96.83", "level": "WARNING"},
        },
    ),
    (
        "freeswitch",
        f"{SESSION} 2011-02-11 11:11:11.111111 [CONSOLE] switch_core.c:5 Up",
        "2011-02-11T11:11:11.111111",
        {
            "type": "log",
            "level": "INFO",
            "source": "switch_core.c:5",
            "message": "Up",
            "data": {"session": SESSION, "level": "CONSOLE"},
        },
    ),
    (
        "gin",
        '[GIN] 2023/05/01 - 10:00:00 | 404 |     123.4µs |       10.0.0.1 | GET      "/a?x=1"',
        "2023-05-01T10:00:00",
        {
            "type": "access",
            "level": "WARN",
            "message": 'GET      "/a?x=1"',
            "data": {
                "status": 404,
                "latency": "123.4µs",
                "client": "10.0.0.1",
                "method": "GET",
                "path": "/a",
                "query": "x=1",
            },
        },
    ),
    (
        "gin",
        '[GIN-debug] [WARNING] Running in "debug" mode.',
        None,
        {
            "type": "log",
            "level": "WARN",
            "message": 'Running in "debug" mode.',
            "data": {"level": "WARNING"},
        },
    ),
    (
        "hpc",
        "134681 node-246 unix.hw state_change.unavailable 1077804742 1 Component State Change",
        "2004-02-26T14:12:22",
        {
            "type": "log",
            "source": "unix.hw",
            "subject": "node-246",
            "message": "Component State Change",
            "data": {
                "log_id": "134681",
                "node": "node-246",
                "state": "state_change.unavailable",
                "flag": "1",
            },
        },
    ),
    (
        "mysql-general",
        "2023-05-01T12:00:00.123456Z\t    8 Connect\troot@localhost on  using Socket",
        "2023-05-01T12:00:00.123456",
        {
            "type": "query",
            "message": "root@localhost on  using Socket",
            "data": {"thread": "8", "command": "Connect"},
        },
    ),
    (
        "mysql-general",
        "210228  9:52:47\t    1 Init DB\tdb1",
        "2021-02-28T09:52:47",
        {"type": "query", "message": "db1", "data": {"thread": "1", "command": "Init DB"}},
    ),
    (
        "mysql-general",
        "210228 15:52:47\t  12 Quit\t",
        "2021-02-28T15:52:47",
        {"type": "query", "data": {"thread": "12", "command": "Quit"}},
    ),
    (
        "mysql-general",
        "\t\t   12 Query\tSELECT 1",
        None,
        {"type": "query", "message": "SELECT 1", "data": {"thread": "12", "command": "Query"}},
    ),
    (
        "mysql-general",
        "/usr/sbin/mysqld, Version: 8.0.33 (MySQL Server - GPL). started with:",
        None,
        {
            "type": "log",
            "data": {"program": "/usr/sbin/mysqld", "version": "8.0.33"},
            "message": "/usr/sbin/mysqld, Version: 8.0.33 (MySQL Server - GPL). started with:",
        },
    ),
    (
        "openstack",
        f"nova-api.log.1.2017-05-16_13:53:08 2017-05-16 00:00:00.008 25746 INFO"
        f' nova.osapi_compute.wsgi.server [{REQ} 113d 54fa - - -] 10.11.10.1 "GET /v2" status: 200',
        "2017-05-16T00:00:00.008",
        {
            "type": "log",
            "level": "INFO",
            "source": "nova.osapi_compute.wsgi.server",
            "message": '10.11.10.1 "GET /v2" status: 200',
            "data": {
                "file": "nova-api.log.1.2017-05-16_13:53:08",
                "pid": "25746",
                "context": f"{REQ} 113d 54fa - - -",
            },
        },
    ),
    (
        "openstack",
        f"nova-compute.log 2017-05-16 00:00:04.500 2931 AUDIT nova.compute.manager [{REQ}"
        f" - - - - -] [instance: {VM}] VM Started",
        "2017-05-16T00:00:04.5",
        {
            "type": "log",
            "level": "INFO",
            "source": "nova.compute.manager",
            "subject": VM,
            "message": "VM Started",
            "data": {
                "file": "nova-compute.log",
                "pid": "2931",
                "context": f"{REQ} - - - - -",
                "instance": VM,
                "level": "AUDIT",
            },
        },
    ),
    (
        "openstack",
        "2024-05-16 00:00:04.500 2931 ERROR cinder.volume [-] gone",
        "2024-05-16T00:00:04.5",
        {
            "type": "log",
            "level": "ERROR",
            "source": "cinder.volume",
            "message": "gone",
            "data": {"pid": "2931"},
        },
    ),
    (
        "vaultwarden",
        "[2024-08-31 02:11:22.129][vaultwarden::api::identity][ERROR] Wrong password.",
        "2024-08-31T02:11:22.129",
        {
            "type": "log",
            "level": "ERROR",
            "source": "vaultwarden::api::identity",
            "message": "Wrong password.",
        },
    ),
    (
        "vsftpd",
        'Sat Mar 19 18:24:08 2016 [pid 1842] [jim] OK UPLOAD: Client "10.0.0.2", "/h/a b",'
        " 5797085 bytes, 108527.26Kbyte/sec",
        "2016-03-19T18:24:08",
        {
            "type": "log",
            "level": "INFO",
            "subject": "/h/a b",
            "message": '[jim] OK UPLOAD: Client "10.0.0.2", "/h/a b", 5797085 bytes,'
            " 108527.26Kbyte/sec",
            "data": {
                "pid": "1842",
                "user": "jim",
                "result": "OK",
                "action": "UPLOAD",
                "client": "10.0.0.2",
                "path": "/h/a b",
                "bytes": 5797085,
                "rate": "108527.26Kbyte/sec",
            },
        },
    ),
    (
        "vsftpd",
        'Sat Mar  9 18:24:09 2016 [pid 2] [bob] FAIL LOGIN: Client "::ffff:10.0.0.2"',
        "2016-03-09T18:24:09",
        {
            "type": "log",
            "level": "WARN",
            "message": '[bob] FAIL LOGIN: Client "::ffff:10.0.0.2"',
            "data": {
                "pid": "2",
                "user": "bob",
                "result": "FAIL",
                "action": "LOGIN",
                "client": "::ffff:10.0.0.2",
            },
        },
    ),
    (
        "vsftpd",
        'Sat Mar 19 18:24:08 2016 [pid 2] CONNECT: Client "10.0.0.2"',
        "2016-03-19T18:24:08",
        {
            "type": "log",
            "message": 'CONNECT: Client "10.0.0.2"',
            "data": {"pid": "2", "action": "CONNECT", "client": "10.0.0.2"},
        },
    ),
    (
        "vsftpd",
        "Sun Oct 20 21:25:02 2019 1 192.0.2.9 1024 /pub/f b _ i a lftp@ ftp 0 * i",
        "2019-10-20T21:25:02",
        {
            "type": "access",
            "level": "WARN",
            "subject": "/pub/f",
            "message": "/pub/f",
            "data": {
                "duration_s": 1,
                "client": "192.0.2.9",
                "bytes": 1024,
                "path": "/pub/f",
                "mode": "b",
                "special": "_",
                "direction": "i",
                "access": "a",
                "user": "lftp@",
                "service": "ftp",
                "authentication": "0",
                "authenticated": "*",
                "completion": "i",
            },
        },
    ),
    (
        "compose",
        "web-1  | 2024-04-25 05:32:35,584 - app.views - WARNING - slow",
        "2024-04-25T05:32:35.584",
        {
            "type": "log",
            "level": "WARN",
            "source": "web-1",
            "message": "slow",
            "data": {"logger": "app.views", "level": "WARNING"},
        },
    ),
    (
        "compose",
        "web-1  | 2024-04-25 05:32:35,584 INFO app.main: started",
        "2024-04-25T05:32:35.584",
        {
            "type": "log",
            "level": "INFO",
            "source": "web-1",
            "message": "started",
            "data": {"logger": "app.main"},
        },
    ),
    (
        "compose",
        "web-1  | [2024-04-25 05:32:35,584] ERROR in app: failed",
        "2024-04-25T05:32:35.584",
        {
            "type": "log",
            "level": "ERROR",
            "source": "web-1",
            "message": "failed",
            "data": {"logger": "app"},
        },
    ),
    (
        "compose",
        "db_1 | 2024-04-25 05:32:35,584 ready",
        "2024-04-25T05:32:35.584",
        {"type": "log", "source": "db_1", "message": "ready"},
    ),
]
OTHERS: list[tuple[str, str, str | None, TOLD]] = [
    (
        "logfmt",
        't=2018-10-01T21:17:10+0200 lvl=eror msg="Request Completed" logger=context userId=0'
        " status=500 t2=t",
        "2018-10-01T19:17:10",
        {
            "type": "log",
            "level": "ERROR",
            "source": "context",
            "message": "Request Completed",
            "data": {
                "logger": "context",
                "userId": "0",
                "status": "500",
                "t2": "t",
                "level": "eror",
            },
        },
    ),
    (
        "logfmt",
        'logger=settings t=2023-04-05T11:20:33.512345678Z level=info msg="Starting Grafana"'
        " version=9.4.7",
        "2023-04-05T11:20:33.512345",
        {
            "type": "log",
            "level": "INFO",
            "source": "settings",
            "message": "Starting Grafana",
            "data": {"logger": "settings", "version": "9.4.7"},
        },
    ),
    (
        "logfmt",
        "time=2023-04-05T11:20:33Z t=12 msg=x",
        "2023-04-05T11:20:33",
        {"type": "log", "message": "x", "data": {"t": "12"}},
    ),
    (
        "syslog",
        "2023-05-01T12:34:56+0200 web systemd[1]: Started Daily apt upgrade.",
        "2023-05-01T10:34:56",
        {
            "type": "syslog",
            "source": "systemd",
            "message": "Started Daily apt upgrade.",
            "data": {"host": "web", "procid": "1"},
        },
    ),
    (
        "syslog",
        "2023-05-01T12:34:56.123456-0700 web kernel: usb 1-1: new",
        "2023-05-01T19:34:56.123456",
        {"type": "syslog", "source": "kernel", "message": "usb 1-1: new", "data": {"host": "web"}},
    ),
]
SAMPLES += [
    (name, line, moment, told)
    for name, line, moment, told in map(
        json.loads, (ROOT / "tests/support/layouts.jsonl").read_text().splitlines()
    )
]
"""Lines of frameworks and daemons, one of each way to write them."""
NAMES = [form.NAME for form in mixture.PROGRAMS]
each = pytest.mark.parametrize(("name", "line", "moment", "told"), SAMPLES, ids=range(len(SAMPLES)))
ALL = [*SAMPLES, *OTHERS]
every = pytest.mark.parametrize(("name", "line", "moment", "told"), ALL, ids=range(len(ALL)))


@pytest.fixture(autouse=True)
def still() -> Iterator[None]:
    """The clock of the exact rule shows what the queries are given."""
    with mock.patch.object(pattern, "now", return_value=NOW):
        yield


def lines_of(name: str) -> list[str]:
    """The samples of a format."""
    return [line for other, line, _, _ in SAMPLES if other == name]


def test_every_format_has_a_sample() -> None:
    """No format is declared without a line that shows it."""
    assert {name for name, _, _, _ in SAMPLES} == set(NAMES)


@pytest.mark.matrix
@every
def test_every_field_of_a_line(
    engine: Any, name: str, line: str, moment: str | None, told: TOLD
) -> None:
    """Time, type, level, source, subject, message and payload, by SQL as by the exact rule."""
    form = registry.FORMATS[name]
    (found,) = one_by_one(engine, form, [line.encode()]).values()
    found = {k: v for k, v in found.items() if v is not None}
    if moment:
        assert found["time"] == dt.datetime.fromisoformat(moment).replace(tzinfo=dt.UTC)
    data = {
        k: int(v) if isinstance(v, Decimal) else v for k, v in dict(found.get("data", ())).items()
    }
    assert {k: v for k, v in data.items() if v is not None} == told.get("data", {})
    columns = ("type", "category", "level", "source", "subject", "message", "id")
    assert {k: found[k] for k in columns if k in found} == {
        k: v for k, v in told.items() if k != "data"
    }
    timed = mock.Mock(return_value=moment is not None)
    assert compare(engine, form, form.QUERY, [line.encode()], timed) == 1


@every
def test_each_line_is_of_its_own_format(name: str, line: str, moment: Any, told: TOLD) -> None:
    """A line is detected as what it is, in colours of a terminal too; others are less sure."""
    texts = [line, f"{line}\n", f"{line}\r\n\tat a.b\n", f"\x1b[36m{line}\x1b[0m\n"]
    for text in texts if name in NAMES else texts[:2]:
        assert name == registry.detect(text.encode(), text.encode(), "x.log").NAME, text
    others = {n: f.sniff([line.encode()]) for n, f in registry.FORMATS.items() if n in NAMES}
    assert [n for n, sure in others.items() if sure] == [name] * (name in NAMES)


def test_what_the_journal_says_between_lines() -> None:
    """Its remarks are events of their own, and `t` that is no date is no time."""
    remark = b"-- Boot 3f7a1e2b4c5d6e7f8091a2b3c4d5e6f7 --"
    assert registry.FORMATS["syslog"].parse(remark)["message"] == remark[3:-2].strip().decode()
    text = b"t=5 h=3\nt=6 h=4\n"
    assert registry.detect(text, text, "x.log").NAME == "plain"


def test_a_line_of_a_firewall_is_no_other(engine: Any) -> None:
    """A number at its beginning, as pf's filterlog has it, is no time of Exchange."""
    line = "5,,,1000000103,em0,match,block,in,4,0x0,,64,0,0,DF,6,tcp,60,192.0.2.1,192.0.2.2,1,22"
    (found,) = one_by_one(engine, registry.by_name("exchange"), [line.encode()]).values()
    assert found == "no line of exchange"


def test_objects_of_services(lake: lakelog.Lake, tmp_path: Path) -> None:
    """What programs under docker compose log as JSON is read as such, beside the lines of others;
    the source is the service."""
    path = tmp_path / "compose.log"
    path.write_text(
        'caddy  | {"level":"info","ts":1761019822.3152757,"logger":"http","msg":"up","k":1}\n'
        'web-1  | {"level":"warning","time":"2025-10-21T04:10:23Z","message":"s","source":"db"}\n'
        'web-1  | plain words\n\x1b[36mapi  | \x1b[0m{"event":"x","level":"error","n":2}\n'
    )
    report = lake.ingest(str(path))
    assert (report.files[0].format, report.events, report.quarantined) == ("compose-json", 4, 0)
    query = (
        "SELECT epoch_us(time), type, level, source, message, data FROM events ORDER BY position"
    )
    found = [(*row[:-1], json.loads(row[-1] or "{}")) for row in lake.sql(query).fetchall()]
    assert found == [
        (
            1761019822315276,
            "log",
            "INFO",
            "caddy",
            "up",
            {"level": "info", "logger": "http", "k": 1},
        ),
        (1761019823000000, "event", "WARN", "web-1", "s", {"level": "warning", "source": "db"}),
        (1761019823000000, "log", None, "web-1", "plain words", {}),
        (1761019823000000, "x", "ERROR", "api", None, {"event": "x", "n": 2}),
    ]
    assert [f.wrong for f in audit(lake.store, lake.branch_name, lake.engine, []).files] == [0]


def test_a_zone_may_be_named_by_a_city(engine: Any) -> None:
    """A time in the zone of a city is of that zone, where there is one, in summer and winter."""
    form = registry.FORMATS["php"]
    days = {
        "11-Oct-2023 22:14:15 Europe/Berlin": "2023-10-11T20:14:15",
        "11-Jan-2023 22:14:15.5 Europe/Berlin": "2023-01-11T21:14:15.500000",
        "29-Oct-2023 02:30:00 Europe/Berlin": "2023-10-29T01:30:00",
        "11-Oct-2023 22:14:15 Mars/Base": "2023-10-11T22:14:15",
    }
    lines = [f"[{day}] PHP Notice:  on".encode() for day in days]
    found = [form.events(line)[0] for line in lines]
    assert [event["time"].removesuffix("+00:00") for event in found] == [*days.values()]
    compare(engine, form, form.QUERY, lines, lambda _: True)


@pytest.mark.parametrize("few", [0, 1000])
def test_the_level_of_two_lines(engine: Any, few: int) -> None:
    """Java's own logging begins the second line with the level."""
    form, head = registry.FORMATS["jul"], "Oct 11, 2023 10:14:15 PM a.B m\n"
    lines = ("SEVERE: gone\n\tat a.b(C.java:1)\n", "CONFIG: x\n", "loud: x\n", "")
    text = "".join(head + line for line in lines).encode()
    with mock.patch.object(transform, "FEW", few):
        table = Transformer(engine, form, "o").run(Chunk(text, 0), final=True).table
    assert table["level"].to_pylist() == ["ERROR", "INFO", None, None]
    assert table["message"][0].as_py() == "SEVERE: gone\n\tat a.b(C.java:1)"


def test_statements_of_one_second(lake: lakelog.Lake, tmp_path: Path) -> None:
    """MariaDB tells the time once a second; the other statements have it, too."""
    path = tmp_path / "general.log"
    path.write_text(
        "/usr/sbin/mariadbd, Version: 10.5.8-MariaDB-log (Source). started with:\n"
        "Tcp port: 3306  Unix socket: /run/mysqld/mysqld.sock\n"
        "Time\t\t    Id Command\tArgument\n"
        "210228 15:52:47\t    12 Connect\troot@localhost on \n\t\t    12 Query\tSELECT 1,\n  2\n"
        "\t\t    12 Quit\t\n210228 15:52:48\t    13 Quit\n\t\t    14 Query\tSELECT 3\n"
    )
    report = lake.ingest(str(path))
    assert (report.files[0].format, report.events, report.quarantined) == ("mysql-general", 6, 0)
    query = "SELECT strftime(time, '%S'), data->>'thread', data->>'command', message FROM events"
    assert lake.sql(f"{query} ORDER BY position OFFSET 1").fetchall() == [
        ("47", "12", "Connect", "root@localhost on"),
        ("47", "12", "Query", "SELECT 1,\n  2"),
        ("47", "12", "Quit", None),
        ("48", "13", "Quit", None),
        ("48", "14", "Query", "SELECT 3"),
    ]
    (file,) = audit(lake.store, lake.branch_name, lake.engine, []).files
    assert file.wrong == 0


@pytest.mark.matrix
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=share(10))
@given(data=st.data())
def test_programs_by_sql_are_those_of_the_exact_rule(engine: Any, name: str, data: Any) -> None:
    """Whatever becomes of lines, full and narrowed queries agree with the exact rule."""
    form, seeds = registry.FORMATS[name], lines_of(name)
    lines = data.draw(st.lists(edited(seeds), min_size=8, max_size=20))
    few = data.draw(st.lists(st.sampled_from(seeds), min_size=1, max_size=3))
    for query in (form.QUERY, *form.cheaper([line.encode() for line in few])):
        compare(engine, form, query, lines, lambda line: "time" in form.parse(line.strip()))


@each
def test_what_follows_a_line_stays_with_it(
    engine: Any, name: str, line: str, moment: Any, told: TOLD
) -> None:
    """Lines that begin otherwise are one event with the line before them."""
    form = registry.FORMATS[name]
    text = f"{line}\n\tat a.b(C.java:1)\n  more: x\n{line}\n".encode()
    with mock.patch.object(transform, "FEW", 1000):
        table = Transformer(engine, form, "o").run(Chunk(text, 0), final=True).table
    first = told.get("message")
    whole = "\n".join(filter(None, (first, "\tat a.b(C.java:1)\n  more: x")))
    assert table["message"].to_pylist() == [whole, first]


@pytest.mark.matrix
@pytest.mark.parametrize("name", NAMES)
def test_no_line_takes_long(name: str) -> None:
    """However a line goes on after a good beginning, the time grows with its length alone."""
    form = registry.FORMATS[name]
    for seed, sign in itertools.product(lines_of(name), (' "', "a.", "[", "|", ", ", ": ", "- ")):
        for part in (1, 2, 3):
            begin = seed[: len(seed) * part // 3]
            assert_linear(lambda line: form.sniff([line.encode()]), begin, sign, "\0")


@pytest.mark.needs("../shared")
@pytest.mark.parametrize(
    ("name", "form", "events"),
    [
        ("services/freeswitch__freeswitch.log", "freeswitch", 5),
        ("services/freeswitch-bf__freeswitch.log", "freeswitch", None),
    ],
)
def test_real_files_of_programs(
    lake: lakelog.Lake, name: str, form: str, events: int | None
) -> None:
    """Each file is taken for what it is, no line is lost, and an audit agrees."""
    report = lake.ingest(str(SHARED / name))
    lines = len((Path(SHARED) / name).read_bytes().splitlines())
    assert (report.files[0].format, report.quarantined) == (form, 0)
    assert report.events == (events or lines)
    assert [f.wrong for f in audit(lake.store, lake.branch_name, lake.engine, []).files] == [0]
