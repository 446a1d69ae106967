"""get_logger: the lines of the OOS log stream, in a file, in a lake, or in both, each once."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

import lakelog
from lakelog.disk import disk
from lakelog.errors import InvalidEvent
from lakelog.formats import FORMATS
from lakelog.loggers import follower, logfile
from tests.conftest import MakeLake
from tests.support.followed_logs import close_all
from tests.support.processes import environment
from tests.support.sync_places import forked


@pytest.fixture(autouse=True)
def closed(home: Path) -> Iterator[None]:
    """Close the files of a test before its lakes are removed."""
    yield
    close_all()


def items(lake: lakelog.Lake) -> list[str]:
    """The subjects of a lake, in order."""
    return [s for (s,) in lake.sql("SELECT subject FROM events ORDER BY subject").fetchall()]


def until_stored(lake: lakelog.Lake, count: int) -> None:
    """Wait until a lake has so many events; the process that follows the file brings them."""
    deadline = time.monotonic() + 240
    while lake.count() < count:
        assert time.monotonic() < deadline, lake.count()
        time.sleep(0.05)


def test_a_log_goes_to_the_branch_that_it_is_given(tmp_path: Path, make_lake: MakeLake) -> None:
    """By the process at its side, and by `sync`."""
    lake = make_lake()
    lake.branch("dev")
    dev = make_lake(branch="dev")
    log = lakelog.get_logger(tmp_path / "oos.log", lake=dev)
    log.process("podcast", "T", "followed")
    until_stored(dev, 1)
    log.process("podcast", "T", "synced")
    assert log.sync()
    assert items(dev) == ["followed", "synced"]
    assert items(lake) == []


def test_a_log_goes_to_each_lake_that_a_logger_of_it_names(
    tmp_path: Path, make_lake: MakeLake
) -> None:
    """Loggers of one file in one process share its queue: every lake gets the lines."""
    one, other = make_lake(), lakelog.open(tmp_path / "other")
    for lake in (one, other, other):
        log = lakelog.get_logger(tmp_path / "oos.log", lake=lake)
    log.complete("podcast", "A", "item")
    for lake in (one, other):
        until_stored(lake, 1)
        assert items(lake) == ["item"]
    other.close()


def test_a_log_that_ends_with_its_first_line_leaves_no_process(
    tmp_path: Path, make_lake: MakeLake
) -> None:
    """The process that follows it has just begun then, and ends when it has brought the line."""
    lake = make_lake()
    lakelog.get_logger(tmp_path / "oos.log", lake=lake).complete("podcast", "A", "item")
    close_all()
    assert items(lake) == ["item"]


def test_sync_reads_the_log_and_its_backups_alone(tmp_path: Path, make_lake: MakeLake) -> None:
    """Other files begin with the name of the log, too; and a name may end as backups do."""
    lake, path = make_lake(), tmp_path / "run-20260101.log"
    log = lakelog.get_logger(path, lake=lake, rotate_bytes=1)
    for item in ("a", "b"):
        log.process("podcast", "T", item)
        assert log.flush(240)
    for name, text in (("offset", "12345\n"), ("notes.md", "mine\n"), ("1", "an older one\n")):
        Path(f"{path}.{name}").write_text(text)
    (tmp_path / "run-20260101.log.parts").mkdir()
    (tmp_path / "run-20260101.log.link").symlink_to("nowhere")
    assert log.sync()
    query = "SELECT coalesce(subject, message) FROM events ORDER BY 1"
    assert lake.sql(query).fetchall() == [("a",), ("an older one",), ("b",)]


def test_a_program_of_the_old_system_runs(tmp_path: Path) -> None:
    """Its four calls write its line format, and its views read them."""
    path = tmp_path / "oos.log"
    log = lakelog.get_logger(str(path))
    log.discover("podcast", "TechPodcast", "ep_1", {"url": "https://a/b?x|y", "title": "A|B"})
    log.process("podcast", "TechPodcast", "ep_1")
    log.complete("podcast", "TechPodcast", "ep_1", {"words": 4800})
    log.fail("podcast", "Other", "ep_2", {"error": "timeout"})
    assert log.flush(240)
    lines = path.read_text().splitlines()
    moment, _, rest = lines[0].partition("|")
    assert len(moment) == len("2025-09-29T02:00:19.480Z")
    assert rest.startswith("DISCOVER|podcast|TechPodcast|ep_1|{")
    assert orjson.loads(rest.split("|", 4)[4]) == {"url": "https://a/b?x|y", "title": "A|B"}
    assert lines[1].endswith("|PROCESS|podcast|TechPodcast|ep_1|{}")
    views = lakelog.get_views(str(path))
    assert views.podcast_status_view() == {
        "discovered": 0,
        "processing": 0,
        "completed": 1,
        "failed": 1,
    }
    assert views.error_analysis_view()["error_types"] == {"timeout": 1}


def test_lines_may_be_printed_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`stdout` shows what the file gets."""
    log = lakelog.get_logger(tmp_path / "oos.log", stdout=True)
    log.complete("podcast", "A", "A_1", {"n": 1})
    assert log.flush(240)
    assert capsys.readouterr().out == (tmp_path / "oos.log").read_text()


