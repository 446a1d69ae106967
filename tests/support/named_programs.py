"""One record of each program that collection must read as its own format, see `named_formats`."""

from __future__ import annotations

import json
from decimal import Decimal

from tests.support.named_formats import (
    EVENT_DATA,
    EVENT_XML,
    LAUREL,
    LOGON,
    WEBHOOKS,
    Sample,
    event,
    shared_json,
)

REQUEST = "req-38101a0b-2096-447d-96ea-a692162415ae"
INSTANCE = "b9000564-fe1a-409b-b8cc-1e88b294cd1d"
QUERIED = (
    "client @0x7f3a2c001234 192.0.2.10#16361 (www.example.com): query: www.example.com IN A"
    " +E(0)K (198.51.100.7)"
)
UPLOAD = 'OK UPLOAD: Client "::ffff:192.0.2.2", "/srv/a b", 5797085 bytes, 108527.26Kbyte/sec'
REPLY = 'FTP response: Client "192.0.2.2", "530 Permission denied."'
RUN = "8f507cfc-1234-4697-b07a-ac58fc914c95"
EVENT_ID = "31132629274945519779805322857203735586714454643391594505"
ENTRIES = [
    {
        "insertId": "42",
        "jsonPayload": {"message": "started", "attempt": 3},
        "logName": "projects/shop/logs/app",
        "receiveTimestamp": "2024-01-01T10:00:01.500000000Z",
        "resource": {"type": "gce_instance", "labels": {"zone": "europe-west3-a"}},
        "severity": "NOTICE",
        "timestamp": "2024-01-01T10:00:00.123456789Z",
    },
    {
        "insertId": "43",
        "logName": "projects/shop/logs/syslog",
        "severity": "ERROR",
        "textPayload": "disk failed",
        "timestamp": "2024-01-01T10:00:01Z",
    },
]

