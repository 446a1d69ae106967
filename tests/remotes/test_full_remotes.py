"""Remotes and backups whose disk is full: which disk that is, and how it goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import answer, run
from tests.support.requirements import MOUNTS
from tests.torture import mounts


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for the directories of a lake."""
    with mounts.tmpfs(tmp_path / "disk", 24 << 10) as path:
        yield path


@pytest.mark.needs(MOUNTS)
@pytest.mark.parametrize("verb", ["push", "backup"])
def test_a_full_disk_is_named_and_the_next_run_goes_on(
    small: Path, tmp_path: Path, verb: str
) -> None:
    """The lake has a disk of its own, which may be full as well."""
    lake, copy = tmp_path / "lake", small / "copy"
    noise = os.urandom(20_000).hex()
    run(lake, "append", "type=A", f"data.noise={noise}")
    run(lake, "remote", "add", "origin", str(copy))
    words = ["push"] if verb == "push" else ["backup", str(lake), str(copy)]
    said = run(lake, *words, code=1).stderr
    assert said.startswith(f"lakelog: error: {copy}")
    assert "the disk is full" in said
    mounts.grow(small, 4 << 20)
    run(lake, *words)
    assert run(copy, "verify").stdout.startswith('{"intact":true')
    assert answer(copy, "sql", "SELECT count(*) AS n FROM events") == [{"n": 1}]


@pytest.mark.needs(MOUNTS)
def test_a_refused_download_says_how_much_has_to_stay_free(tmp_path: Path) -> None:
    """What comes would fit, but hardly anything else would."""
    run(tmp_path / "lake", "append", "type=A")
    run(tmp_path / "lake", "remote", "add", "origin", str(tmp_path / "remote"))
    run(tmp_path / "lake", "push")
    with mounts.tmpfs(tmp_path / "disk", 4 << 20) as disk:
        words = ["clone", str(tmp_path / "remote"), str(disk / "clone")]
        said = run(tmp_path / "none", *words, code=1).stderr
    assert "67,108,864 to stay free" in said
