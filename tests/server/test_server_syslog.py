"""Syslog: each message of a stream is an event once, however it is framed and cut."""

from __future__ import annotations

import contextlib
import logging.handlers
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.errors import InvalidSetting
from lakelog.server import syslog
from tests.support.http_lake import HttpLake, certified, serving
from tests.support.requirements import need, need_module


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HttpLake, int]]:
    need_module("uvicorn")
    port = free_port()
    path = tmp_path_factory.mktemp("syslog") / "lake"
    with serving(path, "--syslog", str(port)) as each:
        yield each, port


def stored(server: HttpLake, source: str, count: int) -> list[dict[str, Any]]:
    """The events of a program, once there are so many."""
    until = time.monotonic() + 20
    while True:
        query = f"SELECT * FROM events WHERE source = '{source}' ORDER BY seq"
        events = server.events(query)
        if len(events) >= count or time.monotonic() > until:
            return events
        time.sleep(0.05)


def message(program: str, text: str) -> bytes:
    return f"<12>1 2026-11-26T06:00:00.123Z host {program} 7 ID - {text}".encode()


def test_messages_over_tcp_in_both_framings(server: tuple[HttpLake, int]) -> None:
    lake, port = server
    counted = message("mixed", "two\nlines")
    content = message("mixed", "one") + b"\n" + b"%d %b" % (len(counted), counted)
    content += b"<13>Nov 26 06:00:00 host mixed[7]: three\n"
    with closing(socket.create_connection(("127.0.0.1", port))) as connection:
        for start in range(0, len(content), 7):
            connection.sendall(content[start : start + 7])
    events = stored(lake, "mixed", 3)
    assert [event["message"] for event in events] == ["one", "two\nlines", "three"]
    assert [event["level"] for event in events] == ["WARN", "WARN", "INFO"]


def test_the_handler_of_python_s_logging(server: tuple[HttpLake, int]) -> None:
    """It ends each message with NUL; what is on its connection is stored while that is open."""
    lake, port = server
    address = ("127.0.0.1", port)
    handler = logging.handlers.SysLogHandler(address, socktype=socket.SOCK_STREAM)
    handler.ident = "Nov 26 06:00:00 host pyhandler: "
    with closing(handler):
        for text in ("one", "two", "three"):
            handler.emit(logging.makeLogRecord({"levelno": 40, "levelname": "ERROR", "msg": text}))
        events = stored(lake, "pyhandler", 3)
    assert [event["message"] for event in events] == ["one", "two", "three"]
    assert {event["level"] for event in events} == {"ERROR"}


@pytest.mark.parametrize("framing", ["counted", "line"])
def test_a_long_message_is_whole(server: tuple[HttpLake, int], framing: str) -> None:
    """As a trace of a program with many causes is."""
    lake, port = server
    source, text = f"long{framing}", "ä€" * 150_000
    sent = message(source, text)
    content = b"%d %b" % (len(sent), sent) if framing == "counted" else sent + b"\n"
    with closing(socket.create_connection(("127.0.0.1", port))) as connection:
        connection.sendall(content + message(source, "next"))
    assert [event["message"] for event in stored(lake, source, 2)] == [text, "next"]


def test_datagrams(server: tuple[HttpLake, int]) -> None:
    lake, port = server
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        for number in range(50):
            sender.sendto(message("udp", str(number)), ("127.0.0.1", port))
    events = stored(lake, "udp", 50)
    assert sorted(int(event["message"]) for event in events) == [*range(50)]
    assert b"lakelog_syslog_lost_total 0.0" in lake.ask("/metrics").body


def test_what_is_no_syslog_is_the_message_of_an_event(server: tuple[HttpLake, int]) -> None:
    lake, port = server
    with closing(socket.create_connection(("127.0.0.1", port))) as connection:
        connection.sendall(b"plain words\n\xff\x01\xfe\n\n")
    until = time.monotonic() + 20
    query = "SELECT message FROM events WHERE source IS NULL ORDER BY seq"
    while len(events := lake.events(query)) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert [event["message"] for event in events] == ["plain words", "\\xff\x01\\xfe"]


