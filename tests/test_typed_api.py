"""The Python API for those who check types: a program that uses all of it is clean, and runs."""

import subprocess
import sys
from pathlib import Path

import pytest

import lakelog
from lakelog import Lake
from tests.support import protected, typed_program

PROGRAM = Path(typed_program.__file__)
INNER = {"engine", "sealer", "writer", "settle", "repair", "close"}
"""Public for other parts of lakelog, not what a program calls."""


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What mypy --strict says of the program and of a wrong one, in one run; by file."""
    wrong = tmp_path_factory.mktemp("typed") / "wrong.py"
    wrong.write_text(
        "import lakelog\nlake = lakelog.open('x')\nlake.append(3)\n"
        "lake.sql('FROM events').fetchal()\n"
        "n: int = lake.sql('FROM events').columns\n"
    )
    words = [sys.executable, "-m", "mypy", "--strict", "--warn-unreachable", "--no-incremental"]
    done = subprocess.run(
        [*words, "--config-file=pyproject.toml", "--follow-imports=silent", PROGRAM, wrong],
        capture_output=True,
        text=True,
        cwd=PROGRAM.parents[2],
    )
    lines = [line for line in done.stdout.splitlines() if ": error:" in line]
    # A crash would be no finding either: it has other words at its end.
    assert f"Found {len(lines)} errors in" in done.stdout, done.stdout + done.stderr
    by_file: dict[str, list[str]] = {"program": [], "wrong": []}
    for line in lines:
        by_file["wrong" if "wrong.py" in line else "program"].append(line)
    return by_file


@pytest.mark.thorough
def test_the_whole_api_passes_mypy_strict(findings: dict[str, list[str]]) -> None:
    """`mypy --strict` finds nothing in a program that uses the whole API."""
    assert findings["program"] == []


def test_the_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the types promise is so."""
    protected.keys_in(tmp_path, monkeypatch)
    typed_program.main(tmp_path)


@pytest.mark.thorough
def test_wrong_use_is_found(findings: dict[str, list[str]]) -> None:
    """Methods that are not there, and values of the wrong type, are errors."""
    assert len(findings["wrong"]) == 3, findings["wrong"]


def test_the_program_uses_every_method() -> None:
    """No method of a lake and no public name is missing from the program."""
    text = PROGRAM.read_text()
    methods = {n for n in vars(Lake) if not n.startswith("_")} - INNER
    assert [n for n in sorted(methods) if f".{n}" not in text] == []
    names = {n for n in lakelog.__all__ if not n.startswith("_")} - {"Damaged", "Diff", "views"}
    assert [n for n in sorted(names) if n not in text] == []
