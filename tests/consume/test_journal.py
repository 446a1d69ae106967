"""The journal of systemd: each entry once, with its cursor in the move of its event."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.cli import cli
from lakelog.consume import consume
from lakelog.consume.consume import Consumer
from lakelog.consume.journal_source import JournalSource
from lakelog.errors import SyncRefused, Unreachable
from lakelog.formats.journal import JournalExport
from lakelog.ingest.stream_cursor import StreamCursor
from tests.support.requirements import find
from tests.support.watching import die_at

PROGRAM = """#!{python}
import os, sys, time
entries = lambda: [e + b"\\n\\n" for e in open({path!r}, "rb").read().split(b"\\n\\n==\\n") if e]
words = dict((w + "=").split("=", 1) for w in sys.argv[1:])
assert words["--output"] == "export=", sys.argv
out, at = sys.stdout.buffer, 0
if "--lines" in words:
    out.write(b"".join(entries()[-1:]))
    sys.exit()
if "--cursor" in words:
    cursor = words["--cursor"][:-1].encode()
    at = [b"__CURSOR=" + cursor + b"\\n" in e for e in entries()].index(True)
while True:
    now = entries()
    out.write(b"".join(now[at:]))
    out.flush()
    at = len(now)
    if "--follow" not in words:
        break
    assert "--no-tail" in words
    time.sleep(0.01)
"""


class Journal:
    """A journal in a file, and a `journalctl` that reads it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal"
        self.path.touch()
        self.count = 0
        program = folder / "bin" / "journalctl"
        program.parent.mkdir()
        program.write_text(PROGRAM.format(python=sys.executable, path=str(self.path)))
        program.chmod(0o755)
        self.bin = str(program.parent)

    def write(self, *messages: bytes, seed: str = "5eed") -> None:
        """Add entries; a message with a newline is a binary field."""
        data = b""
        for message in messages:
            self.count += 1
            micros = 1_790_000_000_000_000 + self.count
            text = b"MESSAGE=" + message
            if b"\n" in message or message.decode("utf-8", "replace").encode() != message:
                text = b"MESSAGE\n" + len(message).to_bytes(8, "little") + message
            data += (
                (
                    f"__CURSOR=s={seed};i={self.count:x};b=b0;m=1;t={micros:x};x=3\n"
                    f"__REALTIME_TIMESTAMP={micros}\n"
                    "_MACHINE_ID=m0\nPRIORITY=4\nSYSLOG_IDENTIFIER=app\n"
                ).encode()
                + text
                + b"\n\n==\n"
            )
        with self.path.open("ab") as file:
            file.write(data)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """A machine whose journal can be written."""
    journal = Journal(tmp_path)
    monkeypatch.setenv("PATH", journal.bin, prepend=os.pathsep)
    return journal


def messages(lake: lakelog.Lake) -> list[str | None]:
    """What is stored, in its order."""
    query = "SELECT message FROM events WHERE type = 'journal' ORDER BY time"
    return [message for (message,) in lake.sql(query).fetchall()]


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it never holds")


def test_each_entry_once(lake: lakelog.Lake, system: Journal) -> None:
    """Entries of text and of bytes are events, and later rounds continue at the lake's cursor,
    also where a publish failed in between."""
    system.write(b"first", b"two\n\nlines", b"caf\xe9")
    assert consume.consume(lake, JournalSource()).events == 3
    assert messages(lake) == ["first", "two\n\nlines", None]
    values = lake.sql("SELECT data->>'MESSAGE' FROM events ORDER BY time DESC LIMIT 1").fetchall()
    assert values == [("[99,97,102,233]",)]
    row = lake.sql("SELECT level, source, data->>'_MACHINE_ID' FROM events LIMIT 1").fetchall()
    assert row == [("WARN", "app", "m0")]
    system.write(b"fourth", b"fifth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lakelog.ingest.batch.publish", die_at(0))
        with pytest.raises(KeyboardInterrupt):
            consume.consume(lake, JournalSource())
    assert consume.consume(lake, JournalSource()).events == 2
    assert consume.consume(lake, JournalSource()).events == 0
    assert messages(lake)[3:] == ["fourth", "fifth"]
    state = lake.store.state("main")
    (cursor,) = StreamCursor.of_state(lake.store, state).values()
    assert (cursor.key, cursor.messages) == ("journal:m0", 5)
    assert cursor.position.startswith("s=5eed;i=5;")


def test_what_is_written_later(lake: lakelog.Lake, system: Journal) -> None:
    """One process follows the journal over many rounds; another consumer takes nothing twice."""
    system.write(*[b"early %d" % n for n in range(50)])
    with closing(Consumer(lake, JournalSource(follows=True))) as consumer:
        assert consumer.run().events == 50
        process = consumer._source._process  # type: ignore[attr-defined]
        for n in range(3):
            system.write(b"late %d" % n)
            wait_for(lambda: consumer.run().events == 1)
        assert consumer._source._process is process  # type: ignore[attr-defined]
        system.write(b"for another")
        assert consume.consume(lake, JournalSource()).events == 1
        system.write(b"last")
        wait_for(lambda: consumer.run().events == 1)
    assert len(messages(lake)) == len(set(messages(lake))) == 55


