"""The five notebooks run anywhere, without a warning, and show what is committed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.requirements import need_module

need_module("ipykernel")
need_module("sklearn")
notebook_runs = need_module("tests.support.notebook_runs")


def test_there_are_five() -> None:
    assert [path.name[0] for path in notebook_runs.paths()] == [*"12345"]


@pytest.mark.matrix
@pytest.mark.parametrize("path", notebook_runs.paths(), ids=lambda path: path.stem)
def test_shows_what_is_committed(path: Path) -> None:
    # In a process of its own: a client of kernels leaves threads behind, and other tests fork.
    command = [sys.executable, "-m", "tests.support.notebook_runs", path]
    done = subprocess.run(
        command, cwd=notebook_runs.ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout == f"{path.name}: as committed\n", done.stderr
    assert done.returncode == 0
