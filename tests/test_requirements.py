"""Tests that need a server or a program skip where it is missing, and say what to install."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import requirements
from tests.support.tree import ROOT

SKIPS = re.compile(
    r"pytest\.skip\(|importorskip|skipif|mark\.skip\b|shutil\.which\(|util\.find_spec"
)
PLANTED = """
import pytest
from tests.support.requirements import MOUNTS, give_up, need, need_module

@pytest.fixture(scope="module")
def server():
    need("sshd", "redis-server")

def test_fixture_1(server): ...
def test_fixture_2(server): ...
def test_fixture_3(server): ...

@pytest.mark.needs("../shared")
@pytest.mark.parametrize("path", [])
def test_mark(path): ...

@pytest.mark.needs(MOUNTS)
def test_mounts(server): ...

def test_module():
    need_module("polars.io")

def test_machine():
    give_up("leases")

def test_present():
    assert need_module("sqlite3.dbapi2").connect
"""


def run(
    folder: Path, *words: str, without: str = "", text: str = PLANTED
) -> subprocess.CompletedProcess[str]:
    """Run a planted file of tests with this project's conftest."""
    folder.mkdir(exist_ok=True)
    (folder / "test_planted.py").write_text(text)
    project = ["-p", "tests.conftest", "-c", ROOT / "pyproject.toml"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *project, *words, folder / "test_planted.py"],
        cwd=ROOT,
        env={**os.environ, "LAKELOG_TEST_WITHOUT": without, "LAKELOG_TEST_SAMPLE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.parametrize("processes", ["0", "2"])
def test_closing_lines_count_skips_by_cause(tmp_path: Path, processes: str) -> None:
    """Each cause names the package, the most frequent first, in one process and in several."""
    without = f"sshd,../shared,polars,{requirements.MOUNTS}"
    done = run(tmp_path / "t", "-n", processes, without=without)
    assert done.returncode == 0, done.stdout + done.stderr
    closing = done.stdout[done.stdout.index("skipped 7") :].splitlines()
    assert closing[1] == "  3 need sshd (Debian package openssh-server)"
    assert sorted(closing[2:6]) == [
        "  1 needs ../shared (data beside the repository, not part of it)",
        "  1 needs leases",
        "  1 needs polars (Python package polars)",
        "  1 needs root with mount rights",
    ]
    assert closing[6].startswith("1 passed, 7 skipped")


def test_all_hides_programs_and_not_python_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKELOG_TEST_WITHOUT", "all")
    for name, package in requirements.PROGRAMS.items():
        assert requirements.find(name) is None
        assert requirements.lacking("duckdb", name) == f"needs {name} (Debian package {package})"
    assert requirements.lacking(requirements.MOUNTS) == "needs root with mount rights"


def test_a_program_outside_of_path_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server in /usr/sbin, or of PostgreSQL, is found by a user whose PATH does not have it."""
    monkeypatch.delenv("LAKELOG_TEST_WITHOUT", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "redis-server").write_text("#!/bin/sh\n")
    (tmp_path / "redis-server").chmod(0o755)
    assert requirements.find("redis-server") == str(tmp_path / "redis-server")
    for name, place in (("sshd", "/usr/sbin/sshd"), ("initdb", "/usr/lib/postgresql/")):
        found = requirements.find(name)
        assert found is None or found.startswith(place)


def test_tests_skip_only_through_the_requirements() -> None:
    """No test asks for a program, a package or data in a way of its own."""
    allowed = {ROOT / "tests/support/requirements.py", Path(__file__)}
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if path not in allowed
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if SKIPS.search(line)
    ]
    assert not found, "\n".join(found)


def test_a_failure_of_a_package_that_is_present_is_no_skip(tmp_path: Path) -> None:
    """Only what is not installed skips; a package that cannot be imported is an error."""
    broken = tmp_path / "t"
    broken.mkdir()
    (broken / "damaged_package.py").write_text("import nothing_like_this\n")
    text = "from tests.support.requirements import need_module\nneed_module('damaged_package').x\n"
    done = run(broken, "-n", "0", text=text)
    assert done.returncode == 2
    assert "nothing_like_this" in done.stdout