@pytest.mark.parametrize(
    "head", ["<34>Nov 30 00:00:06 h app: ", "<34>1 2026-11-30T00:00:06Z h app - - - "]
)
def test_a_message_in_an_older_encoding_is_read_as_in_a_file(tmp_path: Path, head: str) -> None:
    """Of devices that send no UTF-8: all of its fields, marked as lines of files are."""
    line = head.encode() + "café für 5 €".encode("cp1252")
    (tmp_path / "old.log").write_bytes(line + b"\n")
    with lakelog.open(tmp_path / "lake") as lake:
        lake.ingest(tmp_path / "old.log")
        lake.append(syslog.event_of(line))
        names = "source, level, message, data->>'host', data->>'encoding'"
        rows = lake.sql(f"SELECT DISTINCT {names} FROM events").fetchall()
    assert rows == [("app", "FATAL", "café für 5 €", "h", "windows-1252")]
    assert syslog.event_of(b"plain \xe9")["message"] == "plain é"


@pytest.mark.needs("logger")
@pytest.mark.parametrize("how", [("--tcp", "--octet-count"), ("--tcp",), ("--udp",)])
def test_the_program_logger(server: tuple[HttpLake, int], how: tuple[str, ...]) -> None:
    lake, port = server
    tag = "logger" + "".join(how).replace("-", "")
    command = ["logger", *how, "--server", "127.0.0.1", "--port", str(port), "--tag", tag]
    subprocess.run([*command, "--priority", "user.err", "a word of logger"], check=True)
    (event,) = stored(lake, tag, 1)
    assert (event["message"], event["level"]) == ("a word of logger", "ERROR")


def test_a_stop_stores_what_was_received(tmp_path: Path) -> None:
    need_module("uvicorn")
    port = free_port()
    with serving(tmp_path / "lake", "--syslog", str(port)) as server:
        with closing(socket.create_connection(("127.0.0.1", port))) as connection:
            connection.sendall(b"".join(message("stop", str(n)) + b"\n" for n in range(2_000)))
            assert len(stored(server, "stop", 2_000)) == 2_000
            assert server.stop() == 0
        assert len(stored(server, "stop", 2_000)) == 2_000


def test_a_stop_loses_nothing_of_a_sender_that_looks(tmp_path: Path) -> None:
    """As rsyslog does, whether the connection has ended, before it sends a message."""
    need_module("uvicorn")
    port = free_port()
    with serving(tmp_path / "lake", "--syslog", str(port)) as server:
        connection = socket.create_connection(("127.0.0.1", port))
        looker = select.poll()
        looker.register(connection, select.POLLIN)
        sent = 0
        while not looker.poll(1):
            texts = range(sent, sent + 100)
            connection.sendall(b"".join(message("looker", f"{n}") + b"\n" for n in texts))
            sent += 100
            if sent == 5_000:
                server.process.terminate()
        connection.close()
        assert server.stop() == 0
    with lakelog.open(tmp_path / "lake") as lake:
        numbers = lake.sql("SELECT message::INT FROM events ORDER BY 1").fetchall()
    assert numbers == [(n,) for n in range(sent)]


def test_a_stop_stores_what_the_kernel_has_of_a_sender(tmp_path: Path) -> None:
    """It may be some MB: more than is stored in the time that a sender has to see the end."""
    need_module("uvicorn")
    port = free_port()
    count = 80_000
    with serving(tmp_path / "lake", "--syslog", str(port)) as server:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(b"".join(message("fast", f"{n}") + b"\n" for n in range(count)))
        server.process.terminate()
        assert connection.recv(1) == b""
        connection.close()
        assert server.stop() == 0
    with lakelog.open(tmp_path / "lake") as lake:
        query = "SELECT count(*), count(DISTINCT message::INT) FROM events"
        assert lake.sql(query).fetchall() == [(count, count)]


