"""One record of each format that collection was asked to read, with every field it must give.

Samples are lines of the shared data files, or written as the vendor's documentation shows them,
with addresses and names of our own. What is expected was written from those, not from our output.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tests.support.tree import SHARED

Event = dict[str, Any]
INGEST = "time of ingest"
"""The time of records that tell none, in files that tell none."""


@dataclass(frozen=True)
class Sample:
    """A small file, the format it must be read as, and its events: columns and the keys of `data`,
    without nulls. A file of `shared` is read there, from its line on that is given."""

    name: str
    form: str
    text: str
    events: tuple[Event, ...]
    file: str = "some.log"
    shared: tuple[str, int] | None = None

    def content(self) -> str | None:
        """The text of the file, None where it is one of the shared files and they are absent."""
        if self.shared is None:
            return self.text
        path, line = self.shared
        if not SHARED.is_dir():
            return None
        lines = (SHARED / path).read_text().splitlines(keepends=True)
        return lines[line - 1].rstrip("\n") + "\n"


def event(time: str, data: Event | None = None, **columns: Any) -> Event:
    """An event of type `log` unless said otherwise."""
    return {"time": time, "type": "log", **columns, "data": data or {}}


def shared_json(path: str, line: int) -> Event:
    """The object of a line of a shared file, all of which is kept; empty where they are absent."""
    if not SHARED.is_dir():
        return {}
    text = (SHARED / path).read_text().splitlines()[line - 1]
    found: Event = json.loads(text, parse_float=Decimal)
    return found


WEBHOOKS = "github/webhook_payloads.ndjson"
LAUREL = "services/laurel-logs__laurel-logs.log"
EVENT_XMLNS = "http://schemas.microsoft.com/win/2004/08/events/event"
EVENT_SYSTEM = {
    "Provider": {"#attributes": {"Name": "Microsoft-Windows-Security-Auditing"}},
    "EventID": 4625,
    "Version": 0,
    "Level": 0,
    "Keywords": "0x8010000000000000",
    "TimeCreated": {"#attributes": {"SystemTime": "2015-09-08T22:54:54.962511700Z"}},
    "EventRecordID": 229977,
    "Channel": "Security",
    "Computer": "DC01.example.com",
}
EVENT_BODY = {"TargetUserName": "Auditor", "LogonType": "2", "IpAddress": "192.0.2.9"}
EVENT_XML = (
    f"<Event xmlns='{EVENT_XMLNS}'><System>"
    "<Provider Name='Microsoft-Windows-Security-Auditing'/><EventID>4625</EventID>"
    "<Version>0</Version><Level>0</Level><Keywords>0x8010000000000000</Keywords>"
    "<TimeCreated SystemTime='2015-09-08T22:54:54.962511700Z'/>"
    "<EventRecordID>229977</EventRecordID><Channel>Security</Channel>"
    "<Computer>DC01.example.com</Computer></System><EventData>"
    "<Data Name='TargetUserName'>Auditor</Data><Data Name='LogonType'>2</Data>"
    "<Data Name='IpAddress'>192.0.2.9</Data></EventData></Event>\n"
)
EVENT_DATA = {
    "Event": {
        "#attributes": {"xmlns": EVENT_XMLNS},
        "System": EVENT_SYSTEM,
        "EventData": EVENT_BODY,
    }
}
LOGON = event(
    "2015-09-08T22:54:54.962511",
    EVENT_DATA,
    type="winevent",
    category="Security",
    level="INFO",
    source="Microsoft-Windows-Security-Auditing",
    subject="DC01.example.com",
)


def get(time: str, path: str, status: int, level: str, more: Event | None = None) -> Event:
    """A request in the combined format of Apache and nginx."""
    request = {"method": "GET", "path": path, "protocol": "HTTP/1.1", "status": status}
    data = {"host": "192.0.2.1", **request, "bytes": 612, "agent": "curl/8.5.0", **(more or {})}
    return event(time, data, type="access", level=level, message=f"GET {path} HTTP/1.1")


def access(second: int, path: str, status: int) -> str:
    """Its line; nginx manual, ngx_http_log_module, format `combined`."""
    return (
        f"192.0.2.1 - - [01/Dec/2021:13:53:{second:02} +0100]"
        f' "GET {path} HTTP/1.1" {status} 612 "-" "curl/8.5.0"\n'
    )


# nginx manual, Configuring Logging: time [level] pid#tid: *connection message, client, server …
NOT_FOUND = (
    '*46 open() "/srv/www/a" failed (2: No such file or directory), client: 192.0.2.1,'
    ' server: localhost, request: "GET /a HTTP/1.1", host: "localhost"'
)
NGINX_ERROR = f"2021/12/01 12:53:33 [error] 31#32: {NOT_FOUND}\n"
ERROR = event(
    "2021-12-01T12:53:33.000000", {"pid": "31", "tid": "32"}, level="ERROR", message=NOT_FOUND
)

SAMPLES: tuple[Sample, ...] = (
    # MongoDB manual, Log Messages: structured logging since 4.4
    Sample(
        "MongoDB",
        "mongodb",
        '{"t":{"$date":"2020-05-20T20:10:08.731+02:00"},"s":"W",  "c":"NETWORK",  "id":12345,'
        '   "ctx":"listener","msg":"Listening on","attr":{"address":"127.0.0.1"}}\n',
        (
            event(
                "2020-05-20T18:10:08.731000",
                {
                    "t": {"$date": "2020-05-20T20:10:08.731+02:00"},
                    "s": "W",
                    "c": "NETWORK",
                    "id": 12345,
                    "ctx": "listener",
                    "attr": {"address": "127.0.0.1"},
                },
                level="WARN",
                source="NETWORK",
                message="Listening on",
            ),
        ),
    ),
    # PostgreSQL manual, log_line_prefix '%m [%p] ', the default, with log_timezone Europe/Berlin
    Sample(
        "a zone word (CEST)",
        "applog",
        "2025-07-12 00:14:12.837 CEST [147] LOG:  database system is ready\n",
        (
            event(
                "2025-07-11T22:14:12.837000",
                {"pid": "147", "tz": "CEST", "level": "LOG"},
                level="INFO",
                message="database system is ready",
            ),
        ),
    ),
    # nginx manual, as above, in one file, with the first line of docker-entrypoint.sh of its image
    Sample(
        "error lines among access lines, and a banner",
        "access",
        "/docker-entrypoint.sh: Configuration complete; ready for start up\n"
        + access(32, "/", 200)
        + NGINX_ERROR
        + access(34, "/b", 404),
        (
            event(
                "2021-12-01T12:53:32.000000",
                message="/docker-entrypoint.sh: Configuration complete; ready for start up",
            ),
            get("2021-12-01T12:53:32.000000", "/", 200, "INFO"),
            ERROR,
            get("2021-12-01T12:53:34.000000", "/b", 404, "WARN"),
        ),
    ),
    # Grafana manual, [log.file] format = text, then json; one file where the setting was changed
    Sample(
        "Grafana, of two styles",
        "logfmt",
        'logger=http.server t=2023-03-14T06:11:09.073590975+02:00 level=info msg="Successful Login"'
        " User=ada@localhost\n"
        "logger=settings t=2023-03-14T06:11:10Z level=info msg=Starting version=9.4.7\n"
        '{"User":"ada@localhost","level":"error","logger":"context","msg":"Invalid password",'
        '"orgId":0,"t":"2024-02-07T09:34:16.8294691+02:00"}\n',
        (
            event(
                "2023-03-14T04:11:09.073590",
                {"logger": "http.server", "User": "ada@localhost"},
                level="INFO",
                source="http.server",
                message="Successful Login",
            ),
            event(
                "2023-03-14T06:11:10.000000",
                {"logger": "settings", "version": "9.4.7"},
                level="INFO",
                source="settings",
                message="Starting",
            ),
            event(
                "2024-02-07T07:34:16.829469",
                {
                    "User": "ada@localhost",
                    "level": "error",
                    "logger": "context",
                    "orgId": 0,
                    "t": "2024-02-07T09:34:16.8294691+02:00",
                },
                level="ERROR",
                source="context",
                message="Invalid password",
            ),
        ),
    ),
    # audiobookshelf, server/Logger.js: its daily files hold JSON, its console lines; one volume
    Sample(
        "audiobookshelf",
        "audiobookshelf",
        '{"timestamp":"2024-11-13 11:03:31.784","source":"Auth.js:888","message":"[Auth] Failed'
        ' login attempt for username \\"ada\\" from ip 192.0.2.1","levelName":"ERROR","level":4}\n'
        '{"timestamp":"2024-11-13 11:03:32.000","source":"Server.js:1","message":"[Server] up",'
        '"levelName":"INFO","level":2}\n'
        '[2024-11-13 11:03:33.195] WARN: [LocalAuth] No user "ada" (LocalAuth.js:123)\n',
        (
            event(
                "2024-11-13T11:03:31.784000",
                {"levelName": "ERROR", "level": 4, "source": "Auth.js:888"},
                level="ERROR",
                source="Auth.js:888",
                message='[Auth] Failed login attempt for username "ada" from ip 192.0.2.1',
            ),
            event(
                "2024-11-13T11:03:32.000000",
                {"levelName": "INFO", "level": 2, "source": "Server.js:1"},
                level="INFO",
                source="Server.js:1",
                message="[Server] up",
            ),
            event(
                "2024-11-13T11:03:33.195000",
                level="WARN",
                source="LocalAuth.js:123",
                message='[LocalAuth] No user "ada"',
            ),
        ),
    ),
    # PostgreSQL manual as above; the application logs with Python's basicConfig
    Sample(
        "PostgreSQL with application lines",
        "applog",
        '2025-07-12 00:14:12.837 UTC [147] ERROR:  relation "jobs" does not exist at character 15\n'
        "2025-07-12 00:14:12.837 UTC [147] STATEMENT:  SELECT * FROM jobs\n"
        "2025-07-12 00:14:13,004 WARNING app.worker: no jobs\n"
        "2025-07-12 00:14:14.100 UTC [151] LOG:  checkpoint starting: time\n",
        (
            event(
                "2025-07-12T00:14:12.837000",
                {"pid": "147", "tz": "UTC"},
                level="ERROR",
                message='relation "jobs" does not exist at character 15\n'
                "2025-07-12 00:14:12.837 UTC [147] STATEMENT:  SELECT * FROM jobs",
            ),
            event(
                "2025-07-12T00:14:13.004000",
                {"level": "WARNING"},
                level="WARN",
                source="app.worker",
                message="no jobs",
            ),
            event(
                "2025-07-12T00:14:14.100000",
                {"pid": "151", "tz": "UTC", "level": "LOG"},
                level="INFO",
                message="checkpoint starting: time",
            ),
        ),
    ),
    # PostgreSQL manual, log_line_prefix: '%m [%p] %h %q%u@%d ', and '%t:%r:%u@%d:[%p]:', which the
    # Amazon RDS user guide has
    Sample(
        "PostgreSQL, with host and user",
        "applog",
        '2021-09-28 09:22:18.536 UTC [147] 192.0.2.4 ada@shop FATAL:  no role "ada"\n'
        "2021-09-28 09:22:19 UTC:192.0.2.4(5432):ada@shop:[127]:WARNING:  no transaction\n",
        (
            event(
                "2021-09-28T09:22:18.536000",
                {"pid": "147", "host": "192.0.2.4", "user": "ada", "database": "shop", "tz": "UTC"},
                level="FATAL",
                message='no role "ada"',
            ),
            event(
                "2021-09-28T09:22:19.000000",
                {
                    "pid": "127",
                    "host": "192.0.2.4(5432)",
                    "user": "ada",
                    "database": "shop",
                    "tz": "UTC",
                    "level": "WARNING",
                },
                level="WARN",
                message="no transaction",
            ),
        ),
    ),
    # Microsoft, Exchange protocol logs and others have a column each for the date and the time
    Sample(
        "CSV: date,time",
        "csv",
        "date,time,client,level,message\n2024-05-01,10:00:00.123456,192.0.2.1,warning,slow\n",
        (
            event(
                "2024-05-01T10:00:00.123456",
                {"client": "192.0.2.1", "level": "warning"},
                type="event",
                level="WARN",
                message="slow",
            ),
        ),
        file="a.csv",
    ),
    # Synology DSM, Log Center, export as CSV
    Sample(
        "CSV: Time,Level,Message",
        "csv",
        'Time,Level,Message\n2024-05-01 10:00:00,Error,"disk 1, bay 2: failed"\n',
        (
            event(
                "2024-05-01T10:00:00.000000",
                type="event",
                level="ERROR",
                message="disk 1, bay 2: failed",
            ),
        ),
        file="b.csv",
    ),
    # Broadcom, Symantec Endpoint Protection Manager: columns of exported logs
    Sample(
        "CSV: Event DateTime",
        "csv",
        "Event DateTime,Event Name,Computer,Severity\n2024-05-01 10:00:00,Scan,pc7,Informational\n",
        (
            event(
                "2024-05-01T10:00:00.000000",
                {"Event Name": "Scan", "Computer": "pc7", "level": "Informational"},
                type="event",
                level="INFO",
            ),
        ),
        file="c.csv",
    ),
    # shared data: UniFi's console, line 1
    Sample(
        "CEF, as a product writes it",
        "cef",
        "",
        (
            event(
                "2025-09-04T08:32:58.445000",
                {
                    "vendor": "Ubiquiti",
                    "product": "UniFi Network",
                    "version": "9.4.19",
                    "class": "544",
                    "name": "Admin Accessed UniFi Network",
                    "severity": "1",
                    "UNIFIcategory": "System",
                    "UNIFIsubCategory": "Admin",
                    "UNIFIhost": "Unifi Dream Machine",
                    "UNIFIaccessMethod": "web",
                    "UNIFIadmin": "Secure Admin",
                    "src": "10.72.1.222",
                    "UNIFIutcTime": "2025-09-04T08:32:58.445Z",
                    "msg": "Secure Admin accessed UniFi Network using the web."
                    " Source IP: 10.72.1.222",
                },
                type="cef",
                category="544",
                level="INFO",
                source="UniFi Network",
                message="Secure Admin accessed UniFi Network using the web. Source IP: 10.72.1.222",
            ),
        ),
        shared=("services/unifi-cef__cef-logs.log", 1),
    ),
    # ArcSight, Implementing CEF: header and extension with what must be escaped
    Sample(
        "CEF, as its vendor documents it",
        "cef",
        r"CEF:0|security|threatmanager|1.0|100|detected a \| in message|10|src=10.0.0.1 act=blocked"
        r" a | dst=1.1.1.1 filePath=C:\\x cs1=a\=b rt=Sep 19 2023 08:26:10.123 UTC" + "\n",
        (
            event(
                "2023-09-19T08:26:10.123000",
                {
                    "vendor": "security",
                    "product": "threatmanager",
                    "version": "1.0",
                    "class": "100",
                    "name": "detected a | in message",
                    "severity": "10",
                    "src": "10.0.0.1",
                    "act": "blocked a |",
                    "dst": "1.1.1.1",
                    "filePath": r"C:\x",
                    "cs1": "a=b",
                    "rt": "Sep 19 2023 08:26:10.123 UTC",
                },
                type="cef",
                category="100",
                level="FATAL",
                source="threatmanager",
                message="detected a | in message",
            ),
        ),
    ),
    # IBM QRadar, LEEF event components: LEEF 1.0, whose pairs tabs divide
    Sample(
        "LEEF 1.0",
        "leef",
        "LEEF:1.0|Microsoft|MSExchange|4.0 SP1|15345|devTime=Jan 18 2021 11:07:53\tsrc=192.0.2.0\t"
        "dst=198.51.100.1\tsev=5\tcat=anomaly\tsrcPort=81\tusrName=joe.black\n",
        (
            event(
                "2021-01-18T11:07:53.000000",
                {
                    "vendor": "Microsoft",
                    "product": "MSExchange",
                    "version": "4.0 SP1",
                    "class": "15345",
                    "devTime": "Jan 18 2021 11:07:53",
                    "src": "192.0.2.0",
                    "dst": "198.51.100.1",
                    "sev": "5",
                    "cat": "anomaly",
                    "srcPort": "81",
                    "usrName": "joe.black",
                },
                type="leef",
                category="15345",
                level="WARN",
                source="MSExchange",
            ),
        ),
    ),
    # the same page: LEEF 2.0 with a delimiter of its own, here without a time
    Sample(
        "LEEF 2.0",
        "leef",
        "LEEF:2.0|Lancope|StealthWatch|1.0|41|^|src=192.0.2.0^dst=198.51.100.1^sev=8^cat=anomaly\n",
        (
            event(
                INGEST,
                {
                    "vendor": "Lancope",
                    "product": "StealthWatch",
                    "version": "1.0",
                    "class": "41",
                    "src": "192.0.2.0",
                    "dst": "198.51.100.1",
                    "sev": "8",
                    "cat": "anomaly",
                },
                type="leef",
                category="41",
                level="ERROR",
                source="StealthWatch",
            ),
        ),
    ),
    # Apereo CAS, Audits, File System: inspektr's single line, in the layout of its log4j2.xml
    Sample(
        "apereo-cas",
        "applog",
        "2021-10-11 09:01:35,116 INFO [org.apereo.inspektr.audit.support.Slf4jLoggingAuditTrail"
        "Manager] - Mon Oct 11 09:01:35 CEST 2021|CAS|Supplied credentials: [UsernamePassword"
        "Credential(username=ada, source=null)]|AUTHENTICATION_FAILED|ada|192.0.2.1|198.51.100.2\n",
        (
            event(
                "2021-10-11T09:01:35.116000",
                level="INFO",
                source="org.apereo.inspektr.audit.support.Slf4jLoggingAuditTrailManager",
                message="Mon Oct 11 09:01:35 CEST 2021|CAS|Supplied credentials: [UsernamePassword"
                "Credential(username=ada, source=null)]|AUTHENTICATION_FAILED|ada|192.0.2.1"
                "|198.51.100.2",
            ),
        ),
    ),
    # dockge, backend/log.ts, which is that of uptime-kuma
    Sample(
        "dockge",
        "applog",
        "2024-03-12T04:31:44Z [AUTH] WARN: Incorrect username or password for user ada."
        " IP=192.0.2.1\n",
        (
            event(
                "2024-03-12T04:31:44.000000",
                level="WARN",
                source="AUTH",
                message="Incorrect username or password for user ada. IP=192.0.2.1",
            ),
        ),
    ),
    # uptime-kuma, src/util.ts: the time of day is that of the server, with its offset
    Sample(
        "uptime-kuma",
        "applog",
        "2022-04-25T17:08:29.098+02:00 [AUTH] INFO: Login by token. IP=192.0.2.1\n",
        (
            event(
                "2022-04-25T15:08:29.098000",
                level="INFO",
                source="AUTH",
                message="Login by token. IP=192.0.2.1",
            ),
        ),
    ),
    # nginx manual, both logs to the container's output
    Sample(
        "six access lines behind an nginx error",
        "applog",
        NGINX_ERROR * 8 + "".join(access(34 + n, f"/{n}", 500) for n in range(6)),
        (
            *[ERROR] * 8,
            *(get(f"2021-12-01T12:53:{34 + n}.000000", f"/{n}", 500, "ERROR") for n in range(6)),
        ),
    ),
)
