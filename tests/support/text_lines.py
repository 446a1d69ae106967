"""What several tests use: formats of text."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from lakelog.formats import leading_times
from tests.support.two_ways import decided, one_by_one

SEEDS: dict[str, list[str]] = {
    "access": [
        '127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a_b.gif HTTP/1.0" 200 2326',
        '::1 - - [29/Feb/2024:23:59:59 +0530] "GET /x y?q=\\"1\\" HTTP/2.0" 404 -'
        ' "http://a/\\\\b" "Mozilla \\"5\\" \\x22"',
        'h - - [01/Jan/1999:00:00:00 +0000] "-" 408 0 "-" "-"',
        'h i u [31/Dec/2025:23:59:60 +0000] "" 500 1 "" "" "1.2.3.4" 0.003',
        'h - - [30/Sep/2021:08:00:55 -0000] "lv|\'|\'|x" 400 162 "-" "-"',
        'h - - [30/Feb/2021:08:00:55 +1500] "POST / HTTP/1.1" 302 999999999999999999 "č" "€\\\\"',
        'h - - [30/Sep/2021:08:00:55 +0000] "OPTIONS *" 099 007',
        '::ffff:1.2.3.4 - root@pam [11/10/2023:22:14:15 +0200] "GET /api2/json HTTP/1.1" 200 123',
        '1.2.3.4 - root [11/10/2023:22:14:15 +0200] "GET /x HTTP/1.1" 200 123 "-" "c" "s" "-" 2087',
        '1.2.3.4 - - [11/13/2023:22:14:15 +0200] "GET /x HTTP/1.1" 200 123',
    ],
    "syslog": [
        "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - 'su root' failed",
        '<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - [ex@1 a="1\\]" b="x"][y]',
        "<191>1 - - - - - - nothing but words",
        "<0>1 2024-02-30T00:00:00Z h a p m - no such day",
        "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick",
        "Feb 29 00:00:00 host sshd[24200]: Failed password for root from 1.2.3.4 port 22 ssh2",
        "Jan  2 12:00:00.5 host kernel: [1.0] x",
        "Jan 1 00:00:00 host last message repeated",
        "Dec 31 23:59:59 h CRON[1]:",
        "Sep 31 10:00:00 h a: b",
        "Jan  3 00:00:01 h a: b",
        "2023-03-19T12:34:09.757188+01:00 machine postfix/smtpd[3814725]: NOQUEUE: reject",
        "2023-05-01T12:34:56+0200 web systemd[1]: Started",
        "-- Boot 3f7a1e2b --",
        "<192>Oct 11 22:14:15 h x: y",
        "<7>Jan  2 00:00:00 h a b: c",
        "2023-10-11 22:14:15+02 mac Installer Progress[123]: PackageKit: x",
        "Jul  1 09:00:55 mac com.apple.xpc.launchd[1] (com.apple.x[123]): Service exited",
        "Jul  1 09:00:55 mac Google Chrome Helper (GPU)[123]: a thread",
        "Jul  1 09:00:55 mac Unknown[2127] <Error>: bad",
        "Jul  1 09:00:55 mac Microsoft Word[2127] <Notice>: good",
    ],
    "logfmt": [
        'time="2021-09-15T21:17:10.220731Z" level=error msg="a b: c" pod=x-1 reason= n=5',
        'ts=1763628911.329 lvl=WARNING message=done msg="" type=x time=',
        'level=loud timestamp=2024-05-01 severity=info note="say \\"hi\\" \\u00e9 \\q"',
        'a=1 b=2\tc=""',
        "a=1 a=2 ts=5",
        "time=noon a=1",
        "msg=x level=debug source=s data={}",
        'at=info method=GET path="/a=b c" time=20240501 id=7 "',
        "=1 time=5",
        "t=2018-10-01T21:17:10+0200 lvl=info logger=a msg=x",
        'ts=5 č=€ é="ö ü"',
    ],
    "applog": [
        "2024-01-02 03:04:05,678 - my.name - WARNING - a message - with more",
        "2016-12-19 17:00:01,123 INFO [main] org.apache.X$Y: started",
        "2016-12-19 17:00:01.123 [http-1] ERROR  c.e.App - failed: 5",
        "[2016-12-19 17:00:01,123] TRACE [Controller 0]: checking (x) (kafka.controller.K)",
        "[2016-12-19 17:00:01,123] INFO no class here (at all)",
        "[2025-01-02 11:19:06] laravel.EMERGENCY: Unable to create {}",
        "2015-07-29 17:41:44,747 - INFO  [QuorumPeer[myid=1]/0:0:2181:FastLeader@774] - Note: x",
        "2024-01-02T03:04:05Z:CRITICAL:app.db:gone",
        "2024-01-02 03:04:05 DEBUG:http://x/y",
        "2012-07-02 10:22:40,672:DEBUG:foo bar baz",
        "2024-01-02 03:04:05+02:00 [warn] a.b: c",
        "081109 203615 148 INFO dfs.DataNode$PacketResponder: PacketResponder 1 for block",
        "17/06/09 20:10:40 INFO executor.CoarseGrainedExecutorBackend: Registered [TERM]",
        "[Sun Dec 04 04:47:44 2005] [notice] workerEnv.init() ok",
        "[Thu Sep 30 13:27:06.009964 2021] [core:error] [pid 2560:tid 14] [client ::1:3] x",
        "2021/12/02 11:53:15 [error] 4065777#4065777: *42952950 limiting requests",
        "\tat java.lang.Thread.run(Thread.java:745)",
        "2024-13-02 03:04:05 INFO no such month",
        "2024-01-02 03:04:05,678 - root - INFO - ",
        "2024-01-02 03:04:05 ERROR",
        "[2024-01-02 03:04:05] INFO",
        "17/06/09 20:10:40 INFO a: ",
        "java.io.IOException: gone",
        "2024-01-02 03:04:05 LOUD x",
        "991399 203615 1 WARN a: b",
    ],
}
SIGNS = [
    *" \t\r\v\f\"'\\-[]<>:|=#.,/+019aIZ",
    "\ufeff",
    "\u2028",
    "\x85",
    "\xa0",
    "é",
    "€",
    "٣",
    "ſ",
    "K",
    "\0",
    "\x1c",
    "😀",
    "  ",
    '\\"',
    "null",
    "INFO",
    "2024",
    "Feb 29",
]


@st.composite
def edited(draw: st.DrawFn, seeds: list[str]) -> bytes:
    """A line of a format with a few characters changed, put in or left out, or two joined."""
    text = draw(st.sampled_from(seeds))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 5]))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.sampled_from([0, 0, 1, 1, 2, 9]))
        text = text[:at] + draw(st.sampled_from(SIGNS) | st.text(max_size=3)) + text[at + cut :]
    if draw(st.integers(0, 9)) == 0:
        other = draw(st.sampled_from(seeds))
        text = text[: draw(st.integers(0, len(text)))] + other[draw(st.integers(0, len(other))) :]
    text += draw(st.sampled_from(["", "", "", "\r", " ", "\v", "\xa0"]))
    return text.encode("utf-8", "replace").replace(b"\n", b" ")


def begins_record(form: Any, line: bytes) -> bool:
    """Whether a line continues no other: by the rule of its format, or with a time of its own."""
    if re.match(form.traits.begins.encode(), line):
        return True
    return bool(form.traits.by_line and len(leading_times.beginning(pa.array([line]))))


def has_time(form: Any) -> Any:
    """What says whether a line of a format tells its time."""
    return lambda line: "time" in form.parse(line.strip())


def row(engine: Any, form: Any, line: str) -> dict[str, Any]:
    """The row of one line by the exact rule, without nulls; the query's is the same."""
    return rows_of(engine, form, [line])[0]


def rows_of(engine: Any, form: Any, lines: list[str]) -> list[dict[str, Any]]:
    """The rows of lines by the exact rule, without nulls; the query's are the same."""
    encoded = [line.encode() for line in lines]
    exact = [found for _, found in sorted(one_by_one(engine, form, encoded).items())]
    fast, at = decided(engine, form, form.QUERY, encoded), 0
    for line, found in zip(encoded, exact, strict=True):
        assert isinstance(found, dict), found
        assert fast.get(at, found) == found
        at += len(line) + 1
    return [
        {k: v for k, v in found.items() if v is not None} | {"data": dict(found["data"] or ())}
        for found in exact
    ]
