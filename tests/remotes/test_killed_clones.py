"""Clones that are killed, and a program that begins where none is yet."""

from __future__ import annotations

import shutil
from pathlib import Path

from lakelog.remotes import clone
from tests.support.cli import answer, run
from tests.support.deaths import dies
from tests.support.effort import IS_WHOLE


def test_a_killed_clone_is_ended_by_a_start_that_wants_one(tmp_path: Path) -> None:
    """As a container makes it with each start: no branch is left out for good, wherever it was
    killed."""
    lake, hub, copy = tmp_path / "lake", str(tmp_path / "hub"), tmp_path / "copy"
    for branch in ("main", "aside", "work"):
        if branch != "main":
            run(lake, "branch", branch)
        run(lake, "--branch", branch, "append", f"type={branch}")
    run(lake, "remote", "add", "origin", hub)
    run(lake, "push", "--all")
    at, is_killed = 1, True
    while is_killed:
        shutil.rmtree(copy, ignore_errors=True)
        is_killed = dies(lambda: clone(hub, str(copy), if_missing=True), at, str(copy))
        run(copy, "clone", hub, str(copy), "--if-missing")
        branches = [row["branch"] for row in answer(copy, "branch")]
        assert branches == ["aside", "main", "work"], at
        at += 1 if IS_WHOLE else 3
    assert at > 9
