"""Repairing an attached directory by its bucket, and a bucket by what a machine has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lakelog.lake import Lake
from tests.support.attached import SharedMachines, append, numbers
from tests.support.cli import run


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[SharedMachines]:
    """Two machines that have published and read the same events."""
    machines = SharedMachines(tmp_path)
    for number in range(3):
        append(machines["a"], number)
        machines.exchange("a", "b")
    machines["a"].tag("v1")
    machines.exchange("b")
    assert numbers(machines["a"]) == numbers(machines["b"]) == [0, 1, 2]
    yield machines
    machines.close()


def damage(path: Path) -> Path:
    """Change a byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


def first_segment(root: Path) -> Path:
    """A file of a segment below a directory."""
    return sorted((root / "segments").rglob("*.parquet"))[0]


def repaired(machines: SharedMachines, name: str) -> Lake:
    """Repair the directory of a machine, and open it again."""
    machines[name].repair()
    return machines.reopened(name)


def test_what_is_damaged_here_comes_from_the_bucket_again(
    machines: SharedMachines, tmp_path: Path
) -> None:
    root = tmp_path / "b"
    damage(first_segment(root))
    damage(root / "refs" / "heads" / "main" / "000000000003.json")
    damage(root / "refs" / "tags" / "v1.json")
    (root / "refs" / "heads" / "main" / "000000000002.json").unlink()
    assert not machines.reopened("b").verify().intact
    run(root, "repair", "--yes")
    lake = machines.reopened("b")
    assert lake.verify().intact
    assert numbers(lake) == [0, 1, 2]
    assert lake.at("v1").count() == 3
    assert len(list((root / "cache" / "damaged").iterdir())) >= 2


def test_what_is_damaged_in_the_bucket_is_restored_from_here(
    machines: SharedMachines, tmp_path: Path
) -> None:
    damaged = damage(first_segment(tmp_path / "bucket"))
    name = damaged.relative_to(tmp_path / "bucket")
    shown = run(tmp_path / "a", "repair", "--json").output
    assert damaged.read_bytes() == (tmp_path / "a" / name).read_bytes()
    assert damaged.stem in shown
    assert numbers(machines["c"]) == [0, 1, 2]


def test_what_nobody_here_has_is_named_and_another_machine_restores_it(
    machines: SharedMachines, tmp_path: Path
) -> None:
    damaged = damage(first_segment(tmp_path / "bucket"))
    (tmp_path / "a" / damaged.relative_to(tmp_path / "bucket")).unlink()
    machines.reopened("a")
    outcome = machines["a"].repair()
    assert [damaged.stem in line for line in outcome.lost] == [True]
    run(tmp_path / "a", "repair", code=3)
    repaired(machines, "b")
    assert machines["a"].repair().lost == []
    assert numbers(machines.reopened("a")) == [0, 1, 2]
