"""Formats of text on real files, against facts counted by other means."""

from __future__ import annotations

import csv
import datetime as dt
import re
from codecs import BOM_UTF8
from collections import Counter
from typing import Any
from unittest import mock

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.formats import access, logfmt, styles
from lakelog.ingest import transform
from lakelog.ingest.transform import Transformer
from lakelog.lines.pieces import Chunk
from tests.support.effort import share
from tests.support.text_facts import FACTS, SHARED, events
from tests.support.text_lines import begins_record

pytestmark = pytest.mark.needs("../shared")
KAFKA = "rotated/kafka0/"


@pytest.fixture(params=[0, 500])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Lines so few are decided one by one: with 0 all by SQL where it can."""
    monkeypatch.setattr(transform, "FEW", request.param)
    return int(request.param)


def labels(name: str) -> list[dict[str, str]]:
    """What people wrote down of every line of a file."""
    with open(SHARED / f"loghub/{name}.log_structured.csv", newline="") as file:
        return list(csv.DictReader(file))


def counted(values: Any) -> dict[Any, int]:
    """How often each value is there."""
    return dict(Counter(values))


def test_an_apache_access_log(lake: lakelog.Lake) -> None:
    """Every line is an event; statuses, methods, paths, clients, bytes and times are right."""
    name = "web/apache_combined_access.log"
    known, report = FACTS[name], lake.ingest(str(SHARED / name))
    assert (report.events, report.quarantined) == (known["clf_lines"], known["not_clf"])
    found = events(lake)
    data = [event["data"] for event in found]
    assert counted(str(d["status"]) for d in data) == known["status"]
    assert counted(d["method"] for d in data) == known["methods"]
    assert sum(d["bytes"] or 0 for d in data) == known["sum_response_bytes"]
    hosts, paths = counted(d["host"] for d in data), counted(d["path"] for d in data)
    assert len(hosts) == known["distinct_client_ip"]
    assert all(hosts[host] == n for host, n in known["top_client_ip"])
    assert all(paths[path] == n for path, n in known["top_path"])
    shape = "[%d/%b/%Y:%H:%M:%S +0000]"
    assert found[0]["time"].strftime(shape) == known["first_time"]
    assert found[-1]["time"].strftime(shape) == known["last_time"]
    levels = counted(e["level"] for e in found)
    assert levels == {"ERROR": 3, "WARN": 2 + 213 + 2, "INFO": 10_000 - 220}
    lines = (SHARED / name).read_text().splitlines()
    for event, line in zip(found, lines, strict=True):
        asked, rest = re.fullmatch(r'[^"]*"((?:[^"\\]|\\.)*)" (.*)', line).groups()  # type: ignore[union-attr]
        assert event["message"] == asked.replace('\\"', '"').replace("\\\\", "\\")
        assert rest.startswith(f"{event['data']['status']} ")


def _access_logs() -> list[str]:
    logs = [name for name, known in FACTS.items() if "clf_lines" in known]
    return [name for name in logs if name.startswith("services/")]


@pytest.mark.matrix
@pytest.mark.parametrize("name", _access_logs())
@pytest.mark.usefixtures("few")
def test_access_logs_of_services(lake: lakelog.Lake, name: str) -> None:
    """Lines, statuses, methods and bytes of every access log are those of the facts."""
    known, report = FACTS[name], lake.ingest(str(SHARED / name))
    assert (report.events, report.quarantined) == (known["clf_lines"] + known["not_clf"], 0)
    found = [event["data"] for event in events(lake) if event["type"] == "access"]
    data = [data for data in found if "vhost" not in data]
    assert len(data) == known["clf_lines"]
    assert counted(str(d["status"]) for d in data) == known["status"]
    assert sum(d["bytes"] or 0 for d in data) == known["sum_response_bytes"]
    if "malformed" not in name:  # whose requests have neither, though they have words
        assert counted(d["method"] for d in data) == known["methods"]
        paths = counted(d["path"] for d in data)
        assert all(paths[path] == n for path, n in known["top_path"])


def test_apache_errors_are_as_people_read_them(lake: lakelog.Lake) -> None:
    """Time, level and message of every line of an error log are the labels'."""
    report = lake.ingest(str(SHARED / "loghub/Apache_2k.log"))
    known = FACTS["loghub/Apache_2k.log"]
    assert (report.events, report.quarantined) == (known["nonblank_lines"], 0)
    found = events(lake)
    assert counted(e["level"] for e in found) == {
        "ERROR": int(known["error_lines"]),
        "INFO": int(known["notice_lines"]),
    }
    for event, label in zip(found, labels("Apache_2k"), strict=True):
        assert f"{event['time']:%a %b %d %H:%M:%S %Y}" == label["Time"]
        assert event["message"] == label["Content"].strip()


