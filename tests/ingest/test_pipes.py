"""What comes through a pipe is stored as it comes, and kept when a signal ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog.audit.audit import audit
from lakelog.ingest import batch, spool

LINE = '{"type":"T","n":%d}\n'


class Stream:
    """A thread that ingests a named pipe, and the end that is written to."""

    def __init__(self, lake: lakelog.Lake, path: Path) -> None:
        os.mkfifo(path)
        self.lake, self.path = lake, path
        self.stop = threading.Event()
        self.reports: list[object] = []
        self._thread = threading.Thread(target=self._read, args=(str(path),))
        self._thread.start()
        self.pipe = path.open("wb", buffering=0)

    def write(self, text: str) -> None:
        """Write to the pipe."""
        self.pipe.write(text.encode())

    def end(self) -> None:
        """Close the pipe, and wait for who reads it."""
        self.pipe.close()
        self._thread.join()

    def _read(self, path: str) -> None:
        self.reports.append(self.lake.ingest(path, stop=self.stop.is_set))


@pytest.fixture
def stream(lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    """A pipe that is read while it is written, and published a moment later."""
    monkeypatch.setattr(spool, "QUIET", 0.05)
    stream = Stream(lake, tmp_path / "pipe")
    yield stream
    stream.end()


def write(path: Path, text: str) -> Path:
    """Write a file."""
    path.write_text(text)
    return path


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it never holds")


def test_lines_are_stored_as_they_come(stream: Stream) -> None:
    """Each is there soon after it was written, once, while the pipe stays open; so is the last
    record of a text format, which later lines might continue."""
    for n in range(3):
        stream.write(LINE % 1 + LINE % 2 + '{"type":"T"')
        wait_for(lambda n=n: stream.lake.count() == 3 * n + 2)
        stream.write(',"n":3}\n')
        wait_for(lambda n=n: stream.lake.count() == 3 * n + 3)
    stream.end()
    (file,) = audit(stream.lake.store, "main", stream.lake.engine, []).files
    assert (file.stored, file.wrong) == (9, 0)


def test_the_last_record_of_a_quiet_stream(stream: Stream) -> None:
    """A record of lines is complete once nothing came behind it for a while."""
    stream.write("2026-11-24 10:00:00 INFO app: first\n  of two lines\n")
    wait_for(lambda: stream.lake.count() == 1)
    stream.write("2026-11-24 10:00:01 INFO app: second\n")
    wait_for(lambda: stream.lake.count() == 2)
    query = "SELECT message FROM events ORDER BY position"
    assert stream.lake.sql(query).fetchall() == [("app: first\n  of two lines",), ("app: second",)]


def test_what_is_published_needs_no_place(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without end does not fill the disk: of what is published the place is given back,
    and reading goes on where it was, though another process changes the lake meanwhile."""
    freed: list[int] = []
    real = spool.Spool.publish

    def publish(self: spool.Spool, cursor: object, end: int) -> None:
        real(self, cursor, end)
        freed.append(os.fstat(self._file.fileno()).st_blocks * 512)

    monkeypatch.setattr(spool.Spool, "publish", publish)
    for n in range(4):
        stream.write("".join(LINE % (10_000 * n + m) for m in range(3000)))
        wait_for(lambda n=n: stream.lake.count() == 3000 * (n + 1))
    clashes = batch.Batch.clashes

    def lose(*_: object) -> bool:
        monkeypatch.setattr(batch.Batch, "clashes", clashes)
        return True

    monkeypatch.setattr(batch.Batch, "clashes", lose)
    with lakelog.open(stream.lake.path) as other:
        other.ingest(str(write(stream.path.parent / "other", LINE % 7)))
    stream.write(LINE % 1)
    wait_for(lambda: stream.lake.count() == 12_002)
    assert batch.Batch.clashes is clashes
    origins = "SELECT count(DISTINCT origin) FROM events"
    assert stream.lake.sql(origins).fetchall() == [(2,)]
    assert freed[-1] < 50_000


def test_stop_keeps_what_came(stream: Stream) -> None:
    """Whoever stops has what was written until then, a last line without newline in quarantine."""
    stream.write(LINE % 1 + LINE % 2 + '{"type":')
    wait_for(lambda: stream.lake.count() == 2)
    stream.stop.set()
    stream._thread.join()
    assert stream.lake.sql("SELECT line FROM quarantine").fetchall() == [('{"type":',)]


@pytest.mark.matrix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_came(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end `ingest -` in order."""
    words = [sys.executable, "-m", "lakelog", "--lake", str(tmp_path / "lake"), "ingest", "-"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(b"".join((LINE % n).encode() for n in range(5)))
        process.stdin.flush()
        with lakelog.open(tmp_path / "lake") as lake:
            wait_for(lambda: lake.count() == 5)
            process.send_signal(number)
            assert process.wait(30) == 0, process.stderr
            process.stdin.close()
            assert b"5 new events from 1 file" in process.stderr.read()  # type: ignore[union-attr]
            assert lake.count() == 5


def test_a_stream_that_comes_again_is_known(lake: lakelog.Lake, tmp_path: Path) -> None:
    """What came through a pipe before is not stored again, however it is cut."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    text = "".join(LINE % n for n in range(20_000))
    for cut in (len(text), 10, 100_000):

        def write(cut: int = cut) -> None:
            with path.open("wb", buffering=0) as pipe:
                pipe.write(text[:cut].encode())
                pipe.write(text[cut:].encode())

        writing = threading.Thread(target=write)
        writing.start()
        lake.ingest(str(path))
        writing.join()
        assert lake.count() == 20_000
    assert json.loads(lake.sql("SELECT max(data) FROM events").fetchall()[0][0])
