"""The five notebooks run anywhere, without a warning, and show what is committed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ipykernel")
pytest.importorskip("sklearn", reason="NOT TESTED: scikit-learn is not installed")
nbformat = pytest.importorskip("nbformat")
notebook_runs = pytest.importorskip("tests.support.notebook_runs")


def test_there_are_five() -> None:
    assert [path.name[0] for path in notebook_runs.paths()] == [*"12345"]


@pytest.mark.parametrize("path", notebook_runs.paths(), ids=lambda path: path.stem)
def test_shows_what_is_committed(path: Path) -> None:
    committed = nbformat.read(path, as_version=4)
    seen = notebook_runs.executed(path)
    assert notebook_runs.warnings(seen) == []
    assert notebook_runs.differences(committed, seen) == ""
