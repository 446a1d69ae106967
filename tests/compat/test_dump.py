"""System A under its old names: `lakelog dump`, OMEGALogManager, LogEntry; its golden input."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import redis

import lakelog
from lakelog import LogEntry, OMEGALogManager
from lakelog.errors import InUse, InvalidEvent, InvalidSetting
from tests.support.cli import run_in
from tests.support.redis_server import RedisServer
from tests.support.tree import ROOT

GOLDEN = ROOT / "tests" / "golden" / "system_a"
ANSWERS: dict[str, Any] = json.loads((GOLDEN / "answers.json").read_text())


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A copy of the golden directory of logs."""
    shutil.copytree(GOLDEN / "logs", tmp_path / "logs")
    return tmp_path / "logs"


def answers(lake: lakelog.Lake) -> dict[str, Any]:
    """What the golden answers are held against."""

    def rows(query: str) -> list[Any]:
        return [list(row) for row in lake.sql(query).fetchall()]

    levels = rows("SELECT coalesce(level, ''), count(*) FROM events GROUP BY 1 ORDER BY 1")
    span = rows("SELECT min(time)::VARCHAR, max(time)::VARCHAR FROM events")
    statuses = rows(
        "SELECT (data->>'status')::INT AS s, count(*), sum((data->>'bytes')::BIGINT) FROM events"
        " WHERE json_exists(data, '$.status') GROUP BY 1 ORDER BY 1"
    )
    return {
        "events": rows("SELECT count(*) FROM events")[0][0],
        "quarantined": rows("SELECT count(*) FROM quarantine")[0][0],
        "levels": levels,
        "span": span[0],
        "statuses": statuses,
    }


@pytest.mark.thorough
def test_the_golden_answers(logs: Path) -> None:
    """Counts, levels, times, statuses and sums of the golden input are exactly those expected."""
    words = run_in(
        logs.parent,
        "dump",
        "--logs-dir",
        "logs",
        "--backup-dir",
        "backups",
        "--redis-url",
        "redis://localhost:6379/0",
        "--backup-interval",
        "3600",
        "--once",
    ).stderr
    assert sum("Redis" in text for text in words.splitlines()) == 1
    with lakelog.open(str(logs.parent / "lake"), create=False) as lake:
        assert answers(lake) == ANSWERS["lake"]
    listed = [json.loads(t) for t in run_in(logs.parent, "backups", "list").stdout.splitlines()]
    found = {os.path.relpath(b["source"], logs): [b["size"], b["sha256"]] for b in listed}
    assert found == ANSWERS["backups"]
    assert "0 damaged" in run_in(logs.parent, "backups", "verify").stderr
    assert "each is stored exactly once" in run_in(logs.parent, "audit").stderr


def test_dump_runs_until_it_is_told_to_end(logs: Path) -> None:
    """It takes in what is written to *.log files, nothing else, and ends at SIGTERM."""
    command = [sys.executable, "-m", "lakelog", "dump", "--logs-dir", "logs"]
    with subprocess.Popen(command, cwd=logs.parent, stderr=subprocess.PIPE, text=True) as running:
        try:
            for name in ("new.log", "new.txt"):
                (logs / name).write_text('{"type":"NEW"}\n')
            query = "SELECT count(*) AS n FROM events WHERE type = 'NEW'"
            until((logs.parent / "lake/cache/watch-main.json").exists)
            until(lambda: json.loads(run_in(logs.parent, "sql", query).stdout)["n"] >= 1)
        finally:
            running.send_signal(signal.SIGTERM)
            words = running.communicate()[1]
    assert running.returncode == 0
    assert f"{ANSWERS['lake']['events'] + 1} new events" in words
    assert "backed up" in words


def manager(logs: Path, **given: Any) -> OMEGALogManager:
    """A manager of the logs with a lake beside them."""
    lake = str(logs.parent / "lake")
    return OMEGALogManager(str(logs), str(logs.parent / "backups"), None, 3600, lake=lake, **given)


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def until_known(made: OMEGALogManager, count: int) -> None:
    """Wait until so many entries can be asked for."""
    until(lambda: len(made.query(limit=10**6)) >= count)


