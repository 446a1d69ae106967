"""`lakelog watch` as a person or systemd runs it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lakelog import open as open_lake
from tests.support.cli import run_in

LINE = b'{"type":"T","subject":"%d"}\n'


def count(cwd: Path) -> int:
    """The events of the lake in a directory."""
    query = "SELECT count(*) FROM events WHERE type = 'T'"
    with open_lake(cwd / "lake", create=False) as lake:  # a process for it would take all of a core
        return int(lake.sql(query).fetchall()[0][0])


def has(cwd: Path, events: int) -> bool:
    """Whether the lake in a directory has so many events."""
    return count(cwd) == events


def wait_for(condition: Callable[..., object], *arguments: object) -> None:
    """Wait until a condition holds, and leave the processors to the watcher meanwhile."""
    until = time.monotonic() + 240
    while not condition(*arguments):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with three lines in a log file."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/a.log").write_bytes(b"".join(LINE % n for n in range(3)))
    return tmp_path


def test_once_takes_what_is_there(here: Path) -> None:
    """--once ends after everything is taken in; a second time nothing is new."""
    assert "3 new events from 1 file" in run_in(here, "watch", "logs", "--once").stderr
    assert "0 new events" in run_in(here, "watch", "logs", "--once").stderr
    assert count(here) == 3


@pytest.mark.thorough
def test_a_lake_is_not_watched(here: Path) -> None:
    """The lake itself, its files, a link to it and another lake are refused, and nothing is stored;
    what is watched from above leaves it out."""
    run_in(here, "watch", "logs", "--once")
    run_in(here, "init", "other")
    (here / "link").symlink_to("lake")
    for root in ("lake", "lake/", "lake/wal", "link", "other"):
        refused = run_in(here, "watch", root, "--once", code=2)
        assert refused.stderr.splitlines()[-1].startswith(
            f"lakelog: error: {root} holds the files of a lake"
        )
    assert "0 new events" in run_in(here, "watch", ".", "--once").stderr
    assert count(here) == 3


WATCH = """
import sys
import lakelog.collect.loop as running
running.REST_AFTER = {rest}
sys.argv = ["lakelog", "watch", "logs", "--interval", "0.2"]
from lakelog.cli import main
main()
"""


def test_it_runs_until_it_is_told_to_end(here: Path) -> None:
    """Lines come in while it runs; another on the same directory is refused; SIGTERM ends it."""
    program = WATCH.format(rest=0.2)  # the lock holds while it is renewed, too
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=here, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            until = time.monotonic() + 240
            while not (here / "lake/cache/watch-main.json").exists():
                assert time.monotonic() < until
                time.sleep(0.05)
            refused = run_in(here, "watch", "logs", code=1)
            assert "another process is watching logs" in refused.stderr
            with open(here / "logs/a.log", "ab") as file:
                file.write(LINE % 3)
            wait_for(has, here, 4)
            status = json.loads(run_in(here, "watch", "--status", "--json").stdout)
            assert status["running"]
            assert status["pid"] == running.pid
        finally:
            running.send_signal(signal.SIGTERM)
            words = running.communicate()[1]
    assert running.returncode == 0
    assert "4 new events from 1 file" in words
    status = json.loads(run_in(here, "watch", "--status", "--json").stdout)
    assert (status["running"], status["events"]) == (False, 4)


def test_a_unit_for_systemd(here: Path) -> None:
    """The unit names the lake, the directories and the options by absolute paths."""
    words = ("watch", "logs", "--pattern", "*.log", "--print-unit")
    unit = run_in(here, "--lake", "my lake", *words).stdout
    (command,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert f"--lake '{here}/my lake' watch {here}/logs --pattern '*.log'" in command
    words = ("watch", "logs", "--source", "logs", "--interval", "2", "--poll", "--print-unit")
    unit = run_in(here, *words).stdout
    assert f"watch {here}/logs --source logs --interval 2 --poll\n" in unit
    assert os.path.isabs(command.split("=")[1].split()[0])
    words = ("watch", "logs", "--ignore-older", "30d", "--once")
    unit = run_in(here, *words, "--print-unit").stdout
    run_in(here, *shlex.split(unit.partition("-m lakelog ")[2].splitlines()[0]))


def test_mistakes(here: Path) -> None:
    """No directory, and no watcher to ask about, are one line each."""
    assert "a directory is needed" in run_in(here, "watch", code=2).stderr
    run_in(here, "init")
    assert "no watcher has run" in run_in(here, "watch", "--status", code=1).stderr


def test_it_is_renewed_when_nothing_comes(here: Path) -> None:
    """A watcher that rests is the same process, holds its files and needs half the memory."""
    program = WATCH.format(rest=0.5)
    run_in(here, "init")
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=here, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            for n in range(2):
                wait_for(has, here, 3 + n)
                wait_for(lambda: memory(running.pid) < 80 << 20)
                with open(here / "logs/a.log", "ab") as file:
                    file.write(LINE % (3 + n))
                os.rename(here / "logs/a.log", here / "elsewhere")
                wait_for(has, here, 4 + n)
                os.rename(here / "elsewhere", here / "logs/a.log")
        finally:
            running.send_signal(signal.SIGTERM)
        assert running.wait(240) == 0
        assert running.stderr is not None
        assert "5 new events" in running.stderr.read()


@pytest.mark.thorough
def test_no_other_takes_its_place_while_it_is_renewed(here: Path) -> None:
    """The lock of a watcher is held from its start to its end, over every renewal."""
    run_in(here, "init")
    program = WATCH.format(rest=0.1)
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=here, stderr=subprocess.PIPE, text=True) as running:
        try:
            until = time.monotonic() + 240
            while not (locks := list((here / "lake/cache").glob("watch-*.lock"))):
                assert time.monotonic() < until
                time.sleep(0.01)
            inode = locks[0].stat().st_ino
            while not is_locked(inode):  # it has made the file, and locks it next
                assert time.monotonic() < until
            for n in range(2):
                before = Path(f"/proc/{running.pid}/auxv").read_bytes()
                with open(here / "logs/a.log", "ab") as file:
                    file.write(LINE % (3 + n))
                while Path(f"/proc/{running.pid}/auxv").read_bytes() == before:
                    assert is_locked(inode)
                    assert time.monotonic() < until
                    time.sleep(0.005)
            while count(here) < 5:
                assert is_locked(inode)
                assert time.monotonic() < until
                time.sleep(0.05)
        finally:
            running.send_signal(signal.SIGTERM)
            running.communicate()
    assert running.returncode == 0


def is_locked(inode: int) -> bool:
    """Whether a process holds the lock of a file."""
    locks = Path("/proc/locks").read_text().splitlines()
    return any(f":{inode} " in line and "->" not in line for line in locks)


def memory(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
