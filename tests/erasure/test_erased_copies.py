"""What got rows of an erased subject outside the lake is named until it is clean."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import InvalidEvent
from lakelog.lake import Lake
from tests.support.cli import run
from tests.support.sync_places import synced

ADA = "ada-3f9k2m"


def filled(path: Path) -> Lake:
    """A lake with ten events, five of them of ADA."""
    lake = lakelog.open(path / "lake", settings={"seal": "never"})
    lake.append([{"type": "A", "subject": ADA if n % 2 else f"u{n}"} for n in range(10)])
    lake.settle()
    return lake


def test_several_subjects_are_all_told_of(tmp_path: Path) -> None:
    """It is done when all of them are; a reason may name none of them."""
    with filled(tmp_path) as lake:
        lake.export("events", tmp_path / "out.csv")
        status = lake.erase(subject=["u0", ADA, "u2"], why="asked")
        assert [s.erasure.events for s in (*status.earlier, status)] == [1, 5, 1]
        assert len({s.erasure.key for s in (*status.earlier, status)}) == 3
        with pytest.raises(InvalidEvent, match="names the subject"):
            lake.erase(subject=["u4", "u6"], why="u6 asked")
        assert lake.count() == 3
        keys = [s.erasure.key for s in status.earlier]
        for key in (*keys[1:], status.erasure.key):
            lakelog.erasure.confirm(lake.store, key, str(tmp_path / "out.csv"))
        assert not lake.erasures()[0].is_done
        assert not status.is_done


def test_a_copy_of_what_the_lake_lost_before_is_named(tmp_path: Path) -> None:
    """The rows are in no state any more, and may be in an export."""
    with filled(tmp_path) as lake:
        lake.export("events", tmp_path / "out.csv")
        lake.erase(where=f"subject = '{ADA}'", why="by mistake")
        (tmp_path / "out.csv").touch()
        status = lake.erase(subject=ADA, why="asked")
        assert status.erasure.events == 0
        assert [place["name"] for place in status.copies] == [str(tmp_path / "out.csv")]


@pytest.mark.parametrize(
    ("words", "place", "name"),
    [
        ("sql SELECT%*%FROM%events -o {path}/rows.csv", "export", "{path}/rows.csv"),
        ("search {ada} -o {path}/found.jsonl", "export", "{path}/found.jsonl"),
        ("export events -o {path}/all.parquet", "export", "{path}/all.parquet"),
        ("replay --speed max --to-command cat%>{path}/seen", "replay", "cat"),
        ("subscriptions run mail --once --to-command cat%>{path}/seen", "subscription", "mail"),
    ],
)
def test_every_command_that_gives_rows_away_is_named(
    tmp_path: Path, words: str, place: str, name: str
) -> None:
    """A place that has the subject, by a search of its bytes, is named until it is gone or said to
    be clean."""
    filled(tmp_path).close()
    given = [w.format(path=tmp_path, ada=ADA).replace("%", " ") for w in words.split()]
    run(tmp_path / "lake", *given)
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert len(files) == 1
    assert place == "export" or ADA.encode() in files[0].read_bytes()
    with lakelog.open(tmp_path / "lake") as lake:
        status = lake.erase(subject=ADA, why="asked")
        (copy,) = status.copies
        name = name.format(path=tmp_path)
        assert (copy["place"], copy["name"]) == (place, name)
        assert name in str(copy["command"])
        lakelog.erasure.confirm(lake.store, status.erasure.key, name)
        assert lake.erasures()[-1].is_done


def test_the_next_sync_takes_the_rows_out(tmp_path: Path) -> None:
    """Also where the lake goes back to a state from before, which is read without them."""

    def subjects() -> list[str]:
        with sqlite3.connect(tmp_path / "out.db") as database:
            rows = database.execute("SELECT DISTINCT subject FROM events ORDER BY 1").fetchall()
        return [name for (name,) in rows]

    lake_path, target = str(tmp_path / "lake"), f"sqlite:{tmp_path}/out.db"
    with filled(tmp_path) as lake:
        lake.tag("before")
    others = [f"u{n}" for n in range(0, 10, 2)]
    synced(lake_path, target)
    assert subjects() == [ADA, *others]
    with lakelog.open(lake_path) as lake:
        status = lake.erase(subject=ADA, why="asked")
        assert [place["place"] for place in status.copies] == ["sync"]
        lake.rollback("before")
    said: list[str] = []
    assert synced(lake_path, target, say=said.append).is_rebuilt
    assert said == ["events were erased: all rows are written again"]
    assert subjects() == others
    assert not synced(lake_path, target).is_rebuilt
