"""Remotes that lie: whatever one serves, each attack is one line, and nothing is half-done."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.transfer import known
from tests.support import hostile_remotes as hostile
from tests.support.lakes import opened
from tests.support.remote_suite import add, pull, push
from tests.support.tree import ROOT

MEMORY = 200 << 20


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A good remote, a lake that lacks its newest state, and one that pushes to it."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="lakelog-", dir=memory) as name:
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
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
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
