"""What reads segments by their files does so on a machine that has none of them, too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import Damaged
from tests.support.attached import SharedMachines, append, numbers
from tests.support.cli import run


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[SharedMachines]:
    """Machines a, which has all segments, and b, which has none."""
    machines = SharedMachines(tmp_path)
    append(machines["a"], 1, 2)
    machines["a"].exchange()
    machines["a"].tag("good")
    append(machines["a"], 3)
    machines.exchange("a", "b")
    assert not list((tmp_path / "b" / "segments").rglob("*.parquet"))
    yield machines
    machines.close()


def test_a_file_of_a_name_that_another_machine_read_is_ingested(
    machines: SharedMachines, tmp_path: Path
) -> None:
    path, same = tmp_path / "app.log", '{"type": "T", "data": {"n": 10}}\n'
    path.write_text(same + '{"type": "T", "data": {"n": 11}}\n')
    machines["a"].ingest(path)
    path.unlink()
    path.write_text(same + '{"type": "T", "data": {"n": 12}}\n{"type": "T", "data": {"n": 13}}\n')
    machines["b"].ingest(path)
    machines.exchange("a", "b")
    assert numbers(machines["a"], "type = 'T'") == [1, 2, 3, 10, 10, 11, 12, 13]


def test_lines_in_quarantine_are_parsed_again(machines: SharedMachines, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"type": "T", "data": {"n": 4}}\n{"type": broken\n')
    machines["a"].ingest(path)
    machines["b"].exchange()
    machines.close()
    assert "1 left" in run(tmp_path / "b", "quarantine", "replay").stderr


def test_a_rollback_is_examined_and_made(machines: SharedMachines, tmp_path: Path) -> None:
    machines.close()
    result = run(tmp_path / "b", "rollback", "good")
    assert "main is at good again: 2 events (was 3)" in result.stderr


def test_other_engines_find_the_files(machines: SharedMachines, tmp_path: Path) -> None:
    machines.close()
    names = run(tmp_path / "b", "connect", "--format", "files").stdout.split()
    assert names
    assert all(Path(name).exists() for name in names)


def test_columns_are_counted(machines: SharedMachines, tmp_path: Path) -> None:
    machines.close()
    counts = [
        {row["column"]: row["bytes"] for row in map(json.loads, answer.stdout.splitlines())}
        for answer in (run(tmp_path / name, "stats", "--columns") for name in "ab")
    ]
    assert counts[0] == counts[1]


def test_a_copy_of_the_directory_has_what_only_the_bucket_had(
    machines: SharedMachines, tmp_path: Path
) -> None:
    append(machines["b"], 4)
    machines["b"].backup(tmp_path / "copy")
    with lakelog.open(tmp_path / "copy", create=False) as copy:
        assert numbers(copy) == [1, 2, 3, 4]
        assert copy.verify().intact
        assert copy.at("good").count() == 2


def test_a_copy_that_would_lack_segments_is_refused(
    machines: SharedMachines, tmp_path: Path
) -> None:
    for path in (tmp_path / "bucket" / "segments").rglob("*.parquet"):
        path.unlink()
    with pytest.raises(Damaged, match="not copied"):
        machines["b"].backup(tmp_path / "copy")