def test_the_manager_watches_and_answers(logs: Path) -> None:
    """Entries by time, source and level, the newest of them, in the order of their time."""
    with manager(logs) as made:
        until_known(made, ANSWERS["lake"]["events"])
        for asked in ANSWERS["queries"]:
            found = made.query(**asked["query"])
            assert len(found) == asked["count"], asked
            assert [e.timestamp for e in found] == sorted(e.timestamp for e in found)
            assert [found[0].content, found[0].level, found[0].source] == asked["first"]
        last = made.query(limit=1)[0]
        assert last.timestamp == max(e.timestamp for e in made.query())
        assert last.metadata["file"].endswith(".log")
        with pytest.raises(InvalidEvent):
            made.query(start_time="yesterday-ish")
        with pytest.raises(InUse, match="another process"):
            manager(logs).start()
        made.start()  # it runs already
        until((logs.parent / "backups/web").is_dir)
        made.stop()
        made.stop()
        assert not made.is_running
        assert len(made.query()) == ANSWERS["lake"]["events"]


def test_a_program_of_the_older_service(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its four arguments in their places, start, stop and a query; only *.log files are read, and
    each is backed up under its own name with the time, with what it was."""
    monkeypatch.chdir(logs.parent)
    os.chmod("logs/app.log", 0o640)
    os.utime("logs/app.log", (1_767_000_000, 1_767_000_000))
    manager = OMEGALogManager("logs", "backups", None, 3600)
    manager.start()
    try:
        until_known(manager, ANSWERS["lake"]["events"])
        line = "2026-03-01 11:00:00,000 - worker - ERROR - out of memory\n"
        Path("logs/later.log").write_text(line)
        Path("logs/later.txt").write_text(line)
        until_known(manager, ANSWERS["lake"]["events"] + 1)
        backups = Path("backups")
        until(lambda: [*backups.glob("app_*.log")] and [*backups.glob("web/access_*.log")])
    finally:
        manager.stop()
    (entry,) = manager.query(source="later.log")
    assert isinstance(entry, LogEntry)
    assert (entry.level, entry.timestamp) == ("ERROR", datetime(2026, 3, 1, 11, tzinfo=UTC))
    assert "out of memory" in entry.content
    manager.close()
    (backup,) = backups.glob("app_*.log")
    assert re.fullmatch(r"app_\d{8}_\d{6}\.log", backup.name)
    assert backup.read_bytes() == Path("logs/app.log").read_bytes()
    kept = backup.stat()
    assert (kept.st_mode & 0o777, int(kept.st_mtime)) == (0o640, 1_767_000_000)


def test_the_manager_comes_back(logs: Path) -> None:
    """After a restart nothing is taken in twice; its own failures are entries too."""
    with manager(logs) as made:
        until_known(made, ANSWERS["lake"]["events"])
    (logs / "dir.log").symlink_to(logs / "gone")
    with manager(logs) as made:
        until_known(made, ANSWERS["lake"]["events"] + 1)
        (fault,) = made.query(source="lakelog")
        assert fault.level == "WARN"
        assert fault.metadata["subject"].endswith("dir.log")


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_an_entry_as_a_dict(moment: datetime) -> None:
    """to_dict gives what JSON can hold, and from_dict the same entry again."""
    entry = LogEntry(moment, "app.log", "hello", "ERROR", {"line": 7})
    made = json.loads(json.dumps(entry.to_dict()))
    assert set(made) == {"timestamp", "source", "content", "level", "metadata"}
    assert LogEntry.from_dict(made) == entry


def test_an_entry_whose_time_is_text_or_a_number() -> None:
    """As old callers made them; a time that is none is refused when the entry is made."""
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for given in ("2026-01-02T03:04:05Z", "2026-01-02 03:04:05", moment.timestamp(), moment):
        entry = LogEntry(given, "app.log", "hello")  # type: ignore[arg-type]
        assert entry.timestamp == moment
        assert entry.to_dict()["timestamp"] == "2026-01-02T03:04:05Z"
        assert LogEntry.from_dict(entry.to_dict()) == entry
    naive = LogEntry(datetime(2026, 1, 2, 3, 4, 5), "app.log", "hello")
    assert naive.to_dict()["timestamp"] == "2026-01-02T03:04:05Z"
    with pytest.raises(InvalidEvent):
        LogEntry("soon", "app.log", "hello")  # type: ignore[arg-type]


def test_the_manager_keeps_so_many_backups(logs: Path) -> None:
    """Of each file the newest ones are kept; a limit that is none is refused."""
    taken = OMEGALogManager(
        str(logs), str(logs.parent / "backups"), None, 0.1, lake=str(logs.parent / "lake"),
        backup_keep=2, backup_age="30d",
    )  # fmt: skip
    names = set[str]()
    end = time.monotonic() + 240
    with taken:
        while len(names) < 4:
            assert time.monotonic() < end
            with (logs / "app.log").open("a") as file:
                file.write("2026-03-01T11:00:00Z INFO worker: one more\n")
            time.sleep(0.3)
            present = {p.name for p in (logs.parent / "backups").glob("app_*.log")}
            names |= present
    assert len({p.name for p in (logs.parent / "backups").glob("app_*.log")}) == 2
    with pytest.raises(InvalidSetting, match="backup_keep is at least 1"):
        manager(logs, backup_keep=0)
    with pytest.raises(InvalidSetting, match="is not a duration"):
        manager(logs, backup_age="soon")


@pytest.mark.thorough
def test_rotated_files_are_packed_and_removed(logs: Path) -> None:
    """By the manager and the command, once their lines are stored and their backup is verified."""
    (logs / "app.log.1").write_text("2026-03-01T11:00:00Z INFO worker: rotated\n")
    os.utime(logs / "app.log.1", (1e9, 1e9))
    backups = logs.parent / "backups"
    with manager(logs, backup_zstd=True, remove_processed=True):
        end = time.monotonic() + 240
        while (logs / "app.log.1").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
    assert (logs / "app.log").exists()
    assert list(backups.rglob("*.zst"))
    (logs / "app.log.1").write_text("2026-03-01T12:00:00Z INFO worker: again\n")
    os.utime(logs / "app.log.1", (1e9, 1e9))
    words = ["dump", "--once", "--backup-dir", "packed", "--backup-zstd", "--remove-processed"]
    run_in(logs.parent, *words, "--backup-age", "30d")
    assert not (logs / "app.log.1").exists()
    assert len(list((logs.parent / "packed").rglob("app_*.log.1.zst"))) == 1
    with pytest.raises(InvalidSetting, match="is not a duration"):
        manager(logs, remove_after="soon")


def test_recent_entries_with_and_without_redis(logs: Path, tmp_path: Path) -> None:
    """Redis answers while it is there, then the lake does: with the same entries."""
    said = list[str]()
    server = RedisServer(tmp_path / "redis").start()
    url = f"redis://localhost:{server.port}/0"
    taken = OMEGALogManager(
        str(logs),
        str(logs.parent / "backups"),
        url,
        lake=str(logs.parent / "lake"),
        say=said.append,
    )
    try:
        with taken:
            until(lambda: redis.Redis(port=server.port).keys("*:s:access.log"))
            until(lambda: taken.recent("access.log"))
        found = taken.recent("access.log", "info", limit=2)
        assert [type(each) for each in found] == [LogEntry] * len(found)
        assert {each.source for each in found} == {"access.log"}
        server.stop()
        assert taken.recent("access.log", "info", limit=2) == found
        assert not [words for words in said if "redis" in words]
    finally:
        server.stop()
        taken.close()


def test_wrong_url_of_redis(logs: Path) -> None:
    """One line, without what it may hold."""
    with pytest.raises(InvalidSetting, match="a Redis URL looks like") as caught:
        OMEGALogManager(str(logs), redis_url="http://me:secret@host")
    assert "secret" not in str(caught.value)


def test_an_entry_of_little() -> None:
    """Times may be numbers; level and metadata have defaults; a time that is none is refused."""
    entry = LogEntry.from_dict({"timestamp": 1_767_323_045, "content": "x"})
    assert (entry.timestamp.year, entry.level, entry.metadata) == (2026, "INFO", {})
    with pytest.raises(InvalidEvent):
        LogEntry.from_dict({"timestamp": "soon", "content": "x"})
