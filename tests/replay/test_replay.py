"""Replays: exact order, the recorded pauses or faster, paused, stopped and resumed."""

from __future__ import annotations

import json
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import lakelog
from lakelog.cli import cli
from lakelog.disk import disk
from lakelog.errors import InvalidSetting
from lakelog.replay.pace import AT_ONCE, ReplayPace, parse_rate, parse_speed
from lakelog.replay.replay import Replay, ReplaySelection
from lakelog.replay.targets import HttpTarget

START = 1_790_000_000


class Kept:
    """A target that keeps what it was sent, and when."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self.times: list[float] = []
        self._fails_after = fails_after

    def send(self, lines: bytes) -> None:
        fresh = lines.splitlines()
        if self._fails_after is not None and len(self.events) + len(fresh) > self._fails_after:
            raise OSError("full")
        for line in fresh:
            self.events.append(json.loads(line))
            self.times.append(time.monotonic())

    def close(self) -> None:
        pass


def events(count: int) -> list[dict[str, Any]]:
    """Events in a random order of arrival, some of one time."""
    made = [
        {
            "type": "e",
            "subject": f"s{n}",
            "time": START + n // 2 * 20,
            "data": {"n": n, "text": "é\n"},
        }
        for n in range(count)
    ]
    random.Random(7).shuffle(made)
    return made


@pytest.fixture
def lake(home: Path) -> Iterator[lakelog.Lake]:
    """A lake with events of three sources of order: tail, sealed and compacted."""
    with lakelog.open(home / "lake") as lake:
        made = events(60)
        lake.append(made[:30])
        lake.snapshot("half")
        lake.append(made[30:50])
        lake.compact()
        lake.append(made[50:])
        yield lake


def replayed(lake: lakelog.Lake, *conditions: str, **options: Any) -> list[dict[str, Any]]:
    kept = Kept()
    pace = ReplayPace(AT_ONCE, None, threading.Event())
    Replay(lake, ReplaySelection(conditions), pace, kept, **options).run()
    return kept.events


def order(lake: lakelog.Lake) -> list[str]:
    return [s for (s,) in lake.sql("SELECT subject FROM events ORDER BY time, seq").fetchall()]


def test_events_come_in_the_order_of_their_times(lake: lakelog.Lake) -> None:
    """Those of one time by their place in the lake; whole, as an append takes them."""
    got = replayed(lake)
    assert [event["subject"] for event in got] == order(lake)
    assert got[0]["data"] == {"n": int(got[0]["subject"][1:]), "text": "é\n"}
    assert set(got[0]) == set("time type category source subject level message id data".split())


def test_a_replay_into_another_lake_gives_the_same_events(lake: lakelog.Lake, home: Path) -> None:
    """What comes out goes in: another lake then has the same events."""
    with lakelog.open(home / "copy") as copy:
        copy.append(replayed(lake))
        query = "SELECT time, type, subject, data FROM events ORDER BY time, subject"
        assert copy.sql(query).fetchall() == lake.sql(query).fetchall()


def test_conditions_and_states_select(lake: lakelog.Lake) -> None:
    """Conditions of SQL, searches among them, and the events of a tag."""
    got = replayed(lake, "(data->>'n')::INT < 5", "search('-s3')")
    assert sorted(event["subject"] for event in got) == ["s0", "s1", "s2", "s4"]
    lake.tag("all")
    lake.append([{"type": "later"}])
    kept = Kept()
    pace = ReplayPace(AT_ONCE, None, threading.Event())
    Replay(lake, ReplaySelection(ref="all"), pace, kept).run()
    assert len(kept.events) == 60


@pytest.mark.parametrize(("fails", "ref"), [(1, ""), (7, "main"), (31, "")])
def test_a_replay_that_failed_goes_on_behind_what_was_delivered(
    lake: lakelog.Lake, home: Path, fails: int, ref: str
) -> None:
    """In the state that it began with, each event once, whatever the lake got meanwhile."""
    lake.settle()
    wanted, path = order(lake), str(home / "cursor.json")
    kept = Kept(fails)
    # In small steps: only what is late is sent together.
    pace = ReplayPace(AT_ONCE, 20, threading.Event())
    with pytest.raises(OSError, match="full"):
        Replay(lake, ReplaySelection(ref=ref), pace, kept, cursor=path).run()
    lake.append([{"type": "t", "subject": "late", "time": START + n * 10_000} for n in range(2)])
    lake.compact()
    rest = Kept()
    free = ReplayPace(AT_ONCE, None, threading.Event())
    Replay(lake, ReplaySelection(ref=ref), free, rest, cursor=path).run()
    assert [event["subject"] for event in kept.events + rest.events] == wanted
    assert replayed(lake, cursor=path) == []


def test_a_span_is_that_before_the_beginning_where_a_replay_goes_on(
    lake: lakelog.Lake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours later, events that were still to come are not too old by then."""
    cursor, words = home / "c", ("--speed", "max", "--since", "1h", "--cursor", str(home / "c"))
    monkeypatch.setattr(disk, "now_us", lambda: (START + 1_000) * 1_000_000)
    assert len(run(home / "lake", *words).stdout.splitlines()) == 60
    saved = json.loads(cursor.read_text())
    # As if it had been stopped behind the second event.
    cursor.write_text(json.dumps(saved | {"time": START * 1_000_000, "seq": 1 << 40}))
    monkeypatch.setattr(disk, "now_us", lambda: (START + 10_000) * 1_000_000)
    assert len(run(home / "lake", *words).stdout.splitlines()) == 58


