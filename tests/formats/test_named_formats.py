"""Formats that users asked for by name: one record of each, the whole event of it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.cli import cli
from lakelog.ingest import transform
from lakelog.ingest.audit.audit import audit
from tests.support.named_formats import INGEST, SAMPLES, Sample
from tests.support.named_programs import PROGRAMS
from tests.support.requirements import need

ALL = (*SAMPLES, *PROGRAMS)
COLUMNS = ("type", "category", "level", "source", "subject", "message", "id")
each = pytest.mark.parametrize("sample", ALL, ids=lambda sample: sample.name)


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, lakelog.Lake]]:
    """Lakes that all samples share, by how many lines the exact rule takes for itself."""
    lakes = {
        few: lakelog.open(
            str(tmp_path_factory.mktemp("named") / "lake"), settings={"seal": "never"}
        )
        for few in (0, transform.FEW)
    }
    yield lakes
    for lake in lakes.values():
        assert lake.verify().problems == ()
        lake.close()


def written(sample: Sample, folder: Path) -> Path:
    """The file of a sample; skipped where it is one of the shared ones and they are absent."""
    text = sample.content()
    if text is None:
        need("../shared")
    path = folder / sample.file
    path.write_text(text)
    return path


def shown(row: dict[str, Any], started: dt.datetime) -> dict[str, Any]:
    """A row as samples write it."""
    now = dt.datetime.now(dt.UTC)
    time = row["time"].astimezone(dt.UTC)
    data = json.loads(row["data"] or "{}", parse_float=Decimal)
    return {
        "time": INGEST if started <= time <= now else f"{time:%Y-%m-%dT%H:%M:%S.%f}",
        **{column: row[column] for column in COLUMNS if row[column] is not None},
        "data": without_nulls(data),
    }


def without_nulls(data: dict[str, Any]) -> dict[str, Any]:
    """What a record tells; a field that a format has and a record lacks is null."""
    return {key: value for key, value in data.items() if value is not None}


@pytest.mark.matrix
@pytest.mark.parametrize("few", [0, transform.FEW])
@each
def test_every_field_of_a_named_format(
    lakes: dict[int, lakelog.Lake],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sample: Sample,
    few: int,
) -> None:
    """Time with microseconds, all columns and every key of data, by SQL as by the exact rule."""
    monkeypatch.setattr(transform, "FEW", few)
    lake, started = lakes[few], dt.datetime.now(dt.UTC)
    before = lake.sql("SELECT count(*) FROM events").fetchall()[0][0]
    report = lake.ingest(str(written(sample, tmp_path)))
    assert (report.files[0].format, report.quarantined) == (sample.form, 0)
    rows = lake.sql(
        "SELECT * FROM events WHERE coalesce(source, '') <> 'lakelog'"
        " ORDER BY ingested_at, origin, position OFFSET ?",
        [before],
    )
    events = [shown(row, started) for row in rows.to_arrow_table().to_pylist()]
    wanted = [{**event, "data": without_nulls(event["data"])} for event in sample.events]
    assert events == wanted


def test_each_line_of_a_named_format_is_there_once(lakes: dict[int, lakelog.Lake]) -> None:
    """An audit of all these files finds each line once."""
    for lake in lakes.values():
        files = audit(lake.store, lake.branch_name, lake.engine, []).files
        assert [file.wrong for file in files] == [0] * len(files)


@pytest.mark.matrix
@each
def test_a_named_format_can_be_tried(tmp_path: Path, sample: Sample) -> None:
    """`formats test` says which format it has, and what became of each field."""
    path = written(sample, tmp_path)
    done = CliRunner().invoke(cli, ["formats", "test", str(path), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["format"] == sample.form
    kept = [outcome["event"] for outcome in found["outcomes"]]
    levels = [{k: e.get(k) for k in ("type", "level", "message")} for e in kept]
    assert levels == [
        {k: e.get(k) for k in ("type", "level", "message")} for e in sample.events[: len(kept)]
    ]
    assert kept
    assert found["quarantined"] == 0
