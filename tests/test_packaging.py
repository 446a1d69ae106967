"""`pip install .` into an empty environment: it works without uv, and the wheel carries every file.

Needs the package index that pip is configured for; where none is reachable, the skip says so.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.requirements import give_up
from tests.support.tree import ROOT

UNREACHABLE = re.compile(
    r"No matching distribution|Could not find a version|NewConnectionError|ConnectTimeout"
    r"|Name or service not known|Temporary failure in name resolution|Network is unreachable"
)


def test_the_lock_has_every_extra_and_names_the_public_index() -> None:
    """`uv sync` installs what pyproject.toml says, from the index that everybody has."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    own = next(p for p in lock["package"] if p["name"] == "lakelog")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    locked = {n: {p["name"] for p in own["optional-dependencies"][n]} for n in extras}
    assert locked == {n: {re.split(r"[\[<>=]", r)[0] for r in rs} for n, rs in extras.items()}
    sources = {p["source"].get("registry") for p in lock["package"] if p is not own}
    assert sources == {"https://pypi.org/simple"}


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
