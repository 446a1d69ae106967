"""What tests of saved states begin with: a lake, and a directory to save."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[lakelog.Lake]:
    with lakelog.open(tmp_path / "lake") as opened:
        yield opened


def make(tmp_path: Path, files: dict[str, bytes], name: str = "app") -> Path:
    """Make a directory with files of these contents."""
    home = tmp_path / name
    for path, content in files.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(content)
    return home
