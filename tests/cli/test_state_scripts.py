"""The drop-in scripts of the older snapshot system, run by every shell that is here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import run
from tests.support.requirements import need
from tests.support.tree import ROOT

SHELLS = ("sh", pytest.param("bash", marks=pytest.mark.needs("bash")))
USAGE = "usage: restore_state_snapshot.sh list | info NAME | latest | NAME | clean N"


class Scripts:
    """The scripts in a directory with a `lakelog`, and the environment that they run in."""

    def __init__(self, root: Path, shell: str) -> None:
        self.shell, self.bin, self.state = shell, root / "bin", root / "state"
        run(root / "lake", "state", "scripts", str(self.bin))
        # The lakelog that is tested, whatever is installed.
        program = self.bin / "lakelog"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lakelog "$@"\n')
        program.chmod(0o755)
        self.state.mkdir()
        (self.state / "a").write_text("one")
        self.environment = {
            **os.environ,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "LAKELOG_LAKE": str(root / "lake"),
            "STATE_DIRECTORY": str(self.state),
        }

    def run(self, script: str, *words: str, code: int = 0, **variables: str) -> str:
        """Run a script without a terminal; its exit code must be `code`."""
        done = subprocess.run(
            [self.shell, str(self.bin / f"{script}_state_snapshot.sh"), *words],
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def save(self, *words: str) -> str:
        """Save the state; return its name."""
        found = re.search(r'"state":"([^"]+)"', self.run("create", *words))
        assert found
        return found[1]


@pytest.mark.matrix
@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_save_and_restore(tmp_path: Path, shell: str) -> None:
    """Every verb of the old grammar, its switches, and its exit codes."""
    scripts = Scripts(tmp_path, shell)
    first = scripts.save()
    assert re.fullmatch(r"state-\d{8}-\d{6}", first)
    (scripts.state / "a").write_text("two")
    assert scripts.save("named") == "named"
    listed = scripts.run("restore", "list")
    assert first in listed
    assert "named" in listed
    assert '"files":1,"captured_at"' in scripts.run("restore", "info", first)
    (scripts.state / "a").write_text("three")
    assert "RESTORE_ENABLED is off" in scripts.run(
        "restore", "latest", code=1, RESTORE_ENABLED="false"
    )
    assert (scripts.state / "a").read_text() == "three"
    scripts.run("restore", "latest")
    assert (scripts.state / "a").read_text() == "two"
    scripts.run("restore", first)
    assert (scripts.state / "a").read_text() == "one"
    scripts.run("restore", "nothing", code=1)
    scripts.run("restore", "clean", "0")
    assert re.findall(r'"state":"([^"]+)"', scripts.run("restore", "list")) == ["named"]


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_refuse_what_they_do_not_know(tmp_path: Path, shell: str) -> None:
    """Wrong usage is one line and exit code 2; nothing is saved where saving is off."""
    scripts = Scripts(tmp_path, shell)
    for words in ((), ("info",), ("clean",), ("list", "x"), ("latest", "x"), ("--help",)):
        assert scripts.run("restore", *words, code=2).strip() == USAGE
    assert "usage" in scripts.run("create", "a", "b", code=2)
    assert "SNAPSHOT_ENABLED is off" in scripts.run("create", SNAPSHOT_ENABLED="false")
    assert "no directory to save" in scripts.run("create", code=1, STATE_DIRECTORY="")
    assert not (tmp_path / "lake" / "refs" / "tags").exists() or not os.listdir(
        tmp_path / "lake" / "refs" / "tags"
    )


def test_scripts_are_clean() -> None:
    """Nothing that shellcheck knows of POSIX sh."""
    scripts = sorted((ROOT / "lakelog" / "cli").glob("*.sh"))
    assert len(scripts) == 3
    done = subprocess.run(
        [need("shellcheck"), "--shell=sh", *map(str, scripts)], capture_output=True, text=True
    )
    assert not done.stdout
