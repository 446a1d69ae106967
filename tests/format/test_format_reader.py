"""FORMAT.md is enough to write a reader from: one that was reads the same rows as lakelog."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.values import to_micros
from tests.support import damage, lakes, second_reader

Row = dict[str, Any]


def comparable(rows: list[Row]) -> list[Any]:
    """Return rows in one order, whatever order they came in."""
    return sorted((sorted(row.items()) for row in rows), key=repr)


def lakelog_rows(lake: lakelog.Lake, table: str) -> list[Row]:
    """Return the rows of a table as the second reader gives them: times in microseconds."""
    rows = lake.sql(f"SELECT * FROM {table}").to_arrow_table().to_pylist()
    return [
        {k: to_micros(v) if k in ("time", "ingested_at") and v else v for k, v in row.items()}
        for row in rows
    ]


def compare(path: str, refs: lakes.Refs) -> int:
    """Check that both readers agree on every ref, and on the quarantine; return the rows seen."""
    seen = 0
    for branch, tag in refs:
        with lakelog.open(path, create=False, branch=branch or "main") as lake:
            table = f'"{tag}".events' if tag else "events"
            mine = lakelog_rows(lake, table)
            assert comparable(second_reader.rows(path, branch, tag)) == comparable(mine)
            if branch:
                assert lake.count() == len(mine)
                bad = second_reader.rows(path, branch, kind="quarantine")
                assert comparable(bad) == comparable(lakelog_rows(lake, "quarantine"))
        seen += len(mine)
    return seen


@pytest.mark.matrix
@pytest.mark.parametrize("kind", lakes.ALL)
def test_both_readers_agree(kind: str, tmp_path: Path) -> None:
    """The second reader and lakelog read the same rows, before and after everything is sealed."""
    build = lakes.ALL[kind]
    path = damage.copied(str(lakes.at_rest(build)), tmp_path / "lake")
    refs = lakes.REFS[build]
    before = compare(path, refs)
    for branch in {branch for branch, _ in refs if branch}:
        with lakelog.open(path, branch=branch) as lake:
            lake.settle()
    assert compare(path, refs) == before
    with lakelog.open(path) as lake:
        assert lake.verify().problems == ()


def test_the_second_reader_stands_alone() -> None:
    """The second reader imports nothing of lakelog and is under 290 lines long."""
    text = Path(second_reader.__file__).read_text("utf-8")
    imports = [n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.Import, ast.ImportFrom))]
    names = {a.name for n in imports for a in n.names} | {getattr(n, "module", "") for n in imports}
    assert not any(str(name).startswith(("lakelog", "tests")) for name in names)
    assert len(text.splitlines()) < 290


def test_a_deleted_branch_is_not_there(tmp_path: Path) -> None:
    """Both readers refuse a branch whose newest move deletes it, and one that never was."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake, lake.branch("gone") as other:
        lakelog.history.delete_branch(lake.store, "gone", other.settle)
        for name in ("gone", "never"):
            with pytest.raises(LookupError):
                second_reader.rows(path, name)
            with pytest.raises(LookupError):
                lakelog.open(path, branch=name).count()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """The second reader refuses a lake of a later format."""
    path = tmp_path / "lake"
    lakes.plain(str(path))
    data = lakelog.document.encode({"format": 5, "lake": "", "settings": {}})
    (path / "lakelog.json").write_bytes(data)
    with pytest.raises(ValueError, match="newer"):
        second_reader.rows(str(path))
