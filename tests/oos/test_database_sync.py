"""BatchDatabaseSync of the OOS log stream, as its programs use it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from lakelog import BatchDatabaseSync, get_logger
from lakelog.errors import InvalidSetting, SyncRefused
from tests.support.effort import share
from tests.support.processes import environment


def write(log: Path, items: range, kinds: str = "DISCOVER COMPLETE") -> None:
    """Append lines of an oos.log, as a program does that knows nothing of a sync."""
    with open(log, "a") as out:
        for n in items:
            for place, kind in enumerate(kinds.split()):
                data = {"transcript": f"words {n}", "n": n}
                head = f"2025-09-29T02:{n // 60 % 60:02}:{n % 60:02}.{place}00Z"
                out.write(f"{head}|{kind}|podcast|Tech|Tech_{n}|{json.dumps(data)}\n")


def rows(path: Path, query: str = "SELECT item_id FROM completed_transcripts") -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute(query).fetchall()
    return [row[0] if len(row) == 1 else row for row in found]


@pytest.fixture
def log(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    monkeypatch.delenv("LAKELOG_LAKE", raising=False)
    return home / "oos.log"


def age(*paths: Path) -> None:
    """Let files be a minute old: one that was just written to is not finished."""
    for path in paths:
        os.utime(path, (time.time() - 60, time.time() - 60))


def test_what_loggers_have_not_written_yet(log: Path) -> None:
    """It belongs to a sync, as it belongs to the views."""
    with BatchDatabaseSync("oos.db") as sync:
        logger = get_logger("oos.log")
        for n in range(2):
            logger.complete("podcast", "Tech", f"Tech_{n}", {})
            assert sync.sync_completed_transcripts() == 1


def test_a_program_of_the_older_system(log: Path) -> None:
    """Ints and dictionaries; each row once, however often it is called."""
    logger = get_logger("oos.log")
    for n in range(5):
        logger.discover("podcast", "Tech", f"Tech_{n}", {})
    logger.complete("podcast", "Tech", "Tech_0", {"transcript": "words"})
    logger.fail("podcast", "Tech", "Tech_1", {"error": "timeout"})
    sync = BatchDatabaseSync("oos.db")
    assert sync.sync_completed_transcripts(batch_size=2) == 1
    assert sync.sync_completed_transcripts() == 0
    figures = {
        "events": 7,
        "discovered": 3,
        "processing": 0,
        "completed": 1,
        "failed": 1,
        "total_failures": 1,
        "success_rate": 0.5,
    }
    assert sync.sync_processing_stats() == figures
    write(log, range(10, 13))
    done = sync.full_sync()
    sync.close()
    assert (done["transcripts"], done["stats"]["completed"]) == (3, 4)
    assert (done["rotated"], done["removed"]) == (None, [])
    query = "SELECT source, item_id, transcript FROM completed_transcripts ORDER BY seq LIMIT 1"
    assert rows(log.parent / "oos.db", query) == [("Tech", "Tech_0", "words")]
    assert rows(log.parent / "oos.db", "SELECT completed FROM processing_stats") == [1, 4]


def test_stats_are_idempotent(log: Path) -> None:
    """Figures that have not changed are no new row."""
    write(log, range(3))
    for _ in range(3):
        with BatchDatabaseSync(log.parent / "oos.db", log) as sync:
            sync.sync_processing_stats()
    assert rows(log.parent / "oos.db", "SELECT completed, failed FROM processing_stats") == [(3, 0)]


@pytest.mark.parametrize("is_open", [True, False])
def test_log_that_is_a_lake(log: Path, is_open: bool) -> None:
    write(log, range(3))
    with BatchDatabaseSync("a.db", log, lake=log.parent / "lake") as first:
        first.full_sync()
        given: Any = first.lake if is_open else first.lake.path
        with BatchDatabaseSync("b.db", given) as second:
            assert second.full_sync()["transcripts"] == 3
        first.lake.append({"type": "COMPLETE", "subject": "more"})
        assert first.sync_completed_transcripts() == 1


def test_other_database(log: Path) -> None:
    write(log, range(3))
    with BatchDatabaseSync("duckdb:oos.duckdb", log) as sync:
        assert sync.full_sync()["transcripts"] == 3
    with contextlib.closing(duckdb.connect("oos.duckdb")) as connection:
        assert connection.execute("SELECT count(*) FROM completed_transcripts").fetchone() == (3,)


PROGRAM = """
import sys
from lakelog import BatchDatabaseSync
while True:
    with BatchDatabaseSync("oos.db", cleanup="remove") as sync:
        sync.full_sync(batch_size=20)
