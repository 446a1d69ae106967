"""What several tests use: styles of programs, runtimes and servers."""

from __future__ import annotations

PG = "2025-08-13 01:45:01.123 PDT [12345] "
APPLOG: list[tuple[str, tuple[str, str | None, str | None, str]]] = [
    (PG + "LOG:  ready", ("2025-08-13T08:45:01.123", "INFO", None, "ready")),
    (
        "65.2.129.7 2023-03-12 11:17:28.425 UTC [53962] zysk@postgres FATAL:  no",
        ("2023-03-12T11:17:28.425", "FATAL", None, "no"),
    ),
    (
        "2024-01-02T03:04:05.123456Z 0 [Warning] [MY-010055] [Server] old",
        ("2024-01-02T03:04:05.123456", "WARN", "Server", "old"),
    ),
    (
        "2024-01-02T03:04:05.678+0100 I NETWORK  [conn1] end",
        ("2024-01-02T02:04:05.678", "INFO", "NETWORK", "end"),
    ),
    (
        "2023-04-23 22:07:05.311 -05:00 [WRN] Failed",
        ("2023-04-24T03:07:05.311", "WARN", None, "Failed"),
    ),
    (
        "[2023-02-12 12:16:05.729 +01:00] [INF] [79] A.B.C: denied",
        ("2023-02-12T11:16:05.729", "INFO", "A.B.C", "denied"),
    ),
    (
        "[2024-01-02 03:04:05 +0000] [123] [INFO] Booting",
        ("2024-01-02T03:04:05", "INFO", None, "Booting"),
    ),
    (
        "[2022-06-29 14:06:40 +1000] info [cpaneld] 1.2.3.4",
        ("2022-06-29T04:06:40", "INFO", "cpaneld", "1.2.3.4"),
    ),
    (
        "[2023-06-30 15:17:36,332] [WARNING] [paperless.auth] Login",
        ("2023-06-30T15:17:36.332", "WARN", "paperless.auth", "Login"),
    ),
    ("[2024-01-02T03:04:05Z DEBUG app::mod] x", ("2024-01-02T03:04:05", "DEBUG", "app::mod", "x")),
    ("[03:04:05 INF] no date", ("", None, None, "")),
    (
        "2025-08-13 01:45:01.123 UTC [147] 192.0.2.4 ada@shop ERROR:  no",
        ("2025-08-13T01:45:01.123", "ERROR", None, "no"),
    ),
    (
        "2025-08-13 01:45:01 UTC:192.0.2.4(5432):ada@shop:[127]:LOG:  on",
        ("2025-08-13T01:45:01", "INFO", None, "on"),
    ),
    (
        "[2024-11-13 11:03:33.195] WARN: no user (Auth.js:123)",
        ("2024-11-13T11:03:33.195", "WARN", "Auth.js:123", "no user"),
    ),
    (
        "2021-10-11 09:01:35,116 INFO [org.a.Audit] - a|b",
        ("2021-10-11T09:01:35.116", "INFO", "org.a.Audit", "a|b"),
    ),
    (
        "02-Jan-2024 03:04:05.678 zone x/IN: on",
        ("2024-01-02T03:04:05.678", None, None, "zone x/IN: on"),
    ),
    (
        "2022-06-20T09:52:17.637Z [warn][API]: bad",
        ("2022-06-20T09:52:17.637", "WARN", "API", "bad"),
    ),
    (
        "2022-04-05 14:40:34,644 1 INFO db odoo.res: in",
        ("2022-04-05T14:40:34.644", "INFO", "odoo.res", "in"),
    ),
    (
        "2016-09-28 04:30:30, Info                  CBS    Loaded",
        ("2016-09-28T04:30:30", "INFO", "CBS", "Loaded"),
    ),
    (
        "2022-12-29 11:39:26.009756|ERROR   |Query         |   |failed",
        ("2022-12-29T11:39:26.009756", "ERROR", "Query", "failed"),
    ),
    (
        "2022-09-08T13:08:51,629|WARN|org.apereo.cas.Web|a|b",
        ("2022-09-08T13:08:51.629", "WARN", "org.apereo.cas.Web", "a|b"),
    ),
    (
        "2022-09-08T13:08:51,629|audit|127.0.0.1|ACCESS|granted",
        ("2022-09-08T13:08:51.629", None, None, "audit|127.0.0.1|ACCESS|granted"),
    ),
    (
        "2024-05-01T10:00:00+02:00 [AUTH] WARN: Incorrect password for user admin. IP=1.2.3.4",
        ("2024-05-01T08:00:00", "WARN", "AUTH", "Incorrect password for user admin. IP=1.2.3.4"),
    ),
    (
        "02-Jan-2024 03:04:05.678 SEVERE [main] org.a.B.<init> broke",
        ("2024-01-02T03:04:05.678", "ERROR", "org.a.B.<init>", "broke"),
    ),
    (
        "2022/03/01 12:57:58 ...web/auth.go:200:SignIn() [E] Failed",
        ("2022-03-01T12:57:58", "ERROR", "...web/auth.go:200:SignIn()", "Failed"),
    ),
    (
        "2024/01/02 03:04:05.123456 main.go:12: text",
        ("2024-01-02T03:04:05.123456", None, "main.go:12", "text"),
    ),
    ("2024/01/02 03:04:05 text only", ("2024-01-02T03:04:05", None, None, "text only")),
    (
        "2023/02/21 08:05:56.233208 [error] POST",
        ("2023-02-21T08:05:56.233208", "ERROR", None, "POST"),
    ),
    (
        "2022-12-20 12:36:54.17 Logon       Error: 18456",
        ("2022-12-20T12:36:54.17", None, "Logon", "Error: 18456"),
    ),
    (
        "2022-02-13T10:09:11.521Z ACCEPT host=x",
        ("2022-02-13T10:09:11.521", None, None, "ACCEPT host=x"),
    ),
    (
        "2023-10-11 22:14:15 CEST [1234]: [3-1] user=app,db=shop,app=psql,client=10.0.0.1 LOG:  on",
        ("2023-10-11T20:14:15", "INFO", None, "on"),
    ),
    (
        "2023-10-11 22:14:15 CEST [1234]: [3-1] user=,db=,app=,client= ERROR:  no",
        ("2023-10-11T20:14:15", "ERROR", None, "no"),
    ),
    (
        "2023-10-11 22:14:15.123 UTC [123] [unknown]@[unknown] FATAL:  gone",
        ("2023-10-11T22:14:15.123", "FATAL", None, "gone"),
    ),
    (
        "2003-04-25 11:17:07 -0500 Start queue run: pid=12762",
        ("2003-04-25T16:17:07", None, None, "Start queue run: pid=12762"),
    ),
    (
        "2023-10-11 22:14:16.123 +0200 [main] ERROR com.example.Foo - bad",
        ("2023-10-11T20:14:16.123", "ERROR", "com.example.Foo", "bad"),
    ),
    (
        "2023-10-11 22:14:17.123 +02:00 ERROR com.example.Foo - bad",
        ("2023-10-11T20:14:17.123", "ERROR", None, "com.example.Foo - bad"),
    ),
    ("[2023-10-11 22:14:15 -0730] WARN: low", ("2023-10-12T05:44:15", "WARN", None, "low")),
    ("2023/10/11 22:14:15 +0545 low", ("2023-10-11T16:29:15", None, None, "low")),
    (
        "2023-10-11 22:14:15.123 +03 [124] ERROR:  no relation",
        ("2023-10-11T19:14:15.123", "ERROR", None, "no relation"),
    ),
    (
        "2023-10-11 22:14:15.123 -03:30 [124] 192.0.2.4 ada@shop LOG:  on",
        ("2023-10-12T01:44:15.123", "INFO", None, "on"),
    ),
    ("2023-10-11 22:14:15+02 started", ("2023-10-11T20:14:15", None, None, "started")),
    (
        "2023-10-11  2:14:15 0 [Warning] InnoDB: slow",
        ("2023-10-11T02:14:15", "WARN", None, "InnoDB: slow"),
    ),
    # no offset that a zone has
    ("2023-10-11 22:14:15 -1234 is low", ("2023-10-11T22:14:15", None, None, "-1234 is low")),
]
RUNTIME: list[tuple[str, tuple[str, str | None, str | None, str]]] = [
    (
        "E0517 15:04:22.619632 1952452992 a.cc:253] Log",
        ("2025-05-17T15:04:22.619632", "ERROR", "a.cc:253", "Log"),
    ),
    (
        "123:M 02 Jan 2024 03:04:05.678 # low memory",
        ("2024-01-02T03:04:05.678", "WARN", None, "low memory"),
    ),
    (
        "I, [2024-01-02T03:04:05.123456 #123]  INFO -- : Started",
        ("2024-01-02T03:04:05.123456", "INFO", None, "Started"),
    ),
    (
        "E, [2024-01-02T03:04:05.123456 #9] ERROR -- rails: no",
        ("2024-01-02T03:04:05.123456", "ERROR", "rails", "no"),
    ),
    (
        "03-17 16:13:38.811  1702  2395 D WindowManager: printing",
        ("2025-03-17T16:13:38.811", "DEBUG", "WindowManager", "printing"),
    ),
    (
        "[Dec 21 12:56:57] WARNING[77]: res.c:114 cb: Event",
        ("2025-12-21T12:56:57", "WARN", "res.c", "cb: Event"),
    ),
    (
        "[Nest] 7  - 08/02/2023, 7:32:47 PM    WARN [AuthService] Failed",
        ("2023-08-02T19:32:47", "WARN", "AuthService", "Failed"),
    ),
    ("[Nest] 7  - 8/12/2023, 12:02:07 AM     LOG x", ("2023-08-12T00:02:07", "INFO", None, "x")),
    (
        "(W) 2024-11-26T13:37:02 - login failure",
        ("2024-11-26T13:37:02", "WARN", None, "login failure"),
    ),
    (
        "web-1  | 2024-04-25T05:32:35.584725Z  * Serving",
        ("2024-04-25T05:32:35.584725", None, "web-1", " * Serving"),
    ),
    (
        "- 1117838570 2005.06.03 R02-M1 2005-06-03-15.42.50.675872 R02 RAS KERNEL FATAL parity",
        ("2005-06-03T22:42:50", "FATAL", "KERNEL", "parity"),
    ),
    (
        "- 1131566461 2005.11.09 dn228 Nov 9 12:01:01 dn228/dn228 crond(pam)[2915]: session",
        ("2005-11-09T20:01:01", None, "crond(pam)", "session"),
    ),
    ("1428634687.123 Hello", ("2015-04-10T02:58:07.123", None, None, "Hello")),
    ("1428634687123 Hello, World!", ("2015-04-10T02:58:07.123", None, None, "Hello, World!")),
    ("WARNING:root:careful", ("", "WARN", "root", "careful")),
    (
        'INFO:     127.0.0.1:1 - "GET / HTTP/1.1" 200 OK',
        ("", "INFO", None, '127.0.0.1:1 - "GET / HTTP/1.1" 200 OK'),
    ),
    ("[    1.234567] usb 1-1: new device", ("", None, "usb 1-1", "new device")),
    (
        "[10.30 16:49:06] chrome.exe - a.example:5070 open through proxy b:5070 HTTPS",
        (
            "2025-10-30T16:49:06",
            None,
            "chrome.exe",
            "a.example:5070 open through proxy b:5070 HTTPS",
        ),
    ),
    (
        "[10.30 16:49:06] QQ Cloud.exe *64 - a:80 close - late",
        ("2025-10-30T16:49:06", None, "QQ Cloud.exe *64", "a:80 close - late"),
    ),
    ("[10.30 16:49:06] Welcome", ("2025-10-30T16:49:06", None, None, "Welcome")),
    (
        "20171223-22:15:29:606|Step_LSC|30002312|onStandStepChanged 3579",
        ("2017-12-23T22:15:29.606", None, "Step_LSC", "onStandStepChanged 3579"),
    ),
    ("20171223-0:3:9:5|Step_SP|3|a|b", ("2017-12-23T00:03:09.005", None, "Step_SP", "a|b")),
    (
        "W20231025 00:15:15.525108 12345 main.cc:3] x",
        ("2023-10-25T00:15:15.525108", "WARN", "main.cc:3", "x"),
    ),
    (
        "[Oct 11 22:14:16] VERBOSE[123][C-1] pbx.c: Executing",
        ("2025-10-11T22:14:16", "TRACE", "pbx.c", "Executing"),
    ),
    (
        "[Oct 11 22:14:16] SECURITY[1600] res_security_log.c: ok",
        ("2025-10-11T22:14:16", "SECURITY", "res_security_log.c", "ok"),
    ),
    (
        "[2023-10-11 22:14:15] WARNING[123]: res_pjsip.c:3 x: y",
        ("2023-10-11T22:14:15", "WARN", "res_pjsip.c", "x: y"),
    ),
    ("2023/10/11 22:14:15| WARNING: x", ("2023-10-11T22:14:15", "WARN", None, "x")),
    ("2023/10/11 22:14:15 kid1| on", ("2023-10-11T22:14:15", None, "kid1", "on")),
    ("11/10/2023 -- 22:14:15 - <Error> - x", ("2023-10-11T22:14:15", "ERROR", None, "x")),
    (
        "[100] 8/9/2019 -- 16:47:14 - (suricata.c:1084) <Perf> (LogVersion) -- This is",
        ("2019-09-08T16:47:14", "INFO", "suricata.c:1084", "This is"),
    ),
    ("1234:M 11 Oct 22:14:15.123 # up", ("2025-10-11T22:14:15.123", "WARN", None, "up")),
    (
        "INFO  2023-10-11 22:14:15,123 [main] a.B - text",
        ("2023-10-11T22:14:15.123", "INFO", "a.B", "text"),
    ),
    (
        "ERROR [2023-10-11 22:14:16,123] com.x.Y: bad",
        ("2023-10-11T22:14:16.123", "ERROR", "com.x.Y", "bad"),
    ),
]
ASKED = '"GET http://a/x?q=1 HTTP/1.1"'
TRAFFIC: list[tuple[str, tuple[str, str | None, str | None, str]]] = [
    (
        f'h.org 1.2.3.4 - id7 - [29/Jul/2023:10:26:06 -0700] {ASKED} 404 162 "-" "c" "z"',
        ("2023-07-29T17:26:06", "WARN", None, ASKED[1:-1]),
    ),
    (
        "117.136.40.129:14853 [14/Jan/2015:12:48:57.127] in~ be/s1 170/0/0/3/173 200 739 - - --NN"
        f" 0/0/0/0/0 0/0 {ASKED}",
        ("2015-01-14T12:48:57.127", "INFO", None, ASKED[1:-1]),
    ),
    (
        "1.2.3.4:50033 [28/Feb/2025:02:43:10.123] fe/be: SSL handshake failure",
        ("2025-02-28T02:43:10.123", None, None, "SSL handshake failure"),
    ),
    (
        "1.2.3.4:50033 [28/Feb/2025:02:43:10.123] fe be/s 0/0/5 212 -- 1/1/1/1/0 0/0",
        ("2025-02-28T02:43:10.123", None, None, ""),
    ),
    (
        "https 2023-04-26T12:23:00.186641Z app/x 1.2.3.4:44 10.0.0.1:80 0.086 0.048 0.037"
        " 502 200 0 57"
        f' {ASKED} "curl" E T arn:x "Root=1-5" "-" 0',
        ("2023-04-26T12:23:00.186641", "ERROR", None, ASKED[1:-1]),
    ),
    (
        "2023-04-26T12:23:00.186641Z lb 1.2.3.4:44 10.0.0.1:80 0.086 0.048 0.037 200 200 0 57"
        f' {ASKED} "curl" - -',
        ("2023-04-26T12:23:00.186641", "INFO", None, ASKED[1:-1]),
    ),
    (
        "a" * 64 + " bucket [06/Feb/2019:00:00:38 +0000] 1.2.3.4 - 3E57 REST.GET.OBJECT k"
        f' {ASKED} 403 AccessDenied 243 - 7 - "-" "S3" -',
        ("2019-02-06T00:00:38", "WARN", None, ASKED[1:-1]),
    ),
    (
        "2 123456789010 eni-1235b8 1.2.3.4 5.6.7.8 20641 22 6 20 4249"
        " 1418530010 1418530070 ACCEPT OK",
        ("2014-12-14T04:06:50", None, None, ""),
    ),
    (
        "1286536309.586    921 1.2.3.4 TCP_MISS/503 507 POST http://rcv/x - NONE/- text/html",
        ("2010-10-08T11:11:49.586", "ERROR", None, "http://rcv/x"),
    ),
    (
        "[pid: 88|app: 0|req: 1/1] 127.0.0.1 () {38 vars in 696 bytes} [Sun Mar 13 22:49:12 2016]"
        " POST /u => generated 47 bytes in 129 msecs (HTTP/1.1 200) 9 headers",
        ("2016-03-13T22:49:12", "INFO", None, "POST /u"),
    ),
    (
        "10.0.1.2:33317 [06/Feb/2009:12:14:14.655] in s/srv1 10/0/30/69/+109 200 +2750 - - ----"
        ' 1/1/1/1/0 0/0 {1wt.eu} {} "GET /x HTTP/1.1"',
        ("2009-02-06T12:14:14.655", "INFO", None, "GET /x HTTP/1.1"),
    ),
    (
        "10.0.1.2:33317 [06/Feb/2009:12:14:14.655] fnt bck/srv1 0/0/+5007 +212 -- 0/0/0/0/3 0/0",
        ("2009-02-06T12:14:14.655", None, None, ""),
    ),
]

STYLES = {"applog": APPLOG, "runtime": RUNTIME, "traffic": TRAFFIC}