@pytest.mark.parametrize(
    ("name", "shape"), [("HDFS_2k", "%y%m%d%H%M%S"), ("Spark_2k", "%y/%m/%d%H:%M:%S")]
)
def test_hadoop_logs_are_as_people_read_them(lake: lakelog.Lake, name: str, shape: str) -> None:
    """Time, level, component and message of every line are the labels'."""
    report = lake.ingest(str(SHARED / f"loghub/{name}.log"))
    assert (report.events, report.quarantined) == (2000, 0)
    for event, label in zip(events(lake), labels(name), strict=True):
        assert event["time"].strftime(shape) == label["Date"] + label["Time"]
        assert (event["level"], event["source"]) == (label["Level"], label["Component"])
        assert event["message"] == label["Content"].strip()
        assert event["data"].get("pid") == label.get("Pid")


def test_ssh_logs_are_as_people_read_them(lake: lakelog.Lake) -> None:
    """Date, host, process and message of every line are the labels'; the year is the last one."""
    before = dt.datetime.now(dt.UTC)
    report = lake.ingest(str(SHARED / "loghub/OpenSSH_2k.log"))
    known = FACTS["loghub/OpenSSH_2k.log"]
    assert (report.events, report.quarantined) == (known["nonblank_lines"], 0)
    found = events(lake)
    for event, label in zip(found, labels("OpenSSH_2k"), strict=True):
        assert (
            f"{event['time']:%b %-d %H:%M:%S}" == f"{label['Date']} {label['Day']} {label['Time']}"
        )
        assert (event["source"], event["data"]["host"]) == ("sshd", label["Component"])
        assert event["data"]["procid"] == label["Pid"]
        assert event["message"] == label["Content"].strip()
    year = dt.timedelta(days=367)
    assert all(before - year < e["time"] < before + dt.timedelta(days=1, hours=1) for e in found)
    texts = [event["message"] for event in found]
    assert sum("Failed password" in text for text in texts) == int(known["failed_password"])
    assert sum(text.startswith("Invalid user") for text in texts) == int(known["invalid_user"])


@pytest.mark.matrix
@pytest.mark.parametrize("name", [n for n in FACTS if n.startswith(KAFKA)])
@pytest.mark.usefixtures("few")
def test_kafka_logs(lake: lakelog.Lake, name: str) -> None:
    """Events, levels, first and last time are the facts', and no line of a stack trace is lost."""
    known, report = FACTS[name], lake.ingest(str(SHARED / name))
    assert report.events == known["event_start_lines"]
    assert report.quarantined <= 1
    found = events(lake)
    more = sum(e["message"].count("\n") for e in found)
    more += sum(r[0].count("\n") + 1 for r in lake.sql("SELECT line FROM quarantine").fetchall())
    assert more == known["continuation_lines"]
    assert counted(e["level"] for e in found) == known["levels"]
    for event, stamp in ((found[0], known["first_ts"]), (found[-1], known["last_ts"])):
        assert f"[{event['time']:%Y-%m-%d %H:%M:%S,%f}"[:-3] + "]" == stamp
    reasons = lake.sql("SELECT DISTINCT reason FROM quarantine").fetchall()
    assert reasons in ([], [("a line that continues another",)])


