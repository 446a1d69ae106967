"""A folder of a table is the same on this machine and in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakelog.open_tables.table_folder import TableFolder
from tests.support.requirements import need

need("obstore")


@pytest.mark.parametrize("address", ["{}", "file://{}"], ids=["directory", "bucket"])
def test_files_are_there_until_they_are_deleted(tmp_path: Path, address: str) -> None:
    """A file has the name that it was given, and one that is gone may be deleted again."""
    folder = TableFolder(address.format(tmp_path), {})
    folder.put("a.parquet", b"rows")
    folder.put("b.parquet", b"rows")
    folder.delete("a.parquet")
    folder.delete("a.parquet")
    assert folder.names() == {"b.parquet"}
    assert (tmp_path / "b.parquet").read_bytes() == b"rows"
