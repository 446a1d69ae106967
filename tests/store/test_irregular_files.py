"""Lakes from somebody else, in which a pipe, a device or an endless file has the name of a file."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lakelog.disk import LockFile, disk
from tests.support import hostile_lakes
from tests.support.cli import lines, run
from tests.support.requirements import need_module
from tests.support.tree import ROOT

MEMORY = 250 << 20
TOO_MANY_LINKS = os.strerror(errno.ELOOP)


@pytest.fixture
def lake(home: Path) -> Path:
    """A lake with a signed tag, a remote, a policy and events in its WAL."""
    need_module("cryptography")
    path, key = home / "lake", str(home / "key")
    run(path, "append", input=lines(5, id="x"))
    run(path, "key", "generate", key)
    run(path, "tag", "v1", "--sign", key)
    run(path, "remote", "add", "origin", str(home / "there"))
    run(path, "push")
    (path / "policy.toml").write_text("[allow]\n")
    run(path, "verify")
    run(path, "append", input=lines(2, "LATER"))
    return path


@pytest.mark.matrix
@pytest.mark.parametrize("kind", sorted(hostile_lakes.KINDS))
def test_every_command_ends_with_one_line(lake: Path, kind: str) -> None:
    """No reader of a lake waits, fills memory or breaks, whatever has the name of a file."""
    command = [sys.executable, "-m", "tests.support.hostile_lakes", str(lake)]
    done = subprocess.run(
        [*command, str(lake.parent / "key.pub"), ",".join(hostile_lakes.FILES), kind],
        capture_output=True, text=True, cwd=ROOT, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for case in found["cases"]:
        assert not case["error"], case
        assert case["code"] in (0, 1, 3), case
        assert "it hangs" not in case["said"], case
        if case["case"].endswith("signed"):  # there are events that nobody signed
            assert case["code"] != 0, case
    assert found["memory"] < MEMORY


def test_a_damaged_place_is_named(lake: Path) -> None:
    """What is no file is a problem of that file, and verify reads on."""
    for name in ("refs/tags/v1.json", "refs/signatures"):
        place = lake / name
        path = place if place.suffix else next(place.iterdir())
        path.unlink()
        os.mkfifo(path)
    said = run(lake, "verify", "--json", code=3).stdout
    found = {problem["path"]: problem["reason"] for problem in json.loads(said)["problems"]}
    assert len(found) == 2
    assert all("no regular file" in reason for reason in found.values())


def test_nothing_is_written_through_a_link(home: Path) -> None:
    """Files that are written in place are no way out of the lake."""
    outside, link = home / "outside", home / "link"
    outside.write_text("mine\n")
    link.symlink_to(outside)
    with pytest.raises(OSError, match=TOO_MANY_LINKS):
        disk.append_line(str(link), b"theirs\n")
    with pytest.raises(OSError, match=TOO_MANY_LINKS):
        disk.map_shared(str(link), 64)
    with LockFile(str(link)).claim() as claim:
        assert claim.fd < 0
    with pytest.raises(OSError, match=TOO_MANY_LINKS), LockFile(str(link)).hold(shared=True):
        pass
    assert outside.read_text() == "mine\n"
