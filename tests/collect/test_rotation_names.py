"""What programs call their rotated logs: with a pattern that fits the live name alone, each line is
stored once, also of files that were renamed, packed or copied while no watcher looked; what nobody
can read any more is said."""

from __future__ import annotations

import bz2
import gzip
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.cli import cli, exits
from lakelog.collect import followed_file, watch
from lakelog.collect.watch import Watcher
from lakelog.files.scan import FileScan, Selection
from tests.support.watching import Place, stored

PROGRAMS = {
    "log4j 1 DailyRollingFileAppender": ("app.log", "app.log.2026-11-24-13"),
    "log4j 1 RollingFileAppender": ("app.log", "app.log.1"),
    "log4j 2 RollingFile": ("app.log", "2026-11/app-11-24-2026-1.log.gz"),
    "log4j 2 by size": ("app.log", "app-1.log"),
    "logback by time": ("mylog.txt", "mylog-2026-11-24.1.txt"),
    "logback, packed": ("tests.log", "archived/tests.2026-11-24.0.log.gz"),
    "WebLogic": ("server.log", "server.log00001"),
    "JBoss": ("server.log", "server.log.24-Nov-2026"),
    "WebSphere": ("SystemOut.log", "SystemOut_26.11.24_10.30.00.log"),
    "Tomcat": ("catalina.log", "catalina.2026-11-24.log"),
    "java.util.logging": ("java0.log", "java1.log"),
    "GlassFish": ("server.log", "server.log_2026-11-24T10-30-00"),
    "MySQL": ("error.log", "error.log-old"),
    "MySQL, renamed by hand": ("mysqld.err", "backup.of.mysqld"),
    "PostgreSQL": ("postgresql.log", "postgresql-2026-11-24_000000.log"),
    "MongoDB": ("mongod.log", "mongod.log.2026-11-24T10-30-00"),
    "Oracle": ("alert_orcl.log", "alert_orcl.log_24112026"),
    "svlogd": ("current", "@4000000065a1b2c3d4e5f678.s"),
    "multilog": ("current", "@4000000065a1b2c31f2e3d4c.u"),
    "IIS": ("u_extend.log", "u_extend1.log"),
    "PM2": ("app-out.log", "app-out__2026-11-24_00-00-00.log"),
    "cronolog": ("access.log", "2026/11/24/access.log"),
    "rotatelogs": ("access_log", "access_log.1764028800"),
    "rotatelogs by date": ("error_log", "error_log.2026-11-24-10_30"),
    "winston": ("app.log", "app1.log"),
    "winston-daily-rotate-file": ("app.log", "app.log.2026-11-24.gz"),
    "NLog": ("log.txt", "archives/log.0.txt"),
    "NLog by date": ("app.log", "app.20261124.log"),
    "Serilog": ("log.txt", "log20261124_001.txt"),
    "Erlang disk_log": ("erlang.log", "erlang.log.1"),
    "RabbitMQ": ("rabbit@host.log", "rabbit@host.log.0.gz"),
    "savelog": ("daemon.log", "daemon.log.0"),
    "newsyslog": ("auth.log", "auth.log.0.bz2"),
    "newsyslog by time": ("auth.log", "auth.log.20261124T000000.gz"),
    "logrotate": ("a.log", "a.log.1"),
    "logrotate dateext": ("a.log", "a.log-20261124"),
    "logrotate dateext, packed": ("a.log", "a.log-20261124-1764028800.gz"),
    "logrotate extension": ("a.log", "a-20261124.log"),
    "logrotate dateformat": ("a.log", "a.log_Tuesday_24"),
    "logrotate olddir": ("a.log", "../a-archive/a.log.1"),
    "logrotate olddir, packed": ("a.log", "../a-archive/a.log.1.gz"),
    "Python TimedRotatingFileHandler": ("a.log", "a.log.2026-11-24_10-30-00"),
    "Ruby Logger": ("production.log", "production.log.20261124"),
    "lumberjack": ("app.log", "app-2026-11-24T10-30-00.000.log.gz"),
    "glog": ("prog.INFO", "prog.host.user.log.INFO.20261124-100000.1234"),
    "kubelet": ("0.log", "0.log.20261124-101112"),
    "mv --backup": ("a.log", "a.log~"),
    "a backup": ("a.log", "a.log.bak"),
    "by hand": ("a.log", "before the change"),
}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies in these plays are made in one step: none need be waited for."""
    monkeypatch.setattr(watch, "STABLE", -1.0)


def once(watcher: Watcher) -> None:
    """Look until nothing is left, as `--once` does."""
    watcher.round(final=True)
    while watcher.has_arriving_files or watcher.is_behind or watcher.is_unsettled:
        watcher.round(final=True)


def rotate(place: Place, live: str, rotated: str, how: str) -> None:
    """Do what a program does: rename the log, or copy it and cut it to nothing, and pack that."""
    target = place.root / rotated
    target.parent.mkdir(parents=True, exist_ok=True)
    pack = {".gz": gzip.compress, ".bz2": bz2.compress}.get(target.suffix)
    plain = target.with_suffix("") if pack else target
    if how == "rename":
        os.rename(place.root / live, plain)
    else:
        shutil.copy(place.root / live, plain)
        os.truncate(place.root / live, 0)
    if pack:
        hidden = target.with_name(".packing")
        hidden.write_bytes(pack(plain.read_bytes()))
        os.rename(hidden, target)
        plain.unlink()


@pytest.mark.matrix
@pytest.mark.parametrize("is_away", [False, True])
@pytest.mark.parametrize("how", ["rename", "copytruncate"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_rotated_log_is_found_under_any_name(
    lake: lakelog.Lake, tmp_path: Path, program: str, how: str, is_away: bool
) -> None:
    """With a pattern that is the name of the live log, what was written before the rotation is
    read from what it became, and later lines from both, each once."""
    live, rotated = PROGRAMS[program]
    place = Place(tmp_path / "logs")
    watcher = Watcher(lake, [str(place.root)], patterns=(live,))
    place.write(live, 3)
    once(watcher)
    place.write(live, 2)
    if is_away:
        watcher.close()
        watcher = Watcher(lake, [str(place.root)], patterns=(live,))
    rotate(place, live, rotated, how)
    place.write(live, 3)
    once(watcher)
    assert stored(lake) == Counter(place.written)
    if how == "rename" and not rotated.endswith((".gz", ".bz2")):
        place.write(rotated, 2)  # a program that has it open still
    place.write(live, 2)
    once(watcher)
    watcher.close()
    assert stored(lake) == Counter(place.written)
    assert (watcher.totals.lost_files, watcher.totals.quarantined) == (0, 0)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("error.log-old", "*.log"),
        ("server.log00001", "*.log"),
        ("app.log.24-Nov-2026", "*.log"),
        ("app-11-24-2026-1.log", "app.log"),
        ("@4000000065a1b2c3d4e5f678.s", "current"),
        ("app.log.2026-11-24.gz", "app.log"),
        ("access_log.1764028800", "access_log"),
    ],
)
def test_a_rotated_log_that_was_never_seen_live(
    lake: lakelog.Lake, tmp_path: Path, name: str, pattern: str
) -> None:
    """What was begun and rotated while no watcher looked is told by its name alone."""
    place = Place(tmp_path / "logs")
    place.write(name.removesuffix(".gz"), 3)
    if name.endswith(".gz"):
        place.pack(name.removesuffix(".gz"))
    for other in ("app.log.pos", "app.logic", "worker.logs", "log", "a" * 120 + "1" * 120 + "x"):
        (place.root / other).write_text('{"type":"T","subject":"other 1"}\n')
    watcher = Watcher(lake, [str(place.root)], patterns=(pattern,))
    once(watcher)
    watcher.close()
    assert stored(lake) == Counter(place.written)


def test_what_is_no_successor_is_left_alone(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Where a log went, neither a file that has its inode number now nor others beside it are
    taken for it."""
    place = Place(tmp_path / "logs")
    watcher = Watcher(lake, [str(place.root)], patterns=("*.log",))
    place.write("a.log", 3)
    once(watcher)
    watcher.close()
    place.remove("a.log")
    for n in range(5):
        (place.root / f"notes {n}").write_text('{"type":"T","subject":"note 1"}\n' * n)
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "notes").write_text('{"type":"T","subject":"note"}\n')
    watcher = Watcher(lake, [str(place.root)], patterns=("*.log",))
    once(watcher)
    watcher.close()
    assert stored(lake) == Counter(place.written)
    assert watcher.totals.lost_files == 0


