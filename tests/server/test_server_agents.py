"""Agents of machines that send to a server: collectd, and systemd's journal."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import zstandard

from lakelog.server.protocols.journal_upload import JournalEntries
from tests.support.http_lake import HttpLake, serving
from tests.support.requirements import find, need_module

MEMORY_MAX = 300 << 20
READING = {
    "values": [12.5, None],
    "dstypes": ["derive", "gauge"],
    "dsnames": ["rx", "tx"],
    "time": 1767323045.25,
    "interval": 10.0,
    "host": "leeloo",
    "plugin": "interface",
    "plugin_instance": "eth0",
    "type": "if_octets",
    "type_instance": "",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpLake]:
    need_module("uvicorn")
    with serving(tmp_path_factory.mktemp("served") / "lake") as each:
        yield each


def entry(number: int, **fields: str) -> bytes:
    """One entry of a journal, in its export format."""
    names = {
        "__CURSOR": f"s=1;i={number}",
        "__REALTIME_TIMESTAMP": str(1767323045_000000 + number),
        "__MONOTONIC_TIMESTAMP": str(number),
        "_BOOT_ID": "0123456789abcdef0123456789abcdef",
        "MESSAGE": f"line {number}",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "web",
        **fields,
    }
    return b"".join(f"{name}={value}\n".encode() for name, value in names.items()) + b"\n"


def test_readings_of_collectd_are_metrics(server: HttpLake) -> None:
    """What is none, as a notification, is in the quarantine as the JSON that it was."""
    notification = {"labels": {"alertname": "collectd_load"}, "value": None, "up": True}
    reply = server.ask("/collectd", json.dumps([READING, notification, 7]).encode())
    assert (reply.status, reply.json["accepted"], reply.json["rejected"]) == (200, 1, 2)
    rejects = server.events("SELECT line FROM quarantine WHERE reason = 'a reading has values'")
    assert [json.loads(row["line"]) for row in rejects] == [notification, 7]
    (event,) = server.events("SELECT * FROM events WHERE source = 'leeloo'")
    assert (event["type"], event["subject"]) == ("metric", "interface-eth0/if_octets")
    assert event["time"].isoformat() == "2026-01-02T03:04:05.250000+00:00"
    assert json.loads(event["data"])["values"] == {"rx": 12.5, "tx": None}
    assert server.ask("/collectd", b"PUTVAL leeloo/cpu 1").status == 400


def test_entries_of_a_journal_are_stored_once_though_they_come_again(server: HttpLake) -> None:
    binary = b"__CURSOR=s=1;i=9\n__REALTIME_TIMESTAMP=1767323046000000\nMESSAGE\n"
    binary += struct.pack("<Q", 9) + b"two\n\nline" + b"\n\n"
    body = entry(1) + entry(2) + binary + b"__CURSOR=no time\n\n"
    for _ in range(2):
        reply = server.ask("/upload", body, {"content-type": "application/vnd.fdo.journal"})
        assert (reply.status, reply.body) == (202, b"3 entries stored, 1 refused\n")
    events = server.events("SELECT * FROM events WHERE type = 'journal' ORDER BY seq")
    assert [event["message"] for event in events] == ["line 1", "line 2", "two\n\nline"]
    assert {event["level"] for event in events[:2]} == {"ERROR"}
    refused = "SELECT * FROM quarantine WHERE line LIKE '%no time%'"
    assert len(server.events(refused)) == 1


def test_what_was_refused_of_a_journal_is_known_to_the_next_server(tmp_path: Path) -> None:
    for _ in range(2):
        with serving(tmp_path / "lake") as server:
            reply = server.ask("/upload", b"__CURSOR=1\n\n__CURSOR=2\n\n")
            assert (reply.status, reply.body) == (202, b"0 entries stored, 2 refused\n")
            server.kill()
    assert len(server.events("SELECT * FROM quarantine")) == 2


def test_a_journal_without_an_end_is_stored_while_it_comes(server: HttpLake) -> None:
    """A body of 40 MB passes what any other body may have."""
    entries = (
        entry(n, SYSLOG_IDENTIFIER="long", MESSAGE=f"{n} " * (1 << 18)) for n in range(100, 140)
    )
    bodies = (gzip.compress(long, 1) for long in entries)
    assert chunked(server.port, "/upload", bodies, "gzip").startswith(b"HTTP/1.1 202")
    query = "SELECT count(*) AS n, min(length(message)) AS size FROM events WHERE source = 'long'"
    assert server.events(query) == [{"n": 40, "size": 1 << 20}]


def chunked(port: int, path: str, chunks: Iterable[bytes], encoding: str = "identity") -> bytes:
    """Send a body of no declared length; return the beginning of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        connection.sendall(
            f"{head}Connection: close\r\nContent-Encoding: {encoding}\r\n\r\n".encode()
        )
        for chunk in chunks:
            connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        connection.sendall(b"0\r\n\r\n")
        answer = b""
        while received := connection.recv(1 << 16):
            answer += received
        return answer


@pytest.mark.parametrize("size", [1, 7, 100, 1_000, 10_000])
def test_an_entry_is_too_long_however_it_comes(size: int) -> None:
    """Also where its end comes in one part with what is longer than the limit."""
    huge = entry(2).rstrip(b"\n") + b"\nTEXT=" + b"x" * 3_000 + b"\n\n"
    text, entries = entry(1) + huge + entry(3), JournalEntries(2_000)
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    arrived = [entries.arrivals(p, is_end=n == len(parts)) for n, p in enumerate(parts, 1)]
    assert (sum(a.stored for a in arrived), sum(len(a.rejects) for a in arrived)) == (2, 1)


