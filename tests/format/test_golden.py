"""Golden lakes: every format there ever was is opened, verified, read and continued."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

import lakelog
from tests.golden import make
from tests.support import second_reader

GOLDEN = sorted(make.LAKES.glob("format*.tar.gz"))


@pytest.fixture(params=GOLDEN, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """A copy of a golden lake, without its empty directories, and what is in it."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    beside = make.HERE / request.param.name.replace(".tar.gz", ".json")
    return str(tmp_path / "lake"), json.loads(beside.read_text("utf-8"))


def ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in the order of the file that is kept."""
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


def as_kept(rows: list[dict[str, Any]], kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows without the seq of those that were unpublished: they had none when kept."""
    tail = {(row["origin"], row["position"]) for row in kept if row["seq"] is None}
    unnumbered = [
        row | {"seq": None} if (row["origin"], row["position"]) in tail else row for row in rows
    ]
    return ordered(unnumbered)


def test_there_is_a_golden_lake_of_this_format() -> None:
    """The present format has a golden lake, and it is small enough for a repository."""
    names = [path.name for path in GOLDEN]
    assert f"format{lakelog.paths.FORMAT}.tar.gz" in names
    for path in (*make.HERE.iterdir(), *make.LAKES.iterdir()):
        assert path.is_dir() or path.stat().st_size < 200_000


def test_a_golden_lake_is_verified(golden: tuple[str, Any]) -> None:
    """Every byte of a golden lake verifies, though empty directories are missing."""
    path, _ = golden
    assert not Path(path, "cache").exists()
    with lakelog.open(path, create=False) as lake:
        report = lake.verify()
        assert report.problems == ()
        assert report.files > 30


def test_a_golden_lake_reads_as_it_did(golden: tuple[str, Any]) -> None:
    """Every branch, tag, quarantine and move reads as it did when the lake was made."""
    path, kept = golden
    found = make.contents(path)
    for name, branch in kept["branches"].items():
        now = found["branches"][name]
        now["events"] = as_kept(now["events"], branch["events"])
    assert found == kept


def test_a_golden_lake_reads_the_same_by_the_second_reader(golden: tuple[str, Any]) -> None:
    """The reader written from FORMAT.md alone gives the rows that were kept."""
    path, kept = golden
    for branch, found in kept["branches"].items():
        events = second_reader.rows(path, branch)
        assert as_kept(events, found["events"]) == found["events"]
        assert ordered(second_reader.rows(path, branch, kind="quarantine")) == found["quarantine"]
    for tag, rows in kept["tags"].items():
        assert ordered(second_reader.rows(path, tag=tag)) == rows


def test_a_golden_lake_goes_on(golden: tuple[str, Any]) -> None:
    """Today's code appends, dedupes by its ids, seals, compacts, tags, rolls back and collects."""
    path, kept = golden
    before = len(kept["branches"]["main"]["events"])
    with lakelog.open(path, create=False) as lake:
        lake.append([{"type": "ON", "id": "i1"}, {"type": "ON", "id": "on"}, {"type": "ON"}])
        assert lake.count() == before + 2
        lake.settle()
        assert lake.count() == before + 2
        lake.compact()
        lake.tag("on")
        lake.rollback("v1")
        assert make.rows(lake, "events") == kept["tags"]["v1"]
        lake.undo()
        assert lake.count() == before + 2
        lake.gc()
        assert lake.verify().problems == ()
    assert len(second_reader.rows(path)) == len(second_reader.rows(path, tag="on")) == before + 2


def test_a_golden_lake_is_read_without_being_written(golden: tuple[str, Any]) -> None:
    """Reading and verifying change no file of the lake outside its cache."""
    path, _ = golden

    def state() -> dict[str, bytes]:
        files = (p for p in Path(path).rglob("*") if p.is_file() and "cache" not in p.parts)
        return {os.fspath(p): p.read_bytes() for p in files}

    before = state()
    make.contents(path)
    with lakelog.open(path, create=False) as lake:
        lake.verify()
    assert state() == before