"""


@pytest.mark.rounds
def test_crash_recovery_while_the_log_grows_and_is_cleaned_up(log: Path) -> None:
    """Killed again and again: each completion is one row, and no line is lost."""
    choose, count = random.Random(17), 0
    for _ in range(share(12)):
        running = subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment())
        until = time.monotonic() + choose.uniform(0.3, 1.2)
        while time.monotonic() < until:
            write(log, range(count, count + 7))
            count += 7
            with contextlib.suppress(FileNotFoundError):
                age(*log.parent.glob("oos_*.log"))
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
        assert running.wait(240) == -signal.SIGKILL
    with BatchDatabaseSync("oos.db") as sync:
        done = sync.full_sync()
    found = rows(log.parent / "oos.db")
    assert sorted(found) == sorted(f"Tech_{n}" for n in range(count))
    assert done["stats"]["completed"] == count


def test_cleanup_rotates_what_is_synced(log: Path) -> None:
    write(log, range(3))
    with BatchDatabaseSync("oos.db", cleanup="rotate") as sync:
        path = sync.full_sync()["rotated"]
        assert re.fullmatch(r"oos_\d{8}_\d{6}\.log", os.path.basename(path))
        assert not log.exists()
        assert sync.full_sync()["rotated"] is None
        # A program that has the file open still writes to it, and others begin a new one.
        write(Path(path), range(3, 5))
        write(log, range(5, 7))
        assert sync.full_sync()["transcripts"] == 4
    assert rows(log.parent / "oos.db") == [f"Tech_{n}" for n in range(7)]


def test_cleanup_removes_only_finished_files(log: Path) -> None:
    """Not one that was written to just now, nor one that a process has open for writing."""
    write(log, range(3))
    os.utime(log, (time.time() + 60, time.time() + 60))  # just now, however long the sync takes
    with BatchDatabaseSync("oos.db", cleanup="remove") as sync:
        path = Path(sync.full_sync()["rotated"])
        assert path.exists()
        age(path)
        with open(path, "a"):
            assert sync.full_sync()["removed"] == []
        assert sync.full_sync()["removed"] == [str(path)]
        assert not path.exists()
        assert list((log.parent / "backups").rglob("*.zst"))
        assert sync.full_sync()["transcripts"] == 0
    assert len(rows(log.parent / "oos.db")) == 3


def test_cleanup_keeps_a_log_with_an_unfinished_line(log: Path) -> None:
    write(log, range(3))
    with open(log, "a") as out:
        out.write("2025-09-29T03:00:00Z|COMPLETE|podcast|Tech|Tech_9|{")
    with BatchDatabaseSync("oos.db", cleanup="remove") as sync:
        assert sync.full_sync()["rotated"] is None
        with open(log, "a") as out:
            out.write("}\n")
        done = sync.full_sync()
    assert done["transcripts"] == 1
    assert done["rotated"]


def test_cleanup_waits_for_the_database(log: Path) -> None:
    """Nothing is renamed if the database refuses the rows."""
    write(log, range(3))
    Path("oos.db").write_text("this is no database, whatever its name says " * 40)
    with (
        BatchDatabaseSync("oos.db", cleanup="remove", retries=0) as sync,
        pytest.raises(SyncRefused, match="not a database"),
    ):
        sync.full_sync()
    assert log.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cleanup": "delete"}, "cleanup is keep, rotate, remove, not 'delete'"),
        ({"db_path": "oracle://x/y"}, "a target is "),
    ],
)
def test_mistakes_are_one_line(log: Path, options: dict[str, Any], said: str) -> None:
    write(log, range(1))
    with pytest.raises(InvalidSetting, match=said) as caught:
        BatchDatabaseSync(**{"db_path": "oos.db", **options}).full_sync()
    assert "\n" not in str(caught.value)
