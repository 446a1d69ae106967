"""`lakelog watch --backup-dir` and `lakelog backups` as a person uses them."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LINE = b'{"type":"T","subject":"%d"}\n'


def lakelog(
    *words: str, cwd: Path, code: int = 0, file_max: int = -1
) -> subprocess.CompletedProcess[str]:
    """Run a verb; no file it writes may grow beyond `file_max` bytes."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_max, file_max))

    done = subprocess.run(
        [sys.executable, "-m", "lakelog", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        preexec_fn=limit if file_max >= 0 else None,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with two log files, one rotated a while ago, watched and backed up once."""
    (tmp_path / "logs").mkdir()
    for name, lines in (("a.log", 3), ("a.log.1", 2)):
        path = tmp_path / "logs" / name
        path.write_bytes(b"".join(LINE % (n + lines * 10) for n in range(lines)))
        os.utime(path, (10**9, 10**9))
    words = lakelog("watch", "logs", "--once", "--backup-dir", "kept", cwd=tmp_path).stderr
    assert "5 new events from 2 files; 0 quarantined; arrival 5 events; 2 backed up" in words
    return tmp_path


def test_list_names_what_there_is(here: Path) -> None:
    """Each backup with its file, sizes, hash and times; of one file, of a directory, or all."""
    found = json.loads(lakelog("backups", "list", "--json", cwd=here).stdout)
    assert [(os.path.basename(b["source"]), b["size"]) for b in found] == [
        ("a.log", 84),
        ("a.log.1", 56),
    ]
    assert found[0]["mtime"] == "2001-09-09T01:46:40Z"
    assert found[0]["published"] == 84
    one = json.loads(lakelog("backups", "list", "logs/a.log.1", "--json", cwd=here).stdout)
    assert one == found[1:]
    again = lakelog("backups", "list", "--backup-dir", "kept", "--json", cwd=here / ".")
    assert json.loads(again.stdout) == found


def test_verify_tells_what_is_damaged(here: Path) -> None:
    """Exit 3 and a line for each backup, or document, that is not what was written."""
    assert "2 backups intact, 0 damaged" in lakelog("backups", "verify", cwd=here).stderr
    one, two = sorted(p for p in (here / "kept").glob("a*") if p.suffix != ".json")
    one.write_bytes(one.read_bytes().replace(b"T", b"U", 1))
    found = lakelog("backups", "verify", "--json", cwd=here, code=3)
    states = {os.path.basename(b["backup"]): b["state"] for b in json.loads(found.stdout)}
    assert states == {one.name: "damaged", two.name: "sound"}
    assert "bytes are not those that were copied" in found.stderr
    (here / "kept" / f"{two.name}.backup.json").write_bytes(b"{}\n")
    found = lakelog("backups", "verify", cwd=here, code=3)
    assert "0 backups intact, 2 damaged" in found.stderr
    assert "its document cannot be read" in found.stderr


def test_restore_brings_a_file_back(here: Path) -> None:
    """The newest backup of a file, or one that is named, whole; force alone replaces."""
    (here / "logs/a.log").unlink()
    lakelog("backups", "restore", "logs/a.log", cwd=here)
    assert (here / "logs/a.log").stat().st_mtime == 10**9
    refused = lakelog("backups", "restore", "logs/a.log", cwd=here, code=1).stderr
    assert "--force replaces it" in refused
    lakelog("backups", "restore", "logs/a.log", "--force", cwd=here)
    (here / "out").mkdir()
    (name,) = (here / "kept").glob("a_*.log.1")
    lakelog("backups", "restore", str(name), "logs/a.log", "--to", "out", cwd=here)
    assert sorted(os.listdir(here / "out")) == ["a.log", "a.log.1"]
    assert "0 new events" in lakelog("watch", "logs", "--once", cwd=here).stderr


def test_mistakes(here: Path, tmp_path: Path) -> None:
    """One line each, with what to do."""
    assert "no backup of x.log" in lakelog("backups", "list", "x.log", cwd=here, code=1).stderr
    assert "name a backup" in lakelog("backups", "restore", cwd=here, code=2).stderr
    assert "go with restore" in lakelog("backups", "list", "--force", cwd=here, code=2).stderr
    words = ("watch", "logs", "--once", "--remove-processed")
    assert "without --backup-dir" in lakelog(*words, cwd=here, code=2).stderr
    words = ("watch", "logs", "--once", "--backup-dir", ".")
    assert "must not contain" in lakelog(*words, cwd=here, code=2).stderr
    words = ("--lake", "other", "init")
    lakelog(*words, cwd=here)
    found = lakelog("--lake", "other", "backups", "list", cwd=here, code=1).stderr
    assert "watch with --backup-dir" in found


@pytest.mark.thorough
def test_processed_files_are_removed_if_asked(here: Path) -> None:
    """--remove-processed takes the rotated file; its backup proves the lines, and goes by age."""
    words = ("watch", "logs", "--once", "--backup-dir", "kept", "--remove-processed")
    assert "1 removed after it" in lakelog(*words, cwd=here).stderr
    assert os.listdir(here / "logs") == ["a.log"]
    assert "1 read from their backups" in lakelog("audit", cwd=here).stderr
    assert "1 read from their backups" in lakelog("audit", "logs/a.log.1", cwd=here).stderr
    done = lakelog(*words, "--backup-age", "1us", cwd=here).stderr
    assert "1 old backup deleted" in done
    listed = lakelog("backups", "list", "--json", cwd=here).stdout
    assert [os.path.basename(b["source"]) for b in json.loads(listed)] == ["a.log"]


@pytest.mark.thorough
def test_a_limit_of_the_disk(here: Path) -> None:
    """A file too large for the backups' disk is named; its lines come in, others are backed up."""
    with open(here / "logs/big.log", "wb") as file:
        file.writelines(LINE % n for n in range(60_000))
    (here / "logs/small.log").write_bytes(LINE % 1)
    words = ("watch", "logs", "--once", "--backup-dir", "kept")
    done = lakelog(*words, cwd=here, file_max=1_200_000)
    assert "60001 new events" in done.stderr.replace(",", "")
    assert "big.log: not backed up: File too large" in done.stderr
    listed = json.loads(lakelog("backups", "list", "--json", cwd=here).stdout)
    assert {os.path.basename(b["source"]) for b in listed} == {"a.log", "a.log.1", "small.log"}
    lakelog("backups", "verify", cwd=here)
    query = "SELECT level FROM events WHERE type = 'lakelog.backup' AND subject LIKE '%big.log'"
    assert json.loads(lakelog("sql", query, cwd=here).stdout) == {"level": "ERROR"}
    assert not list((here / "kept").glob(".tmp-*"))
    assert "1 backed up" in lakelog(*words, cwd=here).stderr


def test_a_unit_has_the_options(here: Path) -> None:
    """--print-unit gives the service the same backups, by absolute paths."""
    given = (
        "--backup-dir",
        "kept",
        "--backup-interval",
        "60",
        "--backup-keep",
        "3",
        "--backup-age",
        "30d",
        "--backup-zstd",
        "--remove-processed",
    )
    unit = lakelog("watch", "logs", *given, "--print-unit", cwd=here).stdout
    (command,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert f"--backup-dir {here}/kept --backup-interval 60 --backup-keep 3" in command
    words = command.split(" watch ")[1].split()
    again = lakelog("watch", *words, "--print-unit", cwd=here).stdout
    assert again == unit


@pytest.mark.thorough
def test_backups_while_it_runs(here: Path) -> None:
    """A running watcher backs up what changed, without a pause in what it takes in."""
    words = ("--backup-dir", "kept", "--backup-interval", "0.2", "--interval", "0.2")
    command = [sys.executable, "-m", "lakelog", "watch", "logs", *words]
    with subprocess.Popen(command, cwd=here, stderr=subprocess.PIPE, text=True) as running:
        try:
            until = time.monotonic() + 240
            for n in range(3):
                with open(here / "logs/a.log", "ab") as file:
                    file.write(LINE % n)
                size = (here / "logs/a.log").stat().st_size
                while size not in {p.stat().st_size for p in (here / "kept").glob("a_*.log")}:
                    assert time.monotonic() < until
                    time.sleep(0.05)
        finally:
            running.send_signal(signal.SIGTERM)
            said = running.communicate()[1]
    assert running.returncode == 0
    assert "3 backed up" in said
    lakelog("backups", "verify", cwd=here)
