"""`lakelog tail` as a person or a pipe sees it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from rich.cells import cell_len

import lakelog
from lakelog.query.newest import NewestEvents
from tests.support.cli import run_in

EVENTS = [
    {
        "type": "DISCOVER",
        "source": "TechPodcast",
        "subject": "ep_1",
        "time": "2026-01-01T08:00:00Z",
    },
    {
        "type": "FAIL",
        "source": "a source with a very long name",
        "level": "error",
        "message": "čeština 🎙 " * 20,
        "data": {"x": 1},
        "time": "2026-01-01T08:00:01.5Z",
    },
    {"type": "EVIL", "message": "\x1b[31mred\nline", "time": "2026-01-02T00:00:00Z"},
]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with a lake of three events."""
    with lakelog.open(str(tmp_path / "lake"), settings={"seal": "never"}) as lake:
        lake.append(EVENTS)
    return tmp_path


def tail(*words: str, cwd: Path, code: int = 0) -> Result:
    """Run the verb."""
    return run_in(cwd, "tail", *words, code=code)


@pytest.mark.thorough
def test_json_lines_in_a_pipe(here: Path) -> None:
    """Each event is one JSON object with all columns, its data as JSON."""
    found = [json.loads(text) for text in tail("-n", "2", cwd=here).stdout.splitlines()]
    assert [event["type"] for event in found] == ["FAIL", "EVIL"]
    assert tuple(found[0]) == NewestEvents.COLUMNS
    assert found[0]["data"] == {"x": 1}
    assert tail("-n", "0", cwd=here).stdout == ""


def on_terminal(cwd: Path, *words: str, columns: int = 80, **environment: str) -> str:
    """What the verb shows on a terminal."""
    master, slave = pty.openpty()
    given = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", **environment}
    command = [sys.executable, "-m", "lakelog", "tail", *words]
    shown = b""
    with subprocess.Popen(command, cwd=cwd, stdout=slave, stderr=slave, env=given):
        os.close(slave)
        with contextlib.suppress(OSError):
            while piece := os.read(master, 4096):
                shown += piece
    os.close(master)
    return shown.decode()


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_lines_for_people(here: Path, columns: int) -> None:
    """A line an event that fits the terminal, under its day; nothing in it commands a terminal."""
    shown = on_terminal(here, columns=columns, NO_COLOR="1")
    lines = shown.replace("\r\n", "\n").splitlines()
    assert [text for text in lines if text.endswith("UTC")] == ["2026-01-01 UTC", "2026-01-02 UTC"]
    assert len(lines) == 5
    assert max(map(cell_len, lines)) <= columns
    assert lines[1] == "08:00:00.000       TechPodcast DISCOVER  ep_1"[:columns].rstrip()
    assert lines[2].startswith("08:00:01.500 ERROR a source with a…")
    assert "\x1b" not in shown


def test_colours_on_a_terminal(here: Path) -> None:
    """Levels have colours there, unless NO_COLOR forbids them; --json is JSON there too."""
    assert "\x1b[31m" in on_terminal(here)
    shown = on_terminal(here, "--json", "-n", "1")
    assert json.loads(shown)["type"] == "EVIL"


def test_lines_in_a_pipe(here: Path) -> None:
    """`--format lines` is for a pager: of 80 columns, coloured where FORCE_COLOR asks for it."""
    plain = tail("--format", "lines", cwd=here).stdout
    assert plain.splitlines()[1] == "08:00:00.000       TechPodcast DISCOVER  ep_1"
    assert "\x1b" not in plain
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORCE_COLOR", "1")
        assert "\x1b[31m" in tail("--format", "lines", cwd=here).stdout
    assert json.loads(tail("--format", "jsonl", "-n", "1", cwd=here).stdout)["type"] == "EVIL"
    assert "do not go together" in tail("--json", "--format", "lines", cwd=here, code=2).stderr
    assert "is not one of" in tail("--format", "markdown", cwd=here, code=2).stderr


@contextlib.contextmanager
def following(cwd: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A tail that goes on, once it has begun."""
    command = [sys.executable, "-m", "lakelog", "tail", "-f", "-n", "1", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=cwd, stdout=pipe, stderr=pipe, text=True) as running:
        assert running.stdout is not None
        assert json.loads(running.stdout.readline())["type"] == "EVIL"
        try:
            yield running
        finally:
            running.kill()


def test_live_events_and_the_end(here: Path) -> None:
    """Live events come, a rollback is said on stderr, and Ctrl-C ends it with 130."""
    with following(here) as running, lakelog.open(str(here / "lake")) as lake:
        assert running.stdout is not None
        lake.tag("v1")
        for n in range(3):
            lake.append({"type": f"t{n}"})
            assert json.loads(running.stdout.readline())["type"] == f"t{n}"
        lake.rollback("v1")
        lake.append({"type": "after"})
        assert json.loads(running.stdout.readline())["type"] == "after"
        running.send_signal(signal.SIGINT)
        out, words = running.communicate(timeout=240)
    assert running.returncode == 130
    assert out == ""
    assert "rewound by rollback" in words
    assert "Traceback" not in words


def test_a_reader_that_leaves(here: Path) -> None:
    """Though nothing comes, a tail whose pipe was closed ends, and says nothing."""
    with following(here) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        until = time.monotonic() + 240
        while running.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert running.returncode == 0
        assert running.stderr.read() == ""


@pytest.mark.parametrize("where", ["nothing = 1", "type ="])
def test_a_bad_condition(here: Path, where: str) -> None:
    """One line says what is wrong with --where."""
    words = tail("--where", where, cwd=here, code=2).stderr
    assert words.startswith("lakelog: error: Invalid value for --where:")
    assert words.count("\n") == 1
    assert "NULL::" not in words
