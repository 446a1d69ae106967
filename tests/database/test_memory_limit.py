"""How much memory the engine of a process may take."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import lakelog
from lakelog import database
from lakelog.database import connection
from lakelog.paths import Paths
from lakelog.settings import Settings

ASKED = "SELECT current_setting('memory_limit')"


def limit(root: Path, memory_bytes: int = 0) -> str:
    """The limit of a fresh engine, in its own words."""
    connection._share_of_memory.cache_clear()
    opened = database.connect(Paths(str(root)), Settings(memory_bytes=memory_bytes))
    return str(opened.execute(ASKED).fetchall()[0][0])


def said(number: int) -> str:
    """What the engine says of so many bytes."""
    size = float(number)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{int(size * 10) / 10} {unit}"


def test_a_query_may_take_a_quarter_of_the_machine(tmp_path: Path) -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert limit(tmp_path) == said(max(machine // 4, 256_000_000))


@pytest.mark.parametrize(
    ("text", "expected"), [("1200000000\n", 300_000_000), ("64000000\n", 256_000_000)]
)
def test_a_container_is_asked_for_a_quarter_of_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: int
) -> None:
    (tmp_path / "memory.max").write_text(text)
    monkeypatch.setattr(connection, "_GROUPS", str(tmp_path))
    assert limit(tmp_path) == said(expected)


def test_the_setting_rules(tmp_path: Path, make_lake: Callable[..., lakelog.Lake]) -> None:
    assert limit(tmp_path, 400_000_000) == said(400_000_000)
    lake = make_lake(memory_bytes="300MB")
    assert lake.sql(ASKED).fetchall() == [(said(300_000_000),)]
    assert lake.store.settings.task_memory == 300_000_000
    assert Settings().task_memory == 1_000_000_000
