"""`pip install .` into an empty environment: it works without uv, and the wheel carries every file.

Needs the package index that pip is configured for; where none is reachable, the skip says so.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support import lowest
from tests.support.requirements import give_up
from tests.support.tree import ROOT

UNREACHABLE = re.compile(
    r"No matching distribution|Could not find a version|NewConnectionError|ConnectTimeout"
    r"|Name or service not known|Temporary failure in name resolution|Network is unreachable"
)


def test_the_constraints_name_a_version_of_everything_that_is_installed() -> None:
    """A package without a version there would be another one on each machine, and in a year."""
    pinned = _pins(ROOT / "constraints.txt")
    ours = {"lakelog", "pip", "setuptools", "wheel"}
    installed = {_normal(d.metadata["Name"]): d for d in importlib.metadata.distributions()}
    assert not installed.keys() - pinned.keys() - ours


def test_the_constraints_are_in_the_ranges_and_name_no_host() -> None:
    """pip and uv read one file, whatever index they are configured for."""
    text = (ROOT / "constraints.txt").read_text("utf-8")
    assert "://" not in text
    assert "--" not in text
    pinned = _pins(ROOT / "constraints.txt")
    for requirement in map(Requirement, _requirements()):
        versions = pinned[_normal(requirement.name)]
        assert versions, requirement
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_the_oldest_lane_takes_the_lowest_bounds() -> None:
    """Each direct dependency that has a lower bound is installed in just that version."""
    lowest_versions = lowest.lowest(ROOT / "pyproject.toml")
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for requirement in map(Requirement, requirements):
        version = lowest_versions.get(requirement.name)
        bounds = [s.version for s in requirement.specifier if s.operator == ">="]
        assert bounds == ([version] if version else []), requirement


def _pins(path: Path) -> dict[str, list[str]]:
    """The versions that a file of constraints names for each package, for any environment."""
    lines = [line for line in path.read_text("utf-8").splitlines() if line[:1] not in ("", "#")]
    pins: dict[str, list[str]] = {}
    for requirement in map(Requirement, lines):
        pins.setdefault(_normal(requirement.name), []).append(str(requirement.specifier)[2:])
    return pins


def _requirements() -> list[str]:
    """What lakelog and its extras ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return [*project["dependencies"], *chain(*project["optional-dependencies"].values())]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of a new environment that has lakelog and what it needs, no more."""
    place = tmp_path_factory.mktemp("packaging")
    subprocess.run([sys.executable, "-m", "venv", place / "env"], check=True)
    done = subprocess.run(
        # Compiling what is not imported here would take half of the time.
        [place / "env/bin/pip", "install", "--quiet", "--no-compile", "--retries=1", str(ROOT)],
        capture_output=True,
        text=True,
        cwd=place,
        env=_outside(),
    )
    if done.returncode and UNREACHABLE.search(done.stderr):
        last = done.stderr.strip().splitlines()[-1]
        give_up(f"a package index that pip can reach: {last}")
    assert done.returncode == 0, done.stderr
    return place / "env/bin"


def _outside() -> dict[str, str]:
    """The environment without what would let the tree or another virtualenv be found."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME", "COVERAGE_PROCESS_START")
    return {k: v for k, v in os.environ.items() if k not in hidden}


def _run(program: Path, *arguments: str, cwd: Path, text: str | None = None) -> str:
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, cwd=cwd, env=_outside(), input=text
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_pip_installs_a_program_that_works(installed: Path, tmp_path: Path) -> None:
    """An empty environment has `lakelog` after `pip install .`: version, ingest, SQL, views."""
    lakelog = installed / "lakelog"
    assert re.fullmatch(r"lakelog \d+\.\d+\.\d+\S*\n", _run(lakelog, "--version", cwd=tmp_path))
    (tmp_path / "a.jsonl").write_text(
        '{"type":"A","subject":"s","data":{"n":1}}\n{"type":"B","data":{"n":2}}\n'
    )
    _run(lakelog, "ingest", "a.jsonl", cwd=tmp_path)
    rows = _run(lakelog, "sql", "SELECT type, data->>'n' AS n FROM events ORDER BY 1", cwd=tmp_path)
    assert [json.loads(r) for r in rows.splitlines()] == [
        {"type": "A", "n": "1"},
        {"type": "B", "n": "2"},
    ]
    assert "A,1" in _run(lakelog, "view", "cardinality", "--format", "csv", cwd=tmp_path)
    asked = "import lakelog; print(lakelog.open('lake').count(), lakelog.__file__)"
    count, place = _run(installed / "python", "-c", asked, cwd=tmp_path).split(maxsplit=1)
    assert count == "2"
    assert place.startswith(str(installed.parent))


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_the_wheel_has_licence_types_and_data(installed: Path, tmp_path: Path) -> None:
    """The installed package has LICENSE, py.typed and every file beside the code, and no tests."""
    asked = "import importlib.metadata as m; print(*m.files('lakelog'), sep='\\n')"
    files = set(_run(installed / "python", "-c", asked, cwd=tmp_path).splitlines())
    beside = {
        p.relative_to(ROOT).as_posix()
        for p in (ROOT / "lakelog").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert beside - files == set()
    assert "lakelog/py.typed" in files
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in files)
    strays = {n.split("/")[0] for n in files} - {"lakelog", ".."}
    assert all(name.endswith(".dist-info") for name in strays), strays