def test_only_clients_with_certificates_send_over_tls(tmp_path: Path) -> None:
    need_module("uvicorn")
    need("openssl")
    port = free_port()
    tls, context = certified(tmp_path)
    options = [*tls, "--syslog", str(port), "--syslog-ca", tls[1]]
    with serving(tmp_path / "lake", *options) as server:
        with contextlib.suppress(OSError):  # TLS 1.3 may tell it only afterwards
            _send_over_tls(context, port, message("tls", "without"))
        context.load_cert_chain(tls[1], tls[3])
        _send_over_tls(context, port, message("tls", "with"))
        assert [event["message"] for event in stored(server, "tls", 1)] == ["with"]
        assert server.stop() == 0
        assert server.process.stderr is not None
        log = server.process.stderr.read()
    assert log.count("a client was refused by TLS: peer did not return a certificate") == 1


def _send_over_tls(context: Any, port: int, content: bytes) -> None:
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(content + b"\n")
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)


@pytest.mark.parametrize(
    ("address", "is_admitted"),
    [
        *(("127.0.0.1", True), ("::1", True), ("10.1.2.3", True), ("::ffff:10.1.2.3", True)),
        *(("10.2.0.1", False), ("192.0.2.7", True), ("192.0.2.8", False), ("fe80::1%eth0", False)),
        ("", False),
    ],
)
def test_who_may_send(address: str, is_admitted: bool) -> None:
    plan = syslog.SyslogPlan(0, ("10.1.0.0/16", "192.0.2.7"))
    server = syslog.SyslogServer(plan, "0.0.0.0", None)  # type: ignore[arg-type]
    assert server.admits(address) is is_admitted


def test_datagrams_that_are_refused_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Once a sender, who is told nothing."""
    plan = syslog.SyslogPlan(0, ("10.1.0.0/16",))
    server = syslog.SyslogServer(plan, "0.0.0.0", None)  # type: ignore[arg-type]
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver:
        datagrams = syslog._Datagrams(server, receiver)
        for port in (1, 2):
            datagrams.datagram_received(message("far", "lost"), ("192.0.2.7", port))
    refusal = "syslog from 192.0.2.7 is refused: --syslog-from does not name it"
    assert caplog.messages == [refusal]


def test_it_is_not_open_to_everybody() -> None:
    with pytest.raises(InvalidSetting, match="--syslog-from"):
        syslog.SyslogServer(syslog.SyslogPlan(0), "0.0.0.0", None)  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match=r"10\.0\.0\.0/8"):
        syslog.SyslogServer(syslog.SyslogPlan(0, ("all",)), "127.0.0.1", None)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"9999999 <1>x", b"x" * (1 << 21)], ids=["counted", "line"])
def test_a_message_without_end_is_refused_after_those_before_it(content: bytes) -> None:
    messages, waiting = syslog.split(b"<13>one\n" + content)
    assert (messages, waiting) == ([b"<13>one"], content)
    with pytest.raises(ValueError, match="message"):
        syslog.split(waiting)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_lines_that_begin_with_digits_are_lines(server: tuple[HttpLake, int], size: int) -> None:
    lake, port = server
    source = f"digits{size}"
    lines = [message(source, "failed"), b"12 more frames", b"2026-11-27 done", b"0 <1>x", b"7"]
    content = b"\n".join([*lines, b"99 " + message(source, "cut")])
    with closing(socket.create_connection(("127.0.0.1", port))) as connection:
        for start in range(0, len(content), size):
            connection.sendall(content[start : start + size])
    assert [event["message"] for event in stored(lake, source, 2)] == ["failed", "cut"]
    query = "SELECT message FROM events WHERE source IS NULL ORDER BY seq DESC LIMIT 4"
    assert [e["message"].encode() for e in reversed(lake.events(query))] == lines[1:]
