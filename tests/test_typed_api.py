"""The Python API for those who check types: a program that uses all of it is clean, and runs."""

import subprocess
import sys
from pathlib import Path

import lakelog
from lakelog import Lake
from tests.support import typed_program

PROGRAM = Path(typed_program.__file__)
INNER = {"engine", "sealer", "writer", "settle", "repair", "close"}
"""Public for other parts of lakelog, not what a program calls."""


def check(path: Path) -> str:
    """What mypy --strict says of one file."""
    words = [sys.executable, "-m", "mypy", "--strict", "--warn-unreachable", "--no-incremental"]
    done = subprocess.run(
        [*words, "--config-file", "pyproject.toml", "--follow-imports=silent", str(path)],
        capture_output=True,
        text=True,
        cwd=PROGRAM.parents[2],
    )
    return done.stdout + done.stderr


def test_the_whole_api_passes_mypy_strict() -> None:
    """`mypy --strict` finds nothing in a program that uses the whole API."""
    assert check(PROGRAM).startswith("Success"), check(PROGRAM)


def test_the_program_runs(tmp_path: Path) -> None:
    """What the types promise is so."""
    typed_program.main(tmp_path)


def test_wrong_use_is_found(tmp_path: Path) -> None:
    """Methods that are not there, and values of the wrong type, are errors."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import lakelog\nlake = lakelog.open('x')\nlake.append(3)\n"
        "lake.sql('FROM events').fetchal()\n"
        "n: int = lake.sql('FROM events').columns\n"
    )
    said = check(wrong)
    assert said.count("error:") == 3, said


def test_the_program_uses_every_method() -> None:
    """No method of a lake and no public name is missing from the program."""
    text = PROGRAM.read_text()
    methods = {n for n in vars(Lake) if not n.startswith("_")} - INNER
    assert [n for n in sorted(methods) if f".{n}" not in text] == []
    names = {n for n in lakelog.__all__ if not n.startswith("_")} - {"Damaged", "Diff", "views"}
    assert [n for n in sorted(names) if n not in text] == []