@pytest.mark.parametrize("length", [9 << 20, 200 << 20])
@pytest.mark.parametrize("field", ["text", "binary", "several"])
def test_an_entry_beyond_all_limits_is_quarantined_alone(
    tmp_path: Path, field: str, length: int
) -> None:
    """Refused with its request, it would come again for ever, and no entry behind it."""
    need_module("uvicorn")
    huge = b"__CURSOR=huge\n__REALTIME_TIMESTAMP=1\nMESSAGE"
    filler = b"".join(entry(n) for n in range(10_000)).ljust(1 << 20)[: 1 << 20]
    if field == "binary":
        # What it holds looks like entries, and is not.
        chunks = [
            huge + b"\n" + struct.pack("<Q", length),
            *[filler] * (length >> 20),
            b"\nA=1\n\n",
        ]
    elif field == "text":
        chunks = [huge + b"=", *[b"x" * (1 << 20)] * (length >> 20), b"\nMESSAGE=no\n\n"]
    else:
        each = b"=x\nA\n" + struct.pack("<Q", len(filler)) + filler + b"\nMESSAGE"
        chunks = [huge, *[each] * (length >> 20), b"=x\n\n"]
    rng = random.Random(f"{field} {length}")
    text = b"".join([entry(1), *chunks, entry(2), huge[:-7] + b"MESSAGE=short\n\n"])
    ends = sorted(rng.randrange(len(text)) for _ in range(200))
    cut = [text[a:b] for a, b in itertools.pairwise([0, *ends, len(text)]) if a < b]
    del text, chunks
    with serving(tmp_path / "lake") as server:
        answer = chunked(server.port, "/upload", cut)
        assert answer.startswith(b"HTTP/1.1 202"), answer
        assert answer.endswith(b"3 entries stored, 1 refused\n")
        events = server.events("SELECT id FROM events ORDER BY seq")
        assert [event["id"] for event in events] == ["s=1;i=1", "s=1;i=2", "huge"]
        (line,) = server.events("SELECT reason, line FROM quarantine")
        assert "more than 8,388,608 bytes" in line["reason"]
        assert line["line"].startswith(huge.decode())
        assert 1 << 20 <= len(line["line"]) <= (1 << 20) + 16  # an escaped byte is longer
        assert server.peak() < MEMORY_MAX


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_compressed_journal_may_become_large(server: HttpLake, encoding: str) -> None:
    """Uploaders compress each buffer alone, and what repeats becomes a thousand times as much."""
    compress = {"gzip": gzip.compress, "zstd": zstandard.compress}[encoding]
    long = entry(300, SYSLOG_IDENTIFIER=f"long {encoding}", MESSAGE="x" * (60 << 20))
    names = {"SYSLOG_IDENTIFIER": f"short {encoding}"}
    chunks = [entry(301, **names), entry(302, **names), long, entry(303, **names)]
    answer = chunked(server.port, "/upload", map(compress, chunks), encoding)
    assert answer.endswith(b"3 entries stored, 1 refused\n"), answer
    query = f"SELECT id FROM events WHERE source = 'short {encoding}'"
    assert len(server.events(query)) == 3


@pytest.mark.needs("systemd-journal-remote", "systemd-journal-upload")
def test_systemds_uploader_sends_each_entry_once_over_a_kill(tmp_path: Path) -> None:
    """The server dies while entries come; the uploader begins again, and nothing is there twice."""
    need_module("uvicorn")
    count, journal = 10_000, tmp_path / "web.journal"
    entries = b"".join(entry(n, _SOURCE_REALTIME_TIMESTAMP=str(n)) for n in range(1, count + 1))
    made = [find("systemd-journal-remote"), "-o", str(journal), "-"]
    subprocess.run(made, input=entries, check=True, capture_output=True)
    with serving(tmp_path / "lake") as server:
        killer = threading.Thread(target=lambda: (_wait_for_events(server), server.kill()))
        killer.start()
        _upload(server.port, journal)
        killer.join()
    with serving(tmp_path / "lake") as server:
        assert _upload(server.port, journal).returncode == 0
        query = "SELECT count(*) AS n, count(DISTINCT message) AS texts FROM events"
        assert server.events(query) == [{"n": count, "texts": count}]


def _upload(port: int, journal: Path) -> subprocess.CompletedProcess[bytes]:
    url = f"--url=http://127.0.0.1:{port}"
    command = [find("systemd-journal-upload"), "--follow=no", url, f"--file={journal}"]
    return subprocess.run(command, capture_output=True, timeout=120, check=False)


def _wait_for_events(server: HttpLake) -> None:
    while not server.events("SELECT seq FROM events LIMIT 1"):
        time.sleep(0.01)


@pytest.mark.needs("collectd")
def test_collectd_sends_its_readings(server: HttpLake, tmp_path: Path) -> None:
    config = tmp_path / "collectd.conf"
    config.write_text(f"""
        Hostname "tried"
        Interval 0.2
        BaseDir "{tmp_path}"
        PIDFile "{tmp_path}/pid"
        TypesDB "/usr/share/collectd/types.db"
        LoadPlugin load
        LoadPlugin memory
        LoadPlugin write_http
        <Plugin write_http>
          <Node "lake">
            URL "http://127.0.0.1:{server.port}/collectd"
            Format "JSON"
            BufferSize 4096
          </Node>
        </Plugin>
        """)
    query = "SELECT subject, count(*) AS n FROM events WHERE source = 'tried' GROUP BY 1"
    command = [find("collectd"), "-f", "-C", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not server.events(query):
            time.sleep(0.1)
    finally:
        process.terminate()
        process.wait(30)
    subjects = {row["subject"] for row in server.events(query)}
    assert {"load/load", "memory/memory-used"} <= subjects