PROGRAMS: tuple[Sample, ...] = (
    # BIND 9 ARM, The logging Statement: print-category, print-severity and print-time yes
    Sample(
        "BIND 9",
        "bind",
        f"15-Mar-2023 10:18:34.123 queries: info: {QUERIED}\n",
        (
            event(
                "2023-03-15T10:18:34.123000",
                {
                    "client": "192.0.2.10",
                    "port": 16361,
                    "name": "www.example.com",
                    "class": "IN",
                    "record": "A",
                    "flags": "+E(0)K",
                    "server": "198.51.100.7",
                },
                type="query",
                level="INFO",
                source="queries",
                subject="www.example.com",
                message=QUERIED,
            ),
        ),
    ),
    # the same page: print-time alone, and with print-category
    Sample(
        "BIND 9, without severities",
        "bind",
        f"15-Mar-2023 10:18:34.123 {QUERIED}\n"
        "15-Mar-2023 10:18:35.000 security: client 192.0.2.1#3076 (example.com): query (cache)"
        " 'example.com/ANY/IN' denied\n",
        (
            event(
                "2023-03-15T10:18:34.123000",
                {
                    "client": "192.0.2.10",
                    "port": 16361,
                    "name": "www.example.com",
                    "class": "IN",
                    "record": "A",
                    "flags": "+E(0)K",
                    "server": "198.51.100.7",
                },
                type="query",
                subject="www.example.com",
                message=QUERIED,
            ),
            event(
                "2023-03-15T10:18:35.000000",
                source="security",
                message="client 192.0.2.1#3076 (example.com): query (cache) 'example.com/ANY/IN'"
                " denied",
            ),
        ),
    ),
    # Grafana before version 8.5: t, lvl with its four letters
    Sample(
        "Grafana logfmt (t=)",
        "logfmt",
        't=2018-10-01T21:17:10+0200 lvl=eror msg="Request Completed" logger=context userId=0'
        " status=500 time_ms=1.50\n",
        (
            event(
                "2018-10-01T19:17:10.000000",
                {
                    "logger": "context",
                    "userId": "0",
                    "status": "500",
                    "time_ms": "1.50",
                    "level": "eror",
                },
                level="ERROR",
                source="context",
                message="Request Completed",
            ),
        ),
    ),
    # Gin, defaultLogFormatter: to a file, and in the colours of a terminal
    Sample(
        "Gin",
        "gin",
        '[GIN] 2021/03/04 - 10:11:12 | 404 |      94.127µs |      192.0.2.10 | GET      "/a?x=1"\n'
        "[GIN] 2021/03/04 - 10:11:13 |\x1b[97;42m 200 \x1b[0m|     1.5023ms |      192.0.2.10"
        ' |\x1b[97;44m POST    \x1b[0m "/b"\n',
        (
            event(
                "2021-03-04T10:11:12.000000",
                {
                    "status": 404,
                    "latency": "94.127µs",
                    "client": "192.0.2.10",
                    "method": "GET",
                    "path": "/a",
                    "query": "x=1",
                },
                type="access",
                level="WARN",
                message='GET      "/a?x=1"',
            ),
            event(
                "2021-03-04T10:11:13.000000",
                {
                    "status": 200,
                    "latency": "1.5023ms",
                    "client": "192.0.2.10",
                    "method": "POST",
                    "path": "/b",
                },
                type="access",
                level="INFO",
                message='POST    \x1b[0m "/b"',
            ),
        ),
    ),
    # CouchDB manual, Logging; couch_log_writer_file and chttpd's request line
    Sample(
        "CouchDB",
        "couchdb",
        "[notice] 2024-01-20T13:54:06.579985Z couchdb@127.0.0.1 <0.17607.12> e1fed412f8"
        " db.example.com:5984 192.0.2.3 ada GET /_all_dbs?limit=5 404 ok 1\n",
        (
            event(
                "2024-01-20T13:54:06.579985",
                {
                    "pid": "<0.17607.12>",
                    "request_id": "e1fed412f8",
                    "host": "db.example.com:5984",
                    "client": "192.0.2.3",
                    "user": "ada",
                    "method": "GET",
                    "path": "/_all_dbs?limit=5",
                    "status": 404,
                    "result": "ok",
                    "duration_ms": 1,
                    "level": "notice",
                },
                type="access",
                level="INFO",
                source="couchdb@127.0.0.1",
                message="GET /_all_dbs?limit=5",
            ),
        ),
    ),
    # MySQL manual, The General Query Log; its Query_log::write of version 8
    Sample(
        "MySQL general log",
        "mysql-general",
        "2023-07-31T08:34:16.116872Z\t   14 Connect\tada@192.0.2.1 on shop using TCP/IP\n"
        "2023-07-31T08:34:16.200000+02:00\t   14 Query\tSELECT 1\nFROM dual\n",
        (
            event(
                "2023-07-31T08:34:16.116872",
                {"thread": "14", "command": "Connect"},
                type="query",
                message="ada@192.0.2.1 on shop using TCP/IP",
            ),
            event(
                "2023-07-31T06:34:16.200000",
                {"thread": "14", "command": "Query"},
                type="query",
                message="SELECT 1\nFROM dual",
            ),
        ),
    ),
    # vaultwarden, wiki, Logging: LOG_TIMESTAMP_FORMAT's default
    Sample(
        "vaultwarden",
        "vaultwarden",
        "[2022-02-03 16:10:11.219][vaultwarden::api::identity][ERROR] Username or password is"
        " incorrect. Try again. IP: 2001:db8::1. Username: ada@example.com.\n",
        (
            event(
                "2022-02-03T16:10:11.219000",
                level="ERROR",
                source="vaultwarden::api::identity",
                message="Username or password is incorrect. Try again. IP: 2001:db8::1."
                " Username: ada@example.com.",
            ),
        ),
    ),
    # vsftpd.conf(5): xferlog_std_format=NO, and log_ftp_protocol=YES
    Sample(
        "vsftpd",
        "vsftpd",
        f"Mon Jun  8 12:12:43 2020 [pid 27307] [ada] {UPLOAD}\n"
        f"Mon Jun 8 12:12:44 2020 [pid 27307] [ada] {REPLY}\n",
        (
            event(
                "2020-06-08T12:12:43.000000",
                {
                    "pid": "27307",
                    "user": "ada",
                    "result": "OK",
                    "action": "UPLOAD",
                    "client": "::ffff:192.0.2.2",
                    "path": "/srv/a b",
                    "bytes": 5797085,
                    "rate": "108527.26Kbyte/sec",
                },
                level="INFO",
                subject="/srv/a b",
                message=f"[ada] {UPLOAD}",
            ),
            event(
                "2020-06-08T12:12:44.000000",
                {
                    "pid": "27307",
                    "user": "ada",
                    "action": "FTP response",
                    "client": "192.0.2.2",
                    "text": "530 Permission denied.",
                },
                message=f"[ada] {REPLY}",
            ),
        ),
    ),
    # shared data: the log of a FreeSWITCH, line 4
    Sample(
        "FreeSWITCH",
        "freeswitch",
        "",
        (
            event(
                "2023-03-06T15:13:32.685002",
                {"idle": "96.83", "level": "WARNING"},
                level="WARN",
                source="sofia_reg.c:3223",
                message="SIP auth failure (INVITE) on sofia profile '123' for [123] from ip"
                " 1.2.3.4",
            ),
        ),
        shared=("services/freeswitch__freeswitch.log", 4),
    ),
    # Los Alamos National Laboratory, USENIX CFDR, HPC: id, node, component, state, time, flag, text
    Sample(
        "HPC",
        "hpc",
        "134681 node-246 unix.hw state_change.unavailable 1077804742 1 Component State Change:"
        " Component \\042alt0\\042 is in the unavailable state\n",
        (
            event(
                "2004-02-26T14:12:22.000000",
                {
                    "log_id": "134681",
                    "node": "node-246",
                    "state": "state_change.unavailable",
                    "flag": "1",
                },
                source="unix.hw",
                subject="node-246",
                message="Component State Change: Component \\042alt0\\042 is in the unavailable"
                " state",
            ),
        ),
    ),
    # oslo.log manual, logging_context_format_string, behind the file's name as grep writes it
    Sample(
        "OpenStack with a file-name prefix",
        "openstack",
        f"nova-compute.log.1 2017-05-16 00:00:04.500 2931 AUDIT nova.compute.manager [{REQUEST}"
        f" 113d 54fa - - -] [instance: {INSTANCE}] VM Started (Lifecycle Event)\n",
        (
            event(
                "2017-05-16T00:00:04.500000",
                {
                    "file": "nova-compute.log.1",
                    "pid": "2931",
                    "context": f"{REQUEST} 113d 54fa - - -",
                    "instance": INSTANCE,
                    "level": "AUDIT",
                },
                level="INFO",
                source="nova.compute.manager",
                subject=INSTANCE,
                message="VM Started (Lifecycle Event)",
            ),
        ),
    ),
    # Docker manual, compose logs, of a program with Python's default time, which has a comma
    Sample(
        "Compose with a comma in the time",
        "compose",
        "web-1  | 2024-04-25 05:32:35,584 - app.views - WARNING - slow query\n",
        (
            event(
                "2024-04-25T05:32:35.584000",
                {"logger": "app.views", "level": "WARNING"},
                level="WARN",
                source="web-1",
                message="slow query",
            ),
        ),
    ),
    # shared data: laurel, line 6; its ID, which holds the time, is the subject
    Sample(
        "laurel",
        "laurel",
        "",
        (
            event(
                "2023-10-05T11:56:29.042000",
                {k: v for k, v in shared_json(LAUREL, 6).items() if k != "ID"},
                type="audit",
                subject="1696506989.042:1262",
            ),
        ),
        shared=(LAUREL, 6),
    ),
    # Microsoft, event 4625, in its XML view, as `wevtutil qe Security /f:xml` writes it
    Sample("Windows event XML", "winevent", EVENT_XML, (LOGON,), file="security.xml"),
    # evtx_dump, README: -o jsonl, which puts each record into a line
    Sample(
        "EVTX export, JSON lines", "evtx", json.dumps(EVENT_DATA) + "\n", (LOGON,), file="e.jsonl"
    ),
    # evtx_dump, README: its default, XML behind the number of each record
    Sample(
        "EVTX export, XML",
        "winevent",
        f'Record 1\n<?xml version="1.0" encoding="utf-8"?>\n{EVENT_XML}',
        (LOGON,),
        file="e.xml",
    ),
    # AWS CLI reference, logs filter-log-events, Output
    Sample(
        "CloudWatch export, JSON",
        "json",
        json.dumps(
            {
                "events": [
                    {
                        "ingestionTime": 1396035394997,
                        "timestamp": 1396035378988,
                        "message": "ERROR Event 1",
                        "logStreamName": "my-log-stream-1",
                        "eventId": EVENT_ID,
                    }
                ],
                "searchedLogStreams": [],
            },
            indent=4,
        )
        + "\n",
        (
            event(
                "2014-03-28T19:36:18.988000",
                {
                    "ingestionTime": 1396035394997,
                    "logStreamName": "my-log-stream-1",
                    "eventId": EVENT_ID,
                    "searchedLogStreams": [],
                },
                subject="my-log-stream-1",
                id=EVENT_ID,
                message="ERROR Event 1",
            ),
        ),
        file="events.json",
    ),
    # CloudWatch Logs user guide, Exporting log data to Amazon S3: the time, then the event's text,
    # here of a function as the Lambda developer guide shows it, of Node.js and of Python
    Sample(
        "CloudWatch export to S3",
        "aws-lambda",
        f"2020-04-01T18:44:03.123Z START RequestId: {RUN} Version: $LATEST\n"
        f"2020-04-01T18:44:03.200Z 2020-04-01T18:44:03.187Z\t{RUN}\tINFO\tENVIRONMENT\n"
        f"2020-04-01T18:44:03.201Z [WARNING]\t2020-04-01T18:44:03.188Z\t{RUN}\tretry\n",
        (
            event(
                "2020-04-01T18:44:03.123000",
                {"phase": "START", "request_id": RUN},
                message=f"START RequestId: {RUN} Version: $LATEST",
            ),
            event(
                "2020-04-01T18:44:03.187000",
                {"request_id": RUN},
                level="INFO",
                message="ENVIRONMENT",
            ),
            event(
                "2020-04-01T18:44:03.188000",
                {"request_id": RUN, "level": "WARNING"},
                level="WARN",
                message="retry",
            ),
        ),
    ),
    # CloudWatch Logs user guide, Insights: exported results
    Sample(
        "CloudWatch Insights, CSV",
        "csv",
        "@timestamp,@message,@logStream\n2023-05-01 10:00:00.123,one,s/1\n",
        (event("2023-05-01T10:00:00.123000", {"@logStream": "s/1"}, type="event", message="one"),),
        file="logs-insights-results.csv",
    ),
    # Cloud Logging, LogEntry, as `gcloud logging read --format json` writes it
    Sample(
        "Google Cloud export",
        "json",
        json.dumps(ENTRIES, indent=2) + "\n",
        (
            event(
                "2024-01-01T10:00:00.123456",
                {k: v for k, v in ENTRIES[0].items() if k != "timestamp"},
                level="INFO",
                source="projects/shop/logs/app",
                message="started",
            ),
            event(
                "2024-01-01T10:00:01.000000",
                {k: v for k, v in ENTRIES[1].items() if k not in ("timestamp", "textPayload")},
                level="ERROR",
                source="projects/shop/logs/syslog",
                message="disk failed",
            ),
        ),
        file="entries.json",
    ),
    # Cloud Logging, Routing to Cloud Storage: a line each
    Sample(
        "Google Cloud export to a bucket",
        "gcp",
        "".join(json.dumps(entry) + "\n" for entry in ENTRIES[1:]),
        (
            event(
                "2024-01-01T10:00:01.000000",
                {k: v for k, v in ENTRIES[1].items() if k not in ("timestamp", "textPayload")},
                level="ERROR",
                source="projects/shop/logs/syslog",
                message="disk failed",
            ),
        ),
        file="10:00:00_10:59:59_S0.json",
    ),
    # journalctl(1), --output short-iso, and of systemd 255 with a colon in the offset
    Sample(
        "systemd short-iso",
        "syslog",
        "2023-05-01T12:34:56+0200 web systemd[1]: Started Daily apt upgrade.\n"
        "2023-05-01T12:34:57.123456-07:00 web kernel: usb 1-1: new\n",
        (
            event(
                "2023-05-01T10:34:56.000000",
                {"host": "web", "procid": "1"},
                type="syslog",
                source="systemd",
                message="Started Daily apt upgrade.",
            ),
            event(
                "2023-05-01T19:34:57.123456",
                {"host": "web"},
                type="syslog",
                source="kernel",
                message="usb 1-1: new",
            ),
        ),
    ),
    # shared data: deliveries of GitHub; a comment, whose time is that of its last change
    Sample(
        "GitHub webhook time, of a comment",
        "github-delivery",
        "",
        (
            event(
                "2019-05-15T15:20:39.000000",
                shared_json(WEBHOOKS, 9),
                type="commit_comment",
                category="created",
                source="Codertocat/Hello-World",
                subject="Codertocat",
            ),
        ),
        shared=(WEBHOOKS, 9),
    ),
    # and a push, whose time is that of its repository, in seconds
    Sample(
        "GitHub webhook time, of a push",
        "github-delivery",
        "",
        (
            event(
                "2019-05-15T15:20:57.000000",
                shared_json(WEBHOOKS, 64),
                type="push",
                source="Codertocat/Hello-World",
                subject="Codertocat",
            ),
        ),
        shared=(WEBHOOKS, 64),
    ),
    # Lawrence Livermore National Laboratory, USENIX CFDR, BlueGene/L: the seconds are those of the
    # second column, the microseconds those of the fifth
    Sample(
        "BGL microseconds",
        "runtime",
        "- 1117838570 2005.06.03 R02-M1-N0-C:J12-U11 2005-06-03-15.42.50.075872"
        " R02-M1-N0-C:J12-U11 RAS KERNEL SEVERE parity error corrected\n",
        (
            event(
                "2005-06-03T22:42:50.075872",
                {
                    "alert": "-",
                    "node": "R02-M1-N0-C:J12-U11",
                    "location": "R02-M1-N0-C:J12-U11",
                    "kind": "RAS",
                    "level": "SEVERE",
                },
                level="ERROR",
                source="KERNEL",
                message="parity error corrected",
            ),
        ),
    ),
    # RFC 8259, 6: numbers of any precision, whose values survive
    Sample(
        "number texts in JSON",
        "jsonl",
        '{"time":"2024-05-01T10:00:00.000001Z","type":"sample","data":{"a":1.50,"b":0.000002701,'
        '"c":12345678901234567890123}}\n',
        (
            event(
                "2024-05-01T10:00:00.000001",
                {"a": Decimal("1.50"), "b": Decimal("0.000002701"), "c": 12345678901234567890123},
                type="sample",
            ),
        ),
        file="n.jsonl",
    ),
    # RFC 4180 has texts alone: what a number would change stays one
    Sample(
        "number texts in CSV",
        "csv",
        "time,price,rate,count\n2024-05-01T10:00:00Z,1.50,0.000002701,7\n",
        (
            event(
                "2024-05-01T10:00:00.000000",
                {"price": "1.50", "rate": "0.000002701", "count": 7},
                type="event",
            ),
        ),
        file="n.csv",
    ),
    # Python, logging.basicConfig: WARNING is the level WARN by another word
    Sample(
        "the original level word",
        "applog",
        "2024-05-01 10:00:00,250 WARNING app.db: slow\n2024-05-01 10:00:01,250 ERROR app.db: no\n",
        (
            event(
                "2024-05-01T10:00:00.250000",
                {"level": "WARNING"},
                level="WARN",
                source="app.db",
                message="slow",
            ),
            event("2024-05-01T10:00:01.250000", level="ERROR", source="app.db", message="no"),
        ),
    ),
    # loguru and others have levels of their own
    Sample(
        "a level word that is no severity",
        "jsonl",
        '{"time":"2024-05-01T10:00:00Z","level":"success","message":"done"}\n',
        (event("2024-05-01T10:00:00.000000", type="event", level="SUCCESS", message="done"),),
        file="l.jsonl",
    ),
)
