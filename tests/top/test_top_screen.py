"""The screen of `lakelog top`: it fits, it is quiet where nothing is a terminal, and it ends."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from rich.cells import cell_len

import lakelog
from lakelog.top import FrameOptions, Lag, LakeFigures, frame
from lakelog.top.layout import number, size, text_of
from lakelog.top.machine import MachineFigures, MachineMeter
from lakelog.top.rates import NewestEvent, SecondCounts
from tests.support.cli import run
from tests.support.processes import environment

ODD = "日本語\x1b[31m\n😀é" * 30


def figures() -> LakeFigures:
    result = LakeFigures(events=1_234_567, pending=12, bytes=10**9, segments=77, quarantined=3)
    result.totals = {
        "level": {"ERROR": 3, "": 5},
        "source": {f"source-{n}": n * 1_000_003 for n in range(40)},
        "type": {ODD: 9, "log": 1},
    }
    for second in range(5):
        result.look(SecondCounts(float(second), events=1_000_000 * second))
    for level in ("ERROR", "", "INFO"):
        result.newest.append(NewestEvent("12:00:00", level, ODD, "log", ODD))
    return result


@pytest.mark.parametrize("width", [20, 47, 80, 200])
def test_a_frame_fits_its_screen(width: int) -> None:
    """No line is wider, there are not more of them, and nothing in them moves the cursor."""
    machine = MachineFigures(0.5, 12.25, 10**9, 10**10, 10**12, 3, 1.5, 10**8)
    lags = [Lag("sync", ODD, "behind", is_wrong=True)] * 9
    for height in (10, 24, 60):
        options = FrameOptions(width, height, ODD, "12:00:00Z", footer="q quits " * 30)
        lines = frame(figures(), machine, lags, options)
        assert len(lines) == height
        assert max(cell_len(text_of(line)) for line in lines) <= width
        assert not re.search(r"[\x00-\x1f]", "".join(map(text_of, lines)))


def test_a_frame_of_ascii_has_nothing_else() -> None:
    """Of a screen that shows no other characters."""
    options = FrameOptions(title="lake · main", is_unicode=False)
    drawing = "\n".join(text_of(line) for line in frame(figures(), MachineFigures(), [], options))
    assert drawing.isascii()
    assert "lake - main" in drawing
    assert re.search(r"s +[.:=+*#-]+%", drawing)


def test_a_frame_of_an_empty_lake_says_what_to_do() -> None:
    """Its screen is whole."""
    lines = frame(LakeFigures(), MachineFigures(), [], FrameOptions(footer="q quits"))
    assert len(lines) == 24
    assert any("no events yet" in text_of(line) for line in lines)
    assert text_of(lines[-1]) == "q quits"


def test_a_filter_leaves_what_contains_it() -> None:
    """Of values and of events, in any case; the order is chosen."""
    drawn = {
        order: [
            match[0]
            for line in frame(
                figures(), MachineFigures(), [], FrameOptions(order=order, pattern="SOURCE-1")
            )
            if (match := re.search(r"source-\d+", text_of(line)))
        ]
        for order in ("total", "name")
    }
    assert drawn["total"][:2] == ["source-19", "source-18"]
    assert drawn["name"][:3] == ["source-1", "source-10", "source-11"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.04, "0.0"),
        (3.21, "3.2"),
        (5.0, "5"),
        (1003, "1,003"),
        (12_400, "12.4k"),
        (3.1e6, "3.1M"),
        (999_999, "1.0M"),
        (2e9, "2.0G"),
    ],
)
def test_numbers_are_short(value: float, shown: str) -> None:
    """At most six characters."""
    assert number(value) == shown


def test_sizes_have_units() -> None:
    assert [size(n) for n in (0, 999, 1000, 25_800_000, 3e12)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "25.8 MB",
        "3.0 TB",
    ]


def test_a_frame_is_printed_where_there_is_no_terminal(tmp_path: Path) -> None:
    """One, with nothing that only a terminal understands; of a tag what it names."""
    lake = tmp_path / "lake"
    run(lake, "append", "type=deploy", "level=ERROR", "message=first")
    run(lake, "tag", "v1")
    run(lake, "append", "type=other")
    drawing = run(lake, "top", "--every", "10ms").stdout
    assert "events 2" in drawing
    assert "first" in drawing
    assert "\x1b" not in drawing
    past = run(lake, "top", "--at", "v1").stdout
    assert "as of v1" in past
    assert "other" not in past


def test_the_older_dashboard_says_how_learning_goes(tmp_path: Path) -> None:
    """In its own grammar: the store is named by --db."""
    path = tmp_path / "lake"
    with lakelog.open(path) as lake:
        lake.append(
            [
                {"type": "omega.pattern", "data": {"pattern_type": "burst", "confidence": 0.5}},
                {"type": "omega.pattern", "data": {"pattern_type": "cycle", "confidence": 0.75}},
                {"type": "omega.system_stats", "data": {"active_embryos": 7, "avg_fitness": 0.25}},
            ]
        )
    drawing = run(tmp_path, "dashboard", "--db", str(path), "--once", "--every", "10ms").stdout
    figures_line = "patterns 2 of 2 types  confidence 0.62  active embryos 7  avg fitness 0.250"
    assert figures_line in drawing
    with lakelog.open(tmp_path / "other") as lake:
        lake.append({"type": "PATTERN_DETECTED", "data": {"confidence": 0.5}})
    drawing = run(
        tmp_path, "dashboard", "--db", str(tmp_path / "other"), "--once", "--every", "10ms"
    ).stdout
    assert "patterns 1  confidence 0.50" in drawing


def test_keys_pause_sort_filter_and_quit_and_the_terminal_is_as_it_was(tmp_path: Path) -> None:
    """On a terminal it has a screen of its own."""
    lake = tmp_path / "lake"
    run(lake, "append", "type=deploy", "source=web", "message=hello")
    leader, follower = pty.openpty()
    before = termios.tcgetattr(follower)
    process = subprocess.Popen(
        [sys.executable, "-m", "lakelog", "--lake", str(lake), "top", "--every", "50ms"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment(LANG="C.UTF-8", NO_COLOR="1"),
    )
    screen = _Screen(leader)
    try:
        screen.wait("hello")
        screen.wait("sorts by rate")
        for keys, shown in (
            ("s", "sorts by total"),
            ("p", "paused"),
            ("p", "p pauses"),
            ("/nothing\r", "shows 'nothing'"),
            ("\x1b", "/ filters"),
        ):
            screen.press(keys, shown)
        os.write(leader, b"q")
        assert process.wait(30) == 0
        screen.wait("\x1b[?1049l")
        assert termios.tcgetattr(follower) == before
        assert not re.search(r"\x1b\[\d*m", screen.content)  # NO_COLOR
    finally:
        process.kill()
        process.wait()
        os.close(leader)
        os.close(follower)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(number: signal.Signals, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    run(lake, "append", "type=deploy", "message=hello")
    leader, follower = pty.openpty()
    before = termios.tcgetattr(follower)
    with subprocess.Popen(
        [sys.executable, "-m", "lakelog", "--lake", str(lake), "top"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment(LANG="C.UTF-8"),
        # Who runs the tests may ignore it, as nohup does, and then so does the program.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:
        screen = _Screen(leader)
        screen.wait("hello")
        process.send_signal(number)
        assert process.wait(30) == 0
    screen.wait("\x1b[?1049l")
    assert termios.tcgetattr(follower) == before
    os.close(leader)
    os.close(follower)


class _Screen:
    """What a program writes to its terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self.content = descriptor, ""

    def press(self, keys: str, shown: str) -> None:
        self.content = ""
        os.write(self._descriptor, keys.encode())
        self.wait(shown)

    def wait(self, shown: str) -> None:
        until = time.monotonic() + 60
        while shown not in self.content:
            assert time.monotonic() < until, self.content[-2_000:]
            if select.select([self._descriptor], [], [], 0.2)[0]:
                self.content += os.read(self._descriptor, 65_536).decode("utf-8", "replace")


def test_the_processes_of_a_lake_are_those_that_have_its_files_open(tmp_path: Path) -> None:
    """Others are not."""
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append({"type": "a"})
        (wal,) = (Path(lake.path) / "wal" / "main").iterdir()
        with wal.open("rb") as file:
            process = subprocess.Popen(["sleep", "60"], stdin=file)
            try:
                machine = MachineMeter(lake.path)
                assert machine.measure().processes == 1
                assert machine.measure().processes_bytes > 0
            finally:
                process.kill()
                process.wait()
        assert MachineMeter(lake.path).measure().processes == 0
