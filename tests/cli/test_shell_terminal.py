"""The shell where it is typed at: its line editor, Ctrl-C, and a whole session in a terminal."""

from __future__ import annotations

import fcntl
import functools
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

import lakelog
from lakelog.cli.app import App
from lakelog.cli.render import terminal
from lakelog.cli.render.monitor import QueryMonitor, is_cancelled
from lakelog.cli.shell import editor, shell
from lakelog.cli.shell.complete import SqlCompleter
from lakelog.cli.shell.statements import StatementRunner
from tests.conftest import MakeLake
from tests.support.cli import run
from tests.support.lakes import events
from tests.support.tree import ROOT

ENDLESS = "SELECT count(*) FROM range(300000) a, range(300000) b WHERE a.range * b.range % 7 = 3"


@pytest.fixture
def lake(make_lake: MakeLake) -> lakelog.Lake:
    """Ten published events, tagged v1."""
    lake = make_lake()
    lake.append(events("PING", 10))
    lake.tag("v1")
    return lake


@pytest.fixture
def asker(lake: lakelog.Lake) -> Iterator[StatementRunner]:
    """A session over that lake."""
    with StatementRunner(lake.store, lake.branch_name) as made:
        yield made


# --- the line editor ------------------------------------------------------------------------------


@pytest.fixture
def type_keys(lake: lakelog.Lake, asker: StatementRunner) -> Callable[..., str]:
    """Return what the editor reads when keys are typed."""
    talking = shell.Shell(App(lake.path), lake, asker, {})
    words = SqlCompleter(talking.names, talking.offers())

    def read(keys: str, path: str | None = None) -> str:
        with create_pipe_input() as pipe:
            pipe.send_text(keys)
            made = editor.Editor(
                talking.is_whole, words, path=path, input=pipe, output=DummyOutput()
            )
            return made.read("> ")

    return read


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("SELECT 1;\r", "SELECT 1;"),
        ("SELECT 1\r, 2;\r", "SELECT 1\n, 2;"),
        ("SELECT ';\r';\r", "SELECT ';\n';"),
        (".at v1\r", ".at v1"),
        ("quit\r", "quit"),
        ("SELECT 1\x1b\r", "SELECT 1"),
        ("\r", ""),
        ("\x1b[200~SELECT\n1;\x1b[201~\r", "SELECT\n1;"),
    ],
)
def test_enter_knows_what_is_whole(type_keys: Callable[..., str], keys: str, text: str) -> None:
    """Enter submits a whole text, else goes on below or takes a completion; Alt-Enter submits."""
    assert type_keys(keys) == text


@pytest.mark.parametrize(("keys", "kind"), [("SEL\x03", KeyboardInterrupt), ("\x04", EOFError)])
def test_control_keys_end_the_line(
    type_keys: Callable[..., str], keys: str, kind: type[BaseException]
) -> None:
    """Ctrl-C drops the line and Ctrl-D on an empty one leaves."""
    with pytest.raises(kind):
        type_keys(keys)