def test_nothing_is_delivered_where_no_cursor_can_be(lake: lakelog.Lake, home: Path) -> None:
    """It would be delivered again by the next one."""
    kept, pace = Kept(), ReplayPace(AT_ONCE, None, threading.Event())
    with pytest.raises(InvalidSetting, match="nowhere: no such directory: create it first"):
        Replay(lake, ReplaySelection(), pace, kept, cursor=str(home / "nowhere/c")).run()
    assert not kept.events


def test_a_cursor_of_another_lake_is_refused(lake: lakelog.Lake, home: Path) -> None:
    """As is a file that is none."""
    path = str(home / "cursor.json")
    replayed(lake, cursor=path)
    with lakelog.open(home / "other") as other:
        other.append([{"type": "x"}])
        with pytest.raises(InvalidSetting, match="of another lake"):
            replayed(other, cursor=path)
    Path(path).write_text("[1, 2]")
    with pytest.raises(InvalidSetting, match="is not the cursor of a replay"):
        replayed(lake, cursor=path)


def test_pauses_are_those_of_the_recording(home: Path) -> None:
    """Ten times faster, each event is due a tenth of its time after the first, and not before."""
    with lakelog.open(home / "lake") as lake:
        lake.append([{"type": "e", "time": START + 0.5 * n} for n in range(5)])
        kept, start = Kept(), time.monotonic()
        Replay(lake, ReplaySelection(), ReplayPace(10.0, None, threading.Event()), kept).run()
    assert all(moment - start >= 0.05 * n for n, moment in enumerate(kept.times))


def test_a_rate_is_kept(home: Path) -> None:
    """No more events a second than allowed, whatever their times."""
    with lakelog.open(home / "lake") as lake:
        lake.append([{"type": "e", "time": START} for _ in range(20)])
        kept, start = Kept(), time.monotonic()
        Replay(lake, ReplaySelection(), ReplayPace(AT_ONCE, 100.0, threading.Event()), kept).run()
    assert kept.times[-1] - start >= 0.19


def test_what_is_late_goes_at_once(home: Path) -> None:
    """A target that took long gets all that became due meanwhile together, in its order."""
    with lakelog.open(home / "lake") as lake:
        made = [
            {"type": "e", "time": START + n, "data": {"n": n, "text": "é\n"}} for n in range(50)
        ]
        lake.append(made)
        slow, sends = Kept(), list[int]()
        pace = ReplayPace(200.0, None, threading.Event())

        def send(lines: bytes, deliver: Any = slow.send) -> None:
            deliver(lines)
            sends.append(lines.count(b"\n"))
            while time.monotonic() < pace.due((START + 50) * 1_000_000, 50):
                time.sleep(0.01)

        slow.send = send  # type: ignore[method-assign]
        Replay(lake, ReplaySelection(), pace, slow).run()
    assert (len(sends), sum(sends)) == (2, 50)
    assert [event["data"]["n"] for event in slow.events] == list(range(50))


def test_a_paused_replay_stands_still(home: Path) -> None:
    """Nothing comes while it is paused; then the pauses go on, nothing is made up for."""
    with lakelog.open(home / "lake") as lake:
        lake.append([{"type": "e", "time": START + 0.1 * n} for n in range(4)])
        kept, pace = Kept(), ReplayPace(1.0, None, threading.Event())
        thread = threading.Thread(target=Replay(lake, ReplaySelection(), pace, kept).run)
        pace.toggle()
        thread.start()
        time.sleep(0.4)
        assert not kept.events
        start = time.monotonic()
        pace.toggle()
        thread.join()
    assert len(kept.events) == 4
    assert kept.times[-1] - start >= 0.29


def run(path: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["--lake", str(path), "replay", *words])


