"""Names that others rely on, compared with the committed list of tests/public_surface.json.

A name that is added on purpose is added there by `python -m tests.support.public_surface`.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

import lakelog
from tests.support import public_surface

PUBLIC_NAMES = range(5, 17)
EXPECTED = json.loads(public_surface.FILE.read_text())


@pytest.fixture(scope="module")
def surface() -> dict[str, object]:
    return json.loads(json.dumps(public_surface.surface()))


@pytest.mark.parametrize("part", [part for part in EXPECTED if part != "documented imports"])
def test_the_public_surface_is_unchanged(surface: dict[str, object], part: str) -> None:
    """Names of the package, of older systems, programs, verbs with options, files on disk."""
    assert surface[part] == EXPECTED[part], "if it is meant: python -m tests.support.public_surface"


def test_every_name_of_the_package_resolves() -> None:
    """What `dir(lakelog)` lists can be asked for."""
    package = importlib.import_module("lakelog")
    assert [name for name in EXPECTED["dir"] if not hasattr(package, name)] == []


@pytest.mark.thorough
def test_documented_imports_work_in_a_new_process() -> None:
    """What a page has ever shown works; each module is the first that its process imports."""
    names: dict[str, list[str]] = {}
    for documented in EXPECTED["documented imports"]:
        module, _, name = documented.partition(":")
        names.setdefault(module, []).extend([name] if name else [])
    for module, wanted in names.items():
        code = f"from {module} import {', '.join(wanted)}" if wanted else f"import {module}"
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, cwd=public_surface.ROOT)
        assert done.returncode == 0, (code, done.stderr)


def test_a_former_module_is_the_one_that_has_moved() -> None:
    """Not a copy of it: its errors are caught and its state is shared."""
    former = importlib.import_module("lakelog.transfer.state")
    assert former is importlib.import_module("lakelog.state.state")


def public_api_faults(package: object) -> list[str]:
    """Report what is wrong with the `__all__` of a package."""
    names = list(getattr(package, "__all__", ()))
    found = [f"{name} does not resolve" for name in names if not hasattr(package, name)]
    if names != sorted(set(names)):
        found.append(f"__all__ is not sorted, or names something twice: {names}")
    if len(names) not in PUBLIC_NAMES:
        found.append(f"{len(names)} names; about ten is what a reader can hold")
    return found


def test_the_public_api_is_true() -> None:
    """`lakelog.__all__` is sorted, short, and each of its names is there."""
    assert public_api_faults(lakelog) == []


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["a", "b", "c", "d", "gone"], "gone does not resolve"),
        (["b", "a", "c", "d", "e"], "not sorted"),
        (["a", "a", "b", "c", "d"], "twice"),
        (["a"], "1 names"),
        ([], "0 names"),
    ],
)
def test_a_false_public_api_is_reported(names: list[str], fault: str) -> None:
    """A planted name that is not there, out of order, or a list too long or short is reported."""
    faults = public_api_faults(SimpleNamespace(__all__=names, a=1, b=2, c=3, d=4, e=5))
    assert len(faults) == 1
    assert fault in faults[0]