def test_ctrl_c_as_a_prompt_begins_drops_the_line(
    type_keys: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal right after asyncio took over the handler of Ctrl-C is a Ctrl-C as any other."""
    install = signal.signal
    sent = []

    def install_and_interrupt(number: int, handler: Any) -> Any:
        before = install(number, handler)
        if isinstance(handler, functools.partial) and not sent:
            sent.append(number)
            os.kill(os.getpid(), number)
        return before

    monkeypatch.setattr(signal, "signal", install_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        type_keys("SELECT 1;\r")
    assert sent == [signal.SIGINT]
    assert type_keys("SELECT 1;\r") == "SELECT 1;"


def test_ctrl_c_between_an_answer_and_the_next_prompt_is_no_end(
    lake: lakelog.Lake, asker: StatementRunner
) -> None:
    """Whoever presses Ctrl-C as the answer ends gets the next prompt."""
    lines = iter([".help", "quit"])

    class InterruptedShell(shell.Shell):
        answered = 0

        def answer(self, line: str) -> None:
            super().answer(line)
            self.answered += 1

        def __getattribute__(self, name: str) -> Any:
            if name == "is_over" and self.answered == 1:
                self.answered += 1
                signal.raise_signal(signal.SIGINT)
            return super().__getattribute__(name)

    InterruptedShell(App(lake.path), lake, asker, {}).talk(lambda prompt: next(lines))
    assert next(lines, None) is None


def test_history_is_kept_for_nobody_else(
    type_keys: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arrow brings back what was typed in an earlier run; the file is its owner's alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = editor.history_path()
    assert path == str(tmp_path / "state" / "lakelog" / "history")
    type_keys("SELECT 1\r, 2;\r", path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    os.chmod(path, 0o644)
    assert type_keys("\x1b[A\r", path) == "SELECT 1\n, 2;"
    assert os.stat(path).st_mode & 0o777 == 0o600
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert editor.history_path() == str(tmp_path / ".local/state/lakelog/history")


def test_history_that_cannot_be_kept_is_no_trouble(
    type_keys: Callable[..., str], tmp_path: Path
) -> None:
    """Where no file can be made, what was typed is remembered for this run only."""
    (tmp_path / "file").touch()
    assert type_keys("SELECT 1;\r", str(tmp_path / "file" / "history")) == "SELECT 1;"


# --- Ctrl-C, and the terminal ---------------------------------------------------------------------


@pytest.mark.parametrize("query", [ENDLESS, f"CREATE TABLE t AS {ENDLESS}"])
def test_ctrl_c_stops_the_engine(asker: StatementRunner, query: str) -> None:
    """A signal interrupts a statement that would run for hours, and the session goes on."""
    progress = terminal.ProgressLine("running", "s")
    sender = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    try:
        with QueryMonitor(asker.interrupt, progress):
            sender.start()
            asker.sql(query).fetchall()
    except BaseException as error:
        stopped = error
    assert is_cancelled(stopped)
    assert asker.sql("SELECT count(*) FROM events").fetchall() == [(10,)]


def test_waiting_counts_until_rows_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are counted on stderr, and no more once the first rows are there."""
    monkeypatch.setattr("lakelog.cli.render.monitor._SILENT_S", 0.0)
    counted, calls = threading.Event(), []

    class Progress:
        def __call__(self, *what: Any, **more: Any) -> None:
            calls.append(what)
            counted.set()

        def __exit__(self, *_: object) -> None:
            calls.append("end")

    with QueryMonitor(lambda: None, Progress()) as monitor:  # type: ignore[arg-type]
        assert counted.wait(240)
        assert list(monitor.over([[(1,), (2,)], [(3,)]])) == [[(1,), (2,)], [(3,)]]
        assert monitor.rows == 3
    assert calls[-1] == "end"
    assert calls.count("end") == 1


class Terminal:
    """`lakelog` in a pty of 80 by 24 that is typed at and read; a context manager that ends it."""

    _CONTROL = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07]*\x07|[=>()][0B]?)|\r")
    _START = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "os.execv(sys.executable, [sys.executable, '-W', 'error', '-m', 'lakelog', *sys.argv[1:]])"
    )

    def __init__(self, *words: str, **environment: str) -> None:
        self._us, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._raw, self._seen = b"", 0
        given = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "NO_COLOR": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._START, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            cwd=ROOT,
            env={**given, **environment},
        )
        os.close(theirs)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._us, text.encode())

    def wait_for(self, text: str) -> str:
        """Read until the text is shown; return what was shown since the last wait."""
        end = time.monotonic() + 240
        while True:
            shown = self._CONTROL.sub("", self._raw.decode("utf-8", "replace"))
            at = shown.find(text, self._seen)
            if at >= 0:
                before, self._seen = shown[self._seen : at], at + len(text)
                return before
            assert time.monotonic() < end, f"{text!r} is not in {shown[self._seen :]!r}"
            assert self._read(1), f"it ended after {shown[self._seen :]!r}"

    def leave(self) -> int:
        """Press Ctrl-D until the program ends; return its exit code.

        Between two prompts the terminal is in its ordinary mode, which takes a Ctrl-D for itself.
        """
        end = time.monotonic() + 240
        while self._process.poll() is None and time.monotonic() < end:
            self.type("\x04")
            self._read(1)
        return self.code()

    def code(self) -> int:
        """Wait for the end; return the exit code."""
        end = time.monotonic() + 240
        while time.monotonic() < end and self._read(1):
            pass
        return self._process.wait(240)

    def _read(self, seconds: float) -> bool:
        """Take what is shown within so long; return False once the program closed the terminal."""
        if select.select([self._us], [], [], seconds)[0]:
            try:
                self._raw += os.read(self._us, 4096)
            except OSError:
                return False
        return True

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._us)


def test_a_session_on_a_terminal(lake: lakelog.Lake, tmp_path: Path) -> None:
    """From the first prompt over a table and a stopped statement to Ctrl-D, which is exit 0."""
    state = {"XDG_STATE_HOME": str(tmp_path / "state"), "PAGER": ""}
    with Terminal("--lake", lake.path, "sql", "--at", "v1", **state) as screen:
        screen.wait_for("10 events in")
        screen.wait_for("lakelog@v1>")
        screen.type("SELECT type, count(*) AS n\rFROM events GROUP BY 1;\r")
        screen.wait_for("PING  10")
        screen.wait_for("1 row, ")
        screen.wait_for("lakelog@v1>")
        screen.type(f"{ENDLESS};\r")
        screen.wait_for("Ctrl-C stops it")
        screen.type("\x03")
        screen.wait_for("cancelled")
        screen.wait_for("lakelog@v1>")
        screen.type("SELECT nope;\r")
        assert "Traceback" not in screen.wait_for("lakelog@v1>")
        screen.type("FROM quar\t")
        screen.wait_for("antine")
        screen.type(";\r")
        screen.wait_for("0 rows")
        screen.type("half a line\x03")
        screen.wait_for("lakelog@v1>")
        assert screen.leave() == 0
    assert "FROM events GROUP BY 1;" in (tmp_path / "state/lakelog/history").read_text()


@pytest.mark.thorough
def test_ctrl_c_ends_a_query_that_is_no_shell(lake: lakelog.Lake) -> None:
    """`lakelog sql QUERY` stops at once and exits with 130."""
    with Terminal("--lake", lake.path, "sql", ENDLESS) as screen:
        screen.wait_for("Ctrl-C stops it")
        screen.type("\x03")
        screen.wait_for("lakelog: interrupted")
        assert screen.code() == 130


@pytest.mark.parametrize("words", [["--explain"], ["-o", "x.csv"]])
def test_the_shell_takes_no_option_of_a_query(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """--explain and -o are about a query, so there must be one."""
    monkeypatch.setattr(terminal, "is_terminal", lambda stream: True)
    assert "need a query" in run(lake.path, "sql", *words, code=2).stderr


def test_only_the_shell_loads_the_line_editor() -> None:
    """`import lakelog`, and a query given on the command line, load no prompt_toolkit."""
    code = "import sys, lakelog, lakelog.cli.query; sys.exit('prompt_toolkit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=240).returncode == 0
