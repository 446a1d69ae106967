"""Kinds of lines that programs write, each read as a person would read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.ingest import transform

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "bsd numbers": (
        "Nov 24 10:00:{i} <4.3> host sshd[7]: refused",
        {"level": "ERROR", "source": "sshd", "message": "refused", "host": "host", "facility": "4"},
    ),
    "bsd names": (
        "Nov 24 10:00:{i} <auth.info> host sshd[7]: accepted",
        {"level": "INFO", "source": "sshd", "message": "accepted", "host": "host"},
    ),
    "bsd name of a level": (
        "Nov 24 10:00:{i} <kern.crit> host kernel: out of memory",
        {"level": "FATAL", "source": "kernel", "facility": "kern"},
    ),
    "esxi": (
        "2026-11-24T10:00:{i}.123Z In(14) vobd[2098]: started",
        {"level": "INFO", "source": "vobd", "message": "started", "procid": "2098", "pri": 14},
    ),
    "esxi warning": (
        "2026-11-24T10:00:{i}.123Z Wa(180) vmkwarning: cpu1:2097)late",
        {"level": "WARN", "source": "vmkwarning", "message": "cpu1:2097)late"},
    ),
    "syslog with a year": (
        "Oct 27 2015 09:24:{i} test1.example.org screensharingd[1170]: SUCCEEDED",
        {"source": "screensharingd", "message": "SUCCEEDED", "time": "2015-10-27 09:24"},
    ),
    "bunyan as text": (
        "[2026-11-24T10:00:{i}.123Z]  INFO: myapp/123 on host: listening",
        {"level": "INFO", "message": "myapp/123 on host: listening"},
    ),
    "a level in a message of syslog": (
        "Nov 24 10:00:{i} mx1 postfix/smtpd[7]: warning: hostname x does not resolve",
        {
            "level": "WARN",
            "source": "postfix/smtpd",
            "message": "warning: hostname x does not resolve",
        },
    ),
    "a priority before that level": (
        "<30>Nov 24 10:00:{i} mx1 sshd[7]: error: kex_exchange_identification",
        {"level": "INFO", "source": "sshd"},
    ),
    "a word that is no level": (
        "Nov 24 10:00:{i} web1 sudo[7]: root: TTY=pts/0",
        {"level": None, "source": "sudo", "message": "root: TTY=pts/0"},
    ),
    "neo4j": (
        "2026-11-24 10:00:{i}.160+0000 WARN  [o.n.k.i.Database] slow",
        {"level": "WARN", "source": "o.n.k.i.Database", "message": "slow"},
    ),
    "log4net with a context": (
        "2026-11-24 10:00:{i},160 [12] WARN  MyApp.Service [(null)] - slow query",
        {"level": "WARN", "source": "MyApp.Service", "message": "slow query", "thread": "12"},
    ),
    "vault": (
        "2026-11-24T10:00:{i}.160Z [INFO]  core: vault is unsealed",
        {"level": "INFO", "source": "core", "message": "vault is unsealed"},
    ),
    "level first": (
        "ERROR    2025-07-16T19:42:{i} - Incorrect username or password",
        {"level": "ERROR", "message": "Incorrect username or password"},
    ),
    "ctime and a dash": (
        "Wed Apr 14 08:11:{i} 2021 - OK - [127.0.0.1] GET /monitorix-cgi/",
        {"time": "2021-04-14 08:11", "message": "OK - [127.0.0.1] GET /monitorix-cgi/"},
    ),
    "roundcube": (
        "[22-Jan-2013 22:28:{i} +0200]: FAILED login for user1 from 192.0.43.10",
        {"time": "2013-01-22 20:28", "message": "FAILED login for user1 from 192.0.43.10"},
    ),
    "mysql to 5.6": (
        "130324  0:04:{i} [Warning] Access denied for user root",
        {"time": "2013-03-24 00:04", "level": "WARN", "message": "Access denied for user root"},
    ),
    "erlang": (
        "=ERROR REPORT==== 14-Jul-2013::17:53:{i} ===\naccepting AMQP connection",
        {"time": "2013-07-14 17:53", "level": "ERROR", "message": "accepting AMQP connection"},
    ),
    "compose and pairs": (
        'miniflux  | time=2024-01-12T22:54:{i}.307Z level=WARN msg="Incorrect username"',
        {"level": "WARN", "source": "miniflux", "message": "Incorrect username"},
    ),
    "compose and objects": (
        'web-1  | {"level":"info","ts":"2026-11-24T10:00:{i}.5Z","msg":"m"}',
        {"level": "INFO", "source": "web-1", "message": "m"},
    ),
    "lvl": (
        '{"ts":"2013-09-06T20:00:{i}Z","logger":"com.example","lvl":"WARN","msg":"trace test"}',
        {"level": "WARN", "source": "com.example", "message": "trace test", "type": "log"},
    ),
    "log15": (
        '{"t":"2013-09-06T20:00:{i}Z","lvl":"eror","msg":"trace test"}',
        {"time": "2013-09-06 20:00", "level": "ERROR", "message": "trace test"},
    ),
    "class, then thread": (
        "2024-10-10 12:59:{i},237 ERROR s.s.S.CustomHandler [qtp8777-102] Failed login attempt",
        {"source": "s.s.S.CustomHandler", "message": "Failed login attempt", "level": "ERROR"},
    ),
    "level after a colon": (
        "2023-09-23 10:33:{i}: [error] App: 403: POST /api/sessions",
        {"level": "ERROR", "message": "App: 403: POST /api/sessions"},
    ),
    "auditd of Linux 2.6": (
        "type=USER_LOGIN msg=audit(13733307{i}.415:4063): user pid=11998 uid=0 ses=1"
        " msg='op=login acct=\"root\" res=failed'",
        {"message": None, "level": "WARN", "pid": "11998"},
    ),
    "apt": (
        "\nStart-Date: 2026-11-24  10:00:{i}\nCommandline: apt install x\n"
        "Install: x:amd64 (1.0)\nEnd-Date: 2026-11-24  10:01:{i}",
        {"time": "2026-11-24 10:00"},
    ),
}


def stored(lake: lakelog.Lake, path: Path) -> list[dict[str, Any]]:
    """The events of a file, the members of their payload beside their columns."""
    report = lake.ingest(str(path))
    assert (report.quarantined, report.arrivals) == (0, 0)
    query = "SELECT * REPLACE (strftime(time, '%Y-%m-%d %H:%M:%S') AS time) FROM events"
    table = lake.sql(f"{query} ORDER BY position").to_arrow_table()
    return [{**row, **json.loads(row["data"] or "{}")} | columns(row) for row in table.to_pylist()]


def columns(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row, which count more than members of its payload."""
    return {name: row[name] for name in ("time", "type", "source", "level", "message")}