def test_a_file_that_went_unread_is_said(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where more files are followed than can be open, one may go before its last line is read:
    that is an event with its bytes, and is counted."""
    monkeypatch.setattr(followed_file, "OPEN_FILES_MAX", 1)
    place = Place(tmp_path / "logs")
    watcher = Watcher(lake, [str(place.root)])
    place.write("a.log", 3, end="")
    watcher.round()
    place.write("b.log", 3)
    watcher.round()
    assert watcher.totals.lost_files == 0
    place.written.pop(2)
    place.remove("a.log")
    for _ in range(3):
        watcher.round()
    watcher.close()
    assert stored(lake) == Counter(place.written)
    size = len(b'{"type":"T","subject":"e2"}')
    assert (watcher.totals.lost_files, watcher.totals.lost_bytes) == (1, size)
    query = (
        "SELECT subject, CAST(data->>'lost_bytes' AS INT) FROM events WHERE type = 'lakelog.watch'"
    )
    assert lake.sql(query).fetchall() == [(str(place.root / "a.log"), size)]


def test_a_file_that_went_unread_while_no_watcher_looked_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--once` ends with 3 if a file went of which bytes had been seen and not read, status and
    audit count it, and later runs do not say it again."""
    place = Place(tmp_path / "logs")
    place.write("a.log", 3, end="")
    place.write("b.log", 3)
    at = ["--lake", str(tmp_path / "lake")]
    with lakelog.open(tmp_path / "lake") as lake:
        watcher = Watcher(lake, [str(place.root)])
        watcher.round()
        watcher.close()
    place.remove("a.log")
    run = CliRunner().invoke
    ended = run(cli, [*at, "watch", str(place.root), "--once"])
    assert ended.exit_code == exits.WRONG, ended.output
    assert "a.log: it went with 27 bytes that nobody read" in ended.output
    assert "1 file that went with 27 bytes unread" in run(cli, [*at, "watch", "--status"]).output
    assert "27 bytes of 1 file" in run(cli, [*at, "audit", str(place.root)]).output
    assert run(cli, [*at, "watch", str(place.root), "--once"]).exit_code == exits.DONE


def test_a_file_that_is_renamed_while_it_is_looked_at(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is renamed between the scan and its reading is read under its next name."""
    place = Place(tmp_path / "logs")
    place.write("a.log", 3)
    real = Selection.scan

    def scan(*args: Any) -> FileScan:
        result = real(*args)
        if (place.root / "a.log").exists():
            place.move("a.log", "was a log")
        return result

    monkeypatch.setattr(Selection, "scan", scan)
    watcher = Watcher(lake, [str(place.root)], patterns=("a.log",))
    once(watcher)
    watcher.close()
    assert stored(lake) == Counter(place.written)
    assert watcher.totals.lost_files == 0


def test_a_copy_beside_the_logs_is_no_successor(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Where a log went, a copy of it in another directory is left alone, unless it alone holds
    lines that nobody read."""
    place, beside = Place(tmp_path / "logs"), tmp_path / "copies"
    beside.mkdir()
    place.write("a.log", 5)
    watcher = Watcher(lake, [str(place.root)])
    once(watcher)
    watcher.close()
    shutil.copy(place.root / "a.log", beside / "equal")
    place.write("a.log", 2)
    shutil.copy(place.root / "a.log", beside / "more")
    shutil.copy(place.root / "a.log", place.root / "restored.log")
    place.remove("a.log")
    watcher = Watcher(lake, [str(place.root)])
    once(watcher)
    watcher.close()
    assert stored(lake) == Counter(place.written)
    place.remove("restored.log")
    watcher = Watcher(lake, [str(place.root)])
    once(watcher)
    watcher.close()
    assert stored(lake) == Counter(place.written)