@pytest.mark.parametrize(
    "fields",
    [
        ("podcast", "A", "a|b"),
        ("podcast", "A\n", "a"),
        ("podcast", "", "a"),
        ("podcast", "A", None),
        ("podcast", "A", "a", [1]),
        ("podcast", "A\ud83d", "a"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(fields: tuple[Any, ...], tmp_path: Path) -> None:
    """It is counted and never raises in the caller, unless that asked for it."""
    log = lakelog.get_logger(tmp_path / "oos.log")
    log.complete(*fields)
    log.complete("podcast", "A", "a", {"value": object(), "nan": float("nan")})
    assert log.flush(240)
    assert log.stats().refused == 1
    assert len((tmp_path / "oos.log").read_text().splitlines()) == 1
    strict = lakelog.get_logger(tmp_path / "strict.log", strict=True)
    with pytest.raises((InvalidEvent, UnicodeEncodeError)):
        strict.complete(*fields)


def test_concurrent_threads_write_whole_lines(tmp_path: Path) -> None:
    """Lines of many threads do not mix."""
    log = lakelog.get_logger(tmp_path / "oos.log")

    def work(number: int) -> None:
        for i in range(2_000):
            log.complete("podcast", f"s{number}", f"i{i}", {"n": i})

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.flush(240)
    lines = (tmp_path / "oos.log").read_text().splitlines()
    found = sorted(tuple(line.split("|")[3:5]) for line in lines)
    assert found == sorted((f"s{n}", f"i{i}") for n in range(4) for i in range(2_000))


def test_a_lake_gets_each_line_once(tmp_path: Path, make_lake: MakeLake) -> None:
    """From the file, under the file's identity: ingesting or watching it adds nothing."""
    lake, path = make_lake(), tmp_path / "logs" / "oos.log"
    log = lakelog.get_logger(path, lake=lake)
    for i in range(1_000):
        log.complete("podcast", "A", f"i{i:05}", {"n": i})
    until_stored(lake, 1_000)
    for i in range(1_000, 1_500):
        log.complete("podcast", "A", f"i{i:05}", {"n": i})
    assert log.sync()
    assert items(lake) == [f"i{i:05}" for i in range(1_500)]
    assert lake.ingest(path).events == 0
    watch = [sys.executable, "-m", "lakelog", "--lake", lake.path, "watch", "--once", path.parent]
    subprocess.run(watch, env=environment(), check=True, capture_output=True)
    assert lake.count() == 1_500


def test_rotation_keeps_every_line_once(tmp_path: Path, make_lake: MakeLake) -> None:
    """Backups together hold all lines, each has its summary, and the lake has each line once."""
    lake, path = make_lake(), tmp_path / "oos.log"
    log = lakelog.get_logger(path, lake=lake, rotate_bytes=40_000)
    for i in range(3_000):
        log.log("COMPLETE" if i % 3 else "FAIL", "podcast", "A", f"i{i:05}", {"n": i})
        if i % 300 == 299:
            assert log.flush(240)
    until_stored(lake, 3_000)
    logfile._QUEUES[str(path)].close()  # which waits for the summaries
    backups = sorted(p for p in tmp_path.glob("oos.log.*") if p.suffix != ".json")
    assert len(backups) >= 3
    lines = [line for p in (*backups, path) if p.exists() for line in p.read_text().splitlines()]
    assert sorted(line.split("|")[4] for line in lines) == [f"i{i:05}" for i in range(3_000)]
    assert items(lake) == [f"i{i:05}" for i in range(3_000)]
    for backup in backups:
        text = backup.read_text()
        summary = orjson.loads(Path(f"{backup}.summary.json").read_bytes())
        assert summary == {
            "file": backup.name,
            "bytes": len(text),
            "lines": text.count("\n"),
            "first": text.partition("|")[0],
            "last": text.splitlines()[-1].partition("|")[0],
            "events": {"COMPLETE": text.count("|COMPLETE|"), "FAIL": text.count("|FAIL|")},
        }


@pytest.mark.parametrize("is_full", [False, True])
def test_summary_of_a_backup_is_right_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    """Lines longer than what is read at once count once each; a full disk leaves no half of it."""
    write_all = disk.write_all

    def half(fd: int, data: bytes) -> None:
        write_all(fd, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    if is_full:
        monkeypatch.setattr(disk, "write_all", half)
    log = lakelog.get_logger(tmp_path / "oos.log", rotate_bytes=1_000_000)
    for i in range(2):
        log.complete("podcast", "A", f"i{i}", {"text": "x" * 900_000})
    assert log.flush(240)
    close_all()
    (backup,) = (p for p in tmp_path.iterdir() if p.suffix != ".json")
    found = [p.name for p in tmp_path.iterdir() if p != backup]
    assert found == ([] if is_full else [f"{backup.name}.summary.json"])
    if not is_full:
        assert orjson.loads((tmp_path / found[0]).read_bytes())["lines"] == 2


_SHARED = """
import sys, lakelog
log = lakelog.get_logger(sys.argv[1], lake=sys.argv[2], rotate_bytes=30_000)
for i in range(1_000):
    log.complete("podcast", sys.argv[3], f"{sys.argv[3]}{i:05}", {"n": i})
    if i % 100 == 0: log.flush()
"""


def test_processes_share_a_file_and_its_rotation(tmp_path: Path, make_lake: MakeLake) -> None:
    """Whoever reaches the limit rotates, once; the lake gets the lines of all, each once."""
    lake = make_lake()
    command = [sys.executable, "-c", _SHARED, tmp_path / "oos.log", lake.path]
    writers = [subprocess.Popen([*command, name], env=environment()) for name in "abc"]
    assert [writer.wait(240) for writer in writers] == [0, 0, 0]
    files = [p for p in tmp_path.glob("oos.log*") if p.suffix != ".json"]
    lines = [line.split("|")[4] for p in files for line in p.read_text().splitlines()]
    expected = sorted(f"{name}{i:05}" for name in "abc" for i in range(1_000))
    assert sorted(lines) == expected
    until_stored(lake, 3_000)
    assert items(lake) == expected


def test_a_killed_process_leaves_file_and_lake_alike(tmp_path: Path, make_lake: MakeLake) -> None:
    """After `kill -9` the lake gets what the file has, whole lines without a gap, each once."""
    program = """
        import os, signal, sys, lakelog
        log = lakelog.get_logger(sys.argv[1], lake=sys.argv[2])
        for i in range(100_000):
            log.complete("podcast", "A", f"i{i:06}", {"n": i})
            if i == 50_000: os.kill(os.getpid(), signal.SIGKILL)
        """
    lake, path = make_lake(), tmp_path / "oos.log"
    command = [sys.executable, "-c", textwrap.dedent(program), path, lake.path]
    assert subprocess.run(command, env=environment()).returncode == -signal.SIGKILL
    lines = path.read_text().splitlines()
    assert [line.split("|")[4] for line in lines] == [f"i{i:06}" for i in range(len(lines))]
    until_stored(lake, len(lines))
    assert lake.ingest(path).events == 0
    assert items(lake) == [f"i{i:06}" for i in range(len(lines))]


def test_a_write_that_stops_short_leaves_no_half_line_in_the_way(tmp_path: Path) -> None:
    """A full disk cuts a line; once there is room the missing lines follow, each once."""
    path = tmp_path / "oos.log"
    log = lakelog.get_logger(path)
    log.complete("podcast", "A", "first")
    assert log.flush(240)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
        for i in range(20):
            log.complete("podcast", "A", f"i{i:05}", {"n": i})
        deadline = time.monotonic() + 240
        while not log.stats().error and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "File too large" in log.stats().error
    assert log.flush(240)
    lines = path.read_text().splitlines()
    whole = [line.split("|")[4] for line in lines if line.count("|") == 5 and line.endswith("}")]
    assert whole == ["first", *(f"i{i:05}" for i in range(20))]
    assert len(lines) - len(whole) <= 1


def cut_off(monkeypatch: pytest.MonkeyPatch, *lengths: int) -> None:
    """Let the next writes of a log file stop after so many bytes each, as on a full disk."""
    left, write = [*lengths], os.write

    def short(fd: int, data: Any) -> int:
        if not left:
            return write(fd, data)
        if left[0] > 0:
            count = write(fd, bytes(data)[: left[0]])
            left[0] -= count
            return count
        left.pop(0)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", short)


def whole_lines(path: Path) -> list[str]:
    """The subjects of the lines of a file that are events."""
    subjects = []
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(InvalidEvent):
            subjects += [event["subject"] for event in FORMATS["oos"].events(line)]
    return subjects


LINES = [b'2026-11-28T12:00:00.000Z|COMPLETE|podcast|A|i%d|{"n":%d}' % (n, n) for n in range(3)]


@pytest.mark.parametrize("again", [0, 1, 2, len(LINES[0]) + 1, len(LINES[0]) + 2])
def test_lines_that_were_cut_off_anywhere_are_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: int
) -> None:
    """What is cut off just before its newline is whole, and before its data no event."""
    for length in range(len(b"\n".join(LINES)) + 1):
        path = tmp_path / f"{length}.log"
        file = logfile.LogFile(str(path), b"(x)", b"(x)", 0)
        cut_off(monkeypatch, length, again)
        for _ in range(3):
            with contextlib.suppress(OSError):
                file.store(LINES)
                break
        monkeypatch.undo()
        file.store([LINES[0].replace(b"i0", b"i3")])
        file.close()
        assert whole_lines(path) == ["i0", "i1", "i2", "i3"], length


def test_fork_while_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child writes all of its lines, although the parent is in the middle of its own."""
    path = tmp_path / "oos.log"
    file = logfile.LogFile(str(path), b"(x)", b"(x)", 0)
    cut_off(monkeypatch, len(LINES[0]) * 2)
    with pytest.raises(OSError, match="No space left"):
        file.store(LINES)

    def work() -> None:
        file.after_fork()
        file.store([line.replace(b"|i", b"|c") for line in LINES])

    assert forked(work) == 0
    file.store(LINES)
    file.close()
    assert sorted(whole_lines(path)) == ["c0", "c1", "c2", "i0", "i1", "i2"]


def test_a_logger_of_a_lake_alone(make_lake: MakeLake) -> None:
    """Without a file the events go to the lake directly, in the same columns."""
    lake = make_lake()
    log = lakelog.get_logger(None, lake=lake)
    log.complete("podcast", "A", "A_1", {"words": 4800})
    assert log.sync()
    query = "SELECT type, category, source, subject, data->>'words' FROM events"
    assert lake.sql(query).fetchall() == [("COMPLETE", "podcast", "A", "A_1", "4800")]
    with pytest.raises(ValueError, match="a file, a lake, or both"):
        lakelog.get_logger(None)


_LAST_LINE = """
import sys, lakelog
log = lakelog.get_logger(sys.argv[1], lake=sys.argv[2])
log.complete("podcast", "A", "one")
log.flush()
print("one", flush=True)
input()
log.complete("podcast", "A", "two")
"""


def test_a_line_is_stored_though_the_follower_ended_before_it(
    tmp_path: Path, make_lake: MakeLake
) -> None:
    """A program that ends sees to its last lines, whoever followed the file a moment ago."""
    lake, file = make_lake(), tmp_path / "oos.log"
    path = Path(follower.lock_path(lake.path, "main", str(file)))
    with path.open("a") as held:
        assert disk.lock(held.fileno())
        command = [sys.executable, "-c", _LAST_LINE, str(file), lake.path]
        writer = subprocess.Popen(
            command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "one\n"
    writer.communicate("\n", timeout=60)
    assert writer.returncode == 0
    until_stored(lake, 2)
    assert items(lake) == ["one", "two"]
