"""Rows that a synced table refused are in the quarantine, and are erased with their events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.sync.comparison import check
from lakelog.sync.sync import sync
from tests.support.sync_places import SqlitePlace

NAMES = "ada", "bob", "cid", "dan"
OPTIONS: dict[str, Any] = {
    "query": "SELECT seq, data->>'mail' AS mail FROM events",
    "columns": {"mail": "integer"},
    "on_error": "quarantine",
}
WITHOUT_SEQ = OPTIONS | {
    "query": "SELECT data->>'mail' AS mail, count(*) AS n FROM events GROUP BY ALL",
    "mode": "replace",
}


def append(lake: lakelog.Lake, *names: str) -> None:
    """Append an event of each subject, whose rows are refused."""
    lake.append([{"type": "SIGNUP", "subject": n, "data": {"mail": f"{n}@zz"}} for n in names])


def refused(lake: lakelog.Lake) -> list[str]:
    """The subjects whose rows are in the quarantine."""
    lines = lake.sql("SELECT line FROM quarantine ORDER BY line").fetchall()
    return [name for name in NAMES for (line,) in lines if f"{name}@zz" in line]


@pytest.mark.parametrize("options", [OPTIONS, WITHOUT_SEQ])
@pytest.mark.parametrize("way", ["subjects", "condition"])
def test_refused_rows_are_erased_with_their_events(
    home: Path, lake: lakelog.Lake, way: str, options: dict[str, Any]
) -> None:
    """Also where they do not say whose they are; those of others are there after the next sync."""
    place = SqlitePlace(home)
    append(lake, *NAMES)
    sync(lake, place.url, **options)
    assert refused(lake) == list(NAMES)
    if way == "subjects":
        lake.erase(subject=["ada", "cid"], why="request 17")
    else:
        lake.erase(where="data->>'mail' IN ('ada@zz', 'cid@zz')", why="request 17")
    lake.settle()
    for path in (home / "lake").rglob("*"):
        assert path.is_dir() or b"ada@zz" not in path.read_bytes()
    sync(lake, place.url, **options)
    lake.settle()
    assert refused(lake) == ["bob", "dan"]


def test_a_number_that_is_given_again_is_that_of_another_row(
    home: Path, lake: lakelog.Lake
) -> None:
    """After a rollback another event has the seq of an erased one; its row is refused as well."""
    place = SqlitePlace(home)
    lake.tag("empty")
    append(lake, "ada")
    sync(lake, place.url, **OPTIONS)
    lake.erase(subject="ada", why="request 17")
    lake.rollback("empty")
    append(lake, "bob")
    assert sync(lake, place.url, **OPTIONS).quarantined == 1
    lake.settle()
    assert refused(lake) == ["bob"]


def test_a_table_is_the_same_from_another_directory(
    home: Path, lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its refused rows are known to be in the quarantine, and an erasure says where it is."""
    append(lake, "ada", "bob")
    for number, name in enumerate(("one", "two", "two")):
        (home / name).mkdir(exist_ok=True)
        monkeypatch.chdir(home / name)
        url = f"sqlite:{home}/two/t.db" if number == 2 else "sqlite:t.db"
        sync(lake, url, **OPTIONS)
    assert lake.sql("SELECT count(*) FROM quarantine").fetchall() == [(4,)]
    assert check(lake, "sqlite:t.db")[0].is_equal
    status = lake.erase(subject="ada", why="request 17")
    assert {copy["name"] for copy in status.copies} == {
        f"sqlite:{home}/one/t.db",
        f"sqlite:{home}/two/t.db",
    }