def test_a_journal_that_was_removed(lake: lakelog.Lake, system: Journal) -> None:
    """Where the clock was set back since, the new one is read from its beginning."""
    system.write(b"a", b"b", b"c")
    consume.consume(lake, JournalSource())
    system.path.write_bytes(b"")
    system.count = 0
    system.write(b"d", seed="5eee")
    assert consume.consume(lake, JournalSource()).events == 1
    assert messages(lake).count("d") == 1


class RealJournal:
    """The files of a journal, which systemd's own programs write and read."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "files"
        self.files.mkdir()
        program = folder / "journalctl"
        program.write_text(f'#!/bin/sh\nexec {find("journalctl")} --directory={self.files} "$@"\n')
        program.chmod(0o755)

    def write(self, name: str, boot: str, first: int, count: int) -> None:
        """Write a file of a boot, which counts its entries anew; their messages are numbers."""
        entries = "".join(
            f"__REALTIME_TIMESTAMP={1_790_000_000_000_000 + number}\n"
            f"__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID={boot * 32}\n_MACHINE_ID={'a' * 32}\n"
            f"PRIORITY=6\nSYSLOG_IDENTIFIER=app\nMESSAGE={number}\n\n"
            for number in range(first, first + count)
        )
        command = [str(find("systemd-journal-remote")), "-o", str(self.files / name), "-"]
        subprocess.run(command, input=entries.encode(), check=True, capture_output=True)


@pytest.fixture
def real_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RealJournal:
    """A machine with a real journal."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return RealJournal(tmp_path)


@pytest.mark.needs("systemd-journal-remote", "journalctl")
def test_a_file_that_journald_begins_after_a_crash(
    lake: lakelog.Lake, real_journal: RealJournal
) -> None:
    """It counts its entries anew, and those of the files before it are not stored again."""
    real_journal.write("system@1.journal", "b", 0, 20)
    assert consume.consume(lake, JournalSource()).events == 20
    real_journal.write("system@2.journal", "c", 20, 5)
    assert consume.consume(lake, JournalSource()).events == 5
    assert consume.consume(lake, JournalSource()).events == 0
    assert messages(lake) == [str(number) for number in range(25)]


@pytest.mark.needs("systemd-journal-remote", "journalctl")
def test_a_file_that_was_vacuumed(lake: lakelog.Lake, real_journal: RealJournal) -> None:
    """The entry that was read last is gone with it, and the next one is stored all the same."""
    real_journal.write("system@1.journal", "b", 0, 20)
    assert consume.consume(lake, JournalSource()).events == 20
    real_journal.write("system@2.journal", "c", 20, 30)
    (real_journal.files / "system@1.journal").unlink()
    assert consume.consume(lake, JournalSource()).events == 30
    assert messages(lake) == [str(number) for number in range(50)]


def test_what_is_wrong(
    lake: lakelog.Lake, system: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty journal and a missing program are said."""
    with pytest.raises(SyncRefused, match="no entries"):
        consume.consume(lake, JournalSource())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unreachable, match="journalctl cannot be run"):
        consume.consume(lake, JournalSource())


@pytest.mark.parametrize("size", [1, 7, 100])
def test_entries_are_cut_wherever_they_come_apart(system: Journal, size: int) -> None:
    """However the output is read, the entries are the same."""
    system.write(b"first", b"two\n\nlines\n", b"\n", b"last")
    data = system.path.read_bytes().replace(b"==\n", b"")
    rest, entries = b"", list[bytes]()
    for at in range(0, len(data), size):
        found, rest = JournalExport.split(rest + data[at : at + size])
        entries += found
    assert rest == b""
    values = [JournalExport.values_of(entry)["MESSAGE"] for entry in entries]
    assert values == ["first", "two\n\nlines\n", "\n", "last"]


def test_the_verb(system: Journal, tmp_path: Path) -> None:
    """`watch --journal --once` stores what is there, and takes no directories."""
    system.write(b"one", b"two")
    at = ["--lake", str(tmp_path / "lake"), "watch", "--journal"]
    done = CliRunner().invoke(cli, [*at, "--once"])
    assert (done.exit_code, "2 events" in done.output) == (0, True), done.output
    shown = CliRunner().invoke(cli, [*at, "--status"]).output
    assert "the journal: " in shown
    assert "events       2; 0 entries quarantined" in shown
    (tmp_path / "logs").mkdir()
    CliRunner().invoke(cli, [*at[:-1], str(tmp_path / "logs"), "--once"])
    status = json.loads(CliRunner().invoke(cli, [*at[:-1], "--status", "--json"]).output)
    assert (status["events"], status["journal"]["events"]) == (0, 2)
    assert CliRunner().invoke(cli, [*at, str(tmp_path)]).exit_code != 0
    unit = CliRunner().invoke(cli, [*at, "--print-unit"]).output
    assert "Description=lakelog watches the journal" in unit
    assert "watch --interval" not in unit
    assert "--journal" in unit


@pytest.mark.thorough
def test_a_signal_ends_it(system: Journal, tmp_path: Path) -> None:
    """`watch --journal` stores what comes until a signal."""
    system.write(b"one", b"two")
    words = [sys.executable, "-m", "lakelog", "--lake", str(tmp_path / "lake"), "watch"]
    with (
        subprocess.Popen([*words, "--journal"], stderr=subprocess.PIPE) as process,
        lakelog.open(tmp_path / "lake") as lake,
    ):
        wait_for(lambda: lake.count() == 2)
        system.write(b"three")
        wait_for(lambda: lake.count() == 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
