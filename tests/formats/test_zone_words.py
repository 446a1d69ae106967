"""Words for zones behind a time: read where they mean one zone, kept where they may be several."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.cli import cli
from lakelog.ingest import transform


def test_a_word_of_several_zones_is_of_the_zone_of_its_source(
    lake: lakelog.Lake, tmp_path: Path
) -> None:
    """Where a source has a zone, a word that may be several means that one; others say theirs."""
    path = tmp_path / "some.log"
    path.write_text("2025-07-12 08:00:00 CST a\n2025-07-12 08:00:00 CEST b\n")
    lake.ingest(str(path), format="applog@Asia/Shanghai")
    rows = lake.sql("SELECT hour(time AT TIME ZONE 'UTC') FROM events ORDER BY position")
    assert rows.fetchall() == [(0,), (6,)]


@pytest.mark.parametrize("few", [0, 500])
def test_lines_of_mongodb_are_never_one_event(lake: lakelog.Lake, tmp_path: Path, few: int) -> None:
    """Its id is that of a kind of message: lines that share one are events of their own."""
    line = (
        '{"t":{"$date":"2025-07-12T00:14:%02d.837+02:00"},"s":"W","c":"NETWORK","id":22943,'
        '"ctx":"listener","msg":"Connection accepted","attr":{"n":1}}\n'
    )
    path = tmp_path / "mongod.log"
    path.write_text("".join(line % n for n in range(12)))
    with mock.patch.object(transform, "FEW", few):
        report = lake.ingest(str(path))
    assert (report.events, report.files[0].format) == (12, "mongodb")
    query = "SELECT DISTINCT level, source, message, data->>'id', id FROM events"
    assert lake.sql(query).fetchall() == [("WARN", "NETWORK", "Connection accepted", "22943", None)]
    assert lake.sql("SELECT count(DISTINCT time) FROM events").fetchall() == [(12,)]


@pytest.mark.parametrize("few", [0, 500])
@pytest.mark.parametrize(
    "line",
    [
        "db-1  | 2025-07-12T00:14:12.837 {} words",
        "db-1  | 2025-07-12 00:14:12.837 {} INFO words",
        "db-1 | [2025-07-12 00:14:12,837 {}] words",
    ],
)
def test_a_zone_word_of_a_program_under_compose(
    lake: lakelog.Lake, tmp_path: Path, line: str, few: int
) -> None:
    """Programs under docker compose name zones, too."""
    (tmp_path / "some.log").write_text(f"{line}\n".format("CEST") * 3)
    with mock.patch.object(transform, "FEW", few):
        report = lake.ingest(str(tmp_path / "some.log"))
    query = "SELECT DISTINCT (time AT TIME ZONE 'UTC')::VARCHAR, source, message FROM events"
    rows = lake.sql(query).fetchall()
    assert rows == [("2025-07-11 22:14:12.837", "db-1", "words")]
    assert report.files[0].note == ""


@pytest.mark.parametrize("count", [2, 40_000])
def test_a_zone_that_cannot_be_known_is_said(
    lake: lakelog.Lake, tmp_path: Path, count: int
) -> None:
    """The report of an ingest and `formats test` name words that may mean several zones, once; not
    where the zone is configured, nor where such a word is none."""
    path = tmp_path / "some.log"
    path.write_text("2025-07-12 08:00:00 CST a\n2025-07-12 08:00:00 CEST INFO b\n" * (count // 2))
    note = "times with CST are read as UTC: say which zone is meant with --zone"
    command = ["formats", "test", str(path)]
    shown = CliRunner().invoke(cli, [*command, "--json"])
    assert json.loads(shown.stdout)["note"] == note
    shown = CliRunner().invoke(cli, [*command, "--zone", "Asia/Shanghai", "--json"])
    assert json.loads(shown.stdout)["note"] == ""
    assert lake.ingest(str(path)).files[0].note == note
    with path.open("a") as file:
        file.write("2025-07-12 08:00:01 CST a\n")
    assert lake.ingest(str(path)).files[0].note == ""
    (tmp_path / "other.log").write_text("2025-07-12 08:00:00 GET /x\n2025-07-12 08:00:00 NOTE y\n")
    assert lake.ingest(str(tmp_path / "other.log")).files[0].note == ""
