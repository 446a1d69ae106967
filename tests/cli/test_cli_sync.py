"""The verb `sync`: once, continuously, its status, and what is wrong in a word."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.cli import answer, lines, run


def rows(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])
    except sqlite3.OperationalError:  # no table yet, or it is being written
        return -1
    finally:
        connection.close()


@pytest.fixture
def lake(home: Path) -> Path:
    run(home / "lake", "append", input=lines(20))
    return home / "lake"


def test_once_and_status(home: Path, lake: Path) -> None:
    target = f"sqlite:{home}/t.db"
    found = answer(lake, "sync", target, "--once")
    assert (found["written"], found["total"], found["commits"]) == (20, 20, 1)
    assert answer(lake, "sync", target, "--once")["commits"] == 0
    run(lake, "append", input=lines(3))
    assert answer(lake, "sync", "status", target)[0]["events_behind"] == 3


def test_check_and_repair(home: Path, lake: Path) -> None:
    target = f"sqlite:{home}/t.db"
    run(lake, "sync", target, "--once")
    assert answer(lake, "sync", "check", target)[0]["missing"] == 0
    with contextlib.closing(sqlite3.connect(home / "t.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM events WHERE seq < 5")
    run(lake, "sync", "check", target, code=3)
    assert answer(lake, "sync", "check", target, "--repair")[0]["repaired"]
    assert rows(home / "t.db") == 20
    run(lake, "sync", target, "--repair", code=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_continuous_until_a_signal(home: Path, lake: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "lakelog", "--lake", str(lake), "sync", f"sqlite:{home}/t.db"]
    with subprocess.Popen([*command, "--every", "50ms"], stderr=subprocess.PIPE) as process:
        for count in (20, 25):
            until = time.monotonic() + 240
            while rows(home / "t.db") != count:
                assert time.monotonic() < until
                time.sleep(0.02)
            if count == 20:
                run(lake, "append", input=lines(5))
        process.send_signal(number)
        assert process.wait(240) == 0
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    assert answer(lake, "sync", f"sqlite:{home}/t.db", "--once")["commits"] == 0


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["sqlit:x.db"], 2, "did you mean 'sqlite'?"),
        (["x.db"], 2, "a target is postgresql://"),
        (["sqlite:"], 2, "a target of sqlite is a file"),
        (["duckdb:a.duckdb", "sqlite:b.db"], 2, "one target is needed"),
        (["status"], 2, "one target is needed"),
        (["sqlite:a.db", "--every", "soon"], 2, "no time"),
        (["sqlite:a.db", "--table", "lakelog_sync"], 2, "choose another name"),
        (["sqlite:a.db", "--query", "SELECT count(*) FROM events"], 1, "one row of several events"),
        (["sqlite:/nowhere/at/all.db", "--once"], 1, "the directory has to exist"),
        (["status", "sqlite:never.db"], 1, "no table of this target was synced yet"),
    ],
)
def test_mistake_is_one_line(
    lake: Path,
    words: list[str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "lakelog", "--lake", str(lake), "sync", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert said in done.stderr


def test_a_missing_database_is_not_created_by_status(lake: Path, tmp_path: Path) -> None:
    run(lake, "sync", "status", f"sqlite:{tmp_path}/none.db", code=1)
    assert not (tmp_path / "none.db").exists()
