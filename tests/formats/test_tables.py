"""Tables of formats are TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from lakelog.formats.tables import read_tables
from tests.support.tree import ROOT

TABLES = sorted((ROOT / "lakelog" / "formats").glob("*.toml"))


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_table_is_read_as_toml(path: Path) -> None:
    """What the package reads of a table is what any reader of TOML does, in the same order."""
    tables = tomllib.loads(path.read_text())
    assert read_tables(str(path)) == tables
    assert list(read_tables(str(path))) == list(tables)


@pytest.mark.parametrize("text", ["[a]\nb=1\n", "[a]\nb = 'x\n", '[a]\nb = "\\d"\n', "b c\n"])
def test_what_is_not_read_is_refused(tmp_path: Path, text: str) -> None:
    """A table that says something else is an error, never read otherwise."""
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"."):
        read_tables(str(path))