@pytest.mark.matrix
@pytest.mark.parametrize("few", [0, 500])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_read_as_a_person_would(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, few: int
) -> None:
    """Each line, or block of lines, is one event with what it says; by the engine as line by
    line."""
    monkeypatch.setattr(transform, "FEW", few)
    line, meant = KINDS[kind]
    path = tmp_path / "some.log"
    path.write_text("".join(line.replace("{i}", f"{n:02}") + "\n" for n in range(10, 20)))
    found = stored(lake, path)
    assert len(found) == 10
    start = {key: value for key, value in meant.items() if key != "time"}
    for event in found:
        assert {name: event.get(name) for name in start} == start
        assert event["time"].startswith(meant.get("time", ""))


@pytest.mark.parametrize("few", [0, 500])
def test_texts_of_structlog_are_messages(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """A log has one type however many texts there are; a member that is a type stays one, and so
    does an event's name of other programs."""
    monkeypatch.setattr(transform, "FEW", few)
    lines: list[dict[str, Any]] = [
        {
            "event": "started" if n % 5 == 0 else f"request {n} done in 3 ms",
            "level": "info",
            "logger": "app",
            "timestamp": f"2026-11-24T10:00:{n % 60:02}Z",
        }
        for n in range(600)
    ]
    (tmp_path / "a.log").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = stored(lake, tmp_path / "a.log")
    assert {event["type"] for event in found} == {"log"}
    assert {event["source"] for event in found} == {"app"}
    assert [event["message"] for event in found] == [line["event"] for line in lines]
    assert {event["level"] for event in found} == {"INFO"}


def test_sentences_make_no_types(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Also where structlog was told to write neither a level nor a logger."""
    lines = [{"event": f"request {n} took {n} ms", "ts": 1_700_000_000 + n} for n in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = stored(lake, tmp_path / "a.jsonl")
    assert {event["type"] for event in found} == {"log"}
    assert [event["message"] for event in found] == [line["event"] for line in lines]


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ({"event": "click", "level": "info"}, "click"),
        ({"event": "order placed", "user": 7}, "order placed"),
        ({"event": "order placed", "level": "info", "type": "shop"}, "shop"),
        ({"event": "user created", "level": "info", "logger": "a", "message": "m"}, "user created"),
    ],
)
def test_an_event_that_is_a_name_is_a_type(
    lake: lakelog.Lake, tmp_path: Path, members: dict[str, Any], kind: str
) -> None:
    """Only what structlog alone writes is read as its message."""
    line = {"time": "2026-11-24T10:00:00Z", **members}
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(line)}\n" * 3)
    assert {event["type"] for event in stored(lake, tmp_path / "a.jsonl")} == {kind}
