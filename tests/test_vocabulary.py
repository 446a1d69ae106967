"""The wording of the code gets no worse: a ceiling for each package, and types that stand once.

The ceilings in tests/vocabulary.toml only ever fall; a package that is not named there keeps to
what all of them are to reach. `python -m tests.support.vocabulary` prints the figures of today.
"""

from __future__ import annotations

import tomllib

import pytest

from tests.support.tree import ROOT, Sources, sources
from tests.support.vocabulary import measure, names_taken, repeated_types

CEILINGS = tomllib.loads((ROOT / "tests/vocabulary.toml").read_text("utf-8"))
ROUNDING = 0.05


def breaches(tree: Sources) -> list[str]:
    """Return each figure that is above its ceiling, and each type that is defined twice."""
    reported = []
    for package, wording in measure(tree).items():
        ceilings = {**CEILINGS["wanted"], **CEILINGS["packages"].get(package, {})}
        for name, value in wording.figures().items():
            if value > ceilings[name] + ROUNDING:
                reported.append(f"{package}: {name} is {value}, the ceiling is {ceilings[name]}")
    for name, paths in repeated_types(tree).items():
        reported.append(f"type {name} is defined in {' and '.join(paths)}")
    return reported


def test_no_package_is_worded_worse() -> None:
    """Vague names, participles, Any, names that others take, and types of one name: no more."""
    assert not breaches(sources("lakelog")), "\n".join(breaches(sources("lakelog")))


@pytest.mark.parametrize(
    ("tree", "reported"),
    [
        ({"lakelog/odd/a.py": "def f(rest):\n    return rest\n"}, "odd: vague is 100.0"),
        ({"lakelog/odd/a.py": "taken, size = 1, 2\n"}, "odd: participles is 50.0"),
        ({"lakelog/odd/a.py": "size: Any = 1\n"}, "odd: any is 1000.0"),
        (
            {"lakelog/odd/a.py": "class Gauge: ...\n", "lakelog/odd/b.py": "Gauge = dict\n"},
            "type Gauge is defined in lakelog/odd/a.py and lakelog/odd/b.py",
        ),
    ],
)
def test_a_worse_name_is_reported(tree: Sources, reported: str) -> None:
    """Each rule, with a tree that breaks it."""
    assert any(line.startswith(reported) for line in breaches(tree)), breaches(tree)


def test_names_count_once_however_they_are_imported() -> None:
    """A name is taken from a package by its module or by itself; within the package it is free."""
    tree = {
        "lakelog/low/a.py": "x = 1\n",
        "lakelog/low/b.py": "from lakelog.low import a\na.x\n",
        "lakelog/up/c.py": "from lakelog.low import a\nfrom lakelog.low.a import x, y\na.x\na.z\n",
    }
    assert names_taken(tree)["low"] == {f"lakelog.low.a.{name}" for name in "xyz"}