def test_a_command_gets_the_events(lake: lakelog.Lake, home: Path) -> None:
    """Its standard input has one line for each; where it fails, so does the replay."""
    out = home / "out"
    result = run(home / "lake", "--speed", "max", "--to-command", f"cat > {out}")
    assert result.exit_code == 0, result.output
    assert len(out.read_text().splitlines()) == 60
    failed = run(home / "lake", "--speed", "max", "--to-command", "cat > /dev/null; exit 3")
    assert failed.exit_code != 0


def test_what_a_command_never_read_is_given_to_the_next(lake: lakelog.Lake, home: Path) -> None:
    """A command that fails before it reads leaves the cursor behind what it took."""
    out, words = home / "out", ("--speed", "max", "--cursor", str(home / "cursor"))
    failed = run(home / "lake", *words, "--to-command", "sleep 0.5; exit 3")
    assert failed.exit_code != 0
    assert "ended with 3" in failed.output
    assert run(home / "lake", *words, "--to-command", f"cat > {out}").exit_code == 0
    assert len(out.read_text().splitlines()) == 60


def test_what_stayed_in_a_pipe_is_given_to_the_next(lake: lakelog.Lake, home: Path) -> None:
    """A reader that leaves before it has read takes nothing along."""
    words = ["--lake", str(home / "lake"), "replay", "--speed", "max", "--cursor", str(home / "c")]
    command = [sys.executable, "-m", "lakelog", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        select.select([process.stdout], [], [])
        process.stdout.close()
    assert len(subprocess.check_output(command).splitlines()) == 60


class Receiver(BaseHTTPRequestHandler):
    """Takes events; says of the first request that it is busy, and cuts the second off."""

    bodies: list[bytes] = []  # noqa: RUF012
    requests = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).requests += 1
        if self.requests == 1:
            self.send_response(503)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.requests == 2:
            self.close_connection = True
        else:
            self.bodies.append(body)
            self.send_response(204)
            self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_an_address_gets_the_events(lake: lakelog.Lake, home: Path) -> None:
    """By POST; a server that is busy or hangs up is asked again."""
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/events?kind=replay"
        result = run(home / "lake", "--speed", "max", "--to-http", url)
        assert result.exit_code == 0, result.output
        assert len(b"".join(Receiver.bodies).splitlines()) == 60
    finally:
        server.shutdown()
        server.server_close()


def test_an_address_gets_long_events_in_requests_of_a_megabyte(home: Path) -> None:
    """Servers and proxies refuse longer ones; an event that is longer goes alone."""
    received: list[bytes] = []

    class Bounded(Receiver):
        requests, bodies = 2, received

    lengths = [400_000, 400_000, 400_000, 1_500_000, 10]
    with lakelog.open(home / "lake") as lake:
        lake.append([{"type": "e", "data": {"text": "x" * length}} for length in lengths])
    with HTTPServer(("127.0.0.1", 0), Bounded) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        result = run(home / "lake", "--speed", "max", "--to-http", url)
        server.shutdown()
    assert result.exit_code == 0, result.output
    assert [len(body.splitlines()) for body in received] == [2, 1, 1, 1]


def test_a_signal_pauses_and_an_interrupt_ends(home: Path) -> None:
    """SIGUSR1 pauses the command and lets it go on; SIGINT ends it with 130, its cursor kept."""
    path, cursor = home / "lake", home / "cursor"
    with lakelog.open(path) as lake:
        lake.append([{"type": "e", "time": START + n} for n in range(3600)])
    words = ["--lake", str(path), "replay", "--cursor", str(cursor)]
    command = [sys.executable, "-m", "lakelog", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        while not cursor.exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    assert json.loads(cursor.read_text())["events"] >= 1


@pytest.mark.parametrize(
    ("setting", "read"), [("1x", 1.0), ("10", 10.0), ("0.5x", 0.5), ("max", AT_ONCE)]
)
def test_speeds(setting: str, read: float) -> None:
    assert parse_speed(setting) == read


def test_wrong_speeds_and_rates_are_one_line() -> None:
    """What is no speed or rate is refused with what one looks like."""
    assert [parse_rate("100/s"), parse_rate("60/m"), parse_rate("5")] == [100.0, 1.0, 5.0]
    for setting in ("fast", "0x", "-1x", ""):
        with pytest.raises(InvalidSetting, match="10x"):
            parse_speed(setting)
    for setting in ("much", "0/s", "1/week"):
        with pytest.raises(InvalidSetting, match="1000/s"):
            parse_rate(setting)


@pytest.mark.parametrize(
    "url",
    [
        *("http://h:99999/x", "http://h:x/", "http://[::1/x", "ftp://h/", "http://u@h/"),
        *("http://h/a b", "http://h/\N{LATIN SMALL LETTER E WITH ACUTE}"),
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    """In one line, whatever is wrong with it."""
    with pytest.raises(InvalidSetting, match="an address is http"):
        HttpTarget(url)
