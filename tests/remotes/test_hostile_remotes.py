"""Remotes that lie: whatever one serves, each attack is one line, and nothing is half-done."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.errors import TransferRefused, Unreachable
from lakelog.remotes import fetches as fetching
from lakelog.remotes import known
from lakelog.remotes.remote import Interrupted
from lakelog.remotes.sftp import CREATE, Lost, SftpClient
from tests.support import hostile_remotes as hostile
from tests.support import hostile_s3, hostile_sftp
from tests.support.lakes import opened
from tests.support.remote_suite import add, pull, push
from tests.support.requirements import need_module
from tests.support.scratch import memory
from tests.support.tree import ROOT

MEMORY = 200 << 20


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A good remote, a lake that lacks its newest state, and one that pushes to it."""
    with tempfile.TemporaryDirectory(prefix="lakelog-", dir=memory()) as name:
        yield _prepared(Path(name))


def _prepared(home: Path) -> Path:
    (home / "outside").mkdir()
    source = str(home / "pusher")
    add(source, "first")
    with opened(source) as lake:
        lake.tag("v1")
        known.add(lake.store, "origin", str(home / "remote"))
    push(source)
    push(source, "v1")
    with opened(str(home / "victim")) as lake:
        known.add(lake.store, "origin", str(home / "remote"))
    pull(str(home / "victim"))
    add(source, "second")
    push(source)
    shutil.copytree(home / "remote", home / "good")
    add(source, "third")
    return home


@pytest.fixture(scope="module")
def found(home: Path) -> dict[str, Any]:
    """What came of all cases, played by one process."""
    command = [sys.executable, "-m", "tests.support.hostile_remotes", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_each_attack_is_one_line(found: dict[str, Any]) -> None:
    wrong = []
    for case in found["cases"]:
        words, is_refused = case["said"], case["case"] not in hostile.IGNORED
        is_line = not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", words)
        if bool(words) != is_refused or not is_line or len(words) > 500:
            wrong.append(case)
    assert not wrong
    assert len({case["case"] for case in found["cases"]}) >= 90


def test_nothing_is_written_elsewhere_and_no_ref_moves(found: dict[str, Any]) -> None:
    for case in found["cases"]:
        assert not case["changed"], case
        assert case["outside"] == [], case
        known_names = {"clone", "good", "outside", "pusher", "remote", "victim"}
        assert set(case["home"]) <= known_names, case
        if case["verb"] == "clone" and case["case"] in hostile.CASES:
            assert case["cloned"] in (False, ["main"]), case


def test_memory_is_bounded(found: dict[str, Any]) -> None:
    assert found["memory"] < MEMORY


def test_the_lakes_are_intact(home: Path, found: dict[str, Any]) -> None:
    for name in ("victim", "pusher"):
        with lakelog.open(str(home / name)) as lake:
            assert lake.verify().problems == ()


@pytest.mark.matrix
@pytest.mark.parametrize("case", hostile_sftp.CASES)
def test_hostile_sftp_servers_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Whatever the other side of ssh says, a clone ends with one line and leaves nothing."""
    monkeypatch.setattr("lakelog.clients.connection.pause", lambda attempt: 0.0)
    if case == "endless words":
        monkeypatch.setattr("lakelog.remotes.sftp._ANSWER", 0.2)
    script = [sys.executable, hostile_sftp.__file__, "--case", case.replace(" ", "_")]
    (tmp_path / "ssh").write_text(f"#!/bin/sh\nexec {shlex.join(script)}\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("LAKELOG_SSH", str(tmp_path / "ssh"))
    with pytest.raises((TransferRefused, Unreachable)) as failed:
        fetching.clone("ssh://127.0.0.1/x", str(tmp_path / "clone"))
    assert hostile_sftp.CASES[case] in str(failed.value)
    assert str(failed.value).isprintable()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ssh"]


def test_names_of_sftp_servers_are_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in a listing are left out, and a listing has an end."""
    monkeypatch.setattr("lakelog.remotes.sftp._NAMES_MAX", 1_000)
    client = SftpClient([sys.executable, hostile_sftp.__file__, "--case", "names_that_are_paths"])
    client.await_version()
    found = list[bytes]()
    with pytest.raises(Lost):
        found.extend(name for name, _ in client.entries(b"segments"))
    client.close()
    assert found == []


def test_a_server_that_reads_no_further_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh says that the other side is alive, and takes nothing more: the pipe to it is full."""
    monkeypatch.setattr("lakelog.remotes.sftp._ANSWER", 0.2)
    case = "stands_still_at_a_write"
    client = SftpClient([sys.executable, hostile_sftp.__file__, "--case", case])
    with pytest.raises(Lost):
        client.write(b"file", iter([bytes(1 << 20)]), CREATE)
    client.close()


@pytest.mark.matrix
@pytest.mark.parametrize("case", hostile_s3.CASES)
def test_hostile_stores_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Whatever a store serves, a clone ends with one line and leaves nothing."""
    need_module("obstore")
    monkeypatch.setattr("lakelog.clients.connection.pause", lambda attempt: 0.0)
    monkeypatch.setattr("lakelog.remotes.object_store._CHUNKS_MAX", 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with hostile_s3.running(case, "http://169.254.169.254/latest/meta-data") as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        remote = known.open_remote("s3://b/x")
        with pytest.raises((TransferRefused, Unreachable)) as failed:
            fetching.clone("s3://b/x", str(tmp_path / "clone"))
        assert str(failed.value).isprintable()
        assert "secret" not in str(failed.value)
        if "list" in case or "keys" in case:
            with pytest.raises((TransferRefused, Interrupted)):
                list(remote.names("refs"))
    assert list(tmp_path.iterdir()) == []