def test_pairs_of_real_programs(lake: lakelog.Lake) -> None:
    """Every line of logfmt is an event, with its levels and all other keys in data."""
    report = lake.ingest(str(SHARED / "lnav/logfile_logfmt.0"))
    assert (report.events, report.quarantined) == (5, 0)
    found = events(lake)
    assert [e["level"] for e in found] == ["ERROR", "WARN", "INFO", "INFO", "ERROR"]
    assert found[0]["time"] == dt.datetime(2021, 9, 15, 21, 17, 10, 220731, tzinfo=dt.UTC)
    assert found[3]["message"] == "Pod deleted"
    assert set(found[3]["data"]) == {"namespace", "pod", "uid"}
    assert (found[0]["data"]["reason"], found[0]["data"]["status"]) == ("", "Pending")


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("name", "form", "counts"),
    [
        ("lnav/logfile_rollover.2", "syslog", (375, 0)),
        ("lnav/logfile_syslog.3", "syslog", (17, 0)),
        ("lnav/logfile_bad_syslog.0", "syslog", (4, 0)),
        ("lnav/logfile_haproxy.0", "syslog", (17, 0)),
        ("lnav/logfile_crlf.0", "applog", (2, 0)),
        ("lnav/logfile_java.0", "applog", (20, 0)),
        ("lnav/logfile_bunyan.0", "bunyan", (10, 0)),
        ("lnav/logfile_w3c.2", "w3c", (14, 0)),
        ("services/charon-ipsec-logs__charon-ipsec-logs.log", "syslog", (154, 0)),
        ("services/opnsense-gui-auth__opnsense-gui-auth.log", "syslog", (6, 0)),
        ("services/sabnzbd-logs__sabnzbd-logs.log", "applog", (5, 0)),
        ("services/home-assistant__home-assistant-logs.log", "home-assistant", (14, 0)),
        ("services/nginx_req_limit_exceeded__nginx_req_limit_exceeded.log", "applog", (9, 0)),
        ("services/modsecurity-logs__modsecurity-logs.log", "applog", (13, 0)),
        ("services/tcpudp-flood-traefik__tcpudp-flood-traefik.log", "logfmt", (1226, 0)),
        ("services/authentik-logs__authentik-logs.log", "structlog", (3, 0)),
    ],
)
@pytest.mark.usefixtures("few")
def test_real_files_are_told_and_counted(
    lake: lakelog.Lake, name: str, form: str, counts: tuple[int, int]
) -> None:
    """Each file is taken for what it is, and every line is stored or quarantined."""
    report = lake.ingest(str(SHARED / name))
    assert report.files[0].format == form
    assert (report.events, report.quarantined) == counts


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (access.FORM, "web/apache_combined_access.log"),
        (styles.SYSLOG, "loghub/OpenSSH_2k.log"),
        (access.FORM, "services/CVE-2024-38475__CVE-2024-38475.log"),
        (styles.SYSLOG, "services/charon-ipsec-bf__charon-ipsec-bf.log"),
        (logfmt.FORM, "lnav/logfile_logfmt.0"),
        (styles.APPLOG, "loghub/Apache_2k.log"),
        (styles.APPLOG, "loghub/HDFS_2k.log"),
        (styles.APPLOG, f"{KAFKA}controller.log.2016-12-19-18"),
    ],
)
@settings(max_examples=share(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_real_lines_with_bytes_changed(form: Any, name: str, data: Any) -> None:
    """Whatever bytes of real lines become, every line is one row or one bad line."""
    spoilt = bytearray(b"\n".join((SHARED / name).read_bytes().split(b"\n")[:60]))
    for _ in range(data.draw(st.integers(1, 60))):
        at = data.draw(st.integers(0, len(spoilt) - 1))
        spoilt[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    text = bytes(spoilt) + b"\n"
    with duckdb.connect(":memory:", config={"threads": "1"}) as engine:
        engine.execute("SET TimeZone = 'UTC'")
        with mock.patch.object(transform, "FEW", 0):
            made = Transformer(lambda: engine, form, "o").run(Chunk(text, 0), final=True)
    rows = made.table.num_rows if made.table is not None else 0
    lines = [line + b"\n" for line in text.split(b"\n")[:-1]]
    for at in range(len(lines) - 1, 0, -1):
        if not begins_record(form, lines[at]):
            lines[at - 1 : at + 1] = [lines[at - 1] + lines[at]]
    assert rows + len(made.bad) == sum(bool(x.strip().removeprefix(BOM_UTF8)) for x in lines)
