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

from tests.support.cli import run_in

LAKELOG = [sys.executable, "-m", "lakelog"]
LINE = b'{"type":"T","subject":"%d"}\n'


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with two log files, one rotated a while ago, watched and backed up once."""
    (tmp_path / "logs").mkdir()
    for name, lines in (("a.log", 3), ("a.log.1", 2)):
        path = tmp_path / "logs" / name
        path.write_bytes(b"".join(LINE % (n + lines * 10) for n in range(lines)))
        os.utime(path, (10**9, 10**9))
    words = run_in(tmp_path, "watch", "logs", "--once", "--backup-dir", "kept").stderr
    assert "5 new events from 2 files; 0 quarantined; arrival 5 events; 2 backed up" in words
    return tmp_path


def test_list_names_what_there_is(here: Path) -> None:
    """Each backup with its file, sizes, hash and times; of one file, of a directory, or all."""
    found = json.loads(run_in(here, "backups", "list", "--json").stdout)
    assert [(os.path.basename(b["source"]), b["size"]) for b in found] == [
        ("a.log", 84),
        ("a.log.1", 56),
    ]
    assert found[0]["mtime"] == "2001-09-09T01:46:40Z"
    assert found[0]["published"] == 84
    one = json.loads(run_in(here, "backups", "list", "logs/a.log.1", "--json").stdout)
    assert one == found[1:]
    again = run_in(here / ".", "backups", "list", "--backup-dir", "kept", "--json")
    assert json.loads(again.stdout) == found


def test_verify_tells_what_is_damaged(here: Path) -> None:
    """Exit 3 and a line for each backup, or document, that is not what was written."""
    assert "2 backups intact, 0 damaged" in run_in(here, "backups", "verify").stderr
    one, two = sorted(p for p in (here / "kept").glob("a*") if p.suffix != ".json")
    one.write_bytes(one.read_bytes().replace(b"T", b"U", 1))
    found = run_in(here, "backups", "verify", "--json", code=3)
    states = {os.path.basename(b["backup"]): b["state"] for b in json.loads(found.stdout)}
    assert states == {one.name: "damaged", two.name: "sound"}
    assert "bytes are not those that were copied" in found.stderr
    (here / "kept" / f"{two.name}.backup.json").write_bytes(b"{}\n")
    found = run_in(here, "backups", "verify", code=3)
    assert "0 backups intact, 2 damaged" in found.stderr
    assert "its document cannot be read" in found.stderr


def test_restore_brings_a_file_back(here: Path) -> None:
    """The newest backup of a file, or one that is named, whole; force alone replaces."""
    (here / "logs/a.log").unlink()
    run_in(here, "backups", "restore", "logs/a.log")
    assert (here / "logs/a.log").stat().st_mtime == 10**9
    refused = run_in(here, "backups", "restore", "logs/a.log", code=1).stderr
    assert "--force replaces it" in refused
    run_in(here, "backups", "restore", "logs/a.log", "--force")
    (here / "out").mkdir()
    (name,) = (here / "kept").glob("a_*.log.1")
    run_in(here, "backups", "restore", str(name), "logs/a.log", "--to", "out")
    assert sorted(os.listdir(here / "out")) == ["a.log", "a.log.1"]
    assert "0 new events" in run_in(here, "watch", "logs", "--once").stderr


def test_mistakes(here: Path, tmp_path: Path) -> None:
    """One line each, with what to do."""
    assert "no backup of x.log" in run_in(here, "backups", "list", "x.log", code=1).stderr
    assert "name a backup" in run_in(here, "backups", "restore", code=2).stderr
    assert "go with restore" in run_in(here, "backups", "list", "--force", code=2).stderr
    words = ("watch", "logs", "--once", "--remove-processed")
    assert "without --backup-dir" in run_in(here, *words, code=2).stderr
    words = ("watch", "logs", "--once", "--backup-dir", ".")
    assert "must not contain" in run_in(here, *words, code=2).stderr
    words = ("--lake", "other", "init")
    run_in(here, *words)
    found = run_in(here, "--lake", "other", "backups", "list", code=1).stderr
    assert "watch with --backup-dir" in found


@pytest.mark.thorough
def test_processed_files_are_removed_if_asked(here: Path) -> None:
    """--remove-processed takes the rotated file; its backup proves the lines, and goes by age."""
    words = ("watch", "logs", "--once", "--backup-dir", "kept", "--remove-processed")
    assert "1 removed after it" in run_in(here, *words).stderr
    assert os.listdir(here / "logs") == ["a.log"]
    assert "1 read from their backups" in run_in(here, "audit").stderr
    assert "1 read from their backups" in run_in(here, "audit", "logs/a.log.1").stderr
    done = run_in(here, *words, "--backup-age", "1us").stderr
    assert "1 old backup deleted" in done
    listed = run_in(here, "backups", "list", "--json").stdout
    assert [os.path.basename(b["source"]) for b in json.loads(listed)] == ["a.log"]


@pytest.mark.thorough
def test_a_limit_of_the_disk(here: Path) -> None:
    """A file too large for the backups' disk is named; its lines come in, others are backed up."""
    with open(here / "logs/big.log", "wb") as file:
        file.writelines(LINE % n for n in range(60_000))
    (here / "logs/small.log").write_bytes(LINE % 1)
    words = ("watch", "logs", "--once", "--backup-dir", "kept")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, 1_200_000))

    done = subprocess.run(
        [*LAKELOG, *words], cwd=here, capture_output=True, text=True, preexec_fn=limit
    )
    assert done.returncode == 0, done.stderr
    assert "60001 new events" in done.stderr.replace(",", "")
    assert "big.log: not backed up: File too large" in done.stderr
    listed = json.loads(run_in(here, "backups", "list", "--json").stdout)
    assert {os.path.basename(b["source"]) for b in listed} == {"a.log", "a.log.1", "small.log"}
    run_in(here, "backups", "verify")
    query = "SELECT level FROM events WHERE type = 'lakelog.backup' AND subject LIKE '%big.log'"
    assert json.loads(run_in(here, "sql", query).stdout) == {"level": "ERROR"}
    assert not list((here / "kept").glob(".tmp-*"))
    assert "1 backed up" in run_in(here, *words).stderr


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
    unit = run_in(here, "watch", "logs", *given, "--print-unit").stdout
    (command,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert f"--backup-dir {here}/kept --backup-interval 60 --backup-keep 3" in command
    words = command.split(" watch ")[1].split()
    again = run_in(here, "watch", *words, "--print-unit").stdout
    assert again == unit


@pytest.mark.thorough
def test_backups_while_it_runs(here: Path) -> None:
    """A running watcher backs up what changed, without a pause in what it takes in."""
    words = ("--backup-dir", "kept", "--backup-interval", "0.2", "--interval", "0.2")
    command = [*LAKELOG, "watch", "logs", *words]
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
    run_in(here, "backups", "verify")
